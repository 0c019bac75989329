//! How an app is found when slotd starts: its state file, its units, its symlinks, the routers' table.
//!
//! **Invariant:** nothing is changed here but that a state file which cannot be read is kept aside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::app::settings;
use super::live::Live;
use super::units::Units;
use super::world::World;
use crate::deploy::{Facts, Found, Generation, State, Step, Topic, recover, rediscover};
use crate::release;
use crate::store::{History, Loaded};

/// Takes an app up where its state file says that it is; without one, where what is found of it says so.
pub(super) async fn take_up<U: Units>(world: &Arc<Live<U>>, loaded: Loaded) -> Step {
    let settings = settings(&world.app);
    let receivers = world.app.notices.iter();
    let topics: BTreeSet<Topic> = receivers.flat_map(|it| it.topics.clone()).collect();
    // What happens from here on is told to those whom the file names now.
    let telling = |mut state: State| {
        state.topics = topics;
        state
    };
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
    let live = release::named(&world.root, "live");
    let sends = part.iter().flat_map(|part| &part.slots);
    let sends: Vec<_> = sends.filter(|slot| slot.weight > 0).collect();
    // Which of several is the active one, the table does not say.
    let is_live = |slot: &str| live.is_some() && release::named(&world.root, slot) == live;
    let routed = match sends[..] {
        [only] => Some(only),
        _ => {
            let live = sends.iter().copied().filter(|slot| is_live(&slot.name));
            live.max_by_key(|slot| slot.weight)
        }
    };
    let shared = sends.iter().filter(|slot| Some(**slot) != routed);
    let recorded = History::at(world.root.join("history.jsonl")).last_generation();
    let facts = Facts {
        settings,
        rebooted: matches!(loaded, Loaded::State(_, true)),
        slots,
        routed: routed.and_then(|slot| slot.name.parse().ok()),
        shared: shared.filter_map(|slot| slot.name.parse().ok()).collect(),
        serving: routed
            .filter(|slot| slot.ready)
            .and_then(|slot| slot.boot_id.as_ref()?.parse().ok()),
        generation: Generation(recorded.max(part.as_ref().map_or(0, |part| part.generation))),
        live,
        prev: release::named(&world.root, "prev"),
    };
    let now = world.now();
    let first = match loaded {
        Loaded::State(state, _) => recover(&telling(*state), &facts, now),
        Loaded::Absent if facts.live.is_none() => {
            recover(&telling(State::new(facts.settings.clone())), &facts, now)
        }
        Loaded::Absent => {
            // A data directory that slot-machine has left has the symlinks, and never had the file.
            if facts.slots.values().any(|found| found.release.is_some()) {
                world.keep_warning(
                    "state-missing",
                    "state.json is missing; the active slot was found by its units and symlinks instead".to_owned(),
                );
            }
            recover(&telling(rediscover(&facts, now)), &facts, now)
        }
        Loaded::Corrupt { aside, why } => {
            world.keep_warning("state-corrupt", format!(
                "state.json could not be read ({why}); it is kept as {}, and the active slot was found by the routers' table, units and symlinks instead",
                aside.display()
            ));
            recover(&telling(rediscover(&facts, now)), &facts, now)
        }
    };
    if let Some(held) = &first.state.deployment {
        tracing::info!(
            slot_app = %world.app.name,
            slot_generation = held.generation.0,
            slot_phase = held.phase.name(),
            "the deployment of generation {} goes on where the last slotd left it", held.generation
        );
    }
    first
}
