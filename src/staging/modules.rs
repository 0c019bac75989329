//! What is below the submodules of a staging tree. It has their files, as the release does, and no repository of theirs: git looks at none
//! of these files, so each is looked at here.
//!
//! **Invariant:** nothing is changed by looking.

use std::fs;
use std::path::{Path, PathBuf};

use super::StagingError;
use super::look::print;
use super::work::Entry;

/// What an [`Entry`] of a file of a submodule has in place of git's two letters.
const KIND: [u8; 2] = *b"su";

/// What is below the submodules.
#[derive(Default)]
pub(super) struct Below {
    /// Each file, which is as it was as long as its print is.
    pub files: Vec<Entry>,
    /// A repository, which somebody made there.
    pub repository: Option<PathBuf>,
}

/// Looks at submodules, named from the top of the tree.
pub(super) fn below(tree: &Path, modules: Vec<PathBuf>) -> Result<Below, StagingError> {
    let mut below = Below::default();
    let mut left = modules;
    // Of one that is no directory git itself says so.
    left.retain(|module| {
        let about = tree.join(module).symlink_metadata();
        about.is_ok_and(|about| about.is_dir())
    });
    while let Some(directory) = left.pop() {
        let at = tree.join(&directory);
        let failed = |error| StagingError::disk("read", &at)(error);
        for entry in fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = directory.join(entry.file_name());
            let about = entry.metadata().map_err(failed)?;
            if entry.file_name() == ".git" {
                below.repository = Some(entry.path());
            } else if about.is_dir() {
                left.push(path);
            } else {
                below.files.push(Entry {
                    kind: KIND,
                    path,
                    print: Some(print(&about)),
                });
            }
        }
    }
    Ok(below)
}
