//! What kept descriptors are called, so that a process that did not make them knows what they are.
//!
//! **Invariant:** a name is one that sd_notify(3) allows: up to 255 printable characters of ASCII, no colon.

use super::control::Until;
use super::counts::{Class, RunName};
use crate::wire::control::Connection;

/// How the names of kept descriptors begin; those of listeners come from their socket units.
const PREFIX: &str = "kept.";

/// The longest name.
const LONGEST: usize = 255;

/// How much of a route is kept, for people.
const ROUTE: usize = 64;

/// How much of a method is kept; those that are registered have at most 17 characters.
const METHOD: usize = 17;

/// This instance was told to stop accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// When the drain is to be over.
    pub until: Option<Until>,
}

impl Draining {
    /// What a name says, if it is of a drain.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let until = name.strip_prefix(PREFIX)?.strip_prefix("draining")?;
        match until.strip_prefix('.') {
            Some(until) => Some(Self {
                until: Some(until.parse().ok()?),
            }),
            None => until.is_empty().then_some(Self { until: None }),
        }
    }

    /// The name that says so.
    #[must_use]
    pub fn name(self) -> String {
        match self.until {
            Some(until) => format!("{PREFIX}draining.{until}"),
            None => format!("{PREFIX}draining"),
        }
    }
}

/// What is said of a stream or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The request's.
    pub id: String,
    /// A stream or a tunnel.
    pub class: Class,
    /// Whose it is.
    pub run: RunName,
    /// When it was asked for, milliseconds since the epoch.
    pub since_ms: u64,
    /// Host and path, perhaps not all of it.
    pub route: String,
    /// How it was asked for, for the access log; empty if the version that kept it did not say.
    pub method: String,
    /// What the client was answered; 0 if the version that kept it did not say.
    pub status: u16,
    /// The client's address, which need not be that of its socket; empty if the name had no room for it.
    pub client: String,
}

/// By which the descriptors of one name are told from each other; pipes have two ends each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inodes {
    /// The client's socket.
    pub client: u64,
    /// The upstream's.
    pub upstream: u64,
    /// The pipe to the client.
    pub down: u64,
    /// The pipe to the upstream; 0 if there is none.
    pub up: u64,
}

impl Label {
    /// What it is, for people.
    #[must_use]
    pub fn describe(&self) -> Connection {
        Connection {
            class: self.class.name().to_owned(),
            since_ms: self.since_ms,
            client: self.client.clone(),
            route: self.route.clone(),
            boot_id: self.run.boot_id.clone(),
        }
    }

