//! A switch that leaves the old slot a small share for a while: `migrate = "99:1"`.
//!
//! **Invariant:** only a slot that is warm and has passed its gates in this run keeps a share, and only the one that the last switch was
//! made from. Whatever else becomes of it, it has none, and is lingering until the routers know.
//! **Invariant:** its drain is counted from the end of its share.

use std::time::Duration;

use super::event::Probe;
use super::names::{SlotName, Time, Weight};
use super::policy::FAILED_PROBES;
use super::state::{Cause, Condition, State};
use super::step::Draft;

/// What an app's file says: how much the old slot keeps at a switch, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrate {
    /// Of new requests; some, and not all.
    pub keeps: Weight,
    /// Counted from the switch.
    pub lasts: Duration,
}

/// The slot that a switch was made from, while it keeps a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Which.
    pub slot: SlotName,
    /// Of new requests.
    pub weight: Weight,
    /// The switch.
    pub since: Time,
    /// Until when.
    pub until: Time,
    /// Probes failed in a row.
    pub streak: u8,
}

impl State {
    /// The old slot and what it still has.
    #[must_use]
    pub fn migrating(&self) -> Option<&Migration> {
        let migration = self.migration.as_ref()?;
        let slot = self.slots.get(&migration.slot)?;
        let gated = matches!(slot.condition, Condition::Warm { gated: true, .. });
        (gated && slot.boot.is_some()).then_some(migration)
    }

    /// Whether a slot is one that keeps a share.
    pub(super) fn migrates(&self, name: &SlotName) -> bool {
        self.migrating().is_some_and(|it| it.slot == *name)
    }

    /// What a candidate can be given: what the active slot has, and what is only left to the old one.
    pub(super) fn available(&self) -> Weight {
        let left = self.migrating().map_or(Weight::NONE, |it| it.weight);
        self.rest().with(left)
    }

    /// The slots that are given something beside the active one: those on trial, and the one that is left.
    pub fn given(&self) -> impl Iterator<Item = (&SlotName, Weight)> {
        let left = self.migrating().map(|it| (&it.slot, it.weight));
        self.trials().chain(left)
    }
}

impl Draft {
    /// The slot that a switch is made from keeps a share of what it had, if its run can be sent requests.
    pub(super) fn migrate(&mut self, from: &SlotName, by: Migrate) {
        self.state.migration = Some(Migration {
            slot: from.clone(),
            weight: by.keeps,
            since: self.now,
            until: self.now.after(by.lasts),
            streak: 0,
        });
        if self.state.migrates(from) {
            self.tell_weight(from, None);
        }
    }

    /// Nothing is left to the old slot.
    pub(super) fn migrated(&mut self) {
        self.end_migration(None);
    }

    fn end_migration(&mut self, cause: Option<Cause>) {
        let migration = self.state.migrating().cloned();
        self.state.migration = None;
        let Some(Migration {
            slot: left, since, ..
        }) = migration
        else {
            return;
        };
        let lasted = self.now.since(since);
        if let Some(slot) = self.state.slots.get_mut(&left)
            && let Condition::Warm { drain, .. } = &mut slot.condition
        {
            *drain = drain.map(|until| until.after(lasted));
        }
        self.state.lingering.insert(left.clone());
        self.tell_weight(&left, cause);
        self.let_go();
    }

    /// Somebody is to have this much: what was only left to the old slot is there to be had.
    pub(super) fn make_available(&mut self, name: &SlotName, weight: Weight) {
        if weight.without(self.state.weight(name)) > self.state.rest() {
            self.migrated();
        }
    }

    /// What becomes of the old slot ends its share, whatever that is. The routers send to it until they know.
    pub(super) fn forget_migration(&mut self) {
        if self.state.migrating().is_none() {
            self.state.migration = None;
        }
        if let Some(left) = self.kept_share.take()
            && self.state.weight(&left) == Weight::NONE
        {
            self.state.lingering.insert(left);
        }
    }

    /// A probe of the slot that keeps a share: one that fails for long has none any more.
    pub(super) fn migration_probe(&mut self, probe: Probe) {
        let Some(migration) = self.state.migration.as_mut() else {
            return;
        };
        migration.streak = match probe.pass {
            true => 0,
            false => migration.streak.saturating_add(1),
        };
        if migration.streak >= FAILED_PROBES {
            self.end_migration(Some(Cause::ProbesFailed(probe)));
        }
    }

    /// Its time is over.
    pub(super) fn migrated_long_enough(&mut self) {
        let migration = self.state.migration.as_ref();
        if migration.is_some_and(|it| it.until <= self.now) {
            self.migrated();
        }
    }
}
