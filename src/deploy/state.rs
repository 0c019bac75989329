//! The state of one app: a deployment, a watch and the slots, side by side.
//!
//! **Invariant:** plain data. Everything that must survive a crash is here; everything here is on disk before it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Probe, UnitFailure, UnitResult};
use super::guard::Keyed;
use super::hook::{Hook, Occasion, Stage};
use super::keep::Kept;
use super::lookout::Lookout;
use super::mark::{RolledBack, WentBack};
use super::migrate::Migration;
use super::names::{BootId, Generation, ReleaseId, SlotName, Time, Weight};
use super::plan::Plan;
use super::policy::{ByClass, Settings};
use super::tiding::{Tiding, Topic};
use super::verdict::Finding;

/// Everything that slot remembers of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The last attempt's number.
    pub generation: Generation,
    /// The attempt that last changed which slot is active.
    pub routed: Generation,
    /// The slot that the table names; `None` before the first switch.
    pub active: Option<SlotName>,
    /// Grows with every change of which slot gets how much.
    pub table: u64,
    /// Every router that runs has said that it has that table.
    pub everywhere: bool,
    /// The slots that had a weight since the routers last said that they have the table: they may still send to these, so none of them
    /// is drained, or started with something else.
    pub lingering: BTreeSet<SlotName>,
    /// The attempt that holds the lock.
    pub deployment: Option<Deployment>,
    /// What looks at the slot that is new.
    pub watch: Option<Watch>,
    /// Every slot of the app, and those that it had while they still run.
    pub slots: BTreeMap<SlotName, Slot>,
    /// What `rollback` goes to, unless what is live was brought by one.
    pub prev: Option<ReleaseId>,
    /// What somebody's rollback brought, as long as nothing else has switched.
    pub went_back: Option<WentBack>,
    /// The active release finished its soak, or had none to finish, or has served for as long after a newer attempt ended that.
    pub soaked: bool,
    /// Releases that were rolled back automatically, and how; of one that an older slotd marked that is not known.
    pub marked: BTreeMap<ReleaseId, Option<RolledBack>>,
    /// How the last attempt ended.
    pub outcome: Option<Outcome>,
    /// The last switch that was taken back by itself, while nothing else has switched.
    pub rolled_back: Option<RolledBack>,
    /// The settings of the last attempt that switched.
    pub settings: Settings,
    /// The requests that had a key, oldest first.
    pub keys: Vec<Keyed>,
    /// The hooks that come after something that has happened, and have not ended; the first one runs.
    pub due: Vec<Occasion>,
    /// What somebody elsewhere is told of, by the app's file as it was last read.
    pub topics: BTreeSet<Topic>,
    /// The number of the last [`Tiding`].
    pub told: u64,
    /// What is still to be written down for him, oldest first; the first one is being.
    pub untold: Vec<Tiding>,
    /// When an attempt last switched.
    pub switched: Option<Time>,
    /// What the public listener answered, with the table that a switch or a rollback waits for.
    pub reached: Option<Probe>,
    /// What is seen of the active slot when its soak is over.
    pub lookout: Lookout,
    /// The old slot, while it is kept beyond its soak.
    pub kept: Option<Kept>,
    /// The old slot, while it keeps a share; see [`State::migrating`].
    pub migration: Option<Migration>,
}

/// An attempt, from its start to its switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its number.
    pub generation: Generation,
    /// What it is for.
    pub kind: Kind,
    /// Who asked for it.
    pub by: String,
    /// When it began.
    pub began: Time,
    /// How far it is.
    pub phase: Phase,
    /// When it entered each phase, in order, by [`Phase::name`].
    pub entered: Vec<(&'static str, Time)>,
    /// What it began with.
    pub settings: Settings,
    /// Where its candidate stays until it is told on, instead of a switch.
    pub weight: Option<Weight>,
    /// Its candidate goes by the plan of its settings, if they have one.
    pub planned: bool,
    /// How far it is with the hook before its switch.
    pub before_switch: Stage,
    /// Its release may be one that was rolled back automatically.
    pub force: bool,
    /// Nobody asked for it.
    pub auto: bool,
    /// Why it was begun, if nobody asked for it: what is live fails when its soak is over.
    pub because: Option<Cause>,
    /// A rollback was asked for, and no swap of two slots.
    pub goes_back: bool,
}

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A release becomes active.
    Deploy,
    /// The previous release becomes active again.
    Rollback,
    /// A slot was started by hand; it is gated, and stands by unless no slot is active.
    ByHand,
    /// A slot that stands by becomes active.
    Promote,
}

