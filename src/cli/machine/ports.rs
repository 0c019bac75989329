//! Ports for the slots of an app with a slot-machine.json: four that nobody has, others each time.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use super::super::exit::Exit;
use crate::config::{App, Ports};

/// Below the ports that the kernel gives to clients (ip(7), `ip_local_port_range`).
const RANGE: std::ops::Range<u16> = 20_001..32_768;

/// Gives each slot a port and an internal one, none of them in `except`. Where the search begins is chance: several daemons that start
/// at once would else choose the same, because nobody listens there before an app is started.
///
/// # Errors
/// No port is free.
pub(super) fn choose(app: &mut App, except: &[u16]) -> anyhow::Result<()> {
    let chance = RandomState::new().build_hasher().finish();
    let offset = u16::try_from(chance % u64::from(RANGE.end - RANGE.start)).unwrap_or_default();
    let begin = RANGE.start + offset;
    let mut free = (begin..RANGE.end)
        .chain(RANGE.start..begin)
        .filter(|port| !except.contains(port))
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    let mut next = || {
        free.next().ok_or_else(|| {
            Exit::Input.because(format!(
                "no port from {} to {} is free for the app; end something that listens there",
                RANGE.start,
                RANGE.end - 1
            ))
        })
    };
    for slot in app.slots.clone() {
        let (port, internal) = (next()?, next()?);
        app.ports.insert(slot, Ports { port, internal });
    }
    Ok(())
}
