//! The look at a new slot after its switch, and the one way back from it.

use super::event::{Probe, UnitFailure, UnitResult};
use super::hook::Hook;
use super::mark::RolledBack;
use super::names::{SlotName, Time};
use super::notice::Notice;
use super::policy::{FAILED_PROBES, HOLD, RESTARTS, SOAK_REST};
use super::state::{Cause, Condition, Phase, Service};
use super::step::Draft;

/// What becomes of a run that is watched.
pub(super) enum SoakEnd {
    /// It ended as it should, and its unit starts it again.
    Restarts(UnitFailure),
    /// It failed, or somebody stopped it.
    Fails(Cause),
}

impl Draft {
    /// A probe of the slot that is watched.
    pub(super) fn soak_probe(&mut self, slot: &SlotName, probe: Probe) {
        let Some(watch) = self.state.soak_mut().filter(|watch| watch.new == *slot) else {
            return;
        };
        if probe.pass {
            watch.streak = 0;
            return;
        }
        // A streak that nothing could be done about is reported once, when it is complete.
        let before = watch.streak;
        watch.streak = before.saturating_add(1).min(FAILED_PROBES);
        if before + 1 == FAILED_PROBES {
            self.watch_failed(Cause::ProbesFailed(probe));
        }
    }

    /// A run of the active slot ended, or does not come up. True if that is the end of its soak as well, and another slot has its traffic.
    ///
    /// An end that is no failure, and after which the unit starts it again, is one of [`RESTARTS`]: its requests are held meanwhile. While
    /// there is a slot to go back to, it has to be up again before they would be answered with an error.
    pub(super) fn soak_ended_by(&mut self, name: &SlotName, end: SoakEnd) -> bool {
        let Some(watch) = self.state.soak_mut().filter(|watch| watch.new == *name) else {
            return false;
        };
        let cause = match end {
            SoakEnd::Fails(cause) => cause,
            SoakEnd::Restarts(last) => {
                watch.restarts = watch.restarts.saturating_add(1);
                if watch.restarts < RESTARTS {
                    watch.comes_by.get_or_insert(self.now.after(HOLD));
                    return false;
                }
                let (times, text) = (watch.restarts, last.text);
                Cause::Exited(UnitFailure {
                    result: "restarts".into(),
                    text: format!("ended {times} times since the switch; last it {text}"),
                })
            }
        };
        self.watch_failed(cause);
        self.state.active.as_ref() != Some(name)
    }

    /// A process that was to come again has not come in time. While another slot gets the traffic, that is not its soak's to take back.
    pub(super) fn soak_waits_no_more(&mut self) {
        let is_late = |by: &mut Time| *by <= self.now;
        let soak = self.state.soak_mut();
        if soak
            .and_then(|watch| watch.comes_by.take_if(is_late))
            .is_some()
        {
            self.watch_failed(Cause::Exited(UnitFailure {
                result: UnitResult::Timeout,
                text: format!("ended, and was not up again within {} s", HOLD.as_secs()),
            }));
        }
    }

    /// The watched slot is bad. While the old one runs, it is active again by the same commit; at most once, since the watch is
    /// `rolling_back` from here on. Without an old one there is nothing to do but to say so.
    pub(super) fn watch_failed(&mut self, cause: Cause) {
        let drain = self.state.settings.drain;
        let Some(watch) = self.state.soak().cloned() else {
            return;
        };
        let running = watch.old.clone().filter(|old| self.is_running(old));
        let Some(old) = running else {
            self.tell(Notice::Soak {
                generation: watch.generation,
                slot: watch.new,
                cause,
            });
            return;
        };
        let left = self.state.live().cloned();
        self.retire(&watch.new, drain);
        self.set(&old, Condition::Active(Service::Up));
        self.activate(Some(old.clone()));
        let release = self.state.live().cloned();
        self.state.prev = watch
            .prev
            .clone()
            .filter(|prev| release.as_ref() != Some(prev));
        self.state.soaked = watch.soaked;
        let rolled_back = RolledBack {
            generation: watch.generation,
            from: watch.new,
            left,
            to: old,
            release,
            cause: cause.clone(),
            at: self.now,
            reached: None,
        };
        self.state.reached = None;
        self.state.rolled_back = Some(rolled_back.clone());
        if let Some(watch) = &mut self.state.watch {
            watch.rolling_back = Some(cause);
        }
        self.unmark();
        self.mark(&rolled_back);
        self.tell(Notice::RolledBack(rolled_back));
    }

