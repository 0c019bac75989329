//! `slotctl listener`: the public sockets that the router takes connections from.
//!
//! One is added as a socket unit and by the next instance of the router, which takes all there are. One is taken away the other way around:
//! the next instance does not have it, then its socket is closed.
//!
//! **Invariant:** no socket is restarted, and none is touched but the one that is named.
//! **Invariant:** where the router does not take a new one, it is taken away again, from the router too: clients would wait there for
//! nobody. What cannot be taken away is named, with the command that does it.
//! **Invariant:** its unit's file is the last that goes and the first that comes: after a crash at any point the same command finishes the
//! work, and `remove` takes away what `add` has begun.

mod list;
mod takers;

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use nix::libc;
use serde::Serialize;

use self::list::{Listeners, all, table};
use self::takers::takers;
use super::app::{APPS, ready_to_change, systemctl};
use super::args::{Address, Global, Listener, ListenerAdd, ListenerRemove, address};
use super::client::{Client, ClientError, RETRY, empty};
use super::deploy::path_of;
use super::exit::Exit;
use super::listeners::holders;
use super::term::{harmless, note, say, say_json};
use crate::config::{App, Machine};
use crate::store::replace;
use crate::telemetry::chain;
use crate::units::{
    LISTENERS, is_listener, listener, listener_drop_in, listener_path, listener_socket,
};
use crate::wire::api::{Routers, Upgraded};

/// The machine's file.
const MACHINE: &str = "/etc/slot/machine.toml";

/// Tries to reach a slotd that went away during an exchange of the router: 10 s, in which systemd has started it again.
const TRIES: u32 = 50;

/// How long slotd may take for what it has at hand.
const ANSWER: Duration = Duration::from_secs(10);

/// How long it may take to exchange the router: an instance has 20 s to come up, and another exchange may have its turn first.
const EXCHANGE: Duration = Duration::from_secs(90);

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
    let at = &options.address;
    let named = options.name.as_ref().map(ToString::to_string);
    let name = named.unwrap_or_else(|| at.port.to_string());
    ready_to_change(&format!("add listener {name}"))?;
    let (path, unit) = (listener_path(&name), listener_socket(&name));
    let there = all()?.into_iter().find(|it| it.name == name);
    let own = fs::read_to_string(&path).is_ok_and(|text| place(&text).as_ref() == Some(at));
    if let Some(there) = there.filter(|there| !own || there.unit != unit) {
        return Err(Exit::Input.because(format!(
            "there is a listener {name} already, {} on {}; give this one another name: `slotctl listener add {} --name NAME`",
            there.unit,
            there.addresses.join(" "),
            at.text
        )));
    }
    if path.exists() && !own {
        return Err(Exit::Input.because(format!(
            "{} is there already, and is not of this listener; remove it, or give the listener another name with --name",
            path.display()
        )));
    }
    let runs = runs(client).await?;
    let listens = own && systemctl(&["is-active", &unit]).is_ok();
    if listens && (!runs || takers(&name).await?.lasting.is_some()) {
        let done = format!("Listener {name} is there already: {unit}.\n");
        return tell(json, name, unit, None, &done);
    }
    if !is_machines_own(at.ip) {
        return Err(Exit::Input.because(format!(
            "{} is no address of this machine, so that no client would come there, and nothing was done; `ip -brief address` lists those \
             that it has, and a port alone ({}) is of every one",
            at.ip, at.port
        )));
    }
    if let Err(error) = begin(&name, &at.text, listens) {
        return Err(undone(client, &name, at.port, error).await);
    }
    let accepting = match exchange(client, runs, Change::Add(&name)).await {
        Ok(upgraded) => upgraded.and_then(|it| it.accepting),
        // That another instance does not let go yet is for slotd to mend, which goes on with the newest.
        Err(error) => match takers(&name).await.ok().and_then(|takers| takers.lasting) {
            Some(new) => {
                note(&format!("slotctl: {}\n", harmless(&format!("{error:#}"))));
                Some(new)
            }
            None => return Err(undone(client, &name, at.port, error).await),
        },
    };
    let taken = match accepting {
        Some(new) => format!("slot-router@{new} takes connections from it"),
        None => "the first connection starts a router".to_owned(),
    };
    let text = format!(
        "{} listens ({unit}), and {taken}. Apps whose file names no `listener` are served there; `listener = \"{name}\"` is for one that is \
         served nowhere else.\n",
        at.text
    );
    tell(json, name, unit, accepting, &text)
}

/// Where a socket unit that [`listener`] made listens; nothing, if it is somebody else's.
fn place(text: &str) -> Option<Address> {
    let mut lines = text.lines().filter(|_| is_listener(text));
    let written = lines.find_map(|line| line.strip_prefix("ListenStream="))?;
    address(written).ok()
}

