//! The submodules of a commit (gitmodules(5)).
//!
//! A commit of another repository that no `.gitmodules` names is none: git lays an empty directory out for it, and so does slot.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::command::{Git, words};
use super::{Commit, GitError};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Its name, by which git keeps its repository.
    pub(super) name: String,
    /// Where it is in the tree.
    pub(super) path: PathBuf,
    /// Which commit of it belongs there.
    pub(super) commit: Commit,
}

/// Those of a commit that is in this repository; not those that they have themselves.
pub(super) fn modules(git: &Git, commit: &Commit) -> Result<Vec<Module>, GitError> {
    const OPERATION: &str = "read .gitmodules";
    let tree = git.run(
        "list the tree of a commit",
        &["ls-tree", "-r", "-z", "--full-tree", commit.as_str()],
        b"",
    )?;
    let linked: Vec<_> = tree.split(|byte| *byte == 0).filter_map(linked).collect();
    let has_file = tree
        .split(|byte| *byte == 0)
        .any(|entry| entry.starts_with(b"100") && entry.ends_with(b"\t.gitmodules"));
    if linked.is_empty() || !has_file {
        return Ok(Vec::new());
    }
    let failed = |said| GitError::Failed {
        operation: OPERATION,
        directory: git.directory().to_owned(),
        said,
    };
    let blob = format!("--blob={commit}:.gitmodules");
    // The whole of it: where a pattern is looked for, one that cannot be read is told from one without such a key by nothing.
    let found = git.ask(OPERATION, &["config", &blob, "-z", "--list"], b"")?;
    if !found.status.success() {
        return Err(failed(words(&found.stderr)));
    }
    let named: BTreeMap<Vec<u8>, String> = found
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'\n')?;
            let key = String::from_utf8_lossy(&entry[..at]);
            let name = key.strip_prefix("submodule.")?.strip_suffix(".path")?;
            Some((entry[at + 1..].to_owned(), name.to_owned()))
        })
        .collect();
    let mut modules = Vec::new();
    for (path, commit) in linked {
        let Some(name) = named.get(path) else {
            continue;
        };
        // It becomes a part of a path, and one with `..` leads to what the commit itself brings (CVE-2018-11235).
        if name
            .split(['/', '\\'])
            .any(|part| matches!(part, "" | ".."))
        {
            return Err(failed(format!("a submodule is called {name:?}; rename it")));
        }
        modules.push(Module {
            name: name.clone(),
            path: PathBuf::from(OsStr::from_bytes(path)),
            commit,
        });
    }
    Ok(modules)
}

/// An entry of a tree that is a commit of another repository: where, and which.
fn linked(entry: &[u8]) -> Option<(&[u8], Commit)> {
    let rest = entry.strip_prefix(b"160000 commit ")?;
    let (digits, path) = rest.split_at_checked(40)?;
    let commit = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((path.strip_prefix(b"\t")?, commit))
}

/// The URL of one of them, as the commit says it.
pub(super) fn url_of(git: &Git, commit: &Commit, name: &str) -> Result<Option<String>, GitError> {
    let blob = format!("--blob={commit}:.gitmodules");
    let key = format!("submodule.{name}.url");
    git.answer("read .gitmodules", &["config", &blob, "--get", &key])
}
