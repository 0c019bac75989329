//! The caller's half: a repository of the user's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{Git, check_out, words};
use super::large::{self, Large};
use super::modules::{Module, modules};
use super::names;
use super::pack::Pack;
use super::shelf::{Remote, Shelf};
use super::{Commit, GitError};

/// Files of a work tree that are slot's own, so that changes to them are nobody's unfinished work.
const OWN: [&str; 3] = ["slot.toml", "slot-machine.json", ".gitignore"];

/// A repository that the user may read.
#[derive(Clone, Debug)]
pub struct Repository {
    git: Git,
}

/// A name that has been found to mean a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Which.
    pub commit: Commit,
    /// The name: for `HEAD` that of its branch, if it is on one.
    pub reference: Option<String>,
}

/// One repository's share of a commit: the commit itself, or that of a submodule.
#[derive(Clone, Debug)]
pub struct Part {
    repository: Repository,
    /// Where it is in the commit's tree.
    inside: PathBuf,
    /// The URL that it was fetched from, if it is not the user's own.
    remote: Option<String>,
    /// Which commit.
    pub commit: Commit,
}

impl Repository {
    /// The repository that a directory is in.
    ///
    /// # Errors
    /// It is in none, or in one that git does not open for this user; there is no git.
    pub fn find(directory: &Path) -> Result<Self, GitError> {
        let git = Git::users(directory);
        let found = git.ask(
            "find the repository",
            &["rev-parse", "--show-toplevel"],
            b"",
        )?;
        let top = |out: &[u8]| PathBuf::from(OsStr::from_bytes(out.trim_ascii_end()));
        if found.status.success() {
            let git = Git::users(&top(&found.stdout));
            return Ok(Self { git });
        }
        // One without a work tree says so only when it is asked for that.
        let found = git.ask(
            "find the repository",
            &["rev-parse", "--absolute-git-dir"],
            b"",
        )?;
        if found.status.success() {
            let git = Git::users(&top(&found.stdout));
            return Ok(Self { git });
        }
        let said = words(&found.stderr);
        let is_none = said.starts_with("not a git repository");
        Err(GitError::NoRepository {
            directory: directory.to_owned(),
            said: (!is_none).then_some(said),
        })
    }

    /// The top of the work tree, or the repository itself if it has none.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.git.directory()
    }

    /// The commit that has a name: `HEAD`, a branch, a tag, a commit's name or the beginning of one.
    ///
    /// # Errors
    /// None has it, or more than one.
    pub fn resolve(&self, name: &str) -> Result<Resolved, GitError> {
        if name.starts_with('-') || name.contains('\0') {
            return Err(GitError::Unknown {
                name: name.to_owned(),
                directory: self.directory().to_owned(),
                hint: String::new(),
            });
        }
        let commit = names::resolve(&self.git, name)?;
        let reference = match name {
            "HEAD" => self
                .git
                .answer("read HEAD", &["symbolic-ref", "--short", "--quiet", "HEAD"])?,
            name => Some(name.to_owned()),
        };
        Ok(Resolved { commit, reference })
    }

    /// The tracked files with changes that no commit has, slot's own apart; as they are called from the top of the work tree.
    ///
    /// # Errors
    /// git fails.
    pub fn changes(&self) -> Result<Vec<PathBuf>, GitError> {
        let is_inside = self.git.answer(
            "find the work tree",
            &["rev-parse", "--is-inside-work-tree"],
        )?;
        if is_inside.as_deref() != Some("true") {
            return Ok(Vec::new());
        }
        let told = self.git.run(
            "compare the work tree with HEAD",
            &[
                "status",
                "--porcelain=v1",
                "-z",
                "--no-renames",
                "--untracked-files=no",
                "--ignore-submodules=untracked",
            ],
            b"",
        )?;
        let changed = told
            .split(|byte| *byte == 0)
            // Two letters and a space (git-status(1), "Short Format").
            .filter_map(|entry| entry.get(3..))
            .map(|path| PathBuf::from(OsStr::from_bytes(path)))
            .filter(|path| !is_own(path));
        Ok(changed.collect())
    }

    /// What is to be packed for a commit: first those of its submodules, and theirs, then itself.
    ///
    /// # Errors
    /// A submodule has not been fetched.
    pub fn parts(&self, commit: &Commit) -> Result<Vec<Part>, GitError> {
        let mut parts = Vec::new();
        self.gather(commit, Path::new(""), &mut parts)?;
        Ok(parts)
    }

    fn gather(
        &self,
        commit: &Commit,
        inside: &Path,
        parts: &mut Vec<Part>,
    ) -> Result<(), GitError> {
        for module in modules(&self.git, commit)? {
            let inside = inside.join(&module.path);
            self.module(&module)?
                .gather(&module.commit, &inside, parts)?;
        }
        parts.push(Part {
            repository: self.clone(),
            inside: inside.to_owned(),
            remote: None,
            commit: commit.clone(),
        });
        Ok(())
    }

    /// Lays out exactly the tree of a commit, and those of its submodules, in an empty directory. The work tree and its index stay as they
    /// are; the user's own filters run, as they do in a checkout of his.
    ///
    /// # Errors
    /// A submodule has not been fetched, git fails, or the disk is full; the directory may have a part of it in it then.
    pub fn lay_out(&self, commit: &Commit, into: &Path) -> Result<(), GitError> {
        let room = tempfile::tempdir()
            .map_err(GitError::disk("make a directory in", &std::env::temp_dir()))?;
        let git = self.git.clone().with("GIT_WORK_TREE", into);
        let git = git.with("GIT_INDEX_FILE", room.path().join("index"));
        check_out(&git, commit)?;
        for module in modules(&self.git, commit)? {
            let folder = into.join(&module.path);
            self.module(&module)?.lay_out(&module.commit, &folder)?;
        }
        Ok(())
    }

    /// The repository of a submodule, which has its commit.
    fn module(&self, module: &Module) -> Result<Self, GitError> {
        let inside = self.directory().join(&module.path);
        // Where it is checked out; of a directory that is no repository of its own, git would find the one around it.
        let checked_out = inside.join(".git").exists().then(|| Git::users(&inside));
        // Else where git keeps it although the work tree is at a commit without it.
        let name = format!("modules/{}", module.name);
        let kept = self
            .git
            .answer("find a submodule", &["rev-parse", "--git-path", &name])?
            .map(|kept| self.directory().join(kept))
            .filter(|kept| kept.is_dir() && !kept.is_symlink());
        let put_away = kept.map(|kept| {
            let git = Git::users(&kept).with("GIT_DIR", &kept);
            git.with("GIT_WORK_TREE", &kept)
        });
        [checked_out, put_away]
            .into_iter()
            .flatten()
            .map(|git| Self { git })
            .find(|repository| repository.has(&module.commit))
            .ok_or_else(|| GitError::NoModule {
                path: module.path.clone(),
                commit: module.commit.clone(),
            })
    }

    fn has(&self, commit: &Commit) -> bool {
        let wanted = format!("{commit}^{{commit}}");
        self.git
            .answer("look for a commit", &["cat-file", "-e", &wanted])
            .is_ok_and(|found| found.is_some())
    }
}

