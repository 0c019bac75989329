//! What a public socket is called that `slotctl listener add` has added.

use std::fmt;
use std::str::FromStr;

use crate::deploy::NameError;

/// The longest, in bytes: with what units are called around it, it is far from the longest name of a unit (systemd.unit(5), 255).
const LONGEST: usize = 40;

/// A listener's name: a part of its unit's, and the socket's `FileDescriptorName=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(String);

impl ListenerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ListenerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=LONGEST).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-');
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "listener name",
            value: text.to_owned(),
            rule: "use 1 to 40 lower-case letters, digits and hyphens, no hyphen first: internal",
        })
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_called_what_a_unit_can_be() {
        for right in ["internal-2", "443"] {
            assert!(right.parse::<ListenerName>().is_ok(), "{right:?}");
        }
        for wrong in ["", "-x", "Web", "a:b", "a/b", "ä", &"x".repeat(41)] {
            assert!(wrong.parse::<ListenerName>().is_err(), "{wrong:?}");
        }
    }
}
