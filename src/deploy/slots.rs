//! What happens to one slot: starts, ends, probes, drains and stops.

use super::event::{End, Probe, UnitFailure, UnitResult};
use super::names::{BootId, Generation, ReleaseId, SlotName};
use super::notice::Notice;
use super::policy::{ByClass, DRAIN_ANSWER, FAILED_PROBES, RESTART, Settings};
use super::refusal::Refusal;
use super::state::{Cause, Condition, Kind, Phase, Service, Slot};
use super::step::Draft;
use super::watch::SoakEnd;

impl Draft {
    pub(super) fn started(&mut self, name: &SlotName, generation: Generation, boot: BootId) {
        let health_timeout = self.health_timeout();
        let until = self.now.after(health_timeout);
        let Some(slot) = self.started_for(name, generation) else {
            return;
        };
        match &slot.condition {
            Condition::Starting => {
                slot.boot = Some(boot);
                slot.condition = Condition::Ready;
                self.enter(Phase::Ready {
                    slot: name.clone(),
                    until,
                    probe: None,
                });
            }
            Condition::Active(Service::Booting { .. } | Service::Down { .. })
                if slot.boot.is_none() =>
            {
                slot.boot = Some(boot);
                slot.condition = Condition::Active(Service::Booting { until });
            }
            Condition::Warm { .. } if slot.boot.is_none() => slot.boot = Some(boot),
            Condition::Idle
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Active(_)
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {}
        }
    }

    pub(super) fn start_failed(
        &mut self,
        name: &SlotName,
        generation: Generation,
        failure: UnitFailure,
    ) {
        let Some(slot) = self.started_for(name, generation) else {
            return;
        };
        match &slot.condition {
            Condition::Starting => {
                let cause = if failure.result == UnitResult::Timeout {
                    Cause::StartTimeout
                } else {
                    Cause::StartFailed(failure)
                };
                self.fail(cause);
            }
            Condition::Active(Service::Booting { .. } | Service::Down { retry: None, .. })
                if slot.boot.is_none() =>
            {
                self.does_not_come(name, failure);
            }
            Condition::Warm { .. } if slot.boot.is_none() => self.stop(name, false),
            Condition::Idle
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Active(_)
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {}
        }
    }

    /// A slot, if it last was started for this attempt.
    fn started_for(&mut self, name: &SlotName, generation: Generation) -> Option<&mut Slot> {
        let slot = self.state.slots.get_mut(name)?;
        (slot.generation == generation).then_some(slot)
    }

    pub(super) fn probed(&mut self, name: &SlotName, boot: &BootId, probe: Probe) {
        let Some(slot) = self
            .state
            .slots
            .get(name)
            .filter(|slot| slot.boot.as_ref() == Some(boot))
        else {
            return;
        };
        match &slot.condition {
            Condition::Ready if probe.pass => self.gated(name),
            Condition::Ready => self.gate_refused(probe),
            Condition::Active(Service::Booting { .. } | Service::Down { .. }) if probe.pass => {
                self.set(name, Condition::Active(Service::Up));
                if let Some(watch) = &mut self.state.watch {
                    watch.comes_by = None;
                }
                self.tell(Notice::Up { slot: name.clone() });
            }
            Condition::Active(Service::Up) if self.state.is_on_lookout(name) => {
                self.lookout_probe(name, probe);
            }
            Condition::Active(Service::Up) => self.soak_probe(name, probe),
            Condition::Warm {
                drain,
                gated: false,
            } if probe.pass && self.state.kept_in(name).is_none_or(|kept| !kept.frozen) => {
                let drain = *drain;
                self.set(name, Condition::Warm { drain, gated: true });
            }
            Condition::Warm { gated: true, .. } if self.state.migrates(name) => {
                self.migration_probe(probe);
            }
            Condition::Standby { gated: false } if probe.pass => {
                self.set(name, Condition::Standby { gated: true });
            }
            Condition::Trial { .. } => self.trial_probe(name, probe),
            Condition::Idle
            | Condition::Starting
            | Condition::Standby { .. }
            | Condition::Active(_)
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {}
        }
    }

    /// A run that nothing of ours started: by hand in a slot that was free, by its unit in one that serves.
    pub(super) fn appeared(
        &mut self,
        name: &SlotName,
        boot: BootId,
        release: Option<ReleaseId>,
        settings: Settings,
    ) {
        let until = self.now.after(self.state.settings.health_timeout);
        let locked = self.state.deployment.is_some();
        let Some(slot) = self.state.slots.get_mut(name) else {
            return;
        };
        if slot.boot.as_ref() == Some(&boot) {
            return;
        }
        match slot.condition.clone() {
            Condition::Idle | Condition::Failed(_) => {
                slot.boot = Some(boot);
                slot.release = release;
                if locked || slot.release.is_none() {
                    slot.condition = Condition::Standby { gated: false };
                    self.tell(Notice::StandsBy { slot: name.clone() });
                } else {
                    self.gate_in_place(Kind::ByHand, name.clone(), "hand".to_owned(), settings);
                }
            }
            Condition::Standby { .. } => {
                slot.boot = Some(boot);
                slot.condition = Condition::Standby { gated: false };
            }
            // A run of a slot that serves which ended is reported as such before the next one appears.
            Condition::Active(Service::Up) | Condition::Trial { .. } => {}
            Condition::Active(Service::Booting { .. } | Service::Down { .. } | Service::ByHand) => {
                slot.boot = Some(boot);
                slot.condition = Condition::Active(Service::Booting { until });
            }
            Condition::Starting
            | Condition::Ready
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Stopping { .. } => {}
        }
    }

