//! How held requests are let go when their slot is back: a few at once, then ever more, so that an app that
//! has just come up is not brought down again by all that has waited for it.
//!
//! **Invariant:** those who did not wait are not delayed.
//!
//! **Invariant:** a slot counts as back from its first answer on, whatever a table says of it.

use std::cell::Cell;

use super::alarm::Millis;

/// As many go at once, per thread.
const FIRST: u64 = 8;

/// In this many milliseconds the number that may have gone doubles: 10,000 have in half a second.
const DOUBLES: Millis = 50;

/// After so long without anybody to let go it begins anew, in milliseconds.
const OVER: Millis = 1000;

/// The ramp of one run of a slot, in one thread.
#[derive(Debug, Default)]
pub struct Ramp {
    began: Cell<Millis>,
    last: Cell<Millis>,
    gone: Cell<u64>,
    /// The last who went were refused.
    refuses: Cell<bool>,
}

impl Ramp {
    /// Lets somebody go.
    ///
    /// # Errors
    /// Not before this moment; ask again then.
    pub fn go(&self, now: Millis) -> Result<(), Millis> {
        if now.saturating_sub(self.last.get()) > OVER {
            self.began.set(now);
            self.gone.set(0);
        }
        self.last.set(now);
        let steps = now.saturating_sub(self.began.get()) / DOUBLES;
        let allowed = FIRST << steps.min(32);
        if self.gone.get() < allowed {
            self.gone.set(self.gone.get() + 1);
            Ok(())
        } else {
            Err(self.began.get() + (steps + 1) * DOUBLES)
        }
    }

    /// The slot is not back after all: it begins anew, and not before the next step.
    pub fn refused(&self, now: Millis) {
        self.began.set(now);
        self.last.set(now);
        self.gone.set(FIRST);
        self.refuses.set(true);
    }

    /// The slot has answered.
    pub fn answered(&self) {
        self.refuses.set(false);
    }

    /// True while nobody has been answered since the last refusal: those who wait, wait for a slot that is down.
    pub fn refuses(&self) -> bool {
        self.refuses.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand wait: how many of them have gone after each step.
    fn gone(ramp: &Ramp, from: Millis, until: Millis) -> Vec<u64> {
        let mut left = 10_000;
        let steps = (from..until).step_by(DOUBLES as usize);
        let each = steps.map(|now| {
            while left > 0 && ramp.go(now).is_ok() {
                left -= 1;
            }
            10_000 - left
        });
        each.collect()
    }

    #[test]
    fn a_few_go_at_once_and_then_ever_more() {
        let all = gone(&Ramp::default(), 5000, 5600);
        assert_eq!(all[..4], [8, 16, 32, 64]);
        assert_eq!(all.last(), Some(&10_000));
    }

    #[test]
    fn whoever_may_not_go_is_told_when_to_ask_again() {
        let ramp = Ramp::default();
        while ramp.go(5000).is_ok() {}
        let at = ramp.go(5010).expect_err("the first have gone");
        assert_eq!((at, ramp.go(at)), (5050, Ok(())));
    }

    #[test]
    fn it_begins_anew_when_the_slot_is_down_again_and_when_nobody_waited_for_a_while() {
        let ramp = Ramp::default();
        gone(&ramp, 5000, 5600);
        ramp.refused(5600);
        assert_eq!(gone(&ramp, 5600, 5701), [0, 8, 24]);
        assert_eq!(gone(&ramp, 7000, 7001), [8]);
    }

    #[test]
    fn a_slot_is_down_from_a_refusal_to_the_next_answer() {
        let ramp = Ramp::default();
        assert!(!ramp.refuses());
        ramp.refused(5000);
        assert!(ramp.refuses() && ramp.go(7000).is_ok() && ramp.refuses());
        ramp.answered();
        assert!(!ramp.refuses());
    }
}
