//! What may happen to an app: what people ask for, what effects report, what is seen of its units.

use std::time::Duration;

use super::guard::{Guard, Unexpected};
use super::hook::Hook;
use super::names::{BootId, Generation, Key, ReleaseId, SlotName, Weight};
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
    /// The release of the deployment is known, and is one that is marked: it is not put on disk for it.
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

/// A request that is legal in itself, but not now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another deployment holds the lock.
    #[error(
        "a deployment is in progress: generation {generation}, begun by {by} {} ago, phase {phase}{}",
        span(*held),
        ways_out(trial.as_ref())
    )]
    Busy {
        /// Of the holder.
        generation: Generation,
        /// Who began it.
        by: String,
        /// For how long they have held the lock.
        held: Duration,
        /// How far it is.
        phase: &'static str,
        /// Its candidate and that one's weight, if it stays at one until it is told on.
        trial: Option<(SlotName, Weight)>,
    },
    /// No release to go back to.
    #[error("nothing to roll back to: {why}; deploy a release with `slotctl deploy`")]
    NothingToRollBackTo {
        /// Why there is none.
        why: &'static str,
    },
    /// What a rollback brought is live still: one more is not taken for the way forward.
    #[error(
        "release {live} has served since a rollback {} ago, and nothing else has been switched to since, so that nothing was done; \
         `slotctl rollback --to RELEASE` goes to an earlier one of `slotctl releases`{}",
        span(*ago),
        forward(left.as_ref(), *marked)
    )]
    AlreadyBack {
        /// [`State::generation`](super::State::generation).
        generation: Generation,
        /// What is live.
        live: ReleaseId,
        /// What the rollback left.
        left: Option<ReleaseId>,
        /// That was left by itself, and takes `--force`.
        marked: bool,
        /// For how long it has been so.
        ago: Duration,
    },
    /// The release that a rollback names is the one that it would leave.
    #[error(
        "release {release} is live already; `slotctl deploy --release {release}` starts it anew"
    )]
    AlreadyLive {
        /// As asked.
        release: ReleaseId,
    },
    /// The release that a rollback names failed in its soak.
    #[error(
        "release {release} was itself rolled back automatically, and a rollback goes to none that was; `slotctl deploy --release {release} --force` tries it again"
    )]
    Marked {
        /// As asked.
        release: ReleaseId,
    },
    /// A slot that the app does not have.
    #[error("there is no slot {slot}; `slotctl ps` lists the slots")]
    NoSuchSlot {
        /// As asked.
        slot: SlotName,
    },
    /// The slot does not stand by.
    #[error(
        "slot {slot} is {condition}, and only a slot that stands by or has a weight can be promoted; start it first"
    )]
    NotStandingBy {
        /// As asked.
        slot: SlotName,
        /// What it is instead.
        condition: &'static str,
    },
    /// The slot stands by, and its last run has ended.
    #[error(
        "slot {slot} stands by, but nothing runs in it just now: its last run ended, and its unit starts it again; see why with `slotctl logs {slot}`, and promote it when it stays up"
    )]
    BetweenRuns {
        /// As asked.
        slot: SlotName,
    },
    /// The slot takes no weight.
    #[error(
        "slot {slot} is {condition}, and only a slot that stands by, or has been deployed to with `--weight`, can be given a weight; \
         `slotctl ps` lists the slots"
    )]
    TakesNoWeight {
        /// As asked.
        slot: SlotName,
        /// What it is instead.
        condition: &'static str,
    },
    /// The slot has not passed its gates.
    #[error(
        "slot {slot} stands by, and no probe of this run of it has passed yet; it is probed on: see why with `slotctl logs {slot}`, and \
         give it a weight when `slotctl ps` says that it is healthy"
    )]
    NotHealthy {
        /// As asked.
        slot: SlotName,
    },
    /// A slot that was started by hand has a hook ahead.
    #[error(
        "slot {slot} was started by hand, and before_switch, which comes before its first request, runs when it is promoted: `slotctl promote \
         {slot}`; or deploy with `--weight`, which runs it first"
    )]
    HookFirst {
        /// As asked.
        slot: SlotName,
    },
    /// The active slot has what the others leave.
    #[error(
        "slot {slot} is active, and has what the others leave, {weight} now; set the weight of another one, and it gives that or gets it"
    )]
    IsActive {
        /// As asked.
        slot: SlotName,
        /// What it has.
        weight: Weight,
    },
    /// The active slot has not so much to give.
    #[error("slot {slot} cannot have {weight}: {}", giver(active.as_ref(), *rest, *own))]
    TooMuch {
        /// As asked.
        slot: SlotName,
        /// As asked.
        weight: Weight,
        /// What it has already.
        own: Weight,
        /// The slot that would give it.
        active: Option<SlotName>,
        /// What that one has.
        rest: Weight,
    },
    /// Nothing that could be taken back is under way.
    #[error(
        "there is nothing to abort: no deployment is under way; `slotctl rollback` goes back to the release before, `slotctl weight` and \
         `slotctl stop` are for slots that were started by hand"
    )]
    NothingToAbort,
    /// No plan is under way.
    #[error(
        "no plan is under way that could stand still or go on: a deployment goes by one where the app's file has [canary] and no `--weight` is \
         given; `slotctl status` says what is under way"
    )]
    NoPlan,
    /// The plan has come to its end.
    #[error(
        "the plan has passed its last step, and {slot} stays there until it is told on: `slotctl promote` gives it everything, `slotctl \
         abort` takes it back"
    )]
    PlanFinished {
        /// The candidate.
        slot: SlotName,
    },
    /// Too late: the switch is decided.
    #[error(
        "generation {generation} has switched already, and the routers are being told; `slotctl rollback` goes back"
    )]
    Switching {
        /// Of the attempt.
        generation: Generation,
    },
    /// Without it nothing would serve.
    #[error(
        "slot {slot} is the active one: without it every request would be refused; let another take its place first (`slotctl deploy`, \
         `slotctl promote`), or stop it all the same with `--force`, which also ends a deployment whose candidate has a weight"
    )]
    OnlyLive {
        /// As asked.
        slot: SlotName,
    },
    /// Another slot is active than somebody believes.
    #[error(
        "slot {slot} is not the active one, {}; nothing was changed",
        active.as_ref().map_or_else(|| "and none is".to_owned(), |name| format!("{name} is"))
    )]
    NotActive {
        /// As asked.
        slot: SlotName,
        /// Which is.
        active: Option<SlotName>,
    },
    /// The app is not as whoever asked had seen it.
    #[error("nothing was done: {0}; look again with `slotctl status`")]
    Unexpected(Box<Unexpected>),
    /// The request was made before, and is not carried out again: what it began is its answer.
    #[error("the request with the key {key} was made before, and began generation {generation}")]
    Repeated {
        /// Its key.
        key: Key,
        /// What it began.
        generation: Generation,
    },
    /// Another request had the same key.
    #[error(
        "nothing was done: the key {key} is that of another request, which began generation {generation}; give each request a key of its own"
    )]
    KeyReused {
        /// The key.
        key: Key,
        /// What the other one began.
        generation: Generation,
    },
    /// The slot does not drain.
    #[error("slot {slot} is {condition} and drains nothing")]
    NotDraining {
        /// As asked.
        slot: SlotName,
        /// What it is instead.
        condition: &'static str,
    },
}

