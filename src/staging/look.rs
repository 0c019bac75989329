//! What there is in a staging tree, as git tells it; and what is noted when one is made.
//!
//! **Invariant:** nothing is changed by looking.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::modules::{self, Below};
use super::work::{Entry, Found, Work};
use super::{Promoted, StagingError};
use crate::deploy::ReleaseId;
use crate::git::{Commit, Git, GitError};
use crate::telemetry::chain;

/// The file of a tree's notes, where git keeps what it knows of that one tree. It goes with the tree, whatever that is called.
pub(super) const NOTES: &str = "slot-staging";

/// What git has where it is in the middle of something, and what that is (gitrepository-layout(5)).
const UNFINISHED: [(&str, &str); 7] = [
    ("index.lock", "a run of git"),
    ("MERGE_HEAD", "a merge"),
    ("CHERRY_PICK_HEAD", "a cherry-pick"),
    ("REVERT_HEAD", "a revert"),
    ("rebase-merge", "a rebase"),
    ("rebase-apply", "a rebase"),
    ("BISECT_LOG", "a bisection"),
];

/// What was noted when a tree was made.
///
/// ```text
/// 1a2b3c4d\n
/// <40 digits>\n
/// <40 digits, or nothing>\n
/// ?? <size> <nanoseconds> <path>\0 …
/// ```
pub(super) struct Notes {
    pub release: ReleaseId,
    pub commit: Commit,
    /// What staging's branch was before: nothing, where there was none.
    pub replaces: String,
    came_along: BTreeSet<Entry>,
}

impl Notes {
    /// Those of a tree; `None` if it is none of ours, or was not finished.
    pub(super) fn of(tree: &Path) -> Option<Self> {
        let text = fs::read(git_directory(tree)?.join(NOTES)).ok()?;
        let mut lines = text.splitn(4, |byte| *byte == b'\n');
        let mut line = || std::str::from_utf8(lines.next()?).ok();
        let (release, commit) = (line()?.parse().ok()?, line()?.parse().ok()?);
        let replaces = line()?.to_owned();
        let records = lines.next()?.split(|byte| *byte == 0);
        Some(Self {
            release,
            commit,
            replaces,
            came_along: records.filter_map(entry_of).collect(),
        })
    }
}

fn entry_of(record: &[u8]) -> Option<Entry> {
    let mut fields = record.splitn(4, |byte| *byte == b'\t');
    let kind: [u8; 2] = fields.next()?.try_into().ok()?;
    let mut number = || std::str::from_utf8(fields.next()?).ok();
    let print = match (number()?.parse(), number()?.parse()) {
        (Ok(size), Ok(time)) => Some((size, time)),
        _ => None,
    };
    let path = PathBuf::from(OsStr::from_bytes(fields.next()?));
    Some(Entry { kind, path, print })
}

/// Notes what a new tree is of and what it has beside its commit: that it is finished.
pub(super) fn note(tree: &Path, of: &Promoted, branch: &str) -> Result<(), StagingError> {
    let replaces = tip(&Git::users(tree), branch)?.unwrap_or_default();
    let mut text = format!("{}\n{}\n{replaces}\n", of.release, of.commit).into_bytes();
    let below = modules::below(tree, tracked(tree)?.modules)?;
    for entry in entries(tree)?.into_iter().chain(below.files) {
        let (size, time) = entry
            .print
            .map_or(("-".into(), "-".into()), |(size, time)| {
                (size.to_string(), time.to_string())
            });
        text.extend(entry.kind);
        text.extend(format!("\t{size}\t{time}\t").bytes());
        text.extend(entry.path.as_os_str().as_bytes());
        text.push(0);
    }
    let directory = git_directory(tree).unwrap_or_else(|| tree.join(".git"));
    let (file, new) = (directory.join(NOTES), directory.join("slot-staging.new"));
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &file))
        .map_err(StagingError::disk("write", &file))
}

