//! What a name means in a repository: HEAD, a branch, a tag, a part of a commit's name, and whatever else gitrevisions(7) has.
//!
//! **Invariant:** a name that means two commits is refused; git itself would take one of them with a warning (git-rev-parse(1)).

use std::collections::BTreeMap;

use super::command::Git;
use super::{Commit, GitError};
use crate::config::closest;

/// Fewer digits are no part of a commit's name to git.
const FEWEST_DIGITS: usize = 4;

/// The commit that has the name.
pub(super) fn resolve(git: &Git, name: &str) -> Result<Commit, GitError> {
    // Each meaning by the name that has no other.
    let mut meanings: BTreeMap<Commit, String> = BTreeMap::new();
    for kind in ["refs/tags", "refs/heads", "refs/remotes"] {
        let full = format!("{kind}/{name}");
        // What goes on from a name, as `main~2` does, is told by git alone.
        let is_ref = git
            .ask(
                OPERATION,
                &["show-ref", "--verify", "--quiet", "--", &full],
                b"",
            )?
            .status
            .success();
        if is_ref && let Some(commit) = commit_of(git, &full)? {
            meanings.entry(commit).or_insert(full);
        }
    }
    for commit in with_digits(git, name)? {
        let whole = commit.to_string();
        meanings.entry(commit).or_insert(whole);
    }
    if meanings.len() > 1 {
        return Err(GitError::Ambiguous {
            name: name.to_owned(),
            meanings: meanings.into_values().collect(),
        });
    }
    if let Some((commit, _)) = meanings.pop_first() {
        return Ok(commit);
    }
    match commit_of(git, name)? {
        Some(commit) => Ok(commit),
        None => Err(unknown(git, name)?),
    }
}

const OPERATION: &str = "find a commit";

fn commit_of(git: &Git, name: &str) -> Result<Option<Commit>, GitError> {
    let wanted = format!("{name}^{{commit}}");
    let found = git.answer(
        OPERATION,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &wanted,
        ],
    )?;
    Ok(found.map(|digits| digits.parse()).transpose()?)
}

/// The commits whose names begin with these digits.
fn with_digits(git: &Git, digits: &str) -> Result<Vec<Commit>, GitError> {
    let is_part = (FEWEST_DIGITS..=40).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_part {
        return Ok(Vec::new());
    }
    let part = format!("--disambiguate={digits}");
    let objects = git.ask(OPERATION, &["rev-parse", &part], b"")?.stdout;
    let kinds = git.run(
        OPERATION,
        &["cat-file", "--batch-check=%(objecttype) %(objectname)"],
        &objects,
    )?;
    let kinds = String::from_utf8_lossy(&kinds);
    let commits = kinds
        .lines()
        .filter_map(|line| line.strip_prefix("commit ")?.parse().ok());
    Ok(commits.collect())
}

/// That there is no such name, and which there is that it may have been meant for.
fn unknown(git: &Git, name: &str) -> Result<GitError, GitError> {
    let directory = git.directory().to_owned();
    if name == "HEAD" {
        return Ok(GitError::Unborn(directory));
    }
    let listed = git.run(
        "list branches and tags",
        &[
            "for-each-ref",
            "--format=%(refname:short)",
            "refs/heads",
            "refs/tags",
            "refs/remotes",
        ],
        b"",
    )?;
    let listed = String::from_utf8_lossy(&listed);
    let listed: Vec<&str> = listed.lines().collect();
    let remote = format!("/{name}");
    let near = listed
        .iter()
        .copied()
        .find(|known| known.ends_with(&remote));
    let hint = match near.or_else(|| closest(name, &listed)) {
        Some(near) => format!("; did you mean {near}?"),
        None if looks_like_digits(name) => {
            "; was it removed by a force-push, or is it to be fetched first (`git fetch`)?"
                .to_owned()
        }
        None => "; `git branch --all` and `git tag` list what there is".to_owned(),
    };
    Ok(GitError::Unknown {
        name: name.to_owned(),
        directory,
        hint,
    })
}

fn looks_like_digits(name: &str) -> bool {
    name.len() >= FEWEST_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
