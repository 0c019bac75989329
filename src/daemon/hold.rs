//! A hold on automatic deployments: until somebody takes it back, only people deploy.
//!
//! **Invariant:** it holds over restarts; a hold that cannot be read is one.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::app::Managed;
use super::live::{Live, blocking};
use super::owner::AskError;
use super::units::Units;
use super::world::World;
use crate::store::replace;
use crate::telemetry::{chain, message};
use crate::wire::api::Hold;

impl<U: Units> Live<U> {
    fn hold_file(&self) -> PathBuf {
        self.root.join("hold.json")
    }

    /// Who holds automatic deployments, and why, if somebody does.
    pub(super) async fn held(&self) -> Option<Hold> {
        let path = self.hold_file();
        let read = move || match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            read => Some(read.map_err(|error| error.to_string()).and_then(|bytes| {
                serde_json::from_slice(&bytes).map_err(|error| error.to_string())
            })),
        };
        let unread = |why: String| Hold {
            by: "slotd".to_owned(),
            reason: Some(format!(
                "hold.json cannot be read: {why}; `slotctl unhold` removes it"
            )),
            at_ms: self.now().0,
        };
        Some(blocking(read).await?.unwrap_or_else(unread))
    }
}

impl<U: Units> Managed<U> {
    /// Refuses automatic deployments from here on.
    ///
    /// # Errors
    /// That cannot be written down, and so does not hold.
    pub async fn hold(&self, by: String, reason: Option<String>) -> Result<(), AskError> {
        let world = self.world();
        let at_ms = world.now().0;
        let hold = Hold { by, reason, at_ms };
        let bytes = serde_json::to_vec(&hold).expect("a hold is strings and a number");
        let path = world.hold_file();
        let written = blocking(move || replace(&path, &bytes, 0o644)).await;
        written.map_err(|error| AskError::NotCommitted(chain(&error)))?;
        tracing::info!(
            message_id = message::id("held"),
            slot_app = self.app().name.as_str(),
            "{hold}"
        );
        Ok(())
    }

    /// Lets them be again.
    ///
    /// # Errors
    /// That cannot be written down, and so they are refused still.
    pub async fn unhold(&self) -> Result<(), AskError> {
        let path = self.world().hold_file();
        match blocking(move || fs::remove_file(path)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(AskError::NotCommitted(error.to_string()))
            }
            Err(_) => Ok(()),
            Ok(()) => {
                tracing::info!(
                    message_id = message::id("unheld"),
                    slot_app = self.app().name.as_str(),
                    "nothing holds automatic deployments any more"
                );
                Ok(())
            }
        }
    }

    /// Refuses an automatic deployment while somebody holds those.
    ///
    /// # Errors
    /// Who does, and why.
    pub async fn lets_itself(&self) -> Result<(), AskError> {
        match self.world().held().await {
            None => Ok(()),
            Some(hold) => Err(AskError::Held(hold.to_string())),
        }
    }
}
