//! One request on one upstream connection, from the first byte written to the last one passed back.
//!
//! Both directions move at once: an upstream may answer before it has read all of the request.
//!
//! **Invariant:** an upstream connection is given back only after a whole request and a whole answer
//! with nothing behind it; any other is closed, by reset if a message on it is unfinished.

mod end;
mod failed;
mod passing;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use end::End;
pub use failed::Failed;

use super::access::Entry;
use super::alarm::Millis;
use super::answer::Answer;
use super::buffer::{Buffer, SMALL};
use super::connection::{After, Client};
use super::counts::Class;
use super::exchange::Asked;
use super::h1::body::{Body, BodyError};
use super::h1::forward::{self, Added, Toward};
use super::h1::framing::Framing;
use super::h1::response::Response;
use super::h1::scan::{Scan, Scanned};
use super::h1::{Refusal, Span};
use super::relay::{Broken, Relay};
use super::roll::Call;
use super::runs::Lease;
use super::stream::{Stream, Unread};
use super::told::{self, Limit};

/// Nobody is to blame for what was told to end.
const ENDED: Answer = Answer::to_sound(503, "the slot was told to end before the app had answered");

/// What became of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// The client has its answer, or is gone.
    Done(After, Entry),
    /// The client has got nothing yet.
    Failed(Failed, Option<io::Error>, Lease),
    /// It was given up because of the client, which is to be told so if it is still there.
    Abandoned(Option<Answer>, Entry),
}

/// What happened while an answer was waited for or passed back.
enum Event {
    /// Something was read of the answer's head.
    Bytes,
    /// The upstream ended or was lost, or its body is malformed.
    Lost(Option<io::Error>, Failed),
    /// The client's body is malformed or too large.
    BadUpload(BodyError),
    /// The client was lost.
    Gone,
    /// The deadline has passed.
    Late,
    /// Somebody has said that it is to end now.
    Told,
    /// The whole answer was passed back.
    Whole,
}

/// True if the client knows the end of this answer by the end of its connection alone.
fn is_endless(response: &Response, toward: Toward) -> bool {
    match response.framing {
        Framing::UntilClose => true,
        Framing::Chunked => toward.version == 0,
        Framing::Empty | Framing::Length(_) => false,
    }
}

/// An answer's head, judged.
enum Step {
    Interim(Vec<u8>),
    Switch(Vec<u8>),
    Final(Response, Vec<u8>, Toward),
}

/// An attempt under way.
pub struct Attempt<'a> {
    client: &'a mut Client,
    asked: &'a Asked,
    upload: &'a mut Relay,
    /// Nothing more of the request will be written: it is whole, or the upstream stopped reading.
    uploaded: bool,
    /// The upstream stopped reading.
    refused: bool,
    /// It was lost, which the request met first: the system tells that once, and a read that comes later finds an end (tcp(7)).
    reset: bool,
    /// The request did not go out in one write: then deadlines move with its progress.
    slow: bool,
    /// There was such progress; taken by who sets the deadline.
    progress: bool,
    lease: Lease,
    stream: Stream,
    buffer: Buffer,
    reused: bool,
    /// The last call before its slot was chosen.
    began: Call,
    /// The last call that was answered.
    called: Call,
    /// It was told to end then.
    ending: Option<Millis>,
}

impl<'a> Attempt<'a> {
    /// An attempt on `stream`, which nothing was written to yet. It answers the calls since it `began`.
    pub fn new(
        client: &'a mut Client,
        asked: &'a Asked,
        upload: &'a mut Relay,
        lease: Lease,
        stream: Stream,
        reused: bool,
        began: Call,
    ) -> Self {
        let buffer = Buffer::default();
        Self {
            client,
            asked,
            upload,
            uploaded: false,
            refused: false,
            reset: false,
            slow: false,
            progress: false,
            lease,
            stream,
            buffer,
            reused,
            began,
            called: began,
            ending: None,
        }
    }

