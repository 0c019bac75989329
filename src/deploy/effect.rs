//! What must be going on for a state to be true: effects, derived from the state alone.
//!
//! Nothing is "to be done once": a state *demands* effects for as long as it lasts. After each commit the daemon performs what is
//! newly demanded, and gives up what is not demanded any more; after a crash it performs all of it. So an effect cannot be
//! lost between the commit and the act, and performing one again must change nothing.
//!
//! **Invariant:** an effect that names a run (`boot`) concerns that run only. Whoever performs it and finds another run, or
//! none, reports [`Event::Vanished`](super::Event::Vanished) for it and does nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use super::hook::{Occasion, hook_effect};
use super::names::{BootId, Generation, ReleaseId, SlotName, Time, Weight};
use super::plan::{Measurement, measurement};
use super::policy::{ByClass, HOLD, Settings};
use super::state::{Condition, Phase, Service, Slot, State};
use super::tiding::{Tiding, tiding_effect};

/// Something that must be going on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The slot's symlink names the release and its unit is started. Answered by `Started` or `StartFailed`.
    Start {
        /// Where.
        slot: SlotName,
        /// Names the start in its answer.
        generation: Generation,
        /// What.
        release: ReleaseId,
        /// How long it may take.
        limits: Limits,
    },
    /// The slot's health is asked, again and again. Each answer is a `Probed`.
    Probe {
        /// Where.
        slot: SlotName,
        /// Which run.
        boot: BootId,
        /// How often.
        pace: Pace,
    },
    /// The slot's unit is frozen: its processes are not run, and keep their memory. Not answered. A probe at the pace of a gate thaws it, and so
    /// does a stop.
    Freeze {
        /// Where.
        slot: SlotName,
        /// Which run.
        boot: BootId,
    },
    /// Every router has this app's part of the table. Answered by `Routed`.
    Route(Route),
    /// The routers are asked until nothing is in flight at the slot. Answered by `Drained`, or by `Overdue`.
    Drain {
        /// Where.
        slot: SlotName,
        /// Which run.
        boot: Option<BootId>,
        /// When what is left of a class is cut.
        until: ByClass<Time>,
    },
    /// The slot's unit is stopped. Answered by `Stopped`.
    Stop {
        /// Where.
        slot: SlotName,
    },
    /// The symlinks `live` and `prev` name these. Not answered.
    Link {
        /// The active slot's release.
        live: Option<ReleaseId>,
        /// What `rollback` goes to.
        prev: Option<ReleaseId>,
    },
    /// The app's command for an occasion runs to its end. Answered by `Hooked`.
    Hook(Occasion),
    /// Both slots' answers are counted, again and again. Each count is a `Measured`.
    Measure(Measurement),
    /// It is written down for whoever is told elsewhere. Answered by `Posted`.
    Post(Tiding),
    /// These releases are in use; others may be removed by the retention. Not answered.
    Retain {
        /// Those of every slot, `live`, `prev` and the deployment's.
        releases: BTreeSet<ReleaseId>,
    },
}

/// What a run is started with, by the settings of the attempt that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// [`Settings::start_timeout`].
    pub start: Duration,
    /// [`Settings::stop_timeout`], for when it is stopped: a run ends by the settings that it began with.
    pub stop: Duration,
}

impl Limits {
    fn of(settings: &Settings) -> Self {
        Self {
            start: settings.start_timeout,
            stop: settings.stop_timeout,
        }
    }
}

/// An app's part of the table, as far as the state decides it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// [`State::table`], which names it in its answer.
    pub table: u64,
    /// [`State::routed`].
    pub generation: Generation,
    /// The slot that has what the others leave; `None`: all have 0.
    pub active: Option<SlotName>,
    /// The others that have something. They can be sent requests now.
    pub trials: Vec<(SlotName, Weight)>,
    /// What of that is the slot's that the last switch was made from.
    pub left: Weight,
    /// The earliest attempt that one of those was started for, if there is one.
    pub tried: Option<Generation>,
    /// The active slot can be sent requests now.
    pub ready: bool,
    /// The runs of the slots that run.
    pub boots: Vec<(SlotName, BootId)>,
    /// How long requests are held while it cannot.
    pub hold: Duration,
}

impl Route {
    /// A slot's share of new requests.
    #[must_use]
    pub fn weight(&self, name: &SlotName) -> Weight {
        if self.active.as_ref() == Some(name) {
            let others = self.trials.iter().map(|(_, weight)| *weight);
            return others.fold(Weight::ALL, Weight::without);
        }
        let own = self.trials.iter().find(|(slot, _)| slot == name);
        own.map_or(Weight::NONE, |(_, weight)| *weight)
    }
}

/// How often a slot's health is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// At once and many times a second: somebody waits for it to pass.
    Gate,
    /// Once a second, to see it fail.
    Soak,
    /// Now and then, first after a while: it has proven itself.
    Lookout,
}

