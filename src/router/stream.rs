//! A connection over TCP or a unix socket, polled directly.
//!
//! System calls are made without libc, whose wrappers count what could be cancelled twice per call,
//! and only when they have something to do: a short read or write is known to be the last.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::net::TcpStream;

use super::owned::Descriptors;
use super::table::Upstream;
use crate::wire::apps_socket;

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP.
    Tcp,
    /// A unix socket.
    Unix,
}

/// A connected socket.
#[derive(Debug)]
pub struct Stream {
    socket: AsyncFd<OwnedFd>,
    kind: Kind,
    /// The event loop tells when there is room to write. A unix socket is not watched for that until
    /// it was full once: it would report every message that its peer takes.
    tells_room: bool,
    /// It was full at the last write.
    full: bool,
    /// What was last said of its close, if anything was; of a socket that another process had nobody knows.
    resets: Cell<Option<bool>>,
    _counted: Descriptors<1>,
}

/// What there is to read of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nothing so far.
    Nothing,
    /// Some bytes.
    Bytes,
    /// Its end, or an error.
    End,
}

/// A socket that has something to read, as far as the event loop knows.
#[derive(Debug)]
pub struct Readable<'a>(AsyncFdReadyGuard<'a, OwnedFd>);

impl Readable<'_> {
    /// Reads what there is into `room`; 0 is the end.
    ///
    /// # Errors
    /// Those of recv(2); after [`io::ErrorKind::WouldBlock`] and [`io::ErrorKind::Interrupted`] it
    /// makes sense to ask again.
    pub fn read(mut self, room: &mut [u8]) -> io::Result<usize> {
        let most = room.len();
        let read = rustix::net::recv(self.0.get_inner(), room, RecvFlags::empty());
        // After a short read there is nothing left, which saves the call that would only find that out.
        // What comes later is a new event, and an end that the event loop has seen is not forgotten.
        let was_all = match read {
            Ok((count, _)) => (1..most).contains(&count),
            Err(error) => error == Errno::AGAIN,
        };
        if was_all {
            self.0.clear_ready();
        }
        Ok(read?.0)
    }
}

impl Stream {
    /// A connected socket that does not block.
    ///
    /// # Errors
    /// It cannot be registered with the event loop (epoll_ctl(2)).
    pub fn new(socket: impl Into<OwnedFd>, kind: Kind) -> io::Result<Self> {
        let tells_room = kind == Kind::Tcp;
        let interest = match tells_room {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        Ok(Self {
            socket: watch(socket.into(), interest)?,
            kind,
            tells_room,
            full: false,
            resets: Cell::new(Some(false)),
            _counted: Descriptors::new(),
        })
    }

    /// Connects to an upstream.
    ///
    /// # Errors
    /// Those of connect(2).
    pub async fn connect(upstream: &Upstream) -> io::Result<Self> {
        match upstream {
            Upstream::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Messages are written whole; nothing is gained by waiting for more.
                stream.set_nodelay(true)?;
                Self::new(stream.into_std()?, Kind::Tcp)
            }
            Upstream::Unix(path) => {
                let stream = apps_socket::connect(path).await?;
                Self::new(stream.into_std()?, Kind::Unix)
            }
        }
    }