/// How far an attempt is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The release is put on disk; `queue` is how long it may wait for a slot then.
    Preparing {
        /// From `--queue`.
        queue: Duration,
    },
    /// Every slot is in use; refused at `until`.
    Waiting {
        /// To be started.
        release: ReleaseId,
        /// The end of the wait.
        until: Time,
    },
    /// The start job runs.
    Starting {
        /// The candidate.
        slot: SlotName,
        /// When slotd gives up; the unit's own limit is shorter.
        until: Time,
    },
    /// The unit is up; its health is asked.
    Ready {
        /// The candidate.
        slot: SlotName,
        /// When the health gate gives up.
        until: Time,
        /// What the last probe found.
        probe: Option<Probe>,
    },
    /// The candidate has the weight that it was given, and keeps that until somebody says how to go on.
    Trial {
        /// The candidate.
        slot: SlotName,
        /// How far it is with its app's plan, if it goes by that.
        plan: Option<Plan>,
    },
    /// The new table is on its way to the routers.
    Shifting {
        /// The candidate, already the active slot of the state.
        slot: SlotName,
        /// The slot that was active.
        from: Option<SlotName>,
        /// The release that was live.
        left: Option<ReleaseId>,
    },
}

impl Phase {
    /// The phase's name in status, events and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preparing { .. } => "preparing",
            Self::Waiting { .. } => "waiting",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            // For people both are the shift of traffic to the candidate: some of it, or all.
            Self::Trial { .. } | Self::Shifting { .. } => "shifting",
        }
    }

    /// The slot that is to become active, once it is chosen.
    #[must_use]
    pub fn slot(&self) -> Option<&SlotName> {
        match self {
            Self::Preparing { .. } | Self::Waiting { .. } => None,
            Self::Starting { slot, .. }
            | Self::Ready { slot, .. }
            | Self::Trial { slot, .. }
            | Self::Shifting { slot, .. } => Some(slot),
        }
    }
}

/// The look at a new slot after its switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Of the switch.
    pub generation: Generation,
    /// The slot that is watched.
    pub new: SlotName,
    /// The slot that is kept for it, while it runs.
    pub old: Option<SlotName>,
    /// Probes failed in a row.
    pub streak: u8,
    /// How often its unit has started it again since the switch, for an end that was no failure.
    pub restarts: u8,
    /// When it must be up again after such an end.
    pub comes_by: Option<Time>,
    /// The end of the soak.
    pub until: Time,
    /// [`State::prev`] before the switch, for an automatic rollback.
    pub prev: Option<ReleaseId>,
    /// [`State::soaked`] before the switch, for an automatic rollback.
    pub soaked: bool,
    /// The soak failed and the table that names the old slot is on its way to the routers.
    pub rolling_back: Option<Cause>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it is for now.
    pub condition: Condition,
    /// What its symlink names.
    pub release: Option<ReleaseId>,
    /// Its run, while there is one.
    pub boot: Option<BootId>,
    /// The attempt that it last was started for.
    pub generation: Generation,
}

impl Slot {
    /// A slot that nothing runs in.
    #[must_use]
    pub fn idle() -> Self {
        Self {
            condition: Condition::Idle,
            release: None,
            boot: None,
            generation: Generation::default(),
        }
    }
}

/// What a slot is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing runs.
    Idle,
    /// Its start job runs, for the deployment.
    Starting,
    /// It is up, for the deployment, at weight 0.
    Ready,
    /// It was started by hand and waits for a weight or a promotion, at weight 0.
    Standby {
        /// It has passed its gates in this run.
        gated: bool,
    },
    /// It is up beside the active slot and gets what it was given: the candidate of a deployment, or one that stood by.
    Trial {
        /// Of the candidate 0 is one too.
        weight: Weight,
        /// Probes failed in a row.
        streak: u8,
    },
    /// The table names it.
    Active(Service),
    /// Kept running for the soak, at weight 0 or with what the last switch left to it; `drain` is when its drain will have ended.
    Warm {
        /// Per class.
        drain: ByClass<Time>,
        /// It can be given the traffic back: it has passed its gates in this run. False for one that was not up when it lost the
        /// weight, and while it boots after a restart of the machine.
        gated: bool,
    },
    /// Finishing what is in flight, at weight 0.
    Draining {
        /// When what is left is cut, per class.
        until: ByClass<Time>,
        /// It never was active in this run, or is not to be again: it is given nothing back. It may still be lingering.
        withdrawn: bool,
    },
    /// Its stop job runs.
    Stopping {
        /// Its drain deadline passed before it was drained.
        forced: bool,
        /// What it will be failed with, once it is stopped.
        failure: Option<UnitFailure>,
    },
    /// Its last run failed; nothing runs.
    Failed(UnitFailure),
}

