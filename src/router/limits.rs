//! How much and how long: every bound that the router keeps, in one place.

use std::time::Duration;

use super::h1;
use super::table::Bounds;
use crate::{config, wire};

/// The bounds of a router; [`Limits::default`] is what is documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sizes of heads.
    pub heads: h1::Limits,
    /// From the first byte of a head to its last; then 408.
    pub head: Duration,
    /// For the header of the PROXY protocol, where a connection begins with one; then a reset.
    pub proxy_header: Duration,
    /// A client connection without a request; then it is closed without a word.
    pub idle: Duration,
    /// Bytes of a request's body; more is 413.
    pub body_bytes: u64,
    /// A request body without progress; then 408 or a reset.
    pub body_stall: Duration,
    /// A client that takes nothing of its answer; then a reset.
    pub write_stall: Duration,
    /// To connect to an upstream; then 504.
    pub connect: Duration,
    /// From a whole request to the head of its answer; then 504.
    pub response_head: Duration,
    /// An answer of known end without progress; then a reset. Streams may be silent for ever.
    pub response_stall: Duration,
    /// After an answer that closes: how long a client that still sends may pause before its connection is closed.
    pub linger: Duration,
    /// And how long it may go on in all: what it sends is thrown away.
    pub linger_most: Duration,
    /// A tunnel of which one side has ended and the other is silent.
    pub half_closed: Duration,
    /// An unused upstream connection.
    pub upstream_idle: Duration,
    /// Unused connections per upstream and thread.
    pub upstream_idle_count: usize,
    /// Interim (1xx) answers to one request; more is 502.
    pub interim: usize,
    /// Requests held at once, all threads together; more is 503 at once.
    pub held: usize,
    /// Bytes of their heads, all threads together.
    pub held_bytes: usize,
    /// How long a request is held while its app is down, where the table does not say; then 503.
    pub hold: Duration,
    /// How long a request is held while there is no table at all; then 503.
    pub held_without_table: Duration,
    /// Client connections, all threads together; at the limit no more are accepted until one ends.
    pub connections: usize,
    /// Client connections of one address, all threads together; more is 429. 0 for any number.
    pub connections_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heads: h1::Limits::default(),
            head: Duration::from_secs(30),
            proxy_header: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            body_bytes: u64::MAX,
            body_stall: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            response_stall: Duration::from_secs(300),
            linger: Duration::from_secs(2),
            linger_most: Duration::from_secs(30),
            half_closed: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
            upstream_idle_count: 256,
            interim: 16,
            held: 10_000,
            held_bytes: 16 * 1024 * 1024,
            hold: Duration::from_secs(10),
            held_without_table: Duration::from_secs(90),
            connections: 100_000,
            connections_per_address: 1000,
        }
    }
}

impl Limits {
    /// These, but for those that the machine's file sets.
    #[must_use]
    pub fn with(mut self, set: &config::Limits) -> Self {
        fn take<T, U: From<T>>(limit: &mut U, set: Option<T>) {
            if let Some(value) = set {
                *limit = value.into();
            }
        }
        let size = |number: Option<u32>| number.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        take(&mut self.heads.head_bytes, size(set.head_bytes));
        take(&mut self.heads.fields, size(set.head_fields));
        take(&mut self.heads.target_bytes, size(set.target_bytes));
        take(&mut self.head, set.head_timeout);
        take(&mut self.idle, set.idle_timeout);
        take(&mut self.connect, set.connect_timeout);
        take(&mut self.connections, size(set.connections));
        take(
            &mut self.connections_per_address,
            size(set.connections_per_address),
        );
        take(&mut self.held, size(set.held_requests));
        let bytes = set
            .held_bytes
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        take(&mut self.held_bytes, bytes);
        take(&mut self.hold, set.apps.hold_timeout);
        take(&mut self.held_without_table, set.table_timeout);
        take(&mut self.proxy_header, set.proxy_header_timeout);
        take(&mut self.half_closed, set.half_closed_timeout);
        take(&mut self.interim, size(set.interim_answers));
        take(&mut self.linger_most, set.linger_timeout);
        take(&mut self.body_bytes, set.apps.body_bytes);
        take(&mut self.body_stall, set.apps.body_stall);
        take(&mut self.write_stall, set.apps.write_stall);
        take(&mut self.response_head, set.apps.response_timeout);
        take(&mut self.response_stall, set.apps.response_stall);
        self
    }

    /// What holds for the requests of an app that sets these itself.
    #[must_use]
    pub fn of(&self, app: &wire::table::Limits) -> Bounds {
        let time = |own: Option<u64>, all| own.map_or(all, Duration::from_millis);
        Bounds {
            body_bytes: app.body_bytes.unwrap_or(self.body_bytes),
            body_stall: time(app.body_stall_ms, self.body_stall),
            write_stall: time(app.write_stall_ms, self.write_stall),
            response_head: time(app.response_head_ms, self.response_head),
            response_stall: time(app.response_stall_ms, self.response_stall),
        }
    }
}
