//! The unix socket that an app makes for itself, at the address that the table has for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use tokio::net::UnixStream;

/// Connects to the socket that `path` itself is, not to one that it links to: the app owns that
/// name, and could have it lead to a socket which only slot may use, such as a router's control
/// socket.
///
/// The socket is opened without following (open(2), `O_PATH`) and connected to through the descriptor
/// (proc_pid_fd(5)), so that what was looked at is what is used.
///
/// # Errors
/// Those of connect(2), and `ELOOP` for a symlink.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let socket = open(path, flags, Mode::empty())?;
    match SFlag::from_bits_truncate(fstat(socket.as_fd())?.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFSOCK => {
            UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
        }
        SFlag::S_IFLNK => Err(nix::Error::ELOOP.into()),
        // As connect(2) says it.
        _ => Err(nix::Error::ECONNREFUSED.into()),
    }
}
