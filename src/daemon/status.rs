//! An app as users see it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::app::Managed;
use super::fetch::FETCH;
use super::previews;
use super::tell;
use super::units::Units;
use crate::deploy::{
    ByClass, Condition, Deployment, Generation, Kept, Phase, Service, Slot, SlotName, State, plan,
};
use crate::telemetry::chain;
use crate::wire::api;
use crate::wire::control::{InFlight, Listing, Stats};
use crate::wire::date::utc;

/// Until when somebody who began an attempt waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// The release serves.
    #[default]
    Switched,
    /// The soak has ended.
    Soaked,
    /// The old slot is stopped.
    Stopped,
}

/// A router instance as users see it.
#[must_use]
pub fn router(instance: String, stats: &Stats) -> api::RouterStatus {
    let in_flight: InFlight = stats.slots.iter().map(|slot| slot.in_flight).sum();
    api::RouterStatus {
        instance,
        accepting: stats.accepting,
        revision: stats.revision,
        since_ms: stats.since_ms,
        connections: stats.connections,
        in_flight,
        held: stats.held,
        // The counts are of one moment each, so that together they can be off by a few.
        idle: stats
            .connections
            .saturating_sub(in_flight.total() + stats.held),
        drain_until_ms: stats.drain_until_ms,
        problem: stats.problem.clone(),
        unkept: stats.unkept,
    }
}

impl<U: Units> Managed<U> {
    /// The app as users see it.
    pub async fn status(&self) -> api::Status {
        let state = Arc::clone(&self.owner().state().borrow());
        let app = &self.world().app;
        let mut warnings = self.world().warnings();
        let apart = self.world().units.apart().await;
        warnings.extend(apart.map(|text| ("units-apart".to_owned(), text)));
        let mut warn = |topic: &str, text| warnings.push((topic.to_owned(), text));
        let (mut stats, mut routers) = (None, Vec::new());
        match self.world().tables.routers().stats().await {
            Ok(answers) => {
                let known: &mut Vec<Stats> = stats.insert(Vec::new());
                for (instance, answer) in answers {
                    match answer {
                        Ok(answer) => {
                            routers.push(router(instance, &answer));
                            known.push(answer);
                        }
                        Err(error) => warn("router", chain(&error)),
                    }
                }
            }
            Err(error) => warn("router", chain(&error)),
        }
        if let (Some(active), Some(why)) = (&state.active, &state.lookout.failing) {
            warn("failing", tell::failing(app, active, why, &state));
        }
        let (topics, warnings) = warnings.into_iter().unzip();
        let addresses: BTreeSet<String> = stats
            .iter()
            .flatten()
            .flat_map(|stats| &stats.listeners)
            .map(|at| format!("http://{}/", reachable(&at.address)))
            .collect();
        let listed = self.releases().await.releases;
        let mut slots = Vec::new();
        for (name, slot) in &state.slots {
            let in_flight = stats
                .as_ref()
                .map(|stats| self.world().sum(stats, name, slot.boot.as_ref()));
            let mut shown = self.slot_status(&state, name, slot, in_flight);
            let its = listed
                .iter()
                .find(|it| Some(&it.id) == shown.release.as_ref());
            shown.label = its.and_then(|release| release.label.clone());
            shown.source = its.map(|release| release.source.clone());
            if slot.boot.is_some() {
                shown.restarts = self.world().units.restarts(name).await;
            }
            slots.push(shown);
        }
        api::Status {
            app: app.name.to_string(),
            state: state.name().to_owned(),
            generation: state.generation.0,
            active: state.active.as_ref().map(ToString::to_string),
            live: state.live().map(ToString::to_string),
            prev: state.prev.as_ref().map(ToString::to_string),
            way_back: state.way_back().map(ToString::to_string),
            gone_back_ms: state.gone_back().map(|(at, _)| at.0),
            serving: state
                .active
                .as_ref()
                .and_then(|active| state.slots.get(active))
                .is_some_and(|slot| slot.condition == Condition::Active(Service::Up)),
            standing: self.world().standing(&state).await,
            addresses: addresses.into_iter().collect(),
            previews: previews::hosts(app, &state),
            slots,
            deployment: self.progress(&state),
            soak_until_ms: state.watch.as_ref().map(|watch| watch.until.0),
            health_fail_streak: streak(&state),
            last: self.last(&state),
            routers,
            rolled_back: state
                .rolled_back
                .as_ref()
                .map(|back| tell::rolled_back(app, back)),
            staging: self.world().staging(),
            warnings,
            topics,
            remote: app.remote.as_ref().map(|remote| remote.url.clone()),
            hold: self.world().held().await,
        }
    }

