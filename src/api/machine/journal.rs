//! `journal.ndjson`: what was made live, a line each, as slot-machine's users read it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::store::{FileError, append};
use crate::wire::machine::Entry;

/// The file, and its last line.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    last: Mutex<Entry>,
}

impl Journal {
    /// The journal at a path; there need be no file yet.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that a crash cut off is none.
        let mut entries = text
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let last = entries.next().unwrap_or_default();
        Self {
            path,
            last: Mutex::new(last),
        }
    }

    /// What was last made live; of empty strings if nothing was.
    #[must_use]
    pub fn last(&self) -> Entry {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds a line, lastingly.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add(&self, entry: &Entry) -> Result<(), FileError> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(entry);
        let line = serde_json::to_string(entry).expect("an entry is strings");
        append(&self.path, &format!("{line}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_tells_what_was_last_made_live() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.ndjson");
        assert_eq!(Journal::at(path.clone()).last(), Entry::default());
        let journal = Journal::at(path.clone());
        let entry = Entry {
            time: "2026-11-21T10:44:30Z".to_owned(),
            action: "deploy".to_owned(),
            commit: "a".repeat(40),
            slot_dir: "slot-aaaaaaaa".to_owned(),
            prev_commit: String::new(),
        };
        journal.add(&entry).unwrap();
        assert_eq!(journal.last(), entry);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"time\":\"20");
        std::fs::write(&path, text).unwrap();
        assert_eq!(Journal::at(path).last(), entry);
    }
}
