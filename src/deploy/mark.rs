//! Releases that were rolled back, automatically or by somebody, and what is not done with them any more.
//!
//! **Invariant:** one that is marked becomes active again only when somebody says so by name: nothing brings it back by itself.

use std::collections::BTreeSet;

use super::event::Probe;
use super::names::{Generation, ReleaseId, SlotName, Time};
use super::refusal::Refusal;
use super::state::{Cause, Condition, Service, State};
use super::step::Draft;

/// How many marks are kept: releases that nobody has deployed for so long are on no disk any more.
const MARKS: usize = 100;

/// A switch that was taken back because its watch failed: the old slot is active again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Of the switch.
    pub generation: Generation,
    /// The slot that failed.
    pub from: SlotName,
    /// Its release.
    pub left: Option<ReleaseId>,
    /// The slot that is active again.
    pub to: SlotName,
    /// The release that is live again.
    pub release: Option<ReleaseId>,
    /// Why.
    pub cause: Cause,
    /// When.
    pub at: Time,
    /// What the public listener answered once the routers had the table, as far as that could be found out.
    pub reached: Option<Probe>,
}

/// A rollback that somebody asked for, and that has switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// What it left.
    pub left: Option<ReleaseId>,
    /// What those before it had left, if nothing else has switched since.
    pub before: BTreeSet<ReleaseId>,
    /// What it brought.
    pub release: ReleaseId,
    /// When.
    pub at: Time,
}

impl State {
    /// Why the release of an attempt under way is not to serve by it: it is marked, and nobody said that it is to be deployed all the same; or
    /// nobody asked for it, and it is live, or was left on the way back to what is.
    #[must_use]
    pub fn bars(&self, generation: Generation, release: &ReleaseId) -> Option<Cause> {
        let held = self.deployment.as_ref();
        let held = held.filter(|held| held.generation == generation)?;
        let marked = self.marked.get(release).filter(|_| !held.force);
        let left = || self.left_for(self.live()).contains(release);
        match marked {
            Some(back) => Some(Cause::Marked(back.clone().map(Box::new))),
            None if held.auto && self.live() == Some(release) => {
                Some(Cause::AlreadyLive(release.clone()))
            }
            None if held.auto && left() => Some(Cause::Left(release.clone())),
            None => None,
        }
    }

    /// Since when what is live, or was when it was stopped, is what a rollback brought, somebody's or slot's own, and what that left; nothing
    /// once something else has switched.
    #[must_use]
    pub fn gone_back(&self) -> Option<(Time, Option<&ReleaseId>)> {
        let live = self.live();
        let asked = self.went_back.as_ref();
        let asked = asked.map(|back| (Some(&back.release), &back.left, back.at));
        let own = self.rolled_back.as_ref();
        let own = own.map(|back| (back.release.as_ref(), &back.left, back.at));
        let mut both = asked.into_iter().chain(own);
        let is_it = |release: Option<&ReleaseId>| live.is_none() || live == release;
        let (_, left, at) = both.find(|(release, ..)| is_it(*release))?;
        Some((at, left.as_ref()))
    }

    /// What the rollbacks left that brought a release one after another, where nothing else has switched between them; any, if none is given.
    pub(super) fn left_for(&self, release: Option<&ReleaseId>) -> BTreeSet<ReleaseId> {
        let is_it = |brought: Option<&ReleaseId>| release.is_none() || release == brought;
        let asked = self.went_back.iter();
        let asked = asked.filter(|back| is_it(Some(&back.release)));
        let asked = asked.flat_map(|back| back.before.iter().chain(&back.left));
        let own = self.rolled_back.iter();
        let own = own.filter(|back| is_it(back.release.as_ref()));
        asked
            .chain(own.flat_map(|back| &back.left))
            .cloned()
            .collect()
    }

    /// Where a rollback goes that names no release, if anywhere.
    #[must_use]
    pub fn way_back(&self) -> Option<&ReleaseId> {
        let prev = self.prev.as_ref().filter(|_| self.gone_back().is_none());
        prev.filter(|prev| !self.marked.contains_key(prev))
    }

    /// The deployment that a rollback ended, where it began nothing itself: what was live was what it asked for.
    #[must_use]
    pub fn preempted(&self) -> Option<Generation> {
        let last = self.outcome.as_ref();
        let last = last.filter(|last| last.cause == Cause::Preempted);
        let last = last.filter(|last| last.generation == self.generation)?;
        self.deployment.is_none().then_some(last.generation)
    }

    /// Why a rollback that names no release changes nothing.
    pub(super) fn already_back(&self, now: Time) -> Option<Refusal> {
        let (at, left) = self.gone_back()?;
        if !self.is_well() {
            let why = "a rollback brought what was live last, and that does not serve; `slotctl rollback --to RELEASE` goes to an earlier one of \
                       `slotctl releases`";
            return Some(Refusal::NothingToRollBackTo { why });
        }
        let live = self.live()?;
        let left = left.filter(|left| *left != live);
        Some(Refusal::AlreadyBack {
            generation: self.generation,
            live: live.clone(),
            left: left.cloned(),
            marked: left.is_some_and(|it| self.marked.contains_key(it)),
            ago: now.since(at),
        })
    }

    /// Whoever asks for what is live does not get it anew.
    pub(super) fn already_live(&self, release: ReleaseId) -> Refusal {
        Refusal::AlreadyLive {
            generation: self.generation,
            release,
            well: self.is_well(),
        }
    }

    /// What is live is up, and nothing is known against it.
    pub(super) fn is_well(&self) -> bool {
        let active = self.active.as_ref().and_then(|name| self.slots.get(name));
        let up = active.is_some_and(|slot| slot.condition == Condition::Active(Service::Up));
        up && self.lookout.failing.is_none()
    }
}

impl Draft {
    /// What was left in a rollback that nobody asked for is marked. A deployment of the same bits that is under way has no slot yet, or there
    /// would be no soak any more, and is barred when its release is known.
    pub(super) fn mark(&mut self, back: &RolledBack) {
        // The same bits may have run in both slots; what is live is not marked.
        if back.left == back.release {
            return;
        }
        let Some(left) = &back.left else { return };
        let marked = &mut self.state.marked;
        marked.insert(left.clone(), Some(back.clone()));
        while marked.len() > MARKS {
            // One of which the time is not known is older than any of which it is.
            let others = marked.iter().filter(|(release, _)| *release != left);
            let oldest = others.min_by_key(|(_, back)| back.as_ref().map(|back| back.at));
            let Some(oldest) = oldest.map(|(release, _)| release.clone()) else {
                break;
            };
            marked.remove(&oldest);
        }
    }

    /// The release of a deployment is known before it is on disk, and is not to serve by it.
    pub(super) fn barred(&mut self, generation: Generation, release: &ReleaseId) {
        let why = self.state.bars(generation, release);
        let passed = || {
            Cause::Unprepared(
                "it was left out because of something that is not so any more; deploy again"
                    .to_owned(),
            )
        };
        self.unprepared(generation, why.unwrap_or_else(passed));
    }

    /// A deployment ends whose release is not to serve by it.
    pub(super) fn bar(&mut self, generation: Generation, release: &ReleaseId) -> bool {
        let why = self.state.bars(generation, release);
        let barred = why.is_some();
        if let Some(why) = why {
            self.unprepared(generation, why);
        }
        barred
    }

    /// A release that served through its soak is not one that was rolled back any more.
    pub(super) fn unmark(&mut self) {
        if let Some(live) = self.state.live().cloned() {
            self.state.marked.remove(&live);
        }
    }
}
