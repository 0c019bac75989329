//! Begins an attempt and watches it to its outcome, through restarts of slotd.
//!
//! **Invariant:** watching changes nothing; an attempt that nobody watches ends the same.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::args::Wait;
use super::client::{Client, ClientError, RETRY};
use super::exit::Exit;
use super::progress::{Screen, still_held};
use super::status::time_until;
use super::term::note;
use crate::wire::api::{Begun, Event, Outcome, Progress, Status};

/// How long slotd may be away while it is watched; a restart takes a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two polls, should slotd answer "not yet" at once.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at what is still in flight.
const LOOK: Duration = Duration::from_millis(500);
/// Between two drawings of the live line.
pub(super) const FRAME: Duration = Duration::from_millis(100);

/// What came of a request for an attempt.
pub enum Asked {
    /// It was begun, and this is its end.
    Ended(Box<Outcome>),
    /// There was nothing to begin: what slotd says.
    Already(Begun),
}

/// Begins an attempt with `begin`, one that slotd always has to make, and watches it until `wait` is fulfilled.
///
/// `sending` tells how much was sent so far, for the time before slotd has answered.
///
/// # Errors
/// If slotd refuses, or stays away; if the user presses Ctrl-C.
pub async fn attempt(
    client: &Client,
    begin: impl Future<Output = Result<Begun, ClientError>>,
    sending: impl Fn() -> Option<String>,
    wait: Wait,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    match ask(client, begin, sending, wait, screen).await? {
        Asked::Ended(outcome) => Ok(*outcome),
        Asked::Already(begun) => Err(Exit::Failed.because(begun.already.unwrap_or_default())),
    }
}

/// The same for one that may not be needed.
///
/// # Errors
/// As of [`attempt`].
pub async fn ask(
    client: &Client,
    begin: impl Future<Output = Result<Begun, ClientError>>,
    sending: impl Fn() -> Option<String>,
    wait: Wait,
    screen: &mut Screen,
) -> anyhow::Result<Asked> {
    let mut events = Events::open(client).await;
    let mut frame = tokio::time::interval(FRAME);
    let mut begin = pin!(begin);
    let mut look = pin!(look(client));
    // Another deployment may be what this one waits for; nothing is said of that one's phases.
    let own = format!("(pid {})", std::process::id());
    let mut holder: Option<String> = None;
    let begun = loop {
        tokio::select! {
            begun = &mut begin => break begun,
            event = events.next() => {
                if event.event == "began" && event.text.ends_with(&own) {
                    holder = None;
                }
                if holder.is_none() {
                    screen.event(&event);
                }
            }
            seen = &mut look => {
                let held = seen.ok().and_then(|status| status.deployment);
                let other = held.filter(|held| !held.by.ends_with(&own));
                holder = other.map(|held| format!(
                    "generation {}, begun by {}, is in phase {}", held.generation, held.by, held.phase
                ));
                look.set(self::look(client));
            }
            _ = frame.tick(), if screen.is_live() => {
                match (&holder, sending()) {
                    (Some(holder), _) => screen.enter("queued", holder),
                    // slotd's own word for the time until it has the release.
                    (None, Some(sent)) => screen.enter("preparing", &sent),
                    (None, None) => {}
                }
                screen.tick();
            }
            _ = tokio::signal::ctrl_c() => {
                screen.finish();
                return Err(Exit::Interrupted.because(
                    "interrupted before slotd answered; `slotctl status` shows whether anything was begun",
                ));
            }
        }
    };
    let outcome = match begun {
        Ok(begun) if begun.already.is_some() => {
            screen.finish();
            return Ok(Asked::Already(begun));
        }
        Ok(begun) => {
            if begun.repeated && !screen.is_silent() {
                note(&format!(
                    "under way or over already: generation {}\n",
                    begun.generation
                ));
            }
            watch(client, &mut events, begun.generation, wait, screen).await
        }
        Err(error) => Err(error.into()),
    };
    screen.finish();
    outcome.map(|outcome| Asked::Ended(Box::new(outcome)))
}

