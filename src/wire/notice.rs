//! What slotd and the unit that sends an app's notices say to each other, on a unix socket of their own.
//!
//! ```text
//! slotd  ► a line: a Letter as JSON
//! notify ► a line: what came of it; and so on, until slotd ends it
//! ```

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

/// No sentence of the unit's is kept longer, in characters.
const LONGEST_SENTENCE: usize = 500;

/// The header in which the receiver finds the event's id, the same at every try.
pub const ID: &str = "Slot-Event-Id";

/// The header with the event's name.
pub const EVENT: &str = "Slot-Event";

/// The header with `sha256=` and HMAC-SHA256 of the body by the receiver's secret, in hexadecimal digits (RFC 2104).
pub const SIGNATURE: &str = "Slot-Signature";

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Whom: a receiver's key. Where that is, and its secret, the unit knows.
    pub to: String,
    /// [`ID`].
    pub id: String,
    /// [`EVENT`].
    pub event: String,
    /// JSON, sent as it is.
    pub body: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "kebab-case")]
pub enum Said {
    /// The receiver has it.
    Sent,
    /// The receiver does not want it, and will not later.
    Refused {
        /// A sentence.
        why: String,
    },
    /// The receiver may take it later.
    Failed {
        /// A sentence.
        why: String,
    },
}

impl Said {
    /// Reads one, its sentence cut if it is too long.
    ///
    /// # Errors
    /// The unit is gone, or says something else, or says too much ([`io::ErrorKind::UnexpectedEof`]).
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        super::read_said(from, LONGEST_SENTENCE, |said| match said {
            Self::Refused { why } | Self::Failed { why } => Some(why),
            _ => None,
        })
    }
}

/// The body of a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The event's id: `web-12-1763750000000`.
    pub id: String,
    /// The machine.
    pub host: String,
    /// What happened.
    #[serde(flatten)]
    pub event: super::api::Event,
}
