//! Whether there is work in a staging tree: what would be lost if it were replaced.
//!
//! **Invariant:** decided out of what was found; nothing is asked here, and what could not be found out counts as work.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// What git says of one path that is not as it was committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// `??`, ` M`, `A `, … (git-status(1), "Short Format"); `su`, of a file of a submodule.
    pub kind: [u8; 2],
    /// From the top of the tree.
    pub path: PathBuf,
    /// The file's size in bytes and when it was written last, in nanoseconds since 1970; `None` where there is no file.
    pub print: Option<(u64, i128)>,
}

/// What is found of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// HEAD names a commit.
    pub has_head: bool,
    /// What git is in the middle of: `a merge`.
    pub unfinished: Option<&'static str>,
    /// Something is stashed in a repository that is staging's alone.
    pub has_stash: bool,
    /// A commit that only HEAD or staging's own branch has.
    pub unheld: Option<String>,
    /// A file that git was told not to look at.
    pub hidden: Option<PathBuf>,
    /// A repository of a submodule, which goes with the tree.
    pub module: Option<PathBuf>,
    /// What is not as it was committed now, and each file of a submodule.
    pub entries: Vec<Entry>,
    /// What was not when the tree was made: the release brought it.
    pub came_along: BTreeSet<Entry>,
}

/// Why a tree is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Work {
    #[error(
        "its HEAD names no commit any more; check one out there (`git checkout -B {0} COMMIT`), or remove the directory"
    )]
    NoHead(String),
    #[error("{0} is under way in it; finish that, or abort it")]
    Unfinished(&'static str),
    #[error("something is stashed in it; `git stash pop` and commit it, or `git stash drop`")]
    Stash,
    #[error(
        "it has commits that no branch but {branch} holds (the last is {commit}); deploy from there, or keep them with `git branch NAME {commit}`"
    )]
    Unheld {
        /// Eight digits.
        commit: String,
        /// Staging's own.
        branch: String,
    },
    #[error("it has work that is not committed ({0:?}); commit it, or remove it")]
    Changed(PathBuf),
    #[error(
        "git was told not to look at {0:?} in it; `git update-index --no-skip-worktree --no-assume-unchanged` has it look again"
    )]
    Hidden(PathBuf),
    #[error(
        "a submodule has a repository in it ({0:?}), which would go with it; push what is nowhere else, remove that, and empty the submodule's directory"
    )]
    Module(PathBuf),
    #[error(
        "its branch {branch} is checked out in {tree:?}, and is not set under what is there; `git switch --detach` in that directory lets go of it"
    )]
    Elsewhere {
        /// Staging's own.
        branch: String,
        /// The user's.
        tree: PathBuf,
    },
    #[error("git cannot say what is in it: {0}; mend it, or remove the directory")]
    Unknown(String),
}

impl Found {
    /// What would be lost.
    pub(super) fn work(&self, branch: &str) -> Option<Work> {
        if let Some(what) = self.unfinished {
            return Some(Work::Unfinished(what));
        }
        if !self.has_head {
            return Some(Work::NoHead(branch.to_owned()));
        }
        if let Some(repository) = &self.module {
            return Some(Work::Module(repository.clone()));
        }
        if let Some(path) = &self.hidden {
            return Some(Work::Hidden(path.clone()));
        }
        // A file that came along and was written to since has another time.
        let own = |entry: &&Entry| !self.came_along.contains(entry);
        if let Some(entry) = self.entries.iter().find(own) {
            return Some(Work::Changed(entry.path.clone()));
        }
        if let Some(commit) = &self.unheld {
            return Some(Work::Unheld {
                commit: commit.get(..8).unwrap_or(commit).to_owned(),
                branch: branch.to_owned(),
            });
        }
        self.has_stash.then_some(Work::Stash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &[u8; 2], path: &str, time: i128) -> Entry {
        Entry {
            kind: *kind,
            path: path.into(),
            print: Some((1, time)),
        }
    }

    fn clean() -> Found {
        Found {
            has_head: true,
            entries: vec![entry(b"??", "made/by-setup", 7)],
            came_along: BTreeSet::from([entry(b"??", "made/by-setup", 7), entry(b"??", "gone", 7)]),
            ..Found::default()
        }
    }

    #[test]
    fn what_came_with_the_release_is_no_work_and_neither_is_that_it_went() {
        assert_eq!(clean().work("machine"), None);
    }

    #[test]
    fn everything_that_is_nowhere_else_is_work() {
        let with = |change: fn(&mut Found)| {
            let mut found = clean();
            change(&mut found);
            found.work("machine")
        };
        let changed = |path: &str| Some(Work::Changed(path.into()));
        assert_eq!(
            with(|it| it.entries.push(entry(b"??", "idea", 9))),
            changed("idea")
        );
        assert_eq!(
            with(|it| it.entries.push(entry(b"A ", "staged", 9))),
            changed("staged")
        );
        // It came along, and was edited, or staged.
        assert_eq!(
            with(|it| it.entries[0].print = Some((1, 8))),
            changed("made/by-setup")
        );
        assert_eq!(
            with(|it| it.entries[0].kind = *b"A "),
            changed("made/by-setup")
        );
        assert_eq!(
            with(|it| it.unfinished = Some("a merge")),
            Some(Work::Unfinished("a merge"))
        );
        assert_eq!(with(|it| it.has_stash = true), Some(Work::Stash));
        assert_eq!(
            with(|it| it.has_head = false),
            Some(Work::NoHead("machine".to_owned()))
        );
        let unheld = with(|it| it.unheld = Some("0123456789".to_owned()));
        assert_eq!(
            unheld.unwrap().to_string().split(';').next().unwrap(),
            "it has commits that no branch but machine holds (the last is 01234567)"
        );
    }
}