    /// A run ended that no stop of ours ended.
    pub(super) fn vanished(&mut self, name: &SlotName, boot: &BootId, end: End) {
        let Some(slot) = self
            .state
            .slots
            .get_mut(name)
            .filter(|slot| slot.boot.as_ref() == Some(boot))
        else {
            return;
        };
        slot.boot = None;
        match slot.condition.clone() {
            Condition::Ready => self.fail(match end {
                End::ByHand => Cause::StoppedByHand,
                End::Restarting(failure) | End::Failed(failure) => Cause::Exited(failure),
            }),
            Condition::Trial { .. } => self.trial_vanished(name, end),
            Condition::Standby { .. } => match end {
                End::Restarting(_) => slot.condition = Condition::Standby { gated: false },
                End::ByHand => self.free(name, None),
                End::Failed(failure) => self.free(name, Some(failure)),
            },
            Condition::Active(_) => self.active_vanished(name, end),
            Condition::Warm { .. } | Condition::Draining { .. } => self.stop(name, false),
            Condition::Idle
            | Condition::Starting
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {}
        }
    }

    /// The active slot has no process. What can take its place at once does, in this order: the slot that a switch was being made
    /// from, the slot that is warm for the soak, if this is a failure of that. Else its requests are held, and its unit starts it again,
    /// unless an administrator stopped it.
    fn active_vanished(&mut self, name: &SlotName, end: End) {
        let for_good = matches!(end, End::Failed(_));
        let restarts = matches!(&end, End::Restarting(failure) if failure.is_clean());
        let (cause, failure) = match end {
            End::ByHand => (Cause::StoppedByHand, None),
            End::Restarting(failure) | End::Failed(failure) => {
                (Cause::Exited(failure.clone()), Some(failure))
            }
        };
        self.unshift(cause.clone());
        if self.state.active.as_ref() != Some(name) {
            return;
        }
        let end = match failure.clone().filter(|_| restarts) {
            Some(last) => SoakEnd::Restarts(last),
            None => SoakEnd::Fails(cause),
        };
        if !self.soak_ended_by(name, end) {
            self.down(name, failure, if for_good { FAILED_PROBES } else { 1 });
        }
    }

    pub(super) fn boot_timed_out(&mut self, name: &SlotName) {
        let late = UnitFailure {
            result: UnitResult::Timeout,
            text: "is not healthy yet, though its time has passed".to_owned(),
        };
        self.does_not_come(name, late);
    }

    /// The active slot was started again, and that has failed.
    fn does_not_come(&mut self, name: &SlotName, failure: UnitFailure) {
        let end = SoakEnd::Fails(Cause::Exited(failure.clone()));
        if !self.soak_ended_by(name, end) {
            self.down(name, Some(failure), 1);
        }
    }

    /// The active slot cannot be sent requests; that counts as so many failures of it.
    fn down(&mut self, name: &SlotName, failure: Option<UnitFailure>, failures: u8) {
        let retry = self
            .state
            .slots
            .get(name)
            .filter(|slot| slot.boot.is_none())
            .map(|_| self.now.after(RESTART));
        let service = failure
            .clone()
            .map_or(Service::ByHand, |failure| Service::Down { failure, retry });
        self.set(name, Condition::Active(service));
        self.tell(Notice::Down {
            slot: name.clone(),
            failure: failure.clone(),
        });
        if let Some(failure) = failure {
            self.fails(name, failures, Cause::Exited(failure));
        }
    }

    /// Lets go of every slot that is warm without a watch that wants it.
    pub(super) fn let_go(&mut self) {
        let kept = self
            .state
            .watch
            .as_ref()
            .and_then(|watch| watch.old.clone());
        let warm: Vec<SlotName> = self
            .state
            .slots
            .keys()
            .filter(|name| self.is_warm(name) && Some(*name) != kept.as_ref())
            .filter(|name| self.state.kept_in(name).is_none() && !self.state.migrates(name))
            .cloned()
            .collect();
        for name in warm {
            self.drain(&name);
        }
    }