/// Whether connections to an address come to this machine. The kernel knows: of its routes too, and where an administrator lets sockets
/// have addresses that come later (`net.ipv4.ip_nonlocal_bind`).
fn is_machines_own(ip: IpAddr) -> bool {
    if ip.is_unspecified() {
        return true;
    }
    // Nothing is sent, and nobody can be in the way of a port that the kernel chooses.
    let refused = UdpSocket::bind((ip, 0)).err();
    // The second is said of IPv6 where there is none. Any other error says nothing of the address.
    let other = [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT].map(Some);
    !refused.is_some_and(|error| other.contains(&error.raw_os_error()))
}

/// Puts the files there, and has the socket listen if it does not.
fn begin(name: &str, address: &str, listens: bool) -> anyhow::Result<()> {
    let files = listener(name, address, unused()?);
    // One that listens has its file, with an instance that was unused then.
    for file in files.iter().skip(usize::from(listens)) {
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
    Ok(())
}

/// Takes a listener away that does not listen, or that the router did not take; gives the error with what was done.
async fn undone(client: &Client, name: &str, port: u16, error: anyhow::Error) -> anyhow::Error {
    let held = taken_by(name, port);
    let after = match end(name) {
        Ok(()) => match release(client, name).await {
            Ok(()) => "it was taken away again, and everything goes on as before".to_owned(),
            Err(left) => left,
        },
        Err(left) => format!(
            "{} is left of it, because {left:#}; `slotctl listener remove {name}` takes it away",
            listener_socket(name)
        ),
    };
    error.context(format!("listener {name} was not added: {held}{after}"))
}

/// Sees to it that no instance of the router takes connections from a listener whose unit is gone.
///
/// # Errors
/// Which still does, and what ends that.
async fn release(client: &Client, name: &str) -> Result<(), String> {
    let has = async || takers(name).await.map(|takers| takers.units);
    if has().await.is_ok_and(|units| units.is_empty()) {
        return Ok(());
    }
    let exchanged = exchange(client, true, Change::Remove(name)).await;
    let who = match has().await {
        Ok(units) if units.is_empty() => return Ok(()),
        Ok(units) => format!("{} still takes", units.join(", ")),
        Err(error) => format!(
            "an instance of the router may still take ({})",
            chain(&error)
        ),
    };
    let why = exchanged.map_or_else(|error| format!(" ({error:#})"), |_| String::new());
    Err(format!(
        "its socket unit was taken away again, and {who} connections from it{why}; `slotctl router upgrade` ends that"
    ))
}

/// Who has the port that a listener was to have, in words before a sentence; nothing where nobody else has it.
fn taken_by(name: &str, port: u16) -> String {
    let listeners = all().unwrap_or_default();
    let own = listeners
        .into_iter()
        .filter(|it| it.listening && it.has(port));
    let own = own.filter(|it| it.name != name);
    let own = own.map(|it| format!("listener {} ({})", it.name, it.unit));
    // What systemd and the routers hold are the listeners.
    let others = holders(port).into_iter().filter(|holder| {
        let unit = holder.unit.as_deref().unwrap_or_default();
        holder.pid != 1 && !unit.starts_with("slot-router@")
    });
    let all: Vec<String> = own.chain(others.map(|it| it.to_string())).collect();
    match all.is_empty() {
        true => String::new(),
        false => format!("port {port} is taken by {}; ", all.join(", ")),
    }
}

async fn remove(client: &Client, options: &ListenerRemove, json: bool) -> anyhow::Result<Exit> {
    let name = options.name.as_str();
    ready_to_change(&format!("remove listener {name}"))?;
    let path = listener_path(name);
    let added = fs::read_to_string(&path).is_ok_and(|text| is_listener(&text));
    if !added && !is_half_removed(name)? {
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
    let upgraded = match exchange(client, runs, Change::Remove(name)).await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            // The next instance may have come up all the same, and nobody have it any more.
            let left = takers(name).await?;
            let has = [left.units, left.silent].concat();
            if !has.is_empty() {
                return Err(error.context(format!(
                    "listener {name} is still served by {}: its socket listens, and an instance of the router that starts does not have \
                     it any more; `slotctl listener remove {name}` goes on from here",
                    has.join(", ")
                )));
            }
            None
        }
    };
    end(name)?;
    let unit = listener_socket(name);
    let text =
        format!("Listener {name} is gone ({unit}). What came in there goes on to its end.\n");
    tell(
        json,
        name.to_owned(),
        unit,
        upgraded.and_then(|it| it.accepting),
        &text,
    )
}

/// Whether a removal was ended after it had deleted the unit's file: systemd has it still, or what is for the router is there.
fn is_half_removed(name: &str) -> anyhow::Result<bool> {
    let path = listener_path(name);
    if path.exists() {
        return Ok(false);
    }
    let unit = listener_socket(name);
    let from = systemctl(&["show", "--property=FragmentPath", "--value", &unit])?;
    let drop_in = Path::new(LISTENERS).join(listener_drop_in(name));
    let drop_in = fs::read_to_string(drop_in).is_ok_and(|text| is_listener(&text));
    Ok(drop_in || Path::new(from.trim()) == path)
}

