//! Plans and verdicts, between the state and its record.

use std::collections::BTreeMap;
use std::time::Duration;

use super::convert::{ms, weight};
use super::{CanaryRecord, FailedRecord, LackRecord, PlanRecord, QuantileRecord, QuietRecord};
use crate::deploy::{
    Canary, CanaryStep, Checks, Failed, Lack, NameError, Plan, Quantile, Quiet, Rate, Ratio, Time,
};

impl From<&Canary> for CanaryRecord {
    fn from(canary: &Canary) -> Self {
        let Checks {
            min_requests,
            error_rate,
            error_ratio,
            latency,
            latency_ratio,
        } = &canary.checks;
        let micros = |span: &Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let steps = canary.steps.iter();
        Self {
            steps: steps
                .map(|step| (step.weight.get(), ms(step.lasts)))
                .collect(),
            auto_promote: canary.auto_promote,
            min_requests: *min_requests,
            error_rate: error_rate.map(|Rate(rate)| rate),
            error_ratio: error_ratio.map(|Ratio(ratio)| ratio),
            latency_us: latency
                .iter()
                .map(|(quantile, most)| ((*quantile).into(), micros(most)))
                .collect(),
            latency_ratio: latency_ratio
                .iter()
                .map(|(quantile, ratio)| ((*quantile).into(), ratio.0))
                .collect(),
            warm_up_ms: ms(canary.warm_up),
            quiet: canary.quiet.into(),
            max_hold_ms: ms(canary.max_hold),
        }
    }
}

impl CanaryRecord {
    pub(super) fn into_canary(self) -> Result<Canary, NameError> {
        let step = |(percent, lasts): (u8, u64)| {
            Ok(CanaryStep {
                weight: weight(percent)?,
                lasts: Duration::from_millis(lasts),
            })
        };
        let latency = self.latency_us.into_iter();
        let ratios = self.latency_ratio.into_iter();
        Ok(Canary {
            steps: self
                .steps
                .into_iter()
                .map(step)
                .collect::<Result<_, NameError>>()?,
            auto_promote: self.auto_promote,
            checks: Checks {
                min_requests: self.min_requests,
                error_rate: self.error_rate.map(Rate),
                error_ratio: self.error_ratio.map(Ratio),
                latency: latency
                    .map(|(quantile, most)| (quantile.into(), Duration::from_micros(most)))
                    .collect::<BTreeMap<_, _>>(),
                latency_ratio: ratios
                    .map(|(quantile, ratio)| (quantile.into(), Ratio(ratio)))
                    .collect(),
            },
            warm_up: Duration::from_millis(self.warm_up_ms),
            quiet: self.quiet.into(),
            max_hold: Duration::from_millis(self.max_hold_ms),
        })
    }
}

impl From<&Plan> for PlanRecord {
    fn from(plan: &Plan) -> Self {
        Self {
            step: plan.step,
            since: plan.since.0,
            paused: plan.paused.map(|at| at.0),
            holds: plan.holds,
            check: plan.check.into(),
            finished: plan.finished,
        }
    }
}

impl From<PlanRecord> for Plan {
    fn from(plan: PlanRecord) -> Self {
        Self {
            step: plan.step,
            since: Time(plan.since),
            paused: plan.paused.map(Time),
            holds: plan.holds,
            check: plan.check.into(),
            finished: plan.finished,
        }
    }
}

impl From<&Lack> for LackRecord {
    fn from(lack: &Lack) -> Self {
        let (live, quantile, has, needs, given_up) = match lack {
            Lack::Requests { live, has, needs } => (*live, None, *has, *needs, None),
            Lack::Latencies {
                live,
                quantile,
                has,
                needs,
            } => (*live, Some((*quantile).into()), *has, *needs, None),
            Lack::Patience { given_up, of } => (false, None, *of, *of, Some(*given_up)),
        };
        Self {
            live,
            quantile,
            has,
            needs,
            given_up,
        }
    }
}

impl From<LackRecord> for Lack {
    fn from(lack: LackRecord) -> Self {
        let LackRecord {
            live,
            quantile,
            has,
            needs,
            given_up,
        } = lack;
        match (given_up, quantile) {
            (Some(given_up), _) => Self::Patience { given_up, of: has },
            (None, None) => Self::Requests { live, has, needs },
            (None, Some(quantile)) => Self::Latencies {
                live,
                quantile: quantile.into(),
                has,
                needs,
            },
        }
    }
}

/// Two enums of the same words, in both directions.
macro_rules! words {
    ($one:ident, $record:ident: $($word:ident),+) => {
        impl From<$one> for $record {
            fn from(word: $one) -> Self {
                match word {
                    $($one::$word => Self::$word,)+
                }
            }
        }

        impl From<$record> for $one {
            fn from(word: $record) -> Self {
                match word {
                    $($record::$word => Self::$word,)+
                }
            }
        }
    };
}

words!(Quantile, QuantileRecord: P50, P95, P99);
words!(Quiet, QuietRecord: Hold, Probe, Advance);
words!(Failed, FailedRecord: ErrorRate, ErrorRatio, Latency, LatencyRatio, MaxHold);
