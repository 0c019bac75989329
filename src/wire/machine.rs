//! slot-machine's API, as its users' scripts see it: HTTP/1.1 with JSON on 127.0.0.1, without a token.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /` | | `{"status":"ok"}` |
//! | `POST /deploy` | `{"commit":"main"}` | [`Deployed`]: 200 whether or not the candidate passed; 400 no commit given, 409 busy, 500 what came before the candidate failed |
//! | `POST /rollback` | | [`Deployed`], without `previous_commit`; 400 nothing to roll back to, 409 busy, 500 the target did not come up |
//! | `GET /status` | | [`Status`] |
//!
//! A `POST` needs `Content-Type: application/json` (415 otherwise) and a `Host` that is this machine's own name for itself (403
//! otherwise): a page in a browser can send neither. What is empty is an empty string, as there.

use serde::{Deserialize, Serialize};

use super::date::civil;

/// How a deployment or a rollback ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// It serves.
    pub success: bool,
    /// `slot-<hash8>`.
    #[serde(default)]
    pub slot: String,
    /// 40 hexadecimal digits.
    #[serde(default)]
    pub commit: String,
    /// What was live before; a rollback does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_commit: Option<String>,
    /// Why not, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `build-failed`, `health-timeout`, …: as `cause` in slotd's own API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The last lines that the setup command or the candidate wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// Where things are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `slot-<hash8>`.
    #[serde(default)]
    pub live_slot: String,
    /// 40 hexadecimal digits.
    #[serde(default)]
    pub live_commit: String,
    /// What `rollback` goes to.
    #[serde(default)]
    pub previous_slot: String,
    /// Its commit.
    #[serde(default)]
    pub previous_commit: String,
    /// `slot-staging`, in the data directory.
    #[serde(default)]
    pub staging_dir: String,
    /// RFC 3339.
    #[serde(default)]
    pub last_deploy_time: String,
    /// The live process runs and is sent requests.
    #[serde(default)]
    pub healthy: bool,
    /// `idle`, `preparing`, …: as `state` in slotd's own API.
    #[serde(default)]
    pub state: String,
    /// Where slotd's own API of this daemon is, for all that slotctl can do.
    #[serde(default)]
    pub socket: String,
    /// What an administrator should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A line of `journal.ndjson`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// RFC 3339.
    pub time: String,
    /// `deploy` or `rollback`.
    pub action: String,
    /// What is live since.
    pub commit: String,
    /// `slot-<hash8>`.
    pub slot_dir: String,
    /// What was live before.
    #[serde(default)]
    pub prev_commit: String,
}

/// `2026-11-21T10:44:30Z` (RFC 3339, section 5.6), of milliseconds since the epoch.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (784_111_777, "1994-11-06T08:49:37Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1000 + 999), text);
        }
    }
}
