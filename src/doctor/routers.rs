//! The router's instances and their table: that one accepts, that all have the table, and that the table is what the states say.

use super::facts::{Facts, Stand, State};
use super::finding::Finding;
use crate::wire::table;

pub(super) fn routers(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Err(why) = &facts.machine {
        found.push(
            Finding::problem("machine-file", "/etc/slot/machine.toml", format!("is wrong: {why}"))
                .because("`slotctl router upgrade` is refused, and a router that has to start all the same goes by the last settings that were right")
                .mended_by("mend that line (`man slot-machine.toml`), then `slotctl router upgrade`"),
        );
    }
    let told = match &facts.routers {
        Ok(told) => told,
        Err(why) => {
            found.push(Finding::unseen("router", "slot-router", why));
            return found;
        }
    };
    let running = facts.units.iter().filter_map(|(name, unit)| {
        let number = name
            .strip_prefix("slot-router@")?
            .strip_suffix(".service")?;
        unit.is_up().then_some(number)
    });
    let running: Vec<&str> = running.collect();
    let revision = facts
        .table
        .as_ref()
        .ok()
        .and_then(|table| Some(table.as_ref()?.revision));
    let mut accepting = 0;
    for number in &running {
        let name = format!("slot-router@{number}.service");
        let journal = format!("journalctl -b -u {name}");
        let silent = |why: &str| {
            Finding::problem("router-silent", &name, format!("runs, and does not answer at its control socket: {why}"))
                .because("it gets no new table, so that a switch waits for it and is taken back after 30 seconds")
                .mended_by("wait half a minute: systemd starts anew what gives no sign of life. If it is so still, `slotctl router upgrade`")
                .told_by(journal.clone())
        };
        let stats = match told.get(*number) {
            Some(Ok(stats)) => stats,
            Some(Err(why)) => {
                found.push(silent(why));
                continue;
            }
            None => {
                found.push(silent("nothing listens there"));
                continue;
            }
        };
        accepting += usize::from(stats.accepting);
        if let Some(problem) = &stats.problem {
            found.push(
                Finding::warning(
                    "router-settings",
                    &name,
                    format!("does not go by /etc/slot/machine.toml: {problem}"),
                )
                .because("limits and trusted peers are not those that the file says")
                .mended_by("mend the file, then `slotctl router upgrade`")
                .told_by(journal.clone()),
            );
        }
        match (stats.revision, revision) {
            (None, _) => found.push(
                Finding::problem("router-without-table", &name, "has no table")
                    .because("every request waits, and is then answered 503")
                    .mended_by(sent_again(facts))
                    .told_by(journal),
            ),
            (Some(has), Some(newest)) if has < newest => found.push(
                Finding::problem(
                    "router-behind",
                    &name,
                    format!("has the table of revision {has}, and the last one is {newest}"),
                )
                .because("it sends requests where they went before the last switch")
                .mended_by(sent_again(facts))
                .told_by(journal),
            ),
            (Some(has), _) => {
                let doing = if stats.accepting { "accepts" } else { "drains" };
                found.push(Finding::ok(
                    "router",
                    &name,
                    format!("{doing}, with table {has}"),
                ));
            }
        }
    }
    let answer = running
        .iter()
        .filter(|number| matches!(told.get(**number), Some(Ok(_))))
        .count();
    if answer == running.len() && !running.is_empty() && accepting != 1 {
        found.push(number_of_accepting(facts, accepting));
    }
    let held = facts
        .listeners
        .keys()
        .any(|name| facts.units.get(name).is_some_and(super::UnitFacts::is_up));
    if running.is_empty() && held {
        found.push(Finding::ok(
            "router",
            "slot-router",
            "does not run yet: the next connection starts it",
        ));
    }
    found
}

