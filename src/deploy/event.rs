//! What may happen to an app: what people ask for, what effects report, what is seen of its units.

use std::time::Duration;

use super::guard::Guard;
use super::hook::Hook;
use super::names::{BootId, Generation, ReleaseId, SlotName, Weight};
use super::plan::Measured;
use super::policy::Settings;
use super::verdict::Evidence;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks for a deployment; its release is prepared next.
    Begin(Request),
    /// The release of the deployment is on disk.
    Prepared {
        /// Of the deployment.
        generation: Generation,
        /// Complete and immutable.
        release: ReleaseId,
    },
    /// The release cannot be had.
    Unprepared {
        /// Of the deployment.
        generation: Generation,
        /// Why, in a sentence.
        why: String,
    },
    /// The release of the deployment is known, and is one that [`State::bars`](super::State::bars): it is not put on disk for it.
    Barred {
        /// Of the deployment.
        generation: Generation,
        /// What it would be.
        release: ReleaseId,
    },
    /// The `setup_command` of the deployment's release did not end well.
    Unbuilt {
        /// Of the deployment.
        generation: Generation,
        /// How it ended.
        failure: UnitFailure,
    },
    /// Somebody asks for the previous release, or for an earlier one.
    Rollback {
        /// Which, if not the previous one; it is on disk.
        to: Option<ReleaseId>,
        /// Who asks.
        by: String,
        /// The settings now in force.
        settings: Settings,
    },
    /// Somebody asks for a slot that stands by, or has a weight, to become active.
    Promote {
        /// Which slot.
        slot: SlotName,
        /// Who asks.
        by: String,
        /// The settings now in force.
        settings: Settings,
    },
    /// Somebody asks for a slot to have another share of the requests; the active one gives it, or gets it. All of them is a promotion.
    Weigh {
        /// Which slot.
        slot: SlotName,
        /// How much.
        weight: Weight,
        /// Who asks.
        by: String,
        /// The settings now in force.
        settings: Settings,
    },
    /// Somebody asks for a slot to take the place of the active one.
    Swap {
        /// The active one, as they believe.
        from: SlotName,
        /// A slot that is up.
        to: SlotName,
        /// Who asks.
        by: String,
        /// The settings now in force.
        settings: Settings,
    },
    /// Somebody asks for the attempt under way to end.
    Abort {
        /// Who asks.
        by: String,
    },
    /// Somebody asks for a slot to be stopped.
    Stop {
        /// Which slot.
        slot: SlotName,
        /// Also if it is the active one: then every request is refused at once.
        force: bool,
        /// Who asks.
        by: String,
    },
    /// Somebody asks that what a slot drains be cut now.
    DrainNow {
        /// Which slot.
        slot: SlotName,
    },
    /// A start effect ended well: the unit is up (and READY, where it says so itself).
    Started {
        /// Where.
        slot: SlotName,
        /// Whose start it was.
        generation: Generation,
        /// The run.
        boot: BootId,
    },
    /// A start effect failed.
    StartFailed {
        /// Where.
        slot: SlotName,
        /// Whose start it was.
        generation: Generation,
        /// What the unit's result says.
        failure: UnitFailure,
    },
    /// Every router that runs has a table.
    Routed {
        /// [`State::table`](super::State::table) that it is of.
        table: u64,
    },
    /// The app was asked for at the public listener, by routers that have a table. Reported before `Routed`, where it can be found out.
    Reached {
        /// [`State::table`](super::State::table) that it is of.
        table: u64,
        /// What was found, and where it was asked.
        probe: Probe,
    },
    /// The routers cannot be given a table, and have not been for so long that a switch should not wait for it.
    Unrouted {
        /// [`State::table`](super::State::table) that it is of.
        table: u64,
        /// What is in the way, in a sentence.
        why: String,
    },
    /// Nothing is in flight at a slot.
    Drained {
        /// Where.
        slot: SlotName,
        /// In which run.
        boot: Option<BootId>,
    },
    /// All that is still in flight at a run of the slot has outlived the deadline of its class, or some of it was cut because it had.
    Overdue {
        /// Where.
        slot: SlotName,
        /// In which run.
        boot: Option<BootId>,
    },
    /// A slot's unit is inactive.
    Stopped {
        /// Where.
        slot: SlotName,
        /// It took SIGKILL.
        killed: bool,
    },
    /// A probe ended.
    Probed {
        /// Where.
        slot: SlotName,
        /// Which run was asked.
        boot: BootId,
        /// What it found.
        probe: Probe,
    },
    /// A unit is up in a run that no start effect began: by hand, or again after a crash.
    Appeared {
        /// Where.
        slot: SlotName,
        /// The run.
        boot: BootId,
        /// What the slot's symlink names.
        release: Option<ReleaseId>,
        /// The settings now in force: one that was started by hand is gated by them.
        settings: Settings,
    },
    /// A run ended that no stop effect ended.
    Vanished {
        /// Where.
        slot: SlotName,
        /// Which run.
        boot: BootId,
        /// How.
        end: End,
    },
    /// What a demanded measurement found.
    Measured {
        /// For what.
        of: Measured,
        /// Of the attempt.
        generation: Generation,
        /// Both slots.
        evidence: Evidence,
    },
    /// Somebody asks for the plan under way to stand still, or to go on.
    Pause {
        /// To stand still.
        paused: bool,
    },
    /// A hook ended.
    Hooked {
        /// Which.
        hook: Hook,
        /// Of its occasion.
        generation: Generation,
        /// How, if not well.
        failure: Option<UnitFailure>,
    },
    /// A notice is written down for whoever is told elsewhere.
    Posted {
        /// Its number.
        number: u64,
    },
    /// Somebody asks for something, on a condition.
    Guarded {
        /// The condition.
        guard: Guard,
        /// What is asked for.
        event: Box<Event>,
    },
    /// All that comes with a request that has a key has come.
    Whole {
        /// The attempt that the request began.
        generation: Generation,
        /// A digest of it.
        payload: String,
    },
    /// Time has passed.
    Tick,
}

