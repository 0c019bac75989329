//! Ports for an app's slots, from those that nobody has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::super::exit::Exit;
use super::super::listeners::{holders, taken_ports};
use crate::config::{App, Bind, Ports};
use crate::deploy::{AppName, SlotName};

/// Where the search begins: below the ports that the kernel gives to clients (ip(7), `ip_local_port_range`).
const FIRST: u16 = 20_001;

/// A port for each slot that has none.
///
/// # Errors
/// If a port that the file names is in use, or no port is free.
pub fn choose(
    app: &App,
    name: &AppName,
    file: &str,
    installed: Option<&App>,
) -> anyhow::Result<BTreeMap<SlotName, Ports>> {
    let mut chosen = BTreeMap::new();
    if app.bind != Bind::Port {
        return Ok(chosen);
    }
    let reserved = reserved(Path::new(super::APPS), name);
    let listened = taken_ports();
    // A slot of this app that runs listens on its own port.
    let ours: BTreeSet<u16> = installed
        .iter()
        .flat_map(|app| app.ports.values())
        .flat_map(numbers)
        .collect();
    for (slot, ports) in &app.ports {
        for port in numbers(ports) {
            check(
                port,
                slot,
                file,
                &reserved,
                listened.contains(&port) && !ours.contains(&port),
            )?;
        }
    }
    let mut used: BTreeSet<u16> = app.ports.values().flat_map(numbers).collect();
    for slot in app
        .slots
        .iter()
        .filter(|slot| !app.ports.contains_key(slot))
    {
        if let Some(ports) = installed.and_then(|app| app.ports.get(slot))
            && numbers(ports).all(|port| !used.contains(&port))
        {
            used.extend(numbers(ports));
            chosen.insert(slot.clone(), *ports);
            continue;
        }
        let free = |port: &u16| {
            !used.contains(port)
                && !ours.contains(port)
                && !reserved.contains_key(port)
                && !listened.contains(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        };
        let port = (FIRST..u16::MAX).find(free).ok_or_else(|| {
            Exit::Input.because(format!(
                "{file}: no port from {FIRST} up is free for slot {slot}"
            ))
        })?;
        used.insert(port);
        chosen.insert(
            slot.clone(),
            Ports {
                port,
                internal: port,
            },
        );
    }
    Ok(chosen)
}

fn check(
    port: u16,
    slot: &SlotName,
    file: &str,
    reserved: &BTreeMap<u16, String>,
    listened: bool,
) -> anyhow::Result<()> {
    let remedy = "write a port that nobody has, or remove the line: a free one is chosen";
    if let Some(other) = reserved.get(&port) {
        return Err(Exit::Input.because(format!(
            "{file}: ports.{slot}: port {port} is that of app {other}; {remedy}"
        )));
    }
    if listened {
        let who: Vec<String> = holders(port).iter().map(ToString::to_string).collect();
        let who = if who.is_empty() {
            "another process".to_owned()
        } else {
            who.join(", ")
        };
        return Err(Exit::Input.because(format!(
            "{file}: ports.{slot}: {who} listens on port {port}; {remedy}"
        )));
    }
    Ok(())
}

fn numbers(ports: &Ports) -> impl Iterator<Item = u16> + use<> {
    [ports.port, ports.internal].into_iter()
}

/// The ports of all other apps, whether they run or not.
fn reserved(apps: &Path, except: &AppName) -> BTreeMap<u16, String> {
    let mut reserved = BTreeMap::new();
    let Ok(files) = fs::read_dir(apps) else {
        return reserved;
    };
    for file in files.flatten().map(|entry| entry.path()) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let Ok(app) = App::parse(&text, &file.display().to_string()) else {
            continue;
        };
        if app.name != *except {
            for port in app.ports.values().flat_map(numbers) {
                reserved.insert(port, app.name.to_string());
            }
        }
    }
    reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_apps_keep_their_ports_even_when_they_do_not_run() {
        let apps = tempfile::tempdir().unwrap();
        let text = "name = \"shop\"\ncommand = \"./server\"\n[ports]\nblue = { port = 20001, internal = 20002 }\n";
        fs::write(apps.path().join("shop.toml"), text).unwrap();
        fs::write(apps.path().join("broken.toml"), "name =").unwrap();
        let found = reserved(apps.path(), &"web".parse().unwrap());
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [20_001, 20_002]);
        assert!(reserved(apps.path(), &"shop".parse().unwrap()).is_empty());
    }

    #[test]
    fn an_app_that_is_added_again_keeps_its_ports() {
        let text = "name = \"web\"\ncommand = \"./server\"\n";
        let app = App::parse(text, "slot.toml").unwrap();
        let first = choose(&app, &app.name, "slot.toml", None).unwrap();
        assert_eq!(first.len(), 2);
        let installed = App {
            ports: first.clone(),
            ..app.clone()
        };
        assert_eq!(
            choose(&app, &app.name, "slot.toml", Some(&installed)).unwrap(),
            first
        );
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_refused_with_who() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = format!("name = \"web\"\ncommand = \"./server\"\n[ports]\nblue = {port}\n");
        let app = App::parse(&text, "slot.toml").unwrap();
        let error = choose(&app, &app.name, "slot.toml", None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("ports.blue"), "{error}");
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
    }
}
