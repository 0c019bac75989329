//! The nouns of a deployment, each a type of its own so that one is never taken for another.
//!
//! **Invariant:** a value that exists is valid; parsing is the only way in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A name that was refused, and the rule it broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct NameError {
    /// What it was meant to be: `app name`, `slot name`, …
    pub what: &'static str,
    /// As it was given.
    pub value: String,
    /// What would be valid.
    pub rule: &'static str,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(value) {
                    Ok(Self(value.to_owned()))
                } else {
                    Err(NameError { what: $what, value: value.to_owned(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Lower-case letters, digits and inner hyphens, as unit and user names take them without escaping.
fn is_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    (1..=22).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && !value.ends_with('-')
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_hex(value: &str, digits: usize) -> bool {
    value.len() == digits
        && value
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

text!(
    /// What is deployed. At most 22 characters, so that `slot-app-<name>` is a valid user name (31 characters, sysusers.d(5)).
    AppName,
    "app name",
    "use 1 to 22 lower-case letters, digits and inner hyphens, beginning with a letter",
    is_label
);
text!(
    /// A place where an app runs: `blue`, `green`, …
    SlotName,
    "slot name",
    "use 1 to 22 lower-case letters, digits and inner hyphens, beginning with a letter",
    is_label
);
text!(
    /// Immutable bits on disk: the first eight hexadecimal digits of their hash.
    ReleaseId,
    "release id",
    "use the 8 hexadecimal digits that `slotctl status` shows",
    |value| is_hex(value, 8)
);
text!(
    /// What whoever deployed a release calls it: `v1.2`.
    Label,
    "label",
    "use 1 to 64 printable ASCII characters without spaces and `/`",
    |value| (1..=64).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
);
text!(
    /// What a request is known again by: an `Idempotency-Key`.
    Key,
    "idempotency key",
    "use 1 to 128 printable ASCII characters without spaces, quotes and backslashes; a UUID is one",
    |value| (1..=128).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
);
text!(
    /// One run of a slot: the unit's InvocationID (systemd.exec(5)), 32 hexadecimal digits.
    BootId,
    "boot id",
    "use the 32 hexadecimal digits of the unit's InvocationID",
    |value| is_hex(value, 32)
);

/// A slot's share of new requests, per cent: 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u8);

impl Weight {
    /// No request at all.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(100);

    /// So much per cent; `None` for more than all.
    #[must_use]
    pub fn new(percent: u8) -> Option<Self> {
        (percent <= Self::ALL.0).then_some(Self(percent))
    }

    /// Per cent.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// Both together; all of it, if that is more.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(Self::ALL.0))
    }

    /// What is left without another weight; none, if that is not less.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl FromStr for Weight {
    type Err = NameError;
    fn from_str(value: &str) -> Result<Self, NameError> {
        // `+5` and `005` are numbers to `u8`, and nobody means them.
        let plain = value == "0" || value.starts_with(|first: char| matches!(first, '1'..='9'));
        let percent = value.parse().ok().filter(|_| plain).and_then(Self::new);
        percent.ok_or_else(|| NameError {
            what: "weight",
            value: value.to_owned(),
            rule: "use a whole number of per cent, from 0 to 100",
        })
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// The number of an attempt to change an app's active release; grows with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The number after this one.
    ///
    /// # Panics
    /// After 2^64 deployments.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^64 deployments"))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment of the wall clock: milliseconds since 1970-01-01T00:00:00Z. Deadlines are kept on disk, so they
/// cannot be of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// This moment and a span later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment and a span earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How long it is from an earlier moment to this one; zero if that is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
