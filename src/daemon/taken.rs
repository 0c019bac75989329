//! How an app is taken up: what its state says was meant, and what is found of it.
//!
//! **Invariant:** a state that is missing or corrupt is never taken for that of an app that was never deployed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::app::settings;
use super::live::Live;
use super::units::Units;
use super::world::World;
use crate::deploy::{Facts, Found, Generation, State, Step, recover, rediscover};
use crate::release;
use crate::store::{History, Loaded};

/// The state of an app as it goes on from what was loaded and what is found.
pub(super) async fn take_up<U: Units>(world: &Arc<Live<U>>, loaded: Loaded) -> Step {
    let settings = settings(&world.app);
    let known = match &loaded {
        Loaded::State(state, _) => state.slots.keys().cloned().collect(),
        Loaded::Absent | Loaded::Corrupt { .. } => BTreeSet::new(),
    };
    let mut slots = BTreeMap::new();
    for name in known.into_iter().chain(settings.slots.iter().cloned()) {
        let found = Found {
            seen: world.units.seen(&name).await,
            release: release::named(&world.root, name.as_str()),
        };
        slots.insert(name, found);
    }
    let part = world.tables.part(world.app.name.as_str()).await;
    let routed = part
        .as_ref()
        .and_then(|part| part.slots.iter().find(|slot| slot.weight == 100));
    let recorded = History::at(world.root.join("history.jsonl")).last_generation();
    let facts = Facts {
        settings,
        rebooted: matches!(loaded, Loaded::State(_, true)),
        slots,
        routed: routed.and_then(|slot| slot.name.parse().ok()),
        serving: routed
            .filter(|slot| slot.ready)
            .and_then(|slot| slot.boot_id.as_ref()?.parse().ok()),
        generation: Generation(recorded.max(part.as_ref().map_or(0, |part| part.generation))),
        live: release::named(&world.root, "live"),
        prev: release::named(&world.root, "prev"),
    };
    let now = world.now();
    match loaded {
        Loaded::State(state, _) => recover(&state, &facts, now),
        Loaded::Absent if facts.live.is_none() => {
            recover(&State::new(facts.settings.clone()), &facts, now)
        }
        Loaded::Absent => {
            // A data directory that slot-machine has left has the symlinks, and never had the file.
            if facts.slots.values().any(|found| found.release.is_some()) {
                world.keep_warning("state.json is missing; the active slot was found by its units and symlinks instead".to_owned());
            }
            recover(&rediscover(&facts, now), &facts, now)
        }
        Loaded::Corrupt { aside, why } => {
            world.keep_warning(format!(
                "state.json could not be read ({why}); it is kept as {}, and the active slot was found by the routers' table, units and symlinks instead",
                aside.display()
            ));
            recover(&rediscover(&facts, now), &facts, now)
        }
    }
}
