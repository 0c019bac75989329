//! An attempt to change the active release: from the lock to the switch, or to the cause that ended it.

use std::collections::BTreeMap;

use super::event::{Request, UnitFailure};
use super::hook::Stage;
use super::names::{Generation, ReleaseId, SlotName, Time, Weight};
use super::notice::Notice;
use super::policy::{SLOT_WAIT, START_MARGIN, Settings};
use super::refusal::Refusal;
use super::state::{Cause, Condition, Deployment, Kind, Outcome, Phase, Slot};
use super::step::Draft;

impl Draft {
    pub(super) fn begin(&mut self, request: Request) -> Result<(), Refusal> {
        self.refuse_if_locked()?;
        let weight = request.weight.filter(|weight| *weight != Weight::ALL);
        if let Some(slot) = self.state.next_slot(&request.settings.slots).cloned()
            && let Some(weight) = weight.filter(|weight| *weight > self.state.available())
        {
            return Err(self.too_much(slot, weight));
        }
        self.lock(
            Kind::Deploy,
            request.by,
            request.settings,
            Phase::Preparing {
                queue: request.queue,
            },
        );
        if let Some(held) = &mut self.state.deployment {
            held.weight = weight;
            held.force = request.force;
            held.auto = request.auto;
            held.planned = request.planned && weight.is_none();
        }
        self.entered();
        Ok(())
    }

    pub(super) fn prepared(&mut self, generation: Generation, release: ReleaseId) {
        match self.held(generation).cloned() {
            Some(Phase::Preparing { .. }) if self.bar(generation, &release) => {}
            Some(Phase::Preparing { queue }) => {
                self.place(release, self.now.after(queue.max(SLOT_WAIT)));
            }
            Some(
                Phase::Waiting { .. }
                | Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Trial { .. }
                | Phase::Shifting { .. },
            )
            | None => {}
        }
    }

    pub(super) fn unprepared(&mut self, generation: Generation, cause: Cause) {
        match self.held(generation) {
            Some(Phase::Preparing { .. }) => self.fail(cause),
            Some(
                Phase::Waiting { .. }
                | Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Trial { .. }
                | Phase::Shifting { .. },
            )
            | None => {}
        }
    }

    /// How far this attempt is, if it holds the lock.
    pub(super) fn held(&self, generation: Generation) -> Option<&Phase> {
        let held = self.state.deployment.as_ref()?;
        (held.generation == generation).then_some(&held.phase)
    }

    pub(super) fn promote(
        &mut self,
        slot: SlotName,
        by: String,
        settings: Settings,
    ) -> Result<(), Refusal> {
        if self.state.on_trial() == Some(&slot) {
            self.shift(&slot);
            return Ok(());
        }
        let live = self
            .state
            .live()
            .filter(|_| self.state.active.as_ref() == Some(&slot));
        if let Some(release) = live.filter(|_| self.state.is_well()) {
            return Err(self.state.already_live(release.clone()));
        }
        self.refuse_if_locked()?;
        let Some(found) = self.state.slots.get(&slot) else {
            return Err(Refusal::NoSuchSlot { slot });
        };
        match found.condition {
            Condition::Standby { .. } if found.boot.is_none() => {
                return Err(Refusal::BetweenRuns { slot });
            }
            Condition::Standby { .. } => self.gate_in_place(Kind::Promote, slot, by, settings),
            // It has been probed all the time.
            Condition::Trial { .. } => self.shift_at_once(Kind::Promote, &slot, by, settings),
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Active(_)
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {
                return Err(Refusal::NotStandingBy {
                    condition: found.condition.name(),
                    slot,
                });
            }
        }
        Ok(())
    }

    /// A new attempt that a slot passes at once.
    pub(super) fn shift_at_once(
        &mut self,
        kind: Kind,
        slot: &SlotName,
        by: String,
        settings: Settings,
    ) {
        let phase = Phase::Ready {
            slot: slot.clone(),
            until: self.now,
            probe: None,
        };
        self.lock(kind, by, settings, phase);
        self.shift(slot);
    }

    pub(super) fn refuse_if_locked(&self) -> Result<(), Refusal> {
        match &self.state.deployment {
            Some(held) => Err(Refusal::Busy {
                generation: held.generation,
                by: held.by.clone(),
                held: self.now.since(held.began),
                phase: held.phase.name(),
                trial: self.state.on_trial().map(|slot| {
                    let weight = self.state.weight(slot);
                    (slot.clone(), weight)
                }),
            }),
            None => Ok(()),
        }
    }

