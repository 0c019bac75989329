//! Units: that PID 1 has them, as their files are now, and that those run that should.

use super::facts::{Facts, Slotd, UnitFacts};
use super::finding::{Finding, Mend};
use crate::wire::api::{Apps, Status};

/// The oldest systemd that slot is for (Debian 12's).
const OLDEST: u32 = 252;

/// What has to be enabled for apps to be there again after a reboot.
const ENABLED: [&str; 2] = ["slotd.socket", "slotd.service"];

/// What brings back what belongs to the package.
pub(super) const REINSTALL: &str =
    "install the package again: `apt install --reinstall` or `dnf reinstall` of its file";

pub(super) fn systemd(facts: &Facts) -> Vec<Finding> {
    let (check, object) = ("systemd", "systemd");
    vec![match &facts.systemd {
        Err(why) => Finding::unseen(check, object, why),
        Ok(version) if *version < OLDEST => Finding::problem(
            check,
            object,
            format!("is version {version}, and slot needs {OLDEST} or later"),
        )
        .because("units of slot use settings that it does not know")
        .mended_by(
            "a newer release of this distribution: Debian 12, Ubuntu 23.04 and Fedora 37 have one",
        ),
        Ok(version) => Finding::ok(check, object, format!("version {version}")),
    }]
}

/// slot's own units: installed, read, not failed.
pub(super) fn own(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let own = facts.units.iter().filter(|(name, _)| is_own(name));
    for (name, unit) in own {
        let faults = faults(facts, name, unit, REINSTALL);
        if faults.is_empty() && unit.is_up() {
            found.push(Finding::ok(
                "unit",
                name,
                format!("{} ({})", unit.active, unit.sub),
            ));
        }
        found.extend(faults);
        found.extend(ended(name, unit));
        if !drains(facts, name) {
            found.extend(replaced(name, unit));
        }
        found.extend(disabled(facts, name, unit));
    }
    found
}

/// Whether it is one of the units that every machine with slot has.
fn is_own(name: &str) -> bool {
    ["slotd.", "slot-router", "slot-inet."]
        .iter()
        .any(|begin| name.starts_with(begin))
        || name == "slot.slice"
}

/// What is wrong with a unit's files. A unit that cannot be loaded has no other faults.
pub(super) fn faults(facts: &Facts, name: &str, unit: &UnitFacts, missing: &str) -> Vec<Finding> {
    let verify = format!("systemd-analyze verify {name}");
    match unit.load.as_str() {
        "not-found" => {
            return vec![
                Finding::problem("unit-missing", name, "is not installed")
                    .because(
                        "nothing can start it; and a name that slotd may start and that has no unit could be made up by whoever became slotd's user",
                    )
                    .mended_by(missing),
            ];
        }
        "masked" => {
            return vec![
                Finding::problem(
                    "unit-masked",
                    name,
                    "is masked, so that nothing can start it",
                )
                .because("somebody has run `systemctl mask`, or an empty file is in its place")
                .mended_by(format!("`systemctl unmask {name}`")),
            ];
        }
        "bad-setting" | "error" => {
            let why = match unit.load_error.as_str() {
                "" => "a setting that it needs is wrong",
                why => why,
            };
            return vec![
                Finding::problem("unit-broken", name, format!("cannot be loaded: {why}"))
                    .because("systemd does not start it again once it ends")
                    .mended_by(format!(
                        "`{verify}` names the line; a drop-in in /etc/systemd/system/{name}.d that is wrong can be taken away with `systemctl revert {name}`"
                    )),
            ];
        }
        _ => {}
    }
    let mut found = Vec::new();
    if unit.stale {
        found.push(reloaded(
            facts,
            Finding::warning("unit-stale", name, "has files that are newer than what systemd has read of them")
                .because("it runs, and is started again, by what they said before; a deployment of an app whose units are so is refused"),
        ));
    }
    if unit.limited {
        found.push(
            Finding::warning("unit-start-limit", name, "has a limit on how often it is started")
                .because(if name.ends_with(".socket") {
                    "an app or a router that crashes fast would fail the socket, and clients would be refused"
                } else {
                    "after a few fast crashes systemd would not start it again"
                })
                .mended_by(format!(
                    "`systemctl edit {name}`: {}",
                    if name.ends_with(".socket") {
                        "[Socket] TriggerLimitIntervalSec=0"
                    } else {
                        "[Unit] StartLimitIntervalSec=0"
                    }
                )),
        );
    }
    found
}

