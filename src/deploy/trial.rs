//! Shares of new requests: what a slot is given beside the active one, and how it is taken back.
//!
//! **Invariant:** a slot that loses what it had is lingering until the routers know it; a candidate that was taken back is given nothing
//! again in the same run.

use std::time::Duration;

use super::event::{End, Probe, UnitFailure};
use super::hook::Hook;
use super::names::{SlotName, Weight};
use super::notice::Notice;
use super::policy::{ByClass, DRAIN_ANSWER, FAILED_PROBES, Settings};
use super::refusal::Refusal;
use super::state::{Cause, Condition, Kind, Phase, State};
use super::step::Draft;

impl State {
    /// A slot's share of new requests.
    #[must_use]
    pub fn weight(&self, name: &SlotName) -> Weight {
        if self.active.as_ref() == Some(name) {
            return self.rest();
        }
        match self.slots.get(name).map(|slot| &slot.condition) {
            Some(Condition::Trial { weight, .. }) => *weight,
            Some(_) | None => {
                let left = self.migrating().filter(|it| it.slot == *name);
                left.map_or(Weight::NONE, |it| it.weight)
            }
        }
    }

    /// What the active slot has: all that the others leave; nothing, if there is none.
    #[must_use]
    pub fn rest(&self) -> Weight {
        let all = self.active.as_ref().map_or(Weight::NONE, |_| Weight::ALL);
        self.given()
            .fold(all, |left, (_, weight)| left.without(weight))
    }

    /// The slots on trial that are given something beside the active one.
    pub fn trials(&self) -> impl Iterator<Item = (&SlotName, Weight)> {
        self.slots
            .iter()
            .filter_map(|(name, slot)| match slot.condition {
                Condition::Trial { weight, .. } if weight != Weight::NONE => Some((name, weight)),
                _ => None,
            })
    }
}

impl Draft {
    /// The candidate passed its gates, and is to stay at a weight: as much of it as the active slot still has.
    pub(super) fn try_out(&mut self, slot: &SlotName, weight: Weight) {
        self.make_available(slot, weight);
        let weight = weight.min(self.state.rest());
        self.set(slot, Condition::trial(weight));
        self.enter(Phase::Trial {
            slot: slot.clone(),
            plan: None,
        });
        self.tell_weight(slot, None);
    }

    /// Somebody gives a slot another weight.
    pub(super) fn weigh(
        &mut self,
        slot: SlotName,
        weight: Weight,
        by: String,
        settings: Settings,
    ) -> Result<(), Refusal> {
        let Some(found) = self.state.slots.get(&slot) else {
            return Err(Refusal::NoSuchSlot { slot });
        };
        let own = self.state.weight(&slot);
        match &found.condition {
            // What is only left to the old slot is on its way already.
            Condition::Active(_)
                if own == weight || weight == Weight::ALL && self.state.available() == weight =>
            {
                return Ok(());
            }
            Condition::Active(_) => return Err(Refusal::IsActive { slot, weight: own }),
            Condition::Trial { .. } => {}
            Condition::Standby { .. } if found.boot.is_none() => {
                return Err(Refusal::BetweenRuns { slot });
            }
            Condition::Standby { gated: false } => return Err(Refusal::NotHealthy { slot }),
            // It would have requests before its hook has run.
            Condition::Standby { gated: true }
                if settings.hooks.contains(&Hook::BeforeSwitch) && weight != Weight::ALL =>
            {
                return Err(Refusal::HookFirst { slot });
            }
            Condition::Standby { gated: true } => {}
            // What the last switch left to it can be taken, and no more be given.
            Condition::Warm { .. } if weight == own => return Ok(()),
            Condition::Warm { .. } if weight == Weight::NONE => {
                self.migrated();
                return Ok(());
            }
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {
                let condition = found.condition.name();
                return Err(Refusal::TakesNoWeight { slot, condition });
            }
        }
        self.make_available(&slot, weight);
        if weight.without(own) > self.state.rest() {
            return Err(self.too_much(slot, weight));
        }
        if weight == Weight::ALL {
            return self.promote(slot, by, settings);
        }
        if weight != own {
            self.strays(&slot);
            self.give(&slot, weight);
            self.tell_weight(&slot, None);
        }
        Ok(())
    }

