//! Releases on disk: `releases/<id>/`, immutable once they have their record, and the symlinks that name them.
//!
//! ```text
//! /var/lib/slot/<app>/releases/<id>/       the bits
//!                     releases/<id>.json   their record
//!                     incoming/<n>/        what is being laid out, each deployment in its own
//!                     blue -> releases/<id>   green -> …   live -> …   prev -> …
//! ```
//!
//! **Invariant:** what has a record is complete and on disk; a directory without one is no release.
//! **Invariant:** a symlink is replaced by rename, and what one names is not removed, so it always names something.
//! **Invariant:** whatever gets or loses a name here does so in `order`, where one comes after the other.

mod built;
mod incoming;
mod links;
mod order;
mod pack;
mod record;
mod root;
mod shared;
mod tree;
mod unpack;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use built::{Site, made_with};
pub use incoming::{Incoming, Links, Settled, Unfinished, begin, choose, known, take};
pub use links::{link, link_in_turn, named};
pub use order::Turn;
pub(crate) use pack::Exact;
pub use pack::{clear, pack, unpack_own};
pub use record::{About, Identity, Record};
pub use root::{Layout, Root};
pub use shared::{seed, share, shared};
pub use tree::stays_inside;
pub use unpack::unpack;

use crate::deploy::ReleaseId;
use crate::wire::release::Origin;
use incoming::set_aside;
use order::Ledger;

/// What `slotctl start` keeps at the top of a project, releases and state: never a part of what is uploaded.
pub const KEPT: [&str; 2] = [".slot-machine", ".slot"];

/// Whether a path, relative to a project, is of what is kept there.
#[must_use]
pub fn is_kept(inside: &Path) -> bool {
    KEPT.iter().any(|name| inside.starts_with(name))
}

/// What went wrong with a release.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It holds something that a release may not.
    #[error("the release is refused: {path:?} {why}")]
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
    #[error("the release is empty: name a binary or a directory with at least one file in it")]
    Empty,
    /// Two different releases have the same id.
    #[error("release {id} is on disk with other content; remove {0} and {0}.json, and deploy again", path.display())]
    Collision {
        /// The id of both.
        id: ReleaseId,
        /// Where the other is.
        path: PathBuf,
    },
    /// The commit's files could not be put there.
    #[error("{0}")]
    NotLaidOut(String),
    /// Neither a digest nor a commit.
    #[error("what the release was to be known by is neither a digest nor a commit")]
    Nameless,
    /// It is not on disk, or not any more.
    #[error("release {0} is not on disk; `slotctl releases` lists those that are")]
    Absent(ReleaseId),
    /// It lacks what the app's command runs.
    #[error("{0}")]
    Unrunnable(String),
    /// Nobody waits for it any more.
    #[error("the deployment that the release was for has ended")]
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
pub fn prune(
    root: impl Into<Root>,
    in_use: &BTreeSet<ReleaseId>,
    keep: usize,
) -> Result<(), ReleaseError> {
    let root = &root.into();
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
    root: &Root,
    ledger: &Ledger,
    in_use: &BTreeSet<ReleaseId>,
    keep: usize,
) -> Result<Vec<Result<PathBuf, ReleaseError>>, ReleaseError> {
    let idle = list(root)
        .into_iter()
        .filter(|(id, _)| !in_use.contains(id));
    let mut doomed = idle.skip(keep).map(|(id, _)| id).peekable();
    if doomed.peek().is_none() {
        return Ok(Vec::new());
    }
    let named = links::all_named(root)?;
    let doomed = doomed.filter(|id| {
        let held = [&ledger.uploaded, &ledger.chosen];
        !named.contains(id) && !held.contains(&&Some(id.clone()))
    });
    Ok(doomed
        .filter_map(|id| {
            // The record first: without it nobody takes the rest for a release.
            record::remove(root, &id)
                .and_then(|()| set_aside(root, &id))
                .transpose()
        })
        .collect())
}

/// The releases that are on disk, newest first.
#[must_use]
pub fn list(root: impl Into<Root>) -> Vec<(ReleaseId, Record)> {
    let root = &root.into();
    let mut listed: Vec<_> = directories(root)
        .into_iter()
        .filter_map(|id| Record::read(root, &id).map(|record| (id, record)))
        .collect();
    listed.sort_by(|(one, a), (other, b)| (b.made_ms, other).cmp(&(a.made_ms, one)));
    listed
}

