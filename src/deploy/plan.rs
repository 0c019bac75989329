//! A plan: the weights that a candidate is given one after the other, each for some time and until the verdict on it is a pass.
//!
//! ```text
//!  ready ─► step 1 ─ pass ─► step 2 ─ pass ─► … ─ pass ─► shifting (auto_promote), or it stays at the last weight
//!              └─ fail, or no verdict within max_hold ─► ∎ cause, the candidate drains
//! ```
//! Whoever measures says what both slots answered; what that means is decided here, so that the same evidence gives the same end in
//! every world.
//!
//! **Invariant:** a step is left for the next by a pass alone, or where the app's file says that a lack of requests is one.
//! **Invariant:** a plan that stands still fails all the same: a candidate that harms is taken back whatever it was told to wait for.

use std::time::Duration;

use super::hook::{Hook, Stage};
use super::names::{BootId, Generation, SlotName, Time, Weight};
use super::notice::Notice;
use super::refusal::Refusal;
use super::state::{Cause, Condition, Deployment, Phase, Service, State};
use super::step::Draft;
use super::verdict::{Checks, Evidence, Failed, Finding, Lack, Verdict, judge, worse};

/// What an app's file says about plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// One after the other; at least one.
    pub steps: Vec<CanaryStep>,
    /// After the last of them the candidate becomes active; else it stays there until somebody says so.
    pub auto_promote: bool,
    /// What a candidate is held to, in each.
    pub checks: Checks,
    /// For so long its first requests say nothing.
    pub warm_up: Duration,
    /// What follows where there are too few requests.
    pub quiet: Quiet,
    /// How long a step may last beyond its time without a verdict.
    pub max_hold: Duration,
}

impl Canary {
    /// Whether a lack of this is taken for a pass.
    #[must_use]
    pub fn advances(&self, lack: &Lack) -> bool {
        self.quiet == Quiet::Advance && lack.is_silence()
    }

    /// Whether a lack of this is made up for by requests of slot's own.
    #[must_use]
    pub fn probes(&self, lack: &Lack) -> bool {
        self.quiet == Quiet::Probe && lack.is_silence()
    }
}

/// A weight, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryStep {
    /// What the candidate has.
    pub weight: Weight,
    /// For how long at least.
    pub lasts: Duration,
}

/// What follows where a step's time is over and there are too few requests for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quiet {
    /// It waits for them.
    Hold,
    /// Paths that the app's file names are requested, of both slots, until there are enough.
    Probe,
    /// The next step: what has not failed is taken for good.
    Advance,
}

/// How far a deployment is with its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which step it is at, from 0.
    pub step: usize,
    /// Since when; later by as much as it was paused.
    pub since: Time,
    /// Since when it stands still, because somebody said so.
    pub paused: Option<Time>,
    /// The step's time is over, and there is no verdict.
    pub holds: bool,
    /// How far it is with the app's own check of this step.
    pub check: Stage,
    /// The last step has passed: the candidate stays there until somebody says how to go on.
    pub finished: bool,
}

impl Plan {
    /// At the beginning of a step.
    fn at(step: usize, since: Time) -> Self {
        Self {
            step,
            since,
            paused: None,
            holds: false,
            check: Stage::Ahead,
            finished: false,
        }
    }
}

/// What is measured, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measured {
    /// A step of a plan, from 0: both slots since it began.
    Step(usize),
    /// A soak: the new slot since the switch, the old one as long as it is known.
    Soak,
}

/// What is to be measured for a state to be true.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Measurement {
    /// For what.
    pub of: Measured,
    /// Of the attempt.
    pub generation: Generation,
    /// Since when the step or the soak goes on: one that begins anew is measured anew.
    pub since: Time,
    /// The slot that is new.
    pub slot: SlotName,
    /// Its run.
    pub boot: BootId,
    /// The slot that it is compared with.
    pub beside: SlotName,
}

/// The plan of a deployment, and where it is in it.
#[must_use]
pub fn plan(held: &Deployment) -> Option<(&Canary, &Plan, &SlotName)> {
    match &held.phase {
        Phase::Trial {
            slot,
            plan: Some(plan),
        } => Some((held.settings.canary.as_deref()?, plan, slot)),
        Phase::Trial { plan: None, .. }
        | Phase::Preparing { .. }
        | Phase::Waiting { .. }
        | Phase::Starting { .. }
        | Phase::Ready { .. }
        | Phase::Shifting { .. } => None,
    }
}

/// When a plan's step is over, if it passes; nothing for one that does not go on by itself.
#[must_use]
pub fn step_ends(canary: &Canary, plan: &Plan) -> Option<Time> {
    let step = canary.steps.get(plan.step)?;
    let stands = plan.paused.is_some() || plan.finished;
    (!stands).then(|| plan.since.after(step.lasts))
}

