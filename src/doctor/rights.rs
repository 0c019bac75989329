//! Who may do what: polkit and the bus, by whose leave slotd starts units, and owners and modes of what is on disk.

use std::collections::BTreeMap;

use super::facts::{Account, AppFacts, Facts, Kind, Owned, Place};
use super::finding::{Finding, Mend};
use super::units::REINSTALL;

/// polkit's unit, on every distribution.
const POLKIT: &str = "polkit.service";

pub(super) fn polkit(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(daemon(facts));
    let why = "slotd, which is not root, may start and stop no unit: every deployment fails";
    if facts.rights.rule == Ok(false) {
        found.push(
            Finding::problem(
                "polkit-rule",
                "/usr/share/polkit-1/rules.d/60-slot.rules",
                "is not there",
            )
            .because("slotd may exchange no router, and start no build, fetch, hook or notice")
            .mended_by(REINSTALL),
        );
    }
    if !facts.rights.bus {
        let freezes = facts
            .apps
            .values()
            .filter_map(|app| app.app.as_ref().ok())
            .find(|app| app.after.frozen);
        let finding = |level| {
            Finding {
            level,
            ..Finding::warning("bus-policy", "/usr/share/dbus-1/system.d/slot.conf", "is not there")
                .because(match freezes {
                    Some(app) => format!("the bus lets slotd freeze nothing, and {} has keep_warm_frozen: its old slot is kept running", app.name),
                    None => "the bus lets slotd freeze nothing: an app with keep_warm_frozen would be kept running".to_owned(),
                })
                .mended_by(REINSTALL)
        }
        };
        found.push(finding(if freezes.is_some() {
            super::Level::Problem
        } else {
            super::Level::Warning
        }));
    }
    for (name, account) in &facts.rights.missing {
        let kind = match account {
            Account::User => "user",
            Account::Group => "group",
        };
        found.push(
            Finding::problem(
                "user-missing",
                name,
                format!("is no {kind} of this machine, and slot's units name it"),
            )
            .because("units that name it do not start")
            .mended_by(made_again(name)),
        );
    }
    let mut right = found.is_empty() && facts.rights.rule.is_ok();
    for (name, app) in &facts.apps {
        let rule = rule(name, app, why);
        right = right && rule.is_none() && app.rule.found.is_ok();
        found.extend(rule);
    }
    if !facts.root {
        found.push(Finding::unseen(
            "polkit-app-rule",
            "/etc/polkit-1/rules.d",
            "only root and polkit may look at rules: use sudo",
        ));
    } else if right {
        found.push(Finding::ok(
            "polkit",
            "polkit",
            "lets slotd start and stop slot's units, and no others",
        ));
    }
    for (name, path) in facts.rights.orphans.iter().flatten() {
        found.push(
            Finding::problem("polkit-orphan", &path.display().to_string(), format!("lets slotd start units of {name}, and /etc/slot/apps/{name}.toml is gone"))
                .because("what runs of it cannot be deployed, and a rule should not outlive what it is for")
                .mended_by(format!("`slotctl app remove {name}` removes the rest, `slotctl app add` in its project makes it anew")),
        );
    }
    found
}

/// How a user or a group comes to be there again: its own package's file says what it is (sysusers.d(5)). Who runs keeps the numbers that
/// it was started with, and a new user may have another number than the old one.
fn made_again(name: &str) -> String {
    let restart = "`systemctl try-restart slotd.service`";
    match name {
        // It is systemd's.
        "systemd-journal" => format!("`systemd-sysusers`, then {restart}"),
        // slotd asks for it, and owns nothing by it.
        "slot-observers" => format!("`systemd-sysusers slot.conf`, then {restart}"),
        _ => format!(
            "`systemd-sysusers slot.conf`, `systemd-tmpfiles --create slot.conf`, then {restart} and `slotctl router upgrade`; `slotctl \
             doctor` names what still belongs to an old number"
        ),
    }
}

/// polkit itself: it is started when it is first asked.
fn daemon(facts: &Facts) -> Option<Finding> {
    let why = "systemd takes orders from root alone then: slotd may start and stop no unit, and every deployment fails";
    let unit = facts.units.get(POLKIT)?;
    let problem = |text: &str, remedy: &str| {
        let finding = Finding::problem("polkit-daemon", POLKIT, text)
            .because(why)
            .mended_by(remedy);
        Some(finding.told_by(format!("journalctl -b -u {POLKIT}")))
    };
    match (unit.load.as_str(), unit.active.as_str()) {
        ("not-found", _) => problem(
            "is not installed",
            "`apt install polkitd` (`dnf install polkit`)",
        ),
        ("masked", _) => problem(
            "is masked, so that nothing can start it",
            "`systemctl unmask polkit.service`",
        ),
        ("loaded", "failed") => problem(
            "has failed",
            "`systemctl reset-failed polkit.service`, then `systemctl start polkit.service`",
        ),
        ("loaded", _) => None,
        _ => problem(
            "cannot be loaded",
            "`systemd-analyze verify polkit.service` names the line",
        ),
    }
}