/// What there is to do about a deployment that holds the lock.
fn ways_out(trial: Option<&(SlotName, Weight)>) -> String {
    match trial {
        Some((slot, weight)) => format!(
            ", {slot} at {weight}, where it stays until it is told on: `slotctl promote` gives it everything, `slotctl weight {slot} 50` \
             another share, `slotctl abort` takes it back"
        ),
        None => "; wait for it (`--queue 5m`), or watch it with `slotctl status`".to_owned(),
    }
}

/// The way to the release that a rollback left.
fn forward(left: Option<&ReleaseId>, marked: bool) -> String {
    let force = if marked { " --force" } else { "" };
    left.map_or_else(String::new, |left| {
        format!(", `slotctl deploy --release {left}{force}` to the one that was left")
    })
}

/// How much there is to be had.
fn giver(active: Option<&SlotName>, rest: Weight, own: Weight) -> String {
    let Some(active) = active else {
        return "no slot is active that it could be taken from; deploy without `--weight`, or let it become active with `slotctl promote`".to_owned();
    };
    let others = Weight::ALL.without(rest).without(own);
    let has = format!("that is taken from the active slot, {active}, which has {rest}");
    match others == Weight::NONE {
        true => has,
        false => format!(
            "{has}; set the weight of another one to 0 first, or let this one take everything with `slotctl promote`"
        ),
    }
}

/// `42 s`, `3 min`, `2 h`: how long ago something was, for people.
fn span(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
