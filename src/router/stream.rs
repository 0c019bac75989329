//! A connection over TCP or a unix socket, polled directly.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::table::Upstream;
use crate::wire::apps_socket;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
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

impl Stream {
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
                Ok(Self::Tcp(stream))
            }
            Upstream::Unix(path) => apps_socket::connect(path).await.map(Self::Unix),
        }
    }

    /// Reads what there is into `room`; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(room);
        // A short read makes tokio forget that the socket is readable, which saves the read that
        // would only find it empty.
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        })?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Ready when there is something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Ready when the peer has closed, or when it has sent something behind which a close could hide:
    /// then with false, and it makes no sense to ask again. Nothing is taken out of the socket.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let Self::Tcp(stream) = self else {
            return Poll::Pending;
        };
        let mut byte = [0];
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(1..)) => Poll::Ready(false),
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes what fits of `parts`.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, parts) {
            (Self::Tcp(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Unix(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Tcp(stream), _) => Pin::new(stream).poll_write_vectored(cx, parts),
            (Self::Unix(stream), _) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    /// Tells the peer that nothing more comes.
    pub fn end_writing(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // shutdown(2) never blocks, and if it fails the connection is gone already.
        _ = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(&mut cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(&mut cx),
        };
    }

    /// True if there is nothing to read as far as the event loop knows, as it must be between two
    /// messages. It costs no system call, and does not see what came since the loop's last turn.
    pub fn is_quiet(&self) -> bool {
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut [0]),
            Self::Unix(stream) => stream.try_read(&mut [0]),
        };
        read.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    /// What there is to read now, by a system call. Nothing is taken out of the socket.
    pub fn unread(&self) -> Unread {
        let socket = match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(socket, &mut [0], flags) {
            Err(nix::Error::EAGAIN) => Unread::Nothing,
            Ok(1..) => Unread::Bytes,
            Ok(0) | Err(_) => Unread::End,
        }
    }

    /// Closes such that the peer takes what it got for cut short: TCP sends a reset. A unix socket
    /// has none; there the message's framing says it.
    pub fn reset(self) {
        if let Self::Tcp(stream) = self {
            // Fails only for a socket that is not connected any more.
            _ = stream.set_zero_linger();
        }
    }

    /// Has the kernel find out about a peer that vanished, for connections that may be silent for ever.
    pub fn keep_alive(&self) {
        if let Self::Tcp(stream) = self {
            let probes = socket2::TcpKeepalive::new()
                .with_time(std::time::Duration::from_secs(60))
                .with_interval(std::time::Duration::from_secs(15));
            _ = socket2::SockRef::from(stream).set_tcp_keepalive(&probes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
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
}
