//! What slotd and the unit that makes staging say to each other, on a unix socket of their own.
//!
//! ```text
//! slotd ► one line: an Order as JSON
//! unit  ► Said::Wants, if it does not have the commit; slotd ► the commit as a pack, and the end
//! unit  ► what came of it, as one line more
//! ```

use serde::{Deserialize, Serialize};

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
