//! The look at the active slot once its soak is over, for as long as it is active.
//!
//! ```text
//!  a probe failed, the run ended ──► streak ──3──► told, once ──► (if it is to be left) a rollback to `prev`, by itself
//!  a probe passed ──────────────► streak = 0
//! ```
//!
//! **Invariant:** a streak is told once; a release is left by itself at most once per generation, whether in its soak or later.

use super::event::Probe;
use super::hook::Hook;
use super::mark::RolledBack;
use super::names::{Generation, SlotName};
use super::notice::Notice;
use super::policy::{FAILED_PROBES, Failing};
use super::state::{Cause, Deployment, Phase, State};
use super::step::Draft;

/// Who begins a rollback that nobody asked for.
const BY: &str = "slotd (after_soak)";

/// What is seen of the active slot since it was found in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookout {
    /// Failures in a row: probes, and ends of runs.
    pub streak: u8,
    /// With what the streak became one, once it has been told.
    pub failing: Option<Cause>,
    /// Of the switch that was taken back by itself, or was tried to be.
    pub left: Option<Generation>,
}

impl State {
    /// Whether a slot is the one that is looked at, up or not.
    #[must_use]
    pub fn is_on_lookout(&self, name: &SlotName) -> bool {
        let shifts = matches!(
            self.deployment.as_ref().map(|held| &held.phase),
            Some(Phase::Shifting { .. })
        );
        self.active.as_ref() == Some(name)
            && self.settings.after.failing != Failing::Unseen
            && self.watch.is_none()
            && !shifts
    }
}

impl Draft {
    /// A probe of the active slot that no soak is about.
    pub(super) fn lookout_probe(&mut self, name: &SlotName, probe: Probe) {
        if !probe.pass {
            self.fails(name, 1, Cause::ProbesFailed(probe));
            return;
        }
        self.state.lookout.streak = 0;
        if self.state.lookout.failing.take().is_some() {
            self.tell(Notice::Up { slot: name.clone() });
        }
    }

    /// The active slot failed so many times more.
    pub(super) fn fails(&mut self, name: &SlotName, times: u8, cause: Cause) {
        if !self.state.is_on_lookout(name) {
            return;
        }
        let lookout = &mut self.state.lookout;
        lookout.streak = lookout.streak.saturating_add(times).min(FAILED_PROBES);
        if lookout.streak < FAILED_PROBES || lookout.failing.is_some() {
            return;
        }
        lookout.failing = Some(cause.clone());
        let generation = self.state.routed;
        let back = self.state.rolled_back.as_ref();
        let once = back.is_some_and(|back| back.generation == generation)
            || self.state.lookout.left == Some(generation);
        let is_left = self.state.settings.after.failing == Failing::Left && !once;
        let place = self.notices.len();
        let left = is_left.then(|| self.leave(generation, cause.clone()));
        let to = left.map(|left| left.map_err(|refusal| refusal.to_string()));
        // It is told first that it fails, and then what is done about it.
        let notice = Notice::Failing {
            generation,
            slot: name.clone(),
            cause,
            to,
        };
        self.notices.insert(place, notice);
    }

    /// A rollback that nobody asked for; it marks what it leaves, once it has switched. What it goes to, or why it does not.
    fn leave(
        &mut self,
        generation: Generation,
        cause: Cause,
    ) -> Result<super::ReleaseId, super::Refusal> {
        // Somebody has asked for one, and that takes its place.
        if let Some(super::Refusal::UnderWay { release, .. }) = self.joined(None) {
            return Ok(release);
        }
        let settings = self.state.settings.clone();
        let to = self.rollback_target(None)?;
        self.rollback(None, BY.to_owned(), settings)?;
        self.state.lookout.left = Some(generation);
        if let Some(held) = &mut self.state.deployment {
            held.because = Some(cause);
        }
        Ok(to)
    }

    /// A rollback has switched that nobody asked for.
    pub(super) fn left_by_itself(&mut self, held: &Deployment) -> Option<Cause> {
        let Phase::Shifting {
            slot,
            from: Some(from),
            left,
        } = &held.phase
        else {
            return None;
        };
        let cause = held.because.clone()?;
        let back = RolledBack {
            generation: self.state.lookout.left?,
            from: from.clone(),
            left: left.clone(),
            to: slot.clone(),
            release: self.state.live().cloned(),
            cause: cause.clone(),
            at: self.now,
            reached: self.state.reached.clone(),
        };
        self.mark(&back);
        self.state.rolled_back = Some(back.clone());
        self.tell(Notice::RolledBack(back));
        Some(cause)
    }

    /// The active slot is another, or is started anew: nothing is held against it.
    pub(super) fn look_anew(&mut self) {
        self.state.lookout.streak = 0;
        self.state.lookout.failing = None;
    }

    /// The hook after a rollback, with its cause.
    pub(super) fn due_after_leaving(&mut self, held: &Deployment, cause: &Cause) {
        let left = match &held.phase {
            Phase::Shifting { left, .. } => left.clone(),
            _ => None,
        };
        self.due(Hook::AfterRollback, held.generation, left, cause.code());
    }
}