/// Whether the active slot can be sent requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Yes.
    Up,
    /// It is being started, or started again, by slotd until the deadline.
    Booting {
        /// Requests are held until then.
        until: Time,
    },
    /// It ended by itself or could not be started. Its unit starts it again; where that does not help, slotd does.
    Down {
        /// How it ended.
        failure: UnitFailure,
        /// When slotd starts it; `None`: now, or a run of it is being probed.
        retry: Option<Time>,
    },
    /// An administrator stopped it.
    ByHand,
}

impl Service {
    /// It is down, and something starts it.
    pub(super) fn is_coming(&self) -> bool {
        match self {
            Self::Booting { .. } | Self::Down { .. } => true,
            Self::Up | Self::ByHand => false,
        }
    }
}

impl Condition {
    /// On trial at a weight, with no failed probe yet.
    pub(super) fn trial(weight: Weight) -> Self {
        Self::Trial { weight, streak: 0 }
    }

    /// The condition's name in status, events and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Standby { .. } => "standby",
            Self::Trial { .. } => "trial",
            Self::Active(_) => "active",
            Self::Warm { .. } => "warm",
            Self::Draining { .. } => "draining",
            Self::Stopping { .. } => "stopping",
            Self::Failed(_) => "failed",
        }
    }

    /// Nothing runs there and nothing holds it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        matches!(self, Self::Idle | Self::Failed(_))
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its number.
    pub generation: Generation,
    /// What it was for.
    pub kind: Kind,
    /// Who asked for it.
    pub by: String,
    /// What it was to make active, if that was known.
    pub release: Option<ReleaseId>,
    /// The slot that it was to make active, if that was chosen.
    pub slot: Option<SlotName>,
    /// The release that was live before.
    pub previous: Option<ReleaseId>,
    /// The phase in which it ended.
    pub phase: &'static str,
    /// [`Deployment::entered`].
    pub entered: Vec<(&'static str, Time)>,
    /// Why.
    pub cause: Cause,
    /// When.
    pub at: Time,
    /// What the public listener answered once the routers had its table, as far as that could be found out.
    pub reached: Option<Probe>,
    /// [`Deployment::goes_back`].
    pub goes_back: bool,
}

/// Why an attempt or a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The switch was made.
    Switched,
    /// Started by hand, passed its gates, stands by.
    StandsBy,
    /// The release could not be put on disk.
    Unprepared(String),
    /// The release was rolled back automatically, and nobody said that it is to be deployed all the same.
    Marked(Option<Box<RolledBack>>),
    /// Nobody asked for it, and its release is live.
    AlreadyLive(ReleaseId),
    /// Nobody asked for it, and a rollback left its release.
    Left(ReleaseId),
    /// Its `setup_command` did not end well, or not in time.
    Unbuilt(UnitFailure),
    /// A hook before its start, or before its switch, did not end well, or not in time.
    Unhooked(Hook, UnitFailure),
    /// Whoever carried it on is gone.
    Interrupted,
    /// A rollback went ahead of it.
    Preempted,
    /// Somebody took it back before its switch: who.
    Aborted(String),
    /// No slot became idle in time.
    NoIdleSlot {
        /// What holds a slot that is expected to become idle.
        holder: SlotName,
        /// Its condition.
        condition: &'static str,
    },
    /// The unit did not start.
    StartFailed(UnitFailure),
    /// The table that makes the switch could not be given to the routers.
    Unrouted(String),
    /// `start_timeout` passed.
    StartTimeout,
    /// `health_timeout` passed.
    HealthTimeout(Option<Probe>),
    /// It ended while it was gated.
    Exited(UnitFailure),
    /// An administrator stopped it.
    StoppedByHand,
    /// The soak's probes failed in a row.
    ProbesFailed(Probe),
    /// What it answered did not pass a check of its plan, or of its soak.
    Judged(Finding),
    /// The soak ended well.
    Soaked,
    /// A newer attempt took a slot, or switched, and so ended the soak.
    Superseded,
    /// The old slot ended during the soak.
    OldSlotGone,
}

