//! The one seam between what is decided and what is done.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::deploy::{Effect, Event, Notice, State, Time};

/// Everything outside of an app's state.
pub trait World: Send + Sync + 'static {
    /// Why a state could not be committed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The wall clock.
    fn now(&self) -> Time;

    /// Makes a state last. It is the state of the app when this returns, and not before.
    ///
    /// # Errors
    /// The state on disk is the one before.
    fn commit(&self, state: &State) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Performs an effect and reports what comes of it. It is given up, at any await, when no state demands it any more; it is performed
    /// again after a crash.
    fn perform(
        self: Arc<Self>,
        effect: Effect,
        report: mpsc::Sender<Event>,
    ) -> impl Future<Output = ()> + Send;

    /// Tells people. `state` is the committed one, its effects are not performed yet: the evidence of a failure is still there.
    fn tell(&self, notices: Vec<Notice>, state: &State) -> impl Future<Output = ()> + Send;

    /// Tells people that a state could not be committed and what that holds up.
    fn warn(&self, error: &Self::Error);
}
