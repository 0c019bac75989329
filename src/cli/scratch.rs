//! Directories that go with their process, also when that is killed: the next one clears them away.
//!
//! **Invariant:** a directory of a process that runs is never removed: it has a lock in it that the kernel lets go of at that process's
//! end, and it gets the lock's name only when it is held.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

/// What all their names begin with.
const PREFIX: &str = "slot-";
/// The lock in each (flock(2)).
const LOCK: &str = "lock";

/// A directory that nobody else may look into. It is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    _lock: Flock<File>,
}

impl Scratch {
    /// Makes one in `base`, and removes those there that a killed process of this user has left.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(base: &Path) -> anyhow::Result<Self> {
        clear(base);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(base)
            .with_context(|| format!("cannot make a directory in {}", base.display()))?;
        let (unheld, held) = (
            directory.path().join("lock.new"),
            directory.path().join(LOCK),
        );
        let write = || format!("cannot write {}", held.display());
        let file = File::create(&unheld).with_context(write)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| error)
            .with_context(write)?;
        fs::rename(&unheld, &held).with_context(write)?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what was left. What cannot be looked at or removed is left for somebody who can.
fn clear(base: &Path) {
    let user = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_ours =
            fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == user);
        if !named || !is_ours {
            continue;
        }
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        if Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok() {
            // One that another process removes at the same time is gone all the same.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
        let base = tempfile::tempdir().unwrap();
        let used = Scratch::make(base.path()).unwrap();
        let left = base.path().join("slot-left");
        for folder in [
            &left,
            &base.path().join("other"),
            &base.path().join("slot-young"),
        ] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(left.join(LOCK), "").unwrap();
        fs::write(base.path().join("other").join(LOCK), "").unwrap();
        let second = Scratch::make(base.path()).unwrap();
        assert!(!left.exists());
        assert!(used.path().exists() && second.path().exists());
        assert!(base.path().join("other").exists(), "it is not ours");
        assert!(
            base.path().join("slot-young").exists(),
            "it may be being made"
        );
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}