/// Every directory in `releases` that has the name of a release.
fn directories(root: &Root) -> Vec<ReleaseId> {
    let Ok(listed) = fs::read_dir(root.homes()) else {
        return Vec::new();
    };
    listed
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| root.id(&entry.file_name()))
        .collect()
}

/// Removes a tree, read-only directories included.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A build may leave those (Go's modules are in such), and who is not root removes nothing from them.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        done => done,
    }
}

fn make_writable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Clears what a crash left behind: half-made and half-removed releases, and records of nothing. One that a symlink names has
/// served; where its record is lost it gets another.
///
/// # Errors
/// What could not be removed.
pub fn tidy(root: impl Into<Root>) -> Result<(), ReleaseError> {
    let root = &root.into();
    let (incoming, doomed) = (root.join("incoming"), root.join("incoming.removed"));
    remove_tree(&doomed).map_err(ReleaseError::disk("remove", &doomed))?;
    // An upload whose owner has just ended may still be writing there, and clears what it makes anew.
    match fs::rename(&incoming, &doomed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ReleaseError::disk("remove", &incoming)(error));
        }
        _ => remove_tree(&doomed).map_err(ReleaseError::disk("remove", &doomed))?,
    }
    order::alone(root, |ledger| {
        // Whoever has one still is not waited for any more.
        ledger.unfinished.clear();
        let named = links::all_named(root)?;
        for id in directories(root) {
            if Record::read(root, &id).is_some() || adopt(root, &id, named.contains(&id))? {
                continue;
            }
            set_aside(root, &id)?;
        }
        Ok(())
    })?;
    let Ok(listed) = fs::read_dir(root.records()) else {
        return Ok(());
    };
    for entry in listed.filter_map(Result::ok) {
        let path = entry.path();
        let Some((id, rest)) = path
            .file_name()
            .and_then(OsStr::to_str)
            .and_then(|name| name.split_once('.'))
        else {
            continue;
        };
        let id: Option<ReleaseId> = id.parse().ok();
        let is_orphan = !id.is_some_and(|id| root.home(&id).is_dir());
        let left = match rest {
            "json" => is_orphan,
            "sha256" | "json.new" => true,
            rest => rest.ends_with("removed"),
        };
        if left {
            let removed = if path.is_dir() {
                remove_tree(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(ReleaseError::disk("remove", &path))?;
        }
    }
    Ok(())
}

/// The commit of a work tree that slot-machine has made: its HEAD is one, and no branch (gitrepository-layout(5), `worktrees`).
fn work_tree_of(home: &Path, id: &ReleaseId) -> Origin {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let pointer = read(&home.join(".git"));
    let own = pointer.trim().strip_prefix("gitdir: ").unwrap_or_default();
    let commit = read(&home.join(own).join("HEAD")).trim().to_owned();
    let is_one = commit.len() == 40 && commit.bytes().all(|it| it.is_ascii_hexdigit());
    match is_one && commit.starts_with(id.as_str()) {
        true => Origin::Git {
            commit,
            reference: None,
        },
        false => Origin::Unknown,
    }
}

/// Gives a release without a record one, if it is a release: a symlink names it, or it has the digest that slot 0.1 noted instead.
fn adopt(root: &Root, id: &ReleaseId, is_named: bool) -> Result<bool, ReleaseError> {
    let home = root.home(id);
    let noted = fs::read_to_string(root.records().join(format!("{id}.sha256"))).unwrap_or_default();
    let digest = Some(noted.trim().to_owned())
        .filter(|noted| noted.len() == 64 && noted.starts_with(id.as_str()));
    if !is_named && digest.is_none() {
        return Ok(false);
    }
    let made = fs::metadata(&home)
        .and_then(|about| about.modified())
        .map_err(ReleaseError::disk("look at", &home))?;
    let record = Record {
        digest,
        origin: match root.layout() {
            Layout::SlotMachine => work_tree_of(&home, id),
            Layout::Slot => Origin::Unknown,
        },
        made_with: None,
        label: None,
        // An app that writes in its release may have left there what no release holds.
        size: incoming::survey(&home, Links::Any).map_or(0, |found| found.size),
        made_ms: incoming::millis(made),
    };
    record.write(root, id).map(|()| true)
}