/// A finding that a daemon-reload mends. It is not safe while an app's file is wrong: the units of that app, which are good ones, would
/// be exchanged for some that do not start.
pub(super) fn reloaded(facts: &Facts, finding: Finding) -> Finding {
    let wrong = facts.apps.values().find(|app| app.app.is_err());
    match wrong {
        None => finding.fixed_by(Mend::Reload),
        Some(app) => finding.mended_by(format!(
            "first make {} right, then `systemctl daemon-reload`",
            app.file.display()
        )),
    }
}

/// A unit that failed, or is started again and again.
fn ended(name: &str, unit: &UnitFacts) -> Option<Finding> {
    let journal = format!("journalctl -b -u {name}");
    if unit.has_failed() {
        let text = format!("has failed ({})", unit.result);
        let start = format!("`systemctl reset-failed {name}`, then `systemctl start {name}`");
        let finding = Finding::problem("unit-failed", name, text).told_by(journal);
        let is_router = name.starts_with("slot-router@");
        return Some(match (unit.result.as_str(), is_router) {
            ("start-limit-hit" | "trigger-limit-hit" | "service-start-limit-hit", _) => finding
                .because("it ended so often in a short time that systemd does not start it again")
                .mended_by(start),
            // The next connection starts an instance, and slotd sees to the rest.
            (_, true) => Finding {
                level: super::Level::Warning,
                ..finding
                    .because("an instance of the router that nothing needs now")
                    .fixed_by(Mend::ResetFailed(name.to_owned()))
            },
            _ => finding
                .because("nothing of what it is for is done")
                .mended_by(start),
        });
    }
    unit.is_coming_back().then(|| {
        Finding::problem(
            "unit-looping",
            name,
            format!(
                "ends as soon as it is started ({}, {} times so far)",
                unit.result, unit.restarts
            ),
        )
        .because("systemd starts it again and again, and it does not stay up")
        .mended_by("see in its journal why it ends, and mend that; systemd goes on by itself")
        .told_by(journal.clone())
    })
}

/// A process whose program was exchanged under it.
fn replaced(name: &str, unit: &UnitFacts) -> Option<Finding> {
    (unit.replaced == Some(true)).then(|| {
        let remedy = if name.starts_with("slot-router@") {
            "`slotctl router upgrade`: another instance takes over, and nobody is cut".to_owned()
        } else {
            format!("`systemctl restart {name}`: apps and routers do not notice")
        };
        Finding::warning(
            "unit-replaced",
            name,
            "runs a program that has been replaced on disk",
        )
        .because("a newer version is installed, and the one before still runs")
        .mended_by(remedy)
    })
}

/// Whether it is an instance of the router that ends what it has, after an upgrade for instance.
fn drains(facts: &Facts, name: &str) -> bool {
    let number = name
        .strip_prefix("slot-router@")
        .and_then(|name| name.strip_suffix(".service"));
    let told = facts
        .routers
        .as_ref()
        .ok()
        .zip(number)
        .and_then(|(told, number)| told.get(number));
    matches!(told, Some(Ok(stats)) if !stats.accepting)
}

/// What would not come back after a reboot.
fn disabled(facts: &Facts, name: &str, unit: &UnitFacts) -> Option<Finding> {
    let needed = ENABLED.contains(&name) || facts.listeners.contains_key(name);
    let in_use = !facts.apps.is_empty() && unit.is_loaded();
    (needed && in_use && unit.installed == "disabled").then(|| {
        Finding::warning("unit-disabled", name, "is not enabled")
            .because(
                "apps are registered, and after a reboot of the machine they would not be there",
            )
            .mended_by(format!("`systemctl enable {name}`"))
    })
}

