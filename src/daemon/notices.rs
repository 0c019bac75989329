//! The app's notices on their way to those elsewhere: from the state into a file, and from there to whoever sends it, again and again
//! until it is sent.
//!
//! ```text
//!  state.untold ─ Effect::Post ─► notices/<receiver>/<number>.json ─ slot-notify@<app> ─► https://…
//! ```
//!
//! **Invariant:** no deployment waits for it; another receiver for no longer than one may take to answer. Where it does not get on, status
//! says so.
//! **Invariant:** a notice is sent at least once, and the next one of a receiver only after it, unless he refuses it, or [`MOST_AGE`] has
//! passed, or [`MOST_KEPT`] newer ones wait.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::errand::{Broken, Call};
use super::live::{AGAIN, Live, blocking};
use super::remember::Undelivered;
use super::units::Units;
use super::world::World;
use crate::config::Receiver;
use crate::deploy::Tiding;
use crate::store::{FileError, MOST_KEPT, Outbox};
use crate::telemetry::chain;
use crate::wire::notice::{Body, Letter, Said};

/// How long the unit that sends may take; it is ended before.
pub(super) const LIMIT: Duration = Duration::from_secs(5 * 60);

/// How long one connection to it is used.
const ROUND: Duration = Duration::from_secs(60);

/// After its first failure a receiver is left alone for about so long, and twice as long after each other one, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// A notice that is older is given up.
const MOST_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is held up where notices cannot be written down.
const POST: &str = "notices";

/// How long to wait after so many failures in a row; `chance` is any number.
fn pause(failures: u32, chance: u64) -> Duration {
    let doubled = PAUSE.0 * 2u32.saturating_pow(failures.saturating_sub(1)).min(1 << 16);
    let most = doubled.min(PAUSE.1);
    // Between half of it and all of it, so that not every server comes back at the same time.
    let part = u32::try_from(chance % 1000).unwrap_or(0);
    most / 2 + most / 2 * part / 1000
}

/// How a receiver does.
#[derive(Debug, Default)]
struct Standing {
    failures: u32,
    again: Option<Instant>,
    /// When it last had its turn.
    last: Option<Instant>,
}

/// What a round made of a receiver: why its oldest notice is still there, if it is.
type Round = Vec<(String, Option<String>)>;

/// What one round is to do.
struct Work {
    app: String,
    outbox: Outbox,
    receivers: Vec<Receiver>,
    now_ms: u64,
}

impl<U: Units> Live<U> {
    pub(super) fn outbox(&self) -> Outbox {
        Outbox::at(self.root.join("notices"))
    }

    /// Writes a notice down for each receiver that wants it; returns when that is done.
    pub(super) async fn post(&self, tiding: &Tiding) {
        let Some(topic) = tiding.notice.topic() else {
            return;
        };
        let receivers = self.app.notices.iter();
        let keys = receivers.filter(|it| it.topics.contains(&topic));
        let keys: Vec<String> = keys.map(Receiver::key).collect();
        let body = self.body(tiding);
        let (outbox, number) = (self.outbox(), tiding.number);
        let work = move || {
            let mut lost = 0;
            for key in &keys {
                lost += outbox.put(key, number, body.as_bytes())?;
            }
            Ok::<usize, FileError>(lost)
        };
        loop {
            match blocking(work.clone()).await {
                Ok(lost) => {
                    self.go_on(POST);
                    if lost > 0 {
                        self.warn_of_notices(&format!(
                            "{lost} of the oldest notices are dropped, since {MOST_KEPT} wait for a receiver"
                        ));
                    }
                    self.posted.notify_one();
                    return;
                }
                Err(error) => {
                    let why = chain(&error);
                    self.hold_up(POST, format!("notices are not sent: {why}"));
                    sleep(AGAIN * 10).await;
                }
            }
        }
    }

    fn body(&self, tiding: &Tiding) -> String {
        let body = Body {
            id: format!("{}-{}-{}", self.app.name, tiding.generation, tiding.number),
            host: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            event: self.event_of_tiding(tiding),
        };
        serde_json::to_string(&body).expect("a body is strings and numbers")
    }

