//! What the log is told about limits that clients meet.
//!
//! **Invariant:** whoever meets a limit a million times does not fill the log: of each there is one line in [`PAUSE`] and thread,
//! which says how many there were.
//!
//! **Invariant:** a line says all that it has to say in its text: `journalctl` shows nothing else of it.

use std::cell::Cell;
use std::fmt::Display;
use std::io;

use super::alarm::Millis;
use super::counts::RunName;
use super::runs::Run;

/// Between two lines about one limit, in milliseconds.
const PAUSE: Millis = 10_000;

/// A limit that a client or an app can meet.
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
    /// A PROXY header did not come in time: the connection is reset.
    ProxyTime,
    /// One side of a tunnel has ended, and nothing came of the other.
    HalfClosed,
    /// A client goes on sending after the answer that was its last.
    Linger,
    /// Too many requests wait for an app that is down: 503.
    HeldRequests,
    /// Those that wait have too many bytes in their heads: 503.
    HeldBytes,
    /// One has waited for its app for too long: 503.
    HeldTime,
    /// One has waited for any table for too long: 503.
    TableTime,
    /// An app does not take a connection: 504.
    ConnectTime,
    /// It does not begin an answer: 504.
    ResponseTime,
    /// It does not come to its answer for interim ones: 502.
    Interim,
    /// It does not go on with one: a reset.
    ResponseStall,
}

/// How many limits there are.
const KINDS: usize = Limit::ResponseStall as usize + 1;

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

    /// What sets it: the key in the machine's file or the app's, or the directive in the router's unit.
    pub fn key(self) -> &'static str {
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
            Self::HeldRequests => "held_requests",
            Self::HeldBytes => "held_bytes",
            Self::HeldTime => "hold_timeout",
            Self::TableTime => "table_timeout",
            Self::ProxyTime => "proxy_header_timeout",
            Self::HalfClosed => "half_closed_timeout",
            Self::Linger => "linger_timeout",
            Self::Interim => "interim_answers",
            Self::ConnectTime => "connect_timeout",
            Self::ResponseTime => "response_timeout",
            Self::ResponseStall => "response_stall",
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
    /// `client`, or nobody in particular, met `limit`, which is said in words by `what`.
    pub fn tell(&self, limit: Limit, what: impl Display, client: &str, now: Millis) {
        if let Some(others) = self.due(limit, now) {
            let text = line(limit.key(), what, client, others);
            tracing::warn!(limit = limit.key(), client, others, "{text}");
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

/// The text of a line about a run of an app that failed a request of `client`, because of `limit` where that is why.
pub fn of_app(
    client: &str,
    run: &Run,
    what: &dyn Display,
    limit: Option<Limit>,
    error: Option<&io::Error>,
) -> String {
    let RunName { app, slot, .. } = run.name();
    let upstream = &run.upstream;
    let limit = limit.map_or_else(String::new, |limit| format!(" (limit {})", limit.key()));
    let error = error.map_or_else(String::new, |error| format!(": {error}"));
    format!("{client}: {app}@{slot}: {what}{limit}{error} (at {upstream})")
}

fn line(key: &str, what: impl Display, client: &str, others: u64) -> String {
    let who = match client {
        "" => String::new(),
        client => format!("{client}: "),
    };
    let more = match others {
        0 => String::new(),
        others => format!("; so did {others} others since the last such line"),
    };
    format!("{who}{what} (limit {key}){more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_line_has_key_and_client_and_how_many_more_there_were() {
        assert_eq!(
            line("head_timeout", "the head was late", "192.0.2.7", 3),
            "192.0.2.7: the head was late (limit head_timeout); so did 3 others since the last such line"
        );
        assert_eq!(
            line("connections", "there are too many", "", 0),
            "there are too many (limit connections)"
        );
    }

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
