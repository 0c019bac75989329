//! Whose the places are by which clients keep to a slot (see [`table::Sticky`]), from one table to the next.
//!
//! **Invariant:** a slot that gains takes places from those that lose, and no other place changes hands: so a client that saw a version
//! keeps seeing it until that version loses. From the state alone that could not be said: with three versions, whose place is where
//! depends on which of them grew when.

use std::collections::BTreeMap;

use crate::config::App;
use crate::deploy::Route;
use crate::wire::table;

/// How the clients of an app keep to its slots, if they are to and several of them have a weight. `last` is its part of the table before.
pub(super) fn sticky(
    app: &App,
    route: &Route,
    slots: &[table::Slot],
    last: Option<&table::App>,
) -> Option<table::Sticky> {
    let (by, tried) = (app.sticky.as_ref()?, route.tried?);
    if slots.iter().filter(|slot| slot.weight > 0).count() < 2 {
        return None;
    }
    let active = route.active.as_ref().map(|name| name.as_str());
    // Only if one that is on trial now was before, in this run: what came of an earlier trial means nothing to this one.
    let goes_on = |last: &&table::App| {
        let trials = slots.iter().filter(|slot| active != Some(&slot.name));
        trials.filter(|slot| slot.weight > 0).any(|slot| {
            let mut before = last.slots.iter().filter(|it| it.weight > 0);
            before.any(|it| it.name == slot.name && it.boot_id == slot.boot_id)
        })
    };
    let before = last.filter(goes_on).and_then(|last| last.sticky.as_ref());
    Some(table::Sticky {
        by: by.to_string(),
        salt: before.map_or(tried.0, |before| before.salt),
        places: places(
            slots,
            active,
            before.map_or(&[], |before| before.places.as_slice()),
        ),
    })
}

