//! The settings that a deployment begins with, and keeps.

use std::collections::BTreeSet;
use std::time::Duration;

use super::hook::Hook;
use super::migrate::Migrate;
use super::names::SlotName;
use super::plan::Canary;
use super::verdict::Rate;

/// How many failed probes in a row make a verdict of fail during a soak.
pub const FAILED_PROBES: u8 = 3;

/// How many ends of a process since the switch make a failure of a soak, where none of them was one.
pub const RESTARTS: u8 = 3;

/// How long a deployment waits for an idle slot unless it was told to queue for longer.
pub const SLOT_WAIT: Duration = Duration::from_secs(10);

/// How long a request is held for an active slot that is down, once it has been up.
pub const HOLD: Duration = Duration::from_secs(10);

/// How long the routers are given to say that a slot has drained whose deadline passed while it was kept warm: what has nothing in flight
/// is not to be recorded as cut.
pub const DRAIN_ANSWER: Duration = Duration::from_secs(1);

/// After a pause in which it was not probed, a soak lasts at least this long, so that it never ends without a probe.
pub const SOAK_REST: Duration = Duration::from_secs(5);

/// How long a unit is given to start an active slot again by itself, before slotd starts it.
pub const RESTART: Duration = Duration::from_secs(5);

/// How far slotd's own deadline for a start lies behind the unit's `TimeoutStartSec=`: the unit's is meant to fire, because
/// its result says more.
pub const START_MARGIN: Duration = Duration::from_secs(5);

/// A span or a moment for each class of what is in flight; `None` is forever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByClass<T> {
    /// Ordinary requests.
    pub requests: Option<T>,
    /// Answers without an end of their own.
    pub streams: Option<T>,
    /// Upgraded connections.
    pub tunnels: Option<T>,
}

impl<T: Copy + Ord> ByClass<T> {
    /// The same for each.
    #[must_use]
    pub fn all(value: Option<T>) -> Self {
        Self {
            requests: value,
            streams: value,
            tunnels: value,
        }
    }

    /// Another value for each that is not forever.
    #[must_use]
    pub fn map<U>(self, change: impl Fn(T) -> U) -> ByClass<U> {
        ByClass {
            requests: self.requests.map(&change),
            streams: self.streams.map(&change),
            tunnels: self.tunnels.map(&change),
        }
    }

    /// The largest; `None` if one is forever.
    #[must_use]
    pub fn last(self) -> Option<T> {
        Some(self.requests?.max(self.streams?).max(self.tunnels?))
    }
}

/// What an app's file says about deployments. Spans are of the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The app's slots in the order of preference; at least two.
    pub slots: Vec<SlotName>,
    /// From the start job to READY.
    pub start_timeout: Duration,
    /// From READY to the first probe that passes.
    pub health_timeout: Duration,
    /// How long the old slot may finish what is in flight, counted from the switch.
    pub drain: ByClass<Duration>,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// How long the new slot is watched while the old one is warm; zero is no soak.
    pub soak: Duration,
    /// While the new slot is watched: the most of its requests that may fail.
    pub soak_error_rate: Option<Rate>,
    /// What the app runs around a switch.
    pub hooks: BTreeSet<Hook>,
    /// What goes on once the soak is over.
    pub after: After,
    /// What the old slot keeps for a while at a switch; nothing, if none.
    pub migrate: Option<Migrate>,
    /// By which steps a candidate comes to its requests; none is all at once.
    pub canary: Option<Box<Canary>>,
}

/// What goes on once the soak is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// What becomes of a release that fails then.
    pub failing: Failing,
    /// How long the old slot is kept, counted from the switch, if that is longer than the soak.
    pub keep_warm: Duration,
    /// It is frozen meanwhile, once it has drained.
    pub frozen: bool,
}

/// What becomes of a release that fails when its soak is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failing {
    /// Nobody looks.
    Unseen,
    /// It is told.
    #[default]
    Told,
    /// The release before takes its place.
    Left,
}
