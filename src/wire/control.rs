//! What slotd asks of a router instance over its control socket (HTTP/1.1 with JSON on a unix socket).
//!
//! | request | answer |
//! |---|---|
//! | `PUT /table` with a [`Table`](super::table::Table) | 200 [`Applied`] once *every thread* has swapped; 409 [`Applied`] with the router's own revision if the table is older; 400 with [`Problem`] if it makes no sense (nothing changed) |
//! | `GET /table` | 200 [`Table`](super::table::Table), 404 while the router has none |
//! | `GET /stats` | 200 [`Stats`], of every slot, without latencies |
//! | `GET /stats?app=web` | 200 [`Stats`], of that app's slots alone, with their latencies |
//! | `GET /drained?app=web&slot=blue&boot_id=…&wait_ms=1000` | 200 [`InFlight`], at once if nothing is in flight there, else when nothing is, or when the wait ends (`boot_id` optional) |
//! | `GET /connections?app=web&slot=blue` | 200 [`Listing`] |
//! | `POST /cut?app=web&slot=blue&boot_id=…&class=streams&after_ms=10000&spread_ms=5000` | 200; what is under way there is reset some time after the wait, each at its own moment, unless it ends before (`boot_id` and `class` optional) |
//! | `POST /stop-accepting?limit_ms=…` | 200 [`Stats`]; the instance drains and exits, with what is left after the limit cut (without one: never), and stays so if it is killed |

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// The revision in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// [`Table::revision`](super::table::Table::revision).
    pub revision: u64,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence.
    pub error: String,
}

/// Requests under way, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Ordinary requests, from the choice of a slot to the last byte of the answer.
    pub requests: u64,
    /// Answers relayed to the end of the connection (`text/event-stream`).
    pub streams: u64,
    /// Connections that were upgraded (WebSocket).
    pub tunnels: u64,
}

impl InFlight {
    /// All classes together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.requests + self.streams + self.tunnels
    }
}

impl std::iter::Sum for InFlight {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            requests: a.requests + b.requests,
            streams: a.streams + b.streams,
            tunnels: a.tunnels + b.tunnels,
        })
    }
}

/// Something that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `request`, `stream`, `tunnel`.
    pub class: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: u64,
    /// The client's address.
    pub client: String,
    /// Host and path, perhaps not all of it.
    pub route: String,
    /// The run that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

/// What is under way at a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Oldest first.
    pub connections: Vec<Connection>,
    /// How many there are besides.
    #[serde(default)]
    pub left_out: u64,
}

impl Listing {
    /// Puts those of another thread or instance to these.
    pub fn add(&mut self, other: Self) {
        self.connections.extend(other.connections);
        self.connections
            .sort_by_key(|connection| connection.since_ms);
        self.left_out += other.left_out;
    }
}

/// What one router instance holds and has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The table's revision; absent while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// False once it was told to stop accepting.
    pub accepting: bool,
    /// When its process began, milliseconds since the epoch.
    #[serde(default)]
    pub since_ms: u64,
    /// When its drain is cut, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until_ms: Option<u64>,
    /// Why its settings are not those of the machine's file: what is wrong there, and what holds instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where it listens.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Open client connections.
    pub connections: u64,
    /// Requests waiting for a slot to come up.
    pub held: u64,
    /// Streams and tunnels that would not outlive its process.
    #[serde(default)]
    pub unkept: u64,
    /// Descriptors of clients, of upstreams (also unused ones that are kept for the next request) and of pipes between them.
    #[serde(default)]
    pub descriptors: u64,
    /// Bytes of memory that messages under way have; what is kept for the next ones does not count.
    #[serde(default)]
    pub buffer_bytes: u64,
    /// Per slot and boot id; runs that ended stay until the table no longer names them and nothing is in flight.
    pub slots: Vec<SlotStats>,
}

/// A public socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The listener's name, as routes use it.
    pub name: String,
    /// `0.0.0.0:80`, `[::]:80`.
    pub address: String,
    /// Its connections begin with a header of the PROXY protocol.
    #[serde(default)]
    pub proxied: bool,
}

/// One run of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStats {
    /// The app's name.
    pub app: String,
    /// The slot's name.
    pub slot: String,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Now under way.
    pub in_flight: InFlight,
    /// Answers so far by status class: `[1xx, 2xx, 3xx, 4xx, 5xx]`. Event streams are left out.
    pub answers: [u64; 5],
    /// Requests that got no whole answer from the slot (connect errors, resets, time-outs). Event streams that ended early are left out.
    pub errors: u64,
    /// Requests whose clients left before the head of an answer came, and that are neither answered nor failed since.
    #[serde(default)]
    pub given_up: u64,
    /// How long its answers took, from when the request was the run's (after any hold, and when its body was whole) to the whole head of the
    /// answer. Event streams and upgrades are left out, and so is what got no answer. Only where one app's slots are asked for.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub latencies: Histogram,
}
