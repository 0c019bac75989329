//! One event in, the next state out.
//!
//! **Invariant:** `step` is a function of its arguments: no clock, no I/O, no randomness. A stale event (of another generation or
//! run than the state knows) leaves the state equal to what it was.

use std::collections::BTreeSet;

use super::event::Event;
use super::guard::guarded;
use super::hook::Stage;
use super::names::{SlotName, Time, Weight};
use super::notice::Notice;
use super::plan::verdict_due;
use super::refusal::Refusal;
use super::state::{Cause, Condition, Phase, Service, State};

/// What an event makes of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be committed before anything is performed; equal to the old one if the event changed nothing.
    pub state: State,
    /// To be told once it is committed.
    pub notices: Vec<Notice>,
}

/// Decides.
///
/// # Errors
/// A [`Refusal`] for what somebody asked at the wrong time; the state stays as it is.
pub fn step(state: &State, event: Event, now: Time) -> Result<Step, Refusal> {
    let mut draft = Draft::of(state, now);
    match event {
        Event::Begin(request) => draft.begin(request)?,
        Event::Prepared {
            generation,
            release,
        } => draft.prepared(generation, release),
        Event::Unprepared { generation, why } => {
            draft.unprepared(generation, Cause::Unprepared(why));
        }
        Event::Barred {
            generation,
            release,
        } => draft.barred(generation, &release),
        Event::Unbuilt {
            generation,
            failure,
        } => draft.unprepared(generation, Cause::Unbuilt(failure)),
        Event::Rollback { to, by, settings } => draft.rollback(to, by, settings)?,
        Event::Promote { slot, by, settings } => draft.promote(slot, by, settings)?,
        Event::Weigh {
            slot,
            weight,
            by,
            settings,
        } => draft.weigh(slot, weight, by, settings)?,
        Event::Swap {
            from,
            to,
            by,
            settings,
        } => draft.swap(&from, to, by, settings)?,
        Event::Abort { by } => draft.abort(by)?,
        Event::Stop { slot, force, by } => draft.stop_asked(&slot, force, by)?,
        Event::DrainNow { slot } => draft.drain_now(&slot)?,
        Event::Started {
            slot,
            generation,
            boot,
        } => draft.started(&slot, generation, boot),
        Event::StartFailed {
            slot,
            generation,
            failure,
        } => draft.start_failed(&slot, generation, failure),
        Event::Routed { table } => draft.routed(table),
        Event::Reached { table, probe } => draft.reached(table, probe),
        Event::Unrouted { table, why } => draft.unrouted(table, why),
        Event::Drained { slot, boot } => draft.drained(&slot, boot.as_ref()),
        Event::Overdue { slot, boot } => draft.overdue(&slot, boot.as_ref()),
        Event::Stopped { slot, killed } => draft.stopped(&slot, killed),
        Event::Probed { slot, boot, probe } => draft.probed(&slot, &boot, probe),
        Event::Appeared {
            slot,
            boot,
            release,
            settings,
        } => draft.appeared(&slot, boot, release, settings),
        Event::Vanished { slot, boot, end } => draft.vanished(&slot, &boot, end),
        Event::Hooked {
            hook,
            generation,
            failure,
        } => draft.hooked(hook, generation, failure),
        Event::Measured {
            of,
            generation,
            evidence,
        } => draft.measured(of, generation, &evidence),
        Event::Pause { paused } => draft.pause(paused)?,
        Event::Posted { number } => draft.posted(number),
        Event::Guarded { guard, event } => return guarded(state, guard, *event, now),
        Event::Whole {
            generation,
            payload,
        } => draft.state.came_whole(generation, payload),
        Event::Tick => draft.tick(),
    }
    Ok(draft.finish())
}

impl State {
    /// When time alone will change something: the next moment for [`Event::Tick`](super::Event::Tick).
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let deployment = self
            .deployment
            .as_ref()
            .filter(|held| held.before_switch != Stage::Runs)
            .and_then(|deployment| match &deployment.phase {
                Phase::Waiting { until, .. }
                | Phase::Starting { until, .. }
                | Phase::Ready { until, .. } => Some(*until),
                Phase::Trial { .. } => verdict_due(deployment),
                Phase::Preparing { .. } | Phase::Shifting { .. } => None,
            });
        let soak = self.soak();
        let watch = soak.map(|watch| watch.comes_by.map_or(watch.until, |by| by.min(watch.until)));
        let kept = self.kept.as_ref().map(|kept| kept.until);
        let migration = self.migration.as_ref().map(|it| it.until);
        let slots = self
            .slots
            .iter()
            .filter_map(|(name, slot)| match &slot.condition {
                Condition::Draining { .. } if self.lingering.contains(name) => None,
                Condition::Draining { until, .. } => until.last(),
                Condition::Active(Service::Booting { until }) => Some(*until),
                Condition::Active(Service::Down { retry, .. }) => *retry,
                Condition::Idle
                | Condition::Starting
                | Condition::Ready
                | Condition::Standby { .. }
                | Condition::Trial { .. }
                | Condition::Active(Service::Up | Service::ByHand)
                | Condition::Warm { .. }
                | Condition::Stopping { .. }
                | Condition::Failed(_) => None,
            });
        (slots
            .chain(deployment)
            .chain(watch)
            .chain(kept)
            .chain(migration))
        .min()
    }
}

