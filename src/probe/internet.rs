//! Where the sockets come from with which the machine's network is asked.
//!
//! slotd's unit has a network of its own in which there is nothing (systemd.exec(5), `PrivateNetwork=`): what could be done with slotd's rights
//! over units cannot come in over the network, nor go out. What it needs of the machine's network, connections to apps and the list of who
//! listens, it has from slot-inet.service, which makes sockets and does nothing else: a socket stays in the network in which it was made
//! (network_namespaces(7)), whoever uses it.
//!
//! **Invariant:** what slotd lacks is no failure of an app. Whoever asks waits for its sockets before its own time limit begins.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::Diag;

/// How long slot-inet.service may take; it starts within that.
const LIMIT: Duration = Duration::from_secs(2);
/// Before it is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long nothing is said of it.
const PATIENCE: Duration = Duration::from_secs(5);

// What a message of sockets says of each.
const V4: u8 = b'4';
const V6: u8 = b'6';
const DIAG: u8 = b'd';
/// How many that are.
const KINDS: usize = 3;

/// Where sockets come from.
#[derive(Clone, Debug)]
pub enum Internet {
    /// This process makes them.
    Own,
    /// slot-inet.service does, and this is its socket.
    Handed(PathBuf),
}

/// There are none.
#[derive(Debug, thiserror::Error)]
pub enum NoSockets {
    /// This process cannot make any: socket(2).
    #[error("cannot make a socket")]
    Own(#[source] io::Error),
    /// Nobody hands any out.
    #[error(
        "slotd gets no sockets from slot-inet.service, at {at}; `systemctl restart slot-inet.socket` makes that anew, \
         `journalctl -u slot-inet` says more"
    )]
    Handed {
        /// Where.
        at: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Internet {
    /// Sockets for one question.
    ///
    /// # Errors
    /// [`NoSockets`] if there are none within two seconds.
    pub async fn sockets(&self) -> Result<Sockets, NoSockets> {
        match self {
            Self::Own => Sockets::make().map_err(NoSockets::Own),
            Self::Handed(at) => {
                let received = timeout(LIMIT, receive(at)).await;
                let received = received.unwrap_or_else(|_| {
                    let late = format!("there is no answer within {LIMIT:?}");
                    Err(io::Error::new(io::ErrorKind::TimedOut, late))
                });
                received.map_err(|source| NoSockets::Handed {
                    at: at.clone(),
                    source,
                })
            }
        }
    }

    /// The same, however long it takes.
    pub async fn wait(&self) -> Sockets {
        let began = Instant::now();
        let mut told = false;
        loop {
            let error = match self.sockets().await {
                Ok(sockets) => return sockets,
                Err(error) => error,
            };
            if !told && PATIENCE <= began.elapsed() {
                told = true;
                let error = crate::telemetry::chain(&error);
                tracing::warn!("nothing can be asked for its health: {error}");
            }
            sleep(AGAIN).await;
        }
    }
}

/// A socket of each kind.
#[derive(Debug)]
pub struct Sockets {
    v4: Option<OwnedFd>,
    /// A machine may be without IPv6.
    v6: Option<OwnedFd>,
    /// Who listens.
    pub diag: Diag,
}

impl Sockets {
    /// Makes them.
    ///
    /// # Errors
    /// Those of socket(2), but for a family that this machine does not have.
    pub fn make() -> io::Result<Self> {
        let tcp = |family| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match socket_with(family, SocketType::STREAM, flags, None) {
                Ok(socket) => Ok(Some(socket)),
                Err(rustix::io::Errno::AFNOSUPPORT) => Ok(None),
                Err(error) => Err(error),
            }
        };
        Ok(Self {
            v4: tcp(AddressFamily::INET)?,
            v6: tcp(AddressFamily::INET6)?,
            diag: Diag::open()?,
        })
    }

    /// Hands them to whoever is at the other end: a letter for each, and the sockets (unix(7), `SCM_RIGHTS`).
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub fn send(&self, to: &UnixStream) -> io::Result<()> {
        let (v4, v6) = (self.v4.as_ref(), self.v6.as_ref());
        let (letters, sockets): (Vec<u8>, Vec<BorrowedFd<'_>>) = [
            (V4, v4.map(OwnedFd::as_fd)),
            (V6, v6.map(OwnedFd::as_fd)),
            (DIAG, Some(self.diag.as_fd())),
        ]
        .into_iter()
        .filter_map(|(letter, socket)| Some((letter, socket?)))
        .unzip();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KINDS))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        assert!(
            rights.push(SendAncillaryMessage::ScmRights(&sockets)),
            "there is room for one of each"
        );
        // So few bytes go whole or not at all.
        sendmsg(
            to,
            &[IoSlice::new(&letters)],
            &mut rights,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Takes what [`Sockets::send`] sent.
    fn take(from: impl AsFd) -> io::Result<Self> {
        let mut letters = [0; KINDS];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KINDS))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(&mut letters)];
        let read = recvmsg(from, &mut room, &mut rights, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let received = rights
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            })
            .flatten();
        let mut sockets: BTreeMap<u8, OwnedFd> =
            letters.into_iter().take(read).zip(received).collect();
        let diag = sockets.remove(&DIAG).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended without any",
            )
        })?;
        Ok(Self {
            v4: sockets.remove(&V4),
            v6: sockets.remove(&V6),
            diag: diag.into(),
        })
    }

    /// A connection, from a certain address of this machine or from the one that the kernel takes.
    ///
    /// # Errors
    /// Those of bind(2) and connect(2); `EAFNOSUPPORT` where the machine does not have this family of addresses.
    pub(super) async fn connect(
        self,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        let socket = match to {
            SocketAddr::V4(_) => self.v4,
            SocketAddr::V6(_) => self.v6,
        };
        let socket = socket.ok_or(nix::Error::EAFNOSUPPORT)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        socket.connect(to).await
    }
}

