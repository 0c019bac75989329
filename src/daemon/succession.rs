//! Which instance of the router accepts, and what to do when it is not exactly one. Decided from what is seen alone: nothing of it is
//! remembered, so a deployer that is killed in the middle of an upgrade goes on where things are.
//!
//! **Invariant:** the instance that accepts is told to stop only when another one accepts.
//! **Invariant:** what one of two decides, the other decides too: of several that accept, the last to have begun goes on.

/// The numbers that instances have. All of them are permitted to slotd (`60-slot.rules`), each has a unit by the template.
pub const NUMBERS: std::ops::RangeInclusive<u8> = 1..=99;

/// What an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It starts, or starts again, and has not come up yet.
    Coming,
    /// The same, and PID 1 keeps something for it: it has been up before, and its unit brings it back until it is.
    Returning,
    /// It takes connections; its process began then (milliseconds since the epoch).
    Accepts {
        /// When.
        since: u64,
    },
    /// It ends what it has.
    Drains,
    /// It runs and does not say, or is being stopped.
    Silent,
}

/// An instance whose unit is not down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its number.
    pub number: u8,
    /// What it does.
    pub doing: Doing,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start it.
    Start(u8),
    /// It is coming up while another accepts: wait for it, and stop it should it fail.
    Finish(u8),
    /// Have it stop accepting.
    Retire(u8),
}

/// The instance that accepts, by the rule for several.
#[must_use]
pub fn accepting(seen: &[Instance]) -> Option<u8> {
    let accepting = seen.iter().filter_map(|instance| match instance.doing {
        Doing::Accepts { since } => Some((since, instance.number)),
        Doing::Coming | Doing::Returning | Doing::Drains | Doing::Silent => None,
    });
    accepting.max().map(|(_, number)| number)
}

/// The number for another instance: the lowest that is free.
#[must_use]
pub fn free(seen: &[Instance]) -> Option<u8> {
    NUMBERS
        .into_iter()
        .find(|number| seen.iter().all(|instance| instance.number != *number))
}

/// What is to be done first so that one instance accepts and nothing else is under way; nothing if that is so, or if the next connection
/// brings it about: PID 1 starts an instance for it only while none runs. Nothing is ever done to one that returns: to stop it would cut
/// what is kept for it.
#[must_use]
pub fn next(seen: &[Instance]) -> Option<Next> {
    let is = |wanted: fn(&Doing) -> bool| seen.iter().find(|instance| wanted(&instance.doing));
    let coming = is(|doing| matches!(doing, Doing::Coming));
    match (accepting(seen), coming) {
        (Some(_), Some(coming)) => Some(Next::Finish(coming.number)),
        (Some(last), None) => seen
            .iter()
            .find(|other| matches!(other.doing, Doing::Accepts { .. }) && other.number != last)
            .map(|other| Next::Retire(other.number)),
        (None, None) if is(|doing| matches!(doing, Doing::Returning)).is_none() => {
            is(|doing| matches!(doing, Doing::Drains)).and(free(seen).map(Next::Start))
        }
        // What comes up may be what accepted before.
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(instances: &[(u8, Doing)]) -> Vec<Instance> {
        let seen = instances.iter();
        seen.map(|&(number, doing)| Instance { number, doing })
            .collect()
    }

    const OLD: Doing = Doing::Accepts { since: 1000 };
    const NEW: Doing = Doing::Accepts { since: 2000 };

    #[test]
    fn of_two_that_accept_the_last_to_have_begun_goes_on() {
        let both = seen(&[(1, NEW), (2, OLD), (3, Doing::Drains)]);
        assert_eq!(
            (accepting(&both), next(&both)),
            (Some(1), Some(Next::Retire(2)))
        );
        let one = seen(&[(1, NEW), (2, Doing::Drains)]);
        assert_eq!((accepting(&one), next(&one)), (Some(1), None));
    }

    #[test]
    fn one_that_was_being_started_is_seen_to_its_end_before_another_is_retired() {
        let begun = seen(&[(1, OLD), (2, Doing::Coming)]);
        assert_eq!(next(&begun), Some(Next::Finish(2)));
    }

    #[test]
    fn one_that_returns_to_what_it_has_left_is_neither_waited_for_nor_stopped() {
        let back = seen(&[(1, OLD), (2, Doing::Returning)]);
        assert_eq!(next(&back), None);
        let both = seen(&[(1, NEW), (2, Doing::Returning), (3, OLD)]);
        assert_eq!(next(&both), Some(Next::Retire(3)));
        assert_eq!(free(&back), Some(3));
    }

    #[test]
    fn one_is_started_where_all_that_run_drain_and_none_where_none_runs_or_one_comes_back() {
        let drained = seen(&[(1, Doing::Drains), (3, Doing::Silent)]);
        assert_eq!(next(&drained), Some(Next::Start(2)));
        assert_eq!(next(&[]), None);
        assert_eq!(next(&seen(&[(1, Doing::Drains), (2, Doing::Coming)])), None);
        assert_eq!(
            next(&seen(&[(1, Doing::Drains), (2, Doing::Returning)])),
            None
        );
        assert_eq!(next(&seen(&[(1, Doing::Silent)])), None);
    }

    #[test]
    fn the_lowest_free_number_is_next_and_there_are_ninety_nine() {
        assert_eq!(free(&[]), Some(1));
        assert_eq!(free(&seen(&[(2, OLD), (1, Doing::Drains)])), Some(3));
        let all: Vec<_> = NUMBERS.map(|number| (number, Doing::Drains)).collect();
        assert_eq!(free(&seen(&all)), None);
    }
}