/// An app's own rule.
fn rule(name: &str, app: &AppFacts, why: &str) -> Option<Finding> {
    let object = app.rule.path.display().to_string();
    let again = format!(
        "`slotctl app add {}`, which writes it anew",
        app.file.display()
    );
    let problem = |text: &str| {
        let finding = Finding::problem("polkit-app-rule", &object, text).because(why);
        Some(finding.mended_by(&again).told_by("journalctl -b -u polkit"))
    };
    match app.rule.found.as_ref().ok()? {
        None => problem(&format!("is not there: polkit lets slotd start no unit of {name}")),
        Some(found) if !app.rule.made.is_empty() && *found != app.rule.made => problem(&format!(
            "is not the one for {} as it is now: a slot that was added may not be started",
            app.file.display()
        )),
        Some(_) if app.may_start == Some(false) => Some(
            Finding::problem("polkit-refuses", &format!("{name}@"), "may not be started by slotd, although slot's rules say so")
                .because("another rule of /etc/polkit-1/rules.d comes before them, or polkit has not read them")
                .mended_by("`systemctl restart polkit.service`; then look for a rule there that answers `manage-units` for everybody")
                .told_by("journalctl -b -u polkit"),
        ),
        Some(_) => None,
    }
}

/// Owners and modes.
pub(super) fn places(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unseen: Option<&str> = None;
    for place in &facts.places {
        match &place.found {
            Ok(owned) => {
                // What is of a number without a name is named once that name is there again.
                let is_nobodys = owned.is_some() && is_of(place.kind, &facts.rights.missing);
                found.extend(judged(place, owned.as_ref()).filter(|_| !is_nobodys));
            }
            Err(why) => unseen = Some(why),
        }
    }
    if let Some(why) = unseen {
        found.push(Finding::unseen("permission", "owners and modes", why));
    } else if found.is_empty() {
        let many = facts.places.len();
        found.push(Finding::ok(
            "permission",
            "owners and modes",
            format!("{many} paths are whose they should be"),
        ));
    }
    found
}

/// Whether a path should be of a user or of a group that there is not.
fn is_of(kind: Kind, missing: &BTreeMap<String, Account>) -> bool {
    let owners = match kind {
        Kind::Made(user, group, _) => [user, group],
        Kind::OfApp | Kind::Slotd => ["slot", "slot"],
        Kind::Symlink(_) | Kind::Settings | Kind::Secret | Kind::Above => return false,
    };
    owners.iter().any(|owner| missing.contains_key(*owner))
}

fn judged(place: &Place, found: Option<&Owned>) -> Option<Finding> {
    let object = place.path.display().to_string();
    let Some(owned) = found else {
        return match place.kind {
            Kind::Made(..) => Some(
                Finding::problem("place-missing", &object, "is not there")
                    .because(
                        "units of slot need it, and do not start or cannot be reached without it",
                    )
                    .fixed_by(Mend::Directories),
            ),
            Kind::Symlink(to) => Some(
                Finding::problem(
                    "place-missing",
                    &object,
                    format!("is not the symlink to {to} that it should be"),
                )
                .because("a router that starts reads its table there")
                .fixed_by(Mend::Directories),
            ),
            Kind::OfApp => Some(
                Finding::problem("place-missing", &object, "is not there")
                    .because(
                        "it is where the app's releases and its state are: nothing can be deployed",
                    )
                    .mended_by("`slotctl app add` in the app's project makes it anew"),
            ),
            Kind::Secret => Some(
                Finding::problem(
                    "secret-missing",
                    &object,
                    "is not there, and a file of /etc/slot/apps names it",
                )
                .because("a unit that needs it does not start")
                .mended_by(format!(
                    "`install -m 0600 FILE {object}`, or take the key out of the app's file"
                )),
            ),
            Kind::Settings | Kind::Above | Kind::Slotd => None,
        };
    };
    let is = format!("is {}:{} {:04o}", owned.user, owned.group, owned.mode);
    let others_write = owned.mode & 0o022 != 0 || owned.user != "root";
    match place.kind {
        Kind::Made(user, group, mode) => ((&*owned.user, &*owned.group, owned.mode) != (user, group, mode)).then(|| {
            Finding::problem("place-rights", &object, format!("{is}, and should be {user}:{group} {mode:04o}"))
                .because("PID 1, slotd and the routers rely on who may write there")
                .fixed_by(Mend::Directories)
        }),
        Kind::OfApp => ((&*owned.user, &*owned.group, owned.mode) != ("root", "slot", 0o1775)).then(|| {
            Finding::problem("place-rights", &object, format!("{is}, and should be root:slot 1775"))
                .because("slotd writes there, and must not be able to put another directory in its place")
                .mended_by(format!("`chown root:slot {object}`, then `chmod 1775 {object}`"))
        }),
        Kind::Settings => others_write.then(|| {
            Finding::problem("settings-open", &object, format!("{is}: others than root can change it"))
                .because("whoever can, decides what runs here, and as whom")
                .mended_by(format!("`chown root:root {object}`, then `chmod go-w {object}`"))
        }),
        Kind::Secret => (owned.mode & 0o077 != 0 || owned.user != "root").then(|| {
            Finding::warning("secret-open", &object, format!("{is}: others than root can read it"))
                .because("it is a secret, which systemd reads for the one unit that needs it")
                .mended_by(format!("`chown root:root {object}`, then `chmod 0600 {object}`; and another secret, if it may have been read"))
        }),
        Kind::Symlink(_) => None,
        // A sticky directory, such as /tmp, lets nobody exchange what is root's.
        Kind::Above => (others_write && owned.mode & 0o1000 == 0).then(|| {
            Finding::warning("secret-exchangeable", &object, format!("{is}, and a secret is below it"))
                .because("whoever can put another file in its place could have systemd read a file of root's for him")
                .mended_by(format!("`chown root:root {object}`, then `chmod go-w {object}`"))
        }),
        Kind::Slotd => (owned.user != "slot").then(|| {
            Finding::problem("state-foreign", &object, format!("{is}, and slotd writes it"))
                .because("it was written by somebody else, perhaps in a restore: slotd cannot replace it")
                .mended_by(format!("`chown -h slot:slot {object}`, then `systemctl restart slotd.service`"))
        }),
    }
}
