//! A client: its connection, and what it is told by us.
//!
//! **Invariant:** between requests it owns a socket, an alarm and no buffer.

use std::fmt::Display;
use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::accept::Counted;
use super::alarm;
use super::answer::Answer;
use super::buffer::{Buffer, SMALL};
use super::h1::scan::{Scan, Scanned};
use super::h1::{Refusal, Span};
use super::peers::{self, Arrival, Peers};
use super::proxy_header::{self, Header};
use super::spelled::Spelled;
use super::stream::Stream;
use super::told::Limit;

/// A client. What only a request or an answer needs is elsewhere: thousands of these wait for none.
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
    /// It is believed what it says of those it asks for.
    pub trusted: bool,
    /// Which listener it came by.
    pub listener: u16,
    /// It will send nothing more.
    pub ended: bool,
    /// It has a part of an answer: whatever ends its connection now is to be seen as that.
    pub is_answering: bool,
    /// It is counted at its address.
    _place: Option<peers::Place>,
    /// The thread it is on.
    pub worker: Counted,
}

const TOO_MANY: Refusal = Refusal {
    status: 429,
    reason: "too many connections from this address",
};

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

/// What came of a client that was waited for.
#[derive(Debug)]
pub enum Heard {
    /// The head of a request.
    Head(Span),
    /// No request, and none will come.
    Nothing,
    /// What is no request, or not one in time.
    Refused(Answer),
}

impl Client {
    /// One that has just come, and is counted at `worker`.
    pub fn new(worker: Counted, stream: Stream, address: IpAddr, listener: u16) -> Box<Self> {
        Box::new(Self {
            stream,
            buffer: Buffer::default(),
            alarm: worker.alarms.add(),
            address,
            trusted: false,
            listener,
            ended: false,
            is_answering: false,
            _place: None,
            worker,
        })
    }

    /// Its address in writing.
    pub fn ip(&self) -> Spelled {
        Spelled::of(self.address)
    }

    /// The name of the listener it came by.
    pub fn came_by(&self) -> Option<&str> {
        let names = &self.worker.shared.listeners;
        names.get(usize::from(self.listener)).map(String::as_str)
    }

    /// Who it is, and whether it may stay.
    pub async fn arrive(&mut self) -> Result<(), After> {
        let peers = Arc::clone(&self.worker.shared.peers);
        if peers.is_proxied(self.listener.into()) {
            self.address = self.proxied(&peers).await?;
        }
        self.trusted = peers.trusts(self.address);
        match peers.arrive(self.address) {
            Arrival::Served(place) => {
                self._place = place;
                Ok(())
            }
            Arrival::TooMany(place) => {
                // It keeps its place while it lingers.
                self._place = Some(place);
                Err(self.answer(TOO_MANY.into(), false, true).await)
            }
            Arrival::FarTooMany => {
                self.tell(Limit::Address, TOO_MANY.reason);
                Err(After::Reset)
            }
        }
    }

    /// Gives back what a connection does not need between two requests.
    pub fn rest(&mut self) {
        self.buffer.release(&self.worker.spare);
        self.alarm
            .set(self.worker.alarms.now(), self.worker.limits().idle);
    }

    /// Whom the PROXY header names, which only a trusted peer may send.
    async fn proxied(&mut self, peers: &Peers) -> Result<IpAddr, After> {
        if !peers.trusts(self.address) {
            self.tell(
                Limit::ProxyHeader,
                "it is no trusted peer, and the listener takes connections from no other",
            );
            return Err(After::Reset);
        }
        self.alarm
            .set(self.worker.alarms.now(), self.worker.limits().proxy_header);
        loop {
            match proxy_header::read(self.buffer.bytes()) {
                Ok(Header::Whole { length, client }) => {
                    self.buffer.consume(length);
                    return Ok(client.unwrap_or(self.address));
                }
                Ok(Header::Partial) => {}
                Err(malformed) => {
                    self.tell(Limit::ProxyHeader, malformed.0);
                    return Err(After::Reset);
                }
            }
            let Self {
                stream,
                buffer,
                worker,
                alarm,
                ..
            } = self;
            let fill = alarm.until(|cx| buffer.poll_fill(cx, stream, SMALL, &worker.spare));
            match fill.await {
                Some(Ok(1..)) => {}
                // A load balancer that only looks whether somebody listens.
                Some(Ok(0) | Err(_)) if self.buffer.is_empty() => return Err(After::Close),
                Some(Ok(0) | Err(_)) => {
                    self.tell(Limit::ProxyHeader, "it ended inside its PROXY header");
                    return Err(After::Reset);
                }
                None => {
                    self.tell(Limit::ProxyTime, "its PROXY header did not come in time");
                    return Err(After::Reset);
                }
            }
        }
    }

