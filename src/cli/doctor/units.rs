//! Units as PID 1 knows them, by systemctl(1): as root it asks PID 1 itself, also where the bus is broken.

use std::collections::BTreeMap;
use std::fs;

use super::super::app::{public, systemctl};
use super::super::listeners::{holders, taken_ports};
use crate::config::{App, Bind};
use crate::doctor::{Listener, UnitFacts};

const PROPERTIES: &str = "--property=Id,LoadState,LoadError,ActiveState,SubState,Result,UnitFileState,NeedDaemonReload,NRestarts,\
                          StartLimitIntervalUSec,TriggerLimitIntervalUSec,MainPID";

/// What every machine with slot has, and polkit.
const OWN: [&str; 8] = [
    "slot.slice",
    "slot-inet.socket",
    "slot-inet.service",
    "slotd.socket",
    "slotd-tcp.socket",
    "slotd.service",
    "slot-router@1.service",
    "polkit.service",
];

/// What is done for an app beside running it.
const ERRANDS: [&str; 6] = ["setup", "fetch", "stage", "hook", "notify", "watch"];

/// The socket units by which the public is reached; the first one also where the router's unit cannot be asked.
pub fn sockets() -> Vec<String> {
    let mut sockets = public::sockets().unwrap_or_default();
    let first = "slot-router.socket".to_owned();
    if !sockets.contains(&first) {
        sockets.push(first);
    }
    sockets
}

/// Every unit of slot's, and of these apps.
pub fn units(
    sockets: &[String],
    apps: &BTreeMap<String, Option<&App>>,
) -> anyhow::Result<BTreeMap<String, UnitFacts>> {
    let mut names: Vec<String> = OWN.map(str::to_owned).to_vec();
    names.extend(sockets.iter().cloned());
    names.push("slot-router@*.service".to_owned());
    for (name, app) in apps {
        names.extend(ERRANDS.map(|errand| format!("slot-{errand}@{name}.service")));
        // What still runs of slots that the file does not name any more.
        names.push(format!("{name}@*.service"));
        let Some(app) = app else { continue };
        for slot in &app.slots {
            names.push(format!("{name}@{slot}.service"));
            if app.bind == Bind::Fd {
                names.push(format!("{name}@{slot}.socket"));
            }
        }
        names.extend(crate::units::watch_triggers(app));
    }
    let mut words = vec!["show", PROPERTIES];
    words.extend(names.iter().map(String::as_str));
    Ok(read(&systemctl(&words)?))
}

/// A paragraph of `NAME=value` lines for each unit.
fn read(shown: &str) -> BTreeMap<String, UnitFacts> {
    let paragraphs = shown.split("\n\n").filter_map(|paragraph| {
        let all: BTreeMap<&str, &str> = paragraph
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let value = |name: &str| all.get(name).copied().unwrap_or_default();
        let text = |name: &str| value(name).to_owned();
        let name = text("Id");
        // slotd's own sockets are asked by few, and one that its limit fails comes back with slotd.
        let limit = match name.ends_with(".socket") {
            true if name.starts_with("slotd") => "",
            true => value("TriggerLimitIntervalUSec"),
            false if name.ends_with(".service") => value("StartLimitIntervalUSec"),
            false => "",
        };
        let pid = value("MainPID").parse().unwrap_or(0);
        let unit = UnitFacts {
            load: text("LoadState"),
            // `org.freedesktop.systemd1.BadUnitSetting "Unit web@blue.service has a bad unit file setting."`
            load_error: value("LoadError")
                .split('"')
                .nth(1)
                .unwrap_or_default()
                .to_owned(),
            active: text("ActiveState"),
            sub: text("SubState"),
            result: text("Result"),
            installed: text("UnitFileState"),
            stale: value("NeedDaemonReload") == "yes",
            restarts: value("NRestarts").parse().unwrap_or(0),
            limited: !matches!(limit, "" | "0"),
            pid,
            replaced: replaced(&name, pid),
        };
        (!name.is_empty()).then_some((name, unit))
    });
    paragraphs.collect()
}

/// Whether a process of slot's own runs a program that is not on disk any more (proc(5), `/proc/pid/exe`).
fn replaced(name: &str, pid: u32) -> Option<bool> {
    if pid == 0
        || !(name == "slotd.service"
            || name == "slot-inet.service"
            || name.starts_with("slot-router@"))
    {
        return None;
    }
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(program.to_string_lossy().ends_with(" (deleted)"))
}

/// Where a public socket listens, by its unit.
pub fn listeners(sockets: &[String]) -> BTreeMap<String, Vec<Listener>> {
    let taken = taken_ports();
    let of = |name: &String| {
        let listen = systemctl(&["show", "--property=Listen", "--value", name]).unwrap_or_default();
        let mut ports: Vec<u16> = public::ports(&listen).collect();
        ports.sort_unstable();
        ports.dedup();
        let listeners = ports.into_iter().map(|port| {
            let listened = taken.contains(&port);
            let holders = if listened { holders(port) } else { Vec::new() };
            let mut units = holders.iter().filter_map(|holder| holder.unit.clone());
            Listener {
                port,
                listened,
                router: units.find(|unit| unit.starts_with("slot-router@")),
                holders: holders.iter().map(ToString::to_string).collect(),
            }
        });
        (name.clone(), listeners.collect())
    };
    sockets.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_read() {
        let shown = "Id=slotd.service\nLoadState=loaded\nLoadError=\nActiveState=active\nSubState=running\nResult=success\n\
                     NeedDaemonReload=yes\nNRestarts=3\nStartLimitIntervalUSec=10s\nMainPID=0\n\n\
                     Id=slotd.socket\nLoadState=loaded\nTriggerLimitIntervalUSec=2s\nStartLimitIntervalUSec=10s\n\n\
                     Id=a@b.service\nLoadState=bad-setting\nLoadError=org.x.BadUnitSetting \"Unit a@b.service is bad.\"\n\
                     StartLimitIntervalUSec=0\n";
        let units = read(shown);
        let slotd = &units["slotd.service"];
        assert!(slotd.stale && slotd.limited && slotd.is_up() && slotd.restarts == 3);
        assert!(!units["slotd.socket"].limited);
        assert_eq!(units["a@b.service"].load_error, "Unit a@b.service is bad.");
        assert!(!units["a@b.service"].limited);
        assert_eq!(read(""), BTreeMap::new());
    }
}
