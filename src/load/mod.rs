//! A client that keeps count: requests without a pause, and streams that stay open, every byte of the answers looked at.
//!
//! It is what `slotctl demo` puts on its sample app, and speaks its words (see `cli::demo::app`): `release 2 on slot green` to a request,
//! [`Line`]s in a stream.
//!
//! **Invariant:** strict: nothing is tried again, and whatever is not exactly the answer that was due counts as a failure.
//! **Invariant:** it knows nothing of slots or deployments but what the answers say.

mod line;
mod requests;
mod sse;
mod tally;
mod websocket;

pub use line::Line;
pub use requests::{Load, Pulse};
pub use sse::EventStream;
pub use tally::{Failure, Tally};
pub use websocket::WebSocketStream as WebSocket;

use std::time::Duration;

/// Between two messages of a stream.
pub const TICK: Duration = Duration::from_millis(50);

/// How long any answer, and any pause in a stream, may last before it counts as a failure.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Messages that came, each the one that was due.
    pub messages: u64,
    /// Why it counts as cut: a gap, a wrong byte, an end that was not asked for.
    pub cut: Option<String>,
    /// The longest time between two messages.
    pub longest_pause: Duration,
}
