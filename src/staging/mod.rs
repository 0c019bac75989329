//! Staging: a git work tree on a branch of its own, made of the release that was promoted last, for the next deployment.
//!
//! ```text
//! staging/       the work tree: the release's commit, and beside that what came with the release (`node_modules`)
//! staging.git/   its repository, unless that is one of the user's: it stays when the tree is replaced
//! staging.new/   while one is made; after the exchange the one before, until it is removed
//! ```
//! The tree is a linked work tree (git-worktree(1)), so that branches, history and configuration outlive it.
//!
//! **Invariant:** what is in the tree and nowhere else is never removed: it is looked for before, and once more after the exchange, when
//! nobody finds the old tree under its name any more; then the exchange is taken back.
//! **Invariant:** whenever this ends, there is one whole tree under the name.
//! **Invariant:** it runs as whoever owns the tree; no configuration or hook of it is ever run as anybody else. Nothing that a release has
//! is run: git is asked only when no repository of the release's is left in the copy.

mod look;
mod modules;
mod own;
mod tree;
mod work;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::{self, SEED};
use crate::deploy::ReleaseId;
use crate::git::{Commit, Git, GitError};
use look::Notes;
use work::Work;

/// What the tree is called.
pub const TREE: &str = "staging";

/// Why no staging was made; the one before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The commit did not come.
    #[error("the commit of the release did not come")]
    Commit(#[source] io::Error),
    /// The files could not be copied.
    #[error("cannot copy {from:?} to {to:?}: {said}")]
    Copy {
        /// The release.
        from: PathBuf,
        /// The tree.
        to: PathBuf,
        /// `cp`'s own words.
        said: String,
    },
    /// It is a repository itself, which would be in the place of the tree's.
    #[error("the release has a .git of its own, which is not copied; let setup_command make none")]
    Repository,
    /// The disk refused.
    #[error("cannot {operation} {path:?}")]
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

impl StagingError {
    fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            operation,
            path,
            source,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// The tree is of the release now, or was before.
    Of(ReleaseId),
    /// It is as it was, because there is work in it: a sentence.
    Kept(String),
}

/// A release to make staging of.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// Which.
    pub release: ReleaseId,
    /// What it is of.
    pub commit: Commit,
    /// Where its files are.
    pub home: PathBuf,
    /// Directories that are symlinks to the app's own data in it. Staging has the commit's own instead.
    pub shared_dirs: Vec<String>,
}

/// Where the tree's commits are.
#[derive(Clone, Debug)]
enum Repository {
    /// One that is there for it alone.
    Own(PathBuf),
    /// One that the user has for himself.
    Users(PathBuf),
}

/// A staging tree, made or not.
#[derive(Clone, Debug)]
pub struct Staging {
    tree: PathBuf,
    repository: Repository,
    branch: String,
}

impl Staging {
    /// Staging with a repository of its own, both in a directory.
    #[must_use]
    pub fn within(directory: &Path, branch: &str) -> Self {
        Self {
            tree: directory.join(TREE),
            repository: Repository::Own(directory.join("staging.git")),
            branch: branch.to_owned(),
        }
    }

    /// A work tree of a repository of the user's, which has the commits.
    #[must_use]
    pub fn of_users(tree: PathBuf, repository: PathBuf) -> Self {
        Self {
            tree,
            repository: Repository::Users(repository),
            branch: config::Staging::BRANCH.to_owned(),
        }
    }

    /// Makes the tree of a release, unless it is of that, or there is work in it. `pack` is asked for the commit if it is not here,
    /// and told of which others nothing need come.
    ///
    /// # Errors
    /// What could not be done; the tree is as it was.
    pub fn make<R: Read>(
        &self,
        of: &Promoted,
        pack: impl FnOnce(&[Commit]) -> io::Result<R>,
    ) -> Result<Made, StagingError> {
        if let Repository::Own(path) = &self.repository {
            own::make(path, &self.branch)?;
        }
        if let Some(work) = self.recover()? {
            return Ok(self.kept(&self.new_tree(), &work));
        }
        let is_there = self.tree.symlink_metadata().is_ok();
        if is_there && Notes::of(&self.tree).is_some_and(|notes| notes.release == of.release) {
            return Ok(Made::Of(of.release.clone()));
        }
        if let Some(work) = self.work(&of.commit) {
            return Ok(self.kept(&self.tree, &work));
        }
        if let Repository::Own(path) = &self.repository {
            own::take(path, &of.commit, || pack(&self.have()))?;
        }
        if !is_there {
            self.forget(&of.commit)?;
        }
        let made = self.build(of);
        let new = self.new_tree();
        if let Err(error) = made {
            // The reason counts; what is left is removed before the next one.
            let _ = self.remove(&new);
            return Err(error);
        }
        // The copy may have taken long.
        if let Some(work) = self.work(&of.commit) {
            self.remove(&new)?;
            return Ok(self.kept(&self.tree, &work));
        }
        if is_there {
            tree::exchange(&new, &self.tree)?;
            if let Some(work) = self.work_in(&new, &of.commit) {
                tree::exchange(&new, &self.tree)?;
                self.remove(&new)?;
                return Ok(self.kept(&self.tree, &work));
            }
        } else {
            std::fs::rename(&new, &self.tree).map_err(StagingError::disk("name", &self.tree))?;
        }
        self.repair();
        self.remove(&new)?;
        self.attach()?;
        if let Repository::Own(path) = &self.repository {
            own::tidy(path);
        }
        Ok(Made::Of(of.release.clone()))
    }