impl Cause {
    /// The cause's code in status, events, history and `SLOT_CAUSE=`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Switched => "switched",
            Self::StandsBy => "standby",
            Self::Unprepared(_) => "unprepared",
            Self::Marked(_) => "marked",
            Self::AlreadyLive(_) => "already-live",
            Self::Left(_) => "left",
            Self::Unbuilt(failure) => match failure.result {
                UnitResult::Timeout => "build-timeout",
                UnitResult::Success | UnitResult::Other(_) => "build-failed",
            },
            Self::Unhooked(_, failure) => match failure.result {
                UnitResult::Timeout => "hook-timeout",
                UnitResult::Success | UnitResult::Other(_) => "hook-failed",
            },
            Self::Interrupted => "interrupted",
            Self::Preempted => "preempted",
            Self::Aborted(_) => "aborted",
            Self::NoIdleSlot { .. } => "no-idle-slot",
            Self::Unrouted(_) => "unrouted",
            Self::StartFailed(_) => "start-failed",
            Self::StartTimeout => "start-timeout",
            Self::HealthTimeout(_) => "health-timeout",
            Self::Exited(failure) if failure.result.as_str() == "reboot" => "rebooted",
            Self::Exited(_) => "exited",
            Self::StoppedByHand => "stopped-by-hand",
            Self::ProbesFailed(_) => "probes-failed",
            Self::Judged(finding) => finding.failed.code(),
            Self::Soaked => "soaked",
            Self::Superseded => "superseded",
            Self::OldSlotGone => "old-slot-gone",
        }
    }
}

impl State {
    /// An app that was never deployed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            generation: Generation::default(),
            routed: Generation::default(),
            active: None,
            table: 0,
            everywhere: true,
            lingering: BTreeSet::new(),
            deployment: None,
            watch: None,
            slots: settings
                .slots
                .iter()
                .map(|slot| (slot.clone(), Slot::idle()))
                .collect(),
            prev: None,
            went_back: None,
            soaked: false,
            marked: BTreeMap::new(),
            outcome: None,
            rolled_back: None,
            settings,
            keys: Vec::new(),
            due: Vec::new(),
            topics: BTreeSet::new(),
            told: 0,
            untold: Vec::new(),
            switched: None,
            reached: None,
            lookout: Lookout::default(),
            kept: None,
            migration: None,
        }
    }

    /// What the active slot runs.
    #[must_use]
    pub fn live(&self) -> Option<&ReleaseId> {
        self.slots.get(self.active.as_ref()?)?.release.as_ref()
    }

    /// The candidate of the deployment, if it is at a weight.
    #[must_use]
    pub fn on_trial(&self) -> Option<&SlotName> {
        match &self.deployment.as_ref()?.phase {
            Phase::Trial { slot, .. } => Some(slot),
            Phase::Preparing { .. }
            | Phase::Waiting { .. }
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Shifting { .. } => None,
        }
    }

    /// The slot in which a deployment would start its release now, of those that the app's file names.
    #[must_use]
    pub fn next_slot<'a>(&self, slots: &'a [SlotName]) -> Option<&'a SlotName> {
        slots.iter().find(|name| self.can_take(name))
    }

    /// Whether something can be started in a slot.
    pub(super) fn can_take(&self, name: &SlotName) -> bool {
        self.slots
            .get(name)
            .is_some_and(|slot| slot.condition.is_free())
            && !self.lingering.contains(name)
    }

    /// The watch, while its slot is active: not while that is being switched from, and not once it failed.
    pub(super) fn soak(&self) -> Option<&Watch> {
        self.watch.as_ref().filter(|watch| {
            watch.rolling_back.is_none() && self.active.as_ref() == Some(&watch.new)
        })
    }

    /// The same, to be changed.
    pub(super) fn soak_mut(&mut self) -> Option<&mut Watch> {
        self.soak()?;
        self.watch.as_mut()
    }

    /// The state that users see, derived from the three parts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (&self.deployment, &self.watch) {
            (Some(deployment), _) => deployment.phase.name(),
            (None, Some(watch)) if watch.rolling_back.is_some() => "rolling_back",
            (None, Some(_)) => "switched",
            (None, None) => "idle",
        }
    }
}