    /// Begins an attempt; whoever calls this says that its phase is entered, or enters the next one at once.
    pub(super) fn lock(&mut self, kind: Kind, by: String, settings: Settings, phase: Phase) {
        let generation = self.state.generation.next();
        self.state.generation = generation;
        self.state
            .slots
            .retain(|name, slot| settings.slots.contains(name) || !slot.condition.is_free());
        for slot in &settings.slots {
            self.state
                .slots
                .entry(slot.clone())
                .or_insert_with(Slot::idle);
        }
        self.tell(Notice::Began {
            generation,
            kind,
            by: by.clone(),
        });
        self.state.deployment = Some(Deployment {
            generation,
            kind,
            by,
            began: self.now,
            phase,
            entered: Vec::new(),
            settings,
            weight: None,
            force: false,
            auto: false,
            because: None,
            goes_back: false,
            planned: false,
            before_switch: Stage::default(),
        });
    }

    /// A slot that is up already becomes the candidate of a new attempt.
    pub(super) fn gate_in_place(
        &mut self,
        kind: Kind,
        slot: SlotName,
        by: String,
        settings: Settings,
    ) {
        let until = self.now.after(settings.health_timeout);
        let phase = Phase::Ready {
            slot: slot.clone(),
            until,
            probe: None,
        };
        self.lock(kind, by, settings, phase);
        self.entered();
        let generation = self.state.generation;
        if let Some(found) = self.state.slots.get_mut(&slot) {
            found.condition = Condition::Ready;
            found.generation = generation;
        }
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if let Some(deployment) = &mut self.state.deployment {
            deployment.phase = phase;
        }
        self.entered();
    }

    /// The phase of the deployment is a new one.
    fn entered(&mut self) {
        let Some(deployment) = &mut self.state.deployment else {
            return;
        };
        deployment.entered.push((deployment.phase.name(), self.now));
        let slot = deployment.phase.slot().cloned();
        self.notices.push(Notice::Phase {
            generation: deployment.generation,
            phase: deployment.phase.name(),
            release: candidate_release(deployment, &self.state.slots),
            slot,
        });
    }

    /// Starts the release in an idle slot, or waits for one.
    pub(super) fn place(&mut self, release: ReleaseId, wait_until: Time) {
        let Some(deployment) = &self.state.deployment else {
            return;
        };
        let generation = deployment.generation;
        let until = self
            .now
            .after(deployment.settings.start_timeout + START_MARGIN);
        let idle = self.state.next_slot(&deployment.settings.slots).cloned();
        if let Some(slot) = idle {
            self.leave_soak();
            let found = Slot {
                condition: Condition::Starting,
                release: Some(release),
                boot: None,
                generation,
            };
            self.state.slots.insert(slot.clone(), found);
            self.enter(Phase::Starting { slot, until });
            return;
        }
        self.enter(Phase::Waiting {
            release,
            until: wait_until,
        });
        self.make_room();
    }

    /// A slot became idle: a deployment that waits for one takes it.
    pub(super) fn offer(&mut self) {
        if let Some(Phase::Waiting { release, until }) = self
            .state
            .deployment
            .as_ref()
            .map(|held| held.phase.clone())
        {
            if self
                .state
                .slots
                .keys()
                .any(|name| self.state.can_take(name))
            {
                self.place(release, until);
            } else {
                self.make_room();
            }
        }
    }

    /// A slot that is only kept warm is let go for a deployment that waits: it drains, which a rollback can take back. If it was kept for
    /// a soak, that ends with it.
    fn make_room(&mut self) {
        self.migrated();
        if self.state.soak().is_some_and(|watch| watch.old.is_some()) {
            self.leave_soak();
        }
        if let Some(kept) = self.state.kept.as_ref().map(|kept| kept.slot.clone()) {
            self.drain(&kept);
        }
    }

    pub(super) fn no_idle_slot(&mut self) {
        let holder = self
            .state
            .slots
            .iter()
            .filter(|(name, _)| Some(*name) != self.state.active.as_ref())
            .max_by_key(|(_, slot)| matches!(slot.condition, Condition::Draining { .. }))
            .or_else(|| self.state.slots.iter().next());
        let Some((holder, condition)) =
            holder.map(|(name, slot)| (name.clone(), slot.condition.name()))
        else {
            return;
        };
        self.fail(Cause::NoIdleSlot { holder, condition });
    }

