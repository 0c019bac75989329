//! HTTP/1.1 as bytes in and decisions out: what a request is, where its body ends, and what of it is
//! passed on.
//!
//! Nothing lenient: two readers of the same bytes must never see two different messages, so what
//! RFC 9112 lets a recipient repair is refused here instead, with a [`Refusal`] that says why.
//!
//! **Invariant:** no socket, no clock, no allocation that grows with the body. Heads are parsed in
//! place: results are [`Span`]s of the buffer that they were read from.
//!
//! **Invariant:** for every way to split the same input the verdict and the decoded messages are equal.
//!
//! Reading order: [`scan`] finds the end of a head, [`fields`] splits it, [`request`] and [`response`]
//! judge it, [`forward`] writes it for the other side; [`body`] finds the end of what follows.

pub mod again;
pub mod body;
pub mod chunked;
pub mod fields;
pub mod forward;
pub mod forwarded;
pub mod framing;
pub mod path;
pub mod request;
pub mod response;
pub mod scan;
pub mod target;
pub mod tokens;

/// Why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The status to answer a client with.
    pub status: u16,
    /// One sentence without its full stop.
    pub reason: &'static str,
}

impl Refusal {
    /// A request's body that is larger than allowed.
    pub const TOO_LARGE: Self = Self {
        status: 413,
        reason: "the request's body is too large",
    };

    /// A message that is malformed.
    #[must_use]
    pub const fn bad(reason: &'static str) -> Self {
        Self {
            status: 400,
            reason,
        }
    }
}

/// A part of the buffer that a message was parsed from, as offsets from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span from `start` up to `end`; a head is at most [`Limits::head_bytes`] long, so 32 bits do.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes of `buffer` that this span names.
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// True if it holds nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, its last empty line included; more is 431.
    pub head_bytes: usize,
    /// Fields in a head; more is 431.
    pub fields: usize,
    /// Bytes of a request target; more is 414.
    pub target_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            fields: 100,
            target_bytes: 8 * 1024,
        }
    }
}
