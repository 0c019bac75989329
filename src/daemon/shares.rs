//! Shares of new requests: what people may ask for, of which slot, and what they are told.
//!
//! **Invariant:** whoever asks is answered when the routers have the table, or is told that they do not.

use std::sync::Arc;
use std::time::Duration;

use super::app::{Managed, settings};
use super::owner::AskError;
use super::tell;
use super::units::Units;
use crate::deploy::{
    Condition, Event, Guard, Label, NameError, ReleaseId, Slot, SlotName, State, Weight,
};
use crate::wire::api;

/// How long an answer waits for the routers. What is asked for is done in any case, as soon as they can be told.
const TELLING: Duration = Duration::from_secs(5);

/// Why a slot cannot be found by what somebody calls it.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// It is no name of anything.
    #[error("{0:?} is no name of a slot, no id of a release and no label of one")]
    NoName(String),
    /// Nothing has it.
    #[error(
        "{app} has no slot {named}, nor one with a release of that id or label; it has {there}"
    )]
    Unknown {
        /// The app.
        app: String,
        /// As asked.
        named: String,
        /// Its slots, and what is in them.
        there: String,
    },
    /// More than one slot has it.
    #[error("more than one slot of {app} is meant by {named}: {there}; name one by its own name")]
    Ambiguous {
        /// The app.
        app: String,
        /// As asked.
        named: String,
        /// Those slots.
        there: String,
    },
    /// Nobody said which, and there is none.
    #[error(
        "there is nothing to promote: no slot of {app} stands by or has a weight beside the active one; it has {there}"
    )]
    Nothing {
        /// The app.
        app: String,
        /// Its slots, and what is in them.
        there: String,
    },
    /// Nobody said which, and there are several.
    #[error("more than one slot of {app} could be promoted: {there}; say which")]
    Several {
        /// The app.
        app: String,
        /// Those slots.
        there: String,
    },
}

impl<U: Units> Managed<U> {
    /// The slot that somebody means: by its name, by its release's id, or by that one's label. Of several with the same release it is the
    /// only one that runs.
    ///
    /// # Errors
    /// There is none, or more than one; with what there is.
    pub async fn slot_meant(&self, named: &str) -> Result<SlotName, SlotError> {
        let state = Arc::clone(&self.owner().state().borrow());
        if let Some(name) = state.slots.keys().find(|name| name.as_str() == named) {
            return Ok(name.clone());
        }
        let label: Result<Label, NameError> = named.parse();
        if label.is_err() {
            return Err(SlotError::NoName(named.to_owned()));
        }
        let ids = self.called(named).await;
        let has = |slot: &&Slot| slot.release.as_ref().is_some_and(|id| ids.contains(id));
        let found = state.slots.iter().filter(|(_, slot)| has(slot));
        let (running, resting): (Vec<_>, Vec<_>) =
            found.partition(|(_, slot)| !slot.condition.is_free());
        let (app, named) = (self.app().name.to_string(), named.to_owned());
        match (&running[..], &resting[..]) {
            ([(name, _)], _) | ([], [(name, _)]) => Ok((*name).clone()),
            ([], []) => Err(SlotError::Unknown {
                there: self.there(state.slots.keys()).await,
                app,
                named,
            }),
            ([], several) | (several, _) => Err(SlotError::Ambiguous {
                there: self.there(several.iter().map(|(name, _)| *name)).await,
                app,
                named,
            }),
        }
    }

    /// What can only be meant by a promotion: the candidate at a weight, else the only slot that stands by or has a weight.
    ///
    /// # Errors
    /// There is none, or more than one; with what there is.
    pub async fn promotable(&self) -> Result<SlotName, SlotError> {
        let state = Arc::clone(&self.owner().state().borrow());
        if let Some(name) = state.on_trial() {
            return Ok(name.clone());
        }
        let up = |slot: &Slot| {
            matches!(
                slot.condition,
                Condition::Standby { .. } | Condition::Trial { .. }
            )
        };
        let found: Vec<&SlotName> = state
            .slots
            .iter()
            .filter(|(_, slot)| up(slot))
            .map(|(name, _)| name)
            .collect();
        let app = self.app().name.to_string();
        match found[..] {
            [name] => Ok(name.clone()),
            [] => Err(SlotError::Nothing {
                there: self.there(state.slots.keys()).await,
                app,
            }),
            _ => Err(SlotError::Several {
                there: self.there(found.into_iter()).await,
                app,
            }),
        }
    }

    /// The releases with an id or a label.
    async fn called(&self, named: &str) -> Vec<ReleaseId> {
        let listed = self.releases().await.releases.into_iter();
        let called = listed.filter(|it| it.id == named || it.label.as_deref() == Some(named));
        called.filter_map(|it| it.id.parse().ok()).collect()
    }

