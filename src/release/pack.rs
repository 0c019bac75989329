//! A directory as a tar archive, and back, between slotd and the unit of a build.
//!
//! Times are kept: what a build compiled (Python's bytecode, for one) says by them which source it is of. Owners are not, and of
//! modes only whether a file is executable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::ReleaseError;

/// The number of a file on its file system: two names for it are one file.
type Inode = (u64, u64);

/// Writes everything below a directory as an archive: entries in order of their names, a second name of a file as a hard link to the
/// first. What is neither a file nor a directory nor a symlink (a socket that a process left) is passed over.
///
/// # Errors
/// What could not be read; also where the archive cannot be written, which names the directory.
pub fn pack(directory: &Path, to: impl Write) -> Result<(), ReleaseError> {
    let mut archive = tar::Builder::new(to);
    let mut packed = BTreeMap::new();
    pack_below(directory, Path::new(""), &mut archive, &mut packed)?;
    archive
        .finish()
        .map_err(ReleaseError::disk("pack", directory))
}

fn pack_below(
    root: &Path,
    inside: &Path,
    archive: &mut tar::Builder<impl Write>,
    packed: &mut BTreeMap<Inode, PathBuf>,
) -> Result<(), ReleaseError> {
    let directory = root.join(inside);
    let listed = fs::read_dir(&directory).and_then(|listed| {
        let names: io::Result<Vec<_>> = listed.map(|entry| Ok(entry?.file_name())).collect();
        names
    });
    let mut names = listed.map_err(ReleaseError::disk("list", &directory))?;
    names.sort();
    for name in names {
        let inside = inside.join(name);
        let path = root.join(&inside);
        let about = fs::symlink_metadata(&path).map_err(ReleaseError::disk("read", &path))?;
        pack_entry(&path, &inside, &about, archive, packed)
            .map_err(ReleaseError::disk("pack", &path))?;
        if about.is_dir() {
            pack_below(root, &inside, archive, packed)?;
        }
    }
    Ok(())
}

fn pack_entry(
    path: &Path,
    inside: &Path,
    about: &fs::Metadata,
    archive: &mut tar::Builder<impl Write>,
    packed: &mut BTreeMap<Inode, PathBuf>,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(u64::try_from(about.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let executable = about.permissions().mode() & 0o111 != 0;
    header.set_mode(if executable { 0o755 } else { 0o644 });
    let kind = about.file_type();
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, inside, io::empty())
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut header, inside, fs::read_link(path)?)
    } else if kind.is_file() {
        let inode = (about.dev(), about.ino());
        if let Some(first) = packed.get(&inode) {
            header.set_entry_type(tar::EntryType::Link);
            return archive.append_link(&mut header, inside, first);
        }
        if about.nlink() > 1 {
            packed.insert(inode, inside.to_owned());
        }
        let file = File::open(path)?;
        // As the header says, whoever still writes to it.
        header.set_size(about.len());
        let mut exact = Exact::of(file, about.len());
        archive.append_data(&mut header, inside, &mut exact)
    } else {
        Ok(())
    }
}

/// As many bytes as a file had when it was looked at; its size has been written already.
pub(crate) struct Exact {
    file: File,
    left: u64,
}

impl Exact {
    pub(crate) fn of(file: File, size: u64) -> Self {
        Self { file, left: size }
    }
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::other(
                "it shrank while it was read; deploy again",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Unpacks an archive that slotd made of a release into a directory of one's own. Files get the time of now: some tools refuse those that
/// are older than archives can say.
///
/// # Errors
/// What could not be written, or an archive that breaks off.
pub fn unpack_own(archive: impl Read, directory: &Path) -> Result<(), ReleaseError> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(false);
    archive
        .unpack(directory)
        .map_err(ReleaseError::disk("unpack the release into", directory))
}

/// Removes what is in a directory, and not the directory.
///
/// # Errors
/// What could not be removed.
pub fn clear(directory: &Path) -> Result<(), ReleaseError> {
    let about = || ReleaseError::disk("clear", directory);
    for entry in fs::read_dir(directory).map_err(about())? {
        let entry = entry.map_err(about())?;
        let path = entry.path();
        let removed = match entry.file_type().map_err(about())?.is_dir() {
            true => super::remove_tree(&path),
            false => fs::remove_file(&path),
        };
        removed.map_err(ReleaseError::disk("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_nobody_may_write_to_are_cleared_too() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("mod/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        for path in [inner.as_path(), &place.path().join("mod")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        }
        clear(place.path()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
