//! What no state says that [`step`](super::step) made: a file that says it was damaged, however well it reads.

use super::hook::Stage;
use super::names::{SlotName, Weight};
use super::state::{Condition, Phase, State};

impl State {
    /// The first thing in it that contradicts another; `None` for every state that was ever committed.
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        let active: Vec<&SlotName> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot.condition, Condition::Active(_)))
            .map(|(name, _)| name)
            .collect();
        if active != self.active.iter().collect::<Vec<_>>() {
            return Some("the active slot is not the one that is named");
        }
        if self.routed > self.generation {
            return Some("the table is ahead of the attempts");
        }
        let given = self.given().map(|(_, weight)| weight);
        let given: u32 = given.map(|weight| u32::from(weight.get())).sum();
        let most = self.active.as_ref().map_or(Weight::NONE, |_| Weight::ALL);
        if given > u32::from(most.get()) {
            return Some("more is given than there is");
        }
        let phase = self.deployment.as_ref().map(|held| &held.phase);
        let candidate = phase.and_then(Phase::slot);
        for (name, slot) in &self.slots {
            let gated = matches!(slot.condition, Condition::Starting | Condition::Ready);
            if gated && candidate != Some(name) {
                return Some("a slot starts for no attempt");
            }
            let Condition::Trial { weight, .. } = slot.condition else {
                continue;
            };
            if slot.boot.is_none() {
                return Some("a slot is on trial in which nothing runs");
            }
            if weight == Weight::NONE && candidate != Some(name) {
                return Some("a slot is on trial without a weight");
            }
        }
        let condition = |name: &SlotName| self.slots.get(name).map(|slot| &slot.condition);
        let follows = match phase {
            Some(Phase::Starting { slot, .. }) => condition(slot) == Some(&Condition::Starting),
            Some(Phase::Ready { slot, .. }) => condition(slot) == Some(&Condition::Ready),
            Some(Phase::Trial { slot, .. }) => {
                matches!(condition(slot), Some(Condition::Trial { .. }))
            }
            Some(Phase::Shifting { slot, .. }) => self.active.as_ref() == Some(slot),
            Some(Phase::Preparing { .. } | Phase::Waiting { .. }) | None => true,
        };
        if !follows {
            return Some("the deployment is in another phase than its slot");
        }
        let runs = (self.deployment.as_ref()).is_some_and(|it| it.before_switch == Stage::Runs);
        if runs && !matches!(phase, Some(Phase::Ready { .. })) {
            return Some("the hook before a switch runs for no candidate");
        }
        let watched = self
            .watch
            .iter()
            .flat_map(|watch| watch.old.iter().chain([&watch.new]))
            .all(|name| condition(name).is_some());
        let kept = self
            .kept
            .as_ref()
            .is_none_or(|kept| condition(&kept.slot).is_some());
        let left = self.migration.as_ref();
        if left.is_some_and(|left| left.weight == Weight::NONE || left.weight == Weight::ALL) {
            return Some("the old slot keeps nothing, or all");
        }
        (!watched || !kept).then_some("a slot is watched that is none of the app's")
    }
}
