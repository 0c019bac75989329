//! Files that Git LFS keeps elsewhere: a commit has pointers in their place (git-lfs-spec(5)), which no app can use.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::GitError;
use super::command::Git;

/// What a pointer begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A pointer of a commit that was laid out, if there is one. `git` has the commit in its index.
pub(super) fn pointer(git: &Git, laid_out: &Path) -> Result<Option<PathBuf>, GitError> {
    let paths = git.run("list files", &["ls-files", "-z"], b"")?;
    let mut attributes = paths.split(|byte| *byte == 0).filter(|path| {
        let name = path.rsplit(|byte| *byte == b'/').next();
        name == Some(b".gitattributes")
    });
    if !attributes.any(|path| begins(&laid_out.join(OsStr::from_bytes(path)), is_lfs)) {
        return Ok(None);
    }
    let filters = git.run(
        "look for files of Git LFS",
        &["check-attr", "--cached", "-z", "--stdin", "filter"],
        &paths,
    )?;
    // Path, attribute and value, each with its end (git-check-attr(1)).
    let mut fields = filters.split(|byte| *byte == 0);
    while let (Some(path), Some(_), Some(value)) = (fields.next(), fields.next(), fields.next()) {
        let path = Path::new(OsStr::from_bytes(path));
        if value == b"lfs" && begins(&laid_out.join(path), |it| it.starts_with(POINTER)) {
            return Ok(Some(path.to_owned()));
        }
    }
    Ok(None)
}

fn is_lfs(content: &[u8]) -> bool {
    content.windows(10).any(|part| part == b"filter=lfs")
}

/// Whether the beginning of a regular file is so.
fn begins(path: &Path, is_so: impl Fn(&[u8]) -> bool) -> bool {
    let is_file = path.symlink_metadata().is_ok_and(|about| about.is_file());
    let mut content = Vec::new();
    is_file
        && File::open(path)
            .and_then(|file| file.take(1 << 20).read_to_end(&mut content))
            .is_ok_and(|_| is_so(&content))
}