    /// A warm slot begins to drain, once no router sends to it any more; its deadline was set when it lost the weight.
    pub(super) fn drain(&mut self, name: &SlotName) {
        if self.state.migrates(name) {
            self.migrated();
        }
        if self.state.lingering.contains(name) {
            return;
        }
        let Some(slot) = self.state.slots.get_mut(name) else {
            return;
        };
        if let Condition::Warm { drain, gated } = slot.condition {
            if slot.boot.is_none() || !gated {
                self.stop(name, false);
                return;
            }
            let answered = self.now.after(DRAIN_ANSWER);
            let until = drain.map(|drain| drain.max(answered));
            slot.condition = Condition::Draining {
                until,
                withdrawn: false,
            };
            self.tell(Notice::Draining {
                slot: name.clone(),
                until: until.last(),
            });
        }
    }

    /// A deployment that waited for the slot is over: what is kept beyond its soak, and drained for it, is kept again.
    pub(super) fn keep_warm(&mut self) {
        let kept = self.state.kept.as_ref().map(|kept| kept.slot.clone());
        if let Some(slot) = kept.and_then(|kept| self.state.slots.get_mut(&kept))
            && let Condition::Draining {
                until,
                withdrawn: false,
            } = slot.condition
        {
            slot.condition = Condition::Warm {
                drain: until,
                gated: true,
            };
        }
    }

    pub(super) fn drained(&mut self, name: &SlotName, boot: Option<&BootId>) {
        let Some(slot) = self
            .state
            .slots
            .get(name)
            .filter(|slot| slot.boot.as_ref() == boot)
        else {
            return;
        };
        match slot.condition {
            Condition::Draining { .. } => self.stop(name, false),
            Condition::Warm { .. } => self.freeze(name),
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Active(_)
            | Condition::Stopping { .. }
            | Condition::Failed(_) => {}
        }
    }

    /// Nothing is left of a run but what has outlived its deadline.
    pub(super) fn overdue(&mut self, name: &SlotName, boot: Option<&BootId>) {
        let slot = self.state.slots.get(name);
        if slot.is_some_and(|slot| {
            slot.boot.as_ref() == boot && matches!(slot.condition, Condition::Draining { .. })
        }) {
            self.force(name);
        }
    }

    /// The drain deadline passed, or somebody said now.
    pub(super) fn force(&mut self, name: &SlotName) {
        self.tell(Notice::Forced { slot: name.clone() });
        self.stop(name, true);
    }

    pub(super) fn drain_now(&mut self, name: &SlotName) -> Result<(), Refusal> {
        let Some(slot) = self.state.slots.get(name) else {
            return Err(Refusal::NoSuchSlot { slot: name.clone() });
        };
        match slot.condition {
            // What it has is taken from it first; what is in flight then is cut as soon as the routers know.
            Condition::Warm { .. } if self.state.migrates(name) => {
                self.migrated();
                self.old_slot_gone(name);
                self.set(
                    name,
                    Condition::Draining {
                        until: ByClass::all(Some(self.now)),
                        withdrawn: false,
                    },
                );
                Ok(())
            }
            Condition::Warm { .. } | Condition::Draining { .. }
                if !self.state.lingering.contains(name) =>
            {
                self.force(name);
                Ok(())
            }
            Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Active(_)
            | Condition::Stopping { .. }
            | Condition::Failed(_) => Err(Refusal::NotDraining {
                slot: name.clone(),
                condition: slot.condition.name(),
            }),
        }
    }

    pub(super) fn stop(&mut self, name: &SlotName, forced: bool) {
        self.set(
            name,
            Condition::Stopping {
                forced,
                failure: None,
            },
        );
        self.old_slot_gone(name);
    }

    pub(super) fn stopped(&mut self, name: &SlotName, killed: bool) {
        let Some(slot) = self.state.slots.get(name) else {
            return;
        };
        match slot.condition.clone() {
            Condition::Stopping { failure, .. } => {
                self.tell(Notice::Stopped {
                    slot: name.clone(),
                    killed,
                });
                self.free(name, failure);
            }
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Standby { .. }
            | Condition::Trial { .. }
            | Condition::Active(_)
            | Condition::Warm { .. }
            | Condition::Draining { .. }
            | Condition::Failed(_) => {}
        }
    }

    pub(super) fn free(&mut self, name: &SlotName, failure: Option<UnitFailure>) {
        if let Some(slot) = self.state.slots.get_mut(name) {
            slot.boot = None;
            slot.condition = failure.map_or(Condition::Idle, Condition::Failed);
        }
        self.offer();
    }

    fn gate_refused(&mut self, probe: Probe) {
        if let Some(deployment) = &mut self.state.deployment
            && let Phase::Ready { probe: last, .. } = &mut deployment.phase
        {
            *last = Some(probe);
        }
    }

    fn health_timeout(&self) -> std::time::Duration {
        let settings = self
            .state
            .deployment
            .as_ref()
            .map_or(&self.state.settings, |held| &held.settings);
        settings.health_timeout
    }
}
