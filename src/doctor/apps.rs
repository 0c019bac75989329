//! Apps: their files against the units that were made of them, their states against their symlinks, their releases.

use super::facts::{AppFacts, Facts, Stand, State};
use super::finding::{Finding, Level, Mend};
use super::units::{REINSTALL, faults, reloaded};
use crate::config::Bind;
use crate::telemetry::bytes;

/// A file that was to be renamed is one that a crash has left when it is as old as that, in seconds.
const LEFT: u64 = 60;

/// The app files, and what the generator made of them.
pub(super) fn files(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, app) in &facts.apps {
        let object = app.file.display().to_string();
        if let Err(why) = &app.app {
            found.push(
                Finding::problem("app-file", &object, format!("is wrong: {why}"))
                    .because("what runs goes on; nothing can be deployed, and after the next daemon-reload a slot that ends is not started again")
                    .mended_by("mend that line (`man slot.toml`), then `systemctl daemon-reload`; or `slotctl app add` in the app's project")
                    .told_by(format!("journalctl -b -u slotd SLOT_APP={name}")),
            );
            continue;
        }
        match stale(app) {
            Some(path) => found.push(reloaded(
                facts,
                Finding::problem("app-units", &object, format!("says something else than {path}, which was made of it"))
                    .because("the file was changed by hand, and systemd still goes by what it said before: a deployment is refused"),
            )),
            None => found.push(Finding::ok("app-file", &object, "its units are made of it")),
        }
    }
    found
}

/// A unit that is not what the app's file makes now.
fn stale(app: &AppFacts) -> Option<&str> {
    let differs = app
        .texts
        .iter()
        .find(|text| text.found.as_ref() != Some(&text.made));
    differs.map(|text| text.path.as_str())
}

/// The apps' units.
pub(super) fn units(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, app) in &facts.apps {
        let known = app.app.as_ref().ok();
        let again = format!(
            "`systemctl daemon-reload`, then `slotctl app add {}`",
            app.file.display()
        );
        let is_stale = known.is_none() || stale(app).is_some();
        let own = facts.units.iter().filter(|(unit, _)| of_app(unit, name));
        for (unit, is) in own {
            // Its socket is masked but for bind = "fd".
            let masked = unit.ends_with(".socket") && known.is_none_or(|app| app.bind != Bind::Fd);
            if masked {
                continue;
            }
            let missing = if unit.starts_with("slot-") {
                REINSTALL
            } else {
                &again
            };
            let faults = faults(facts, unit, is, missing).into_iter();
            // What is stale because the app's file is newer was said of that.
            found.extend(faults.filter(|fault| fault.check != "unit-stale" || !is_stale));
            if !app.triggers.contains(unit) {
                found.extend(ended(name, app, unit, is));
            }
        }
        for unit in &app.triggers {
            let is = facts.units.get(unit);
            if let Some(is) = is.filter(|is| is.is_loaded() && !is.is_up()) {
                let (state, remedy) = match is.active.as_str() {
                    "failed" => (
                        format!("has failed ({})", is.result),
                        format!("`systemctl reset-failed {unit}`, then `systemctl start {unit}`"),
                    ),
                    _ => (
                        "is not active".to_owned(),
                        format!("`systemctl start {unit}`"),
                    ),
                };
                found.push(
                    Finding::problem(
                        "watch-down",
                        unit,
                        format!("{state}, and {} has [auto]", app.file.display()),
                    )
                    .because("nothing new is looked for, so that nothing is deployed by itself")
                    .mended_by(remedy)
                    .told_by(format!(
                        "journalctl -b -u {unit} -u slot-watch@{name}.service"
                    )),
                );
            }
        }
        if let Some(taken) = &app.taken_user {
            found.push(
                Finding::problem("user-taken", taken, format!("is a user or group of this machine, and the name of the one that {name} gets of systemd"))
                    .because("systemd takes an existing user of that name instead: the app would run with its rights, and share its files")
                    .mended_by("rename that user; or write `user = \"…\"` into the app's file, then `slotctl app add`"),
            );
        }
    }
    found
}

/// Whether a unit is of an app: one of its slots, or what builds, fetches, stages, watches, notifies or hooks for it.
fn of_app(unit: &str, app: &str) -> bool {
    let Some((template, instance)) = unit.split_once('@') else {
        return false;
    };
    let instance = instance
        .rsplit_once('.')
        .map_or(instance, |(instance, _)| instance);
    let errand = ["setup", "fetch", "stage", "hook", "notify", "watch"];
    template == app
        || (instance == app
            && template
                .strip_prefix("slot-")
                .is_some_and(|it| errand.contains(&it)))
}

