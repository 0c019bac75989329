//! Releases on disk: `releases/<id>/`, immutable once they have their name, and the symlinks that name them.
//!
//! ```text
//! /var/lib/slot/<app>/releases/<id>/       the bits
//!                     releases/<id>.sha256 their whole digest
//!                     incoming/<n>/        what is being unpacked, each upload in its own
//!                     blue -> releases/<id>   green -> …   live -> …   prev -> …
//! ```
//!
//! **Invariant:** a directory in `releases` is complete and on disk; what is not is in `incoming`.
//! **Invariant:** a symlink is replaced by rename, and what one names is not removed, so it always names something.
//! **Invariant:** whatever gets or loses a name here does so in `order`, where one comes after the other.

mod links;
mod order;
mod tree;
mod unpack;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use links::{link, link_in_turn, named};
pub use order::Turn;
pub use tree::stays_inside;
pub use unpack::unpack;

use crate::deploy::ReleaseId;
use order::Ledger;

/// What went wrong with a release.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The archive holds something that a release may not.
    #[error("the archive is refused: {path:?} {why}")]
    Refused {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The archive ends before its end, or is none.
    #[error("the upload is not a whole tar archive; was slotctl interrupted? Deploy again")]
    Truncated(#[source] io::Error),
    /// The archive has no file in it.
    #[error("the archive is empty: name a binary or a directory with at least one file in it")]
    Empty,
    /// Two different contents have the same id.
    #[error("release {id} is on disk with other content; remove {path:?} and deploy again")]
    Collision {
        /// The id of both.
        id: ReleaseId,
        /// Where the other is.
        path: PathBuf,
    },
    /// Nobody waits for the upload any more.
    #[error("the deployment that the upload was for has ended")]
    Unwanted,
    /// The disk refused.
    #[error("cannot {operation} {path:?}{}", if source.kind() == io::ErrorKind::StorageFull { " (the file system is full: `df -h` shows it; free some space, then deploy again)" } else { "" })]
    Disk {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ReleaseError {
    fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            operation,
            path,
            source,
        }
    }
}

/// Removes the releases that nothing needs: not in use, and not among the `keep` newest of the others.
///
/// Whoever calls may have decided on it some time ago, so what it goes by may not be all: a release that a symlink names, or that was
/// uploaded last and has yet to be started, stays too.
///
/// # Errors
/// What could not be removed; the rest has been tried.
pub fn prune(root: &Path, in_use: &BTreeSet<ReleaseId>, keep: usize) -> Result<(), ReleaseError> {
    let mut result = Ok(());
    for doomed in order::alone(root, |ledger| doom(root, ledger, in_use, keep))? {
        // Trees are removed when the others may come again: that can take long.
        let removed =
            doomed.and_then(|path| remove_tree(&path).map_err(ReleaseError::disk("remove", &path)));
        if result.is_ok() {
            result = removed;
        }
    }
    result
}

/// Takes the names of the releases that are to be removed away, so that a crash leaves no half of a release under one.
fn doom(
    root: &Path,
    ledger: &Ledger,
    in_use: &BTreeSet<ReleaseId>,
    keep: usize,
) -> Result<Vec<Result<PathBuf, ReleaseError>>, ReleaseError> {
    let releases = root.join("releases");
    let listed = match fs::read_dir(&releases) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ReleaseError::disk("list", &releases)(error)),
    };
    let mut idle: Vec<_> = listed
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let id: ReleaseId = entry.file_name().to_str()?.parse().ok()?;
            (!in_use.contains(&id)).then_some(())?;
            Some((entry.metadata().ok()?.modified().ok()?, id))
        })
        .collect();
    idle.sort_by(|one, other| other.cmp(one));
    let named = links::all_named(root)?;
    Ok(idle
        .into_iter()
        .skip(keep)
        .map(|(_, id)| id)
        .filter(|id| !named.contains(id) && ledger.uploaded.as_ref() != Some(id))
        .map(|id| {
            let path = releases.join(id.as_str());
            // One that was removed before may still be on its way out.
            let doomed = releases.join(format!("{id}.{}.removed", Turn::next().number()));
            fs::rename(&path, &doomed).map_err(ReleaseError::disk("remove", &path))?;
            let _ = fs::remove_file(digest_path(root, &id));
            Ok(doomed)
        })
        .collect())
}

/// Removes a tree, read-only directories included.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Clears what a crash left behind: half-unpacked uploads and half-removed releases.
///
/// # Errors
/// What could not be removed.
pub fn tidy(root: &Path) -> Result<(), ReleaseError> {
    let (incoming, doomed) = (root.join("incoming"), root.join("incoming.removed"));
    remove_tree(&doomed).map_err(ReleaseError::disk("remove", &doomed))?;
    // An upload whose owner has just ended may still be writing there, and clears what it makes anew.
    match fs::rename(&incoming, &doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ReleaseError::disk("remove", &incoming)(error));
        }
        _ => remove_tree(&doomed).map_err(ReleaseError::disk("remove", &doomed))?,
    }
    let Ok(listed) = fs::read_dir(root.join("releases")) else {
        return Ok(());
    };
    for entry in listed.filter_map(Result::ok) {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "removed")
        {
            remove_tree(&path).map_err(ReleaseError::disk("remove", &path))?;
        }
    }
    Ok(())
}

fn digest_path(root: &Path, id: &ReleaseId) -> PathBuf {
    root.join("releases").join(format!("{id}.sha256"))
}
