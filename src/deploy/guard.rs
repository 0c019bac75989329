//! What a request may depend on: the app being as it was seen, and the request not having been made before.
//!
//! **Invariant:** both are decided with the state that the request would change, so nothing comes between the look and the change; one
//! that is not admitted changes nothing.
//! **Invariant:** a request with a key is carried out at most once while the key is kept, and the key is on disk with what it began. One that
//! a restart interrupted before anything was started was not carried out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::event::Event;
use super::names::{Generation, Key, NameError, ReleaseId, SlotName, Time};
use super::refusal::Refusal;
use super::state::{Cause, Outcome, State};
use super::step::{Step, step};

/// How many keys an app keeps: the newest.
pub const KEYS: usize = 32;

/// How long a key is kept: longer than any client goes on trying.
pub const KEY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The phase in which a release comes; an attempt that ended in it may not have been asked for whole.
const PREPARING: &str = "preparing";

/// What a request depends on; by default on nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Where the app is to be.
    pub expected: Expected,
    /// By what it is known again.
    pub key: Option<Fingerprint>,
}

/// What whoever asks has last seen of the app: compare, and set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// [`State::generation`].
    pub generation: Option<Generation>,
    /// The active slot, or the release that is live.
    pub active: Option<Serving>,
}

/// A slot or a release, by a name that may be of either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    text: String,
    slot: Option<SlotName>,
    release: Option<ReleaseId>,
}

/// A request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its key.
    pub key: Key,
    /// A digest of what it asks for, but for what is still to come.
    pub target: String,
    /// A digest of what comes with it; empty if nothing does, `None` as long as it comes.
    pub payload: Option<String>,
}

/// A key that is kept, with the attempt that its request began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The request.
    pub fingerprint: Fingerprint,
    /// The attempt.
    pub generation: Generation,
    /// When it was begun.
    pub at: Time,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
}

impl FromStr for Serving {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let release = text.parse().ok();
        let slot = match text.parse() {
            Ok(slot) => Some(slot),
            Err(_) if release.is_some() => None,
            Err(_) => {
                return Err(NameError {
                    what: "slot or release",
                    value: text.to_owned(),
                    rule: "use the name of a slot, or the 8 hexadecimal digits of a release, as `slotctl status` shows them",
                });
            }
        };
        Ok(Self {
            text: text.to_owned(),
            slot,
            release,
        })
    }
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serving {
    fn is_active(&self, state: &State) -> bool {
        let slot = self.slot.is_some() && self.slot == state.active;
        slot || (self.release.is_some() && self.release.as_ref() == state.live())
    }
}

impl Expected {
    fn is_so(&self, state: &State) -> bool {
        let generation = self.generation.is_none_or(|it| it == state.generation);
        generation && self.active.as_ref().is_none_or(|it| it.is_active(state))
    }
}

impl Guard {
    /// Whether the request is to be carried out. The key comes first: what a request expected is not so any more once it was carried out.
    ///
    /// # Errors
    /// It was made before, or the app is not as expected.
    pub fn admits(&self, state: &State, now: Time) -> Result<(), Refusal> {
        if let Some(fingerprint) = &self.key
            && let Some(known) = state.keyed(&fingerprint.key, now)
        {
            let (key, generation) = (fingerprint.key.clone(), known.generation);
            return Err(if known.fingerprint.is_like(fingerprint) {
                Refusal::Repeated { key, generation }
            } else {
                Refusal::KeyReused { key, generation }
            });
        }
        if !self.expected.is_so(state) {
            return Err(Refusal::Unexpected(Box::new(Unexpected {
                expected: self.expected.clone(),
                generation: state.generation,
                active: state.active.clone(),
                live: state.live().cloned(),
            })));
        }
        Ok(())
    }
}