async fn receive(at: &PathBuf) -> io::Result<Sockets> {
    let stream = tokio::net::UnixStream::connect(at).await?;
    stream
        .async_io(Interest::READABLE, || Sockets::take(&stream))
        .await
}

#[cfg(test)]
mod tests {
    use super::super::listeners;
    use super::*;
    use std::os::unix::net::UnixListener;
    use tokio::net::TcpListener;

    /// Answers so many connections at a path: with sockets, or with nothing.
    fn hands_out(at: &std::path::Path, sockets: bool, times: usize) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(at).unwrap();
        std::thread::spawn(move || {
            for _ in 0..times {
                let (asking, _) = listener.accept().unwrap();
                if sockets {
                    Sockets::make().unwrap().send(&asking).unwrap();
                }
            }
        })
    }

    #[tokio::test]
    async fn what_is_handed_connects_and_says_who_listens() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("inet.sock");
        let service = hands_out(&at, true, 2);
        let internet = Internet::Handed(at);
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = app.local_addr().unwrap();
        let Sockets { diag, .. } = internet.sockets().await.unwrap();
        let found = listeners::at(&diag, address).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        let connected = internet.wait().await.connect(None, address);
        let (connected, accepted) = tokio::join!(connected, app.accept());
        assert_eq!(
            connected.unwrap().local_addr().unwrap(),
            accepted.unwrap().1
        );
        service.join().unwrap();
    }

    #[tokio::test]
    async fn an_error_names_the_unit_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("inet.sock");
        let internet = Internet::Handed(at.clone());
        for with_nothing in [false, true] {
            let service = with_nothing.then(|| hands_out(&at, false, 1));
            let error = internet.sockets().await.unwrap_err().to_string();
            assert!(error.contains("restart slot-inet.socket"), "{error}");
            assert!(error.contains(at.to_str().unwrap()), "{error}");
            if let Some(service) = service {
                service.join().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn whoever_waits_gets_them_when_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("inet.sock");
        let internet = Internet::Handed(at.clone());
        // Asked in this order, so that it is there only after the first try.
        let later = async { hands_out(&at, true, 1) };
        let (sockets, service) = tokio::join!(biased; internet.wait(), later);
        assert!(sockets.v4.is_some());
        service.join().unwrap();
    }
}
