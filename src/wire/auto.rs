//! What deploys by itself, and slotctl, ask slotd of that.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nothing is deployed by itself until somebody takes this back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Whose it is.
    pub by: String,
    /// What it is for.
    pub reason: Option<String>,
    /// Since when, in milliseconds since the epoch.
    pub at_ms: u64,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "automatic deployments are on hold by {}", self.by)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// What an app's remote has on its branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtRemote {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// What that is called there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}