/// Closes the socket and takes its files away, which no new instance of the router has any more.
fn end(name: &str) -> anyhow::Result<()> {
    let (path, unit) = (listener_path(name), listener_socket(name));
    // Before the socket stops, or its routers would with it.
    delete(&Path::new(LISTENERS).join(listener_drop_in(name)))?;
    // A unit without a file cannot be disabled by systemctl.
    if !path.exists() {
        delete(
            &Path::new(LISTENERS)
                .join("sockets.target.wants")
                .join(&unit),
        )?;
    }
    systemctl(&["daemon-reload"])?;
    if path.exists() {
        systemctl(&["disable", "--now", &unit])?;
    } else if systemctl(&["is-active", &unit]).is_ok() {
        systemctl(&["stop", &unit])?;
    }
    delete(&path)?;
    systemctl(&["daemon-reload"])?;
    // One that did not start is remembered as failed.
    let _ = systemctl(&["reset-failed", &unit]);
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
    let asked = client.ask(Method::GET, "/router", empty());
    let _: Routers = within(ANSWER, "GET /router", asked).await?;
    Ok(true)
}

/// slotd's answer, if it comes in so long a time: one that stands still answers nobody.
async fn within<T>(
    limit: Duration,
    request: &str,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(Exit::Unreachable.because(format!(
            "slotd has not answered {request} in {} s; `systemctl status slotd` says whether it runs, `journalctl -u slotd` what it does; \
             `systemctl restart slotd` touches neither apps nor routers",
            limit.as_secs()
        ))),
    }
}

/// What becomes of a listener, by its name.
#[derive(Clone, Copy)]
enum Change<'a> {
    Add(&'a str),
    Remove(&'a str),
}

impl Change<'_> {
    fn path(self) -> String {
        let (path, name) = match self {
            Self::Add(name) => ("/listener/add", name),
            Self::Remove(name) => ("/listener/remove", name),
        };
        path_of(path, &[("name", name.to_owned())])
    }
}

/// Has slotd write the change down, and exchange the router, if one runs. An answer that is lost with slotd is asked for again: one exchange
/// more does no harm. Where no router runs nothing depends on slotd, which may not run either.
async fn exchange(
    client: &Client,
    runs: bool,
    change: Change<'_>,
) -> anyhow::Result<Option<Upgraded>> {
    let path = change.path();
    let request = format!("POST {path}");
    if !runs {
        let asked = client.ask::<Upgraded>(Method::POST, &path, empty());
        if let Err(error) = within(ANSWER, &request, asked).await {
            let error = format!("{error:#}");
            let error = harmless(&error);
            note(&format!(
                "slotctl: slotd has not said that it wrote down who did this: {error}\n"
            ));
        }
        return Ok(None);
    }
    let ask = async || {
        let asked = client.ask(Method::POST, &path, empty());
        within(EXCHANGE, &request, asked).await
    };
    let is_passing = |error: &anyhow::Error| {
        let told = error.downcast_ref::<ClientError>();
        told.is_some_and(ClientError::is_passing)
    };
    for _ in 1..TRIES {
        match ask().await {
            Err(error) if is_passing(&error) => tokio::time::sleep(RETRY).await,
            answered => return Ok(Some(answered?)),
        }
    }
    Ok(Some(ask().await?))
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
    fn a_unit_that_was_made_says_where_it_listens_in_whichever_form() {
        let [socket, drop_in] = listener("443", "443", 99);
        let at = address("443").unwrap();
        assert_eq!(place(&socket.text), Some(at.clone()));
        // As an earlier slotctl wrote it.
        let before = socket
            .text
            .replace("ListenStream=443", "ListenStream=[::]:443");
        assert_eq!(place(&before), Some(at));
        assert_eq!(place(&drop_in.text), None);
        assert_eq!(place("[Socket]\nListenStream=443\n"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_slotd_does_not_answer_is_waited_for_no_longer_than_said_and_named() {
        let began = tokio::time::Instant::now();
        let never = std::future::pending::<Result<(), ClientError>>();
        let error = within(ANSWER, "GET /router", never).await.unwrap_err();
        assert_eq!(began.elapsed(), ANSWER);
        let said = error.to_string();
        assert!(
            said.starts_with(
                "slotd has not answered GET /router in 10 s; `systemctl status slotd`"
            ),
            "{said}"
        );
    }

    #[test]
    fn an_address_is_the_machines_own_or_not() {
        for own in ["127.0.0.1:1", "127.9.9.9:1", "0.0.0.0:1", "443"] {
            assert!(is_machines_own(address(own).unwrap().ip), "{own}");
        }
        // For documentation alone (RFC 5737, RFC 3849).
        for other in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            assert!(!is_machines_own(address(other).unwrap().ip), "{other}");
        }
    }
}
