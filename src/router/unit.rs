//! The router as a systemd unit: sockets from PID 1, readiness, watchdog, SIGTERM.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::book::{self, Book};
use super::control::Control;
use super::keep::{self, Left};
use super::label::{Draining, Label};
use super::tries;

/// What the service manager passed to this process.
#[derive(Debug, Default)]
pub struct Passed {
    /// Listeners and their names.
    pub listeners: Vec<(String, TcpListener)>,
    /// The process before this one was told to stop accepting.
    pub draining: Option<Draining>,
    /// Streams and tunnels that it has left.
    pub left: Vec<Left>,
    /// What they are, and where it is written of further ones.
    pub book: Option<Book>,
}

/// Takes what the service manager passed (sd_listen_fds_with_names(3)).
///
/// # Errors
/// A descriptor that was not kept for us is not a listening TCP socket.
pub fn passed() -> io::Result<Passed> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut passed = listenfd::ListenFd::from_env();
    let mut taken = Passed::default();
    let mut kept: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    let (mut written, mut book) = (None, None);
    for index in 0..passed.len() {
        let name = names.get(index).copied().filter(|n| !n.is_empty());
        let name = name.unwrap_or("unknown");
        if let Some(draining) = Draining::from_name(name) {
            taken.draining = Some(draining);
        } else if name == tries::NAME {
            written = passed.take_raw_fd(index)?.map(owned);
        } else if name == book::NAME {
            book = passed.take_raw_fd(index)?.map(owned).map(Book::left);
        } else if Label::is_kept(name) || Book::is_name(name) {
            if let Some(raw) = passed.take_raw_fd(index)? {
                kept.entry(name.to_owned()).or_default().push(owned(raw));
            }
        } else if let Some(listener) = passed.take_tcp_listener(index)? {
            taken.listeners.push((name.to_owned(), listener));
        }
    }
    let mut left = Vec::with_capacity(kept.len());
    for (name, descriptors) in kept {
        let line = match Book::is_name(&name) {
            true => book.as_ref().and_then(|book| book.read(&name)),
            false => Some(name.clone()),
        };
        let line = line.unwrap_or_default();
        match keep::gather(&name, &line, descriptors) {
            Some(whole) => left.push(whole),
            None if Book::is_name(&name) || Label::from_name(&line).is_some() => {
                // Its peers wait for as long as anybody has it open.
                tracing::warn!("the service manager has not kept all of a stream; it is cut");
                tries::give_up(&name);
            }
            None => {
                tracing::warn!("what another version of slot-router has left is not understood")
            }
        }
    }
    taken.left = tries::admit(written, left);
    if let Some(book) = &book {
        book.go_on(taken.left.iter().map(|left| left.name.as_str()));
    }
    taken.book = book;
    Ok(taken)
}

/// A descriptor that was passed to this process.
#[allow(
    unsafe_code,
    reason = "a descriptor that was inherited is only a number"
)]
fn owned(raw: RawFd) -> OwnedFd {
    // SAFETY: `listenfd` gives each descriptor away once, and nobody else looks at those that were passed.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Raises the limit of open files as far as it goes: each request takes two.
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_open_files() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
    } else {
        Ok(())
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}

/// What asks for a drain: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Catches signals, and tells the service manager that this is a router now: in this order, or an early SIGTERM would kill it.
///
/// # Errors
/// Signals cannot be caught.
pub fn ready() -> io::Result<Signals> {
    let signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    notify(&[NotifyState::Ready]);
    Ok(signals)
}

/// Speaks to the service manager until the router ends: alive while every thread is, draining from
/// SIGTERM on.
pub async fn attend(control: Control, mut signals: Signals) {
    // Twice as often as the watchdog bites (sd_watchdog_enabled(3)).
    let pause = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |limit| limit / 2);
    let mut tick = tokio::time::interval(pause);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => control.drain(),
            _ = signals.interrupt.recv() => control.drain(),
            _ = tick.tick() => {
                // A thread that hangs answers nothing; then the watchdog is left to bite.
                if tokio::time::timeout(pause, control.is_alive()).await == Ok(true) {
                    notify(&[NotifyState::Watchdog]);
                }
                let stats = control.stats().await;
                let state = if stats.accepting { "Accepting" } else { "Draining" };
                let revision = stats.revision.map_or_else(|| "no table".to_owned(), |r| format!("table {r}"));
                notify(&[NotifyState::Status(&format!("{state}, {revision}, {} connections, {} held", stats.connections, stats.held))]);
            }
        }
    }
}
