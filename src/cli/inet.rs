//! What slot-inet.service runs: whoever connects gets a socket of each kind that slotd needs, and that is all (see [`crate::probe`]).
//!
//! **Invariant:** nothing that comes over a connection is read.

use std::convert::Infallible;

use anyhow::Context;
use listenfd::ListenFd;

use crate::probe::Sockets;

/// Hands them out until it is ended.
///
/// # Errors
/// slot-inet.socket has passed no socket, or it or a new socket fails; systemd starts the service again.
pub fn hand_out() -> anyhow::Result<Infallible> {
    let passed = ListenFd::from_env().take_unix_listener(0);
    let passed = passed.context("cannot use the socket that was passed (LISTEN_FDS)")?;
    let listener =
        passed.context("there is no socket to listen on; slot-inet.socket starts this")?;
    loop {
        let (slotd, _) = listener.accept().context("cannot accept a connection")?;
        let sockets = Sockets::make().context("cannot make a socket")?;
        // It has given up, or has ended; whoever is next asks anew.
        let _ = sockets.send(&slotd);
    }
}