    /// The soak's time is over: it ended well, if the new slot is up and its last probes did not all fail. One that is being started again
    /// just then has a little more, as long as there is a slot to go back to: it comes up, or fails for good.
    pub(super) fn soak_ends(&mut self) {
        let comes = self.state.soak().is_some_and(|watch| {
            let slot = self.state.slots.get(&watch.new).map(|slot| &slot.condition);
            let back = watch.old.as_ref().is_some_and(|old| self.is_running(old));
            let comes = Service::is_coming;
            back && matches!(slot, Some(Condition::Active(service)) if comes(service))
        });
        if let Some(watch) = self.state.watch.as_mut().filter(|_| comes) {
            watch.until = self.now.after(SOAK_REST);
            return;
        }
        let Some(watch) = self.state.watch.take() else {
            return;
        };
        let cause = match self.state.slots.get(&watch.new).map(|slot| &slot.condition) {
            Some(Condition::Active(Service::Up)) if watch.streak < FAILED_PROBES => Cause::Soaked,
            Some(Condition::Active(Service::Down { failure, .. })) => {
                Cause::Exited(failure.clone())
            }
            Some(Condition::Active(Service::ByHand)) => Cause::StoppedByHand,
            Some(_) | None => Cause::ProbesFailed(Probe {
                pass: false,
                text: "it was not healthy when its soak ended".to_owned(),
            }),
        };
        if cause == Cause::Soaked {
            self.state.soaked = true;
            self.unmark();
        }
        self.tell(Notice::Soak {
            generation: watch.generation,
            slot: watch.new,
            cause,
        });
        if let Some(old) = watch.old {
            self.keep(old);
        }
        self.let_go();
    }

    /// A newer attempt takes a slot: the soak is over, and what was kept for it has nothing more and drains.
    pub(super) fn leave_soak(&mut self) {
        if self.state.soak().is_some() {
            self.migrated();
            self.supersede();
            self.let_go();
        }
    }

    /// A newer attempt has taken a slot, or the place of what is watched: whatever comes, there is no way back by itself to the slot that
    /// was kept for the soak. A way back that is under way goes on.
    pub(super) fn supersede(&mut self) {
        let watch = &mut self.state.watch;
        if let Some(watch) = watch.take_if(|watch| watch.rolling_back.is_none()) {
            self.tell(Notice::Soak {
                generation: watch.generation,
                slot: watch.new,
                cause: Cause::Superseded,
            });
        }
    }

    /// The slot that was kept for the watch is gone: the new one is kept whatever comes.
    pub(super) fn old_slot_gone(&mut self, name: &SlotName) {
        self.unkeep(name);
        let Some(watch) = self
            .state
            .watch
            .as_mut()
            .filter(|watch| watch.old.as_ref() == Some(name))
        else {
            return;
        };
        watch.old = None;
        let (generation, slot) = (watch.generation, watch.new.clone());
        self.tell(Notice::Soak {
            generation,
            slot,
            cause: Cause::OldSlotGone,
        });
    }

    /// The routers have the table that the last change of who gets what made.
    pub(super) fn routed(&mut self, table: u64) {
        if table != self.state.table {
            return;
        }
        self.state.everywhere = true;
        for name in std::mem::take(&mut self.state.lingering) {
            self.drain_on(&name);
        }
        self.switched();
        if self
            .state
            .watch
            .as_ref()
            .is_some_and(|watch| watch.rolling_back.is_some())
        {
            self.state.watch = None;
            let reached = self.state.reached.take();
            if let Some(back) = &mut self.state.rolled_back {
                back.reached = reached;
            }
            if let Some(back) = self.state.rolled_back.clone() {
                self.tell(Notice::Returned(back.clone()));
                let cause = back.cause.code();
                self.due(Hook::AfterRollback, back.generation, back.left, cause);
            }
        }
        self.let_go();
        self.offer();
    }

    /// What the public listener answers with a table that is awaited.
    pub(super) fn reached(&mut self, table: u64, probe: Probe) {
        let shifts = matches!(
            self.state.deployment.as_ref().map(|held| &held.phase),
            Some(Phase::Shifting { .. })
        );
        let watch = self.state.watch.as_ref();
        let goes_back = watch.is_some_and(|watch| watch.rolling_back.is_some());
        if table == self.state.table && !self.state.everywhere && (shifts || goes_back) {
            self.state.reached = Some(probe);
        }
    }

    pub(super) fn is_warm(&self, name: &SlotName) -> bool {
        matches!(
            self.state.slots.get(name).map(|slot| &slot.condition),
            Some(Condition::Warm { .. })
        )
    }

    /// It has a process and nothing asked that to end: the traffic can be given back to it.
    pub(super) fn is_running(&self, name: &SlotName) -> bool {
        self.state.slots.get(name).is_some_and(|slot| {
            slot.boot.is_some()
                && matches!(
                    slot.condition,
                    Condition::Warm { gated: true, .. }
                        | Condition::Draining {
                            withdrawn: false,
                            ..
                        }
                )
        })
    }
}