    /// What is under way at slots that get no new requests.
    pub async fn connections(&self) -> api::Connections {
        let state = Arc::clone(&self.owner().state().borrow());
        let app = self.world().app.name.as_str();
        let mut answer = api::Connections::default();
        for name in state.slots.keys() {
            if state.active.as_ref() == Some(name) {
                continue;
            }
            let routers = self.world().tables.routers();
            let (own, silent) = match routers.connections(app, name.as_str()).await {
                Ok(told) => told,
                Err(error) => (Listing::default(), vec![error]),
            };
            answer
                .warnings
                .extend(silent.iter().map(|error| chain(error)));
            if own.left_out > 0 {
                answer.left_out.insert(name.to_string(), own.left_out);
            }
            if !own.connections.is_empty() {
                answer.slots.insert(name.to_string(), own.connections);
            }
        }
        // Each slot was asked for by itself.
        answer.warnings.sort();
        answer.warnings.dedup();
        answer
    }

    fn last(&self, state: &State) -> Option<api::Outcome> {
        let last = self.ended(state, state.outcome.as_ref()?.generation.0)?;
        let watched = self.watched(state, last.clone());
        Some(if watched.success { last } else { watched })
    }

    /// How an attempt ended. After a restart of slotd only what is on disk is known of it.
    fn ended(&self, state: &State, generation: u64) -> Option<api::Outcome> {
        let on_disk = state.outcome.as_ref();
        self.world().outcome(generation).or_else(|| {
            on_disk
                .filter(|outcome| outcome.generation.0 == generation)
                .or_else(|| state.kept_outcome(Generation(generation)))
                .map(|outcome| tell::outcome(&self.world().app, outcome))
        })
    }

    /// The outcome of an attempt that may have switched, with what came of it in its soak.
    fn watched(&self, state: &State, mut outcome: api::Outcome) -> api::Outcome {
        let back = state.rolled_back.as_ref();
        let end = match back.filter(|back| back.generation.0 == outcome.generation) {
            Some(back) => {
                let back = tell::rolled_back(&self.world().app, back);
                outcome.reached = back.reached;
                Some((false, back.cause, back.text))
            }
            None => self.world().watch_end(outcome.generation),
        };
        if let Some((success, cause, text)) = end {
            (outcome.success, outcome.cause, outcome.text) = (success, cause, text);
            outcome.phase = "switched".to_owned();
        }
        outcome
    }

    fn slot_status(
        &self,
        state: &State,
        name: &SlotName,
        slot: &Slot,
        in_flight: Option<InFlight>,
    ) -> api::SlotStatus {
        let (detail, until) = match &slot.condition {
            Condition::Active(service) => (Some(service_name(service)), None),
            Condition::Failed(failure) => (Some(failure.text.clone()), None),
            Condition::Warm { drain: until, .. } => {
                match state.migrating().filter(|it| it.slot == *name) {
                    // It drains from then on.
                    Some(left) => {
                        let until = utc(left.until.0);
                        (Some(format!("keeps {} until {until}", left.weight)), None)
                    }
                    None => (
                        (state.kept_in(name)).map(kept_until),
                        Some(until.map(|until| until.0)),
                    ),
                }
            }
            Condition::Draining { until, .. } => (None, Some(until.map(|until| until.0))),
            Condition::Standby { .. } if slot.boot.is_none() => {
                (Some("between two runs".to_owned()), None)
            }
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Stopping { .. } => (None, None),
        };
        let differ = until.filter(|until| *until != ByClass::all(until.requests));
        api::SlotStatus {
            slot: name.to_string(),
            unit: self.world().units.unit(name),
            condition: slot.condition.name().to_owned(),
            detail,
            release: slot.release.as_ref().map(ToString::to_string),
            label: None,
            source: None,
            boot_id: slot.boot.as_ref().map(ToString::to_string),
            upstream: self.world().units.upstream(name),
            weight: state.weight(name).get(),
            health: health(state, name, slot).map(str::to_owned),
            restarts: None,
            in_flight,
            drain_until_ms: until.and_then(ByClass::last),
            drain_classes: differ.map(|until| api::Deadlines {
                requests_ms: until.requests,
                streams_ms: until.streams,
                tunnels_ms: until.tunnels,
            }),
        }
    }

