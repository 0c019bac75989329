//! One request: understood, given to a slot, tried again where that is safe, and answered.
//!
//! **Invariant:** a request is sent again only if not one byte of it was written, or if it is
//! idempotent, whole at hand, and was written once to a connection that had been used before and
//! ended without a byte (RFC 9110 section 9.2.2).

use std::io;
use std::pin::Pin;
use std::rc::Rc;

use super::access::Entry;
use super::alarm::Millis;
use super::answer::Answer;
use super::attempt::{Attempt, Failed, Outcome};
use super::connection::{After, Client};
use super::h1::body::{Body, BodyError, Pieces};
use super::h1::fields::Known;
use super::h1::forward::{self, Hop, Written};
use super::h1::framing::Framing;
use super::h1::request::Request;
use super::h1::{Refusal, Span};
use super::hold::{Key, Patience, Without};
use super::relay::Relay;
use super::runs::{Lease, Run};
use super::spelled::Spelled;
use super::stream::Stream;
use super::told::{self, Limit};
use super::whose::Aside;

/// What of a request is remembered until it is answered.
#[derive(Debug)]
pub struct Asked {
    /// Where things are in the head that goes upstream.
    pub written: Written,
    /// How long its body is.
    pub framing: Framing,
    /// Where its body begins behind the head that goes upstream, if it is there whole.
    pub body_at: usize,
    /// It is a HEAD.
    pub to_head: bool,
    /// Doing it twice is doing it once.
    pub idempotent: bool,
    /// The client's minor version.
    pub version: u8,
    /// The client wants to go on after the answer.
    pub keeps_alive: bool,
    /// It asks for a WebSocket.
    pub upgrades: bool,
    /// It asks for an event stream: the upstream was told to close.
    pub wants_stream: bool,
    /// When its head was whole.
    pub since: Millis,
    /// What few requests have.
    pub aside: Aside,
}

/// Serves the request whose head is `head` in the client's buffer.
///
/// What is rare is boxed, here and below, and what is done with goes before the next wait: the less a request
/// remembers, the less of the processor's cache it takes from others.
pub async fn run(client: &mut Client, head: Span) -> After {
    let to_head = head.of(client.buffer.bytes()).starts_with(b"HEAD ");
    let (asked, mut upload) = {
        let mut out = client.worker.spare.head();
        match understand(client, head, &mut out) {
            Ok((asked, body)) => (asked, Relay::new(out, body)),
            Err(refusal) => {
                client.worker.spare.give_head(out);
                return Box::pin(client.refuse(refusal.into(), to_head)).await;
            }
        }
    };
    let (after, entry) = serve(client, &asked, &mut upload).await;
    let worker = Rc::clone(&client.worker);
    if let Some(log) = &worker.shared.access {
        let entry = Entry {
            duration: worker.alarms.now() - asked.since,
            ..entry
        };
        log.record(&entry, &asked, upload.head(), client);
    }
    worker.spare.give_head(upload.take_head());
    after
}

/// Parses the head, writes the one that goes upstream into `out`, and takes both the head and what it
/// can of the body out of the buffer. The body that is returned is what is not in `out`.
fn understand(
    client: &mut Client,
    head: Span,
    out: &mut Vec<u8>,
) -> Result<(Asked, Body), Refusal> {
    let Client {
        worker,
        buffer,
        address,
        trusted,
        ..
    } = client;
    let mut fields = worker.fields.borrow_mut();
    let bytes = buffer.bytes();
    let request = Request::parse(bytes, head, &mut fields, &worker.limits().heads)?;
    let (id, ip) = (worker.ids.next(), Spelled::of(*address));
    let hop = Hop {
        via: &worker.shared.via,
        client: ip.bytes(),
        scheme: "http",
        request_id: &id,
        trusted: *trusted,
    };
    let written = forward::request(out, bytes, &fields, &request, &hop)?;
    let method = request.method.of(bytes);
    let asked = Asked {
        written,
        framing: request.framing,
        body_at: out.len(),
        to_head: method == b"HEAD",
        idempotent: matches!(
            method,
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
        ) && !request.upgrades,
        version: request.version,
        keeps_alive: request.keeps_alive(),
        upgrades: request.upgrades,
        wants_stream: request.wants_stream,
        since: worker.alarms.now(),
        aside: Aside::default(),
    };
    if let Some(wish) = fields.values(bytes, Known::SlotPreview).next() {
        asked.aside.wish(wish);
    }
    let body = Body::new(request.framing, false);
    buffer.consume(head.end as usize);
    if request.framing == Framing::Empty {
        return Ok((asked, body));
    }
    let body = at_hand(body, buffer, out)?;
    Ok((asked, body))
}