    /// A weight that the active slot cannot give.
    pub(super) fn too_much(&self, slot: SlotName, weight: Weight) -> Refusal {
        Refusal::TooMuch {
            weight,
            own: self.state.weight(&slot),
            active: self.state.active.clone(),
            rest: self.state.rest(),
            slot,
        }
    }

    /// A slot that stands by or is on trial has this much now.
    pub(super) fn give(&mut self, name: &SlotName, weight: Weight) {
        if weight == Weight::NONE && self.state.weight(name) != Weight::NONE {
            self.state.lingering.insert(name.clone());
        }
        let streak = match self.state.slots.get(name).map(|slot| &slot.condition) {
            Some(Condition::Trial { streak, .. }) => *streak,
            Some(_) | None => 0,
        };
        let next = match weight == Weight::NONE && self.state.on_trial() != Some(name) {
            true => Condition::Standby { gated: true },
            false => Condition::Trial { weight, streak },
        };
        self.set(name, next);
    }

    /// Nothing is left beside the active slot, if there is one: each that had something stands by, the candidate of a deployment at 0.
    pub(super) fn take_back_all(&mut self) {
        let given: Vec<SlotName> = self.state.trials().map(|(name, _)| name.clone()).collect();
        for name in given {
            self.give(&name, Weight::NONE);
            self.tell_weight(&name, None);
        }
    }

    pub(super) fn tell_weight(&mut self, slot: &SlotName, cause: Option<Cause>) {
        let (weight, rest) = (self.state.weight(slot), self.state.rest());
        self.tell(Notice::Weighed {
            slot: slot.clone(),
            weight,
            rest,
            cause,
        });
    }

    /// A slot takes the place of the active one; once it has it, that is what was asked for.
    pub(super) fn swap(
        &mut self,
        from: &SlotName,
        to: SlotName,
        by: String,
        settings: Settings,
    ) -> Result<(), Refusal> {
        for slot in [from, &to] {
            if !self.state.slots.contains_key(slot) {
                return Err(Refusal::NoSuchSlot { slot: slot.clone() });
            }
        }
        if self.state.active.as_ref() == Some(&to) {
            return Ok(());
        }
        if self.state.active.as_ref() != Some(from) {
            return Err(Refusal::NotActive {
                slot: from.clone(),
                active: self.state.active.clone(),
            });
        }
        let release = self.state.slots.get(&to).and_then(|it| it.release.clone());
        let marked = release.filter(|it| self.state.marked.contains_key(it));
        if let Some(release) = marked.clone().filter(|_| self.state.kept_in(&to).is_some()) {
            return Err(Refusal::Marked { release });
        }
        if self.swap_to_frozen(&to, &by, &settings)? {
            return Ok(());
        }
        if !self.is_running(&to) {
            return self.promote(to, by, settings);
        }
        if let Some(release) = marked {
            return Err(Refusal::Marked { release });
        }
        self.refuse_if_locked()?;
        // It has been active, and its release has served.
        self.shift_at_once(Kind::Rollback, &to, by, settings);
        Ok(())
    }

    /// Somebody takes back what has not switched yet.
    pub(super) fn abort(&mut self, by: String) -> Result<(), Refusal> {
        match self.state.deployment.as_ref() {
            None => Err(Refusal::NothingToAbort),
            Some(held) if matches!(held.phase, Phase::Shifting { .. }) => Err(Refusal::Switching {
                generation: held.generation,
            }),
            Some(_) => {
                self.fail(Cause::Aborted(by));
                Ok(())
            }
        }
    }

    /// Somebody stops a slot.
    pub(super) fn stop_asked(
        &mut self,
        name: &SlotName,
        force: bool,
        by: String,
    ) -> Result<(), Refusal> {
        let Some(found) = self.state.slots.get(name) else {
            return Err(Refusal::NoSuchSlot { slot: name.clone() });
        };
        match &found.condition {
            Condition::Active(_) if !force => {
                return Err(Refusal::OnlyLive { slot: name.clone() });
            }
            Condition::Active(_) => self.stop_active(name, by),
            Condition::Starting | Condition::Ready => self.fail(Cause::Aborted(by)),
            Condition::Trial { .. } if self.state.on_trial() == Some(name) => {
                self.fail(Cause::Aborted(by));
            }
            Condition::Standby { .. } | Condition::Trial { .. } => {
                self.withdraw(name, self.state.settings.drain, None);
            }
            // The soak goes on without it.
            Condition::Warm { .. } => {
                self.old_slot_gone(name);
                self.drain(name);
            }
            Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Idle
            | Condition::Failed(_) => {}
        }
        Ok(())
    }

