//! The API's socket: systemd's (slotd.socket), or one that slotd makes by itself.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The API has no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// What the service manager passed is no listening unix socket.
    #[error("cannot use the socket that was passed (LISTEN_FDS)")]
    Passed(#[source] io::Error),
    /// A socket of our own cannot be made.
    #[error("cannot listen on {path}")]
    Own {
        /// Where.
        path: PathBuf,
        /// Why: bind(2).
        source: io::Error,
    },
}

/// The socket that the service manager passed (sd_listen_fds(3)), else a new one at `path`.
///
/// # Errors
/// [`ListenError`], as it says.
pub fn listener(path: &Path) -> Result<tokio::net::UnixListener, ListenError> {
    let passed = listenfd::ListenFd::from_env()
        .take_unix_listener(0)
        .map_err(ListenError::Passed)?;
    let own = |source| ListenError::Own {
        path: path.to_owned(),
        source,
    };
    let listener = match passed {
        Some(listener) => listener,
        None => UnixListener::bind(path).map_err(own)?,
    };
    listener.set_nonblocking(true).map_err(own)?;
    tokio::net::UnixListener::from_std(listener).map_err(own)
}