    /// Sends the request and passes the answer back.
    pub async fn run(&mut self) -> End {
        let (response, head, toward) = match self.head().await {
            Ok(answer) => answer,
            Err(end) => return end,
        };
        if self.is_unread(&response) {
            // Boxed, so that a request is small.
            return Box::pin(self.stream(response, head, toward)).await;
        }
        let mut download = self.begin(&response, head, toward);
        let event = poll_fn(|cx| self.poll_delivery(cx, &mut download)).await;
        let worker = &self.client.worker;
        worker.spare.give_head(download.take_head());
        self.delivered(event, response, toward, &download)
    }

    /// Sends the request and waits for the head of its answer: what it says, and as it is passed back.
    async fn head(&mut self) -> Result<(Response, Vec<u8>, Toward), End> {
        if !self.reused {
            match self.stream.unread() {
                Unread::Nothing => {}
                // An answer to nothing: somebody speaks before being asked (compare CVE-2026-1642).
                Unread::Bytes => return Err(End::failed(Failed::Malformed)),
                Unread::End => return Err(End::failed(Failed::Unsent)),
            }
        }
        let worker = Rc::clone(&self.client.worker);
        self.client
            .alarm
            .set(worker.alarms.now(), self.lease.run().bounds.response_head);
        let (mut scan, mut interim) = (Scan::default(), 0);
        loop {
            if !self.buffer.is_empty() {
                match scan.advance(self.buffer.bytes(), &worker.limits().heads, false) {
                    Ok(Scanned::Partial) => {}
                    Ok(Scanned::Whole(head)) => match self.understand(head) {
                        Ok(Step::Final(response, head, toward)) => {
                            return Ok((response, head, toward));
                        }
                        Ok(Step::Switch(head)) => return Err(Box::pin(self.switch(head)).await),
                        Ok(Step::Interim(head)) => {
                            (scan, interim) = (Scan::default(), interim + 1);
                            if interim > worker.limits().interim {
                                return Err(End::failed(Failed::Interim));
                            }
                            if self.asked.version == 1 && !Box::pin(self.client.write(&head)).await
                            {
                                return Err(End::Abandoned(None));
                            }
                            worker.spare.give_head(head);
                            self.client
                                .alarm
                                .set(worker.alarms.now(), self.lease.run().bounds.response_head);
                            continue;
                        }
                        Err(failed) => return Err(End::failed(failed)),
                    },
                    Err(_) => return Err(End::failed(Failed::Malformed)),
                }
            }
            match poll_fn(|cx| self.poll_head(cx)).await {
                Event::Bytes | Event::Whole => {}
                Event::Lost(error, _) if self.refused && self.upload.is_unsent() => {
                    return Err(End::Failed(Failed::Unsent, error));
                }
                Event::Lost(error, _) if self.buffer.is_empty() && interim == 0 => {
                    return Err(End::Failed(Failed::Silent, error));
                }
                Event::Lost(error, failed) => return Err(End::Failed(failed, error)),
                Event::BadUpload(error) => {
                    return Err(End::Abandoned(Some(Refusal::from(error).into())));
                }
                Event::Gone => return Err(End::Abandoned(None)),
                Event::Told => return Err(End::Abandoned(Some(ENDED))),
                Event::Late if self.uploaded => return Err(End::failed(Failed::Slow)),
                Event::Late if self.upload.is_writing() => return Err(End::failed(Failed::Stuck)),
                Event::Late => {
                    let late = Refusal {
                        status: 408,
                        reason: "the request's body did not come in time",
                    };
                    self.client.tell(Limit::BodyStall, late.reason);
                    return Err(End::Abandoned(Some(late.into())));
                }
            }
        }
    }

