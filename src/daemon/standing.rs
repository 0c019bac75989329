//! How an app stands, in one place: for its status, and for each event and line of the journal.

use super::live::{Live, blocking};
use super::status::streak;
use super::units::Units;
use crate::deploy::{Condition, ReleaseId, SlotName, State};
use crate::release::Record;
use crate::wire::api;
use crate::wire::release::Origin;

impl<U: Units> Live<U> {
    /// What is so in a state.
    pub(super) async fn standing(&self, state: &State) -> api::Standing {
        let (root, releases) = (
            self.root.clone(),
            [state.live().cloned(), state.prev.clone()],
        );
        let commit = move |id: Option<ReleaseId>| match Record::read(&root, &id?)?.origin {
            Origin::Git { commit, .. } => Some(commit),
            Origin::Path { .. } | Origin::Archive { .. } | Origin::Unknown => None,
        };
        let [commit, previous_commit] = blocking(move || releases.map(commit)).await;
        let held = state.deployment.as_ref();
        let back = state.rolled_back.as_ref();
        let back = back.map(|back| (back.cause.code(), back.at));
        // Somebody's own has no other cause.
        let back = back.or_else(|| state.gone_back().map(|(at, _)| ("asked", at)));
        let asked = held.map(|held| &held.by);
        let asked = asked.or(state.outcome.as_ref().map(|outcome| &outcome.by));
        api::Standing {
            state: state.name().to_owned(),
            active: state.active.as_ref().and_then(|slot| run(state, slot)),
            candidate: held.and_then(|held| run(state, held.phase.slot()?)),
            old: old(state).and_then(|slot| run(state, slot)),
            switched_at_ms: state.switched.map(|at| at.0),
            health_fail_streak: streak(state),
            rollback_cause: back.map(|(cause, _)| cause.to_owned()),
            rollback_at_ms: back.map(|(_, at)| at.0),
            initiated_by: asked.filter(|by| !by.is_empty()).cloned(),
            commit,
            previous_commit,
        }
    }
}

fn run(state: &State, name: &SlotName) -> Option<api::Run> {
    let slot = state.slots.get(name)?;
    Some(api::Run {
        slot: name.to_string(),
        release: slot.release.as_ref().map(ToString::to_string),
        boot_id: slot.boot.as_ref().map(ToString::to_string),
    })
}

/// The slot that is kept to go back to.
fn old(state: &State) -> Option<&SlotName> {
    let watched = state.watch.as_ref().and_then(|watch| watch.old.as_ref());
    let warm = |name: &&SlotName| {
        let slot = state.slots.get(*name);
        slot.is_some_and(|slot| matches!(slot.condition, Condition::Warm { .. }))
    };
    watched
        .filter(warm)
        .or_else(|| state.slots.keys().find(warm))
}
