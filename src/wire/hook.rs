//! What slotd and the unit of a hook say to each other, on a unix socket of their own.
//!
//! ```text
//! slotd ► one line: an Order as JSON
//! hook  ► nothing while the command runs; then a line, `done`, and the end
//! ```
//! A hook whose command fails ends without the line, with that command's exit status. One that finds slotd's side closed ends at once, and
//! its unit with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer of a hook whose command ended with status 0.
pub const DONE: &str = "done\n";

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// `before_switch`, ….
    pub hook: String,
    /// Its command, as slotd knows it; a unit of an older file has another.
    pub command: Vec<String>,
    /// The id of the release in whose directory it runs.
    pub release: String,
    /// `SLOT_GENERATION`, `SLOT_CAUSE`, ….
    pub facts: BTreeMap<String, String>,
}