/// Judges what has come of the body, before anything is sent. If that is all of it, it goes into `out`
/// behind the head; else it stays where it is.
fn at_hand(
    body: Body,
    buffer: &mut super::buffer::Buffer,
    out: &mut Vec<u8>,
) -> Result<Body, BodyError> {
    let (mut rest, mut used, head) = (body.clone(), 0, out.len());
    while !rest.is_done() {
        let mut pieces = Pieces::default();
        let step = rest.advance(&buffer.bytes()[used..], used, &mut pieces)?;
        pieces
            .as_slice()
            .iter()
            .for_each(|piece| out.extend_from_slice(piece.of(buffer.bytes())));
        used += step;
        if step == 0 {
            break;
        }
    }
    if rest.is_done() {
        buffer.consume(used);
        Ok(rest)
    } else {
        out.truncate(head);
        Ok(body)
    }
}

/// True if the body is larger than `most`; one of which that is not known yet will be stopped there.
fn is_too_large(asked: &Asked, upload: &mut Relay, most: u64) -> bool {
    match asked.framing {
        _ if most == u64::MAX => false,
        Framing::Length(length) => length > most,
        Framing::Chunked if upload.has_read_all() => {
            // It was judged without a bound, before it was known whose request this is.
            let (mut body, mut at) = (Body::new(Framing::Chunked, false), asked.body_at);
            body.allow(most);
            while let Some(rest) = upload.head().get(at..).filter(|r| !r.is_empty()) {
                match body.advance(rest, 0, &mut Pieces::default()) {
                    Ok(step @ 1..) => at += step,
                    Ok(0) => break,
                    Err(_) => return true,
                }
            }
            false
        }
        Framing::Chunked => {
            upload.allow(most);
            false
        }
        Framing::Empty | Framing::UntilClose => false,
    }
}

const CONNECT: Answer = Answer::to_sound(502, "the app's address could not be connected to");
const CONNECT_SLOW: Answer = Answer::to_sound(504, "the app did not accept the connection in time")
    .of_limit(Limit::ConnectTime);

/// What is left to do for a request.
type Rest<'a> = Pin<Box<dyn Future<Output = (After, Entry)> + 'a>>;

/// Gives the request to slots until one answers or none will.
async fn serve(client: &mut Client, asked: &Asked, upload: &mut Relay) -> (After, Entry) {
    let whole_at_hand = upload.has_read_all();
    let (mut patience, mut second) = (Patience::default(), false);
    let rest: Rest<'_> = loop {
        let key = Key::new(upload.head(), asked);
        let lease = match patience.at_once(client, key) {
            Some(lease) => lease,
            None => match Box::pin(patience.admit(client, key)).await {
                Ok(lease) => lease,
                Err(Without::Gone) => return (After::Close, Entry::default()),
                Err(Without::Answer(answer)) => {
                    break Box::pin(refuse(client, asked, upload, answer, None));
                }
            },
        };
        let began = client.worker.roll.calls();
        if is_too_large(asked, upload, lease.run().bounds.body_bytes) {
            drop(lease);
            let answer = Refusal::TOO_LARGE.into();
            break Box::pin(refuse(client, asked, upload, answer, None));
        }
        let can_repeat = asked.idempotent && whole_at_hand;
        let (stream, is_reused) = {
            let now = client.worker.alarms.now();
            let reused = match second {
                true => None,
                false => lease.run().take(now, can_repeat),
            };
            match reused {
                Some(stream) => (stream, true),
                None => match connect(client, &lease).await {
                    Some(Ok(stream)) => (stream, false),
                    Some(Err(error)) if is_down(&error) => {
                        refused(client, &mut patience, &lease);
                        continue;
                    }
                    Some(Err(error)) => {
                        let error = Some(error);
                        break Box::pin(fail(client, asked, upload, CONNECT, error, lease));
                    }
                    None => {
                        break Box::pin(fail(client, asked, upload, CONNECT_SLOW, None, lease));
                    }
                },
            }
        };
        let outcome = {
            let mut attempt = Attempt::new(client, asked, upload, lease, stream, is_reused, began);
            let end = attempt.run().await;
            attempt.end(end)
        };
        match outcome {
            Outcome::Done(after, entry) => return (after, entry),
            Outcome::Abandoned(None, entry) => return (After::Reset, entry),
            Outcome::Abandoned(Some(answer), entry) => {
                break Box::pin(async move {
                    (client.answer(answer, asked.to_head, true).await, entry)
                });
            }
            // Another connection that was left over, or a new one.
            Outcome::Failed(Failed::Unsent, ..) if is_reused => {}
            // It was taken and ended at once, as by a slot that is going down: as good as refused.
            // Trying again at once could go on for ever.
            Outcome::Failed(Failed::Unsent, _, lease) => {
                refused(client, &mut patience, &lease);
            }
            Outcome::Failed(Failed::Silent, ..) if is_reused && can_repeat => {
                second = true;
                upload.rewind();
            }
            Outcome::Failed(failed, error, lease) => {
                let answer = failed.answer();
                break Box::pin(fail(client, asked, upload, answer, error, lease));
            }
        }
    };
    rest.await
}

