//! What a step has to tell people: lines of the journal, events of the API, entries of the history.
//!
//! **Invariant:** notices are words, never needed for correctness: one that is lost in a crash changes nothing.

use super::event::UnitFailure;
use super::hook::Occasion;
use super::mark::RolledBack;
use super::names::{Generation, ReleaseId, SlotName, Time, Weight};
use super::state::{Cause, Kind, Outcome};
use super::verdict::Lack;

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An attempt took the lock.
    Began {
        /// Its number.
        generation: Generation,
        /// What it is for.
        kind: Kind,
        /// Who asked.
        by: String,
    },
    /// An attempt entered a phase.
    Phase {
        /// Its number.
        generation: Generation,
        /// [`Phase::name`](super::Phase::name).
        phase: &'static str,
        /// The candidate, once chosen.
        slot: Option<SlotName>,
        /// The candidate's release, once known.
        release: Option<ReleaseId>,
    },
    /// An attempt ended; [`Cause::Switched`], [`Cause::StandsBy`] and [`Cause::AlreadyLive`] are successes.
    Ended(Outcome),
    /// A watch ended without a rollback, or found a failure that it can do nothing about.
    Soak {
        /// Of the switch.
        generation: Generation,
        /// The slot that was watched.
        slot: SlotName,
        /// Why it ended.
        cause: Cause,
    },
    /// The active slot fails though its soak is over; told once for as long as it does.
    Failing {
        /// Of its switch.
        generation: Generation,
        /// Where.
        slot: SlotName,
        /// What it failed with last.
        cause: Cause,
        /// What takes its place, or, in a sentence, why nothing does, where it is to be left.
        to: Option<Result<ReleaseId, String>>,
    },
    /// A watch failed, and the old slot is active again: decided, and on its way to the routers.
    RolledBack(RolledBack),
    /// The routers have the table of such a rollback.
    Returned(RolledBack),
    /// A slot beside the active one has another share of the requests.
    Weighed {
        /// Where.
        slot: SlotName,
        /// What it has now.
        weight: Weight,
        /// What the active slot has now.
        rest: Weight,
        /// Why it lost what it had, if nobody said so.
        cause: Option<Cause>,
    },
    /// The time of a plan's step is over, and there is too little to judge by.
    Holds {
        /// Of the attempt.
        generation: Generation,
        /// Which step, from 0.
        step: usize,
        /// What it waits for.
        lack: Lack,
    },
    /// A slot begins to drain.
    Draining {
        /// Where.
        slot: SlotName,
        /// When the rest is cut; `None`: never.
        until: Option<Time>,
    },
    /// A drain deadline passed (or somebody said now) before the slot was drained.
    Forced {
        /// Where.
        slot: SlotName,
    },
    /// A slot's unit is inactive.
    Stopped {
        /// Where.
        slot: SlotName,
        /// SIGTERM was not enough.
        killed: bool,
    },
    /// The active slot cannot be sent requests; they are held.
    Down {
        /// Where.
        slot: SlotName,
        /// What happened; `None`: an administrator stopped it.
        failure: Option<UnitFailure>,
    },
    /// The active slot can be sent requests again.
    Up {
        /// Where.
        slot: SlotName,
    },
    /// A hook that comes after something ended.
    Hooked {
        /// After what.
        occasion: Occasion,
        /// How, if not well.
        failure: Option<UnitFailure>,
    },
    /// A slot was started by hand while a deployment holds the lock, or without a release: it stands by, ungated.
    StandsBy {
        /// Where.
        slot: SlotName,
    },
}
