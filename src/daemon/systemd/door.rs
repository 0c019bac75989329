//! Where a unit that slotd has started asks slotd what to do: a socket of its own.
//!
//! **Invariant:** whoever connects is believed only if he is in the cgroup of that very unit, and its user.

use std::time::Duration;

use tokio::time::sleep;

use super::super::errand::Door;
use crate::probe::{cgroup_of, in_cgroup};
use crate::systemd::{Bus, Properties, UnitName};

/// Between two looks at a unit while it is waited for.
pub(super) const LOOK: Duration = Duration::from_millis(50);

impl Door {
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
                return Err("ended before it asked what to do".to_owned());
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
                        tracing::warn!(%unit, ?peer, cgroup, "somebody else asked for what is the unit's, and was given nothing");
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
