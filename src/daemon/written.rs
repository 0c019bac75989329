//! What was committed stays so: a state that a disk, or somebody, has lost is written once more by the slotd that knows it.

use std::sync::Arc;

use super::app::Managed;
use super::owner::AskError;
use super::units::Units;

impl<U: Units> Managed<U> {
    /// Sees to it that the app's state is on disk as it was committed. Where it is, nothing is written.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn keep_written(&self) -> Result<(), AskError> {
        let state = Arc::clone(&self.owner().state().borrow());
        match self.world().is_written(state).await {
            true => Ok(()),
            false => self.owner().rewrite().await,
        }
    }
}
