//! What is refused, and what whoever asked is to do instead.

use std::time::Duration;

use super::guard::Unexpected;
use super::names::{Generation, Key, ReleaseId, SlotName, Weight};

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
    /// The same rollback is under way: how that one ends is the answer.
    #[error(
        "a rollback to release {release} is under way: generation {generation}; `slotctl status` shows it"
    )]
    UnderWay {
        /// Of that one.
        generation: Generation,
        /// Where it goes.
        release: ReleaseId,
    },
    /// The release that a rollback or a promotion names is the one that it would leave.
    #[error(
        "release {release} is live already; `slotctl deploy --release {release}` starts it anew"
    )]
    AlreadyLive {
        /// [`State::generation`](super::State::generation).
        generation: Generation,
        /// As asked.
        release: ReleaseId,
        /// It is up, and does not fail.
        well: bool,
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
        "there is nothing to abort: no deployment is under way; `slotctl rollback` goes back from what has switched, `slotctl weight` and \
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

impl Refusal {
    /// What was asked for is so, and nothing is to be done: the app's last attempt.
    #[must_use]
    pub fn already(&self) -> Option<Generation> {
        match self {
            Self::AlreadyBack { generation, .. }
            | Self::AlreadyLive {
                generation,
                well: true,
                ..
            } => Some(*generation),
            _ => None,
        }
    }
}

/// What there is to do about a deployment that holds the lock.
fn ways_out(trial: Option<&(SlotName, Weight)>) -> String {
    match trial {
        Some((slot, weight)) => format!(
            ", {slot} at {weight}, where it stays until it is told on: `slotctl promote` gives it everything, `slotctl weight {slot} 50` \
             another share, `slotctl abort` takes it back"
        ),
        None => {
            "; wait for it (`slotctl deploy --queue 5m` does), or watch it with `slotctl status`"
                .to_owned()
        }
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
