//! Calls to everything that is under way on a thread: who is there, and who has to end when.
//!
//! Nothing is registered for it: whoever is called answers at its next turn, and one number tells each that
//! it has been called.
//!
//! **Invariant:** where nobody calls, a request pays for no more than comparing that number.
//!
//! **Invariant:** a call is for those who were under way when it was made. Who comes to the same run later, because its slot was taken
//! back, hears nothing of it.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};

use super::alarm::Millis;
use super::counts::{Class, RunName};
use crate::wire::control::{Connection, Listing};

/// The most that one thread lists; the others are counted.
const LISTED: usize = 1000;

/// What is said again means the same moment, as far as two clocks and a way between can tell.
const SAME: Millis = 1000;

/// What is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The app.
    pub app: String,
    /// The slot.
    pub slot: String,
    /// The run, if it is one.
    pub boot_id: Option<String>,
    /// The class, if it is one.
    pub class: Option<Class>,
    /// How long it may still go on, in milliseconds. From then on an end that the upstream makes is none of its own: it was killed.
    pub after: Millis,
    /// Over how long the ends are spread, so that those who were cut do not all come back at once.
    pub spread: Millis,
}

/// When something that is under way is ended, in the thread's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Until then it may end by itself.
    pub from: Millis,
    /// Then it is reset.
    pub at: Millis,
}

/// Whose connections are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The app.
    pub app: String,
    /// The slot.
    pub slot: String,
}

/// The number of a call; calls are counted from 1.
pub type Call = u64;

/// Who is there, as far as they have answered.
#[derive(Debug)]
struct Census {
    call: Call,
    whose: Whose,
    there: Listing,
}

/// A cut that was told to everybody.
#[derive(Debug)]
struct Told {
    call: Call,
    cut: Cut,
    at: Millis,
}

impl Told {
    /// When the last of those who heard of it have ended.
    fn last(&self) -> Millis {
        self.at + self.cut.after + self.cut.spread
    }

    fn is_for(&self, run: &RunName, class: Class) -> bool {
        let cut = &self.cut;
        (&cut.app, &cut.slot) == (&run.app, &run.slot)
            && cut.class.is_none_or(|it| it == class)
            && (cut.boot_id.is_none() || cut.boot_id == run.boot_id)
    }
}

/// A thread's calls.
#[derive(Debug, Default)]
pub struct Roll {
    calls: Cell<Call>,
    censuses: RefCell<Vec<Census>>,
    cuts: RefCell<Vec<Told>>,
    random: RandomState,
    drawn: Cell<u64>,
}

impl Roll {
    /// The last call: who begins now has to answer those after it.
    pub fn calls(&self) -> Call {
        self.calls.get()
    }

    /// Asks who is there; whoever is polled from now on answers.
    pub fn ask(&self, whose: Whose) -> Call {
        let call = self.call();
        self.censuses.borrow_mut().push(Census {
            call,
            whose,
            there: Listing::default(),
        });
        call
    }

    /// Who has answered to a call, which is over with that.
    pub fn answers(&self, call: Call) -> Listing {
        let mut censuses = self.censuses.borrow_mut();
        let at = censuses.iter().position(|census| census.call == call);
        at.map(|at| censuses.swap_remove(at).there)
            .unwrap_or_default()
    }

    /// Has something end; false if that has been said already, and everyone who heard it still has time: each keeps the moment that it has.
    /// Said again after that, it is for those who have become of its class since.
    pub fn cut(&self, cut: Cut, now: Millis) -> bool {
        let mut cuts = self.cuts.borrow_mut();
        cuts.retain(|told| told.last() >= now);
        let last = now + cut.after + cut.spread + SAME;
        let whom = |cut: &Cut| Cut {
            after: 0,
            spread: 0,
            ..cut.clone()
        };
        if cuts
            .iter()
            .any(|told| told.last() <= last && whom(&told.cut) == whom(&cut))
        {
            return false;
        }
        let call = self.call();
        cuts.push(Told { call, cut, at: now });
        true
    }

    fn call(&self) -> Call {
        self.calls.set(self.calls.get() + 1);
        self.calls.get()
    }

    /// If there was a call since the one that is `seen`: that one; it is brought up to date.
    pub fn called_since(&self, seen: &mut Call) -> Option<Call> {
        let calls = self.calls.get();
        let before = std::mem::replace(seen, calls);
        (before != calls).then_some(before)
    }

