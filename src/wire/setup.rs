//! What slotd and the unit of a build say to each other, on a unix socket of their own.
//!
//! ```text
//! slotd   ► one line: an Order as JSON; then the release as a tar archive, to that archive's end
//! builder ► nothing while the command runs; then what it made of the release as a tar archive, and the end
//! ```
//! A builder whose command fails ends without an archive, with that command's exit status. One that finds slotd's side closed ends at
//! once, and its unit with it.

use serde::{Deserialize, Serialize};

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The id of the release.
    pub release: String,
    /// The command, as slotd knows it; a unit of an older file has another.
    pub command: Vec<String>,
}
