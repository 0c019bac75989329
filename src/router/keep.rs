//! What outlives this process: descriptors that the service manager keeps (sd_pid_notify_with_fds(3),
//! `FDSTORE=1`) and passes to the process that comes after it, unless the unit was stopped in between.
//!
//! **Invariant:** what is kept can be understood by its name alone.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use super::control::Until;

/// How the names of kept descriptors begin; those of listeners come from their socket units.
pub const PREFIX: &str = "kept.";

/// The name that says: this instance was told to stop accepting.
const DRAINING: &str = "draining";

/// What a router is told by what was kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// When the drain is to be over.
    pub until: Option<Until>,
}

impl Draining {
    /// What a name says, if it is of a drain.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let until = name.strip_prefix(PREFIX)?.strip_prefix(DRAINING)?;
        match until.strip_prefix('.') {
            Some(until) => Some(Self {
                until: Some(until.parse().ok()?),
            }),
            None => until.is_empty().then_some(Self { until: None }),
        }
    }

    fn name(self) -> String {
        match self.until {
            Some(until) => format!("{PREFIX}{DRAINING}.{until}"),
            None => format!("{PREFIX}{DRAINING}"),
        }
    }
}

/// Notes that this instance drains, for the process that comes after it should this one be killed.
/// Does nothing where there is no service manager.
///
/// # Errors
/// The service manager cannot be reached.
pub fn draining(until: Option<Until>) -> io::Result<()> {
    // Any descriptor does; its name is the note.
    let note = File::open("/dev/null")?;
    store(&Draining { until }.name(), &[note.as_fd()])
}

/// Has the service manager keep copies of these under a name.
fn store(name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // Without the last line a descriptor whose peer has gone would be dropped before we see that.
    tell(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), descriptors)
}

/// sd_notify(3) with descriptors.
fn tell(text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        &[ControlMessage::ScmRights(&raw)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_read_from_the_name_that_was_written() {
        for until in [None, Some(1_700_000_000_000)] {
            let draining = Draining { until };
            assert_eq!(Draining::from_name(&draining.name()), Some(draining));
        }
        for other in ["http", "draining", "kept.drainingly", "kept.draining.soon"] {
            assert_eq!(Draining::from_name(other), None, "{other}");
        }
    }
}