    /// Moves the request on, and reads what there is of the answer's head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(event) = self.poll_upload(cx) {
            return Poll::Ready(event);
        }
        if self.refused && self.upload.is_unsent() {
            return Poll::Ready(Event::Lost(None, Failed::Unsent));
        }
        if std::mem::take(&mut self.progress) {
            let (now, bounds) = (self.client.worker.alarms.now(), &self.lease.run().bounds);
            let next = match self.uploaded {
                true => bounds.response_head,
                false => bounds.body_stall,
            };
            self.client.alarm.set(now, next);
        }
        let spare = &self.client.worker.spare;
        match self.buffer.poll_fill(cx, &self.stream, SMALL, spare) {
            Poll::Ready(Ok(1..)) => return Poll::Ready(Event::Bytes),
            Poll::Ready(Ok(0)) => return Poll::Ready(Event::Lost(None, Failed::CutShort)),
            Poll::Ready(Err(error)) => {
                return Poll::Ready(Event::Lost(Some(error), Failed::CutShort));
            }
            Poll::Pending => {}
        }
        let event = self.poll_client(cx);
        // Who has only closed his side may wait for the answer all the same: the attempt goes on.
        if self.uploaded && self.client.has_left() {
            self.lease.is_given_up();
        }
        event
    }

    /// Moves the request on; ready only if that must end the attempt.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.uploaded {
            return Poll::Pending;
        }
        let client = &mut *self.client;
        match self.upload.poll(
            cx,
            &mut client.stream,
            &mut client.buffer,
            &mut self.stream,
            &client.worker.spare,
        ) {
            Poll::Ready(Ok(())) => {
                self.uploaded = true;
                self.stream.close_is_reset(false);
                if self.slow {
                    self.lease.has_all();
                }
            }
            // It may have answered before it closed; what it said is still to be read.
            Poll::Ready(Err(Broken::Sink(error))) => {
                (self.uploaded, self.refused) = (true, true);
                self.reset = error.kind() == io::ErrorKind::ConnectionReset;
            }
            Poll::Ready(Err(Broken::Source(_))) => return Poll::Ready(Event::Gone),
            Poll::Ready(Err(Broken::Malformed(error))) => {
                return Poll::Ready(Event::BadUpload(error));
            }
            Poll::Pending => {
                self.slow = true;
                // As for answers: a part of a request is not to end as if that were all, whoever ends it.
                self.stream.close_is_reset(true);
            }
        }
        self.progress |= self.slow && (self.upload.take_progress() || self.uploaded);
        Poll::Pending
    }

    /// Nothing else to do: is the client still there, is there time left?
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let gone = match self.lease.class() {
            _ if !self.uploaded => Poll::Pending,
            Class::Request => self.client.poll_lost(cx),
            // Its connection ends with this: what it may say is for nobody, and hides no end.
            Class::Stream | Class::Tunnel => self.client.stream.poll_gone(cx),
        };
        if gone.is_ready() {
            Poll::Ready(Event::Gone)
        } else if self.poll_called() {
            Poll::Ready(Event::Told)
        } else if self.client.alarm.is_over() {
            Poll::Ready(Event::Late)
        } else {
            Poll::Pending
        }
    }

    /// Parses the head that is `head` in the buffer, takes it out, and writes the client's.
    fn understand(&mut self, head: Span) -> Result<Step, Failed> {
        let worker = &self.client.worker;
        let (bytes, mut fields) = (self.buffer.bytes(), worker.fields.borrow_mut());
        let response = Response::parse(
            bytes,
            head,
            self.asked.to_head,
            &mut fields,
            &worker.limits().heads,
        )
        .map_err(|_| Failed::Malformed)?;
        self.lease.run().ramp.answered();
        if response.status == 101 && !(self.asked.upgrades && response.upgrades && self.uploaded) {
            return Err(Failed::Switched);
        }
        if response.status == 101 || response.status >= 200 {
            self.lease.is_not_given_up();
        }
        let mut toward = Toward {
            version: self.asked.version,
            close: !self.asked.keeps_alive
                || !self.uploaded
                || self.refused
                || response.is_stream
                || self.client.has_left()
                || worker.draining.get(),
        };
        toward.close |= is_endless(&response, toward);
        let mut out = worker.spare.head();
        let release = self.asked.aside.release();
        let added = Added {
            cookie: self.asked.aside.cookie(self.upload.head()),
            release: release.as_deref(),
        };
        forward::response(&mut out, bytes, &fields, &response, toward, &added);
        drop(fields);
        self.buffer.consume(head.end as usize);
        Ok(match response.status {
            101 => Step::Switch(out),
            100..=199 => Step::Interim(out),
            _ => {
                match response.is_stream {
                    true => self.lease.is_left_out(),
                    false => self.lease.head_came(),
                }
                Step::Final(response, out, toward)
            }
        })
    }

    /// The answer as it is passed back.
    fn begin(&mut self, response: &Response, head: Vec<u8>, toward: Toward) -> Relay {
        if response.is_stream || response.framing == Framing::UntilClose {
            self.lease.becomes(Class::Stream);
            self.client.stream.keep_alive();
        }
        self.client.is_answering = true;
        if is_endless(response, toward) {
            // Also if this process is killed, and from the first byte on: nobody could tell this end from its own.
            self.client.stream.close_is_reset(true);
        }
        Relay::new(head, Body::new(response.framing, toward.version == 0))
    }

    fn delivered(&mut self, event: Event, response: Response, toward: Toward, sent: &Relay) -> End {
        let event = match event {
            Event::Whole if self.reset && response.framing == Framing::UntilClose => {
                let reset = io::ErrorKind::ConnectionReset.into();
                Event::Lost(Some(reset), Failed::CutShort)
            }
            event => event,
        };
        if matches!(event, Event::Whole) || sent.is_unsent() {
            self.client.is_answering = false;
            self.client.stream.close_is_reset(false);
        }
        match event {
            Event::Whole => End::Whole(response, toward, sent.moved),
            Event::Lost(error, failed) if sent.is_unsent() => End::Failed(failed, error),
            Event::Lost(error, failed) => {
                let limit = (failed == Failed::Slow).then_some(Limit::ResponseStall);
                self.cut_short(response.status, sent.moved, limit, error.as_ref())
            }
            Event::Told if sent.is_unsent() => End::Abandoned(Some(ENDED)),
            Event::Late => {
                let (limit, what) = match sent.is_writing() {
                    true => (Limit::WriteStall, "it takes nothing of its answer"),
                    false => (Limit::BodyStall, "the request's body did not come in time"),
                };
                self.client.tell(limit, what);
                End::Part(response.status, sent.moved)
            }
            Event::Bytes | Event::BadUpload(_) | Event::Gone | Event::Told => {
                End::Part(response.status, sent.moved)
            }
        }
    }

    /// The upstream was lost in the middle of its answer.
    fn cut_short(
        &self,
        status: u16,
        moved: u64,
        limit: Option<Limit>,
        error: Option<&io::Error>,
    ) -> End {
        let (run, client) = (self.lease.run(), &*self.client.ip());
        let name = run.name();
        tracing::warn!(
            client,
            slot_app = name.app,
            slot_name = name.slot,
            slot_boot_id = name.boot_id,
            upstream = %run.upstream,
            request_id = %self.request_id(),
            limit = limit.map(Limit::key),
            "{}", told::of_app(client, run, &"the app's answer was cut short", limit, error)
        );
        self.lease.failed();
        End::Cut(status, moved)
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>, download: &mut Relay) -> Poll<Event> {
        if let Poll::Ready(event) = self.poll_upload(cx) {
            return Poll::Ready(event);
        }
        let client = &mut *self.client;
        match download.poll(
            cx,
            &mut self.stream,
            &mut self.buffer,
            &mut client.stream,
            &client.worker.spare,
        ) {
            Poll::Ready(Ok(())) => return Poll::Ready(Event::Whole),
            Poll::Ready(Err(Broken::Sink(_))) => return Poll::Ready(Event::Gone),
            Poll::Ready(Err(Broken::Source(error))) => {
                return Poll::Ready(Event::Lost(Some(error), Failed::CutShort));
            }
            Poll::Ready(Err(Broken::Malformed(_))) => {
                return Poll::Ready(Event::Lost(None, Failed::Malformed));
            }
            Poll::Pending if download.is_unsent() => {}
            // A part of it may stay all that there is of it, if this process is killed. Most answers go in one piece, and pay nothing for this.
            Poll::Pending => client.stream.close_is_reset(true),
        }
        if download.take_progress() | std::mem::take(&mut self.progress) {
            let (now, bounds) = (client.worker.alarms.now(), &self.lease.run().bounds);
            match self.lease.class() {
                _ if download.is_writing() => client.alarm.set(now, bounds.write_stall),
                _ if !self.uploaded => client.alarm.set(now, bounds.body_stall),
                Class::Request => client.alarm.set(now, bounds.response_stall),
                Class::Stream | Class::Tunnel => client.alarm.clear(),
            }
        }
        match self.poll_client(cx) {
            Poll::Ready(Event::Late) if !download.is_writing() && self.uploaded => Poll::Ready(
                Event::Lost(Some(io::ErrorKind::TimedOut.into()), Failed::Slow),
            ),
            event => event,
        }
    }

    /// Deals with both connections.
    pub fn end(self, end: End) -> Outcome {
        match end {
            End::Whole(response, toward, moved) => {
                let entry = self.entry(response.status, moved);
                Outcome::Done(self.finish(&response, toward), entry)
            }
            End::Part(status, moved) | End::Cut(status, moved) => {
                if matches!(end, End::Part(..)) {
                    self.lease.answered(status);
                }
                let entry = self.entry(status, moved);
                self.stream.reset();
                Outcome::Done(After::Reset, entry)
            }
            End::Switched { whole: true, moved } => {
                Outcome::Done(After::Close, self.entry(101, moved))
            }
            End::Switched {
                whole: false,
                moved,
            } => {
                let entry = self.entry(101, moved);
                self.stream.reset();
                Outcome::Done(After::Reset, entry)
            }
            End::Failed(failed, error) => {
                // Whether it is tried again or not, it is counted anew.
                self.lease.is_not_given_up();
                self.stream.reset();
                Outcome::Failed(failed, error, self.lease)
            }
            End::Abandoned(answer) => {
                // Of a request that was never whole nobody could have an answer.
                if answer.is_none() && self.uploaded {
                    self.lease.is_given_up();
                }
                let entry = self.entry(answer.map_or(0, |a| a.status), 0);
                self.stream.reset();
                Outcome::Abandoned(answer, entry)
            }
        }
    }

    /// The answer is whole: what becomes of the two connections?
    fn finish(self, response: &Response, toward: Toward) -> After {
        self.lease.answered(response.status);
        let worker = &self.client.worker;
        let whole = self.uploaded && !self.refused;
        // What the upstream was told to close, or says it will, is not used again; nor is a connection
        // with bytes that belong to no answer.
        let told_to_close = self.asked.wants_stream || self.asked.upgrades;
        if whole && !told_to_close && response.keeps_alive() && self.buffer.is_empty() {
            let now = worker.alarms.now();
            self.lease
                .run()
                .give_back(self.stream, now, response.idle_seconds, worker.limits());
            worker.has_idle(now);
        } else if !whole {
            self.stream.reset();
        }
        let mut buffer = self.buffer;
        buffer.consume(buffer.len());
        buffer.release(&worker.spare);
        match toward.close {
            false => After::Keep,
            // Only of a client that said itself that this was all, and kept to it, nothing more comes.
            true if whole
                && !self.asked.keeps_alive
                && self.client.buffer.is_empty()
                && self.client.stream.unread() != Unread::Bytes =>
            {
                After::Close
            }
            true => After::Linger,
        }
    }

    /// When it is to end, if somebody has said so.
    fn poll_called(&mut self) -> bool {
        let worker = &self.client.worker;
        if let Some(since) = worker.roll.called_since(&mut self.called) {
            let (run, class) = (self.lease.run().name(), self.lease.class());
            let describe = || self.label().describe();
            let told = worker.roll.answer(since, run, class, describe);
            let told = told.map(|ending| ending.at).into_iter();
            self.ending = told.chain(self.ending).min();
        }
        let Some(at) = self.ending else {
            return false;
        };
        if self.client.alarm.at() > at {
            self.client.alarm.set_at(at);
        }
        worker.alarms.now() >= at
    }

    fn entry(&self, status: u16, bytes: u64) -> Entry {
        let recorded = self.client.worker.shared.access.is_some();
        Entry {
            status,
            bytes,
            run: recorded.then(|| Rc::clone(self.lease.run())),
            duration: 0,
        }
    }
}