    /// How an attempt stands with respect to what somebody waits for.
    #[must_use]
    pub fn settled(&self, generation: u64, wait: Wait) -> Option<api::Outcome> {
        let state = Arc::clone(&self.owner().state().borrow());
        let goes_on = (state.deployment.as_ref())
            .and_then(plan)
            .is_some_and(|(_, plan, _)| !plan.finished);
        if state.everywhere
            && !goes_on
            && let Some(trial) = tell::trial(&state).filter(|it| it.generation == generation)
        {
            return Some(trial);
        }
        // An end is told before the state that has it is published: what is watched from then on is not in this one.
        let held = state.deployment.as_ref();
        if held.is_some_and(|held| held.generation.0 == generation) {
            return None;
        }
        let outcome = self.ended(&state, generation)?;
        let watch = state
            .watch
            .as_ref()
            .filter(|watch| watch.generation.0 == generation);
        // While the traffic goes back, the routers still send to the release that failed.
        if watch.is_some_and(|watch| wait != Wait::Switched || watch.rolling_back.is_some()) {
            return None;
        }
        let outcome = self.watched(&state, outcome);
        if !outcome.success || wait == Wait::Switched {
            return Some(outcome);
        }
        let leaving = state.slots.iter().any(|(name, slot)| {
            state.active.as_ref() != Some(name)
                && matches!(
                    slot.condition,
                    Condition::Warm { .. }
                        | Condition::Draining { .. }
                        | Condition::Stopping { .. }
                )
        });
        (wait == Wait::Soaked || !leaving).then_some(outcome)
    }

    /// What an attempt under way waits for, with numbers.
    pub async fn waiting(&self) -> Option<api::Progress> {
        let state = Arc::clone(&self.owner().state().borrow());
        let mut shown = self.progress(&state).unwrap_or_else(|| api::Progress {
            generation: state.generation.0,
            phase: state.name().to_owned(),
            ..api::Progress::default()
        });
        let leaving = state.slots.iter().find(|(_, slot)| {
            matches!(
                slot.condition,
                Condition::Warm { .. } | Condition::Draining { .. }
            )
        });
        let (name, slot) = leaving?;
        shown.slot = shown.slot.or_else(|| Some(name.to_string()));
        shown.in_flight = self.world().in_flight(name, slot.boot.as_ref()).await;
        Some(shown)
    }

    fn progress(&self, state: &State) -> Option<api::Progress> {
        let held = state.deployment.as_ref()?;
        let phase = self.world().phase(held.generation, &held.phase);
        let mut shown = progress(state, held, phase);
        shown.plan = self.world().plan(held, state);
        if let Some(plan) = &shown.plan {
            shown.waits_for = Some(plan.text.clone());
        }
        if phase == FETCH {
            let step = self.world().step(held.generation);
            shown.waits_for = step.map(|(_, text)| format!("the remote ({text})"));
        }
        Some(shown)
    }
}

/// What holds the slots that are neither active nor idle: ` (blue is draining)`.
fn taken(state: &State) -> String {
    let others = (state.slots.iter()).filter(|(name, _)| state.active.as_ref() != Some(*name));
    let taken = others.filter(|(_, slot)| !slot.condition.is_free());
    let taken: Vec<String> = taken
        .map(|(name, slot)| format!("{name} is {}", slot.condition.name()))
        .collect();
    match &taken[..] {
        [] => String::new(),
        taken => format!(" ({})", taken.join(", ")),
    }
}

