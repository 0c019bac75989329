//! A file that somebody drops: which one it is, and when it is whole.
//!
//! Whoever copies a file into place may take long; whoever renames it there is done. A file is taken for whole once it is the same at two
//! looks; a copy that stalls for longer is not told from one that is done, and `mv` from the same file system is the way to be sure.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::wire::hex;

/// Between two looks at a file.
const SETTLE: Duration = Duration::from_secs(2);

/// How often a file that changes is looked at; the next timer does it again.
const LOOKS: u32 = 150;

/// What programs call a file that they have not written yet.
const UNFINISHED: [&str; 7] = [
    ".tmp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".new",
    "~",
];

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dropped {
    pub(super) path: PathBuf,
    /// What changes with it: its inode, size and times.
    stamp: Stamp,
    /// SHA-256 of what is in it, in hexadecimal digits.
    pub(super) digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        Self {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}

impl Dropped {
    /// That it is what was found, now that all of it has been read.
    pub(super) fn was_read_whole(&self) -> io::Result<()> {
        match self.is_still_so() {
            true => Ok(()),
            false => Err(io::Error::other("it changed while it was deployed")),
        }
    }

    /// Whether nothing was written to it, nor put in its place.
    pub(super) fn is_still_so(&self) -> bool {
        let about = fs::symlink_metadata(&self.path);
        about.is_ok_and(|about| about.is_file() && Stamp::of(&about) == self.stamp)
    }
}

/// Waits until the file is whole, and gives it; nothing, if there is none. `known` is what was found last.
pub(super) async fn find(path: &Path, known: Option<&Dropped>) -> io::Result<Option<Dropped>> {
    let mut before: Option<(PathBuf, Stamp)> = None;
    for _ in 0..LOOKS {
        let Some((path, stamp)) = newest(path)? else {
            return Ok(None);
        };
        if let Some(known) = known.filter(|it| it.path == path && it.stamp == stamp) {
            return Ok(Some(known.clone()));
        }
        if before == Some((path.clone(), stamp.clone())) {
            let digest = digest(&path)?;
            let found = Dropped {
                path,
                stamp,
                digest,
            };
            if found.is_still_so() {
                return Ok(Some(found));
            }
            before = None;
            continue;
        }
        before = Some((path, stamp));
        tokio::time::sleep(SETTLE).await;
    }
    Err(io::Error::other(
        "it is written to all the time; write elsewhere, then `mv`",
    ))
}

/// The file of a path, or the newest one of a directory.
fn newest(path: &Path) -> io::Result<Option<(PathBuf, Stamp)>> {
    // Whoever may put a link there would have the file read that it leads to, which he may not be allowed to read himself.
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        about => about?,
    };
    if about.is_file() {
        return Ok(Some((path.to_owned(), Stamp::of(&about))));
    }
    if !fs::metadata(path)?.is_dir() {
        return Err(io::Error::other(
            "it is neither a file nor a directory; links to files are not followed",
        ));
    }
    let mut found: Option<(PathBuf, Stamp)> = None;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // One that is gone since is not there.
        let Ok(about) = entry.metadata() else {
            continue;
        };
        let counts = about.is_file()
            && !name.starts_with('.')
            && !UNFINISHED.iter().any(|end| name.ends_with(end));
        let stamp = Stamp::of(&about);
        let age = |(path, stamp): &(PathBuf, Stamp)| (stamp.modified, path.clone());
        let this = (entry.path(), stamp);
        if counts && found.as_ref().is_none_or(|other| age(other) < age(&this)) {
            found = Some(this);
        }
    }
    Ok(found)
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut options = File::options();
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut file = options.read(true).custom_flags(flags).open(path)?;
    io::copy(&mut file, &mut Hashing(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

struct Hashing<'h>(&'h mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_found_once_it_stays_the_same_and_known_again_without_a_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        assert_eq!(find(&path, None).await.unwrap(), None);
        fs::write(&path, "par").unwrap();
        let growing = path.clone();
        let writer = tokio::spawn(async move {
            tokio::time::sleep(SETTLE / 2).await;
            fs::write(growing, "partial").unwrap();
        });
        let found = find(&path, None).await.unwrap().unwrap();
        writer.await.unwrap();
        assert_eq!(found.digest, digest(&path).unwrap());
        assert!(found.is_still_so());
        let began = tokio::time::Instant::now();
        let again = find(&path, Some(&found)).await.unwrap();
        assert_eq!(
            (again.as_ref(), began.elapsed()),
            (Some(&found), Duration::ZERO)
        );
        fs::write(&path, "something else").unwrap();
        assert!(!found.is_still_so());
        let other = find(&path, Some(&found)).await.unwrap().unwrap();
        assert_ne!(other.digest, found.digest);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_directory_it_is_the_newest_file_that_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str, seconds: u64| {
            let path = directory.path().join(name);
            let file = File::create(&path).unwrap();
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
            file.set_modified(time).unwrap();
            path
        };
        at("one", 1);
        let two = at("two", 2);
        at("three.part", 3);
        at(".four", 4);
        at("five~", 5);
        fs::create_dir(directory.path().join("six")).unwrap();
        let found = find(directory.path(), None).await.unwrap().unwrap();
        assert_eq!(found.path, two);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_written_to_all_the_time_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "").unwrap();
        let growing = path.clone();
        let writer = tokio::spawn(async move {
            for size in 1.. {
                tokio::time::sleep(SETTLE / 4).await;
                fs::write(&growing, vec![b'.'; size]).unwrap();
            }
        });
        let error = find(&path, None).await.unwrap_err();
        writer.abort();
        assert!(error.to_string().contains("then `mv`"), "{error}");
    }
}
