//! A tar archive in, a release out.

use std::cell::Cell;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use crate::deploy::ReleaseId;
use crate::wire::hex;

use super::ReleaseError;
use super::Root;
use super::incoming::{Incoming, Links, begin};
use super::is_kept;
use super::record::{About, Identity};
use super::tree::{self, Content, Contents};

/// How much of an archive may stand between the content of one file and that of the next, in bytes: headers and long names (tar(5)), which
/// are read into memory whole.
const BETWEEN: u64 = 1 << 20;

/// What an archive is read from; remembers whether it ended, and ends itself when nobody waits for it any more.
struct Source<'a, R, W> {
    reader: R,
    wanted: W,
    ended: bool,
    /// How many bytes may be read for now.
    left: &'a Cell<u64>,
}

impl<R: Read, W: Fn() -> bool> Read for Source<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.wanted)() {
            return Err(io::Error::other(ReleaseError::Unwanted));
        }
        let most =
            usize::try_from(self.left.get()).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!(
                "more than {BETWEEN} bytes of it belong to no file"
            )));
        }
        let count = self.reader.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - count as u64);
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// Unpacks an archive into a release and gives its id, which is of its content alone: the same bits again are the same release.
///
/// `wanted` is asked before each read and before the release gets its name: once it says no, the unpacking ends. Any number of
/// archives may be unpacked at once.
///
/// # Errors
/// Nothing of the archive is left on disk then.
pub fn unpack(
    root: impl Into<Root>,
    archive: impl Read,
    about: &About,
    wanted: impl Fn() -> bool,
) -> Result<ReleaseId, ReleaseError> {
    let root = &root.into();
    let incoming = begin(root)?;
    let identity = incoming.unpack(archive, Links::Inside, &wanted)?;
    incoming.finish(identity, about, Links::Inside, wanted)
}

impl Incoming {
    /// Unpacks an archive into the directory, and gives what the content of it is known by.
    ///
    /// An archive may hold regular files, directories, hard links to files that it had before, and symlinks. Owners are dropped; of
    /// the modes only the executable bit is kept. An archive with anything else in it is refused whole. In an upload, with
    /// [`Links::Inside`], what [`KEPT`](super::KEPT) names is passed over, whatever it is: whoever packs a project himself has it in there.
    ///
    /// # Errors
    /// The directory may have a part of it in it then.
    pub fn unpack(
        &self,
        archive: impl Read,
        links: Links,
        wanted: impl Fn() -> bool,
    ) -> Result<Identity, ReleaseError> {
        unpack_into(&self.path, archive, links, &wanted).map_err(|error| {
            if wanted() {
                error
            } else {
                ReleaseError::Unwanted
            }
        })
    }
}

fn unpack_into(
    incoming: &Path,
    archive: impl Read,
    links: Links,
    wanted: &impl Fn() -> bool,
) -> Result<Identity, ReleaseError> {
    let mut contents = Contents::new();
    let left = Cell::new(BETWEEN);
    let mut archive = Archive::new(Source {
        reader: archive,
        wanted,
        ended: false,
        left: &left,
    });
    let mut entries = archive.entries().map_err(ReleaseError::Truncated)?;
    // The bytes of an entry that is passed over: they are read with the header of the next.
    let mut passed = 0;
    loop {
        left.set(BETWEEN.saturating_add(passed));
        passed = 0;
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(ReleaseError::Truncated)?;
        let path = entry.path().map_err(ReleaseError::Truncated)?.into_owned();
        let Some(path) = inside(&path) else {
            return Err(ReleaseError::Refused {
                path,
                why: "leaves the release: paths must be relative, without `..`",
            });
        };
        if links == Links::Inside && is_kept(&path) {
            // Of a sparse file that is without its holes, as it is in the archive.
            passed = match entry.header().entry_type() {
                EntryType::GNUSparse => entry.header().entry_size(),
                _ => Ok(entry.size()),
            }
            .map_err(ReleaseError::Truncated)?;
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // git-archive(1) notes its commit in one.
            continue;
        }
        admit(&contents, &path, kind)?;
        if is_sparse(&mut entry)? {
            return Err(ReleaseError::Refused {
                path,
                why: "is a sparse file in a form that only its own packer reads; pack it without --sparse",
            });
        }
        let content = match kind {
            EntryType::Directory => {
                make_parents(incoming, &path.join("entry"))?;
                Content::Directory
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let executable = file_mode(&entry, &path)?;
                make_parents(incoming, &path)?;
                let made = match links {
                    // What a build has compiled knows its source by that.
                    Links::Any => entry.header().mtime().ok(),
                    Links::Inside => None,
                };
                left.set(u64::MAX);
                write_file(&incoming.join(&path), &mut entry, executable, made, wanted)?
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name()
                    .map_err(ReleaseError::Truncated)?
                    .unwrap_or_default()
                    .into_owned();
                make_parents(incoming, &path)?;
                let at = incoming.join(&path);
                symlink(&target, &at).map_err(ReleaseError::disk("make the symlink", &at))?;
                Content::Link(target)
            }
            EntryType::Link => {
                file_mode(&entry, &path)?;
                let target = entry.link_name().map_err(ReleaseError::Truncated)?;
                let target = target.and_then(|target| inside(&target));
                let Some((target, same)) = target.and_then(|target| {
                    let same = contents.get(&target)?.file()?;
                    Some((target, same))
                }) else {
                    return Err(ReleaseError::Refused {
                        path,
                        why: "is a hard link to what is no file before it in the archive",
                    });
                };
                make_parents(incoming, &path)?;
                let at = incoming.join(&path);
                fs::hard_link(incoming.join(target), &at)
                    .map_err(ReleaseError::disk("make the hard link", &at))?;
                same
            }
            _ => {
                return Err(ReleaseError::Refused {
                    path,
                    why: "is neither a file nor a directory nor a symlink",
                });
            }
        };
        if !path.as_os_str().is_empty() {
            contents.insert(path, content);
        }
    }
    // An archive ends with blocks of zeros (tar(5)); one that was cut between two entries just ends.
    left.set(u64::MAX);
    let mut rest = archive.into_inner();
    if rest.ended {
        return Err(ReleaseError::Truncated(io::ErrorKind::UnexpectedEof.into()));
    }
    // What comes behind the end says nothing, but whether it comes does: the sender of a torn one breaks off.
    io::copy(&mut rest, &mut io::sink()).map_err(ReleaseError::Truncated)?;
    // Only now: what a target passes through may come after the symlink. Nothing has followed one until here.
    let link_at = |path: &Path| match contents.get(path) {
        Some(Content::Link(target)) => Some(target.as_path()),
        Some(Content::Directory | Content::File { .. }) | None => None,
    };
    for (path, content) in &contents {
        if links == Links::Inside
            && let Content::Link(target) = content
            && !tree::stays_inside(link_at, path, target)
        {
            return Err(ReleaseError::Refused {
                path: path.clone(),
                why: "is a symlink that leaves the release",
            });
        }
    }
    if !contents
        .values()
        .any(|content| matches!(content, Content::File { .. }))
    {
        return Err(ReleaseError::Empty);
    }
    Ok(Identity::Content(hex(&tree::digest(&contents))))
}

