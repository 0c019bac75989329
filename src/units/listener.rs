//! A further public socket of the router: its unit, and what makes every new instance of the router take it.
//!
//! **Invariant:** an instance that runs has nothing of it: an instance takes the sockets that its unit names when it is started.

use std::path::Path;

use super::UnitFile;

/// Where administrators' units are (systemd.unit(5)), and these.
pub const LISTENERS: &str = "/etc/systemd/system";

/// The first line of a unit that [`listener`] made; no other is ever taken away.
const MADE: &str = "# Made by `slotctl listener add`.";

/// The socket unit of a listener.
#[must_use]
pub fn listener_socket(name: &str) -> String {
    format!("slot-router-{name}.socket")
}

/// What of the router's own unit is a listener's.
#[must_use]
pub fn listener_drop_in(name: &str) -> String {
    format!("slot-router@.service.d/50-listener-{name}.conf")
}

/// Whether a unit's text is what [`listener`] made.
#[must_use]
pub fn is_listener(text: &str) -> bool {
    text.starts_with(MADE)
}

/// The files of a listener, relative to [`LISTENERS`]: its socket, then what is for the router. `instance` is one of the router that does
/// not run.
#[must_use]
pub fn listener(name: &str, address: &str, instance: u8) -> [UnitFile; 2] {
    let socket = listener_socket(name);
    [
        UnitFile {
            text: format!(
                "{MADE}\n\
                 # `slotctl listener remove {name}` takes it away.\n\
                 [Unit]\n\
                 Description=A public socket of slot, {address}\n\
                 Documentation=man:slot-router(8)\n\
                 \n\
                 [Socket]\n\
                 Slice=slot.slice\n\
                 ListenStream={address}\n\
                 BindIPv6Only=both\n\
                 FreeBind=yes\n\
                 # What `listener` in an app's file names.\n\
                 FileDescriptorName={name}\n\
                 Backlog=4096\n\
                 NoDelay=yes\n\
                 # systemd starts no socket while the service that it names here runs; so one that did not.\n\
                 Service=slot-router@{instance}.service\n\
                 TriggerLimitIntervalSec=0\n\
                 \n\
                 [Install]\n\
                 WantedBy=sockets.target\n"
            ),
            path: socket.clone(),
        },
        UnitFile {
            path: listener_drop_in(name),
            text: format!(
                "{MADE}\n\
                 [Unit]\n\
                 # A restart of the socket is one of its routers too: no socket can be bound again while a router has it.\n\
                 PartOf={socket}\n\
                 \n\
                 [Service]\n\
                 Sockets={socket}\n"
            ),
        },
    ]
}

/// Where a listener's unit is.
#[must_use]
pub fn listener_path(name: &str) -> std::path::PathBuf {
    Path::new(LISTENERS).join(listener_socket(name))
}
