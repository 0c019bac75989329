//! Sockets and ports: that PID 1 holds the public ones, and that nobody else has those of apps.

use std::collections::BTreeMap;

use super::facts::{Facts, Listener};
use super::finding::Finding;
use crate::config::Bind;

pub(super) fn sockets(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let in_use = !facts.apps.is_empty();
    found.extend(own(facts, in_use));
    for (name, listeners) in &facts.listeners {
        let Some(unit) = facts.units.get(name).filter(|unit| unit.is_loaded()) else {
            continue;
        };
        if !unit.is_up() && !in_use {
            found.push(Finding::ok(
                "socket",
                name,
                "is not in use yet: no app is registered",
            ));
            continue;
        }
        for listener in listeners {
            found.push(public(name, listener, unit.is_up()));
        }
    }
    found
}

/// The sockets by which slotd is reached, and by which it reaches apps.
fn own(facts: &Facts, in_use: bool) -> Vec<Finding> {
    let (api, inet) = (
        "slotctl and scripts cannot reach slotd",
        "slotd has no sockets to ask apps for their health with: a deployment waits, and nothing is seen of an app that does not answer",
    );
    let restarted = "slotd is restarted with it, apps and routers do not notice";
    let on_its_own = "slotd goes on by itself";
    let sockets = [
        (
            "slotd.socket",
            "slotd.sock",
            facts.api,
            api,
            restarted,
            "enable --now slotd.socket slotd.service",
        ),
        (
            "slot-inet.socket",
            "inet.sock",
            facts.inet,
            inet,
            on_its_own,
            "start slot-inet.socket",
        ),
    ];
    let mut found = Vec::new();
    for (name, file, is_there, consequence, after, start) in sockets {
        let unit = facts.units.get(name).filter(|unit| unit.is_loaded());
        let Some(unit) = unit else { continue };
        if unit.is_up() && !is_there {
            found.push(
                Finding::problem(
                    "socket-gone",
                    name,
                    format!("listens, and /run/slot/{file} is not there any more"),
                )
                .because(format!("somebody has removed the file: {consequence}"))
                .mended_by(format!("`systemctl restart {name}`: {after}")),
            );
        } else if !unit.is_up() && in_use && unit.active != "failed" {
            found.push(
                Finding::problem("socket-down", name, "does not listen")
                    .because(consequence)
                    .mended_by(format!("`systemctl {start}`")),
            );
        }
    }
    found
}

/// One address of a public socket.
fn public(name: &str, listener: &Listener, up: bool) -> Finding {
    let port = listener.port;
    let journal = format!("journalctl -b -u {name}");
    match (up, &listener.router) {
        (true, _) if listener.listened => {
            Finding::ok("socket", name, format!("systemd holds port {port}"))
        }
        (true, _) => Finding::problem("socket-silent", name, format!("is active, and nobody listens on port {port}"))
            .because("clients are refused")
            .mended_by(format!("`systemctl restart {name}`: what is in flight ends within 30 seconds"))
            .told_by(journal),
        (false, Some(router)) => Finding::problem(
            "socket-stranded",
            name,
            format!("does not listen, while {router} serves port {port} with the socket that it was given"),
        )
        .because("as soon as that instance ends, clients are refused; no other can take over")
        .mended_by(format!(
            "`systemctl restart {name}` gives both a new one: what is in flight may end first, for 30 seconds at most, and for a moment nobody listens"
        ))
        .told_by(journal),
        (false, None) if !listener.holders.is_empty() => Finding::problem(
            "socket-taken",
            name,
            format!("does not listen: port {port} is taken by {}", listener.holders.join(", ")),
        )
        .because("no client reaches an app")
        .mended_by(format!(
            "stop that server, then `systemctl enable --now {name}`; or let slot listen elsewhere: `systemctl edit {name}`, with an empty `ListenStream=` and then your own"
        ))
        .told_by(journal),
        (false, None) => Finding::problem("socket-down", name, format!("does not listen on port {port}"))
            .because("clients are refused")
            .mended_by(format!("`systemctl enable --now {name}`"))
            .told_by(journal),
    }
}

/// The ports of apps: each has one slot, and nobody else.
pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    let mut owners: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (name, app) in &facts.apps {
        let Some(app) = app.app.as_ref().ok().filter(|app| app.bind == Bind::Port) else {
            continue;
        };
        for (slot, ports) in &app.ports {
            let unit = format!("{name}@{slot}.service");
            owners.entry(ports.port).or_default().push(unit.clone());
            if ports.internal != ports.port {
                owners.entry(ports.internal).or_default().push(unit);
            }
        }
    }
    let mut found = Vec::new();
    for (port, units) in &owners {
        let object = format!("port {port}");
        if let [one, other, ..] = units.as_slice() {
            found.push(
                Finding::problem("port-shared", &object, format!("is of {one} and of {other}"))
                    .because("only one of them can listen there: a deployment of the other fails")
                    .mended_by("another number under [ports] in one of the files of /etc/slot/apps, then `slotctl app add FILE`"),
            );
            continue;
        }
        let Some((held, unit)) = facts.ports.get(port).zip(units.first()) else {
            continue;
        };
        let runs = facts.units.get(unit).is_some_and(|unit| unit.pid != 0);
        let is_own = held.units.contains(unit);
        if is_own {
            continue;
        }
        if held.who.is_empty() && runs {
            // Most likely the slot itself; without root it cannot be told.
            continue;
        }
        let who = match held.who.as_slice() {
            [] => "a process that only root can see".to_owned(),
            who => who.join(", "),
        };
        found.push(
            Finding::problem("port-taken", &object, format!("is {unit}'s, and taken by {who}"))
                .because("that slot cannot listen there: a deployment into it is refused")
                .mended_by(format!(
                    "end what has it (`ss -ltnp 'sport = :{port}'` shows it), or write another number under [ports] in the app's file, then `slotctl app add FILE`"
                )),
        );
    }
    if found.is_empty() && !owners.is_empty() {
        let many = owners.len();
        found.push(Finding::ok(
            "port",
            "ports",
            format!("the {many} ports of apps are free or their slots'"),
        ));
    }
    found
}