    /// The attempt failed: its candidate is stopped, what it let go of is kept again, everything else stays as it is.
    pub(super) fn fail(&mut self, cause: Cause) {
        let Some(deployment) = &self.state.deployment else {
            return;
        };
        let failure = match &cause {
            Cause::StartFailed(failure) | Cause::Exited(failure) => Some(failure.clone()),
            Cause::StartTimeout => Some(own_failure("timeout", "was not up within start_timeout")),
            Cause::HealthTimeout(_) => Some(own_failure(
                "unhealthy",
                "no probe passed within health_timeout",
            )),
            Cause::Switched
            | Cause::StandsBy
            | Cause::Unprepared(_)
            | Cause::Marked(_)
            | Cause::AlreadyLive(_)
            | Cause::Left(_)
            | Cause::Unbuilt(_)
            | Cause::Unhooked(..)
            | Cause::Interrupted
            | Cause::Preempted
            | Cause::Aborted(_)
            | Cause::NoIdleSlot { .. }
            | Cause::Unrouted(_)
            | Cause::StoppedByHand
            | Cause::ProbesFailed(_)
            | Cause::Judged(_)
            | Cause::Soaked
            | Cause::Superseded
            | Cause::OldSlotGone => None,
        };
        match deployment.phase.clone() {
            Phase::Preparing { .. } => {}
            Phase::Waiting { .. } => self.keep_warm(),
            // It may have had a weight before, and have something in flight still.
            Phase::Ready { slot, .. } if deployment.kind == Kind::Promote => {
                let drain = deployment.settings.drain;
                self.withdraw(&slot, drain, failure);
            }
            Phase::Starting { slot, .. } | Phase::Ready { slot, .. } => {
                self.set(
                    &slot,
                    Condition::Stopping {
                        forced: false,
                        failure,
                    },
                );
            }
            Phase::Trial { slot, .. } => {
                let drain = deployment.settings.drain;
                self.withdraw(&slot, drain, failure);
            }
            Phase::Shifting { .. } => return,
        }
        self.end(cause);
    }

    pub(super) fn end(&mut self, cause: Cause) {
        let Some(deployment) = self.state.deployment.take() else {
            return;
        };
        let previous = match &deployment.phase {
            Phase::Shifting { left, .. } => left.clone(),
            Phase::Preparing { .. }
            | Phase::Waiting { .. }
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Trial { .. } => self.state.live().cloned(),
        };
        let shifted = matches!(deployment.phase, Phase::Shifting { .. });
        let reached = shifted.then(|| self.state.reached.take()).flatten();
        let outcome = Outcome {
            generation: deployment.generation,
            kind: deployment.kind,
            by: deployment.by.clone(),
            release: candidate_release(&deployment, &self.state.slots).or_else(|| barred(&cause)),
            slot: deployment.phase.slot().cloned(),
            previous,
            phase: deployment.phase.name(),
            entered: deployment.entered,
            cause,
            at: self.now,
            reached,
            goes_back: deployment.goes_back,
        };
        self.state.outcome = Some(outcome.clone());
        self.tell(Notice::Ended(outcome));
    }
}

fn own_failure(result: &str, text: &str) -> UnitFailure {
    UnitFailure {
        result: result.into(),
        text: text.to_owned(),
    }
}

/// The release that an attempt did not come to, because it is not to serve by it.
fn barred(cause: &Cause) -> Option<ReleaseId> {
    match cause {
        Cause::Marked(Some(back)) => back.left.clone(),
        Cause::AlreadyLive(release) | Cause::Left(release) => Some(release.clone()),
        _ => None,
    }
}

/// What an attempt is to make active, once that is known.
pub(super) fn candidate_release(
    deployment: &Deployment,
    slots: &BTreeMap<SlotName, Slot>,
) -> Option<ReleaseId> {
    match &deployment.phase {
        Phase::Preparing { .. } => None,
        Phase::Waiting { release, .. } => Some(release.clone()),
        Phase::Starting { slot, .. }
        | Phase::Ready { slot, .. }
        | Phase::Trial { slot, .. }
        | Phase::Shifting { slot, .. } => slots.get(slot)?.release.clone(),
    }
}
