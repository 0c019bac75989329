//! How much and how long: every bound that the router keeps, in one place.

use std::time::Duration;

use super::h1;

/// The bounds of a router; [`Limits::default`] is what is documented.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sizes of heads.
    pub heads: h1::Limits,
    /// From the first byte of a head to its last; then 408.
    pub head: Duration,
    /// A client connection without a request; then it is closed without a word.
    pub idle: Duration,
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
    /// After an answer that closes: how long a client may still send what is thrown away.
    pub linger: Duration,
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
    /// How long a request is held while there is no table at all.
    pub held_without_table: Duration,
    /// Client connections, all threads together; at the limit no more are accepted until one ends.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heads: h1::Limits::default(),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            body_stall: Duration::from_secs(60),
            write_stall: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            response_stall: Duration::from_secs(300),
            linger: Duration::from_secs(2),
            half_closed: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
            upstream_idle_count: 256,
            interim: 16,
            held: 10_000,
            held_bytes: 16 * 1024 * 1024,
            held_without_table: Duration::from_secs(90),
            connections: 100_000,
        }
    }
}