    /// Has sent what waits, for as long as the app is managed.
    pub(super) async fn keep_notices(self: Arc<Self>) {
        for problem in self.app.notices.iter().filter_map(Receiver::secret_problem) {
            self.keep_warning("notices-secret", problem);
        }
        let outbox = self.outbox();
        let keys = self.app.notices.iter().map(Receiver::key).collect();
        if let Err(error) = blocking(move || outbox.retain(&keys)).await {
            self.warn_of_notices(&chain(&error));
        }
        let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
        loop {
            let now = Instant::now();
            let again = |key: &str| standings.get(key).and_then(|it| it.again);
            let waiting = self.waiting().await;
            let (mut due, later): (Vec<Receiver>, Vec<Receiver>) = waiting
                .into_iter()
                .partition(|it| again(&it.key()).is_none_or(|again| again <= now));
            if due.is_empty() {
                let next = later.iter().filter_map(|it| again(&it.key())).min();
                tokio::select! {
                    () = self.posted.notified() => {}
                    () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                }
                continue;
            }
            // Who takes his goes before who may take long, and whose turn is longest ago before who has just had one.
            due.sort_by_key(|it| {
                let known = standings.get(&it.key());
                known.map_or((0, None), |it| (it.failures, it.last))
            });
            for (key, failed) in self.round(due).await {
                let standing = standings.entry(key).or_default();
                standing.last = Some(Instant::now());
                match failed {
                    None => (standing.failures, standing.again) = (0, None),
                    Some(_) => {
                        standing.failures += 1;
                        let chance = RandomState::new().hash_one(standing.failures);
                        standing.again = Some(Instant::now() + pause(standing.failures, chance));
                    }
                }
            }
        }
    }

    /// The receivers for whom something waits.
    async fn waiting(&self) -> Vec<Receiver> {
        let (outbox, receivers) = (self.outbox(), self.app.notices.clone());
        let look = move || {
            let waits = |it: &Receiver| outbox.numbers(&it.key()).is_ok_and(|it| !it.is_empty());
            receivers.into_iter().filter(waits).collect()
        };
        blocking(look).await
    }

    /// Sends what waits for these, and tells of each how that went.
    async fn round(&self, receivers: Vec<Receiver>) -> Round {
        let work = Work {
            app: self.app.name.to_string(),
            outbox: self.outbox(),
            receivers: receivers.clone(),
            now_ms: self.now().0,
        };
        let sent = self.units.notify(move |call| work.exchange(call)).await;
        let round = sent.unwrap_or_else(|unsent| {
            let unit = unsent.report.unit;
            let why = format!("{unit} {}", unsent.failure.text);
            let failed = |it: &Receiver| (it.key(), Some(why.clone()));
            receivers.iter().map(failed).collect()
        });
        for receiver in receivers {
            let own = round.iter().find(|(key, _)| *key == receiver.key());
            if let Some((key, why)) = own {
                let undelivered = match why {
                    Some(why) => self.undelivered(&receiver, why.clone()).await,
                    None => None,
                };
                self.tell_undelivered(key, undelivered);
            }
        }
        round
    }

    async fn undelivered(&self, receiver: &Receiver, why: String) -> Option<Undelivered> {
        let (outbox, key) = (self.outbox(), receiver.key());
        let place = receiver.place().to_owned();
        blocking(move || {
            let numbers = outbox.numbers(&key).ok()?;
            let body = outbox.read(&key, *numbers.first()?).ok()??;
            Some(Undelivered {
                place,
                many: numbers.len(),
                since_ms: serde_json::from_str::<Body>(&body).map_or(0, |it| it.event.at_ms),
                why,
            })
        })
        .await
    }

    fn warn_of_notices(&self, text: &str) {
        tracing::warn!(slot_app = self.app.name.as_str(), "{text}");
    }
}

impl Work {
    /// On a thread that may block.
    fn exchange(&self, call: &Call) -> Result<Round, Broken> {
        let until = std::time::Instant::now() + ROUND;
        let mut from = BufReader::new(&call.stream);
        let mut round = Round::new();
        for receiver in &self.receivers {
            let key = receiver.key();
            if !call.is_wanted() || std::time::Instant::now() >= until {
                // Of who had no turn there is nothing to say.
                break;
            }
            let mut failed = None;
            while failed.is_none() && call.is_wanted() && std::time::Instant::now() < until {
                match self.oldest(receiver) {
                    Ok(None) => break,
                    Ok(Some((number, letter))) => {
                        failed = self.send(call, &mut from, receiver, number, &letter)?;
                    }
                    Err(error) => failed = Some(chain(&error)),
                }
            }
            round.push((key, failed));
        }
        Ok(round)
    }

