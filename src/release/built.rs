//! A release between its bits and its record, while a build works on it.
//!
//! **Invariant:** what a build hands back is looked over like an upload; only its symlinks may lead anywhere: they were made for this
//! machine.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::incoming::set_aside;
use super::order::{Turn, alone};
use super::{Identity, Links, ReleaseError, Root, begin, remove_tree};
use crate::deploy::ReleaseId;

/// What tells one way of making releases of the same bits from another, as 64 hexadecimal digits.
#[must_use]
pub fn made_with(setup_command: Option<&[String]>, shared_dirs: &[String]) -> String {
    let mut hash = Sha256::new();
    for words in [setup_command.unwrap_or_default(), shared_dirs] {
        field(&mut hash, &words.len().to_be_bytes());
        words
            .iter()
            .for_each(|word| field(&mut hash, word.as_bytes()));
    }
    crate::wire::hex(&hash.finalize())
}

fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

impl Identity {
    /// What it is known by when it is made ready in this way: the same bits with another setup are another release. A commit is known by
    /// itself alone, and is made anew for another setup.
    #[must_use]
    pub fn made_by(self, setup_command: Option<&[String]>, shared_dirs: &[String]) -> Self {
        let Self::Content(digest) = &self else {
            return self;
        };
        if setup_command.is_none() && shared_dirs.is_empty() {
            return self;
        }
        let mut hash = Sha256::new();
        field(&mut hash, digest.as_bytes());
        field(&mut hash, made_with(setup_command, shared_dirs).as_bytes());
        Self::Content(crate::wire::hex(&hash.finalize()))
    }
}

/// Where a release is built: a directory that is nobody else's as long as its [`Unfinished`](super::Unfinished) is there.
#[derive(Clone, Debug)]
pub struct Site {
    pub(super) root: Root,
    pub(super) id: ReleaseId,
    pub(super) turn: Turn,
}

impl Site {
    /// The id that the release will have.
    #[must_use]
    pub fn id(&self) -> &ReleaseId {
        &self.id
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.home(&self.id)
    }

    /// Puts what a build hands back, as an archive, in the place of what it was given. Modification times are the archive's.
    ///
    /// # Errors
    /// The archive is refused, nobody waits for the release any more, or the disk refuses; the directory is as it was then.
    pub fn take_back(
        &self,
        archive: impl Read,
        wanted: impl Fn() -> bool,
    ) -> Result<(), ReleaseError> {
        let incoming = begin(&self.root)?;
        incoming.unpack(archive, Links::Any, wanted)?;
        let home = self.path();
        let left = alone(&self.root, |ledger| {
            if ledger.unfinished.get(&self.id) != Some(&self.turn) {
                return Err(ReleaseError::Unwanted);
            }
            let left = set_aside(&self.root, &self.id)?;
            fs::rename(incoming.path(), &home)
                .map_err(ReleaseError::disk("name the release", &home))?;
            Ok(left)
        })?;
        left.map_or(Ok(()), |left: PathBuf| removed(&left))
    }
}

fn removed(left: &Path) -> Result<(), ReleaseError> {
    remove_tree(left).map_err(ReleaseError::disk("remove", left))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::super::{About, Settled, pack};
    use super::*;

    fn identity(setup: Option<&[&str]>, shared: &[&str]) -> Identity {
        let words = |words: &[&str]| -> Vec<String> {
            words.iter().map(|word| (*word).to_owned()).collect()
        };
        let setup = setup.map(words);
        Identity::Content("ab".repeat(32)).made_by(setup.as_deref(), &words(shared))
    }

    #[test]
    fn another_setup_makes_another_release_of_the_same_bits_and_none_changes_nothing() {
        assert_eq!(identity(None, &[]), Identity::Content("ab".repeat(32)));
        let all = [
            identity(None, &[]),
            identity(Some(&["npm", "ci"]), &[]),
            identity(Some(&["npm ci"]), &[]),
            identity(Some(&["npm"]), &["ci"]),
            identity(None, &["npm", "ci"]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{one:?}");
        }
        let commit = Identity::Commit("cd".repeat(20));
        assert_eq!(commit.clone().made_by(Some(&["x".to_owned()]), &[]), commit);
    }

    #[test]
    fn what_a_build_hands_back_has_its_times_its_links_and_its_hard_links() {
        let (place, built) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let source = built.path().join("app.py");
        fs::write(&source, "x = 1\n").unwrap();
        fs::File::options()
            .write(true)
            .open(&source)
            .and_then(|file| file.set_modified(old))
            .unwrap();
        fs::create_dir(built.path().join("venv")).unwrap();
        symlink("/usr/bin/python3", built.path().join("venv/python")).unwrap();
        fs::hard_link(&source, built.path().join("venv/copy.py")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(built.path().join("left.sock"));
        let mut archive = Vec::new();
        pack(built.path(), &mut archive).unwrap();

        let incoming = begin(place.path()).unwrap();
        fs::write(incoming.path().join("given"), "").unwrap();
        let identity = Identity::Content("ab".repeat(32));
        let Settled::New(unfinished) = incoming.settle(identity, || true).unwrap() else {
            panic!("nothing was there before");
        };
        unfinished
            .site()
            .take_back(Cursor::new(archive), || true)
            .unwrap();
        let home = unfinished.path();
        assert!(!home.join("given").exists() && !home.join("left.sock").exists());
        let about = fs::metadata(home.join("app.py")).unwrap();
        assert_eq!(about.modified().unwrap(), old);
        assert!(home.join("venv/python").is_symlink());
        assert_eq!(
            fs::read_to_string(home.join("venv/copy.py")).unwrap(),
            "x = 1\n"
        );
        unfinished
            .finish(&About::default(), Links::Any, || true)
            .unwrap();
    }

    #[test]
    fn a_build_of_a_deployment_that_has_ended_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let incoming = begin(place.path()).unwrap();
        let identity = Identity::Content("ab".repeat(32));
        let Settled::New(unfinished) = incoming.settle(identity, || true).unwrap() else {
            panic!("nothing was there before");
        };
        let site = unfinished.site();
        drop(unfinished);
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, "file", std::io::empty())
            .unwrap();
        let archive = archive.into_inner().unwrap();
        let refused = site.take_back(Cursor::new(archive), || true).unwrap_err();
        assert!(matches!(refused, ReleaseError::Unwanted), "{refused}");
        assert!(!site.path().exists());
    }
}
