//! What another process does for slotd, over a connection of their own: it builds a release, or fetches a commit.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A connection to whoever does something for slotd, on a thread that may block.
#[derive(Debug)]
pub struct Call {
    /// The connection.
    pub stream: UnixStream,
    given_up: Arc<AtomicBool>,
}

impl Call {
    /// Whether somebody still waits for what comes of it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed)
    }
}

/// The connection is closed when nobody waits for it any more, whatever thread reads from it, and that thread is told.
#[derive(Debug)]
pub(super) struct Held {
    stream: UnixStream,
    given_up: Arc<AtomicBool>,
}

impl Held {
    /// Takes a connection from the runtime.
    pub(super) fn of(stream: tokio::net::UnixStream) -> io::Result<(Self, Call)> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let given_up = Arc::new(AtomicBool::new(false));
        let held = Self {
            stream: stream.try_clone()?,
            given_up: Arc::clone(&given_up),
        };
        Ok((held, Call { stream, given_up }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        // One that is closed already is closed.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
