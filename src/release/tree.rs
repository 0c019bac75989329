//! What a release is made of, as far as its identity goes, and where its symlinks lead.
//!
//! **Invariant:** directories count only where nothing is in them: packers differ in whether they name the others.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

/// Symlinks that one path may pass through, as the kernel counts (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What an entry of a release is.
pub(super) enum Content {
    Directory,
    Link(PathBuf),
    File { executable: bool, digest: [u8; 32] },
}

/// The entries of a release by their paths in it. Paths are ordered by their components: what lies in a directory comes right
/// behind it.
pub(super) type Contents = BTreeMap<PathBuf, Content>;

/// The digest of a tree: each entry's kind, path and content, with lengths so that nothing can be shifted from one to the next.
pub(super) fn digest(contents: &Contents) -> [u8; 32] {
    let mut hash = Sha256::new();
    let field = |hash: &mut Sha256, bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    let mut entries = contents.iter().peekable();
    while let Some((path, content)) = entries.next() {
        let has_something = entries
            .peek()
            .is_some_and(|(next, _)| next.starts_with(path));
        if has_something {
            continue;
        }
        field(&mut hash, path.as_os_str().as_encoded_bytes());
        match content {
            Content::Directory => field(&mut hash, b"directory"),
            Content::Link(target) => {
                field(&mut hash, b"link");
                field(&mut hash, target.as_os_str().as_encoded_bytes());
            }
            Content::File { executable, digest } => {
                field(&mut hash, if *executable { b"program" } else { b"file" });
                field(&mut hash, digest);
            }
        }
    }
    hash.finalize().into()
}

/// What is on disk of a release.
pub(super) fn read(home: &Path) -> io::Result<Contents> {
    let mut contents = Contents::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(home.join(&folder))? {
            let entry = entry?;
            let (path, found) = (folder.join(entry.file_name()), entry.metadata()?);
            let content = if found.is_dir() {
                folders.push(path.clone());
                Content::Directory
            } else if found.is_symlink() {
                Content::Link(fs::read_link(entry.path())?)
            } else {
                Content::File {
                    // Of the three bits the one that no umask takes away.
                    executable: found.permissions().mode() & 0o100 != 0,
                    digest: file_digest(&entry.path())?,
                }
            };
            contents.insert(path, content);
        }
    }
    Ok(contents)
}

fn file_digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut hash = Sha256::new();
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hash.finalize().into());
        }
        hash.update(bytes);
        let count = bytes.len();
        file.consume(count);
    }
}

/// Whether a symlink of a release leads to somewhere in it, whatever other symlinks of it its target passes through.
///
/// Where the target ends is not followed if that is a symlink again: that one is looked at for itself. `link_at` gives the target of a
/// path of the release that is a symlink.
pub fn stays_inside<'a>(
    link_at: impl Fn(&Path) -> Option<&'a Path>,
    link: &Path,
    target: &'a Path,
) -> bool {
    let mut at: PathBuf = link.parent().map(Path::to_owned).unwrap_or_default();
    let mut ahead: VecDeque<Component<'_>> = target.components().collect();
    let mut passed = 0;
    while let Some(component) = ahead.pop_front() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !at.pop() {
                    return false;
                }
            }
            Component::RootDir | Component::Prefix(_) => return false,
            Component::Normal(name) => {
                at.push(name);
                let Some(through) = link_at(&at) else {
                    continue;
                };
                if ahead.is_empty() {
                    return true;
                }
                passed += 1;
                if passed > MOST_LINKS {
                    return false;
                }
                at.pop();
                for component in through.components().rev() {
                    ahead.push_front(component);
                }
            }
        }
    }
    true
}
