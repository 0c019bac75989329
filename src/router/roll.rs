//! Calls to everything that is under way on a thread: who is there, and who has to end when.
//!
//! Nothing is registered for it: whoever is called answers at its next turn, and one number tells each that
//! it has been called.
//!
//! **Invariant:** where nobody calls, a request pays for no more than comparing that number.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};

use super::alarm::Millis;
use super::counts::{Class, RunName};
use crate::wire::control::{Connection, Listing};

/// The most that one thread lists; the others are counted.
const LISTED: usize = 1000;

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

/// A thread's calls.
#[derive(Debug, Default)]
pub struct Roll {
    calls: Cell<u64>,
    census: RefCell<Option<(Whose, Listing)>>,
    cuts: RefCell<Vec<(Cut, Millis)>>,
    random: RandomState,
    drawn: Cell<u64>,
}

impl Roll {
    /// Asks who is there; whoever is polled from now on answers.
    pub fn ask(&self, whose: Whose) {
        *self.census.borrow_mut() = Some((whose, Listing::default()));
        self.call();
    }

    /// Who has answered.
    pub fn answers(&self) -> Listing {
        let census = self.census.borrow_mut().take();
        census.map(|(_, there)| there).unwrap_or_default()
    }

    /// Has something end; what has been told before and is over is forgotten.
    pub fn cut(&self, cut: Cut, now: Millis) {
        let mut cuts = self.cuts.borrow_mut();
        cuts.retain(|(cut, told)| told + cut.after + cut.spread >= now);
        cuts.push((cut, now));
        drop(cuts);
        self.call();
    }

    fn call(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// True if there was a call since `seen`, which is brought up to date.
    pub fn has_called(&self, seen: &mut u64) -> bool {
        let calls = self.calls.get();
        std::mem::replace(seen, calls) != calls
    }

    /// Answers a call for somebody who is under way at a run: when it is to be ended, if it is.
    pub fn answer(
        &self,
        run: &RunName,
        class: Class,
        describe: impl FnOnce() -> Connection,
    ) -> Option<Ending> {
        if let Some((whose, there)) = &mut *self.census.borrow_mut()
            && (&whose.app, &whose.slot) == (&run.app, &run.slot)
        {
            match there.connections.len() < LISTED {
                true => there.connections.push(describe()),
                false => there.left_out += 1,
            }
        }
        let cuts = self.cuts.borrow();
        let its = cuts.iter().filter(|(cut, _)| {
            (&cut.app, &cut.slot) == (&run.app, &run.slot)
                && cut.class.is_none_or(|it| it == class)
                && (cut.boot_id.is_none() || cut.boot_id == run.boot_id)
        });
        let endings = its.map(|(cut, told)| {
            let from = told + cut.after;
            let at = from + self.chance(cut.spread);
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

    #[test]
    fn whoever_was_called_answers_once_and_who_is_elsewhere_not_at_all() {
        let (roll, mut seen) = (Roll::default(), 0);
        assert!(!roll.has_called(&mut seen));
        roll.ask(Whose {
            app: "web".to_owned(),
            slot: "blue".to_owned(),
        });
        assert!(roll.has_called(&mut seen) && !roll.has_called(&mut seen));
        let elsewhere = RunName {
            slot: "green".to_owned(),
            ..run("a")
        };
        for run in [run("a"), elsewhere] {
            roll.answer(&run, Class::Stream, Connection::default);
        }
        assert_eq!(roll.answers().connections.len(), 1);
    }

    #[test]
    fn more_than_can_be_listed_are_counted() {
        let roll = Roll::default();
        roll.ask(Whose {
            app: "web".to_owned(),
            slot: "blue".to_owned(),
        });
        for _ in 0..LISTED + 200 {
            roll.answer(&run("a"), Class::Stream, Connection::default);
        }
        let listing = roll.answers();
        assert_eq!((listing.connections.len(), listing.left_out), (LISTED, 200));
    }

    #[test]
    fn ends_are_spread_and_concern_only_what_was_named() {
        let roll = Roll::default();
        let cut = Cut {
            app: "web".to_owned(),
            slot: "blue".to_owned(),
            boot_id: Some("a".to_owned()),
            class: Some(Class::Tunnel),
            after: 1000,
            spread: 500,
        };
        roll.cut(cut, 10);
        let ending = |boot: &str, class| roll.answer(&run(boot), class, Connection::default);
        let ends: Vec<_> = (0..200).map(|_| ending("a", Class::Tunnel)).collect();
        let at = || ends.iter().flatten().map(|ending| ending.at);
        assert!(ends.iter().flatten().count() == 200 && at().all(|at| (1010..=1510).contains(&at)));
        assert!(at().max() > at().min().map(|min| min + 200), "{ends:?}");
        assert_eq!(ending("b", Class::Tunnel), None);
        assert_eq!(ending("a", Class::Stream), None);
    }
}