    /// The oldest notice of a receiver that is to be sent; what is too old, or is none, goes.
    fn oldest(&self, receiver: &Receiver) -> Result<Option<(u64, Letter)>, FileError> {
        let key = receiver.key();
        for number in self.outbox.numbers(&key)? {
            let Some(text) = self.outbox.read(&key, number)? else {
                continue;
            };
            let body: Option<Body> = serde_json::from_str(&text).ok();
            let age = |body: &Body| self.now_ms.saturating_sub(body.event.at_ms);
            let most = u64::try_from(MOST_AGE.as_millis()).unwrap_or(u64::MAX);
            match body {
                Some(body) if age(&body) <= most => {
                    let letter = Letter {
                        to: key,
                        id: body.id,
                        event: body.event.event,
                        body: text,
                    };
                    return Ok(Some((number, letter)));
                }
                Some(body) => self.given_up(receiver, &body.id, "it could not be sent for a day"),
                None => self.given_up(receiver, &number.to_string(), "its file is damaged"),
            }
            self.outbox.remove(&key, number)?;
        }
        Ok(None)
    }

    /// Sends one; gives why it is to be sent again, if it is.
    fn send(
        &self,
        call: &Call,
        from: &mut BufReader<&std::os::unix::net::UnixStream>,
        receiver: &Receiver,
        number: u64,
        letter: &Letter,
    ) -> Result<Option<String>, Broken> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Broken::There("ended without an answer".to_owned()),
            _ => Broken::There(format!("lost its connection: {error}")),
        };
        let mut line = serde_json::to_vec(letter).expect("a letter is strings");
        line.push(b'\n');
        (&call.stream).write_all(&line).map_err(lost)?;
        match Said::read(from).map_err(lost)? {
            Said::Sent => {}
            Said::Refused { why } => self.given_up(receiver, &letter.id, &why),
            Said::Failed { why } => return Ok(Some(why)),
        }
        let removed = self.outbox.remove(&letter.to, number);
        // It would be sent again and again.
        Ok(removed.err().map(|error| chain(&error)))
    }

    fn given_up(&self, receiver: &Receiver, id: &str, why: &str) {
        tracing::warn!(
            slot_app = self.app,
            "the notice {id} to {} is given up: {why}",
            receiver.place()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::Topic;
    use crate::wire::api::Event;

    #[test]
    fn pauses_grow_up_to_ten_minutes_and_are_not_the_same_everywhere() {
        let bounds = |failures| (pause(failures, 0), pause(failures, 999));
        for (failures, most) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (9, 256),
            (10, 512),
            (11, 600),
            (u32::MAX, 600),
        ] {
            let (first, last) = bounds(failures);
            assert_eq!(first, Duration::from_secs(most) / 2, "{failures}");
            assert!(
                last > first && last <= Duration::from_secs(most),
                "{failures}: {last:?}"
            );
        }
    }

    #[test]
    fn what_is_too_old_or_damaged_is_given_up_and_the_next_one_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let now_ms = 1_763_700_000_000;
        let receiver = Receiver {
            url: "https://example.org/".to_owned(),
            topics: Topic::USUAL.into(),
            secret_file: None,
        };
        let work = Work {
            app: "web".to_owned(),
            outbox: Outbox::at(directory.path().join("notices")),
            receivers: vec![receiver.clone()],
            now_ms,
        };
        let body = |at_ms| {
            let event = Event {
                at_ms,
                ..Event::default()
            };
            let (id, host) = (format!("web-{at_ms}"), "here".to_owned());
            serde_json::to_vec(&Body { id, host, event }).unwrap()
        };
        let key = receiver.key();
        let age = u64::try_from(MOST_AGE.as_millis()).unwrap();
        for (number, bytes) in [
            (1, body(now_ms - age - 1)),
            (2, b"{".to_vec()),
            (3, body(now_ms - age)),
            (4, body(now_ms)),
        ] {
            work.outbox.put(&key, number, &bytes).unwrap();
        }
        let (number, letter) = work.oldest(&receiver).unwrap().unwrap();
        assert_eq!((number, letter.id), (3, format!("web-{}", now_ms - age)));
        assert_eq!(work.outbox.numbers(&key).unwrap(), [3, 4].into());
    }
}
