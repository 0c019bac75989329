//! Commands of the app's that run around a switch.
//!
//! ```text
//!  preparing ─ before_deploy ─► starting ─► ready ─ before_switch ─► ready ─► shifting ─► ∎ switched ─ after_switch
//!                                                                               rolled back ─ after_rollback
//! ```
//! `before_deploy` is a step of preparing, and is done when the release is reported as prepared. The others are demanded by the state.
//!
//! **Invariant:** one that goes before something ends the deployment when it fails; one that comes after it changes nothing.
//! **Invariant:** no rollback, and no slot that takes the place of one that is down, waits for a hook.
//! **Invariant:** one that is due is on disk until it has ended; a deployer that was killed runs it again.

use super::effect::Effect;
use super::event::UnitFailure;
use super::names::{Generation, ReleaseId, SlotName};
use super::notice::Notice;
use super::plan::plan;
use super::state::{Cause, Kind, Phase, State};
use super::step::Draft;

/// How many hooks may wait for their turn; more than that have come only where each runs for long.
const MOST_DUE: usize = 8;

/// When a command of the app's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// The release is on disk; nothing of it was started.
    BeforeDeploy,
    /// The candidate has passed its gates; no request was sent to it.
    BeforeSwitch,
    /// The release serves.
    AfterSwitch,
    /// An earlier release serves again.
    AfterRollback,
    /// What a plan's step found is good: `check` of `[canary]` has the last word on it.
    Check,
}

impl Hook {
    /// Those around a switch, in order.
    pub const AROUND: [Self; 4] = [
        Self::BeforeDeploy,
        Self::BeforeSwitch,
        Self::AfterSwitch,
        Self::AfterRollback,
    ];

    /// The hook's name in the app's file, status, events and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeDeploy => "before_deploy",
            Self::BeforeSwitch => "before_switch",
            Self::AfterSwitch => "after_switch",
            Self::AfterRollback => "after_rollback",
            Self::Check => "check",
        }
    }
}

/// What a hook is told of why it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occasion {
    /// Which hook.
    pub hook: Hook,
    /// Of the attempt.
    pub generation: Generation,
    /// The candidate, or the slot that is active now.
    pub slot: Option<SlotName>,
    /// Its release.
    pub release: Option<ReleaseId>,
    /// The release that is live before, or was.
    pub previous: Option<ReleaseId>,
    /// `deploy`, `promote`, `by-hand`, `rollback`; of a rollback that nobody asked for, its cause.
    pub cause: String,
}

/// How far a deployment is with a hook that it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not run, if there is one.
    #[default]
    Ahead,
    /// It runs; the time in which something else has to come stands still.
    Runs,
    /// It has passed.
    Passed,
}

/// The word for a kind of attempt, where it is why a hook runs.
fn cause_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Deploy => "deploy",
        Kind::Rollback => "rollback",
        Kind::ByHand => "by-hand",
        Kind::Promote => "promote",
    }
}

/// The hook that is to be running.
pub(super) fn hook_effect(state: &State) -> impl Iterator<Item = Effect> {
    let runs = |held: &super::Deployment| {
        let checked = plan(held).is_some_and(|(_, plan, _)| plan.check == Stage::Runs);
        let check = checked.then_some(Hook::Check);
        check.or((held.before_switch == Stage::Runs).then_some(Hook::BeforeSwitch))
    };
    let before = state.deployment.as_ref().and_then(|held| {
        let hook = runs(held)?;
        let slot = held.phase.slot().cloned();
        Some(Occasion {
            hook,
            generation: held.generation,
            release: slot
                .as_ref()
                .and_then(|slot| state.slots.get(slot)?.release.clone()),
            slot,
            previous: state.live().cloned(),
            cause: cause_of(held.kind).to_owned(),
        })
    });
    let due = state.due.first().cloned();
    before.into_iter().chain(due).map(Effect::Hook)
}

impl Draft {
    /// Whether the candidate, which has passed its gates, waits for its `before_switch`.
    pub(super) fn waits_for_hook(&mut self) -> bool {
        let Some(held) = &mut self.state.deployment else {
            return false;
        };
        let asked = match held.kind {
            Kind::Deploy | Kind::Promote => held.settings.hooks.contains(&Hook::BeforeSwitch),
            Kind::Rollback | Kind::ByHand => false,
        };
        if asked && held.before_switch == Stage::Ahead {
            held.before_switch = Stage::Runs;
        }
        held.before_switch == Stage::Runs
    }

    /// Something has switched, or was rolled back: the hook for that is due, if there is one.
    pub(super) fn due(
        &mut self,
        hook: Hook,
        generation: Generation,
        previous: Option<ReleaseId>,
        cause: &str,
    ) {
        if !self.state.settings.hooks.contains(&hook) {
            return;
        }
        if self.state.due.len() == MOST_DUE {
            // The first one may be running.
            self.state.due.remove(1);
        }
        self.state.due.push(Occasion {
            hook,
            generation,
            slot: self.state.active.clone(),
            release: self.state.live().cloned(),
            previous,
            cause: cause.to_owned(),
        });
    }

    pub(super) fn due_after(
        &mut self,
        kind: Kind,
        generation: Generation,
        left: Option<ReleaseId>,
    ) {
        let hook = match kind {
            Kind::Rollback => Hook::AfterRollback,
            Kind::Deploy | Kind::ByHand | Kind::Promote => Hook::AfterSwitch,
        };
        self.due(hook, generation, left, cause_of(kind));
    }

    /// A hook ended; well, if there is no failure.
    pub(super) fn hooked(
        &mut self,
        hook: Hook,
        generation: Generation,
        failure: Option<UnitFailure>,
    ) {
        match (hook, failure) {
            (Hook::BeforeDeploy, Some(failure)) => {
                self.unprepared(generation, Cause::Unhooked(hook, failure));
            }
            (Hook::BeforeDeploy, None) => {}
            (Hook::BeforeSwitch, failure) => self.before_switch_ended(generation, failure),
            (Hook::Check, failure) => {
                self.checked(generation, failure.map(|it| Cause::Unhooked(hook, it)));
            }
            (Hook::AfterSwitch | Hook::AfterRollback, failure) => {
                let first = self.state.due.first();
                if first.is_some_and(|it| (it.hook, it.generation) == (hook, generation)) {
                    let occasion = self.state.due.remove(0);
                    self.tell(Notice::Hooked { occasion, failure });
                }
            }
        }
    }

    /// It may have taken long: the candidate gets its requests once it is found healthy again.
    fn before_switch_ended(&mut self, generation: Generation, failure: Option<UnitFailure>) {
        let now = self.now;
        let Some(held) = (self.state.deployment.as_mut())
            .filter(|it| it.generation == generation && it.before_switch == Stage::Runs)
        else {
            return;
        };
        if let Some(failure) = failure {
            self.fail(Cause::Unhooked(Hook::BeforeSwitch, failure));
            return;
        }
        held.before_switch = Stage::Passed;
        let health_timeout = held.settings.health_timeout;
        if let Phase::Ready { until, .. } = &mut held.phase {
            *until = now.after(health_timeout);
        }
    }
}
