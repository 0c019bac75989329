//! Finding a slot for a request, and holding the request while its slot is down.
//!
//! **Invariant:** a held request is not under way anywhere: it counts at no slot, and nothing of its
//! body is read.
//!
//! **Invariant:** those who wait are bounded in number, in bytes and in time.

use std::borrow::Cow;
use std::rc::Rc;
use std::task::Poll;

use super::alarm::Millis;
use super::answer::Answer;
use super::connection::Client;
use super::exchange::Asked;
use super::h1::{Span, path, target};
use super::runs::{Lease, Picked};
use super::told::Limit;
use super::whose::{Aside, Whose};
use super::worker::Worker;

/// What routes are matched on, inside the head that goes upstream.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    head: &'a [u8],
    authority: Span,
    path: Span,
    aside: &'a Aside,
}

impl<'a> Key<'a> {
    /// The key in `head`, which is what goes upstream of what was asked.
    pub fn new(head: &'a [u8], asked: &'a Asked) -> Self {
        Self {
            head,
            authority: asked.written.authority,
            path: asked.written.path,
            aside: &asked.aside,
        }
    }

    /// Answers a request that can be held no longer, and says in the log what it was for: no slot is known yet.
    fn refuse(&self, client: &Client, answer: Answer) -> Without {
        if let Some(limit) = answer.limit {
            let text = |span: Span| String::from_utf8_lossy(span.of(self.head));
            let (host, path) = (text(self.authority), text(self.path));
            client.tell(limit, format_args!("{} ({host}{path})", answer.reason));
        }
        Without::Answer(Answer {
            limit: None,
            ..answer
        })
    }

    /// Looks for a slot in the table in force; `None` if there is no table.
    fn pick(&self, client: &Client) -> Result<Option<Picked>, Answer> {
        let Some(routing) = client.worker.routing.borrow().clone() else {
            return Ok(None);
        };
        let host = target::before_port(self.authority.of(self.head));
        let host = host.strip_suffix(b".").unwrap_or(host);
        let host = match host.iter().any(u8::is_ascii_uppercase) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        // `OPTIONS *` is for the host as a whole.
        let raw = match self.path.of(self.head) {
            b"*" => &b"/"[..],
            raw => raw,
        };
        let normal = path::normalise(raw)?;
        let whose = |by: &_| Whose::of(client, self.head, by, self.aside);
        Ok(Some(routing.pick(
            usize::from(client.listener),
            &host,
            raw,
            &normal,
            self.aside,
            whose,
        )))
    }
}

/// Counts a held request for as long as it is held.
#[derive(Debug)]
struct Held {
    worker: Rc<Worker>,
    bytes: usize,
}