impl Part {
    /// One that was fetched from a remote.
    pub(super) fn fetched(git: Git, commit: Commit, remote: &str, inside: &Path) -> Self {
        Self {
            repository: Repository { git },
            inside: inside.to_owned(),
            remote: Some(remote.to_owned()),
            commit,
        }
    }

    /// How much its files take when they are laid out, in bytes; pointers of Git LFS as such.
    ///
    /// # Errors
    /// git fails.
    pub fn size(&self) -> Result<u64, GitError> {
        let tree = self.repository.git.run(
            "list the tree of a commit",
            &[
                "ls-tree",
                "-r",
                "-l",
                "-z",
                "--full-tree",
                self.commit.as_str(),
            ],
            b"",
        )?;
        // Mode, type, name and size, then a tab and the path (git-ls-tree(1), "Output Format"); a submodule's size is `-`.
        let sizes = tree.split(|byte| *byte == 0).filter_map(|entry| {
            let about = entry.split(|byte| *byte == b'\t').next()?;
            let size = std::str::from_utf8(about).ok()?.rsplit(' ').next()?;
            size.parse::<u64>().ok()
        });
        Ok(sizes.sum())
    }

    /// Packs what of it is in none of the commits that the other side has.
    ///
    /// # Errors
    /// git fails.
    pub fn pack(&self, have: &[Commit]) -> Result<Pack, GitError> {
        let git = &self.repository.git;
        let asked: String = have.iter().map(|commit| format!("{commit}\n")).collect();
        let told = git.run(
            "look for commits",
            &["cat-file", "--batch-check=%(objecttype) %(objectname)"],
            asked.as_bytes(),
        )?;
        let told = String::from_utf8_lossy(&told);
        // What has gone from here, by a force-push or a clone of less, cannot be compared with.
        let common: Vec<Commit> = told
            .lines()
            .filter_map(|line| line.strip_prefix("commit ")?.parse().ok())
            .collect();
        Pack::of(git, &self.commit, &common)
    }

    /// The files of it that Git LFS keeps, by their paths in the whole tree.
    ///
    /// # Errors
    /// git fails, or a pointer cannot be followed.
    pub fn large(&self) -> Result<Vec<Large>, GitError> {
        let room = tempfile::tempdir()
            .map_err(GitError::disk("make a directory in", &std::env::temp_dir()))?;
        let index = room.path().join("index");
        let mut files = large::files(&self.repository.git, &self.commit, &index)?;
        for file in &mut files {
            file.path = self.inside.join(&file.path);
        }
        Ok(files)
    }

    /// Where the contents of those files are.
    ///
    /// # Errors
    /// git fails.
    pub fn shelf(&self) -> Result<Shelf, GitError> {
        let (git, inside) = (&self.repository.git, self.inside.clone());
        match self.remote.clone() {
            None => Shelf::users(git, &self.commit),
            Some(url) => Shelf::mirrored(git, &self.commit, Remote { url, inside }),
        }
    }
}

fn is_own(path: &Path) -> bool {
    let mut names = path.iter().filter_map(OsStr::to_str);
    names.clone().any(|name| name.starts_with(".slot"))
        || names.next_back().is_some_and(|name| OWN.contains(&name))
}
