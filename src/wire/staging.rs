//! What slotd and the unit that makes staging say to each other, on a unix socket of their own.
//!
//! ```text
//! slotd ► one line: an Order as JSON
//! unit  ► Said::Wants, if it does not have the commit; slotd ► the commit as a pack, and the end
//! unit  ► what came of it, as one line more
//! ```

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

/// No sentence of the unit's is kept longer, in characters.
const LONGEST_SENTENCE: usize = 2000;

/// What staging is to be made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The id of the release.
    pub release: String,
    /// What it is of: 40 hexadecimal digits.
    pub commit: String,
}

/// What the unit says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "kebab-case")]
pub enum Said {
    /// The commit is to be sent.
    Wants {
        /// Others of which nothing need be sent: 40 hexadecimal digits each.
        have: Vec<String>,
    },
    /// Staging is of the release now, or was before.
    Made,
    /// It is as it was, because there is work in it.
    Kept {
        /// A sentence.
        why: String,
    },
    /// It is as it was, because something failed.
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
            Self::Kept { why } | Self::Failed { why } => Some(why),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    #[test]
    fn a_unit_that_says_too_much_is_not_listened_to_and_its_sentence_is_cut() {
        let mut endless = BufReader::new(io::repeat(b'x').take(1 << 20));
        let error = Said::read(&mut endless).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(endless.into_inner().limit() > 900 << 10);
        let why = "\u{e4}".repeat(LONGEST_SENTENCE + 1);
        let line = serde_json::to_string(&Said::Kept { why }).unwrap() + "\n";
        let Said::Kept { why } = Said::read(&mut line.as_bytes()).unwrap() else {
            panic!("{line}");
        };
        assert_eq!(why.chars().count(), LONGEST_SENTENCE);
    }
}
