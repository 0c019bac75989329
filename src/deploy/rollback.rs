//! The way back: where a rollback goes, what it goes ahead of, and when there is nothing to do for it.
//!
//! **Invariant:** it waits for nothing that a deployment does, and for what a candidate leaves only so long.

use std::collections::BTreeSet;
use std::time::Duration;

use super::deployment::candidate_release;
use super::names::{ReleaseId, SlotName};
use super::policy::{SLOT_WAIT, START_MARGIN, Settings};
use super::refusal::Refusal;
use super::state::{Cause, Condition, Deployment, Kind, Phase, Slot};
use super::step::Draft;

impl Draft {
    /// Goes ahead of anything that has not switched, and ends it, also where what is live is what it asks for, or has nothing before it, so
    /// that nothing more is to be done. A slot that still runs the release gets the traffic at once, also when it already drains; else the
    /// release is started and gated like any other. One that goes there already, or names no release, joins the one that is under way.
    pub(super) fn rollback(
        &mut self,
        to: Option<ReleaseId>,
        by: String,
        settings: Settings,
    ) -> Result<(), Refusal> {
        if let Some(joined) = self.joined(to.as_ref()) {
            return Err(joined);
        }
        if let Some(beside) = self.beside_the_soaks(to.as_ref()) {
            // Where the soak's goes there too, what is under way ends all the same.
            return match beside.already() {
                Some(_) if self.state.deployment.is_some() => {
                    self.fail(Cause::Preempted);
                    Ok(())
                }
                _ => Err(beside),
            };
        }
        if self.takes_over_a_swap(to.as_ref()) {
            return Ok(());
        }
        match self
            .state
            .deployment
            .as_ref()
            .map(|held| (held.kind, &held.phase))
        {
            // The switch is committed, and the routers have not said yet that they have it. The traffic can be given back to the slot
            // that it is taken from; any other way would stop that slot while they may still send to it.
            Some((
                Kind::Deploy | Kind::ByHand | Kind::Promote,
                Phase::Shifting {
                    from: Some(from), ..
                },
            )) => {
                let from = from.clone();
                let busy = self.refuse_if_locked();
                self.switched();
                let release = to.as_ref().or(self.state.prev.as_ref());
                if self.running(release).as_ref() != Some(&from) {
                    return busy;
                }
            }
            Some(
                (Kind::Rollback, Phase::Shifting { .. }) | (_, Phase::Shifting { from: None, .. }),
            ) => {
                self.refuse_if_locked()?;
            }
            Some((
                _,
                Phase::Preparing { .. }
                | Phase::Waiting { .. }
                | Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Trial { .. },
            ))
            | None => {}
        }
        let is_plain = to.is_none();
        let release = match self.rollback_target(to) {
            // To what serves, and there is nothing before it.
            Err(refusal)
                if self.state.deployment.is_some()
                    && (refusal.already().is_some() || is_plain && self.state.is_well()) =>
            {
                self.fail(Cause::Preempted);
                return Ok(());
            }
            target => target?,
        };
        if self.state.deployment.is_some() {
            self.fail(Cause::Preempted);
        }
        let running = self.running(Some(&release));
        let until = self.now.after(SLOT_WAIT);
        let wait = Phase::Waiting {
            release: release.clone(),
            until,
        };
        self.lock(Kind::Rollback, by, settings, wait);
        if let Some(held) = &mut self.state.deployment {
            held.goes_back = true;
        }
        self.waited_for.clear();
        match running {
            Some(slot) => self.shift(&slot),
            None if self.thaw(&release) => {}
            None => self.place(release, until),
        }
        Ok(())
    }

    /// Beside the way back that a soak has taken, which the routers are being told, there is none; it may be the one that is asked for.
    fn beside_the_soaks(&self, to: Option<&ReleaseId>) -> Option<Refusal> {
        let watch = self.state.watch.as_ref();
        let watch = watch.filter(|watch| watch.rolling_back.is_some())?;
        let already = self.rollback_target(to.cloned()).err();
        let switch = self.state.outcome.as_ref();
        let busy = || Refusal::Busy {
            generation: watch.generation,
            by: "the soak".to_owned(),
            held: switch.map_or(Duration::ZERO, |switch| self.now.since(switch.at)),
            phase: "rolling_back",
            trial: None,
        };
        let already = already.filter(|refusal| refusal.already().is_some());
        Some(already.unwrap_or_else(busy))
    }

    /// The rollback under way, if it is the one that is asked for.
    pub(super) fn joined(&self, to: Option<&ReleaseId>) -> Option<Refusal> {
        let held = self.state.deployment.as_ref();
        let held = held.filter(|held| held.goes_back)?;
        let goes_to = candidate_release(held, &self.state.slots)?;
        to.is_none_or(|to| *to == goes_to)
            .then_some(Refusal::UnderWay {
                generation: held.generation,
                release: goes_to,
            })
    }