/// A request for a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks: `root`, `uid 1000`, …
    pub by: String,
    /// The settings now in force, `--drain` already in them.
    pub settings: Settings,
    /// How long to wait for an idle slot.
    pub queue: Duration,
    /// Where the candidate stays until it is told on, if it is not to be switched to.
    pub weight: Option<Weight>,
    /// Also a release that was rolled back automatically.
    pub force: bool,
    /// Nobody asks: neither what is live nor what a rollback left is deployed.
    pub auto: bool,
    /// Without a weight: it goes by the plan of the settings, if they have one.
    pub planned: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody stopped the unit.
    ByHand,
    /// The process ended and the unit will start it again.
    Restarting(UnitFailure),
    /// The process ended and nothing will start it again.
    Failed(UnitFailure),
}

/// What a unit says of its end (systemd.exec(5), `$SERVICE_RESULT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFailure {
    /// Its result.
    pub result: UnitResult,
    /// One sentence for people: `exited with status 1`, `killed by SIGSEGV`, …
    pub text: String,
}

impl UnitFailure {
    /// It is no failure: a process that ends like this is only to be started again.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.result == UnitResult::Success
    }

    /// Somebody had the unit restarted (`systemctl restart`), which takes the process as it comes.
    #[must_use]
    pub fn restarted() -> Self {
        Self {
            result: UnitResult::Success,
            text: "was restarted by somebody".to_owned(),
        }
    }
}

/// The word for a unit's end: of systemd, or of our own (`port-in-use`, `unit-missing`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitResult {
    /// `success`: it exited with status 0, by a signal that asks for that (SIGTERM, …), or because somebody had it started anew.
    Success,
    /// `timeout`: it was not up in time, or not down.
    Timeout,
    /// `exit-code`, `signal`, `watchdog`, `start-limit-hit`, …: nothing is decided by which of them it is. `reboot` is slot's own word for
    /// a run that ended with the machine, `restarts` for one that did so too often.
    Other(String),
}

impl UnitResult {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Success => "success",
            Self::Timeout => "timeout",
            Self::Other(word) => word,
        }
    }
}

impl From<&str> for UnitResult {
    fn from(word: &str) -> Self {
        match word {
            "success" => Self::Success,
            "timeout" => Self::Timeout,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What a health request found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// 2xx or 3xx, from a process of the unit.
    pub pass: bool,
    /// Status and first line of the body, or what went wrong.
    pub text: String,
}
