//! The switch: from a candidate that passed its gates to an active slot that every router knows.

use std::collections::BTreeSet;
use std::time::Duration;

use super::mark::WentBack;
use super::names::{ReleaseId, SlotName};
use super::policy::{ByClass, SOAK_REST};
use super::state::{Cause, Condition, Kind, Phase, Service, Watch};
use super::step::Draft;

impl Draft {
    /// The candidate passed its gates.
    pub(super) fn gated(&mut self, slot: &SlotName) {
        let Some(deployment) = &self.state.deployment else {
            return;
        };
        let serving = self.state.active.as_ref().is_some_and(|active| {
            !matches!(
                self.state.slots.get(active).map(|slot| &slot.condition),
                Some(Condition::Active(Service::ByHand)) | None
            )
        });
        let (kind, weight) = (deployment.kind, deployment.weight);
        if self.waits_for_hook() {
            return;
        }
        match kind {
            Kind::ByHand if serving => {
                self.set(slot, Condition::Standby { gated: true });
                self.end(Cause::StandsBy);
            }
            Kind::Deploy | Kind::Rollback | Kind::ByHand | Kind::Promote => match weight {
                Some(weight) => self.try_out(slot, weight),
                None if self.is_planned() => self.follow_plan(slot),
                None => self.shift(slot),
            },
        }
    }

    /// Commits the switch: from here on the state names the new slot, and the routers are told.
    pub(super) fn shift(&mut self, slot: &SlotName) {
        let Some(deployment) = &self.state.deployment else {
            return;
        };
        let (generation, drain) = (deployment.generation, deployment.settings.drain);
        // What is rolled back from is to have nothing.
        let migrate = (deployment.settings.migrate).filter(|_| deployment.kind != Kind::Rollback);
        if !self.state.migrates(slot) {
            self.migrated();
        }
        // A soak lasts until the routers have the table: should the switch be taken back, it goes on. A rollback is not waited for
        // any more.
        self.state.watch = self
            .state
            .watch
            .take()
            .filter(|watch| watch.rolling_back.is_none());
        let (from, left) = (self.state.active.clone(), self.state.live().cloned());
        self.outlasts();
        if let Some(from) = &from {
            self.retire(from, drain);
        }
        self.set(slot, Condition::Active(Service::Up));
        self.activate(Some(slot.clone()));
        self.take_back_all();
        if let (Some(from), Some(migrate)) = (&from, migrate) {
            self.migrate(from, migrate);
        }
        self.state.routed = generation;
        self.state.reached = None;
        self.enter(Phase::Shifting {
            slot: slot.clone(),
            from,
            left,
        });
    }

    /// A release whose soak a newer attempt ended is as good as one that finished it, once it has served for as long: it is up, and does
    /// not fail.
    fn outlasts(&mut self) {
        let soak = self.state.settings.soak;
        let long = (self.state.switched).is_some_and(|at| at.after(soak) <= self.now);
        if long && self.state.watch.is_none() && self.state.is_well() {
            self.state.soaked = true;
        }
    }

    /// Takes the weight from a slot: it stays up until the routers have the table, and has its drain counted from now. A slot in
    /// which nothing runs is stopped, so that its unit does not start it again.
    pub(super) fn retire(&mut self, name: &SlotName, drain: ByClass<Duration>) {
        let drain = drain.map(|span| self.now.after(span));
        let Some(slot) = self.state.slots.get_mut(name) else {
            return;
        };
        slot.condition = if slot.boot.is_some() {
            let gated = slot.condition == Condition::Active(Service::Up);
            Condition::Warm { drain, gated }
        } else {
            Condition::Stopping {
                forced: false,
                failure: None,
            }
        };
    }

    /// The routers could not be given the table in time: the switch is taken back.
    pub(super) fn unrouted(&mut self, table: u64, why: String) {
        if table != self.state.table {
            return;
        }
        match self.state.deployment.as_ref().map(|held| &held.phase) {
            // It may be said again of a table that was everywhere before.
            Some(Phase::Trial { .. }) if !self.state.everywhere => self.fail(Cause::Unrouted(why)),
            Some(Phase::Shifting {
                slot, from: None, ..
            }) => {
                let slot = slot.clone();
                self.retire(&slot, self.state.settings.drain);
                self.activate(None);
                self.take_back_all();
                self.end(Cause::Unrouted(why));
            }
            Some(Phase::Shifting { from: Some(_), .. }) => self.unshift(Cause::Unrouted(why)),
            Some(
                Phase::Preparing { .. }
                | Phase::Waiting { .. }
                | Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Trial { .. },
            )
            | None => {}
        }
    }