fn progress(state: &State, held: &Deployment, phase: &str) -> api::Progress {
    let slot = held.phase.slot();
    api::Progress {
        generation: held.generation.0,
        kind: tell::kind(held.kind).to_owned(),
        by: held.by.clone(),
        began_ms: held.began.0,
        phase: phase.to_owned(),
        slot: slot.map(ToString::to_string),
        release: slot
            .and_then(|slot| state.slots.get(slot)?.release.as_ref())
            .map(ToString::to_string),
        waits_for: match &held.phase {
            Phase::Preparing { .. } if phase == "build" => Some("setup_command to end".to_owned()),
            Phase::Preparing { .. } | Phase::Ready { .. } if phase.starts_with("before_") => {
                Some(format!("the hook {phase} to end"))
            }
            Phase::Preparing { .. } => Some("the upload of the release".to_owned()),
            Phase::Waiting { .. } => Some(format!("a slot to become idle{}", taken(state))),
            Phase::Starting { slot, .. } => Some(format!("{slot} to be READY")),
            Phase::Ready {
                probe: Some(probe), ..
            } => Some(format!(
                "a probe to pass; the last one found: {}",
                probe.text
            )),
            Phase::Ready { slot, .. } => Some(format!("a probe of {slot} to pass")),
            Phase::Trial { slot, .. } if state.everywhere => Some(format!(
                "somebody to say how to go on with {slot} at {}: `slotctl weight`, `slotctl promote` or `slotctl abort`",
                state.weight(slot)
            )),
            Phase::Trial { .. } | Phase::Shifting { .. } => {
                Some("the routers to take the table".to_owned())
            }
        },
        in_flight: None,
        plan: None,
    }
}

/// Failed probes of the active slot in a row, in its soak or after it.
pub(super) fn streak(state: &State) -> u8 {
    (state.watch.as_ref()).map_or(state.lookout.streak, |watch| watch.streak)
}

/// What is known of a slot's health, as far as it is asked for one.
fn health(state: &State, name: &SlotName, slot: &Slot) -> Option<&'static str> {
    let proven = |gated| if gated { "healthy" } else { "unproven" };
    let failing = |streak| if streak == 0 { "healthy" } else { "failing" };
    Some(match &slot.condition {
        Condition::Active(Service::Down { .. } | Service::ByHand) => "down",
        Condition::Active(Service::Booting { .. }) | Condition::Ready => "unproven",
        Condition::Active(Service::Up) => {
            let watch = state.watch.as_ref().filter(|watch| watch.new == *name);
            failing(watch.map_or(state.lookout.streak, |watch| watch.streak))
        }
        Condition::Trial { streak: failed, .. } => failing(*failed),
        Condition::Standby { .. } if slot.boot.is_none() => "down",
        Condition::Standby { gated } | Condition::Warm { gated, .. } => proven(*gated),
        Condition::Idle
        | Condition::Starting
        | Condition::Draining { .. }
        | Condition::Stopping { .. }
        | Condition::Failed(_) => return None,
    })
}

fn kept_until(kept: &Kept) -> String {
    let how = if kept.frozen { "frozen" } else { "kept" };
    format!("{how} until {}", utc(kept.until.0))
}

fn service_name(service: &Service) -> String {
    match service {
        Service::Up => "up".to_owned(),
        Service::Booting { .. } => "booting".to_owned(),
        Service::Down { failure, .. } => format!("down: {}", failure.text),
        Service::ByHand => "stopped-by-hand".to_owned(),
    }
}

/// A listener's address as somebody on this machine would use it.
fn reachable(address: &str) -> String {
    let local = address
        .replace("0.0.0.0:", "127.0.0.1:")
        .replace("[::]:", "127.0.0.1:");
    local
        .strip_suffix(":80")
        .map_or(local.clone(), ToOwned::to_owned)
}
