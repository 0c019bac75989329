//! Commits: found, packed and laid out by git's own command line.
//!
//! ```text
//! slotctl, as the user, in the user's repository          slotd, in /var/lib/slot/<app>/repo.git
//! Repository::find ─► resolve ─► changes ─► pack ══════► Store::take ─► lay_out ─► a release's directory
//!                                   ▲                                    │
//!                                   └──────────── Store::have ◄──────────┘
//! the fetcher, beside its mirror of the app's remote
//! Mirror::open ─► resolve ─► fetch ─► shelf, pack ════► Store::take
//! ```
//!
//! Each half opens what belongs to its own user alone, so it matters neither where a repository lies nor whose it is. What travels is a
//! commit with its tree, and nothing of its history: a checkout that is one commit deep can be deployed (what CI systems make), and so
//! can the tenth commit of a repository with a million. To git the store is a shallow repository (gitrepository-layout(5), `shallow`).
//!
//! A file that Git LFS keeps is a pointer in the tree. What is in it travels before the commit, as bytes and not as an object of git,
//! and takes the pointer's place where the tree is laid out. git-lfs itself is run for the user who has it and in the fetcher, never by
//! slotd.
//!
//! **Invariant:** no argument from outside can be an option, no hook and no filter of a repository's runs in the store, and git never
//! asks anything of a terminal.
//! **Invariant:** a pack is taken whole or not at all: until it is found good, nothing of it is where the store looks.

mod command;
mod contents;
mod elsewhere;
mod intake;
mod large;
mod mirror;
mod modules;
mod names;
mod pack;
mod repository;
mod shelf;
mod store;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::telemetry::bytes;

pub(crate) use command::{Git, words};
pub use elsewhere::Keys;
pub use large::{Large, NoOid, Oid};
pub use mirror::Mirror;
pub use pack::Pack;
pub use repository::{Part, Repository, Resolved};
pub use shelf::Shelf;
pub use store::{Held, Store};

/// The whole name of a commit: 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit(String);

impl Commit {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As people are shown it: the first eight, which are the release's id too.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What was to be the whole name of a commit is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no commit: its whole name is 40 hexadecimal digits, as `git rev-parse` gives it{hint}", hint = if .0.len() == 64 { "; a repository with SHA-256 names cannot be deployed from yet, but a directory can: `slotctl deploy ./dir`" } else { "" })]
pub struct NoCommit(String);

impl FromStr for Commit {
    type Err = NoCommit;

    fn from_str(text: &str) -> Result<Self, NoCommit> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 40 && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoCommit(text.to_owned()))
        }
    }
}

