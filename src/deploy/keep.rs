//! The old slot beyond the soak: warm at weight 0, or frozen, until its time is over or a deployment needs it.
//!
//! ```text
//!  warm ──► (drained ──► frozen) ──► its time is over, or somebody needs the slot ──► draining, or stopping
//!    └────────────────────┴──► a rollback: the traffic at once; thawed and probed first, if it was frozen
//! ```
//!
//! **Invariant:** nothing is in flight at a slot that is frozen, and it has no traffic before a probe of it has passed again.

use super::names::{ReleaseId, SlotName, Time};
use super::policy::Settings;
use super::refusal::Refusal;
use super::state::{Condition, Kind, Phase, State};
use super::step::Draft;

/// A slot that is kept beyond its soak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub slot: SlotName,
    /// Until when.
    pub until: Time,
    /// It is to be frozen.
    pub freezes: bool,
    /// It has drained, and is frozen from here on.
    pub frozen: bool,
}

impl State {
    /// What is kept of a slot.
    #[must_use]
    pub fn kept_in(&self, name: &SlotName) -> Option<&Kept> {
        self.kept.as_ref().filter(|kept| kept.slot == *name)
    }

    /// The slot that is frozen with a release.
    fn frozen(&self, release: &ReleaseId) -> Option<&SlotName> {
        let kept = self.kept.as_ref().filter(|kept| kept.frozen)?;
        let slot = self.slots.get(&kept.slot)?;
        let is_warm = matches!(slot.condition, Condition::Warm { .. });
        (is_warm && slot.release.as_ref() == Some(release)).then_some(&kept.slot)
    }
}

impl Draft {
    /// The soak is over, or there was none: the old slot is kept for as long as the settings say, counted from the switch.
    pub(super) fn keep(&mut self, old: SlotName) {
        let after = self.state.settings.after;
        let until = self
            .state
            .switched
            .unwrap_or(self.now)
            .after(after.keep_warm);
        if until > self.now && self.is_warm(&old) {
            self.state.kept = Some(Kept {
                slot: old,
                until,
                freezes: after.frozen,
                frozen: false,
            });
        }
    }

    /// Its time is over.
    pub(super) fn kept_long_enough(&mut self) {
        if self
            .state
            .kept
            .as_ref()
            .is_some_and(|kept| kept.until <= self.now)
        {
            self.state.kept = None;
            self.let_go();
        }
    }

    /// Nothing is in flight at a slot that is to be frozen.
    pub(super) fn freeze(&mut self, name: &SlotName) {
        if self.state.migrates(name) {
            return;
        }
        let Some(kept) = &mut self.state.kept else {
            return;
        };
        if kept.slot == *name
            && kept.freezes
            && let Some(slot) = self.state.slots.get_mut(name)
            && let Condition::Warm { gated, .. } = &mut slot.condition
        {
            kept.frozen = true;
            *gated = false;
        }
    }

    /// A slot that is not kept any more, whatever becomes of it.
    pub(super) fn unkeep(&mut self, name: &SlotName) {
        self.state.kept = self.state.kept.take().filter(|kept| kept.slot != *name);
    }

    /// A rollback to what is frozen: it is thawed and gated in its slot. False if it is in none.
    pub(super) fn thaw(&mut self, release: &ReleaseId) -> bool {
        let Some(slot) = self.state.frozen(release).cloned() else {
            return false;
        };
        let Some(held) = &self.state.deployment else {
            return false;
        };
        let (generation, health_timeout) = (held.generation, held.settings.health_timeout);
        self.unkeep(&slot);
        if let Some(found) = self.state.slots.get_mut(&slot) {
            found.condition = Condition::Ready;
            found.generation = generation;
        }
        self.enter(Phase::Ready {
            slot,
            until: self.now.after(health_timeout),
            probe: None,
        });
        true
    }

    /// A swap to a slot that is frozen. False if it is not.
    pub(super) fn swap_to_frozen(
        &mut self,
        to: &SlotName,
        by: &str,
        settings: &Settings,
    ) -> Result<bool, Refusal> {
        if !self.state.kept_in(to).is_some_and(|kept| kept.frozen) {
            return Ok(false);
        }
        self.refuse_if_locked()?;
        self.unkeep(to);
        self.gate_in_place(Kind::Rollback, to.clone(), by.to_owned(), settings.clone());
        Ok(true)
    }
}
