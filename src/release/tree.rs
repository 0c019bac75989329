//! What a release is made of, as far as its identity goes, and where its symlinks lead.
//!
//! **Invariant:** directories count only where nothing is in them: packers differ in whether they name the others.

use std::collections::{BTreeMap, VecDeque};
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

impl Content {
    /// The same again, if it is a file.
    pub(super) fn file(&self) -> Option<Self> {
        match *self {
            Self::File { executable, digest } => Some(Self::File { executable, digest }),
            Self::Directory | Self::Link(_) => None,
        }
    }
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
