//! The contents of files of Git LFS in a user's own repository, where git-lfs keeps them (git-lfs-config(5), `lfs.storage`).
//!
//! **Invariant:** only `git lfs fetch` writes there, and it is run for what is missing alone.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::command::{Git, words};
use super::large::{Large, Oid};
use super::{Commit, GitError};

/// Where one repository's are.
#[derive(Debug)]
pub struct Shelf {
    git: Git,
    commit: Commit,
    objects: PathBuf,
}

impl Shelf {
    /// For a commit of the repository.
    pub(super) fn of(git: &Git, commit: &Commit) -> Result<Self, GitError> {
        const OPERATION: &str = "find what git-lfs keeps";
        let own = git.run(OPERATION, &["rev-parse", "--git-common-dir"], b"")?;
        let own = String::from_utf8_lossy(own.trim_ascii_end()).into_owned();
        let own = git.directory().join(own);
        let configured = git.answer(
            OPERATION,
            &["config", "--type=path", "--get", "lfs.storage"],
        )?;
        let storage = configured.filter(|path| !path.is_empty());
        Ok(Self {
            git: git.clone(),
            commit: commit.clone(),
            objects: own
                .join(storage.as_deref().unwrap_or("lfs"))
                .join("objects"),
        })
    }

    /// Whether the content of a file is not here.
    #[must_use]
    pub fn lacks(&self, file: &Large) -> bool {
        let found = self.place(&file.oid).metadata();
        !found.is_ok_and(|about| about.is_file() && about.len() == file.size)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(&self, file: &Large) -> Result<File, GitError> {
        let place = self.place(&file.oid);
        File::open(&place).map_err(GitError::disk("open", &place))
    }

    /// Has git-lfs fetch what the commit needs, from where it does for the user himself, until all of these are here.
    ///
    /// # Errors
    /// There is no git-lfs or no remote, or not all of them come.
    pub fn fetch(&self, files: &[&Large]) -> Result<(), GitError> {
        let why = self.try_to_fetch()?;
        let mut lacked = files.iter().filter(|file| self.lacks(file));
        let Some(first) = lacked.next() else {
            return Ok(());
        };
        Err(GitError::NoContent {
            path: first.path.clone(),
            size: first.size,
            others: lacked.count(),
            place: self.objects.clone(),
            why,
        })
    }

    /// Why not all of it may have come.
    fn try_to_fetch(&self) -> Result<String, GitError> {
        const OPERATION: &str = "fetch files of Git LFS";
        let installed = self.git.answer(OPERATION, &["lfs", "version"])?;
        if installed.is_none() {
            return Ok(
                "git-lfs, which could fetch it, is not installed; `apt install git-lfs`, then deploy again".to_owned(),
            );
        }
        let Some(remote) = self.remote()? else {
            return Ok(
                "the repository has no remote to fetch it from; `git lfs fetch` has to find it first"
                    .to_owned(),
            );
        };
        let fetch = [
            "lfs",
            "fetch",
            // All that the commit has, whatever the user wants of it in his work tree.
            "--include=",
            "--exclude=",
            &remote,
            self.commit.as_str(),
        ];
        let fetched = self.git.ask(OPERATION, &fetch, b"")?;
        Ok(format!(
            "`git lfs fetch {remote} {}` {}: {}; when that brings it, deploy again",
            self.commit,
            fetched.status,
            words(&fetched.stderr)
        ))
    }

    /// Where git-lfs fetches from: as it does it itself, if nothing else is said (git-lfs-config(5), `remote.lfsdefault`).
    fn remote(&self) -> Result<Option<String>, GitError> {
        const OPERATION: &str = "list remotes";
        let chosen = ["config", "--get", "remote.lfsdefault"];
        if let Some(chosen) = self.git.answer(OPERATION, &chosen)? {
            return Ok(Some(chosen));
        }
        let listed = self.git.run(OPERATION, &["remote"], b"")?;
        let listed = String::from_utf8_lossy(&listed);
        let origin = listed.lines().find(|name| *name == "origin");
        Ok(origin.or(listed.lines().next()).map(str::to_owned))
    }

    fn place(&self, oid: &Oid) -> PathBuf {
        let (digits, objects): (_, &Path) = (oid.as_str(), &self.objects);
        objects.join(&digits[..2]).join(&digits[2..4]).join(digits)
    }
}
