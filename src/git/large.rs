//! Files that Git LFS keeps elsewhere: a commit has a pointer in the place of each, which says what its content is (git-lfs, `docs/spec.md`).
//!
//! **Invariant:** which files these are is read from the commit alone, from its attributes and blobs: both ends find the same ones, and
//! nothing of a work tree is run or read for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::command::Git;
use super::{Commit, GitError};

/// What a pointer begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The rest of its first line, in the only version that there is.
const VERSION: &str = "v1";

/// A pointer is shorter, in bytes.
const LONGEST: u64 = 1024;

/// The name of a content: its SHA-256, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Oid(String);

impl Oid {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What was to be the name of a content is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no content of Git LFS: that is its SHA-256, 64 small hexadecimal digits")]
pub struct NoOid(String);

impl FromStr for Oid {
    type Err = NoOid;

    fn from_str(text: &str) -> Result<Self, NoOid> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoOid(text.to_owned()))
        }
    }
}

/// A file of a commit that is kept by Git LFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Large {
    /// Where it is in the tree.
    pub path: PathBuf,
    /// Its content.
    pub oid: Oid,
    /// The content's bytes.
    pub size: u64,
    /// Whether it may be executed.
    pub(super) runs: bool,
}

/// Those of a commit that is in this repository, not those of its submodules. `index` is the path of a file that is made for it.
pub(super) fn files(git: &Git, commit: &Commit, index: &Path) -> Result<Vec<Large>, GitError> {
    let git = git.clone().with("GIT_INDEX_FILE", index);
    let read = ["read-tree", "--no-sparse-checkout", commit.as_str()];
    git.run("read the tree of a commit", &read, b"")?;
    files_of_index(&git)
}

/// Those of the commit that is in git's index.
pub(super) fn files_of_index(git: &Git) -> Result<Vec<Large>, GitError> {
    const OPERATION: &str = "look for files of Git LFS";
    let listed = git.run("list files", &["ls-files", "--stage", "-z"], b"")?;
    let entries: Vec<Entry> = split(&listed).filter_map(Entry::parse).collect();
    let has_attributes = entries.iter().any(|entry| {
        let name = entry.path.rsplit(|byte| *byte == b'/').next();
        name == Some(b".gitattributes")
    });
    if !has_attributes {
        return Ok(Vec::new());
    }
    let paths: Vec<u8> = entries
        .iter()
        .flat_map(|entry| [entry.path, b"\0"].concat())
        .collect();
    let asked = [
        // The user's own attributes are not the commit's.
        "-c",
        "core.attributesFile=/dev/null",
        "check-attr",
        "--cached",
        "-z",
        "--stdin",
        "filter",
    ];
    let filters = git
        .clone()
        .with("GIT_ATTR_NOSYSTEM", "1")
        .run(OPERATION, &asked, &paths)?;
    // Path, attribute and value, each with its end (git-check-attr(1)).
    let fields: Vec<&[u8]> = split(&filters).collect();
    let filtered: BTreeSet<&[u8]> = fields
        .chunks_exact(3)
        .filter(|field| field[2] == b"lfs")
        .map(|field| field[0])
        .collect();
    let kept = entries.iter().filter(|it| filtered.contains(it.path));
    let short = short_blobs(git, kept.clone().map(|it| it.blob).collect())?;
    let mut found = Vec::new();
    for (entry, content) in kept.filter_map(|it| Some((it, short.get(it.blob)?))) {
        let path = PathBuf::from(OsStr::from_bytes(entry.path));
        match parse(content) {
            Ok(None) => {}
            Ok(Some((oid, size))) => found.push(Large {
                path,
                oid,
                size,
                runs: entry.runs,
            }),
            Err(why) => return Err(GitError::Pointer { path, why }),
        }
    }
    Ok(found)
}

/// A regular file of an index.
struct Entry<'l> {
    runs: bool,
    blob: &'l str,
    path: &'l [u8],
}

impl<'l> Entry<'l> {
    /// Reads `100644 <blob> 0\t<path>` (git-ls-files(1), `--stage`).
    fn parse(line: &'l [u8]) -> Option<Self> {
        let at = line.iter().position(|byte| *byte == b'\t')?;
        let (mode, rest) = std::str::from_utf8(&line[..at]).ok()?.split_once(' ')?;
        let (blob, _) = rest.split_once(' ')?;
        mode.starts_with("100").then_some(Self {
            runs: mode == "100755",
            blob,
            path: &line[at + 1..],
        })
    }
}