/// A unit of an app that failed or does not stay up.
fn ended(name: &str, app: &AppFacts, unit: &str, is: &super::UnitFacts) -> Option<Finding> {
    let journal = format!("journalctl -b -u {unit}");
    let active = match &app.state {
        State::Stands(stand) => stand.active.as_ref(),
        _ => None,
    };
    let serves = active.is_some_and(|slot| unit == format!("{name}@{slot}.service"));
    let text = format!("has failed ({})", is.result);
    if is.has_failed() && serves {
        return Some(
            Finding::problem("unit-failed", unit, format!("{text}, and is the active slot"))
                .because("every request of the app is answered 503, and systemd does not start it again by itself")
                .mended_by(format!("`systemctl start {unit}`; if it does not stay up, `slotctl --app {name} rollback`"))
                .told_by(journal),
        );
    }
    let unneeded = match &app.state {
        State::Absent => true,
        State::Stands(stand) => !stand.busy,
        // Whether it is what should serve is not known.
        _ => false,
    };
    if is.has_failed() && unneeded {
        return Some(
            Finding::warning("unit-failed", unit, text)
                .because("nothing needs it now; it is in the way of `systemctl --failed`, where others should be seen")
                .fixed_by(Mend::ResetFailed(unit.to_owned()))
                .told_by(journal),
        );
    }
    if is.has_failed() {
        return Some(
            Finding::warning("unit-failed", unit, text)
                .because("it may be what should serve, or what a deployment is looking at")
                .mended_by(format!(
                    "`sudo slotctl --app {name} status`, which tells what it is for"
                ))
                .told_by(journal),
        );
    }
    is.is_coming_back().then(|| {
        let finding = Finding::problem("unit-looping", unit, format!("ends as soon as it is started ({}, {} times so far)", is.result, is.restarts))
            .because(if serves { "it is the active slot: requests are held, then answered 503" } else { "it does not stay up" })
            .mended_by(format!("see in its journal why it ends, and mend that; `slotctl --app {name} rollback` goes back to the release before, or `rollback --to` to another"))
            .told_by(journal);
        Finding { level: if serves { Level::Problem } else { Level::Warning }, ..finding }
    })
}

/// The states, and the symlinks beside them.
pub(super) fn states(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, app) in &facts.apps {
        let object = format!("/var/lib/slot/{name}/state.json");
        let journal = format!("journalctl -b -u slotd SLOT_APP={name}");
        for path in &app.aside {
            found.push(
                Finding::warning(
                    "state-aside",
                    &path.display().to_string(),
                    "is a state that could not be read, and was kept",
                )
                .because(
                    "what serves was found out otherwise; who looks for the reason has this file",
                )
                .mended_by(format!(
                    "see that `slotctl --app {name} status` names the right slot, then `rm {}`",
                    path.display()
                ))
                .told_by(journal.clone()),
            );
        }
        let linked = app
            .links
            .as_ref()
            .is_ok_and(|links| links.contains_key("live"));
        match &app.state {
            State::Corrupt(why) => found.push(
                lost(
                    facts,
                    name,
                    Finding::problem("state-corrupt", &object, format!("cannot be read: {why}")),
                )
                .told_by(journal),
            ),
            State::Unseen(why) => found.push(Finding::unseen("state", &object, why)),
            State::Absent if linked => found.push(
                lost(
                    facts,
                    name,
                    Finding::problem(
                        "state-missing",
                        &object,
                        "is not there, and the app was deployed",
                    ),
                )
                .told_by(journal),
            ),
            State::Absent => found.push(Finding::ok("state", name, "was never deployed")),
            State::Stands(stand) => {
                let links = links(name, app, stand);
                if links.is_empty() {
                    let live = stand
                        .live
                        .as_deref()
                        .map_or("nothing is live".to_owned(), |live| {
                            format!("release {live} is live")
                        });
                    found.push(Finding::ok(
                        "state",
                        name,
                        format!("{live}, and the symlinks say so"),
                    ));
                }
                found.extend(links);
            }
        }
    }
    found
}

