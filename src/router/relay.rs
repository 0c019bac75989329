//! Moving one message from one connection to another: its head as it was rewritten, then its body.
//!
//! **Invariant:** memory is one buffer, however long the body: nothing is read while something is
//! still to be written.
//!
//! **Invariant:** a body is passed on only as far as its framing was judged.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::buffer::{Buffer, LARGE, SMALL, Spare};
use super::h1::body::{Body, BodyError, MOST_PIECES, Pieces};
use super::stream::Stream;

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
    head: Vec<u8>,
    /// How much of the head was written.
    head_sent: usize,
    body: Body,
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
            self.settled = self
                .body
                .advance(buffer.bytes(), buffer.start(), &mut self.pieces)?;
            if self.settled == 0 {
                break;
            }
            if self.pieces.is_empty() {
                buffer.consume(std::mem::take(&mut self.settled));
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        let head = self.head.len() - self.head_sent;
        let mut parts = [IoSlice::new(&[]); MOST_PIECES + 1];
        let mut count = 0;
        if head > 0 {
            parts[0] = IoSlice::new(&self.head[self.head_sent..]);
            count = 1;
        }
        for piece in self.pieces.as_slice() {
            parts[count] = IoSlice::new(&buffer.memory()[piece.clone()]);
            count += 1;
        }
        let written = ready!(to.poll_write(cx, &parts[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.progress = true;
        self.head_sent += written.min(head);
        let body = written.saturating_sub(head);
        self.moved += body as u64;
        self.pieces.advance(body);
        if self.pieces.is_empty() {
            buffer.consume(std::mem::take(&mut self.settled));
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
        if buffer.is_empty() {
            // Whoever waits owns no memory.
            let readable = from.poll_readable(cx);
            if readable.is_pending() {
                buffer.release(spare);
            }
            ready!(readable)?;
        }
        let large = match self.body {
            Body::Length(left) => left > SMALL as u64,
            _ => self.moved > SMALL as u64,
        };
        let room = buffer.room(if large { LARGE } else { SMALL }, spare);
        let count = ready!(from.poll_read(cx, room))?;
        buffer.filled(count);
        self.progress = true;
        Poll::Ready(Ok(count))
    }
}
