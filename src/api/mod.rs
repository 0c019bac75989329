//! slotd's API: requests in, questions to [`daemon`](crate::daemon), answers out. The shapes are [`wire::api`](crate::wire::api)'s.
//!
//! **Invariant:** nothing is decided here but who may ask; and no path of a caller's is ever opened.

mod audit;
mod bearer;
mod deploy;
mod door;
mod failures;
mod gate;
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
mod tcp;

use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use listener::{ListenError, Listeners, listeners};
pub use peer::{Access, May, Peer};

use self::bearer::Bearer;
use self::door::Door;
use crate::daemon::apps::Apps;
use crate::daemon::units::Units;

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().peer.clone()
    }
}

/// Answers requests on the listeners until `ended`, then lets those under way end.
///
/// # Errors
/// The unix socket failed.
pub async fn serve<U: Units>(
    listeners: Listeners,
    apps: Arc<Apps<U>>,
    access: Access,
    ended: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let door = Door::new(listeners.unix, access.clone());
    let router = routes::router(apps, access);
    let (end, over) = watch::channel(false);
    let mut others = JoinSet::new();
    if !listeners.tcp.is_empty() {
        let bearer = Arc::new(Bearer::of_credential());
        for listener in listeners.tcp {
            let (router, bearer) = (router.clone(), Arc::clone(&bearer));
            others.spawn(tcp::serve(listener, router, bearer, over.clone()));
        }
    }
    let ended = async move {
        ended.await;
        end.send_replace(true);
    };
    let service = router.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(door, service)
        .with_graceful_shutdown(ended)
        .await;
    while others.join_next().await.is_some() {}
    served
}
