//! What a stream is made of: messages that can be foretold, so that a lost, doubled or changed one is noticed.

use sha2::{Digest, Sha256};

use crate::wire::hex;

/// The messages of one stream, in order: `0 5feceb66`, `1 6b86b273`, …: a number and the beginning of its SHA-256.
#[derive(Clone, Debug, Default)]
pub struct Line {
    number: u64,
    all: Sha256,
}

impl Line {
    /// The number of the next message.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next message.
    #[allow(clippy::should_implement_trait)] // It never ends, and an iterator's digest could not be asked for.
    pub fn next(&mut self) -> String {
        let digest = Sha256::digest(self.number.to_string());
        let message = format!("{} {}", self.number, hex(&digest[..4]));
        self.all.update(&message);
        self.number += 1;
        message
    }

    /// The digest of all messages so far.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&self.all.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_say_the_same() {
        let (mut one, mut other) = (Line::default(), Line::default());
        assert_eq!(one.next(), "0 5feceb66");
        assert_eq!(one.next(), "1 6b86b273");
        assert_ne!(one.digest(), other.digest());
        other.next();
        other.next();
        assert_eq!(one.digest(), other.digest());
    }
}