fn number_of_accepting(facts: &Facts, accepting: usize) -> Finding {
    let mended = if facts
        .units
        .get("slotd.service")
        .is_some_and(super::UnitFacts::is_up)
    {
        "wait some seconds: slotd mends that by itself; if it is so still, `slotctl router upgrade`"
    } else {
        "`systemctl start slotd.service`, which mends that within seconds"
    };
    let finding = match accepting {
        0 => Finding::problem(
            "router-none-accepts",
            "slot-router",
            "has instances that drain, and none that accepts",
        )
        .because("new connections wait in systemd's queue, and are not served"),
        many => Finding::warning(
            "router-many-accept",
            "slot-router",
            format!("has {many} instances that accept, where one should"),
        )
        .because("an upgrade of the router was interrupted; nothing is lost by it"),
    };
    finding
        .mended_by(mended)
        .told_by("journalctl -b -u slotd -u 'slot-router@*'")
}

/// Who gives routers their table, and how he is made to.
fn sent_again(facts: &Facts) -> &'static str {
    match facts
        .units
        .get("slotd.service")
        .is_some_and(super::UnitFacts::is_up)
    {
        true => {
            "`systemctl restart slotd.service`: it gives every router the table anew; apps do not notice"
        }
        false => "`systemctl start slotd.service`, which gives every router the table",
    }
}

/// The table on disk against the apps' states.
pub(super) fn tables(facts: &Facts) -> Vec<Finding> {
    let object = "/run/slot/table.json";
    let journal = "journalctl -b -u slotd";
    let table = match &facts.table {
        Err(why) if facts.root => {
            return vec![
                Finding::problem("table-wrong", object, format!("cannot be read: {why}"))
                    .because("a router that starts now has no table, and lets every request wait")
                    .mended_by(sent_again(facts))
                    .told_by(journal),
            ];
        }
        Err(why) => return vec![Finding::unseen("table", object, why)],
        Ok(table) => table.as_ref(),
    };
    let mut found = Vec::new();
    let mut compared = 0;
    for (name, app) in &facts.apps {
        let State::Stands(stand) = &app.state else {
            continue;
        };
        let Some(active) = stand.active.as_ref().filter(|_| !stand.busy) else {
            continue;
        };
        let part = table.and_then(|table| table.apps.iter().find(|part| part.name == *name));
        let Some(part) = part else {
            found.push(
                Finding::problem(
                    "table-lacks",
                    object,
                    format!("does not have the app {name}, whose slot {active} is active"),
                )
                .because("its requests are answered 404 by every router that reads it")
                .mended_by(sent_again(facts))
                .told_by(journal),
            );
            continue;
        };
        compared += 1;
        if let Some(text) = difference(name, part, stand) {
            found.push(
                Finding::problem("table-differs", object, text)
                    .because("requests go elsewhere than was decided; a router that starts reads this file")
                    .mended_by(sent_again(facts))
                    .told_by(journal),
            );
        }
    }
    let parts = table.into_iter().flat_map(|table| &table.apps);
    for part in parts.filter(|part| !facts.apps.contains_key(&part.name)) {
        let name = &part.name;
        found.push(
            Finding::warning(
                "table-orphan",
                object,
                format!("has the app {name}, and /etc/slot/apps/{name}.toml is gone"),
            )
            .because("it is still served, and cannot be deployed")
            .mended_by(format!(
                "`slotctl app remove {name}`, or `slotctl app add` in its project to have it back"
            )),
        );
    }
    if found.is_empty() && compared > 0 {
        found.push(Finding::ok(
            "table",
            object,
            "says what the apps' states say",
        ));
    }
    found
}

fn difference(name: &str, part: &table::App, stand: &Stand) -> Option<String> {
    let wrong = part.slots.iter().find(|slot| {
        let decided = stand.weights.get(&slot.name).copied().unwrap_or(0);
        slot.weight != decided
    })?;
    let decided = stand.weights.get(&wrong.name).copied().unwrap_or(0);
    Some(format!(
        "gives {name}@{} {}% of new requests, and the app's state {decided}%",
        wrong.name, wrong.weight
    ))
}