impl Fingerprint {
    /// Whether it may be the same request. Of payloads, those are compared that are known.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let (one, two) = (self.payload.as_ref(), other.payload.as_ref());
        self.target == other.target && one.zip(two).is_none_or(|(one, two)| one == two)
    }
}

/// The app is not as whoever asked had seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// What was expected.
    pub expected: Expected,
    /// [`State::generation`].
    pub generation: Generation,
    /// [`State::active`].
    pub active: Option<SlotName>,
    /// [`State::live`].
    pub live: Option<ReleaseId>,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Expected { generation, active } = &self.expected;
        let generation = generation.map(|it| format!("generation {it}"));
        let active = active.as_ref().map(|it| format!("{it} to be active"));
        let expected: Vec<String> = generation.into_iter().chain(active).collect();
        write!(
            f,
            "expected {}; it is at generation {}, and ",
            expected.join(" and "),
            self.generation
        )?;
        match (&self.active, &self.live) {
            (Some(slot), Some(release)) => write!(f, "{slot} is active with release {release}"),
            (Some(slot), None) => write!(f, "{slot} is active"),
            (None, _) => f.write_str("no slot is active"),
        }
    }
}

impl State {
    /// What is kept of a key. One whose request never came whole, and will not any more, is not: it was never asked. Nor is one whose
    /// release a restart of the deployer has lost: nothing came of it, and whoever asks again is to get what he asked for.
    #[must_use]
    pub fn keyed(&self, key: &Key, now: Time) -> Option<&Keyed> {
        let known = self
            .keys
            .iter()
            .find(|keyed| keyed.fingerprint.key == *key)?;
        let torn = known.outcome.as_ref().is_some_and(|outcome| {
            let came = known.fingerprint.payload.is_some();
            outcome.cause == Cause::Interrupted || (!came && outcome.phase == PREPARING)
        });
        (!torn && now.since(known.at) < KEY_AGE).then_some(known)
    }

    /// Of the attempts whose requests had a key, how this one ended.
    #[must_use]
    pub fn kept_outcome(&self, generation: Generation) -> Option<&Outcome> {
        let mut keys = self.keys.iter();
        keys.find_map(|it| it.outcome.as_ref().filter(|_| it.generation == generation))
    }

    /// The end of an attempt is kept with its keys (a deployment's and its promotion's): another one may end before anybody asks.
    pub(super) fn keep_outcome(&mut self) {
        let Some(outcome) = &self.outcome else { return };
        let ended = |it: &&mut Keyed| it.outcome.is_none() && it.generation == outcome.generation;
        for keyed in self.keys.iter_mut().filter(ended) {
            keyed.outcome = Some(outcome.clone());
        }
    }

    /// All that comes with a request has come.
    pub(super) fn came_whole(&mut self, generation: Generation, payload: String) {
        let mut keys = self.keys.iter_mut();
        if let Some(keyed) = keys.find(|it| it.generation == generation) {
            keyed.fingerprint.payload.get_or_insert(payload);
        }
    }

    fn keep_key(&mut self, fingerprint: Fingerprint, now: Time) {
        self.keys
            .retain(|it| it.fingerprint.key != fingerprint.key && now.since(it.at) < KEY_AGE);
        let surplus = (self.keys.len() + 1).saturating_sub(KEYS);
        self.keys.drain(..surplus);
        self.keys.push(Keyed {
            fingerprint,
            generation: self.generation,
            at: now,
            outcome: None,
        });
    }
}

/// An event that somebody asks for under a guard.
pub(super) fn guarded(
    state: &State,
    guard: Guard,
    event: Event,
    now: Time,
) -> Result<Step, Refusal> {
    guard.admits(state, now)?;
    let mut next = step(state, event, now)?;
    // A rollback that began nothing, and only ended what was under way, does so again if it is repeated.
    if let Some(fingerprint) = guard.key.filter(|_| next.state.preempted().is_none()) {
        next.state.keep_key(fingerprint, now);
    }
    Ok(next)
}