/// Looks at a tree. `is_own`: its repository is there for it alone. What cannot be found out is a reason to keep it.
pub(super) fn at(
    tree: &Path,
    repository: &Path,
    branch: &str,
    is_own: bool,
    promoted: &Commit,
) -> Result<Found, Work> {
    let Some(directory) = administration(tree, repository) else {
        return Err(Work::Unknown(format!(
            "it is no work tree of {} any more",
            repository.display()
        )));
    };
    let unknown = |error: GitError| Work::Unknown(error.to_string());
    let git = Git::users(tree);
    let head = git.answer(
        "read HEAD",
        &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"],
    );
    let notes = Notes::of(tree);
    let unfinished = UNFINISHED
        .iter()
        .find(|(name, _)| directory.join(name).exists())
        .map(|(_, what)| *what);
    let stash = ["rev-parse", "--verify", "--quiet", "refs/stash"];
    let stash = git.answer("look for a stash", &stash).map_err(unknown)?;
    let has_head = head.map_err(unknown)?.is_some();
    let known = notes.as_ref().map(|notes| notes.commit.as_str());
    let held: Vec<&str> = [Some(promoted.as_str()), known]
        .into_iter()
        .flatten()
        .collect();
    let unheld = match has_head {
        true => unheld(&git, branch, &held, Some("HEAD")).map_err(unknown)?,
        false => None,
    };
    let tracked = tracked(tree).map_err(unknown)?;
    let below = modules::below(tree, tracked.modules);
    let Below { files, repository } = below.map_err(|error| Work::Unknown(chain(&error)))?;
    let mut entries = entries(tree).map_err(unknown)?;
    entries.extend(files);
    // Of a submodule that was set up, and may have been taken out of the tree again.
    let modules = directory.join("modules");
    Ok(Found {
        has_head,
        unfinished,
        has_stash: is_own && stash.is_some(),
        unheld,
        hidden: tracked.hidden,
        module: repository.or_else(|| modules.exists().then_some(modules)),
        entries,
        came_along: notes.map(|notes| notes.came_along).unwrap_or_default(),
    })
}