impl Held {
    fn new(worker: &Rc<Worker>, bytes: usize) -> Result<Self, Answer> {
        let limits = worker.limits();
        let all = worker.held_bytes.get() + bytes;
        if worker.gauges().held() >= worker.part(limits.held) as u64 {
            return Err(TOO_MANY);
        }
        if all > worker.part(limits.held_bytes) {
            return Err(TOO_LARGE);
        }
        worker.held_bytes.set(all);
        worker.gauges().hold(1);
        Ok(Self {
            worker: Rc::clone(worker),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.worker
            .held_bytes
            .set(self.worker.held_bytes.get() - self.bytes);
        self.worker.gauges().hold(-1);
    }
}

/// What a request has waited so far.
#[derive(Debug, Default)]
pub struct Patience {
    since: Option<Millis>,
    held: Option<Held>,
    /// The slot did not take our connection; its app holds requests for this many milliseconds.
    refused: Option<u64>,
    pause: Millis,
}

/// Why no slot was found.
#[derive(Debug)]
pub enum Without {
    /// Say this.
    Answer(Answer),
    /// The client did not wait.
    Gone,
}

impl From<Answer> for Without {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

const UNAVAILABLE: Answer =
    Answer::to_sound(503, "the app did not come up in time").of_limit(Limit::HeldTime);
const NO_TABLE: Answer =
    Answer::to_sound(503, "no routing table came in time").of_limit(Limit::TableTime);
const TOO_MANY: Answer = Answer::to_sound(503, "too many requests wait for an app that is down")
    .of_limit(Limit::HeldRequests);
const TOO_LARGE: Answer = Answer::to_sound(
    503,
    "the requests that wait for an app that is down have too many bytes",
)
.of_limit(Limit::HeldBytes);
const NO_WEIGHT: Answer = Answer::to_sound(503, "the app takes no requests now");
const NO_APP: Answer = Answer::to_sound(404, "no app has this host and path");
const NO_PREVIEW: Answer =
    Answer::to_sound(404, "no slot or version of this name can be previewed");
const FORBIDDEN: Answer = Answer::to_sound(403, "the token in Slot-Preview is not the app's");
const AMBIGUOUS: Answer = Answer::to_sound(
    400,
    "the path leads to different apps when it is normalised",
);

/// How long the app of this slot holds requests, in milliseconds; not at all if no table names it any more.
fn hold_ms(worker: &Worker, lease: &Lease) -> u64 {
    let routing = worker.routing.borrow();
    let hold_ms = routing.as_ref().and_then(|r| r.hold_ms(lease.run().name()));
    hold_ms.unwrap_or_default()
}

impl Patience {
    /// A slot's socket did not answer: ask again later.
    pub fn refused(&mut self, worker: &Worker, lease: &Lease) {
        lease.run().ramp.refused(worker.alarms.now());
        self.refused = Some(hold_ms(worker, lease));
        self.pause = (self.pause * 2).clamp(20, 250);
    }

    /// The slot of a request that need not wait, as almost none must.
    pub fn at_once(&self, client: &Client, key: Key<'_>) -> Option<Lease> {
        let waits = self.since.is_some() || self.refused.is_some();
        match key.pick(client) {
            Ok(Some(Picked::Slot(lease))) if !waits => Some(lease),
            _ => None,
        }
    }

    /// Finds a slot, waiting for one if need be.
    ///
    /// # Errors
    /// There is none, or none came in time.
    pub async fn admit(&mut self, client: &mut Client, key: Key<'_>) -> Result<Lease, Without> {
        let worker = Rc::clone(&client.worker);
        if let Some(hold_ms) = self.refused.take() {
            self.wait(client, key, hold_ms, Some(self.pause), UNAVAILABLE)
                .await?;
        }
        loop {
            match key.pick(client)? {
                Some(Picked::Slot(lease)) => {
                    let now = worker.alarms.now();
                    // Who has waited goes when it is his turn, and counts nowhere until then.
                    if self.since.is_some()
                        && let Err(turn) = lease.run().ramp.go(now)
                    {
                        let hold_ms = match lease.run().ramp.refuses() {
                            true => hold_ms(&worker, &lease),
                            // The slot is there: nobody is sent away now for having waited, however late this thread is.
                            false => u64::MAX,
                        };
                        drop(lease);
                        self.wait(client, key, hold_ms, Some(turn - now), UNAVAILABLE)
                            .await?;
                        continue;
                    }
                    self.held = None;
                    return Ok(lease);
                }
                Some(Picked::NotReady(hold_ms)) => {
                    self.wait(client, key, hold_ms, None, UNAVAILABLE).await?
                }
                Some(Picked::NoWeight) => return Err(NO_WEIGHT.into()),
                Some(Picked::NoApp) => return Err(NO_APP.into()),
                Some(Picked::NoPreview) => return Err(NO_PREVIEW.into()),
                Some(Picked::Forbidden) => return Err(FORBIDDEN.into()),
                Some(Picked::Ambiguous) => return Err(AMBIGUOUS.into()),
                None => {
                    let hold_ms = worker.limits().held_without_table.as_millis() as u64;
                    self.wait(client, key, hold_ms, None, NO_TABLE).await?;
                }
            }
        }
    }

    /// Waits for another table, or for `pause`; at most until `hold_ms` after the first wait.
    async fn wait(
        &mut self,
        client: &mut Client,
        key: Key<'_>,
        hold_ms: u64,
        pause: Option<Millis>,
        late: Answer,
    ) -> Result<(), Without> {
        let worker = Rc::clone(&client.worker);
        let now = worker.alarms.now();
        let deadline = self.since.get_or_insert(now).saturating_add(hold_ms);
        if now >= deadline {
            return Err(key.refuse(client, late));
        }
        if self.held.is_none() {
            client.buffer.shrink(&worker.spare);
            let bytes = key.head.len() + client.buffer.capacity();
            let held = Held::new(&worker, bytes);
            self.held = Some(held.map_err(|answer| key.refuse(client, answer))?);
        }
        let swaps = worker.swaps.get();
        let until = pause.map_or(deadline, |p| deadline.min(now + p));
        client.alarm.set_at(until);
        client.alarm.await_table(true);
        // A client that has closed only its side is taken for gone too: of those who wait for an app that is down most have
        // closed both, to ask again, and must not all be sent to it when it is back.
        let (stream, mut may_close) = (&client.stream, true);
        let gone = client.alarm.until(|cx| {
            if worker.swaps.get() != swaps {
                return Poll::Ready(false);
            }
            match may_close.then(|| stream.poll_closed(cx)) {
                Some(Poll::Ready(true)) => return Poll::Ready(true),
                Some(Poll::Ready(false)) => may_close = false,
                Some(Poll::Pending) | None => {}
            }
            Poll::Pending
        });
        let gone = gone.await;
        client.alarm.await_table(false);
        match gone {
            Some(true) => Err(Without::Gone),
            // The table changed, or it is time to try again.
            Some(false) => Ok(()),
            None if until < deadline => Ok(()),
            None => Err(key.refuse(client, late)),
        }
    }
}