/// What is in those of the blobs that are short enough to be pointers; each is read once, however many files are the same.
fn short_blobs<'l>(
    git: &Git,
    blobs: BTreeSet<&'l str>,
) -> Result<BTreeMap<&'l str, Vec<u8>>, GitError> {
    const OPERATION: &str = "read the pointers of Git LFS";
    let asked = |blobs: &BTreeSet<&str>| -> String {
        let lines = blobs.iter().map(|blob| format!("{blob}\n"));
        lines.collect()
    };
    let check = ["cat-file", "--batch-check=%(objectsize)"];
    let sizes = git.run(OPERATION, &check, asked(&blobs).as_bytes())?;
    let sizes = String::from_utf8_lossy(&sizes);
    // One that is missing has no size.
    let sizes = sizes.lines().map(|line| line.parse::<u64>().ok());
    let short: BTreeSet<&str> = blobs
        .into_iter()
        .zip(sizes)
        .filter(|(_, size)| size.is_some_and(|size| size < LONGEST))
        .map(|(blob, _)| blob)
        .collect();
    let told = git.run(
        OPERATION,
        &["cat-file", "--batch=%(objectsize)"],
        asked(&short).as_bytes(),
    )?;
    let mut rest = &told[..];
    let mut next = || -> Option<Vec<u8>> {
        let at = rest.iter().position(|byte| *byte == b'\n')?;
        let size: usize = std::str::from_utf8(&rest[..at]).ok()?.parse().ok()?;
        let content = rest.get(at + 1..at + 1 + size)?.to_owned();
        rest = rest.get(at + 2 + size..)?;
        Some(content)
    };
    let read: Option<BTreeMap<_, _>> = short
        .into_iter()
        .map(|blob| Some((blob, next()?)))
        .collect();
    read.ok_or_else(|| GitError::Failed {
        operation: OPERATION,
        directory: git.directory().to_owned(),
        said: "not all of them are there".to_owned(),
    })
}

/// Name and size of the content that a pointer stands for; nothing, if it is no pointer but a file that was committed as it is.
fn parse(content: &[u8]) -> Result<Option<(Oid, u64)>, String> {
    if !content.starts_with(POINTER) {
        return Ok(None);
    }
    let text = std::str::from_utf8(&content[POINTER.len()..]).map_err(|_| "it is no text")?;
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    if version != VERSION {
        return Err(format!(
            "it is of version {version:?}, and slot knows {VERSION}"
        ));
    }
    let (mut oid, mut size) = (None, None);
    for line in lines {
        let twice = match line.split_once(' ') {
            Some(("oid", name)) => {
                let digits = name
                    .strip_prefix("sha256:")
                    .ok_or_else(|| format!("its oid {name:?} is no SHA-256"))?;
                let parsed = digits.parse::<Oid>().map_err(|error| error.to_string())?;
                oid.replace(parsed).is_some()
            }
            Some(("size", count)) => {
                let count: u64 = count
                    .parse()
                    .map_err(|_| format!("its size {count:?} is no number of bytes"))?;
                size.replace(count).is_some()
            }
            // An extension has changed the content, and is a program of the user's.
            _ => return Err(format!("it has the line {line:?}")),
        };
        if twice {
            return Err(format!("it has a second line {line:?}"));
        }
    }
    match oid.zip(size) {
        Some(found) => Ok(Some(found)),
        None => Err("it does not say what the content is".to_owned()),
    }
}

/// The parts of an answer, each with a zero byte at its end.
fn split(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ended = answer.strip_suffix(b"\0").unwrap_or(answer);
    ended.split(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(lines: &str) -> Vec<u8> {
        format!("version https://git-lfs.github.com/spec/{lines}").into_bytes()
    }

    #[test]
    fn a_pointer_names_a_content_and_its_size() {
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let text = pointer(&format!("v1\noid sha256:{oid}\nsize 12345\n"));
        let found = parse(&text).unwrap().unwrap();
        assert_eq!((found.0.as_str(), found.1), (oid, 12345));
        for no_pointer in [&b""[..], b"version 1", &text[1..]] {
            assert_eq!(parse(no_pointer), Ok(None));
        }
    }

    #[test]
    fn what_says_that_it_is_a_pointer_and_is_not_one_to_slot_is_refused() {
        let oid = "0".repeat(64);
        for (lines, wanted) in [
            ("v2\n".to_owned(), "version"),
            ("v1\n".to_owned(), "does not say"),
            (format!("v1\noid sha256:{oid}\n"), "does not say"),
            (format!("v1\noid md5:{oid}\nsize 1\n"), "no SHA-256"),
            ("v1\noid sha256:../../etc\nsize 1\n".to_owned(), "64 small"),
            (
                format!("v1\noid sha256:{}\nsize 1\n", "A".repeat(64)),
                "64 small",
            ),
            (format!("v1\noid sha256:{oid}\nsize -1\n"), "no number"),
            (
                format!("v1\next-0-x sha256:{oid}\noid sha256:{oid}\nsize 1\n"),
                "has the line",
            ),
            (
                format!("v1\noid sha256:{oid}\nsize 1\nsize 2\n"),
                "a second",
            ),
        ] {
            let said = parse(&pointer(&lines)).unwrap_err();
            assert!(said.contains(wanted), "{lines}: {said}");
        }
    }
}
