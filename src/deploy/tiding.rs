//! Notices that somebody elsewhere is to be told, until it is written down for him.
//!
//! **Invariant:** a notice of a topic that is told elsewhere is on disk with the state that made it, and stays until it is posted: a kill
//! between the two does not lose it. One that is posted twice has the same number.
//! **Invariant:** numbers grow, and none is given twice, even where the state was lost in between: they are never behind the clock.

use std::cmp::Ordering;

use super::effect::Effect;
use super::names::{Generation, ReleaseId, SlotName, Time};
use super::notice::Notice;
use super::state::State;
use super::step::Draft;

/// How many may wait to be posted. More than that come only while the disk is full.
const MOST_UNTOLD: usize = 64;

/// What somebody elsewhere can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// [`Notice::Began`].
    Began,
    /// [`Notice::Ended`].
    Ended,
    /// [`Notice::Soak`].
    Soak,
    /// [`Notice::RolledBack`].
    RolledBack,
    /// [`Notice::Returned`].
    Returned,
    /// [`Notice::Failing`].
    Failing,
    /// [`Notice::Weighed`].
    Weighed,
    /// [`Notice::Holds`].
    Holds,
    /// [`Notice::Down`].
    Down,
    /// [`Notice::Up`].
    Up,
    /// [`Notice::Hooked`].
    Hook,
}

impl Topic {
    /// Each, with its name in the app's file and in events.
    pub const ALL: [(&'static str, Self); 11] = [
        ("began", Self::Began),
        ("ended", Self::Ended),
        ("soak", Self::Soak),
        ("rolled-back", Self::RolledBack),
        ("returned", Self::Returned),
        ("failing", Self::Failing),
        ("weighed", Self::Weighed),
        ("holds", Self::Holds),
        ("down", Self::Down),
        ("up", Self::Up),
        ("hook", Self::Hook),
    ];

    /// What a person wants to hear of who did not say.
    pub const USUAL: [Self; 6] = [
        Self::Ended,
        Self::Soak,
        Self::RolledBack,
        Self::Failing,
        Self::Holds,
        Self::Down,
    ];

    /// The topic's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        let own = all.find(|(_, topic)| *topic == self);
        own.map_or("", |(name, _)| name)
    }
}

/// A notice that is to be told elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiding {
    /// Names it: larger than that of every one before.
    pub number: u64,
    /// When it was.
    pub at: Time,
    /// The attempt that it is about, or the last one then.
    pub generation: Generation,
    /// The release of the slot that it is about, which may have another when it is posted.
    pub release: Option<ReleaseId>,
    /// What there is to tell.
    pub notice: Notice,
}

/// By its number, of which there is one.
impl Ord for Tiding {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl PartialOrd for Tiding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Notice {
    /// What it is told under, if anybody elsewhere can be told of it.
    #[must_use]
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Self::Began { .. } => Some(Topic::Began),
            Self::Ended(_) => Some(Topic::Ended),
            Self::Soak { .. } => Some(Topic::Soak),
            Self::RolledBack(_) => Some(Topic::RolledBack),
            Self::Returned(_) => Some(Topic::Returned),
            Self::Failing { .. } => Some(Topic::Failing),
            Self::Weighed { .. } => Some(Topic::Weighed),
            Self::Holds { .. } => Some(Topic::Holds),
            Self::Down { .. } => Some(Topic::Down),
            Self::Up { .. } => Some(Topic::Up),
            Self::Hooked { .. } => Some(Topic::Hook),
            Self::Phase { .. }
            | Self::Draining { .. }
            | Self::Forced { .. }
            | Self::Stopped { .. }
            | Self::StandsBy { .. } => None,
        }
    }

    /// The attempt that it names.
    fn generation(&self) -> Option<Generation> {
        match self {
            Self::Began { generation, .. }
            | Self::Phase { generation, .. }
            | Self::Holds { generation, .. }
            | Self::Failing { generation, .. }
            | Self::Soak { generation, .. } => Some(*generation),
            Self::Ended(outcome) => Some(outcome.generation),
            Self::RolledBack(back) | Self::Returned(back) => Some(back.generation),
            Self::Hooked { occasion, .. } => Some(occasion.generation),
            Self::Weighed { .. }
            | Self::Draining { .. }
            | Self::Forced { .. }
            | Self::Stopped { .. }
            | Self::Down { .. }
            | Self::Up { .. }
            | Self::StandsBy { .. } => None,
        }
    }

    /// The slot whose release it does not name.
    fn slot(&self) -> Option<&SlotName> {
        match self {
            Self::Soak { slot, .. }
            | Self::Failing { slot, .. }
            | Self::Weighed { slot, .. }
            | Self::Draining { slot, .. }
            | Self::Forced { slot }
            | Self::Stopped { slot, .. }
            | Self::Down { slot, .. }
            | Self::Up { slot }
            | Self::StandsBy { slot } => Some(slot),
            Self::Began { .. }
            | Self::Phase { .. }
            | Self::Holds { .. }
            | Self::Ended(_)
            | Self::RolledBack(_)
            | Self::Returned(_)
            | Self::Hooked { .. } => None,
        }
    }
}

/// What is to be posted now: one at a time, so that they come in order.
pub(super) fn tiding_effect(state: &State) -> Option<Effect> {
    state.untold.first().cloned().map(Effect::Post)
}

impl Draft {
    /// Keeps of what there is to tell what somebody elsewhere is to be told.
    pub(super) fn keep_tidings(&mut self) {
        for notice in &self.notices {
            let topic = notice.topic();
            if !topic.is_some_and(|topic| self.state.topics.contains(&topic)) {
                continue;
            }
            if self.state.untold.len() == MOST_UNTOLD {
                self.state.untold.remove(0);
            }
            self.state.told = self.now.0.max(self.state.told + 1);
            let slot = notice.slot().and_then(|slot| self.state.slots.get(slot));
            self.state.untold.push(Tiding {
                number: self.state.told,
                at: self.now,
                generation: notice.generation().unwrap_or(self.state.generation),
                release: slot.and_then(|slot| slot.release.clone()),
                notice: notice.clone(),
            });
        }
    }

    /// One is written down for whoever is told.
    pub(super) fn posted(&mut self, number: u64) {
        self.state.untold.retain(|tiding| tiding.number != number);
    }
}
