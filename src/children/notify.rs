//! The receiving end of sd_notify(3), one socket per run.
//!
//! **Invariant:** only processes of the run's own group are heard; who sent a datagram is the kernel's word (`SCM_CREDENTIALS`, unix(7)).

use std::future::pending;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::unistd::{Pid, getpgid};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The largest datagram that is read whole; what is beyond is cut off, as only short words are expected.
const DATAGRAM: usize = 4096;

/// What one datagram says, as far as we listen. `STOPPING=1` (what is stopped here is stopped by us),
/// `MAINPID=`, `FDSTORE=1`, `WATCHDOG=1` and others are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `READY=1`.
    pub(super) ready: bool,
    /// `STATUS=…`.
    pub(super) status: Option<String>,
}

impl Said {
    fn parse(datagram: &[u8]) -> Self {
        let mut said = Self::default();
        for line in datagram.split(|byte| *byte == b'\n') {
            match line {
                b"READY=1" => said.ready = true,
                _ => {
                    if let Some(status) = line.strip_prefix(b"STATUS=") {
                        said.status = Some(String::from_utf8_lossy(status).into_owned());
                    }
                }
            }
        }
        said
    }
}

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Binds a path, in place of what a crash left there.
    pub(super) fn bind(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixDatagram::bind(&path)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket, path })
    }

    /// For `NOTIFY_SOCKET`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next datagram from the group; others are dropped with a word in the log.
    pub(super) async fn next(&self, group: Pid) -> Said {
        loop {
            let (datagram, sender) = match self
                .socket
                .async_io(Interest::READABLE, || receive(&self.socket))
                .await
            {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "a notify socket failed: nothing more is heard from the app");
                    return pending().await;
                }
            };
            match sender.map(|sender| (sender, getpgid(Some(sender)))) {
                Some((_, Ok(of))) if of == group => return Said::parse(&datagram),
                sender => tracing::debug!(
                    ?sender,
                    %group,
                    "a notification from outside the app's process group, or from a process that has ended, was dropped"
                ),
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Its directory goes with the deployer's, so a file that stays is no leak.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads one datagram and who sent it. The control buffer has room for credentials alone, so descriptors that a sender attaches are
/// closed by the kernel.
fn receive(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Option<Pid>)> {
    let mut bytes = vec![0; DATAGRAM];
    let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let (length, sender) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let sender = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmCredentials(sender) => Some(Pid::from_raw(sender.pid())),
            _ => None,
        });
        (message.bytes, sender)
    };
    bytes.truncate(length);
    Ok((bytes, sender))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::getpgrp;

    #[test]
    fn a_datagram_is_read_line_by_line() {
        let said = Said::parse(b"MAINPID=3\nSTATUS=loading 3/7\nREADY=1\n");
        assert_eq!(
            said,
            Said {
                ready: true,
                status: Some("loading 3/7".to_owned())
            }
        );
    }

    #[tokio::test]
    async fn only_the_group_is_heard() {
        let directory = tempfile::tempdir().unwrap();
        let socket = NotifySocket::bind(directory.path().join("notify")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", socket.path()).await.unwrap();
        let heard = socket.next(getpgrp()).await;
        assert!(heard.ready);

        sender.send_to(b"READY=1", socket.path()).await.unwrap();
        let stranger = tokio::time::timeout(
            std::time::Duration::from_millis(100),
            socket.next(Pid::from_raw(1)),
        );
        assert!(stranger.await.is_err(), "a stranger was heard");
    }
}
