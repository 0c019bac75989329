//! The submodules of a commit (gitmodules(5)).
//!
//! A commit of another repository that no `.gitmodules` names is none: git lays an empty directory out for it, and so does slot.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::command::Git;
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
    let blob = format!("--blob={commit}:.gitmodules");
    let pattern = r"^submodule\..*\.path$";
    let found = git.ask(
        OPERATION,
        &["config", &blob, "-z", "--get-regexp", pattern],
        b"",
    )?;
    // Without the file git config fails as it does without such a key: there are none.
    if !found.status.success() {
        return Ok(Vec::new());
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
    let tree = git.run(
        "list the tree of a commit",
        &["ls-tree", "-r", "-z", "--full-tree", commit.as_str()],
        b"",
    )?;
    let linked = tree.split(|byte| *byte == 0).filter_map(|entry| {
        let rest = entry.strip_prefix(b"160000 commit ")?;
        let (digits, path) = rest.split_at_checked(40)?;
        let path = path.strip_prefix(b"\t")?;
        Some(Module {
            name: named.get(path)?.clone(),
            path: PathBuf::from(OsStr::from_bytes(path)),
            commit: std::str::from_utf8(digits).ok()?.parse().ok()?,
        })
    });
    Ok(linked.collect())
}

/// The URL of one of them, as the commit says it.
pub(super) fn url_of(git: &Git, commit: &Commit, name: &str) -> Result<Option<String>, GitError> {
    let blob = format!("--blob={commit}:.gitmodules");
    let key = format!("submodule.{name}.url");
    git.answer("read .gitmodules", &["config", &blob, "--get", &key])
}
