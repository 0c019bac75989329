//! `slotctl listener`: the public sockets that the router takes connections from.
//!
//! One is added as a socket unit and by the next instance of the router, which takes all there are. One is taken away the other way around:
//! the next instance does not have it, then its socket is closed.
//!
//! **Invariant:** no socket is restarted, and none is touched but the one that is named.
//! **Invariant:** where the router does not take a new one, it is taken away again: clients would wait there for nobody.

use std::fmt::Write;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use hyper::Method;
use serde::Serialize;

use super::app::{APPS, public, ready_to_change, systemctl};
use super::args::{Global, Listener, ListenerAdd, ListenerRemove};
use super::client::{Client, empty};
use super::exit::Exit;
use super::listeners::holders;
use super::term::{say, say_json};
use crate::config::{App, Machine};
use crate::store::replace;
use crate::units::{
    LISTENERS, is_listener, listener, listener_drop_in, listener_path, listener_socket,
};
use crate::wire::api::{Routers, Upgraded};

/// The machine's file.
const MACHINE: &str = "/etc/slot/machine.toml";

/// A public socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Public {
    /// Its `FileDescriptorName=`, by which apps name it.
    name: String,
    /// Where it listens.
    addresses: Vec<String>,
    /// Its unit.
    unit: String,
    /// Whether it does listen.
    listening: bool,
}

/// Every one.
#[derive(Serialize)]
struct Listeners {
    listeners: Vec<Public>,
}

/// What was done.
#[derive(Serialize)]
struct Done {
    success: bool,
    name: String,
    unit: String,
    /// The instance of the router that accepts now; absent where none runs, or nothing was to be done.
    accepting: Option<u8>,
}

/// Runs one of the commands.
///
/// # Errors
/// If it is refused or fails.
pub async fn run(global: &Global, command: &Listener) -> anyhow::Result<Exit> {
    // It is the machine's, whatever project this directory is of.
    let client = Client::new(global.socket(), None);
    match command {
        Listener::Add(options) => add(&client, options, global.json).await,
        Listener::Remove(options) => remove(&client, options, global.json).await,
        Listener::List => {
            let listeners = all()?;
            match global.json {
                true => say_json(&Listeners { listeners })?,
                false => say(&table(&listeners))?,
            }
            Ok(Exit::Ok)
        }
    }
}

async fn add(client: &Client, options: &ListenerAdd, json: bool) -> anyhow::Result<Exit> {
    let address = &options.address;
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| address.port.to_string());
    ready_to_change(&format!("add listener {name}"))?;
    let (path, unit) = (listener_path(&name), listener_socket(&name));
    let there = all()?.into_iter().find(|it| it.name == name);
    let own = fs::read_to_string(&path).is_ok_and(|text| {
        is_listener(&text) && text.contains(&format!("\nListenStream={}\n", address.text))
    });
    if let Some(there) = there {
        let same = own && there.unit == unit;
        if same && there.listening {
            let done = format!("Listener {name} is there already: {unit}.\n");
            return tell(json, name, unit, None, &done);
        }
        if !same {
            return Err(Exit::Input.because(format!(
                "there is a listener {name} already, {} on {}; give this one another name: `slotctl listener add {} --name NAME`",
                there.unit,
                there.addresses.join(" "),
                address.text
            )));
        }
    }
    if path.exists() && !own {
        return Err(Exit::Input.because(format!(
            "{} is there already, and is not of this listener; remove it, or give the listener another name with --name",
            path.display()
        )));
    }
    let runs = runs(client).await?;
    match begin(client, &name, &address.text, runs).await {
        Ok(upgraded) => {
            let accepting = upgraded.and_then(|it| it.accepting);
            let taken = match accepting {
                Some(new) => format!("slot-router@{new} takes connections from it"),
                None => "the first connection starts a router".to_owned(),
            };
            let text = format!(
                "{} listens ({unit}), and {taken}. Apps whose file names no `listener` are served there; `listener = \"{name}\"` is for one \
                 that is served nowhere else.\n",
                address.text
            );
            tell(json, name, unit, accepting, &text)
        }
        Err(error) => {
            let holders: Vec<String> = holders(address.port)
                .iter()
                .map(ToString::to_string)
                .collect();
            let held = match holders.is_empty() {
                true => String::new(),
                false => format!("port {} is taken by {}; ", address.port, holders.join(", ")),
            };
            let after = match end(&name) {
                Ok(()) => "it was taken away again, and everything goes on as before".to_owned(),
                Err(error) => format!("and it could not be taken away again: {error:#}"),
            };
            Err(error.context(format!("listener {name} was not added: {held}{after}")))
        }
    }
}

