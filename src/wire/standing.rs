//! How an app stands, as its status, its events and its lines of the journal say it.

use serde::{Deserialize, Serialize};

/// How an app stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// As [`Status::state`](super::api::Status::state).
    pub state: String,
    /// What the active slot runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Run>,
    /// What is to become active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Run>,
    /// What is kept to go back to, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Run>,
    /// When an attempt last switched, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_at_ms: Option<u64>,
    /// Failed probes in a row, after the switch.
    #[serde(default)]
    pub health_fail_streak: u8,
    /// Why the last switch was taken back, if it was: a cause's code, where that was done by itself; `asked`, where somebody did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_cause: Option<String>,
    /// When, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_at_ms: Option<u64>,
    /// Who began the attempt under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiated_by: Option<String>,
    /// The commit that is live, where its release is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The commit of the release before (`prev` of the status).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_commit: Option<String>,
}

/// What runs in a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The slot.
    pub slot: String,
    /// The release.
    pub release: Option<String>,
    /// The run, once it is up.
    pub boot_id: Option<String>,
}