/// A state that is being changed.
pub(super) struct Draft {
    pub(super) state: State,
    pub(super) notices: Vec<Notice>,
    pub(super) now: Time,
    /// Who had what before.
    shares: Shares,
    /// The old slot that kept a share before.
    pub(super) kept_share: Option<SlotName>,
    /// The stops that a rollback under way has its time for.
    pub(super) waited_for: BTreeSet<SlotName>,
}

/// The active slot, and the others that have something.
type Shares = (Option<SlotName>, Vec<(SlotName, Weight)>);

fn shares(state: &State) -> Shares {
    let given = state.given().map(|(name, weight)| (name.clone(), weight));
    (state.active.clone(), given.collect())
}

impl Draft {
    pub(super) fn of(state: &State, now: Time) -> Self {
        let mut draft = Self {
            state: state.clone(),
            notices: Vec::new(),
            now,
            shares: shares(state),
            kept_share: state.migrating().map(|it| it.slot.clone()),
            waited_for: BTreeSet::new(),
        };
        draft.waited_for = draft.stops();
        draft
    }

    /// The routers are to be told whenever somebody has another share than before.
    pub(super) fn finish(mut self) -> Step {
        self.wait_for_stops();
        self.state.keep_outcome();
        self.keep_tidings();
        self.forget_migration();
        if shares(&self.state) != self.shares {
            self.state.table += 1;
            self.state.everywhere = false;
        }
        Step {
            state: self.state,
            notices: self.notices,
        }
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Changes what a slot is for; a slot that the state does not know is left unknown.
    pub(super) fn set(&mut self, name: &SlotName, condition: Condition) {
        if let Some(slot) = self.state.slots.get_mut(name) {
            slot.condition = condition;
        }
    }

    /// Every deadline that has passed.
    fn tick(&mut self) {
        let now = self.now;
        let names: Vec<SlotName> = self.state.slots.keys().cloned().collect();
        for name in names {
            match self.state.slots[&name].condition.clone() {
                Condition::Draining { .. } if self.state.lingering.contains(&name) => {}
                Condition::Draining { until, .. }
                    if until.last().is_some_and(|last| last <= now) =>
                {
                    self.force(&name);
                }
                Condition::Active(Service::Booting { until }) if until <= now => {
                    self.boot_timed_out(&name)
                }
                Condition::Active(Service::Down {
                    failure,
                    retry: Some(retry),
                }) if retry <= now => {
                    let retry = None;
                    self.set(&name, Condition::Active(Service::Down { failure, retry }));
                }
                Condition::Draining { .. }
                | Condition::Active(_)
                | Condition::Idle
                | Condition::Starting
                | Condition::Ready
                | Condition::Standby { .. }
                | Condition::Trial { .. }
                | Condition::Warm { .. }
                | Condition::Stopping { .. }
                | Condition::Failed(_) => {}
            }
        }
        self.soak_waits_no_more();
        if self.state.soak().is_some_and(|watch| watch.until <= now) {
            self.soak_ends();
        }
        self.migrated_long_enough();
        self.kept_long_enough();
        self.wait_for_stops();
        match self
            .state
            .deployment
            .as_ref()
            .filter(|held| held.before_switch != Stage::Runs)
            .map(|deployment| &deployment.phase)
        {
            Some(Phase::Waiting { until, .. }) if *until <= now => {
                if !self.cut_for_rollback() {
                    self.no_idle_slot();
                }
            }
            Some(Phase::Starting { until, .. }) if *until <= now => self.fail(Cause::StartTimeout),
            Some(Phase::Ready { until, probe, .. }) if *until <= now => {
                let cause = Cause::HealthTimeout(probe.clone());
                self.fail(cause);
            }
            Some(
                Phase::Preparing { .. }
                | Phase::Waiting { .. }
                | Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Trial { .. }
                | Phase::Shifting { .. },
            )
            | None => {}
        }
        let due = self.state.deployment.as_ref().and_then(verdict_due);
        if due.is_some_and(|due| due <= now) {
            self.step_unjudged();
        }
    }
}
