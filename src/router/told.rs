//! What the log is told about limits that clients meet.
//!
//! **Invariant:** whoever meets a limit a million times does not fill the log: of each there is one line in [`PAUSE`] and thread,
//! which says how many there were.

use std::cell::Cell;

use super::alarm::Millis;

/// Between two lines about one limit, in milliseconds.
const PAUSE: Millis = 10_000;

/// A limit that a client can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A head did not come in time: 408.
    HeadTime,
    /// A body stood still: 408.
    BodyStall,
    /// A body is too large: 413.
    BodyBytes,
    /// A target is too long: 414.
    Target,
    /// An address has too many connections: 429.
    Address,
    /// A head has too many fields or bytes: 431.
    Head,
    /// A client takes nothing of its answer: a reset.
    WriteStall,
    /// There are too many connections: they wait.
    Connections,
    /// A connection did not begin with a proper PROXY header: it is closed.
    ProxyHeader,
    /// The service manager keeps no more streams.
    Kept,
}

/// How many limits there are.
const KINDS: usize = Limit::Kept as usize + 1;

impl Limit {
    /// The limit that an answer of ours speaks of. Both of those with 408 end differently, so they are told apart by who knows.
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            413 => Some(Self::BodyBytes),
            414 => Some(Self::Target),
            429 => Some(Self::Address),
            431 => Some(Self::Head),
            _ => None,
        }
    }

    /// The key that sets it in the machine's file, or the directive in the unit's.
    fn key(self) -> &'static str {
        match self {
            Self::HeadTime => "head_timeout",
            Self::BodyStall => "body_stall",
            Self::BodyBytes => "body_bytes",
            Self::Target => "target_bytes",
            Self::Address => "connections_per_address",
            Self::Head => "head_bytes, head_fields",
            Self::WriteStall => "write_stall",
            Self::Connections => "connections",
            Self::ProxyHeader => "proxy_protocol",
            Self::Kept => "FileDescriptorStoreMax=",
        }
    }
}

/// What a thread has told of each limit.
#[derive(Debug, Default)]
pub struct Told {
    /// When last, and how many there have been since.
    kinds: [Cell<(Option<Millis>, u64)>; KINDS],
}

impl Told {
    /// `client` met `limit`, which is said in words by `what`.
    pub fn tell(&self, limit: Limit, what: &str, client: &str, now: Millis) {
        if let Some(others) = self.due(limit, now) {
            tracing::warn!(
                limit = limit.key(),
                client,
                others,
                "a client met a limit: {what}"
            );
        }
    }

    /// How many others there were since the last line, if it is time for another.
    fn due(&self, limit: Limit, now: Millis) -> Option<u64> {
        let kind = &self.kinds[limit as usize];
        let (last, others) = kind.get();
        let due = last.is_none_or(|last| now >= last + PAUSE);
        kind.set(match due {
            true => (Some(now), 0),
            false => (last, others + 1),
        });
        due.then_some(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_one_line_is_told_and_how_many_there_were() {
        let told = Told::default();
        assert_eq!(told.due(Limit::Head, 5), Some(0));
        assert_eq!(told.due(Limit::Head, 6), None);
        assert_eq!(told.due(Limit::Target, 6), Some(0), "each for itself");
        assert_eq!(told.due(Limit::Head, 5 + PAUSE - 1), None);
        assert_eq!(told.due(Limit::Head, 5 + PAUSE), Some(2));
        assert_eq!(told.due(Limit::Head, 6 + PAUSE), None);
    }
}
