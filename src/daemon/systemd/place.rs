//! Where the slots of an app are: which units, and where they listen.

use std::path::Path;

use super::Slot;
use crate::config::{App, Bind, Ports};
use crate::deploy::SlotName;
use crate::probe::Address;
use crate::systemd::UnitName;

/// Where a slot of an app is.
pub(super) fn slot(app: &App, name: &SlotName, run: &Path) -> Slot {
    let service = UnitName::service(&app.name, name);
    let socket = Address::Unix(app.socket(run, name));
    match app.bind {
        Bind::Port => {
            // A file in /etc/slot/apps without a slot's ports is refused when it is read.
            let Ports { port, internal } = app.ports.get(name).copied().unwrap_or(Ports {
                port: 0,
                internal: 0,
            });
            Slot {
                service,
                socket: None,
                upstream: Address::loopback(port),
                health: Address::loopback(internal),
                variable: if port == internal {
                    "PORT"
                } else {
                    "INTERNAL_PORT"
                },
            }
        }
        Bind::Unix => Slot {
            service,
            socket: None,
            upstream: socket.clone(),
            health: socket,
            variable: "SOCKET",
        },
        Bind::Fd => Slot {
            service,
            socket: Some(UnitName::socket(&app.name, name)),
            upstream: socket.clone(),
            health: socket,
            variable: "LISTEN_FDS",
        },
    }
}