    /// Ready when there is something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        self.socket.poll_read_ready(cx).map_ok(Readable)
    }

    /// Ready when the peer has ended or is lost; what it says meanwhile is thrown away. A half-closed client may wait for
    /// an answer, but nobody waits for a stream that way.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(readable) = ready!(self.poll_readable(cx)) else {
                return Poll::Ready(());
            };
            match readable.read(&mut [0; 512]) {
                Ok(1..) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// The peer's address, in writing; of a unix socket there is none.
    pub fn peer(&self) -> Option<String> {
        let peer = socket2::SockRef::from(self).peer_addr().ok()?;
        Some(peer.as_socket()?.ip().to_canonical().to_string())
    }

    /// Ready when something can be written, or the socket is lost. For one that [`Stream::tell_room`] was asked of.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        debug_assert!(self.tells_room);
        self.socket.poll_write_ready(cx).map_ok(drop)
    }

    /// Does something to the descriptor that the event loop has said is ready; if it was not, the event
    /// loop is told.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn try_io<T>(
        &self,
        interest: Interest,
        act: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.socket.try_io(interest, |socket| act(socket.as_fd()))
    }

    /// Whether a close, by whoever closes last, is a reset: also one by the kernel, of a process that was
    /// killed. A unix socket has no resets. To say what holds already costs no system call.
    pub fn close_is_reset(&self, reset: bool) {
        if self.kind == Kind::Tcp && self.resets.replace(Some(reset)) != Some(reset) {
            let now = reset.then_some(std::time::Duration::ZERO);
            // Fails only for a socket that is not connected any more.
            _ = socket2::SockRef::from(self).set_linger(now);
        }
    }

    /// Takes up a connection that another process made.
    ///
    /// # Errors
    /// It is no socket, or the event loop cannot have it.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(true)?;
        let kind = match socket.domain()? {
            socket2::Domain::UNIX => Kind::Unix,
            _ => Kind::Tcp,
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        Ok(Self {
            socket: watch(socket.into(), both)?,
            kind,
            tells_room: true,
            full: false,
            resets: Cell::new(None),
            _counted: Descriptors::new(),
        })
    }

    /// Ready when the peer has closed, or when it has sent something behind which a close could hide:
    /// then with false, and it makes no sense to ask again. Nothing is taken out of the socket.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let Ok(mut readable) = ready!(self.socket.poll_read_ready(cx)) else {
                return Poll::Ready(true);
            };
            match self.unread() {
                Unread::Nothing => readable.clear_ready(),
                Unread::Bytes => return Poll::Ready(false),
                Unread::End => return Poll::Ready(true),
            }
        }
    }

    /// Writes what fits of `parts`.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.full && !self.tells_room {
                self.tell_room()?;
                // Whoever waits to read this socket waits on what was just replaced.
                cx.waker().wake_by_ref();
            }
            let mut room = match self.full {
                true => Some(ready!(self.socket.poll_write_ready(cx))?),
                // There almost always is some: no need to wait for the event loop to say so.
                false => None,
            };
            let socket = self.socket.get_ref();
            let sent = match parts {
                [one] => rustix::net::send(socket, one, SendFlags::NOSIGNAL),
                _ => {
                    let mut nothing = SendAncillaryBuffer::default();
                    rustix::net::sendmsg(socket, parts, &mut nothing, SendFlags::NOSIGNAL)
                }
            };
            let full = match sent {
                Ok(count) => count < parts.iter().map(|p| p.len()).sum(),
                Err(Errno::INTR) => continue,
                Err(error) => error == Errno::AGAIN,
            };
            if full && let Some(room) = &mut room {
                room.clear_ready();
            }
            // What was written is told before anything else can fail.
            self.full = full;
            match sent {
                Err(Errno::AGAIN) => {}
                sent => return Poll::Ready(Ok(sent?)),
            }
        }
    }

    /// From now on the event loop tells when there is room. A registration cannot be changed, and a
    /// descriptor has but one: it is replaced by a duplicate.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn tell_room(&mut self) -> io::Result<()> {
        if self.tells_room {
            return Ok(());
        }
        let socket = self.socket.get_ref().try_clone()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.socket = watch(socket, both)?;
        self.tells_room = true;
        Ok(())
    }

    /// Tells the peer that nothing more comes.
    pub fn end_writing(&mut self) {
        // shutdown(2) never blocks, and if it fails the connection is gone already.
        _ = rustix::net::shutdown(self.socket.get_ref(), Shutdown::Write);
    }

    /// True if there is nothing to read as far as the event loop knows, as it must be between two
    /// messages. It costs no system call, and does not see what came since the loop's last turn.
    pub fn is_quiet(&self) -> bool {
        let unread = self
            .socket
            .try_io(Interest::READABLE, |_| match self.unread() {
                Unread::Nothing => Err(io::ErrorKind::WouldBlock.into()),
                Unread::Bytes | Unread::End => Ok(()),
            });
        unread.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    /// What there is to read now, by a system call. Nothing is taken out of the socket.
    pub fn unread(&self) -> Unread {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(self.socket.get_ref(), &mut [0], flags) {
            Err(Errno::AGAIN) => Unread::Nothing,
            Ok((1.., _)) => Unread::Bytes,
            Ok((0, _)) | Err(_) => Unread::End,
        }
    }

    /// Closes such that the peer takes what it got for cut short: TCP sends a reset. A unix socket
    /// has none; there the message's framing says it.
    pub fn reset(self) {
        self.close_is_reset(true);
    }

    /// Has the kernel find out about a peer that vanished, for connections that may be silent for ever.
    pub fn keep_alive(&self) {
        if self.kind == Kind::Tcp {
            let probes = socket2::TcpKeepalive::new()
                .with_time(std::time::Duration::from_secs(60))
                .with_interval(std::time::Duration::from_secs(15));
            _ = socket2::SockRef::from(self).set_tcp_keepalive(&probes);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// Registers a socket with the event loop.
///
/// # Errors
/// Those of epoll_ctl(2).
#[allow(unsafe_code)]
pub fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what an `OwnedFd` owns is open and stays the same until the `OwnedFd` is dropped, and the
    // `AsyncFd` gives it to nobody who could put another in its place.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// Takes a connection out of the queue of `listener`, without waiting for one.
///
/// # Errors
/// Those of accept4(2).
pub fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let peer = peer.ok_or(Errno::CONNABORTED)?;
    Ok((socket, peer.try_into()?))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    /// Waits for anything to read without giving the event loop a turn.
    fn next_unread(stream: &Stream) -> Unread {
        let late = Instant::now() + Duration::from_secs(20);
        while stream.unread() == Unread::Nothing && Instant::now() < late {
            std::thread::yield_now();
        }
        stream.unread()
    }

    #[tokio::test]
    async fn what_came_since_the_last_turn_of_the_event_loop_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        for (bytes, expected) in [(&b"x"[..], Unread::Bytes), (b"", Unread::End)] {
            let stream = Stream::connect(&Upstream::Tcp(address)).await;
            let stream = stream.expect("a connection");
            let (mut peer, _) = listener.accept().expect("its other end");
            assert_eq!(stream.unread(), Unread::Nothing);
            peer.write_all(bytes).expect("the kernel takes it");
            drop(peer);
            assert_eq!(next_unread(&stream), expected);
            assert_eq!(stream.unread(), expected, "it is left where it was");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_that_was_full_is_written_and_read_on() {
        const ALL: usize = 4 * 1024 * 1024;
        let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("a socket can be told");
        let mut stream = Stream::new(ours, Kind::Unix).expect("the event loop takes it");
        let taking = std::thread::spawn(move || {
            let mut taken = vec![0; ALL];
            peer.read_exact(&mut taken).map(|()| (peer, taken))
        });
        let bytes: Vec<u8> = (0..ALL).map(|n| (n % 251) as u8).collect();
        let mut sent = 0;
        while sent < ALL {
            let rest = [IoSlice::new(&bytes[sent..])];
            let written = poll_fn(|cx| {
                assert!(stream.poll_readable(cx).is_pending());
                stream.poll_write(cx, &rest)
            });
            sent += written.await.expect("the peer takes it");
        }
        assert!(stream.tells_room, "4 MiB do not fit into a socket");
        let (mut peer, taken) = taking.join().expect("no panic").expect("all of it");
        assert!(taken == bytes);
        peer.write_all(b"x").expect("the kernel takes it");
        let read = poll_fn(|cx| {
            stream
                .poll_readable(cx)
                .map(|readable| readable?.read(&mut [0; 8]))
        });
        assert_eq!(read.await.expect("a byte"), 1);
    }
}