    /// Says in the log that this client met a limit.
    pub fn tell(&self, limit: Limit, what: impl Display) {
        let worker = &self.worker;
        worker
            .told
            .tell(limit, what, &self.ip(), worker.alarms.now());
    }

    /// Ends the connection as it is to end after its last answer.
    pub async fn leave(mut self: Box<Self>, after: After) {
        match after {
            After::Keep | After::Close => {}
            After::Linger => self.linger().await,
            After::Reset => self.stream.close_is_reset(true),
        }
    }

    /// Ready with the head of the next request; `begun` remembers how much of it was looked at, if some of it has come.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        begun: &mut Option<Box<Scan>>,
    ) -> Poll<Heard> {
        const LATE: Refusal = Refusal {
            status: 408,
            reason: "the request's head did not come in time",
        };
        let (worker, limits) = (&self.worker, self.worker.limits());
        // Almost every head comes at once, and needs nothing to be remembered.
        let mut first = Scan::default();
        loop {
            if !self.buffer.is_empty() {
                let scan = begun.as_deref_mut().unwrap_or(&mut first);
                match scan.advance(self.buffer.bytes(), &limits.heads, true) {
                    Ok(Scanned::Whole(head)) => return Poll::Ready(Heard::Head(head)),
                    // An empty line behind the last request begins none (RFC 9112 section 2.2).
                    Ok(Scanned::Partial) if matches!(self.buffer.bytes(), b"\r" | b"\r\n") => {}
                    Ok(Scanned::Partial) if begun.is_none() => {
                        *begun = Some(Box::new(first));
                        self.alarm.set(worker.alarms.now(), limits.head);
                    }
                    Ok(Scanned::Partial) => {}
                    Err(refusal) => return Poll::Ready(Heard::Refused(refusal.into())),
                }
            }
            let read = self
                .buffer
                .poll_fill(cx, &self.stream, SMALL, &worker.spare);
            return Poll::Ready(match read {
                Poll::Ready(Ok(1..)) => continue,
                Poll::Pending if !self.alarm.is_over() => return Poll::Pending,
                Poll::Pending if begun.is_some() => {
                    self.tell(Limit::HeadTime, LATE.reason);
                    Heard::Refused(LATE.into())
                }
                Poll::Ready(Ok(0)) if begun.is_some() => {
                    Heard::Refused(Refusal::bad("the connection ended inside a head").into())
                }
                Poll::Pending | Poll::Ready(Ok(0) | Err(_)) => Heard::Nothing,
            });
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
        let done = done.await;
        if done.is_none() {
            self.tell(Limit::WriteStall, "it takes nothing of its answer");
        }
        done == Some(true)
    }

    /// Answers what is no request that could be passed on, and ends with it.
    pub async fn refuse(&mut self, answer: Answer, to_head: bool) -> After {
        if let Some(log) = &self.worker.shared.access {
            log.refused(answer, self);
        }
        self.answer(answer, to_head, true).await
    }

    /// Sends an answer of ours.
    pub async fn answer(&mut self, answer: Answer, to_head: bool, close: bool) -> After {
        if let Some(limit) = answer.limit {
            self.tell(limit, answer.reason);
        }
        let mut out = self.worker.spare.head();
        answer.write(&mut out, &self.worker.date, to_head, close);
        self.is_answering = true;
        let written = self.write(&out).await;
        self.is_answering = !written;
        self.worker.spare.give_head(out);
        match (written, close) {
            (false, _) => After::Reset,
            (true, true) => After::Linger,
            (true, false) => After::Keep,
        }
    }

    async fn linger(&mut self) {
        self.stream.end_writing();
        let (worker, limits) = (&self.worker, self.worker.limits());
        let last = worker.alarms.now() + limits.linger_most.as_millis() as u64;
        let mut sends = false;
        while !self.ended {
            self.buffer.consume(self.buffer.len());
            let now = worker.alarms.now();
            self.alarm.set(now, limits.linger);
            self.alarm.set_at(self.alarm.at().min(last));
            let (stream, buffer) = (&self.stream, &mut self.buffer);
            let fill = self
                .alarm
                .until(|cx| buffer.poll_fill(cx, stream, SMALL, &worker.spare));
            match fill.await {
                Some(Ok(1..)) if now < last => sends = true,
                Some(Ok(0) | Err(_)) => return,
                Some(Ok(1..)) | None => {
                    if sends && worker.alarms.now() >= last {
                        self.tell(Limit::Linger, "it goes on sending after its last answer");
                    }
                    return;
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.is_answering {
            self.stream.close_is_reset(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// malloc(3) gives pieces of 136 bytes and then of 152. With the 128 of [`super::super::serving`], the 32 of an alarm and what tokio
    /// remembers of a socket this is all that a connection has that waits for a request.
    #[test]
    fn a_client_that_waits_takes_136_bytes() {
        assert!(size_of::<Client>() <= 136, "{}", size_of::<Client>());
    }
}
