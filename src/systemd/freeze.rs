//! Freezing units and thawing them (`FreezeUnit`, `ThawUnit`, org.freedesktop.systemd1(5)): the freezer of their control groups, so that
//! every process of a unit stands still.
//!
//! Both are answered when it is done. A unit that is to be stopped is thawed before: not every PID 1 does that by itself.

use std::time::Duration;

use tokio::time::sleep;

use super::call::CallError;
use super::{Bus, UnitName};
use crate::telemetry::chain;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(500);

impl Bus {
    /// Freezes a unit; one that is frozen is a success.
    ///
    /// # Errors
    /// The kernel has no freezer for it, this user may not, or it does not run.
    pub async fn freeze(&self, unit: &UnitName) -> Result<(), CallError> {
        self.call(unit, "freeze", "FreezeUnit", &unit.as_str())
            .await
            .map(drop)
    }

    /// Thaws a unit, if it is frozen; tries again until it is not.
    pub async fn thaw(&self, unit: &UnitName) {
        while self.properties(unit).await.is_frozen {
            match self.call(unit, "thaw", "ThawUnit", &unit.as_str()).await {
                Ok(_) => return,
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
            sleep(AGAIN).await;
        }
    }
}
