//! What another process does for slotd, over a connection of their own: it builds a release, or fetches a commit.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::deploy::UnitFailure;

/// An exchange that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// On the other side: how that ended says why, and if it does not, this does.
    There(String),
    /// On this side, or the other side has said it.
    Here(UnitFailure),
}

/// Where the other process finds slotd, for as long as it is waited for.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    pub(super) listener: UnixListener,
}

impl Door {
    /// Opens it. Everybody may connect: who does is looked at, or the directory is nobody else's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let at = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("slotd cannot listen on {}: {error}", path.display()),
            )
        };
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(at)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(at)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(at)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The next one removes it if this one cannot.
        let _ = fs::remove_file(&self.path);
    }
}

/// A connection that is closed when nobody waits for it any more, whatever thread reads from it.
#[derive(Debug)]
pub(super) struct Held(UnixStream);

impl Held {
    /// Takes a connection from the runtime, for a thread that may block.
    pub(super) fn blocking(stream: tokio::net::UnixStream) -> io::Result<(Self, UnixStream)> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok((Self(stream.try_clone()?), stream))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // One that is closed already is closed.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
