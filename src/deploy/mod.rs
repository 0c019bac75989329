//! The deploy state machine: what slot is, without any I/O.
//!
//! [`step`] takes a [`State`] and an [`Event`] and gives the next state; [`effects`] says what must be going on for a state to be
//! true. The daemon commits the state, then performs the effects, and whatever they report is the next event:
//!
//! ```text
//!            Event                        State                      Effect
//!  people ──────────►┐            ┌────────────────► disk ─────►┌──────────────► units, routers, probes
//!  units  ──────────►├── step ────┤                             │ what is newly     │
//!  results ─────────►┘            └─► Notice ──► journal, API   │ demanded          │
//!     ▲                                                         └───────────────────┘
//!     └─────────────────────────────────────────────────────────────── results ─────┘
//! ```
//!
//! A deployment (none or one) ends at its switch; a watch (none or one) begins there; slots go their own way:
//!
//! ```text
//!  deployment   preparing ─► (waiting) ─► starting ─► ready ─► (trial) ─► shifting ─► ∎ switched
//!                   └────────────┴───────────┴──────────┴────────┴───────────┴──────► ∎ cause
//!  watch        soak ─► ∎ soaked | superseded          soak ─► rolling back ─► ∎
//!  slot         idle ─► starting ─► ready ─► (trial) ─► active ─► warm ─► draining ─► stopping ─► idle | failed
//! ```
//!
//! On trial a slot has a weight beside the active one, which has what the others leave: the candidate of a deployment that was told to
//! stay there, or a slot that stood by.
//!
//! **Invariant:** no async, clock, file system, log, serde or randomness below this module.
//! **Invariant:** at most one slot is active, and a slot gets SIGTERM only when it has drained, when its drain deadline has passed,
//! or when it never had traffic.
//! **Invariant:** weights add up to 100, or to 0 where no slot is active; a slot has one only after a probe of its run has passed.

mod auto;
mod contradiction;
mod deployment;
mod effect;
mod event;
mod guard;
mod hook;
mod keep;
mod lookout;
mod mark;
mod migrate;
mod names;
mod notice;
mod plan;
mod policy;
mod recovery;
mod refusal;
mod rollback;
mod slots;
mod state;
mod step;
mod switch;
mod tiding;
mod trial;
mod verdict;
mod watch;

pub use auto::{Circumstances, Decision, Ended, Tried, decide, is_its_own};
pub use effect::{Effect, Limits, Pace, Route, effects};
pub use event::{End, Event, Probe, Request, UnitFailure, UnitResult};
pub use guard::{Expected, Fingerprint, Guard, KEY_AGE, KEYS, Keyed, Serving, Unexpected};
pub use hook::{Hook, Occasion, Stage};
pub use keep::Kept;
pub use lookout::Lookout;
pub use mark::{RolledBack, WentBack};
pub use migrate::{Migrate, Migration};
pub use names::{
    AppName, BootId, Generation, Key, Label, NameError, ReleaseId, SlotName, Time, Weight,
};
pub use notice::Notice;
pub use plan::{Canary, CanaryStep, Measured, Measurement, Plan, Quiet, plan, step_ends};
pub use policy::{
    After, ByClass, FAILED_PROBES, Failing, HOLD, RESTARTS, SLOT_WAIT, START_MARGIN, Settings,
};
pub use recovery::{Facts, Found, Seen, recover, rediscover};
pub use refusal::Refusal;
pub use state::{Cause, Condition, Deployment, Kind, Outcome, Phase, Service, Slot, State, Watch};
pub use step::{Step, step};
pub use tiding::{Tiding, Topic};
pub use verdict::{
    Checks, Evidence, Failed, Finding, Lack, Quantile, Rate, Ratio, Sample, Sides, Verdict, judge,
};