/// slotd: that it runs, and answers, and what it has to say.
pub(super) fn slotd(facts: &Facts) -> Vec<Finding> {
    let name = "slotd.service";
    let journal = "journalctl -b -u slotd";
    let Some(unit) = facts.units.get(name).filter(|unit| unit.is_loaded()) else {
        return Vec::new();
    };
    if !unit.is_up() && facts.apps.is_empty() && unit.active == "inactive" {
        return vec![Finding::ok(
            "slotd",
            name,
            "is not in use yet: no app is registered",
        )];
    }
    // It was said above that it does not stay up.
    if unit.is_coming_back() {
        return Vec::new();
    }
    if unit.active == "inactive" || unit.active == "deactivating" {
        return vec![
            Finding::problem("slotd-down", name, "does not run")
                .because(
                    "apps serve on, but nothing can be deployed, an app that was stopped or crashes for good is not seen, and nobody is told",
                )
                .mended_by("`systemctl enable --now slotd.socket slotd.service`")
                .told_by(journal),
        ];
    }
    match &facts.slotd {
        // It was said above that its unit has failed.
        Slotd::Down => Vec::new(),
        Slotd::Forbidden => vec![Finding::unseen(
            "slotd",
            name,
            "slotd tells root and members of the groups slot and slot-observers only: use sudo",
        )],
        Slotd::Silent(why) => vec![
            Finding::problem("slotd-silent", name, format!("runs and does not answer: {why}"))
                .because("nothing can be deployed; after 30 seconds without a sign of life systemd starts it anew by itself")
                .mended_by("`systemctl restart slotd.service`: apps and routers do not notice, and a deployment goes on")
                .told_by(journal),
        ],
        Slotd::Says(says) => {
            let many = says.apps.len();
            let mut found = vec![Finding::ok("slotd", name, format!("answers, and manages {many} app{}", if many == 1 { "" } else { "s" }))];
            found.extend(broken(facts, says));
            for status in &says.apps {
                found.extend(standing(facts, status));
            }
            found
        }
    }
}

/// Apps that slotd cannot manage. Of those whose file is wrong the file itself is the finding.
fn broken<'a>(facts: &'a Facts, says: &'a Apps) -> impl Iterator<Item = Finding> + 'a {
    let is_known = |name: &str| facts.apps.get(name).is_some_and(|app| app.app.is_err());
    let broken = says.broken.iter().filter(move |(name, _)| !is_known(name));
    broken.map(|(name, why)| {
        Finding::problem("app-broken", name, format!("cannot be managed: {why}"))
            .because("what runs of it goes on, and nothing can be deployed")
            .mended_by(format!("do what the sentence says; `slotctl --app {name} status` shows whether that was all"))
            .told_by(format!("journalctl -b -u slotd SLOT_APP={name}"))
    })
}

/// Whether what slotd warns of was looked at here, so that it is a finding of its own, or is over: slotd remembers some of it until it
/// starts anew.
fn is_looked_at(facts: &Facts, topic: &str) -> bool {
    let routers = facts.routers.iter().flatten();
    let mut routers = routers.map(|(_, told)| told);
    match topic {
        // What was kept aside is there, or was removed since; units that systemd has not read are findings of their own.
        "state-corrupt" | "file" | "units-apart" => true,
        "router" => facts.routers.is_ok(),
        // The table is not everywhere because an instance does not take it.
        "table" => routers.any(Result::is_err),
        _ => false,
    }
}

/// What slotd itself knows to be wrong with an app.
fn standing(facts: &Facts, status: &Status) -> Vec<Finding> {
    let app = &status.app;
    let mut found = Vec::new();
    let active = status
        .slots
        .iter()
        .filter(|slot| slot.condition == "active");
    for slot in active {
        let unit = &slot.unit;
        let detail = slot.detail.as_deref().unwrap_or_default();
        let journal = format!("journalctl -b -u {unit}");
        if detail == "stopped-by-hand" {
            found.push(
                Finding::problem("app-stopped", unit, "was stopped by hand, and is the active slot")
                    .because("slot does not start what an administrator has stopped: every request is answered 503")
                    .mended_by(format!("`systemctl start {unit}`; or `slotctl app remove {app}`, if it is not to serve any more"))
                    .told_by(journal),
            );
        } else if let Some(why) = detail.strip_prefix("down: ") {
            found.push(
                Finding::problem("app-down", unit, format!("is down, and is the active slot: {why}"))
                    .because("requests are held for some seconds, then answered 503; systemd starts it again, and it has to be healthy")
                    .mended_by(format!("see in its journal why; `slotctl --app {app} rollback` goes back to the release before, or `rollback --to` to another"))
                    .told_by(journal),
            );
        }
    }
    let told = status.warned();
    for (_, text) in told.filter(|(topic, _)| !is_looked_at(facts, topic)) {
        found.push(
            Finding::warning("app-warning", app, format!("slotd says: {text}"))
                .mended_by(format!("do what the sentence says; `slotctl --app {app} status` shows whether that was all"))
                .told_by(format!("journalctl -b -u slotd SLOT_APP={app}")),
        );
    }
    if let Some(hold) = &status.hold {
        found.push(Finding::ok(
            "hold",
            app,
            format!("{hold}; `slotctl unhold` takes it back"),
        ));
    }
    found
}
