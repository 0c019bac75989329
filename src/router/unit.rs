//! The router as a systemd unit: sockets from PID 1, readiness, watchdog, SIGTERM.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::control::Control;

/// The listeners that the service manager passed, with their names (sd_listen_fds_with_names(3)).
///
/// # Errors
/// A descriptor is not a listening TCP socket.
pub fn listeners() -> io::Result<Vec<(String, TcpListener)>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::with_capacity(passed.len());
    for index in 0..passed.len() {
        if let Some(listener) = passed.take_tcp_listener(index)? {
            let name = names
                .get(index)
                .copied()
                .filter(|n| !n.is_empty())
                .unwrap_or("unknown");
            listeners.push((name.to_owned(), listener));
        }
    }
    Ok(listeners)
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
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Speaks to the service manager until the router ends: ready now, alive while every thread is,
/// draining from SIGTERM on.
///
/// # Errors
/// Signals cannot be caught.
pub async fn attend(control: Control) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    notify(&[NotifyState::Ready, NotifyState::Status("Accepting")]);
    // Twice as often as the watchdog bites (sd_watchdog_enabled(3)).
    let pause = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |limit| limit / 2);
    let mut tick = tokio::time::interval(pause);
    loop {
        tokio::select! {
            _ = terminate.recv() => control.drain(),
            _ = interrupt.recv() => control.drain(),
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
