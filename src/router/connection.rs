//! A client's connection: one request after the other, until somebody closes.
//!
//! **Invariant:** a connection is the router's, not a slot's: each request on it is routed anew.
//!
//! **Invariant:** between requests it owns a socket, an alarm and no buffer.

use std::future::poll_fn;
use std::io::IoSlice;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::alarm;
use super::answer::Answer;
use super::buffer::{Buffer, SMALL};
use super::exchange;
use super::h1::scan::{Scan, Scanned};
use super::h1::{Refusal, Span};
use super::stream::Stream;
use super::worker::Worker;

/// Bytes that a client may still send after an answer that closes.
const LINGER: usize = 1024 * 1024;

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub stream: Stream,
    /// What was read of it and not used.
    pub buffer: Buffer,
    /// Its deadline.
    pub alarm: alarm::Own,
    /// Its address.
    pub address: IpAddr,
    /// The address in writing.
    pub ip: String,
    /// Which listener it came by.
    pub listener: usize,
    /// It will send nothing more.
    pub ended: bool,
    /// The thread it is on.
    pub worker: Rc<Worker>,
    scan: Scan,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    Keep,
    /// Nothing more is to be read: close.
    Close,
    /// Close, but first read on for a while: a close with unread bytes would be a reset, which can
    /// overtake the answer (RFC 9112 section 9.6).
    Linger,
    /// Let the client see that its answer was cut short.
    Reset,
}

enum Heard {
    Head(Span),
    Nothing,
    Refused(Answer),
}

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, stream: Stream, address: IpAddr, listener: usize) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut client = Client {
        stream,
        buffer: Buffer::default(),
        alarm: worker.alarms.add(waker),
        address,
        ip: address.to_canonical().to_string(),
        listener,
        ended: false,
        worker,
        scan: Scan::default(),
    };
    loop {
        client.buffer.release(&client.worker.spare);
        client
            .alarm
            .set(client.worker.alarms.now(), client.worker.limits().idle);
        let after = match client.head().await {
            // Boxed as are the others, so that an idle connection is small.
            Heard::Head(head) => Box::pin(exchange::run(&mut client, head)).await,
            Heard::Nothing => After::Close,
            Heard::Refused(answer) => Box::pin(client.answer(answer, false, true)).await,
        };
        match after {
            // One that has ended may have pipelined more before.
            After::Keep if !client.has_left() => {}
            After::Keep | After::Close => return,
            After::Linger => return Box::pin(client.linger()).await,
            After::Reset => return client.stream.reset(),
        }
    }
}

impl Client {
    /// Waits for the head of the next request.
    async fn head(&mut self) -> Heard {
        let mut begun = false;
        loop {
            if !self.buffer.is_empty() {
                match self
                    .scan
                    .advance(self.buffer.bytes(), &self.worker.limits().heads, true)
                {
                    Ok(Scanned::Whole(head)) => {
                        self.scan = Scan::default();
                        return Heard::Head(head);
                    }
                    Ok(Scanned::Partial) if !begun => {
                        begun = true;
                        self.alarm
                            .set(self.worker.alarms.now(), self.worker.limits().head);
                    }
                    Ok(Scanned::Partial) => {}
                    Err(refusal) => return Heard::Refused(refusal.into()),
                }
            }
            let Self {
                stream,
                buffer,
                worker,
                alarm,
                ..
            } = self;
            let late = Refusal {
                status: 408,
                reason: "the request's head did not come in time",
            };
            let fill = alarm.until(|cx| buffer.poll_fill(cx, stream, SMALL, &worker.spare));
            match fill.await {
                Some(Ok(1..)) => {}
                None if begun => return Heard::Refused(late.into()),
                Some(Ok(0)) if begun => {
                    return Heard::Refused(
                        Refusal::bad("the connection ended inside a head").into(),
                    );
                }
                None | Some(Ok(0) | Err(_)) => return Heard::Nothing,
            }
        }
    }

    /// Ready if the client was lost while it waits for its answer. What it sends meanwhile is kept, up
    /// to a small buffer; an end alone (half-close) is only noted.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended && self.buffer.len() < SMALL {
            let spare = &self.worker.spare;
            match ready!(self.buffer.poll_fill(cx, &self.stream, SMALL, spare)) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// True if it will ask for nothing more.
    pub fn has_left(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// Writes all of `bytes`; false if the client is gone or takes nothing.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.alarm
            .set(self.worker.alarms.now(), self.worker.limits().write_stall);
        let (stream, mut rest) = (&mut self.stream, bytes);
        let done = self.alarm.until(|cx| {
            while !rest.is_empty() {
                match ready!(stream.poll_write(cx, &[IoSlice::new(rest)])) {
                    Ok(written @ 1..) => rest = &rest[written..],
                    _ => return Poll::Ready(false),
                }
            }
            Poll::Ready(true)
        });
        done.await == Some(true)
    }

    /// Sends an answer of ours.
    pub async fn answer(&mut self, answer: Answer, to_head: bool, close: bool) -> After {
        let mut out = self.worker.spare.head();
        answer.write(&mut out, &self.worker.date, to_head, close);
        let written = self.write(&out).await;
        self.worker.spare.give_head(out);
        match (written, close) {
            (false, _) => After::Reset,
            (true, true) => After::Linger,
            (true, false) => After::Keep,
        }
    }

    async fn linger(&mut self) {
        self.stream.end_writing();
        self.alarm
            .set(self.worker.alarms.now(), self.worker.limits().linger);
        let mut left = LINGER;
        while left > 0 && !self.ended {
            self.buffer.consume(self.buffer.len());
            let Self {
                stream,
                buffer,
                worker,
                alarm,
                ..
            } = self;
            let fill = alarm.until(|cx| buffer.poll_fill(cx, stream, SMALL, &worker.spare));
            match fill.await {
                Some(Ok(count @ 1..)) => left = left.saturating_sub(count),
                _ => return,
            }
        }
    }
}