/// What a state demands, in the order in which it is performed first.
#[must_use]
pub fn effects(state: &State) -> Vec<Effect> {
    let mut demanded = vec![
        Effect::Route(route(state)),
        Effect::Link {
            live: state.live().cloned(),
            prev: state.prev.clone(),
        },
    ];
    demanded.extend(
        state
            .slots
            .iter()
            .filter_map(|(name, slot)| slot_effect(state, name, slot)),
    );
    demanded.extend(hook_effect(state));
    demanded.extend(measurement(state).map(Effect::Measure));
    demanded.extend(tiding_effect(state));
    demanded.push(Effect::Retain {
        releases: in_use(state),
    });
    demanded
}

fn route(state: &State) -> Route {
    let service = state
        .active
        .as_ref()
        .and_then(|name| match &state.slots.get(name)?.condition {
            Condition::Active(service) => Some(service),
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Failed(_) => None,
        });
    let hold = match service {
        Some(Service::Booting { .. }) => {
            state.settings.start_timeout + state.settings.health_timeout
        }
        Some(Service::Up | Service::Down { .. } | Service::ByHand) | None => HOLD,
    };
    Route {
        table: state.table,
        generation: state.routed,
        active: state.active.clone(),
        trials: state
            .given()
            .map(|(name, weight)| (name.clone(), weight))
            .collect(),
        left: (state.migrating()).map_or(Weight::NONE, |left| left.weight),
        tried: state
            .given()
            .filter_map(|(name, _)| Some(state.slots.get(name)?.generation))
            .min(),
        ready: matches!(service, Some(Service::Up)),
        boots: state
            .slots
            .iter()
            .filter_map(|(name, slot)| Some((name.clone(), slot.boot.clone()?)))
            .collect(),
        hold,
    }
}

fn slot_effect(state: &State, name: &SlotName, slot: &Slot) -> Option<Effect> {
    let start = |settings| {
        Some(Effect::Start {
            slot: name.clone(),
            generation: slot.generation,
            release: slot.release.clone()?,
            limits: Limits::of(settings),
        })
    };
    let probe = |pace| {
        Some(Effect::Probe {
            slot: name.clone(),
            boot: slot.boot.clone()?,
            pace,
        })
    };
    match &slot.condition {
        Condition::Starting => start(&state.deployment.as_ref()?.settings),
        Condition::Ready => probe(Pace::Gate),
        Condition::Active(Service::Booting { .. } | Service::Down { retry: None, .. })
            if slot.boot.is_none() =>
        {
            start(&state.settings)
        }
        Condition::Active(Service::Booting { .. } | Service::Down { .. }) => probe(Pace::Gate),
        Condition::Active(Service::Up) if watches(state, name) => probe(Pace::Soak),
        Condition::Active(Service::Up) if state.is_on_lookout(name) => probe(Pace::Lookout),
        Condition::Warm { .. } if slot.boot.is_none() => start(&state.settings),
        Condition::Warm { .. } if state.kept_in(name).is_some_and(|kept| kept.frozen) => {
            Some(Effect::Freeze {
                slot: name.clone(),
                boot: slot.boot.clone()?,
            })
        }
        // Nothing is cut so that it can be frozen.
        Condition::Warm { gated: true, .. }
            if state.kept_in(name).is_some_and(|kept| kept.freezes)
                && !state.lingering.contains(name)
                && !state.migrates(name) =>
        {
            Some(Effect::Drain {
                slot: name.clone(),
                boot: slot.boot.clone(),
                until: ByClass::all(None),
            })
        }
        Condition::Warm { gated: false, .. } => probe(Pace::Gate),
        Condition::Warm { .. } if state.migrates(name) => probe(Pace::Soak),
        Condition::Standby { gated: false } => probe(Pace::Gate),
        Condition::Trial { .. } => probe(Pace::Soak),
        // What the routers may still send to it is not seen yet.
        Condition::Draining { .. } if state.lingering.contains(name) => None,
        Condition::Draining { until, .. } => Some(Effect::Drain {
            slot: name.clone(),
            boot: slot.boot.clone(),
            until: *until,
        }),
        Condition::Stopping { .. } => Some(Effect::Stop { slot: name.clone() }),
        Condition::Idle
        | Condition::Standby { .. }
        | Condition::Active(Service::Up | Service::ByHand)
        | Condition::Warm { .. }
        | Condition::Failed(_) => None,
    }
}

fn watches(state: &State, slot: &SlotName) -> bool {
    state.soak().is_some_and(|watch| watch.new == *slot)
}

fn in_use(state: &State) -> BTreeSet<ReleaseId> {
    let waiting = state
        .deployment
        .as_ref()
        .and_then(|deployment| match &deployment.phase {
            Phase::Waiting { release, .. } => Some(release),
            Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Trial { .. }
            | Phase::Shifting { .. } => None,
        });
    let slots = state
        .slots
        .values()
        .filter_map(|slot| slot.release.as_ref());
    let kept = state.watch.iter().filter_map(|watch| watch.prev.as_ref());
    let due = state.due.iter().filter_map(|due| due.release.as_ref());
    slots
        .chain(waiting)
        .chain(kept)
        .chain(due)
        .chain(&state.prev)
        .cloned()
        .collect()
}
