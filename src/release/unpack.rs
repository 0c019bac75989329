//! A tar archive in, a release out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use crate::deploy::ReleaseId;

use super::order::{Turn, alone};
use super::tree::{self, Content, Contents};
use super::{ReleaseError, digest_path, remove_tree};

/// Up to so many files are synced one by one; more of them with the whole file system, at the price of what others wrote.
const SYNCED_SINGLY: usize = 32;

/// What an archive is read from; remembers whether it ended, and ends itself when nobody waits for it any more.
struct Source<R, W> {
    reader: R,
    wanted: W,
    ended: bool,
}

impl<R: Read, W: Fn() -> bool> Read for Source<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.wanted)() {
            return Err(io::Error::other(ReleaseError::Unwanted));
        }
        let count = self.reader.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// Unpacks an archive into a release and gives its id, which is of its content alone: the same bits again are the same release.
///
/// An archive may hold regular files, directories and symlinks that stay inside it. Owners are dropped; of the modes only the
/// executable bit is kept. An archive with anything else in it is refused whole.
///
/// `wanted` is asked before each read and before the release gets its name: once it says no, the unpacking ends. Any number of
/// archives may be unpacked at once.
///
/// # Errors
/// Nothing of the archive is left on disk then.
pub fn unpack(
    root: &Path,
    archive: impl Read,
    wanted: impl Fn() -> bool,
) -> Result<ReleaseId, ReleaseError> {
    let incoming = make_incoming(root)?;
    let mut unpacked = unpack_into(root, &incoming, archive, &wanted);
    if unpacked.is_err() && !wanted() {
        unpacked = Err(ReleaseError::Unwanted);
    }
    let cleared = remove_tree(&incoming).map_err(ReleaseError::disk("clear", &incoming));
    // The last one out removes the directory of them all; another one's makes this fail.
    alone(root, |_| fs::remove_dir(root.join("incoming"))).ok();
    // The first error is the one to report; what is left is cleared when slotd starts.
    unpacked.and_then(|id| cleared.map(|()| id))
}

/// A directory that no other upload has had: one whose deployment has ended may still write to its own.
fn make_incoming(root: &Path) -> Result<PathBuf, ReleaseError> {
    alone(root, |_| {
        make_directory(&root.join("incoming"))?;
        loop {
            let path = root.join(format!("incoming/{}", Turn::next().number()));
            match DirBuilder::new().mode(0o755).create(&path) {
                // Left of a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    return made
                        .map(|()| path.clone())
                        .map_err(ReleaseError::disk("make the directory", &path));
                }
            }
        }
    })
}

fn unpack_into(
    root: &Path,
    incoming: &Path,
    archive: impl Read,
    wanted: &impl Fn() -> bool,
) -> Result<ReleaseId, ReleaseError> {
    let mut contents = Contents::new();
    let mut archive = Archive::new(Source {
        reader: archive,
        wanted,
        ended: false,
    });
    for entry in archive.entries().map_err(ReleaseError::Truncated)? {
        let mut entry = entry.map_err(ReleaseError::Truncated)?;
        let path = entry.path().map_err(ReleaseError::Truncated)?.into_owned();
        let Some(path) = inside(&path) else {
            return Err(ReleaseError::Refused {
                path,
                why: "leaves the release: paths must be relative, without `..`",
            });
        };
        let kind = entry.header().entry_type();
        admit(&contents, &path, kind)?;
        let content = match kind {
            EntryType::Directory => {
                make_parents(incoming, &path.join("entry"))?;
                Content::Directory
            }
            EntryType::Regular | EntryType::Continuous => {
                let executable = file_mode(&entry, &path)?;
                make_parents(incoming, &path)?;
                write_file(&incoming.join(&path), &mut entry, executable)?
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
                return Err(ReleaseError::Refused {
                    path,
                    why: "is a hard link; pack it as a file",
                });
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
    if archive.into_inner().ended {
        return Err(ReleaseError::Truncated(io::ErrorKind::UnexpectedEof.into()));
    }
    // Only now: what a target passes through may come after the symlink. Nothing has followed one until here.
    let link_at = |path: &Path| match contents.get(path) {
        Some(Content::Link(target)) => Some(target.as_path()),
        Some(Content::Directory | Content::File { .. }) | None => None,
    };
    for (path, content) in &contents {
        if let Content::Link(target) = content
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
    settle(root, incoming, &contents, wanted)
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

fn make_directory(path: &Path) -> Result<(), ReleaseError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(ReleaseError::disk("make the directory", path))
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
    }
    make_directory(&incoming.join(parent))
}

fn write_file(
    path: &Path,
    content: &mut impl Read,
    executable: bool,
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
    Ok(Content::File {
        executable,
        digest: hash.finalize().into(),
    })
}

/// Gives what was unpacked its name, once all of it is on disk.
fn settle(
    root: &Path,
    incoming: &Path,
    contents: &Contents,
    wanted: &impl Fn() -> bool,
) -> Result<ReleaseId, ReleaseError> {
    let digest = hex(&tree::digest(contents));
    let id: ReleaseId = digest[..8].parse().expect("eight hexadecimal digits");
    let releases = root.join("releases");
    let home = releases.join(id.as_str());
    // Even if the release is there already: it may be removed before the others let this one in.
    sync(incoming, contents)?;
    alone(root, |ledger| {
        if !wanted() {
            return Err(ReleaseError::Unwanted);
        }
        make_directory(&releases)?;
        if home.is_dir() {
            if digest_of(root, &id, &home)? != digest {
                return Err(ReleaseError::Collision { id, path: home });
            }
        } else {
            note_digest(root, &id, &digest)?;
            fs::rename(incoming, &home).map_err(ReleaseError::disk("name the release", &home))?;
            sync_one(&releases)?;
        }
        ledger.uploaded = Some(id.clone());
        Ok(id)
    })
}

/// The digest of a release that is there, as noted when it was uploaded. Where that is lost, as a disk may that was full or lost
/// power, it is reckoned from the bits and noted again.
fn digest_of(root: &Path, id: &ReleaseId, home: &Path) -> Result<String, ReleaseError> {
    let noted = fs::read_to_string(digest_path(root, id)).unwrap_or_default();
    let noted = noted.trim();
    if noted.len() == 64 && noted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(noted.to_owned());
    }
    let contents = tree::read(home).map_err(ReleaseError::disk("read", home))?;
    let reckoned = hex(&tree::digest(&contents));
    note_digest(root, id, &reckoned)?;
    Ok(reckoned)
}

/// Notes it lastingly; a release gets its name after this.
fn note_digest(root: &Path, id: &ReleaseId, digest: &str) -> Result<(), ReleaseError> {
    let path = digest_path(root, id);
    fs::write(&path, format!("{digest}\n")).map_err(ReleaseError::disk("write", &path))?;
    sync_one(&path)?;
    sync_one(&root.join("releases"))
}

fn sync(incoming: &Path, contents: &Contents) -> Result<(), ReleaseError> {
    if contents.len() > SYNCED_SINGLY {
        let directory = File::open(incoming).map_err(ReleaseError::disk("open", incoming))?;
        return nix::unistd::syncfs(directory.as_fd()).map_err(|error| {
            ReleaseError::disk("sync the file system of", incoming)(error.into())
        });
    }
    for (path, content) in contents {
        match content {
            Content::File { .. } | Content::Directory => sync_one(&incoming.join(path))?,
            Content::Link(_) => {}
        }
    }
    sync_one(incoming)
}

fn sync_one(path: &Path) -> Result<(), ReleaseError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(ReleaseError::disk("sync", path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
