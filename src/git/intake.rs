//! A pack on its way into the store.
//!
//! **Invariant:** git looks at every object of it, and at what those name, before any of it is where the store looks.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::command::{Git, words};
use super::{Commit, GitError};

/// What git holds against objects, and what they may have all the same: oddities of old or home-made tools in commits, which harm
/// nobody who lays their trees out (git-fsck(1), "FSCK MESSAGES"). Whatever it has against trees but one old mode stays.
const STRICT: &str = "--strict=zeroPaddedFilemode=ignore,badTimezone=ignore,badDate=ignore,badDateOverflow=ignore,\
                      zeroPaddedDate=ignore,badEmail=ignore,missingEmail=ignore,missingNameBeforeEmail=ignore,\
                      missingSpaceBeforeDate=ignore,missingSpaceBeforeEmail=ignore,multipleAuthors=ignore";

/// Reads a pack into the quarantine; git looks at each object of it, and that those which they name are there.
pub(super) fn index(
    git: &Git,
    commit: &Commit,
    mut pack: impl Read,
    wanted: impl Fn() -> bool,
) -> Result<(), GitError> {
    let torn = |source| GitError::Torn {
        commit: commit.clone(),
        source,
    };
    let mut buffer = vec![0; 1 << 16];
    let mut count = read(&mut pack, &mut buffer).map_err(torn)?;
    if count == 0 {
        // Nothing is missing, says who sends; whether that is so is looked at next.
        return Ok(());
    }
    let mut run = git.start(
        "take a pack",
        &["index-pack", "--stdin", "--fix-thin", STRICT],
        Stdio::piped(),
    )?;
    let mut stdin = run.child.stdin.take();
    while count > 0 {
        if !wanted() {
            return Err(GitError::Unwanted);
        }
        let Some(pipe) = &mut stdin else { break };
        if pipe.write_all(&buffer[..count]).is_err() {
            // It has seen enough, and says why.
            break;
        }
        count = read(&mut pack, &mut buffer).map_err(torn)?;
    }
    drop(stdin);
    let (status, said) = run.end().map_err(|source| GitError::Start {
        operation: "take a pack",
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    let said = words(&said);
    if said.contains("No space left on device") {
        return Err(GitError::disk("write", git.directory())(
            io::ErrorKind::StorageFull.into(),
        ));
    }
    Err(GitError::Refused {
        commit: commit.clone(),
        said,
    })
}

/// That the commit is there, and all of its tree.
pub(super) fn check(git: &Git, commit: &Commit) -> Result<(), GitError> {
    let refused = |said| GitError::Refused {
        commit: commit.clone(),
        said,
    };
    let kind = git.answer("look for a commit", &["cat-file", "-t", commit.as_str()])?;
    if kind.as_deref() != Some("commit") {
        return Err(refused(
            "the commit is not in it, nor was it here".to_owned(),
        ));
    }
    let walk = [
        "rev-list",
        "--objects",
        "--quiet",
        commit.as_str(),
        "--not",
        "--all",
    ];
    let walked = git.ask("look for the objects of a commit", &walk, b"")?;
    if walked.status.success() {
        return Ok(());
    }
    Err(refused(words(&walked.stderr)))
}

/// Moves good packs to where the store looks; the index comes last, as it is what makes git see a pack.
pub(super) fn settle(from: &Path, to: &Path) -> Result<(), GitError> {
    let listed = fs::read_dir(from).map_err(GitError::disk("list", from))?;
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "idx"));
    for path in paths {
        let new = to.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &new).map_err(GitError::disk("move to its place", &path))?;
    }
    File::open(to)
        .and_then(|directory| directory.sync_all())
        .map_err(GitError::disk("sync", to))
}

/// As much as comes at once.
fn read(pack: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match pack.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            count => return count,
        }
    }
}