/// Refuses a path that the archive had before, other than a directory's, and one below a file of it.
fn admit(contents: &Contents, path: &Path, kind: EntryType) -> Result<(), ReleaseError> {
    let refused = |why| ReleaseError::Refused {
        path: path.to_owned(),
        why,
    };
    for above in path.ancestors().skip(1) {
        if let Some(Content::File { .. }) = contents.get(above) {
            return Err(refused("lies below a file of the archive"));
        }
    }
    let next = contents.range(path.to_owned()..).next();
    match (next, kind) {
        (Some((known, Content::Directory)), EntryType::Directory) if known == path => Ok(()),
        (Some((known, _)), _) if known == path => Err(refused("is in the archive twice")),
        (_, EntryType::Directory) => Ok(()),
        (_, _) if path.as_os_str().is_empty() => Err(refused("has no name")),
        (Some((known, _)), _) if known.starts_with(path) => Err(refused("is in the archive twice")),
        (_, _) => Ok(()),
    }
}

/// The path without `.` and an end `/`; `None` if it is absolute or leaves the directory that it is relative to.
fn inside(path: &Path) -> Option<PathBuf> {
    path.components()
        .try_fold(PathBuf::new(), |mut clean, component| match component {
            Component::Normal(name) => {
                clean.push(name);
                Some(clean)
            }
            Component::CurDir => Some(clean),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => None,
        })
}

/// The sparse files of POSIX archives (bsdtar's, and GNU tar's with `--format=pax`): what they hold begins with a map of itself.
fn is_sparse<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<bool, ReleaseError> {
    let keys = entry.pax_extensions().map_err(ReleaseError::Truncated)?;
    Ok(keys.is_some_and(|keys| {
        keys.filter_map(Result::ok)
            .any(|key| key.key_bytes().starts_with(b"GNU.sparse."))
    }))
}

fn file_mode<R: Read>(entry: &tar::Entry<'_, R>, path: &Path) -> Result<bool, ReleaseError> {
    let mode = entry.header().mode().map_err(ReleaseError::Truncated)?;
    if mode & 0o6000 != 0 {
        return Err(ReleaseError::Refused {
            path: path.to_owned(),
            why: "has a setuid or setgid bit",
        });
    }
    Ok(mode & 0o111 != 0)
}

/// Makes the directories above an entry; refuses to go through a symlink that the archive brought.
fn make_parents(incoming: &Path, path: &Path) -> Result<(), ReleaseError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let mut at = incoming.to_owned();
    for component in parent.components() {
        at.push(component);
        if fs::symlink_metadata(&at).is_ok_and(|found| found.is_symlink()) {
            return Err(ReleaseError::Refused {
                path: path.to_owned(),
                why: "lies behind a symlink of the archive",
            });
        }
        // Never the directory of the whole: where that is gone, so is what was unpacked before.
        match DirBuilder::new().mode(0o755).create(&at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ReleaseError::disk("make the directory", &at)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write_file(
    path: &Path,
    content: &mut impl Read,
    executable: bool,
    made: Option<u64>,
    wanted: &impl Fn() -> bool,
) -> Result<Content, ReleaseError> {
    let mode = if executable { 0o755 } else { 0o644 };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(ReleaseError::disk("create", path))?;
    let mut file = BufWriter::with_capacity(1 << 16, file);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        // The holes of a sparse file are made of nothing that is read, and may be as large as a header can say.
        if !wanted() {
            return Err(ReleaseError::Unwanted);
        }
        let count = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReleaseError::Truncated(error)),
        };
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count])
            .map_err(ReleaseError::disk("write", path))?;
    }
    file.flush().map_err(ReleaseError::disk("write", path))?;
    if let Some(made) = made.and_then(|made| UNIX_EPOCH.checked_add(Duration::from_secs(made))) {
        file.get_ref()
            .set_modified(made)
            .map_err(ReleaseError::disk("set the time of", path))?;
    }
    Ok(Content::File {
        executable,
        digest: hash.finalize().into(),
    })
}