/// The places in rows. Of those that it had the active slot keeps the last, any other the first; so with two slots the other one has the
/// first places, however it came to them.
fn places(
    slots: &[table::Slot],
    active: Option<&str>,
    before: &[(u8, String)],
) -> Vec<(u8, String)> {
    let sum: u32 = slots.iter().map(|slot| u32::from(slot.weight)).sum();
    let mut left: BTreeMap<&str, u8> = BTreeMap::new();
    left.extend(slots.iter().map(|slot| (slot.name.as_str(), slot.weight)));
    let mut take = |name: &str| {
        let left = left.get_mut(name).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    };
    let had = before
        .iter()
        .flat_map(|(count, name)| std::iter::repeat_n(name.as_str(), usize::from(*count)));
    let mut all: Vec<Option<&str>> = had.map(Some).collect();
    all.resize(sum as usize, None);
    let is_active = |place: &Option<&str>| active.is_some() && *place == active;
    for place in all.iter_mut().filter(|place| !is_active(place)) {
        *place = place.filter(|name| take(name));
    }
    for place in all.iter_mut().rev().filter(|place| is_active(place)) {
        *place = place.filter(|name| take(name));
    }
    let mut order: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
    order.sort_by_key(|name| active == Some(*name));
    let mut rows: Vec<(u8, String)> = Vec::new();
    for place in all {
        let mut free = || order.iter().copied().find(|name| take(name));
        // The weights add up to the number of places.
        let Some(name) = place.or_else(&mut free) else {
            break;
        };
        match rows.last_mut() {
            Some((count, last)) if last == name => *count += 1,
            _ => rows.push((1, name.to_owned())),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::deploy::{Generation, Weight};

    const NAMES: [&str; 4] = ["blue", "green", "canary", "extra"];

    fn slots(weights: &[u8]) -> Vec<table::Slot> {
        let slots = NAMES.iter().zip(weights).map(|(name, weight)| table::Slot {
            name: (*name).to_owned(),
            weight: *weight,
            upstream: "127.0.0.1:9001".to_owned(),
            boot_id: None,
            ready: true,
        });
        slots.collect()
    }

    fn rows(weights: &[u8], active: &str, before: &[(u8, String)]) -> Vec<(u8, String)> {
        places(&slots(weights), Some(active), before)
    }

    /// `green 10, blue 90`.
    fn told(rows: &[(u8, String)]) -> String {
        let rows = rows.iter().map(|(count, name)| format!("{name} {count}"));
        rows.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_attempt_begins_with_other_clients_and_keeps_them_while_its_share_grows() {
        let app =
            App::parse("command = './server'\nsticky = 'cookie'\n", "web.toml").expect("a file");
        let part = |generation, weight, run: &str, last: Option<&table::App>| {
            let name = |name: &str| name.parse().expect("a slot");
            let percent = Weight::new(weight).expect("a part");
            let route = Route {
                table: 1,
                generation: Generation(1),
                active: Some(name("blue")),
                trials: vec![(name("green"), percent)],
                left: Weight::NONE,
                tried: Some(Generation(generation)),
                ready: true,
                boots: Vec::new(),
                hold: std::time::Duration::ZERO,
            };
            let mut slots = slots(&[100 - weight, weight]);
            slots[1].boot_id = Some(run.to_owned());
            let sticky = sticky(&app, &route, &slots, last);
            table::App {
                slots,
                sticky,
                name: "web".to_owned(),
                generation: 1,
                routes: Vec::new(),
                hold_ms: Some(0),
                limits: table::Limits::default(),
                preview: None,
            }
        };
        let salt = |part: &table::App| part.sticky.as_ref().map(|sticky| sticky.salt);
        let first = part(7, 1, "a", None);
        assert_eq!(salt(&first), Some(7));
        let grown = part(7, 50, "a", Some(&first));
        assert_eq!(salt(&grown), Some(7));
        // Another attempt in the same slot, of which the table may still have the part before.
        let next = part(9, 1, "b", Some(&grown));
        assert_eq!(salt(&next), Some(9));
        // One that is beside it does not give everybody another version.
        assert_eq!(salt(&part(12, 2, "b", Some(&next))), Some(9));
        // Nobody is kept where one slot has all.
        assert_eq!(salt(&part(13, 0, "b", Some(&next))), None);
    }

    #[test]
    fn a_trial_has_the_first_places_however_it_came_to_them() {
        let mut before = Vec::new();
        for (weight, expected) in [
            (1, "green 1, blue 99"),
            (10, "green 10, blue 90"),
            (5, "green 5, blue 95"),
            (50, "green 50, blue 50"),
        ] {
            before = rows(&[100 - weight, weight], "blue", &before);
            assert_eq!(told(&before), expected);
            assert_eq!(told(&rows(&[100 - weight, weight], "blue", &[])), expected);
        }
    }

    #[test]
    fn of_three_versions_one_that_grows_takes_from_the_active_one_alone() {
        let one = rows(&[90, 10, 0], "blue", &[]);
        let two = rows(&[80, 10, 10], "blue", &one);
        assert_eq!(told(&two), "green 10, canary 10, blue 80");
        let grown = rows(&[60, 30, 10], "blue", &two);
        assert_eq!(told(&grown), "green 10, canary 10, green 20, blue 60");
        let promoted = rows(&[0, 90, 10], "green", &grown);
        assert_eq!(told(&promoted), "green 10, canary 10, green 80");
    }

    proptest! {
        #[test]
        fn no_place_changes_hands_but_from_one_that_loses_to_one_that_gains(
            steps in prop::collection::vec((prop::collection::vec(0u8..=33, 3), 0usize..4), 1..20),
        ) {
            let (mut before, mut had): (Vec<(u8, String)>, [u8; 4]) = (Vec::new(), [0; 4]);
            for (mut weights, active) in steps {
                weights.insert(active, 100 - weights.iter().sum::<u8>());
                let after = rows(&weights, NAMES[active], &before);
                let all = |rows: &[(u8, String)]| -> Vec<String> {
                    let all = rows.iter().flat_map(|(count, name)| vec![name.clone(); usize::from(*count)]);
                    all.collect()
                };
                for (name, weight) in NAMES.iter().zip(&weights) {
                    let own = all(&after).iter().filter(|place| place == name).count();
                    prop_assert_eq!(own, usize::from(*weight));
                }
                let index = |name: &String| NAMES.iter().position(|it| it == name).expect("one of them");
                for (from, to) in all(&before).iter().zip(&all(&after)).filter(|(from, to)| from != to) {
                    let (from, to) = (index(from), index(to));
                    prop_assert!(weights[from] < had[from] && weights[to] > had[to], "{had:?} {weights:?}");
                }
                (before, had) = (after, weights.try_into().expect("four"));
            }
        }
    }
}