    /// Nothing is active any more: the routers refuse every request as soon as they know. What is in flight may end.
    fn stop_active(&mut self, name: &SlotName, by: String) {
        match self.state.deployment.as_ref().map(|held| &held.phase) {
            Some(Phase::Trial { .. }) => self.fail(Cause::Aborted(by)),
            Some(Phase::Shifting { .. }) => self.end(Cause::Aborted(by)),
            // What has not begun to take requests may bring them back.
            Some(
                Phase::Preparing { .. }
                | Phase::Waiting { .. }
                | Phase::Starting { .. }
                | Phase::Ready { .. },
            )
            | None => {}
        }
        if let Some(watch) = self.state.watch.take()
            && watch.rolling_back.is_none()
        {
            self.tell(Notice::Soak {
                generation: watch.generation,
                slot: watch.new,
                cause: Cause::StoppedByHand,
            });
        }
        self.withdraw(name, self.state.settings.drain, None);
        self.activate(None);
        self.migrated();
        self.take_back_all();
        self.let_go();
    }

    /// Takes from a slot what it has, for good: it drains, once the routers know, and stops then.
    pub(super) fn withdraw(
        &mut self,
        name: &SlotName,
        drain: ByClass<Duration>,
        failure: Option<UnitFailure>,
    ) {
        let had = self.state.weight(name);
        let until = drain.map(|span| self.now.after(span.max(DRAIN_ANSWER)));
        let Some(slot) = self.state.slots.get_mut(name) else {
            return;
        };
        if slot.boot.is_none() {
            slot.condition = Condition::Stopping {
                forced: false,
                failure,
            };
        } else {
            slot.condition = Condition::Draining {
                until,
                withdrawn: true,
            };
            self.tell(Notice::Draining {
                slot: name.clone(),
                until: until.last(),
            });
        }
        if had != Weight::NONE {
            self.state.lingering.insert(name.clone());
        }
    }

    /// No router sends to it any more. It may drain at least for as long as they take to say that it has.
    pub(super) fn drain_on(&mut self, name: &SlotName) {
        let answered = self.now.after(DRAIN_ANSWER);
        if let Some(slot) = self.state.slots.get_mut(name)
            && let Condition::Draining { until, .. } = &mut slot.condition
        {
            *until = until.map(|until| until.max(answered));
        }
    }

    /// A probe of a slot that has a weight, or is to have one.
    pub(super) fn trial_probe(&mut self, name: &SlotName, probe: Probe) {
        let Some(slot) = self.state.slots.get_mut(name) else {
            return;
        };
        let Condition::Trial { streak, .. } = &mut slot.condition else {
            return;
        };
        *streak = match probe.pass {
            true => 0,
            false => streak.saturating_add(1),
        };
        if *streak >= FAILED_PROBES {
            self.trial_failed(name, Cause::ProbesFailed(probe));
        }
    }

    /// A run ended that had a weight.
    pub(super) fn trial_vanished(&mut self, name: &SlotName, end: End) {
        let (cause, failed) = match &end {
            End::ByHand => (Cause::StoppedByHand, None),
            End::Restarting(failure) => (Cause::Exited(failure.clone()), None),
            End::Failed(failure) => (Cause::Exited(failure.clone()), Some(failure.clone())),
        };
        self.trial_failed(name, cause);
        let stands_by = self
            .state
            .slots
            .get(name)
            .is_some_and(|slot| matches!(slot.condition, Condition::Standby { .. }));
        if stands_by && !matches!(end, End::Restarting(_)) {
            self.free(name, failed);
        }
    }

    /// It has nothing from here on. A candidate is stopped, its deployment has failed; what was started by hand stands by again, and
    /// has to pass its gates anew.
    fn trial_failed(&mut self, name: &SlotName, cause: Cause) {
        if self.state.on_trial() == Some(name) {
            self.fail(cause);
            return;
        }
        if self.state.weight(name) != Weight::NONE {
            self.state.lingering.insert(name.clone());
        }
        self.set(name, Condition::Standby { gated: false });
        self.tell_weight(name, Some(cause));
    }
}
