//! Moving one message from one connection to another: its head as it was rewritten, then its body.
//!
//! **Invariant:** memory is one buffer, however long the body: nothing is read while something is
//! still to be written.
//!
//! **Invariant:** a body is passed on only as far as its framing was judged.
//!
//! **Invariant:** what was judged and not written stays in the buffer, which may move it: the message
//! can go on another connection as long as nothing was written.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::buffer::{Buffer, LARGE, SMALL, Spare};
use super::h1::body::{Body, BodyError, MOST_PIECES, Pieces};
use super::stream::Stream;

/// As much of a body is copied behind its head.
const COPIED: usize = 4096;

/// Why a message did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The sender ended or was lost before its message did.
    #[error("the sender was lost")]
    Source(#[source] io::Error),
    /// The body does not follow its framing.
    #[error("{0}")]
    Malformed(BodyError),
    /// The receiver was lost.
    #[error("the receiver was lost")]
    Sink(#[source] io::Error),
}

/// A message under way.
#[derive(Debug)]
pub struct Relay {
    /// The head, and what of the body was copied behind it.
    head: Vec<u8>,
    /// Where the body begins in it.
    head_len: usize,
    /// How much of it was written.
    head_sent: usize,
    body: Body,
    /// Ranges of the buffer's unused bytes: those stay the same wherever the buffer moves them.
    pieces: Pieces,
    /// Bytes of the buffer that the pieces stand for.
    settled: usize,
    /// Bytes of the body that were written, with its framing.
    pub moved: u64,
    /// Something was read or written; taken by who sets deadlines.
    progress: bool,
}

impl Relay {
    /// A message with this head.
    pub fn new(head: Vec<u8>, body: Body) -> Self {
        Self {
            head_len: head.len(),
            head,
            head_sent: 0,
            body,
            pieces: Pieces::default(),
            settled: 0,
            moved: 0,
            progress: false,
        }
    }

    /// The head as it is written.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Takes the head out, to use its memory again.
    pub fn take_head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head)
    }

    /// Refuses chunks of more than `most` bytes of data in all.
    pub fn allow(&mut self, most: u64) {
        self.body.allow(most);
    }

    /// True if not one byte was written.
    pub fn is_unsent(&self) -> bool {
        self.head_sent == 0
    }

    /// Starts over; only for a message that is all head.
    pub fn rewind(&mut self) {
        debug_assert!(self.body.is_done() && self.pieces.is_empty());
        self.head_sent = 0;
    }

    /// True if nothing of the body is left to be read.
    pub fn has_read_all(&self) -> bool {
        self.body.is_done() && self.pieces.is_empty()
    }

    /// True if it is the receiver that is waited for.
    pub fn is_writing(&self) -> bool {
        self.head_sent < self.head.len() || !self.pieces.is_empty()
    }

    /// True if something was read or written since this was last asked.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Moves as much as possible; `buffer` holds what was read of `from`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        buffer: &mut Buffer,
        to: &mut Stream,
        spare: &Spare,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if let Err(malformed) = self.judge(buffer) {
                return Poll::Ready(Err(Broken::Malformed(malformed)));
            }
            self.join(buffer);
            if self.is_writing() {
                ready!(self.write(cx, buffer, to)).map_err(Broken::Sink)?;
            } else if self.body.is_done() {
                return Poll::Ready(Ok(()));
            } else if ready!(self.read(cx, from, buffer, spare)).map_err(Broken::Source)? == 0 {
                self.body
                    .end_of_input()
                    .map_err(|_| Broken::Source(io::ErrorKind::UnexpectedEof.into()))?;
            }
        }
    }

    /// Names what may be written of the buffer, if nothing is named yet.
    fn judge(&mut self, buffer: &mut Buffer) -> Result<(), BodyError> {
        while self.pieces.is_empty() && !buffer.is_empty() && !self.body.is_done() {
            self.settled = self.body.advance(buffer.bytes(), 0, &mut self.pieces)?;
            if self.settled == 0 {
                break;
            }
            if self.pieces.is_empty() {
                buffer.consume(std::mem::take(&mut self.settled));
            }
        }
        Ok(())
    }

    /// Puts a little of the body behind the head: to copy it costs less than to write two parts.
    fn join(&mut self, buffer: &mut Buffer) {
        let unsent = self.head_sent == 0 && !self.head.is_empty();
        if !unsent || self.pieces.is_empty() || self.pieces.len() > COPIED {
            return;
        }
        for piece in self.pieces.as_slice() {
            self.head.extend_from_slice(piece.of(buffer.bytes()));
        }
        self.pieces = Pieces::default();
        buffer.consume(std::mem::take(&mut self.settled));
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        let head = &self.head[self.head_sent..];
        let written = if self.pieces.is_empty() {
            ready!(to.poll_write(cx, &[IoSlice::new(head)]))?
        } else {
            let mut parts = [IoSlice::new(head); MOST_PIECES + 1];
            let start = usize::from(head.is_empty());
            for (part, piece) in parts[1..].iter_mut().zip(self.pieces.as_slice()) {
                *part = IoSlice::new(piece.of(buffer.bytes()));
            }
            ready!(to.poll_write(cx, &parts[start..=self.pieces.as_slice().len()]))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.progress = true;
        let of_head = written.min(head.len());
        let before_body = self.head_len.saturating_sub(self.head_sent);
        self.moved += written.saturating_sub(before_body) as u64;
        self.head_sent += of_head;
        if written > of_head {
            self.pieces.advance(written - of_head);
            if self.pieces.is_empty() {
                buffer.consume(std::mem::take(&mut self.settled));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        buffer: &mut Buffer,
        spare: &Spare,
    ) -> Poll<io::Result<usize>> {
        let large = match self.body {
            Body::Length(left) => left > SMALL as u64,
            _ => self.moved > SMALL as u64,
        };
        let size = if large { LARGE } else { SMALL };
        let count = ready!(buffer.poll_fill(cx, from, size, spare))?;
        self.progress = true;
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::router::h1::framing::Framing;
    use crate::router::stream::Kind;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

    /// Sends what has come of a body to a receiver that is gone, lets the buffer move, and tells what
    /// another receiver gets.
    async fn sent_again(framing: Framing, come: &[u8]) -> Vec<u8> {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
            ours.set_nonblocking(true).expect("a socket can be told");
            let ours = Stream::new(ours, Kind::Unix).expect("the event loop takes it");
            (ours, theirs)
        };
        let (spare, mut buffer) = (Spare::default(), Buffer::default());
        let room = buffer.room(SMALL, &spare);
        room[..HEAD.len()].copy_from_slice(HEAD);
        room[HEAD.len()..][..come.len()].copy_from_slice(come);
        buffer.filled(HEAD.len() + come.len());
        buffer.consume(HEAD.len());
        let (mut from, _client) = pair();
        let mut relay = Relay::new(HEAD.to_vec(), Body::new(framing, false));

        let (mut to, gone) = pair();
        drop(gone);
        let broken =
            std::future::poll_fn(|cx| relay.poll(cx, &mut from, &mut buffer, &mut to, &spare));
        assert!(matches!(broken.await, Err(Broken::Sink(_))));
        assert!(relay.is_unsent());
        // As a request that is held does: its bytes are now at the start of another memory.
        buffer.shrink(&spare);

        let (mut to, mut upstream) = pair();
        std::future::poll_fn(|cx| {
            // More of the body is awaited, but what had come is written.
            assert!(
                relay
                    .poll(cx, &mut from, &mut buffer, &mut to, &spare)
                    .is_pending()
            );
            Poll::Ready(())
        })
        .await;
        let mut got = vec![0; 1024];
        let count = upstream.read(&mut got).expect("something was written");
        got.truncate(count);
        got
    }

    #[tokio::test]
    async fn a_body_that_has_begun_goes_to_another_connection_as_it_came() {
        for (framing, come) in [
            (Framing::Length(100), &b"0123456789"[..]),
            (Framing::Chunked, b"5;x\r\nhello\r\n3\r\nwor"),
        ] {
            let got = sent_again(framing, come).await;
            let body = got.strip_prefix(HEAD).expect("the head comes first");
            let text = String::from_utf8_lossy(body);
            match framing {
                Framing::Length(_) => assert_eq!(text, "0123456789"),
                _ => assert_eq!(text, "5\r\nhello\r\n3\r\nwor"),
            }
        }
    }
}
