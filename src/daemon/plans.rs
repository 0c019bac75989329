//! Plans as users see them: the step, what both slots answered, and what the verdict waits for; and what people may ask of one.

use super::app::Managed;
use super::live::Live;
use super::owner::AskError;
use super::tell;
use super::units::Units;
use super::world::World;
use crate::deploy::{
    Deployment, Event, Guard, Measured, Quantile, Sample, Sides, State, Verdict, judge, plan,
    step_ends,
};
use crate::wire::api;

impl<U: Units> Managed<U> {
    /// Has the plan under way stand still, or go on.
    ///
    /// # Errors
    /// There is none that could.
    pub async fn pause(&self, paused: bool, guard: Guard) -> Result<api::Shares, AskError> {
        let state = self.asked(guard, Event::Pause { paused }, false).await?;
        let slot = state.on_trial().cloned();
        let mut shares = self.shares_of(&state, slot.as_ref(), false);
        if let Some(plan) =
            (state.deployment.as_ref()).and_then(|held| self.world().plan(held, &state))
        {
            shares.text = match plan.paused {
                true => format!(
                    "the plan stands still at step {} of {}, {}%; `slotctl resume` lets it go on",
                    plan.step, plan.steps, plan.weight
                ),
                false => format!(
                    "the plan goes on with step {} of {}, {}%: {}",
                    plan.step, plan.steps, plan.weight, plan.text
                ),
            };
        }
        Ok(shares)
    }
}

impl<U: Units> Live<U> {
    /// The plan of a deployment, if it goes by one.
    pub(super) fn plan(&self, held: &Deployment, state: &State) -> Option<api::PlanStatus> {
        let (canary, plan, slot) = plan(held)?;
        let evidence = self.evidence(held.generation, Measured::Step(plan.step));
        let verdict = evidence.as_ref().map(|it| judge(&canary.checks, it));
        let Sides { candidate, live } = evidence.map(|it| it.whole).unwrap_or_default();
        let until = step_ends(canary, plan);
        let left = until.map(|until| until.since(self.now()));
        let left = left.filter(|left| !left.is_zero());
        let lack = match &verdict {
            // It goes on without.
            Some(Verdict::Hold(lack)) if canary.advances(lack) => None,
            Some(Verdict::Hold(lack)) => Some(lack.to_string()),
            Some(Verdict::Pass | Verdict::Fail(_)) => None,
            None => Some("what the routers count".to_owned()),
        };
        let text = match (plan.finished, plan.paused, left, lack) {
            (true, ..) => "somebody to say how to go on: every step has passed; `slotctl promote` or `slotctl abort`".to_owned(),
            (_, Some(_), ..) => "`slotctl resume`: the plan stands still".to_owned(),
            (_, _, Some(left), None) => format!("{} more; nothing speaks against it so far", tell::span(left)),
            (_, _, Some(left), Some(lack)) => format!("{} more, and {lack}", tell::span(left)),
            (_, _, None, Some(lack)) => lack,
            (_, _, None, None) => "its check to end, and the next count".to_owned(),
        };
        Some(api::PlanStatus {
            step: plan.step + 1,
            steps: canary.steps.len(),
            weight: state.weight(slot).get(),
            since_ms: plan.since.0,
            until_ms: until.map(|until| until.0),
            paused: plan.paused.is_some(),
            finished: plan.finished,
            verdict: verdict.map(|verdict| {
                let word = match verdict {
                    Verdict::Pass => "pass",
                    Verdict::Fail(_) => "fail",
                    Verdict::Hold(_) => "hold",
                };
                word.to_owned()
            }),
            candidate: figures(&candidate),
            live: figures(&live),
            text,
        })
    }
}

fn figures(sample: &Sample) -> api::Figures {
    let micros = |quantile| {
        let found = sample.latencies.get(&quantile)?;
        Some(u64::try_from(found.as_micros()).unwrap_or(u64::MAX))
    };
    api::Figures {
        requests: sample.requests,
        errors: sample.errors,
        given_up: sample.given_up,
        p50_us: micros(Quantile::P50),
        p95_us: micros(Quantile::P95),
        p99_us: micros(Quantile::P99),
    }
}
