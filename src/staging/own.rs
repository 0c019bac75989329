//! The repository of a staging tree that has one for itself: bare, and shallow where a commit came without its history.
//!
//! **Invariant:** it is under its name only when it is whole.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Stdio;

use super::StagingError;
use super::tree;
use crate::git::{Commit, Git, GitError, words};

/// The file that has each commit that came here, whole: a line, 41 bytes, for each. What is not in it was made here.
const CAME: &str = "slot-came";

/// Makes it, if it is not there.
pub(super) fn make(path: &Path, branch: &str) -> Result<(), StagingError> {
    if path.is_dir() {
        return Ok(());
    }
    let new = path.with_extension("git.new");
    tree::remove(&new)?;
    fs::create_dir_all(&new).map_err(StagingError::disk("make the directory", &new))?;
    let git = Git::users(&new);
    let branch = format!("--initial-branch={branch}");
    let init = ["init", "--quiet", "--bare", "--template=", &branch];
    git.run("make a repository", &init, b"")?;
    // What a branch was, when it is another's next.
    let log = ["config", "core.logAllRefUpdates", "true"];
    git.run("configure a repository", &log, b"")?;
    fs::rename(&new, path).map_err(StagingError::disk("name", path))
}

/// Takes a commit, unless it is here.
pub(super) fn take<R: Read>(
    path: &Path,
    commit: &Commit,
    pack: impl FnOnce() -> io::Result<R>,
) -> Result<(), StagingError> {
    let git = Git::users(path);
    if !has(&git, commit.as_str())? {
        index(&git, pack().map_err(StagingError::Commit)?)?;
        add(path, CAME, commit)?;
    }
    let text = git.run(
        "read a commit",
        &["cat-file", "commit", commit.as_str()],
        b"",
    )?;
    let text = String::from_utf8_lossy(&text);
    let parents = text
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("parent "));
    for parent in parents {
        if !has(&git, parent)? {
            // Its parents are not here (gitrepository-layout(5)).
            return add(path, "shallow", commit);
        }
    }
    Ok(())
}

/// The commits that came as releases, and so were not made here.
pub(super) fn came(path: &Path) -> String {
    // Without it more is kept than need be.
    fs::read_to_string(path.join(CAME)).unwrap_or_default()
}

/// Packs anew what many promotions brought, and lets go of what nothing names any more, as git itself does from time to time
/// (git-gc(1)): what a branch was and is not any more goes after 30 days (`gc.reflogExpireUnreachable`), unless another has it.
pub(super) fn tidy(path: &Path) {
    let now = [
        "-c",
        "gc.auto=6700",
        "-c",
        "gc.autoPackLimit=10",
        "-c",
        "gc.autoDetach=false",
        "-c",
        "pack.threads=1",
        "gc",
        "--auto",
        "--quiet",
    ];
    // It takes room until the next one.
    let _ = Git::users(path).ask("tidy a repository", &now, b"");
}

fn has(git: &Git, commit: &str) -> Result<bool, GitError> {
    let wanted = format!("{commit}^{{tree}}");
    let found = git.answer("look for a commit", &["cat-file", "-e", &wanted])?;
    Ok(found.is_some())
}

fn index(git: &Git, mut pack: impl Read) -> Result<(), StagingError> {
    const OPERATION: &str = "take a pack";
    let arguments = ["index-pack", "--stdin", "--fix-thin"];
    let mut run = git.start(OPERATION, &arguments, Stdio::piped())?;
    let copied = run
        .child
        .stdin
        .take()
        .map_or(Ok(0), |mut stdin| io::copy(&mut pack, &mut stdin));
    let (status, said) = run.end().map_err(StagingError::Commit)?;
    if !status.success() {
        return Err(StagingError::Commit(io::Error::other(words(&said))));
    }
    copied.map(drop).map_err(StagingError::Commit)
}

/// Adds a commit to a file that has one in each line.
fn add(path: &Path, name: &str, commit: &Commit) -> Result<(), StagingError> {
    let (file, new) = (path.join(name), path.join(format!("{name}.new")));
    let noted = match fs::read_to_string(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StagingError::disk("read", &file)(error));
        }
        noted => noted.unwrap_or_default(),
    };
    let mut all: BTreeSet<&str> = noted.lines().collect();
    if !all.insert(commit.as_str()) {
        return Ok(());
    }
    let text: String = all.iter().map(|commit| format!("{commit}\n")).collect();
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, &file))
        .map_err(StagingError::disk("write", &file))
}
