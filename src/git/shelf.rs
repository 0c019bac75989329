//! The contents of files of Git LFS beside a commit, where git-lfs keeps them (git-lfs-config(5), `lfs.storage`): in a user's own repository
//! or in the fetcher's mirror.
//!
//! **Invariant:** only `git lfs fetch` writes there, and it is run for what is missing alone.
//! **Invariant:** a server that a fetched commit names is held to the rules of a URL in slot.toml, and to the remote's own kind.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::command::{Git, words};
use super::elsewhere::hint;
use super::large::{Large, Oid};
use super::{Commit, GitError};
use crate::config::url_problem;

/// No argument is longer, in bytes, with room to spare (execve(2), "Limits on size of arguments and environment").
const LONGEST_ARGUMENT: usize = 100_000;

/// Where one repository's are.
#[derive(Debug)]
pub struct Shelf {
    git: Git,
    commit: Commit,
    objects: PathBuf,
    /// Where the commit was fetched from, and with it its contents; else git-lfs finds that as it does for the user himself.
    remote: Option<String>,
}

/// What came of a fetch.
struct Tried {
    /// git-lfs holds that it is well.
    went: bool,
    /// Why something may not have come all the same.
    why: String,
}

impl Tried {
    fn not(why: String) -> Self {
        Self { went: false, why }
    }
}

impl Shelf {
    /// For a commit of the repository.
    pub(super) fn of(git: &Git, commit: &Commit, remote: Option<&str>) -> Result<Self, GitError> {
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
            remote: remote.map(str::to_owned),
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

    /// Has git-lfs fetch what the commit needs, until all of these are here.
    ///
    /// # Errors
    /// There is no git-lfs or no remote, or not all of them come.
    pub fn fetch(&self, files: &[&Large]) -> Result<(), GitError> {
        let patterns = self.patterns(files).unwrap_or_default();
        let mut tried = self.try_to_fetch(&patterns)?;
        let was_narrow = tried.went && !patterns.is_empty();
        if was_narrow && files.iter().any(|file| self.lacks(file)) {
            tried = self.try_to_fetch("")?;
        }
        let why = tried.why;
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

    /// These files alone, as git-lfs is told (git-lfs-fetch(1), "INCLUDE AND EXCLUDE"), if that can be said. A mirror has not what slotd
    /// has; a user's own repository is to have all of what he deploys.
    fn patterns(&self, files: &[&Large]) -> Option<String> {
        self.remote.as_ref()?;
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+@=".contains(c);
        let paths: Option<Vec<&str>> = files
            .iter()
            .map(|file| file.path.to_str().filter(|path| path.chars().all(is_plain)))
            .collect();
        let patterns = paths?.join(",");
        (patterns.len() <= LONGEST_ARGUMENT).then_some(patterns)
    }

    /// Fetches what matches the patterns; without any, all that the commit has.
    fn try_to_fetch(&self, patterns: &str) -> Result<Tried, GitError> {
        const OPERATION: &str = "fetch files of Git LFS";
        let installed = self.git.answer(OPERATION, &["lfs", "version"])?;
        if installed.is_none() {
            let from = self.remote.as_ref();
            let from = from.map_or_else(String::new, |remote| format!(" from {remote}"));
            return Ok(Tried::not(format!(
                "git-lfs, which could fetch it{from}, is not installed; `apt install git-lfs`, then deploy again"
            )));
        }
        let server = self.server()?;
        let Some(remote) = self.remote()? else {
            return Ok(Tried::not(
                "the repository has no remote to fetch it from; `git lfs fetch` has to find it first"
                    .to_owned(),
            ));
        };
        let option = server.as_ref().map(|url| format!("lfs.url={url}"));
        let include = format!("--include={patterns}");
        let options = option.iter().flat_map(|option| ["-c", option]);
        let fetch = [
            "lfs",
            "fetch",
            // Whatever the user wants of it in his work tree.
            &include,
            "--exclude=",
            &remote,
            self.commit.as_str(),
        ];
        let fetch: Vec<&str> = options.chain(fetch).collect();
        let fetched = self.git.ask(OPERATION, &fetch, b"")?;
        let said = words(&fetched.stderr);
        let hint = match &self.remote {
            Some(remote) => hint(server.as_ref().unwrap_or(remote), &said),
            None => "; when that brings it, deploy again".to_owned(),
        };
        Ok(Tried {
            went: fetched.status.success(),
            why: format!(
                "`git lfs fetch {remote} {}` {}: {said}{hint}",
                self.commit, fetched.status
            ),
        })
    }

    /// The server that a fetched commit itself names, in place of the one that belongs to its remote (git-lfs-config(5), "LFSCONFIG"): of
    /// a repository that is checked out, git-lfs reads that by itself.
    fn server(&self) -> Result<Option<String>, GitError> {
        let Some(remote) = &self.remote else {
            return Ok(None);
        };
        let blob = format!("{}:.lfsconfig", self.commit);
        let asked = [
            "config",
            "--no-includes",
            "--blob",
            &blob,
            "--get",
            "lfs.url",
        ];
        let Some(url) = self.git.answer("read .lfsconfig", &asked)? else {
            return Ok(None);
        };
        let elsewhere = url.starts_with("file:") && !remote.starts_with("file:");
        let problem = match elsewhere {
            true => Some(format!("{url:?} is of this machine, and {remote} is not")),
            false => url_problem(&url),
        };
        match problem {
            Some(problem) => Err(GitError::Server { problem }),
            None => Ok(Some(url)),
        }
    }

    /// Where git-lfs fetches from: as it does it itself, if nothing else is said (git-lfs-config(5), `remote.lfsdefault`).
    fn remote(&self) -> Result<Option<String>, GitError> {
        const OPERATION: &str = "list remotes";
        if self.remote.is_some() {
            return Ok(self.remote.clone());
        }
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