/// A state that the disk does not have. A slotd that runs has it in memory, and only what it does not know any more has to be found out.
fn lost(facts: &Facts, name: &str, finding: Finding) -> Finding {
    let object = &finding.object;
    let see = format!("see why: `journalctl -k` and `df -h {object}` show a broken or a full disk");
    let slotd = facts.units.get("slotd.service");
    match slotd.is_some_and(super::UnitFacts::is_up) {
        true => finding
            .because(
                "what serves goes on, and slotd still knows all that the file had; one that is started anew would not: it would find out what \
                 is active, and not who deployed it, whether it soaks, and what was rolled back",
            )
            .mended_by(format!("`slotctl app reload {name}`, by which slotd writes it anew: before slotd is restarted. Then {see}")),
        false => finding
            .because(
                "what serves goes on; slotd, when it starts, finds out by the table, the units and the symlinks what is active, but not who \
                 deployed it, whether it soaks, and what was rolled back",
            )
            .mended_by(format!("`systemctl start slotd.service`, which keeps aside what cannot be read. Then {see}")),
    }
}

/// What the symlinks name, against the state.
fn links(name: &str, app: &AppFacts, stand: &Stand) -> Vec<Finding> {
    let root = format!("/var/lib/slot/{name}");
    let restart =
        "`systemctl restart slotd.service`, which makes them anew by its state; apps do not notice";
    let links = match &app.links {
        Ok(links) => links,
        Err(why) => return vec![Finding::unseen("link", &root, why)],
    };
    let mut found = Vec::new();
    for (link, is) in links.iter().filter(|(_, is)| !is.there) {
        let object = format!("{root}/{link}");
        let text = format!("names release {}, which is not on disk", is.release);
        let needed = stand.active.as_ref() == Some(link) || link == "live";
        let finding = Finding::problem("link-dangling", &object, text)
            .told_by(format!("journalctl -b -u slotd SLOT_APP={name}"));
        found.push(if needed {
            finding
                .because("what serves cannot be started again once it ends, also not by a reboot")
                .mended_by("deploy that release again now, while it runs: `slotctl deploy`")
        } else {
            Finding {
                level: Level::Warning,
                ..finding
                    .because("a rollback to it is refused")
                    .mended_by("deploy that release again if it is needed")
            }
        });
    }
    if stand.busy {
        return found;
    }
    let active = stand.active.as_deref();
    let expected = [
        ("live", stand.live.as_deref()),
        ("prev", stand.prev.as_deref()),
    ];
    let slot = active.map(|slot| (slot, stand.live.as_deref()));
    for (link, release) in expected.into_iter().chain(slot) {
        let named = links.get(link).map(|is| is.release.as_str());
        if named == release {
            continue;
        }
        let say = |release: Option<&str>| {
            release.map_or("nothing".to_owned(), |id| format!("release {id}"))
        };
        found.push(
            Finding::problem("link-differs", &format!("{root}/{link}"), format!("names {}, and by the app's state it is {}", say(named), say(release)))
                .because("the next start of that slot would run something else than what was deployed; scripts read these symlinks too")
                .mended_by(restart)
                .told_by(format!("journalctl -b -u slotd SLOT_APP={name}")),
        );
    }
    found
}

/// What is on disk and of no use to anybody.
pub(super) fn releases(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, app) in &facts.apps {
        let busy = matches!(&app.state, State::Stands(stand) if stand.busy);
        match &app.unrecorded {
            Err(why) => found.push(Finding::unseen("release", name, why)),
            Ok(unrecorded) if !busy => {
                for path in unrecorded {
                    found.push(
                        Finding::warning("release-unrecorded", &path.display().to_string(), "is among the releases, and has no record")
                            .because("a crash left it half-made, or somebody put it there: it takes room, and nothing starts it")
                            .mended_by("`systemctl restart slotd.service`, which clears what a crash has left; apps do not notice"),
                    );
                }
            }
            Ok(_) => {}
        }
    }
    match &facts.orphans {
        Err(why) => found.push(Finding::unseen("orphan", "/var/lib/slot", why)),
        Ok(orphans) => {
            for (path, size) in orphans {
                let name = path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                found.push(
                    Finding::warning("app-orphan", &path.display().to_string(), format!("is of an app that is not registered, and takes {}", bytes(*size)))
                        .because("`slotctl app remove` leaves releases, so that the app can be had back")
                        .mended_by(format!("`slotctl app remove {name} --purge`, which deletes its data too; or `slotctl app add` in its project")),
                );
            }
        }
    }
    for left in facts
        .leftovers
        .iter()
        .filter(|left| left.age >= LEFT && !left.open)
    {
        let object = left.path.display().to_string();
        found.push(
            Finding::warning(
                "leftover",
                &object,
                "was to take another file's place, and was left by a crash",
            )
            .because("no process has it open; the file that it was to replace is whole")
            .fixed_by(Mend::Remove(left.path.clone())),
        );
    }
    found
}
