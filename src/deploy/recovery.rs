//! What a deployer that starts makes of what it finds.
//!
//! The state on disk says what was meant; the units say what is. [`recover`] brings the first up to the second by the same events that
//! a running deployer would have seen. [`rediscover`] does without a state, when that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{End, Event, UnitFailure};
use super::hook::Stage;
use super::names::{BootId, Generation, ReleaseId, SlotName, Time};
use super::policy::{SOAK_REST, START_MARGIN, Settings};
use super::state::{Cause, Condition, Phase, Service, Slot, State};
use super::step::{Draft, Step, step};

/// What a deployer finds when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the app's file says now.
    pub settings: Settings,
    /// The machine was started since the state was written: nothing that ran then runs now.
    pub rebooted: bool,
    /// Every slot of the app.
    pub slots: BTreeMap<SlotName, Found>,
    /// The slot that was active by the last table: it has all the weight there, or its release is that of the symlink `live`.
    pub routed: Option<SlotName>,
    /// The others to which the last table gives some.
    pub shared: BTreeSet<SlotName>,
    /// The run to which the last table sends requests.
    pub serving: Option<BootId>,
    /// The highest generation that the table and the history name.
    pub generation: Generation,
    /// What the symlink `live` names.
    pub live: Option<ReleaseId>,
    /// What the symlink `prev` names.
    pub prev: Option<ReleaseId>,
}

/// One slot as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its unit.
    pub seen: Seen,
    /// What its symlink names.
    pub release: Option<ReleaseId>,
}

/// A unit as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Up, in this run.
    Running(BootId),
    /// On its way up, or about to be started again.
    Coming,
    /// Not running.
    Ended(End),
}

/// Takes a state up again.
#[must_use]
pub fn recover(state: &State, facts: &Facts, now: Time) -> Step {
    let mut draft = Draft::of(state, now);
    // Its release came from somebody who is gone.
    if matches!(
        draft.state.deployment.as_ref().map(|held| &held.phase),
        Some(Phase::Preparing { .. })
    ) {
        draft.fail(Cause::Interrupted);
    }
    if facts.rebooted {
        draft.rebooted();
    } else if let Some(watch) = &mut draft.state.watch {
        watch.until = watch.until.max(now.after(SOAK_REST));
    }
    draft.plan_recovers();
    draft.rollback_recovers();
    let mut taken = draft.finish();
    // The active slot comes last: should it have ended too, its traffic is not given to one that has.
    let active = taken.state.active.clone();
    let is_active = |slot: &SlotName| active.as_ref() == Some(slot);
    let (last, first): (Vec<_>, Vec<_>) = facts.slots.iter().partition(|(slot, _)| is_active(slot));
    for (slot, found) in first.into_iter().chain(last) {
        for event in seen(&taken.state, slot, found, &facts.settings) {
            // What is seen is never refused; only what people ask is.
            if let Ok(next) = step(&taken.state, event, now) {
                taken.state = next.state;
                taken.notices.extend(next.notices);
            }
        }
    }
    taken
}

/// The events that bring what is known of a slot up to what is seen of it.
fn seen(state: &State, name: &SlotName, found: &Found, settings: &Settings) -> Vec<Event> {
    let known = state.slots.get(name).and_then(|slot| slot.boot.clone());
    let vanished = |boot: BootId, end: &End| Event::Vanished {
        slot: name.clone(),
        boot,
        end: end.clone(),
    };
    let appeared = |boot: &BootId| Event::Appeared {
        slot: name.clone(),
        boot: boot.clone(),
        release: found.release.clone(),
        settings: settings.clone(),
    };
    let restarting = || {
        End::Restarting(UnitFailure {
            result: "unknown".into(),
            text: "ended while slotd was not running".to_owned(),
        })
    };
    match (&found.seen, known) {
        (Seen::Running(boot), Some(known)) if known == *boot => Vec::new(),
        (Seen::Running(boot), Some(known)) => vec![vanished(known, &restarting()), appeared(boot)],
        (Seen::Running(boot), None) => vec![appeared(boot)],
        (Seen::Coming, Some(known)) => vec![vanished(known, &restarting())],
        (Seen::Ended(end), Some(known)) => vec![vanished(known, end)],
        (Seen::Coming | Seen::Ended(_), None) => Vec::new(),
    }
}