async fn watch(
    client: &Client,
    events: &mut Events,
    generation: u64,
    wait: Wait,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    let mut frame = tokio::time::interval(FRAME);
    let mut outcome = pin!(outcome(client, generation, wait));
    let mut look = pin!(look(client));
    loop {
        tokio::select! {
            ended = &mut outcome => return Ok(ended?),
            event = events.next() => if event.generation == generation {
                screen.event(&event);
            },
            seen = &mut look => {
                match seen {
                    Ok(status) => show(&status, generation, wait, screen),
                    Err(error) if error.is_passing() => screen.detail("slotd does not answer; trying again"),
                    Err(_) => {}
                }
                look.set(self::look(client));
            }
            _ = frame.tick(), if screen.is_live() => screen.tick(),
            _ = tokio::signal::ctrl_c() => {
                return Err(Exit::Interrupted.because(format!(
                    "interrupted: generation {generation} goes on without slotctl; watch it with `slotctl status`"
                )));
            }
        }
    }
}

/// The outcome, asked for until it is there.
async fn outcome(client: &Client, generation: u64, wait: Wait) -> Result<Outcome, ClientError> {
    let path = format!("/outcome?generation={generation}&wait={}", wait.word());
    let mut away: Option<Instant> = None;
    loop {
        match client.poll::<Outcome, serde_json::Value>(&path).await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(_)) => {
                away = None;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if error.is_passing() => {
                if away.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn look(client: &Client) -> Result<Status, ClientError> {
    tokio::time::sleep(LOOK).await;
    client.get("/status").await
}

/// What a look at the app adds to the events: what is waited for and what is in flight.
fn show(status: &Status, generation: u64, wait: Wait, screen: &mut Screen) {
    let ours = |held: &&Progress| held.generation == generation;
    if let Some(progress) = status.deployment.as_ref().filter(ours) {
        screen.progress(progress);
        let waits = progress.phase == "waiting";
        screen.drain(still_held(status).filter(|_| waits));
        return;
    }
    match (wait, status.soak_until_ms) {
        (Wait::Switched, _) => {}
        (Wait::Soaked | Wait::Stopped, Some(until)) => {
            let left = time_until(until, super::status::now_ms());
            let detail = format!("ends {left}, failed probes {}", status.health_fail_streak);
            screen.enter("soaking", &detail);
        }
        (Wait::Stopped, None) => {
            screen.enter("draining", "");
            screen.drain(still_held(status));
        }
        (Wait::Soaked, None) => {}
    }
}

/// slotd's events, as long as they come. Without them only less is shown.
struct Events {
    body: Option<Incoming>,
    unread: Vec<u8>,
}

impl Events {
    async fn open(client: &Client) -> Self {
        Self {
            body: client.open("/events").await.ok(),
            unread: Vec::new(),
        }
    }

    /// The next event; never, once they have ended. May be dropped half-way without losing one.
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.parse() {
                return event;
            }
            let Some(body) = &mut self.body else {
                return std::future::pending().await;
            };
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.unread.extend_from_slice(data);
                    }
                }
                Some(Err(_)) | None => self.body = None,
            }
        }
    }

    /// Takes one event from what was read: `data: {…}` (WHATWG HTML, section 9.2.6; slotd writes each on one line).
    fn parse(&mut self) -> Option<Event> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if let Some(event) = line
                .strip_prefix(b"data:")
                .and_then(|data| serde_json::from_slice(data).ok())
            {
                return Some(event);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_across_any_split() {
        let mut events = Events {
            body: None,
            unread: Vec::new(),
        };
        let event = Event {
            app: "web".to_owned(),
            event: "phase".to_owned(),
            ..Event::default()
        };
        let text = format!(
            ": hello\n\nevent: phase\ndata: {}\n\n",
            serde_json::to_string(&event).unwrap()
        );
        let (first, second) = text.as_bytes().split_at(30);
        events.unread.extend_from_slice(first);
        assert_eq!(events.parse(), None);
        events.unread.extend_from_slice(second);
        assert_eq!(events.parse(), Some(event));
        assert_eq!(events.parse(), None);
    }
}