/// Puts the files there, has the socket listen, and the next instance of the router take it.
async fn begin(
    client: &Client,
    name: &str,
    address: &str,
    runs: bool,
) -> anyhow::Result<Option<Upgraded>> {
    for file in listener(name, address, unused()?) {
        let path = Path::new(LISTENERS).join(&file.path);
        let folder = path.parent().unwrap_or(Path::new(LISTENERS));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        replace(&path, file.text.as_bytes(), 0o644)?;
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", &listener_socket(name)])?;
    upgrade(client, runs).await
}

async fn remove(client: &Client, options: &ListenerRemove, json: bool) -> anyhow::Result<Exit> {
    let name = &options.name;
    ready_to_change(&format!("remove listener {name}"))?;
    let path = listener_path(name);
    if !fs::read_to_string(&path).is_ok_and(|text| is_listener(&text)) {
        return Err(Exit::NotFound.because(format!(
            "there is no listener {name} that `slotctl listener add` has added ({}); `slotctl listener list` lists all. What an \
             administrator has added by hand is taken away by hand, and slot's own by `systemctl disable --now slot-router.socket`",
            path.display()
        )));
    }
    unneeded(name)?;
    let runs = runs(client).await?;
    // First the router, so that no instance has the socket when it closes.
    delete(&Path::new(LISTENERS).join(listener_drop_in(name)))?;
    systemctl(&["daemon-reload"])?;
    let upgraded = upgrade(client, runs).await.with_context(|| {
        format!(
            "the router did not let go of listener {name}, which is still served; `slotctl listener remove {name}` tries again"
        )
    })?;
    end(name)?;
    let unit = listener_socket(name);
    let text =
        format!("Listener {name} is gone ({unit}). What came in there goes on to its end.\n");
    tell(
        json,
        name.clone(),
        unit,
        upgraded.and_then(|it| it.accepting),
        &text,
    )
}

/// Closes the socket and takes its files away, which no new instance of the router has any more.
fn end(name: &str) -> anyhow::Result<()> {
    // Before the socket stops, or its routers would with it.
    delete(&Path::new(LISTENERS).join(listener_drop_in(name)))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["disable", "--now", &listener_socket(name)])?;
    delete(&listener_path(name))?;
    systemctl(&["daemon-reload"])?;
    // One that did not start is remembered as failed.
    let _ = systemctl(&["reset-failed", &listener_socket(name)]);
    Ok(())
}

/// Refuses to take away what an app, or the machine's file, names: the app would not be reached, and no router take its settings.
fn unneeded(name: &str) -> anyhow::Result<()> {
    let files = fs::read_dir(APPS).into_iter().flatten().flatten();
    for file in files.map(|entry| entry.path()) {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let app = App::parse(&text, &file.display().to_string());
        if app.is_ok_and(|app| app.listener.as_deref() == Some(name)) {
            return Err(Exit::Input.because(format!(
                "{} says `listener = \"{name}\"`, and nobody would reach that app any more; change it, `slotctl app reload`, then this \
                 again",
                file.display()
            )));
        }
    }
    let machine = Machine::read(Path::new(MACHINE))?;
    if machine.proxy_protocol.iter().any(|it| it == name) {
        return Err(Exit::Input.because(format!(
            "{MACHINE} names {name:?} under `proxy_protocol`; take it out there, then this again"
        )));
    }
    Ok(())
}

/// Whether a router runs; then slotd has to be there to exchange it.
async fn runs(client: &Client) -> anyhow::Result<bool> {
    let shown = systemctl(&[
        "list-units",
        "--no-legend",
        "--plain",
        "slot-router@*.service",
    ])?;
    if shown.trim().is_empty() {
        return Ok(false);
    }
    let _: Routers = client.ask(Method::GET, "/router", empty()).await?;
    Ok(true)
}