impl Draft {
    /// Every run has ended. What was active is started again and its requests are held meanwhile; a deployment goes back to its start,
    /// with new deadlines, or ends if its candidate had a weight; a soak starts over, with its old slot; what drained has drained.
    fn rebooted(&mut self) {
        for slot in self.state.slots.values_mut() {
            slot.boot = None;
        }
        if self.state.on_trial().is_some() {
            self.fail(Cause::Exited(UnitFailure {
                result: "reboot".into(),
                text: "ended with the machine, which was restarted".to_owned(),
            }));
        }
        self.state.lingering.clear();
        self.kept_share = None;
        self.look_anew();
        self.switched();
        self.state.kept = None;
        let now = self.now;
        let settings = self.state.settings.clone();
        let names: Vec<SlotName> = self.state.slots.keys().cloned().collect();
        for name in names {
            let next = match self.state.slots[&name].condition.clone() {
                Condition::Active(_) => {
                    let until = now.after(settings.start_timeout + START_MARGIN);
                    Condition::Active(Service::Booting { until })
                }
                Condition::Warm { .. }
                    if self
                        .state
                        .watch
                        .as_ref()
                        .is_some_and(|watch| watch.old.as_ref() == Some(&name)) =>
                {
                    Condition::Warm {
                        gated: false,
                        drain: settings.drain.map(|span| now.after(span)),
                    }
                }
                Condition::Starting | Condition::Ready => Condition::Starting,
                Condition::Failed(failure) => Condition::Failed(failure),
                Condition::Idle
                | Condition::Standby { .. }
                | Condition::Trial { .. }
                | Condition::Warm { .. }
                | Condition::Draining { .. }
                | Condition::Stopping { .. } => Condition::Idle,
            };
            self.set(&name, next);
        }
        if let Some(watch) = &mut self.state.watch {
            watch.until = now.after(settings.soak);
            watch.streak = 0;
            watch.restarts = 0;
            watch.comes_by = None;
            watch.old = watch.old.take().filter(|old| {
                self.state
                    .slots
                    .get(old)
                    .is_some_and(|slot| slot.condition != Condition::Idle)
            });
        }
        self.restart_deployment();
        self.offer();
    }

    fn restart_deployment(&mut self) {
        let Some(deployment) = &mut self.state.deployment else {
            return;
        };
        // One that was running is run again, and one that has passed is not.
        if deployment.before_switch == Stage::Runs {
            deployment.before_switch = Stage::Ahead;
        }
        match &deployment.phase {
            Phase::Starting { slot, .. } | Phase::Ready { slot, .. } => {
                let until = self
                    .now
                    .after(deployment.settings.start_timeout + START_MARGIN);
                let phase = Phase::Starting {
                    slot: slot.clone(),
                    until,
                };
                self.enter(phase);
            }
            Phase::Preparing { .. }
            | Phase::Waiting { .. }
            | Phase::Trial { .. }
            | Phase::Shifting { .. } => {}
        }
    }
}

/// Makes a state out of what is found, for an app whose state file cannot be read: never an empty one while something serves.
///
/// The active slot is the one that the routers' last table names, else the one that runs the release of the symlink `live`, else the only
/// one that runs, else (nothing runs) the one whose symlink is `live`, else, where no slot has that release (slot-machine, whose data
/// directory it may have been, has other slots), the first. What runs beside it drains.
#[must_use]
pub fn rediscover(facts: &Facts, now: Time) -> State {
    let settings = facts.settings.clone();
    let drain = settings.drain.map(|span| now.after(span));
    let boot_until = now.after(settings.start_timeout + START_MARGIN);
    let mut state = State::new(settings);
    state.generation = facts.generation;
    state.routed = facts.generation;
    state.soaked = true;
    // Whether its switch was taken back already is not known any more, and none is taken back twice.
    state.lookout.left = Some(facts.generation);
    let runs = |found: &Found| !matches!(found.seen, Seen::Ended(_));
    let is_live = |found: &Found| found.release.is_some() && found.release == facts.live;
    let only = || {
        let mut running = facts.slots.iter().filter(|(_, found)| runs(found));
        running.next().filter(|_| running.next().is_none())
    };
    let active = facts
        .routed
        .as_ref()
        .and_then(|name| facts.slots.get_key_value(name))
        .filter(|(_, found)| found.release.is_some())
        .or_else(|| {
            facts
                .slots
                .iter()
                .find(|(_, found)| runs(found) && is_live(found))
        })
        .or_else(only)
        .or_else(|| facts.slots.iter().find(|(_, found)| is_live(found)))
        .map(|(name, _)| name.clone());
    let nothing_runs = !facts.slots.values().any(runs);
    let unheld = facts
        .live
        .clone()
        .filter(|_| active.is_none() && nothing_runs);
    let first = || state.settings.slots.first().cloned();
    let active = active.or_else(|| unheld.as_ref().and_then(|_| first()));
    for (name, found) in &facts.slots {
        let is_active = active.as_ref() == Some(name);
        let boot = match &found.seen {
            Seen::Running(boot) => Some(boot.clone()),
            Seen::Coming | Seen::Ended(_) => None,
        };
        let condition = match (is_active, &found.seen) {
            (true, Seen::Running(boot)) if facts.serving.as_ref() == Some(boot) => {
                Condition::Active(Service::Up)
            }
            (true, Seen::Running(_)) => Condition::Active(Service::Booting { until: boot_until }),
            // Whether somebody stopped it is not known any more, and an app that is meant to serve is better started.
            (true, Seen::Coming | Seen::Ended(_)) => {
                Condition::Active(Service::Booting { until: boot_until })
            }
            (false, Seen::Running(_)) => Condition::Draining {
                until: drain,
                withdrawn: facts.shared.contains(name),
            },
            (false, Seen::Coming) => Condition::Stopping {
                forced: false,
                failure: None,
            },
            (false, Seen::Ended(_)) => Condition::Idle,
        };
        let slot = Slot {
            condition,
            release: unheld
                .clone()
                .filter(|_| is_active)
                .or_else(|| found.release.clone()),
            boot,
            generation: facts.generation,
        };
        state.slots.insert(name.clone(), slot);
    }
    state.active = active;
    // The routers send to them until they have the next table.
    state.lingering.clone_from(&facts.shared);
    // The symlinks may be ahead of the table.
    let live = state.live();
    state.prev = facts.prev.clone().filter(|prev| live != Some(prev));
    state
}