    /// Makes the tree beside the one that is there.
    fn build(&self, of: &Promoted) -> Result<(), StagingError> {
        let new = self.new_tree();
        if of.home.join(".git").symlink_metadata().is_ok() {
            return Err(StagingError::Repository);
        }
        let words = [
            "worktree",
            "add",
            "--quiet",
            "--no-checkout",
            "--detach",
            "--force",
        ];
        let mut add: Vec<_> = words.map(std::ffi::OsStr::new).to_vec();
        add.extend([new.as_os_str(), of.commit.as_str().as_ref()]);
        self.git().run("make a work tree", &add, b"")?;
        let own = new.join(".git");
        let made = std::fs::read(&own).map_err(StagingError::disk("read", &own))?;
        tree::copy(&of.home, &new)?;
        // The app may have written to its release since it was looked at.
        if own.is_symlink() || !std::fs::read(&own).is_ok_and(|copied| copied == made) {
            return Err(StagingError::Repository);
        }
        tree::remove_repositories(&new)?;
        for directory in &of.shared_dirs {
            // What the next release is tried with is not the data of the one that serves.
            tree::unlink(&new.join(directory))?;
        }
        tree::remove(&new.join(SEED))?;
        let git = Git::users(&new);
        git.run("read the tree of a commit", &["read-tree", "HEAD"], b"")?;
        // It tells by its status that some files differ, which the next one sees to.
        git.ask(
            "look at the files",
            &["update-index", "-q", "--refresh"],
            b"",
        )?;
        let restore = ["checkout-index", "--all", "--force", "--quiet"];
        git.run("lay a commit out", &restore, b"")?;
        for directory in &of.shared_dirs {
            let path = new.join(directory);
            std::fs::create_dir_all(&path)
                .map_err(StagingError::disk("make the directory", &path))?;
        }
        git.ask(
            "look at the files",
            &["update-index", "-q", "--refresh"],
            b"",
        )?;
        look::note(&new, of, &self.branch)
    }

    /// Puts a new tree, whose HEAD is detached, on the branch, if that is where it was when the tree was made.
    fn attach(&self) -> Result<(), StagingError> {
        let Some(notes) = Notes::of(&self.tree) else {
            return Ok(());
        };
        let git = Git::users(&self.tree);
        let head = git.answer("read HEAD", &["rev-parse", "HEAD"])?;
        let on_branch = git.answer("read HEAD", &["symbolic-ref", "--quiet", "HEAD"])?;
        let before = look::tip(&git, &self.branch)?.unwrap_or_default();
        if on_branch.is_some()
            || head.as_deref() != Some(notes.commit.as_str())
            || before != notes.replaces
            || self.elsewhere()?.is_some()
        {
            return Ok(());
        }
        self.keep_tip(&git, &before, &notes.commit)?;
        let branch = format!("refs/heads/{}", self.branch);
        let set = [
            "update-ref",
            "--create-reflog",
            &branch,
            notes.commit.as_str(),
            &before,
        ];
        git.run("set the branch", &set, b"")?;
        let put = ["symbolic-ref", "HEAD", &branch];
        git.run("put HEAD on the branch", &put, b"").map(drop)?;
        Ok(())
    }

    /// Gives what the branch was a branch of its own, `machine-1a2b3c4d`, if its commits were made here and nothing else holds them: after
    /// a rollback they are in no release, and their author looks for them here.
    fn keep_tip(&self, git: &Git, tip: &str, next: &Commit) -> Result<(), StagingError> {
        let came = match &self.repository {
            Repository::Own(path) => own::came(path),
            Repository::Users(_) => String::new(),
        };
        let mut held: Vec<&str> = came.lines().collect();
        held.push(next.as_str());
        if look::unheld(
            git,
            &self.branch,
            &held,
            Some(tip).filter(|tip| !tip.is_empty()),
        )?
        .is_none()
        {
            return Ok(());
        }
        let mut name = format!("{}-{}", self.branch, tip.get(..8).unwrap_or(tip));
        if look::tip(git, &name)?.is_some() {
            // It holds other commits, or it would have been found.
            name = format!("{}-{tip}", self.branch);
        }
        let keep = ["branch", "--force", "--no-track", &name, tip];
        git.run("keep the commits of the branch", &keep, b"")?;
        Ok(())
    }