    /// A committed switch is taken back: the slot that it was made from has the traffic again, and its soak goes on.
    pub(super) fn unshift(&mut self, cause: Cause) {
        let Some(deployment) = &self.state.deployment else {
            return;
        };
        let (phase, drain) = (deployment.phase.clone(), deployment.settings.drain);
        let Phase::Shifting { slot, from, .. } = phase else {
            return;
        };
        let Some(from) = from.filter(|from| self.is_running(from)) else {
            // Nothing to give the traffic back to: the new slot keeps it, and if it is down its unit starts it again.
            return;
        };
        self.retire(&slot, drain);
        if !self.is_warm(&slot) {
            self.old_slot_gone(&slot);
        }
        self.set(&from, Condition::Active(Service::Up));
        if let Some(watch) = &mut self.state.watch {
            watch.until = watch.until.max(self.now.after(SOAK_REST));
        }
        self.activate(Some(from));
        self.end(cause);
    }

    /// Another slot is active, or none. The routers do not know it yet.
    pub(super) fn activate(&mut self, slot: Option<SlotName>) {
        let left = std::mem::replace(&mut self.state.active, slot);
        self.state.lingering.extend(left);
        self.look_anew();
    }

    /// Every router has the table: the deployment is over, the watch begins.
    pub(super) fn switched(&mut self) {
        let Some(deployment) = self.state.deployment.clone() else {
            return;
        };
        let Phase::Shifting { slot, from, left } = deployment.phase.clone() else {
            return;
        };
        self.supersede();
        let (prev, soaked) = (self.state.prev.clone(), self.state.soaked);
        let soak = match deployment.kind {
            // What is rolled back to has served before.
            Kind::Rollback => Duration::ZERO,
            Kind::Deploy | Kind::ByHand | Kind::Promote => deployment.settings.soak,
        };
        let because = self.left_by_itself(&deployment);
        self.state.went_back = match (&because, deployment.goes_back) {
            (Some(_), _) => None,
            (None, true) => self.state.live().cloned().map(|release| WentBack {
                before: self.left_before(left.as_ref(), &[Some(&release), left.as_ref()]),
                left: left.clone(),
                release,
                at: self.now,
            }),
            (None, false) => self.still_back(),
        };
        self.remember(deployment.kind, left.clone());
        self.state.soaked = soak.is_zero();
        self.state.settings = deployment.settings.clone();
        if because.is_none() {
            self.state.rolled_back = None;
        }
        self.state.switched = Some(self.now);
        self.end(Cause::Switched);
        match &because {
            Some(cause) => self.due_after_leaving(&deployment, cause),
            None => self.due_after(deployment.kind, deployment.generation, left),
        }
        self.state.kept = None;
        if soak.is_zero() {
            self.unmark();
            if let Some(from) = from.filter(|_| deployment.kind != Kind::Rollback) {
                self.keep(from);
            }
        } else {
            self.state.watch = Some(Watch {
                generation: deployment.generation,
                new: slot,
                old: from.filter(|from| self.is_warm(from)),
                streak: 0,
                restarts: 0,
                comes_by: None,
                until: self.now.after(soak),
                prev,
                soaked,
                rolling_back: None,
            });
        }
        self.let_go();
    }

    /// The rollback that brought what is live, which was only started anew: there is no way forward by another one.
    fn still_back(&self) -> Option<WentBack> {
        let (at, left) = self.state.gone_back()?;
        let live = self.state.live();
        Some(WentBack {
            left: left.cloned(),
            before: self.left_before(live, &[live, left]),
            release: live?.clone(),
            at,
        })
    }

    /// What rollbacks had left on the way to a release, but for these.
    fn left_before(
        &self,
        release: Option<&ReleaseId>,
        but: &[Option<&ReleaseId>],
    ) -> BTreeSet<ReleaseId> {
        let mut all = self.state.left_for(release);
        all.retain(|id| !but.contains(&Some(id)));
        all
    }

    /// What `rollback` goes to, now that the release that was live is not: that release, if it had finished its soak, or if it was
    /// left by a rollback, which is to be seen. Until a release has finished its soak, any that served is better than nothing to go back
    /// to. Never what is live, never what is marked.
    fn remember(&mut self, kind: Kind, left: Option<ReleaseId>) {
        let live = self.state.live().cloned();
        let worthy = match kind {
            Kind::Rollback => true,
            Kind::Deploy | Kind::ByHand | Kind::Promote => {
                self.state.soaked || self.state.prev.is_none()
            }
        };
        if left != live
            && worthy
            && left
                .as_ref()
                .is_some_and(|left| !self.state.marked.contains_key(left))
        {
            self.state.prev = left;
        } else if self.state.prev == live {
            self.state.prev = None;
        }
    }
}
