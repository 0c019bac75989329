//! The API's sockets: systemd's (slotd.socket, and slotd-tcp.socket where somebody wants it), or a unix socket that slotd makes by itself.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// What slotd answers on.
#[derive(Debug)]
pub struct Listeners {
    /// For processes of this machine.
    pub unix: tokio::net::UnixListener,
    /// For whoever has a token.
    pub tcp: Vec<tokio::net::TcpListener>,
}

/// The API has no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// What the service manager passed is no listening socket, or there are two where one is meant.
    #[error("cannot use the sockets that were passed (LISTEN_FDS)")]
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

/// The sockets that the service manager passed (sd_listen_fds(3)), in whatever order; without a unix socket among them a new one at `path`.
///
/// # Errors
/// [`ListenError`], as it says.
pub fn listeners(path: &Path) -> Result<Listeners, ListenError> {
    let mut passed = listenfd::ListenFd::from_env();
    let (mut unix, mut tcp) = (None, Vec::new());
    for at in 0..passed.len() {
        // A socket that is of another kind stays where it is.
        if let Ok(Some(listener)) = passed.take_unix_listener(at) {
            if unix.replace(listener).is_some() {
                let two = io::Error::other("two are unix sockets");
                return Err(ListenError::Passed(two));
            }
        } else if let Some(listener) = passed.take_tcp_listener(at).map_err(ListenError::Passed)? {
            listener
                .set_nonblocking(true)
                .and_then(|()| tokio::net::TcpListener::from_std(listener))
                .map(|listener| tcp.push(listener))
                .map_err(ListenError::Passed)?;
        }
    }
    let own = |source| ListenError::Own {
        path: path.to_owned(),
        source,
    };
    let unix = match unix {
        Some(listener) => listener,
        None => UnixListener::bind(path).map_err(own)?,
    };
    unix.set_nonblocking(true).map_err(own)?;
    let unix = tokio::net::UnixListener::from_std(unix).map_err(own)?;
    Ok(Listeners { unix, tcp })
}