/// A new connection to the run of `lease`; meanwhile others may have the memory that the head was read into.
async fn connect(client: &mut Client, lease: &Lease) -> Option<io::Result<Stream>> {
    client.buffer.release(&client.worker.spare);
    client
        .alarm
        .set(client.worker.alarms.now(), client.worker.limits().connect);
    let mut connecting = Box::pin(Stream::connect(&lease.run().upstream));
    client.alarm.until(|cx| connecting.as_mut().poll(cx)).await
}

/// The slot did not take the request.
fn refused(client: &Client, patience: &mut Patience, lease: &Lease) {
    lease.failed();
    patience.refused(&client.worker, lease);
}

/// True if nobody listens (any more, or yet), or the queue of a unix socket is full (connect(2), `EAGAIN`). One who has passed its gates
/// is closed to us only while PID 1 makes the directory of its socket anew, as root's, before it gives that away (systemd.exec(5),
/// `RuntimeDirectory=`).
fn is_down(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::WouldBlock
    )
}

/// Answers for a slot that did not, and says so in the log.
fn fail<'a>(
    client: &'a mut Client,
    asked: &'a Asked,
    upload: &'a Relay,
    answer: Answer,
    error: Option<io::Error>,
    lease: Lease,
) -> impl Future<Output = (After, Entry)> + use<'a> {
    let run = Rc::clone(lease.run());
    let (name, ip) = (run.name(), client.ip());
    tracing::warn!(
        client = &*ip,
        slot_app = name.app,
        slot_name = name.slot,
        slot_boot_id = name.boot_id,
        upstream = %run.upstream,
        status = answer.status,
        request_id = %String::from_utf8_lossy(asked.written.request_id.of(upload.head())),
        limit = answer.limit.map(Limit::key),
        "{}", told::of_app(&ip, &run, &answer.reason, answer.limit, error.as_ref())
    );
    let answer = Answer {
        limit: None,
        ..answer
    };
    lease.failed();
    drop(lease);
    refuse(client, asked, upload, answer, Some(run))
}

/// Answers a sound request ourselves. The connection can be used on if its body has been read.
async fn refuse(
    client: &mut Client,
    asked: &Asked,
    upload: &Relay,
    answer: Answer,
    run: Option<Rc<Run>>,
) -> (After, Entry) {
    let close = !answer.keep
        || !asked.keeps_alive
        // It does not say `keep-alive`, without which an HTTP/1.0 client takes it for the last one (RFC 9112 section 9.3).
        || asked.version == 0
        || !upload.has_read_all()
        || client.worker.draining.get();
    let entry = Entry {
        status: answer.status,
        run,
        ..Entry::default()
    };
    (client.answer(answer, asked.to_head, close).await, entry)
}
