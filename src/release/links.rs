//! The symlinks of an app's directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;

use crate::deploy::ReleaseId;

use super::order::{Turn, alone};
use super::{ReleaseError, Root};

/// Makes the symlink `name` of an app's directory name a release (or nothing), atomically and lastingly; does nothing when it does
/// already. Of two at once the one that was called last has the last word.
///
/// # Errors
/// The release is not on disk, or the disk refuses; the symlink is as it was.
pub fn link(
    root: impl Into<Root>,
    name: &str,
    release: Option<&ReleaseId>,
) -> Result<(), ReleaseError> {
    let root = &root.into();
    link_in_turn(root, Turn::next(), name, release)
}

/// As [`link`], for what was decided on before it is done: nothing happens if a later turn has set the symlink.
///
/// # Errors
/// As for [`link`].
pub fn link_in_turn(
    root: impl Into<Root>,
    turn: Turn,
    name: &str,
    release: Option<&ReleaseId>,
) -> Result<(), ReleaseError> {
    let root = &root.into();
    alone(root, |ledger| {
        if ledger.set.get(name).is_some_and(|latest| *latest > turn) {
            return Ok(());
        }
        set(root, name, release)?;
        ledger.set.insert(name.to_owned(), turn);
        for held in [&mut ledger.uploaded, &mut ledger.chosen] {
            if held.as_ref() == release {
                *held = None;
            }
        }
        Ok(())
    })
}

fn set(root: &Root, name: &str, release: Option<&ReleaseId>) -> Result<(), ReleaseError> {
    let path = root.join(name);
    if named(root, name).as_ref() == release
        && (release.is_some() || fs::symlink_metadata(&path).is_err())
    {
        return Ok(());
    }
    match release {
        Some(release) => {
            let target = root.target(release);
            fs::metadata(root.join(&target))
                .map_err(ReleaseError::disk("find the release", &root.join(&target)))?;
            // Nobody else uses this name now; what is there is left of a crash.
            let temporary = root.join(format!(".{name}.new"));
            let _ = fs::remove_file(&temporary);
            symlink(&target, &temporary)
                .map_err(ReleaseError::disk("make the symlink", &temporary))?;
            fs::rename(&temporary, &path)
                .map_err(ReleaseError::disk("replace the symlink", &path))?;
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ReleaseError::disk("remove the symlink", &path)(error));
            }
            _ => {}
        },
    }
    File::open(&**root)
        .and_then(|directory| directory.sync_all())
        .map_err(ReleaseError::disk("sync", root))
}

/// What a symlink of an app's directory names, if that is a release that is on disk.
#[must_use]
pub fn named(root: impl Into<Root>, name: &str) -> Option<ReleaseId> {
    let root = &root.into();
    let target = fs::read_link(root.join(name)).ok()?;
    let id = root.id(target.file_name()?)?;
    root.home(&id).is_dir().then_some(id)
}

/// What all of them name.
pub(super) fn all_named(root: &Root) -> Result<BTreeSet<ReleaseId>, ReleaseError> {
    let listed = fs::read_dir(&**root).map_err(ReleaseError::disk("list", root))?;
    let mut all = BTreeSet::new();
    for entry in listed {
        let entry = entry.map_err(ReleaseError::disk("list", root))?;
        all.extend(
            entry
                .file_name()
                .to_str()
                .and_then(|name| named(root, name)),
        );
    }
    Ok(all)
}