/// When a step has to have a verdict.
pub(super) fn verdict_due(held: &Deployment) -> Option<Time> {
    let (canary, plan, _) = plan(held)?;
    let ends = step_ends(canary, plan).filter(|_| plan.check != Stage::Runs)?;
    Some(ends.after(canary.max_hold))
}

/// What is to be measured.
pub(super) fn measurement(state: &State) -> Option<Measurement> {
    let of_plan = || {
        let held = state.deployment.as_ref()?;
        let (_, plan, slot) = plan(held)?;
        Some((
            Measured::Step(plan.step),
            held.generation,
            plan.since,
            slot,
            state.active.as_ref()?,
        ))
    };
    let of_soak = || {
        let watch = state.soak()?;
        state.settings.soak_error_rate?;
        Some((
            Measured::Soak,
            watch.generation,
            Time::default(),
            &watch.new,
            watch.old.as_ref()?,
        ))
    };
    let (of, generation, since, slot, beside) = of_plan().or_else(of_soak)?;
    Some(Measurement {
        of,
        generation,
        since,
        slot: slot.clone(),
        boot: state.slots.get(slot)?.boot.clone()?,
        beside: beside.clone(),
    })
}

impl Draft {
    /// Whether a candidate that passed its gates is to go by its app's plan. Where nothing serves there is nothing to compare it with, and
    /// requests that wait for it.
    pub(super) fn is_planned(&self) -> bool {
        let held = self.state.deployment.as_ref();
        let planned = held.is_some_and(|held| held.planned && held.settings.canary.is_some());
        let live = (self.state.active.as_ref()).and_then(|name| self.state.slots.get(name));
        planned && live.is_some_and(|slot| slot.condition == Condition::Active(Service::Up))
    }

    /// The candidate passed its gates, and begins with the first step.
    pub(super) fn follow_plan(&mut self, slot: &SlotName) {
        self.set(slot, Condition::trial(Weight::NONE));
        self.enter(Phase::Trial {
            slot: slot.clone(),
            plan: None,
        });
        self.take_step(0);
    }

    fn take_step(&mut self, step: usize) {
        let Some(held) = &mut self.state.deployment else {
            return;
        };
        let weight = (held.settings.canary.as_deref())
            .and_then(|canary| canary.steps.get(step))
            .map(|step| step.weight);
        let (Phase::Trial { slot, plan }, Some(weight)) = (&mut held.phase, weight) else {
            return;
        };
        let slot = slot.clone();
        *plan = Some(Plan::at(step, self.now));
        self.make_available(&slot, weight);
        // Others may have something too, and no plan takes it from them.
        let most = self.state.rest().with(self.state.weight(&slot));
        self.give(&slot, weight.min(most));
        self.tell_weight(&slot, None);
    }

    /// Somebody measured.
    pub(super) fn measured(&mut self, of: Measured, generation: Generation, evidence: &Evidence) {
        match of {
            Measured::Step(step) => self.step_measured(step, generation, evidence),
            Measured::Soak => self.soak_measured(generation, evidence),
        }
    }

    fn step_measured(&mut self, step: usize, generation: Generation, evidence: &Evidence) {
        let held = self.state.deployment.as_ref();
        let Some((canary, plan, _)) = held
            .filter(|held| held.generation == generation)
            .and_then(plan)
            .filter(|(_, plan, _)| plan.step == step)
        else {
            return;
        };
        let is_over = step_ends(canary, plan).is_some_and(|ends| ends <= self.now);
        let is_over = is_over && plan.check != Stage::Runs;
        match judge(&canary.checks, evidence) {
            Verdict::Fail(finding) => self.fail(Cause::Judged(finding)),
            Verdict::Pass if is_over => self.step_passed(),
            Verdict::Hold(lack) if is_over && canary.advances(&lack) => self.step_passed(),
            Verdict::Hold(lack) if is_over && !plan.holds => self.step_holds(lack),
            Verdict::Pass | Verdict::Hold(_) => {}
        }
    }

    fn step_holds(&mut self, lack: Lack) {
        let Some(plan) = self.state.plan_mut() else {
            return;
        };
        plan.holds = true;
        let step = plan.step;
        if let Some(generation) = self.state.deployment.as_ref().map(|held| held.generation) {
            self.tell(Notice::Holds {
                generation,
                step,
                lack,
            });
        }
    }

