//! The contents of files of Git LFS in the store: `repo.git/large/<aa>/<oid>`, each once, however many commits have it.
//!
//! **Invariant:** what has such a name is whole and has that SHA-256; what is laid out is looked at again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::GitError;
use super::large::{Large, Oid};
use crate::wire::hex;

/// How long what came first, a content or a submodule's commit, may wait for the commit that has it.
const RECENT: Duration = Duration::from_secs(3600);

/// How much is read at once, in bytes.
const PIECE: usize = 1 << 16;

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    path: PathBuf,
}

impl Contents {
    pub(super) fn of(repository: &Path) -> Self {
        let path = repository.join("large");
        Self { path }
    }

    /// Whether there may be any.
    pub(super) fn exist(&self) -> bool {
        self.path.is_dir()
    }

    /// Whether one is not here. One that is stays for a while: whoever asks is about to need it.
    pub(super) fn lack(&self, oid: &Oid, size: u64) -> bool {
        let is_here = File::open(self.place(oid)).and_then(|file| {
            let is_it = file.metadata()?.len() == size;
            file.set_modified(SystemTime::now()).map(|()| is_it)
        });
        !is_here.unwrap_or(false)
    }

    /// Gives a file that was written by [`receive`] its place.
    pub(super) fn settle(&self, oid: &Oid, received: &Path) -> Result<(), GitError> {
        let place = self.place(oid);
        let folder = place.parent().unwrap_or(&self.path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(GitError::disk("make the directory", folder))?;
        fs::rename(received, &place).map_err(GitError::disk("move to its place", &place))?;
        File::open(folder)
            .and_then(|directory| directory.sync_all())
            .map_err(GitError::disk("sync", folder))
    }

    /// Puts the content of a file in the place of its pointer, which has been laid out under `root`.
    pub(super) fn lay_out(&self, file: &Large, root: &Path) -> Result<(), GitError> {
        let (place, target) = (self.place(&file.oid), root.join(&file.path));
        let unsent = || GitError::Unsent {
            path: file.path.clone(),
            oid: file.oid.clone(),
        };
        let mut content = match File::open(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unsent()),
            opened => opened.map_err(GitError::disk("open", &place))?,
        };
        fs::remove_file(&target).map_err(GitError::disk("remove", &target))?;
        // Made anew, so that nothing that is there is written to or through.
        let mut laid_out = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(if file.runs { 0o755 } else { 0o644 })
            .open(&target)
            .map_err(GitError::disk("make", &target))?;
        // The kernel copies it, or clones it where the file system can.
        io::copy(&mut content, &mut laid_out).map_err(GitError::disk("write", &target))?;
        let found = File::open(&target).and_then(digest);
        let (oid, size) = found.map_err(GitError::disk("read", &target))?;
        if oid == file.oid.as_str() && size == file.size {
            return Ok(());
        }
        if oid != file.oid.as_str() {
            // It has changed since it came; the next deployment sends it again.
            let _ = fs::remove_file(&place);
        }
        Err(unsent())
    }

    /// Removes all but these, and what has come of late.
    pub(super) fn keep(&self, needed: &BTreeSet<Oid>) -> Result<(), GitError> {
        let list = |path: &Path| match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed
                .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
                .map_err(GitError::disk("list", path)),
        };
        for folder in list(&self.path)? {
            for entry in list(&folder.path())? {
                let is_needed = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
                    .is_some_and(|oid: Oid| needed.contains(&oid));
                let path = entry.path();
                if !is_needed && !is_recent(&path) {
                    fs::remove_file(&path).map_err(GitError::disk("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    fn place(&self, oid: &Oid) -> PathBuf {
        self.path.join(&oid.as_str()[..2]).join(oid.as_str())
    }
}

/// Whether a file was made, or asked for, a short time ago.
pub(super) fn is_recent(path: &Path) -> bool {
    let made = fs::metadata(path).and_then(|about| about.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < RECENT))
}

/// Writes a content that comes to a file, and that it is the right one. `wanted` is asked while it comes.
pub(super) fn receive(
    oid: &Oid,
    size: u64,
    mut content: impl Read,
    into: &Path,
    wanted: impl Fn() -> bool,
) -> Result<(), GitError> {
    let wrong = |why| GitError::WrongContent {
        oid: oid.clone(),
        why,
    };
    let mut file = File::create_new(into).map_err(GitError::disk("make", into))?;
    let (mut sum, mut count, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let read = match content.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|source| GitError::TornContent {
                oid: oid.clone(),
                source,
            })?,
        };
        if read == 0 {
            break;
        }
        count += read as u64;
        if count > size {
            return Err(wrong(format!("it goes on after its {size} bytes")));
        }
        if !wanted() {
            return Err(GitError::Unwanted);
        }
        sum.update(&piece[..read]);
        file.write_all(&piece[..read])
            .map_err(GitError::disk("write", into))?;
    }
    if count < size {
        return Err(wrong(format!("it ends after {count} of {size} bytes")));
    }
    let found = hex(&sum.finalize());
    if found != oid.as_str() {
        return Err(wrong(format!("its SHA-256 is {found}")));
    }
    file.sync_all().map_err(GitError::disk("sync", into))
}

/// SHA-256 and size.
fn digest(mut file: File) -> io::Result<(String, u64)> {
    let (mut sum, mut count, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((hex(&sum.finalize()), count)),
            read => {
                sum.update(&piece[..read]);
                count += read as u64;
            }
        }
    }
}
