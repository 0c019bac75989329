//! Files that are replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file operation that failed, and on which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}{}", hint(source))]
pub struct FileError {
    /// What was attempted: `write`, `rename`, …
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// What to do about an error that an administrator can do something about.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => {
            " (the file system is full: `df -h` shows it; free some space, then try again)"
        }
        io::ErrorKind::QuotaExceeded => " (the quota is used up; raise it, then try again)",
        io::ErrorKind::ReadOnlyFilesystem => {
            " (the file system is read-only: `journalctl -k` may say why)"
        }
        _ => "",
    }
}

impl FileError {
    pub(super) fn of(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            operation,
            path,
            source,
        }
    }
}

/// Replaces a file by new content: after a crash at any point it has the old content or the new, whole.
///
/// # Errors
/// The first operation that failed. The file is then as it was; only where the last one did, the directory's sync, it may be new.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    swap(path, content, mode, true)?;
    sync_directory(path)
}

/// As [`replace`] for whoever reads it, but not for a machine that loses power: for files that are made anew when it starts.
///
/// # Errors
/// As for [`replace`].
pub fn replace_volatile(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    swap(path, content, mode, false)
}

fn swap(path: &Path, content: &[u8], mode: u32, lasting: bool) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written = write(&temporary, content, mode, lasting).and_then(|()| {
        fs::rename(&temporary, path).map_err(FileError::of("rename a new file to", path))
    });
    if written.is_err() {
        // What is left of it would only take space; the error that matters is the first.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(path: &Path, content: &[u8], mode: u32, lasting: bool) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(FileError::of("create", path))?;
    file.write_all(content)
        .map_err(FileError::of("write", path))?;
    if lasting {
        file.sync_all().map_err(FileError::of("sync", path))?;
    }
    Ok(())
}

/// Makes a rename in a file's directory last.
pub(super) fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(FileError::of("sync the directory of", path))
}

/// Appends a line to a file; where a line was cut by a crash or a full disk, it begins a new one.
///
/// # Errors
/// The operation that failed.
pub fn append(path: &Path, line: &str) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .map_err(FileError::of("open", path))?;
    let mut last = *b"\n";
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)
            .map_err(FileError::of("read the end of", path))?;
    }
    let text = if last == *b"\n" {
        line.to_owned()
    } else {
        format!("\n{line}")
    };
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_data())
        .map_err(FileError::of("append to", path))
}
