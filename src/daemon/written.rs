//! What was committed stays so: a state that a disk, or somebody, has lost is written once more by the slotd that knows it.

use std::sync::Arc;

use super::app::Managed;
use super::owner::AskError;
use super::units::Units;
use crate::telemetry::chain;

impl<U: Units> Managed<U> {
    /// Sees to it that the app's state is on disk as it was committed. Where it is, nothing is written.
    ///
    /// # Errors
    /// It cannot be written, or what is there is not to be written over.
    pub async fn keep_written(&self) -> Result<(), AskError> {
        let state = Arc::clone(&self.owner().state().borrow());
        match self.world().is_written(state).await {
            Ok(true) => Ok(()),
            Ok(false) => self.owner().rewrite().await,
            Err(error) => Err(AskError::NotCommitted(chain(&error))),
        }
    }
}
