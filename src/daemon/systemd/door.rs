//! Where a unit that slotd has started asks slotd what to do: a socket of its own.
//!
//! **Invariant:** whoever connects is believed only if he is in the cgroup of that very unit, and its user.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::sleep;

use crate::probe::{cgroup_of, in_cgroup};
use crate::systemd::{Bus, Properties, UnitName};

/// Between two looks at a unit while it is waited for.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Where a unit finds slotd, for as long as it is waited for.
pub(super) struct Door {
    path: PathBuf,
    listener: UnixListener,
}

impl Door {
    /// Listens there, in the place of what a slotd that was killed has left.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let at = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("slotd cannot listen on {}: {error}", path.display()),
            )
        };
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(at)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(at)?;
        // The unit has a user of its own, and whoever connects is looked at.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(at)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }

    /// Waits for a unit that was started to connect; an error says why it will not.
    pub(super) async fn called(
        &self,
        bus: &Bus,
        unit: &UnitName,
    ) -> Result<tokio::net::UnixStream, String> {
        let mut told = false;
        loop {
            let seen = bus.properties(unit).await;
            if is_over(&seen) {
                return Err("ended before it asked for the release".to_owned());
            }
            tokio::select! {
                called = self.listener.accept() => {
                    let (stream, _) = called.map_err(|error| format!("cannot reach slotd: {error}"))?;
                    let peer = stream.peer_cred().ok();
                    let pid = peer.and_then(|peer| peer.pid());
                    let cgroup = pid.and_then(cgroup_of).unwrap_or_default();
                    // By the user too: the number of a process that has ended since it connected may be another's by now.
                    let is_its_user = seen.uid.is_some() && peer.map(|peer| peer.uid()) == seen.uid;
                    if is_its_user && !seen.control_group.is_empty() && in_cgroup(&cgroup, &seen.control_group) {
                        return Ok(stream);
                    }
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%unit, ?peer, cgroup, "somebody else asked for the release, and was given nothing");
                    }
                }
                () = sleep(LOOK) => {}
            }
        }
    }
}

/// Whether nothing of a unit runs any more.
pub(super) fn is_over(unit: &Properties) -> bool {
    matches!(unit.active_state.as_str(), "inactive" | "failed")
}

impl Drop for Door {
    fn drop(&mut self) {
        // The next one removes it if this one cannot.
        let _ = fs::remove_file(&self.path);
    }
}

/// The connection is closed when nobody waits for it any more, whatever thread reads from it, and that thread is told.
pub(super) struct Held {
    pub stream: UnixStream,
    pub given_up: Arc<AtomicBool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        // One that is closed already is closed.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