    /// The evidence is good. The app's own check comes after it, once for each step.
    fn step_passed(&mut self) {
        let Some(held) = &self.state.deployment else {
            return;
        };
        let checked = held.settings.hooks.contains(&Hook::Check);
        let Some((canary, plan, slot)) = plan(held) else {
            return;
        };
        let (next, auto, slot) = (plan.step + 1, canary.auto_promote, slot.clone());
        let ahead = checked && plan.check == Stage::Ahead;
        let last = next == canary.steps.len();
        match self.state.plan_mut() {
            Some(plan) if ahead => plan.check = Stage::Runs,
            Some(_) if !last => self.take_step(next),
            Some(_) if auto => self.shift(&slot),
            Some(plan) => {
                plan.finished = true;
                plan.holds = false;
                self.tell_weight(&slot, None);
            }
            None => {}
        }
    }

    /// The app's own check of a step ended.
    pub(super) fn checked(&mut self, generation: Generation, failed: Option<Cause>) {
        let held = self.state.deployment.as_ref();
        if held.is_none_or(|held| held.generation != generation) {
            return;
        }
        let Some(plan) = self.state.plan_mut().filter(|it| it.check == Stage::Runs) else {
            return;
        };
        match failed {
            // What was counted meanwhile would have ended it.
            None => {
                plan.check = Stage::Passed;
                if plan.paused.is_none() {
                    self.step_passed();
                }
            }
            Some(cause) => self.fail(cause),
        }
    }

    /// A step had its time, and more, and nothing was found that it could pass by.
    pub(super) fn step_unjudged(&mut self) {
        let Some((canary, plan, _)) = self.state.deployment.as_ref().and_then(plan) else {
            return;
        };
        let (number, all) = (plan.step + 1, canary.steps.len());
        let text = format!(
            "step {number} of {all} had no verdict within max_hold ({} s) after its time",
            canary.max_hold.as_secs()
        );
        self.fail(Cause::Judged(Finding {
            failed: Failed::MaxHold,
            text,
        }));
    }

    /// A deployer that was away has counted nothing: a step whose time is over has all of `max_hold` for its verdict.
    pub(super) fn plan_recovers(&mut self) {
        let held = self.state.deployment.as_ref();
        let lasts = held
            .and_then(plan)
            .filter(|(_, plan, _)| plan.paused.is_none())
            .and_then(|(canary, plan, _)| Some(canary.steps.get(plan.step)?.lasts));
        let now = self.now;
        if let (Some(lasts), Some(plan)) = (lasts, self.state.plan_mut()) {
            plan.since = plan.since.max(now.before(lasts));
        }
    }

    /// Somebody stops the clock of the plan, or lets it go on.
    pub(super) fn pause(&mut self, paused: bool) -> Result<(), Refusal> {
        let now = self.now;
        let held = self.state.deployment.as_ref();
        let Some((canary, plan, slot)) = held.and_then(plan) else {
            return Err(Refusal::NoPlan);
        };
        if plan.finished {
            return Err(Refusal::PlanFinished { slot: slot.clone() });
        }
        let wanted = canary.steps.get(plan.step).map(|step| step.weight);
        // Less than the step says is no other weight, where others have the rest.
        let own = self.state.weight(slot);
        let most = self.state.rest().with(own);
        let strayed = wanted.is_some_and(|wanted| own != wanted.min(most));
        let step = plan.step;
        let Some(plan) = self.state.plan_mut() else {
            return Err(Refusal::NoPlan);
        };
        match (plan.paused, paused) {
            (None, true) => plan.paused = Some(now),
            // Somebody gave it another weight meanwhile: the step begins anew.
            (Some(_), false) if strayed => self.take_step(step),
            (Some(since), false) => {
                plan.paused = None;
                plan.since = plan.since.after(now.since(since));
                if plan.check == Stage::Passed {
                    self.step_passed();
                }
            }
            (Some(_), true) | (None, false) => {}
        }
        Ok(())
    }

    /// Somebody gave the candidate a weight of their own: the plan waits until they let it go on.
    pub(super) fn strays(&mut self, name: &SlotName) {
        let now = self.now;
        if self.state.on_trial() == Some(name)
            && let Some(plan) = self.state.plan_mut()
        {
            plan.paused = plan.paused.or(Some(now)).filter(|_| !plan.finished);
        }
    }

    fn soak_measured(&mut self, generation: Generation, evidence: &Evidence) {
        let watched = self.state.soak().map(|watch| watch.generation);
        let most = (self.state.settings.soak_error_rate).filter(|_| watched == Some(generation));
        if let Some(finding) = most.and_then(|most| worse(most, evidence)) {
            self.watch_failed(Cause::Judged(finding));
        }
    }
}

impl State {
    fn plan_mut(&mut self) -> Option<&mut Plan> {
        match &mut self.deployment.as_mut()?.phase {
            Phase::Trial { plan, .. } => plan.as_mut(),
            Phase::Preparing { .. }
            | Phase::Waiting { .. }
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Shifting { .. } => None,
        }
    }
}