    /// Commits that are here whole: what the tree that is there is of, and what its branch is at.
    fn have(&self) -> Vec<Commit> {
        let of = Notes::of(&self.tree).map(|notes| notes.commit);
        let tip = look::tip(&self.git(), &self.branch).ok().flatten();
        let tip = tip.and_then(|tip| tip.parse().ok());
        of.into_iter().chain(tip).collect()
    }

    /// Where else the branch is checked out.
    fn elsewhere(&self) -> Result<Option<PathBuf>, GitError> {
        look::elsewhere(&self.git(), &self.branch, &[&self.tree, &self.new_tree()])
    }

    /// What would be lost with the tree, or taken from under another one. The commits of its branch stay in any case, see
    /// [`Self::keep_tip`].
    fn work(&self, promoted: &Commit) -> Option<Work> {
        match self.elsewhere() {
            Ok(None) => {}
            Ok(Some(tree)) => {
                let branch = self.branch.clone();
                return Some(Work::Elsewhere { branch, tree });
            }
            Err(error) => return Some(Work::Unknown(error.to_string())),
        }
        self.tree.symlink_metadata().ok()?;
        self.work_in(&self.tree, promoted)
    }

    fn work_in(&self, tree: &Path, promoted: &Commit) -> Option<Work> {
        let is_own = matches!(self.repository, Repository::Own(_));
        match look::at(tree, self.repository(), &self.branch, is_own, promoted) {
            Ok(found) => found.work(&self.branch),
            Err(work) => Some(work),
        }
    }

    fn kept(&self, tree: &Path, work: &Work) -> Made {
        let name = tree.file_name().unwrap_or_default().to_string_lossy();
        Made::Kept(format!("{name} stays as it is: {work}"))
    }

    /// Ends what a crash interrupted, and clears what it left: a tree that was not finished, or the one before, unless somebody has
    /// written to that since.
    fn recover(&self) -> Result<Option<Work>, StagingError> {
        let new = self.new_tree();
        if new.symlink_metadata().is_ok() {
            self.repair();
            if let Some(notes) = Notes::of(&new) {
                // What is in place may have been made in the one before, and then its branch has that.
                let in_place = Notes::of(&self.tree).map(|notes| notes.commit);
                let work = self.work_in(&new, &in_place.unwrap_or(notes.commit));
                if work.is_some() {
                    return Ok(work);
                }
            }
            self.remove(&new)?;
        }
        // Only then: the one before is still on the branch.
        self.attach().map(|()| None)
    }

    /// Lets the repository forget trees that somebody has removed under these names: git would take the next one for one of them.
    fn forget(&self, next: &Commit) -> Result<(), StagingError> {
        let git = self.git();
        for left in look::left_of(self.repository(), &[&self.tree, &self.new_tree()]) {
            if let Some(head) = look::detached(&left) {
                self.keep_tip(&git, &head, next)?;
            }
            tree::remove(&left)?;
        }
        Ok(())
    }

    /// Tells the repository where its trees are, after they were exchanged. One that is not there is none to tell of.
    fn repair(&self) {
        let new = self.new_tree();
        let mut repair: Vec<&std::ffi::OsStr> = vec!["worktree".as_ref(), "repair".as_ref()];
        let trees = [self.tree.as_path(), &new];
        repair.extend(
            trees
                .iter()
                .filter(|it| it.exists())
                .map(|it| it.as_os_str()),
        );
        let _ = self.git().ask("find its work trees", &repair, b"");
    }

    /// Removes a tree, and what the repository has of it: its notes first, as without them the rest is as good as never finished.
    fn remove(&self, tree: &Path) -> Result<(), StagingError> {
        if let Some(administration) = look::administration(tree, self.repository()) {
            tree::remove(&administration.join(look::NOTES))?;
            tree::remove(&administration)?;
        }
        tree::remove(tree)
    }

    fn new_tree(&self) -> PathBuf {
        let mut name = self.tree.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    fn repository(&self) -> &Path {
        let (Repository::Own(path) | Repository::Users(path)) = &self.repository;
        path
    }

    fn git(&self) -> Git {
        Git::users(self.repository())
    }
}
