//! `history.jsonl`: one line per thing that ended, for people and scripts; nothing is decided from it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files::{FileError, append};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The attempt.
    pub generation: u64,
    /// `ended`, `soak`, `rolled-back`, `forced`.
    pub event: String,
    /// The slot.
    pub slot: Option<String>,
    /// The release.
    pub release: Option<String>,
    /// The cause's code.
    pub cause: Option<String>,
    /// One sentence for people.
    pub text: String,
}

/// An app's history.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
}

impl History {
    /// The history in that file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be written; what the line tells has happened all the same.
    pub fn add(&self, entry: &Entry) -> Result<(), FileError> {
        let mut line = serde_json::to_string(entry).expect("an entry is strings and numbers");
        line.push('\n');
        append(&self.path, &line)
    }

    /// The highest generation that the history names; a line that cannot be read is passed over.
    #[must_use]
    pub fn last_generation(&self) -> u64 {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Entry>(line).ok())
            .map(|entry| entry.generation)
            .max()
            .unwrap_or(0)
    }
}