    /// `blue (active, 1a2b3c4d, v1), green (idle)`.
    async fn there(&self, names: impl Iterator<Item = &SlotName>) -> String {
        let state = Arc::clone(&self.owner().state().borrow());
        let listed = self.releases().await.releases;
        let shown = names.map(|name| {
            let Some(slot) = state.slots.get(name) else {
                return name.to_string();
            };
            let mut words = vec![slot.condition.name().to_owned()];
            if let Some(id) = &slot.release {
                words.push(id.to_string());
                let its = listed.iter().find(|it| it.id == id.as_str());
                words.extend(its.and_then(|it| it.label.clone()));
            }
            format!("{name} ({})", words.join(", "))
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// Gives a slot another weight; the active one gives that, or gets it.
    ///
    /// # Errors
    /// Refused; nothing was changed.
    pub async fn weigh(
        &self,
        slot: SlotName,
        weight: Weight,
        by: String,
        guard: Guard,
    ) -> Result<api::Shares, AskError> {
        let switches = weight == Weight::ALL && !self.is_active(&slot);
        let event = Event::Weigh {
            slot: slot.clone(),
            weight,
            by,
            settings: settings(&self.world().app),
        };
        let state = self.asked(guard, event, switches).await?;
        Ok(self.shares(&state, &slot, switches))
    }

    /// Lets a slot take the place of the active one.
    ///
    /// # Errors
    /// Refused; nothing was changed.
    pub async fn swap(
        &self,
        from: SlotName,
        to: SlotName,
        by: String,
        guard: Guard,
    ) -> Result<api::Shares, AskError> {
        let switches = !self.is_active(&to);
        let event = Event::Swap {
            from,
            to: to.clone(),
            by,
            settings: settings(&self.world().app),
        };
        let state = self.asked(guard, event, switches).await?;
        Ok(self.shares(&state, &to, switches))
    }

    /// Ends the attempt under way; its candidate has nothing from here on.
    ///
    /// # Errors
    /// There is none, or it has switched.
    pub async fn abort(&self, by: String, guard: Guard) -> Result<api::Shares, AskError> {
        let state = self.asked(guard, Event::Abort { by }, false).await?;
        let aborted = state.outcome.as_ref();
        let slot = aborted.and_then(|outcome| outcome.slot.clone());
        let mut shares = match &slot {
            Some(slot) => self.shares(&state, slot, false),
            None => self.shares_of(&state, None, false),
        };
        if let Some(outcome) = aborted {
            shares.generation = outcome.generation.0;
            shares.text = match (&slot, &state.active) {
                (Some(slot), Some(active)) => format!(
                    "generation {} is aborted: {slot} gets no new requests, and stops when it has drained; {active} has {}",
                    outcome.generation,
                    state.rest()
                ),
                (Some(slot), None) => format!(
                    "generation {} is aborted: {slot} stops; no slot is active",
                    outcome.generation
                ),
                (None, _) => format!("generation {} is aborted", outcome.generation),
            };
        }
        Ok(shares)
    }

    /// Stops a slot, when it has drained; the active one only by force, and then every request is refused at once.
    ///
    /// # Errors
    /// Refused; nothing was changed.
    pub async fn halt(
        &self,
        slot: SlotName,
        force: bool,
        by: String,
        guard: Guard,
    ) -> Result<api::Shares, AskError> {
        let event = Event::Stop {
            slot: slot.clone(),
            force,
            by,
        };
        let state = self.asked(guard, event, false).await?;
        let mut shares = self.shares(&state, &slot, false);
        let found = state.slots.get(&slot);
        let condition = found.map_or("gone", |slot| slot.condition.name());
        shares.text = match (found.map(|slot| &slot.condition), &state.active) {
            (
                Some(
                    Condition::Warm { .. }
                    | Condition::Draining { .. }
                    | Condition::Stopping { .. },
                ),
                Some(_),
            ) => {
                format!("{slot} gets no new requests, and stops when it has drained")
            }
            (_, None) => {
                let again = found
                    .and_then(|slot| slot.release.as_ref())
                    .map(|id| format!("; `slotctl deploy --release {id}` brings it back"));
                format!(
                    "no slot is active: every request is refused with 503; {slot} is {condition}{}",
                    again.unwrap_or_default()
                )
            }
            (_, Some(_)) => format!("{slot} is {condition}: there is nothing to stop"),
        };
        Ok(shares)
    }

    fn is_active(&self, slot: &SlotName) -> bool {
        self.owner().state().borrow().active.as_ref() == Some(slot)
    }

    /// Asks, and waits until the routers have the table that follows, for a while. A switch is followed by its outcome instead.
    pub(super) async fn asked(
        &self,
        guard: Guard,
        event: Event,
        switches: bool,
    ) -> Result<Arc<State>, AskError> {
        let decided = self.owner().ask_if(guard, event).await?;
        if decided.everywhere || switches {
            return Ok(decided);
        }
        let mut state = self.owner().state();
        let known = state.wait_for(|state| state.everywhere || state.table > decided.table);
        // Whoever asks sees in the answer whether they have it.
        let known = match tokio::time::timeout(TELLING, known).await {
            Ok(Ok(known)) => Arc::clone(&known),
            Ok(Err(_)) | Err(_) => decided,
        };
        Ok(known)
    }

    fn shares(&self, state: &State, slot: &SlotName, switches: bool) -> api::Shares {
        self.shares_of(state, Some(slot), switches)
    }

    pub(super) fn shares_of(
        &self,
        state: &State,
        slot: Option<&SlotName>,
        switches: bool,
    ) -> api::Shares {
        let held = state.deployment.as_ref();
        let weights = state.slots.keys();
        let release = slot.and_then(|slot| state.slots.get(slot)?.release.as_ref());
        let text = match slot {
            Some(slot) if switches => format!("{slot} is to have all new requests"),
            Some(slot) => tell::share(state, slot),
            None => String::new(),
        };
        api::Shares {
            success: true,
            app: self.app().name.to_string(),
            generation: held.map_or(state.generation, |held| held.generation).0,
            slot: slot.map(ToString::to_string),
            release: release.map(ToString::to_string),
            weights: weights
                .map(|name| (name.to_string(), state.weight(name).get()))
                .collect(),
            switches,
            everywhere: state.everywhere,
            text,
        }
    }
}
