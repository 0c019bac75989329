//! Trees of files: copied, exchanged, removed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::StagingError;

/// Copies what is in a directory into another: at no cost where the file system can share the files' blocks (ioctl_ficlone(2)), and
/// else when nobody else reads or writes (ioprio_set(2)).
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StagingError> {
    let failed = |said: String| StagingError::Copy {
        from: from.to_owned(),
        to: to.to_owned(),
        said,
    };
    // What is copied for nobody any more ends too.
    let copied = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "ionice"])
        .args(["-c", "3", "cp", "-a", "--no-preserve=ownership"])
        .args(["--reflink=auto", "--"])
        .arg(from.join("."))
        .arg(to)
        .stdin(Stdio::null())
        .output();
    let copied = copied.map_err(|error| {
        failed(format!(
            "setpriv cannot be run: {error}; install util-linux"
        ))
    })?;
    if copied.status.success() {
        return Ok(());
    }
    // The first line has the cause; with a full disk there is one for each file.
    let said = String::from_utf8_lossy(&copied.stderr);
    Err(failed(said.lines().next().unwrap_or_default().to_owned()))
}

/// Removes each `.git` below a directory, but not its own. Symlinks are not followed.
///
/// Once it is the user's, git goes into such a repository and does what is configured there (`core.fsmonitor`, git-config(1)).
pub(super) fn remove_repositories(top: &Path) -> Result<(), StagingError> {
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        let failed = |error| StagingError::disk("read", &directory)(error);
        // One that cannot be read could still be gone through, and nothing could be removed from one that cannot be written to.
        let mode = directory.metadata().map_err(failed)?.permissions().mode();
        let open = || fs::set_permissions(&directory, Permissions::from_mode(mode | 0o700));
        if mode & 0o500 != 0o500 {
            open().map_err(failed)?;
        }
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != ".git" {
                if entry.file_type().map_err(failed)?.is_dir() {
                    left.push(entry.path());
                }
            } else if directory != top {
                open().map_err(failed)?;
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Gives each of two directories the other's name, at one moment (rename(2), `RENAME_EXCHANGE`).
pub(super) fn exchange(one: &Path, other: &Path) -> Result<(), StagingError> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).map_err(|error| {
        StagingError::disk("exchange with the one that is there", one)(error.into())
    })
}

/// Removes a symlink; what is none stays.
pub(super) fn unlink(path: &Path) -> Result<(), StagingError> {
    if path.is_symlink() {
        fs::remove_file(path).map_err(StagingError::disk("remove", path))?;
    }
    Ok(())
}

/// Removes a tree, read-only directories included, or a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StagingError> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Go's modules are in such.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let _ = Command::new("chmod")
                .args(["-R", "u+rwX", "--"])
                .arg(path)
                .status();
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    removed.map_err(StagingError::disk("remove", path))
}