/// The last commit of staging's branch, and of another name, that nothing else holds. What of `held` is not here holds nothing.
pub(super) fn unheld(
    git: &Git,
    branch: &str,
    held: &[&str],
    name: Option<&str>,
) -> Result<Option<String>, GitError> {
    let own = tip(git, branch)?;
    let names: Vec<&str> = name.into_iter().chain(own.as_deref()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let exclude = format!("--exclude={branch}");
    let walk = [
        &["rev-list", "--max-count=1", "--ignore-missing", "--stdin"][..],
        &names,
        &["--not", &exclude, "--branches", "--tags", "--remotes"],
    ]
    .concat();
    let held: String = held.iter().map(|commit| format!("^{commit}\n")).collect();
    let found = git.run("look for commits", &walk, held.as_bytes())?;
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    Ok((!found.is_empty()).then_some(found))
}

/// The commit that a branch is at, if there is such a branch.
pub(super) fn tip(git: &Git, branch: &str) -> Result<Option<String>, GitError> {
    let name = format!("refs/heads/{branch}^{{commit}}");
    git.answer(
        "look for the branch",
        &["rev-parse", "--verify", "--quiet", &name],
    )
}

/// What is not as it was committed. Files that git is told to ignore are none of these.
fn entries(tree: &Path) -> Result<Vec<Entry>, GitError> {
    let told = Git::users(tree).run(
        "compare the work tree with HEAD",
        &[
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=all",
            "--ignore-submodules=none",
        ],
        b"",
    )?;
    let entries = told.split(|byte| *byte == 0).filter_map(|record| {
        let path = PathBuf::from(OsStr::from_bytes(record.get(3..)?));
        let about = tree.join(&path).symlink_metadata().ok();
        Some(Entry {
            kind: [record[0], record[1]],
            print: about.as_ref().map(print),
            path,
        })
    });
    Ok(entries.collect())
}

/// A file's size in bytes, and when it was written last, in nanoseconds since 1970.
pub(super) fn print(about: &fs::Metadata) -> (u64, i128) {
    let time = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
    (about.len(), time)
}

/// What git follows and does not look at.
struct Tracked {
    /// Each submodule.
    modules: Vec<PathBuf>,
    /// A file that it was told not to look at.
    hidden: Option<PathBuf>,
}

fn tracked(tree: &Path) -> Result<Tracked, GitError> {
    let list = ["ls-files", "--stage", "-v", "-z"];
    let told = Git::users(tree).run("list the files that are followed", &list, b"")?;
    let mut tracked = Tracked {
        modules: Vec::new(),
        hidden: None,
    };
    // `H 100644 <40 digits> 0\t<path>`: the first letter is small, or an S, of what git takes to be as it was (git-ls-files(1), `-v`).
    for record in told.split(|byte| *byte == 0) {
        let Some(tab) = record.iter().position(|byte| *byte == b'\t') else {
            continue;
        };
        let path = PathBuf::from(OsStr::from_bytes(&record[tab + 1..]));
        let is_hidden = record[0] == b'S' || record[0].is_ascii_lowercase();
        if is_hidden && tree.join(&path).symlink_metadata().is_ok() {
            tracked.hidden = Some(path.clone());
        }
        if record[1..].starts_with(b" 160000 ") {
            tracked.modules.push(path);
        }
    }
    Ok(tracked)
}

/// Another work tree that a branch is checked out in, beside those.
pub(super) fn elsewhere(
    git: &Git,
    branch: &str,
    own: &[&Path],
) -> Result<Option<PathBuf>, GitError> {
    let list = ["worktree", "list", "--porcelain"];
    let told = git.run("list the work trees", &list, b"")?;
    let wanted = format!("branch refs/heads/{branch}");
    let own: Vec<PathBuf> = own.iter().filter_map(|it| real(it)).collect();
    let mut tree = None;
    for line in told.split(|byte| *byte == b'\n') {
        if let Some(path) = line.strip_prefix(b"worktree ") {
            // One that is not there any more is nobody's.
            tree = real(Path::new(OsStr::from_bytes(path)));
        } else if line == wanted.as_bytes()
            && let Some(tree) = tree.take()
            && !own.contains(&tree)
        {
            return Ok(Some(tree));
        }
    }
    Ok(None)
}

fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// Where git keeps what it knows of a tree alone: `<repository>/worktrees/…`; `None` if the tree is none of that repository.
pub(super) fn administration(tree: &Path, repository: &Path) -> Option<PathBuf> {
    let directory = git_directory(tree)?;
    let common = ["rev-parse", "--git-common-dir"];
    let common = Git::users(repository)
        .answer("find the repository", &common)
        .ok()??;
    let trees = repository
        .join(common)
        .join("worktrees")
        .canonicalize()
        .ok()?;
    (directory.parent() == Some(&*trees)).then_some(directory)
}

/// What a repository still keeps of trees at these places, `<repository>/worktrees/…`.
pub(super) fn left_of(repository: &Path, trees: &[&Path]) -> Vec<PathBuf> {
    let common = ["rev-parse", "--git-common-dir"];
    let common = Git::users(repository).answer("find the repository", &common);
    let Ok(Some(common)) = common else {
        return Vec::new();
    };
    let listed = fs::read_dir(repository.join(common).join("worktrees"));
    let kept = listed
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    kept.filter(|kept| {
        let at = fs::read_to_string(kept.join("gitdir")).unwrap_or_default();
        let at = Path::new(at.trim_end()).parent();
        at.is_some_and(|at| trees.contains(&at))
    })
    .collect()
}

/// The commit that the HEAD of such a one was at, if it was on no branch.
pub(super) fn detached(administration: &Path) -> Option<String> {
    let head = fs::read_to_string(administration.join("HEAD")).ok()?;
    let commit: Commit = head.trim_end().parse().ok()?;
    Some(commit.to_string())
}

fn git_directory(tree: &Path) -> Option<PathBuf> {
    // In a directory without one git would find the repository around it.
    tree.join(".git").symlink_metadata().ok()?;
    let asked = ["rev-parse", "--absolute-git-dir"];
    let told = Git::users(tree)
        .answer("find the repository", &asked)
        .ok()??;
    Path::new(&told).canonicalize().ok()
}