    /// A swap that goes where the rollback does is that rollback from here on.
    fn takes_over_a_swap(&mut self, to: Option<&ReleaseId>) -> bool {
        let release = self.rollback_target(to.cloned()).ok();
        let swap = self.state.deployment.as_ref();
        let swap = swap.filter(|held| held.kind == Kind::Rollback);
        let goes_to = swap.and_then(|held| candidate_release(held, &self.state.slots));
        let is_it = goes_to.is_some() && goes_to == release;
        if let Some(held) = self.state.deployment.as_mut().filter(|_| is_it) {
            held.goes_back = true;
        }
        is_it
    }

    /// The slots that a rollback waits for, and whose stop is under way.
    pub(super) fn stops(&self) -> BTreeSet<SlotName> {
        let held = self.state.deployment.as_ref().filter(|it| it.goes_back);
        let of = |held: &Deployment, name: &SlotName| held.settings.slots.contains(name);
        let slots = self.state.slots.iter();
        slots
            .filter(|(name, _)| held.is_some_and(|held| of(held, name)))
            .filter(|(_, slot)| matches!(slot.condition, Condition::Stopping { .. }))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// A rollback that waits for a slot waits for each stop that begins meanwhile, or was under way already, as long as that may take.
    /// It begins nothing itself before it has one, so that this comes to an end.
    pub(super) fn wait_for_stops(&mut self) {
        let stops = self.stops();
        let begun = !stops.is_subset(&self.waited_for);
        let before = self.state.settings.stop_timeout;
        if let Some(held) = self.state.deployment.as_mut().filter(|_| begun)
            && let Phase::Waiting { until, .. } = &mut held.phase
        {
            let takes = held.settings.stop_timeout.max(before) + START_MARGIN;
            *until = self.now.after(takes).max(*until);
        }
        self.waited_for = stops;
    }

    /// A rollback has waited for a slot for as long as a deployment does: what a slot has in flight that was withdrawn, if it is that which
    /// holds one, is cut, and the rollback waits for its stop. False if there is none.
    pub(super) fn cut_for_rollback(&mut self) -> bool {
        let Some(held) = self.state.deployment.as_ref().filter(|it| it.goes_back) else {
            return false;
        };
        let withdrawn = |name: &SlotName, slot: &Slot| {
            let Condition::Draining { withdrawn, .. } = slot.condition else {
                return false;
            };
            withdrawn && held.settings.slots.contains(name) && !self.state.lingering.contains(name)
        };
        let mut slots = self.state.slots.iter();
        let found = slots.find(|(name, slot)| withdrawn(name, slot));
        let Some(name) = found.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.force(&name);
        self.wait_for_stops();
        true
    }

    /// A deployer that was away has not waited for a slot meanwhile.
    pub(super) fn rollback_recovers(&mut self) {
        self.waited_for.clear();
        let later = self.now.after(SLOT_WAIT);
        if let Some(held) = self.state.deployment.as_mut().filter(|it| it.goes_back)
            && let Phase::Waiting { until, .. } = &mut held.phase
        {
            *until = later.max(*until);
        }
    }

    /// What a rollback goes to: what it names, else the previous release; never what is live, never what is marked. One that names none
    /// goes nowhere from what a rollback brought: who asks twice does not mean the release that was left.
    pub(super) fn rollback_target(&self, to: Option<ReleaseId>) -> Result<ReleaseId, Refusal> {
        if let (None, Some(already)) = (&to, self.state.already_back(self.now)) {
            return Err(already);
        }
        match (to, self.state.prev.clone()) {
            (Some(release), _) if self.state.live() == Some(&release) => {
                Err(self.state.already_live(release))
            }
            (Some(release), _) if self.state.marked.contains_key(&release) => {
                Err(Refusal::Marked { release })
            }
            (Some(release), _) => Ok(release),
            (None, Some(prev)) if self.state.marked.contains_key(&prev) => {
                Err(Refusal::NothingToRollBackTo {
                    why: "the previous release was itself rolled back automatically",
                })
            }
            (None, Some(prev)) => Ok(prev),
            (None, None) => Err(Refusal::NothingToRollBackTo {
                why: "no earlier release has served",
            }),
        }
    }

    /// A slot that still runs a release and can be given the traffic.
    fn running(&self, release: Option<&ReleaseId>) -> Option<SlotName> {
        let mut slots = self.state.slots.iter();
        slots
            .find(|(name, slot)| {
                self.is_running(name) && slot.release.is_some() && slot.release.as_ref() == release
            })
            .map(|(name, _)| name.clone())
    }
}