/// What went wrong with a commit.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error(
        "git is not installed, and commits are deployed with it; install git: `apt install git`"
    )]
    NotInstalled,
    /// It cannot be started.
    #[error("cannot start git to {operation}")]
    Start {
        /// What for.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed where it ought not.
    #[error("git cannot {operation} in {directory:?}: {said}")]
    Failed {
        /// What it was to do.
        operation: &'static str,
        /// Where.
        directory: PathBuf,
        /// Its own words.
        said: String,
    },
    /// No repository has the directory in it.
    #[error("{directory:?} is in no git repository{}", said.as_ref().map_or_else(String::new, |said| format!(" that git opens: {said}")))]
    NoRepository {
        /// The directory.
        directory: PathBuf,
        /// What git says, if it says more than that.
        said: Option<String>,
    },
    /// The repository has nothing to deploy.
    #[error("the repository at {0:?} has no commit yet; `git commit`, then deploy")]
    Unborn(PathBuf),
    /// Nothing has that name.
    #[error("the repository at {directory:?} has no commit, branch or tag {name:?}{hint}")]
    Unknown {
        /// The name.
        name: String,
        /// Where.
        directory: PathBuf,
        /// `; did you mean …?`
        hint: String,
    },
    /// More than one thing has that name.
    #[error("{name:?} means more than one commit: {}; write one of these", meanings.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Each, by a name that means nothing else.
        meanings: Vec<String>,
    },
    /// The whole name of a commit is none.
    #[error(transparent)]
    NoCommit(#[from] NoCommit),
    /// A submodule's commit is not where the submodule is.
    #[error(
        "the submodule {path:?} at commit {commit} is not here; `git submodule update --init --recursive`, then deploy"
    )]
    NoModule {
        /// Where it is in the work tree.
        path: PathBuf,
        /// Which commit is wanted.
        commit: Commit,
    },
    /// A file is kept by Git LFS, and nobody can say what is in it.
    #[error(
        "{path:?} is kept by Git LFS, and slot cannot follow the pointer that the commit has in its place: {why}; `git lfs pull`, then \
         deploy the files: `slotctl deploy ./dir`"
    )]
    Pointer {
        /// Which.
        path: PathBuf,
        /// What is wrong with the pointer.
        why: String,
    },
    /// What a file has in it is not where git-lfs keeps it, and could not be fetched.
    #[error(
        "{path:?} ({}{}) is kept by Git LFS, and its content {}: {why}",
        bytes(*size),
        match others { 0 => String::new(), count => format!("; and {count} more") },
        match place { Some(place) => format!("is not in {place:?}"), None => "did not come".to_owned() }
    )]
    NoContent {
        /// The first.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// How many more there are.
        others: usize,
        /// Where it was looked for, in a user's repository.
        place: Option<PathBuf>,
        /// Why it did not come, and what to do.
        why: String,
    },
    /// What a file has in it is not in the store.
    #[error(
        "{path:?} is kept by Git LFS, and its content ({oid}) has not come with the commit; deploy again, from a repository that has it or \
         can fetch it (`git lfs fetch`)"
    )]
    Unsent {
        /// Which.
        path: PathBuf,
        /// Its content.
        oid: Oid,
    },
    /// The name of a content is none.
    #[error(transparent)]
    NoOid(#[from] NoOid),
    /// A commit says wrongly where its contents are.
    #[error(
        "the .lfsconfig of commit {} of {remote} names no server that slot asks: {problem}; correct its lfs.url",
        commit.short()
    )]
    Server {
        /// Which commit, perhaps of a submodule.
        commit: Commit,
        /// From where.
        remote: String,
        /// What is wrong.
        problem: String,
    },
    /// What was sent is not what it was said to be.
    #[error(
        "the content {oid} of Git LFS is refused: {why}; `git lfs fsck` looks for what is damaged"
    )]
    WrongContent {
        /// What it was said to be.
        oid: Oid,
        /// What is wrong with it.
        why: String,
    },
    /// What was sent ended too early.
    #[error(
        "the upload of the content {oid} of Git LFS ended before its end; was slotctl interrupted? Deploy again"
    )]
    TornContent {
        /// Which.
        oid: Oid,
        /// How.
        #[source]
        source: io::Error,
    },
    /// A remote does not give what it is asked for.
    #[error("{remote} cannot be fetched from: {said}{hint}")]
    Remote {
        /// Its URL.
        remote: String,
        /// git's words, and ssh's.
        said: String,
        /// `; …`: what to do, where that is known.
        hint: String,
    },
    /// Nothing has that name at a remote.
    #[error("{remote} has no branch or tag {name:?}{hint}")]
    UnknownThere {
        /// The name.
        name: String,
        /// Its URL.
        remote: String,
        /// `; did you mean …?`
        hint: String,
    },
    /// A submodule says wrongly where it is.
    #[error(
        "the URL of the submodule {path:?} cannot be fetched from: {problem}; correct .gitmodules"
    )]
    ModuleUrl {
        /// Where it is in the work tree.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What is in the store's place was made by somebody else.
    #[error(
        "{0:?} is not slot's own repository; remove it, then deploy: the next commit makes it anew"
    )]
    NotOurs(PathBuf),
    /// What was sent is not the commit.
    #[error("the pack of commit {commit} is refused: {said}")]
    Refused {
        /// Which.
        commit: Commit,
        /// Why.
        said: String,
    },
    /// What was sent ended too early.
    #[error(
        "the upload of commit {commit} ended before its end; was slotctl interrupted? Deploy again"
    )]
    Torn {
        /// Which.
        commit: Commit,
        /// How.
        #[source]
        source: io::Error,
    },
    /// Nobody waits for it any more.
    #[error("the deployment that the commit was for has ended")]
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

impl GitError {
    fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            operation,
            path,
            source,
        }
    }
}

/// Removes what git leaves in a repository of slot's own when it is killed: its locks, half a pack. Nobody else uses it.
fn clear_locks(repository: &Path, refs: &[&str]) {
    for lock in [
        "shallow.lock",
        "packed-refs.lock",
        "config.lock",
        "HEAD.lock",
    ] {
        let _ = fs::remove_file(repository.join(lock));
    }
    for folder in refs.iter().chain(&["objects/pack"]) {
        let listed = fs::read_dir(repository.join(folder));
        for path in listed.into_iter().flatten().flatten().map(|it| it.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with(".tmp-") {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_forty_small_hexadecimal_digits() {
        let digits = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(digits.parse::<Commit>().unwrap().short(), "01234567");
        for wrong in [
            "",
            "main",
            &digits[1..],
            &digits.to_uppercase(),
            "--upload-pack=x",
        ] {
            assert!(wrong.parse::<Commit>().is_err(), "{wrong}");
        }
        let longer = "0".repeat(64).parse::<Commit>().unwrap_err();
        assert!(longer.to_string().contains("SHA-256"), "{longer}");
    }
}