async fn upgrade(client: &Client, runs: bool) -> anyhow::Result<Option<Upgraded>> {
    if !runs {
        return Ok(None);
    }
    Ok(Some(
        client.ask(Method::POST, "/router/upgrade", empty()).await?,
    ))
}

/// The highest number of an instance that does not run: those that slotd starts begin at 1.
fn unused() -> anyhow::Result<u8> {
    let shown = systemctl(&[
        "list-units",
        "--no-legend",
        "--plain",
        "--all",
        "slot-router@*.service",
    ])?;
    let is_loaded = |number: &u8| shown.contains(&format!("slot-router@{number}.service"));
    // As the template's own names go, and slotd's rule.
    let free = (1..=99).rev().find(|number| !is_loaded(number));
    free.ok_or_else(|| {
        Exit::Failed.because(
            "there are 99 instances of the router, as many as there may be; `slotctl status` says what they still hold",
        )
    })
}

fn all() -> anyhow::Result<Vec<Public>> {
    let units = public::sockets()?;
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let mut words = vec![
        "show",
        "--property=Id,Listen,FileDescriptorName,ActiveState",
    ];
    words.extend(units.iter().map(String::as_str));
    let mut all = read(&systemctl(&words)?);
    all.sort_by(|one, other| one.unit.cmp(&other.unit));
    Ok(all)
}

/// A paragraph of `NAME=value` lines for each socket; `Listen` is there for each address.
fn read(shown: &str) -> Vec<Public> {
    let one = |paragraph: &str| {
        let values = |name: &'static str| {
            let pairs = paragraph.lines().filter_map(|line| line.split_once('='));
            pairs
                .filter(move |(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let first = |name: &'static str| values(name).next().unwrap_or_default().to_owned();
        Public {
            name: first("FileDescriptorName"),
            addresses: values("Listen")
                .map(|listen| listen.trim_end_matches(" (Stream)").to_owned())
                .collect(),
            unit: first("Id"),
            listening: matches!(first("ActiveState").as_str(), "active"),
        }
    };
    shown
        .split("\n\n")
        .map(one)
        .filter(|it| !it.unit.is_empty())
        .collect()
}

fn table(listeners: &[Public]) -> String {
    let width = |of: fn(&Public) -> usize, title: &str| {
        listeners.iter().map(of).max().unwrap_or(0).max(title.len())
    };
    let (name, address) = (
        width(|it| it.name.len(), "NAME"),
        width(|it| it.addresses.join(" ").len(), "ADDRESS"),
    );
    let mut text = format!("{:<name$}  {:<address$}  UNIT\n", "NAME", "ADDRESS");
    for it in listeners {
        let state = if it.listening {
            ""
        } else {
            " (does not listen)"
        };
        let addresses = it.addresses.join(" ");
        let _ = writeln!(
            text,
            "{:<name$}  {addresses:<address$}  {}{state}",
            it.name, it.unit
        );
    }
    text
}

fn tell(
    json: bool,
    name: String,
    unit: String,
    accepting: Option<u8>,
    text: &str,
) -> anyhow::Result<Exit> {
    match json {
        true => say_json(&Done {
            success: true,
            name,
            unit,
            accepting,
        })?,
        false => say(text)?,
    }
    Ok(Exit::Ok)
}

fn delete(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_with_all_that_they_listen_on() {
        let shown = "Listen=[::]:80 (Stream)\nListen=127.0.0.1:81 (Stream)\nFileDescriptorName=http\nId=slot-router.socket\nActiveState=active\n\n\
                     Listen=[::]:443 (Stream)\nFileDescriptorName=443\nId=slot-router-443.socket\nActiveState=inactive\n";
        let all = read(shown);
        assert_eq!(
            table(&all),
            "NAME  ADDRESS               UNIT\n\
             http  [::]:80 127.0.0.1:81  slot-router.socket\n\
             443   [::]:443              slot-router-443.socket (does not listen)\n"
        );
    }
}