    /// Whether a name is of something kept, which this or another version may understand.
    #[must_use]
    pub fn is_kept(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// The name; `None` if there is none that says it all.
    #[must_use]
    pub fn name(&self, inodes: Inodes) -> Option<String> {
        let class = match self.class {
            Class::Request => return None,
            Class::Stream | Class::Tunnel => self.class.name(),
        };
        let Inodes {
            client,
            upstream,
            down,
            up,
        } = inodes;
        let mut name = format!(
            "{PREFIX}{class}.{}.{}.{}.{}.{}.{client}-{upstream}-{down}-{up}.",
            escape(&self.id),
            escape(&self.run.app),
            escape(&self.run.slot),
            escape(self.run.boot_id.as_deref().unwrap_or_default()),
            self.since_ms,
        );
        // Versions that know nothing of them read no further than the route.
        let mut more = ".".to_owned();
        push(&mut more, &self.method, 1 + METHOD);
        more.push_str(&format!(".{}", self.status));
        let client = format!(".{}", escape(&self.client));
        // Rather cut the route than forget who it is: that nobody can find out otherwise.
        if name.len() + more.len() + client.len() <= LONGEST {
            more.push_str(&client);
        }
        let longest = LONGEST - more.len();
        if name.len() > longest {
            return None;
        }
        let end = longest.min(name.len() + ROUTE);
        push(&mut name, &self.route, end);
        Some(name + &more)
    }

    /// What a name says, if it is of a connection.
    #[must_use]
    pub fn from_name(name: &str) -> Option<(Self, Inodes)> {
        let mut parts = name.strip_prefix(PREFIX)?.split('.');
        let mut part = || parts.next();
        let class = match part()? {
            "stream" => Class::Stream,
            "tunnel" => Class::Tunnel,
            _ => return None,
        };
        let id = unescape(part()?)?;
        let run = RunName {
            app: unescape(part()?)?,
            slot: unescape(part()?)?,
            boot_id: Some(unescape(part()?)?).filter(|boot| !boot.is_empty()),
        };
        let since_ms = part()?.parse().ok()?;
        let inodes = part()?.split('-').map(|inode| inode.parse().ok());
        let inodes: Vec<u64> = inodes.collect::<Option<_>>()?;
        let &[client, upstream, down, up] = &inodes[..] else {
            return None;
        };
        let label = Self {
            id,
            class,
            run,
            since_ms,
            route: unescape(part()?)?,
            method: part().and_then(unescape).unwrap_or_default(),
            status: part().and_then(|it| it.parse().ok()).unwrap_or(0),
            client: part().and_then(unescape).unwrap_or_default(),
        };
        let inodes = Inodes {
            client,
            upstream,
            down,
            up,
        };
        Some((label, inodes))
    }
}

/// As much of `text` as `name` has room for up to `end`.
fn push(name: &mut String, text: &str, end: usize) {
    for part in text.chars().map(|c| escape(c.encode_utf8(&mut [0; 4]))) {
        if name.len() + part.len() > end {
            break;
        }
        name.push_str(&part);
    }
}

/// Everything but letters, digits, `-`, `_` and `/` as `%` and two hexadecimal digits.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02x}"));
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODES: Inodes = Inodes {
        client: 18_446_744_073_709_551_615,
        upstream: 2,
        down: 3,
        up: 0,
    };

    fn label(slot: &str, route: &str) -> Label {
        Label {
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            class: Class::Stream,
            run: RunName {
                app: "web".to_owned(),
                slot: slot.to_owned(),
                boot_id: None,
            },
            since_ms: 1_700_000_000_000,
            route: route.to_owned(),
            method: "GET".to_owned(),
            status: 200,
            client: "2001:db8::7".to_owned(),
        }
    }

    #[test]
    fn a_connection_is_read_from_the_name_that_was_written() {
        for label in [label("green", "example.org/a/b%20c"), label("a.b:c\n", "")] {
            let name = label.name(INODES).expect("there is one");
            assert_eq!(Label::from_name(&name), Some((label, INODES)), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        }
    }

    #[test]
    fn what_an_earlier_version_named_is_understood() {
        let name = "kept.stream.id.web.green..5.1-2-3-0.a/b";
        let (label, inodes) = Label::from_name(name).expect("it is whole");
        let said = (label.route.as_str(), label.method.as_str(), label.status);
        assert_eq!((said, inodes.down), (("a/b", "", 0), 3));
        assert_eq!(label.client, "", "whoever picks it up asks the socket");
    }

    #[test]
    fn a_long_route_is_cut_and_a_name_that_would_be_too_long_is_none() {
        let long = label("green", &"/é".repeat(200));
        let name = long.name(INODES).expect("there is one");
        assert!(name.len() <= LONGEST);
        let (read, _) = Label::from_name(&name).expect("it is whole");
        assert!(long.route.starts_with(&read.route) && read.route.len() > 20);
        assert_eq!(read.client, long.client);
        assert_eq!(label(&"x".repeat(200), "").name(INODES), None);
    }

    #[test]
    fn a_drain_is_read_from_the_name_that_was_written() {
        for until in [None, Some(1_700_000_000_000)] {
            let draining = Draining { until };
            assert_eq!(Draining::from_name(&draining.name()), Some(draining));
        }
        for other in ["http", "draining", "kept.drainingly", "kept.draining.soon"] {
            assert_eq!(Draining::from_name(other), None, "{other}");
        }
    }
}