    /// Answers the calls after `since` for somebody who is under way at a run: when it is to be ended, if it is.
    pub fn answer(
        &self,
        since: Call,
        run: &RunName,
        class: Class,
        describe: impl Fn() -> Connection,
    ) -> Option<Ending> {
        for census in &mut *self.censuses.borrow_mut() {
            let Census { call, whose, there } = census;
            if *call <= since || (&whose.app, &whose.slot) != (&run.app, &run.slot) {
                continue;
            }
            match there.connections.len() < LISTED {
                true => there.connections.push(describe()),
                false => there.left_out += 1,
            }
        }
        let cuts = self.cuts.borrow();
        let its = cuts
            .iter()
            .filter(|told| told.call > since && told.is_for(run, class));
        let endings = its.map(|told| {
            let from = told.at + told.cut.after;
            let at = from + self.chance(told.cut.spread);
            Ending { from, at }
        });
        endings.min_by_key(|ending| ending.at)
    }

    /// A number up to `most`, another one each time.
    fn chance(&self, most: Millis) -> Millis {
        self.drawn.set(self.drawn.get() + 1);
        self.random.hash_one(self.drawn.get()) % (most + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(boot: &str) -> RunName {
        RunName {
            app: "web".to_owned(),
            slot: "blue".to_owned(),
            boot_id: Some(boot.to_owned()),
        }
    }

    fn whose(slot: &str) -> Whose {
        Whose {
            app: "web".to_owned(),
            slot: slot.to_owned(),
        }
    }

    /// Of blue's tunnels of one run, within 500 ms after a second.
    fn cut() -> Cut {
        Cut {
            app: "web".to_owned(),
            slot: "blue".to_owned(),
            boot_id: Some("a".to_owned()),
            class: Some(Class::Tunnel),
            after: 1000,
            spread: 500,
        }
    }

    #[test]
    fn whoever_was_called_answers_once_and_who_is_elsewhere_not_at_all() {
        let (roll, mut seen) = (Roll::default(), 0);
        assert_eq!(roll.called_since(&mut seen), None);
        let call = roll.ask(whose("blue"));
        assert_eq!(roll.called_since(&mut seen), Some(0));
        assert_eq!(roll.called_since(&mut seen), None);
        let elsewhere = RunName {
            slot: "green".to_owned(),
            ..run("a")
        };
        for run in [run("a"), elsewhere] {
            roll.answer(0, &run, Class::Stream, Connection::default);
        }
        assert_eq!(roll.answers(call).connections.len(), 1);
    }

    #[test]
    fn two_who_ask_at_once_get_each_his_own_answer() {
        let roll = Roll::default();
        let calls = ["blue", "green"].map(|slot| roll.ask(whose(slot)));
        let green = RunName {
            slot: "green".to_owned(),
            ..run("a")
        };
        for run in [run("a"), run("b"), green] {
            roll.answer(0, &run, Class::Stream, Connection::default);
        }
        let counts = calls.map(|call| roll.answers(call).connections.len());
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn more_than_can_be_listed_are_counted() {
        let roll = Roll::default();
        let call = roll.ask(whose("blue"));
        for _ in 0..LISTED + 200 {
            roll.answer(0, &run("a"), Class::Stream, Connection::default);
        }
        let listing = roll.answers(call);
        assert_eq!((listing.connections.len(), listing.left_out), (LISTED, 200));
    }

    #[test]
    fn ends_are_spread_and_concern_only_what_was_named() {
        let roll = Roll::default();
        roll.cut(cut(), 10);
        let ending = |boot: &str, class| roll.answer(0, &run(boot), class, Connection::default);
        let ends: Vec<_> = (0..200).map(|_| ending("a", Class::Tunnel)).collect();
        let at = || ends.iter().flatten().map(|ending| ending.at);
        assert!(ends.iter().flatten().count() == 200 && at().all(|at| (1010..=1510).contains(&at)));
        assert!(at().max() > at().min().map(|min| min + 200), "{ends:?}");
        assert_eq!(ending("b", Class::Tunnel), None);
        assert_eq!(ending("a", Class::Stream), None);
    }

    #[test]
    fn who_comes_after_a_cut_hears_nothing_of_it_whatever_is_called_later() {
        let roll = Roll::default();
        roll.cut(cut(), 10);
        let mut seen = roll.calls();
        assert_eq!(roll.called_since(&mut seen), None);
        roll.ask(whose("blue"));
        let since = roll.called_since(&mut seen).expect("there was a call");
        let answer = roll.answer(since, &run("a"), Class::Tunnel, Connection::default);
        assert_eq!(answer, None);
    }

    #[test]
    fn a_cut_that_is_said_again_calls_nobody_before_its_time_is_over() {
        let roll = Roll::default();
        assert!(roll.cut(cut(), 10));
        let left = Cut {
            after: 400,
            ..cut()
        };
        assert!(!roll.cut(left, 609), "the same moment, a millisecond off");
        assert!(!roll.cut(cut(), 1510));
        let earlier = Cut {
            after: 0,
            spread: 0,
            ..cut()
        };
        assert!(roll.cut(cut(), 1511) && roll.cut(earlier, 1511));
        let streams = Cut {
            class: Some(Class::Stream),
            ..cut()
        };
        assert!(roll.cut(streams, 1511), "of others");
    }
}
