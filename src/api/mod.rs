//! slotd's API: requests in, questions to [`daemon`](crate::daemon), answers out. The shapes are [`wire::api`](crate::wire::api)'s.
//!
//! **Invariant:** nothing is decided here but who may ask; and no path of a caller's is ever opened.

mod deploy;
mod door;
mod guard;
mod hold;
mod large;
mod listener;
pub mod machine;
mod peer;
mod problem;
mod repository;
mod routes;
mod shares;

use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

pub use listener::{ListenError, listener};
pub use peer::{Access, Peer};

use self::door::Door;
use crate::daemon::apps::Apps;
use crate::daemon::units::Units;

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().peer.clone()
    }
}

/// Answers requests on a listener until `ended`, then lets those under way end.
///
/// # Errors
/// The listener failed.
pub async fn serve<U: Units>(
    listener: UnixListener,
    apps: Arc<Apps<U>>,
    access: Access,
    ended: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let door = Door::new(listener, access.clone());
    let service = routes::router(apps, access).into_make_service_with_connect_info::<Peer>();
    axum::serve(door, service)
        .with_graceful_shutdown(ended)
        .await
}
