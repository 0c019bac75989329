//! Verdicts on a candidate: from what two slots answered in the same time to pass, fail or hold.
//!
//! **Invariant:** silence is never a pass: where a check has too little to go by, the verdict is to hold.
//! **Invariant:** whole numbers throughout, so that the same counts give the same verdict wherever they are judged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Two latencies that differ by less are alike, whatever their ratio: 1 ms beside 0.2 ms is nobody's trouble.
pub const ALIKE: Duration = Duration::from_millis(5);

/// A part of a whole, in hundredths of a per cent: 500 is 5 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u32);

impl Rate {
    /// All of it.
    pub const ALL: u32 = 10_000;

    /// How many of so many it is, rounded down.
    fn of(self, count: u64) -> u64 {
        let part = u128::from(self.0) * u128::from(count) / u128::from(Self::ALL);
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", Hundredths(self.0))
    }
}

/// How many times as much, in hundredths: 150 is 1.5 times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(pub u32);

impl Ratio {
    /// So many times a span.
    fn times(self, span: Duration) -> Duration {
        span.saturating_mul(self.0) / 100
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hundredths(self.0).fmt(f)
    }
}

/// `5`, `0.5`, `1.25`.
struct Hundredths(u32);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}"),
            tens if tens % 10 == 0 => write!(f, "{whole}.{}", tens / 10),
            _ => write!(f, "{whole}.{rest:02}"),
        }
    }
}

/// A latency that so many in a hundred requests stay below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantile {
    /// Half of them.
    P50,
    /// 95 in 100.
    P95,
    /// 99 in 100.
    P99,
}

impl Quantile {
    /// Each, in order.
    pub const ALL: [Self; 3] = [Self::P50, Self::P95, Self::P99];

    /// `p50`, `p95`, `p99`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }

    /// How many in a hundred.
    #[must_use]
    pub fn percent(self) -> u8 {
        match self {
            Self::P50 => 50,
            Self::P95 => 95,
            Self::P99 => 99,
        }
    }

    /// How many latencies it takes to tell: ten above it, `10 / (1 - q)`.
    #[must_use]
    pub fn needs(self) -> u64 {
        1000 / u64::from(100 - self.percent())
    }
}

/// What a candidate is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Fewer requests than that say nothing.
    pub min_requests: u64,
    /// The most of the candidate's requests that may fail.
    pub error_rate: Option<Rate>,
    /// How many times the live slot's part of failed requests the candidate's may be.
    pub error_ratio: Option<Ratio>,
    /// The largest that each latency may be.
    pub latency: BTreeMap<Quantile, Duration>,
    /// How many times the live slot's it may be.
    pub latency_ratio: BTreeMap<Quantile, Ratio>,
}

/// What holds where the app's file says nothing else: 5% of at least 100.
impl Default for Checks {
    fn default() -> Self {
        Self {
            min_requests: 100,
            error_rate: Some(Rate(500)),
            error_ratio: None,
            latency: BTreeMap::new(),
            latency_ratio: BTreeMap::new(),
        }
    }
}

/// What one slot answered in some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests that were answered, or failed.
    pub requests: u64,
    /// Those with a 5xx answer, or none: connect errors, resets, time-outs.
    pub errors: u64,
    /// Answers whose latency was taken; streams and upgrades are none.
    pub timed: u64,
    /// From the request to the head of its answer.
    pub latencies: BTreeMap<Quantile, Duration>,
}

/// Both slots in the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// The slot that is new.
    pub candidate: Sample,
    /// The slot that it is beside, or has replaced.
    pub live: Sample,
}

/// What there is to judge by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Since the step began.
    pub whole: Sides,
    /// The last seconds of that: what has just begun to fail is not hidden by all that went well before.
    pub recent: Sides,
}

/// Which check a candidate did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failed {
    /// Too many of its requests failed.
    ErrorRate,
    /// More of them than of the live slot's.
    ErrorRatio,
    /// It was slow.
    Latency,
    /// It was slower than the live slot.
    LatencyRatio,
    /// There was no verdict in time.
    MaxHold,
}

impl Failed {
    /// The key of the app's file that says so.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::ErrorRatio => "error_ratio",
            Self::Latency => "latency",
            Self::LatencyRatio => "latency_ratio",
            Self::MaxHold => "max_hold",
        }
    }

    /// The word for it in status, events and history.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::ErrorRate => "error-rate",
            Self::ErrorRatio => "error-ratio",
            Self::Latency => "latency",
            Self::LatencyRatio => "latency-ratio",
            Self::MaxHold => "max-hold",
        }
    }
}

/// A check that was not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub failed: Failed,
    /// The numbers, in a sentence.
    pub text: String,
}

/// What a verdict waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Requests of the candidate, or of the live slot.
    Requests {
        /// Of the live slot.
        live: bool,
        /// What there is.
        has: u64,
        /// What it takes.
        needs: u64,
    },
    /// Latencies, for a quantile.
    Latencies {
        /// Of the live slot.
        live: bool,
        /// For which.
        quantile: Quantile,
        /// What there is.
        has: u64,
        /// What it takes.
        needs: u64,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |live| if live { "live slot" } else { "candidate" };
        match self {
            Self::Requests { live, has, needs } => {
                write!(f, "{needs} requests of the {}, it has {has}", side(*live))
            }
            Self::Latencies {
                live,
                quantile,
                has,
                needs,
            } => write!(
                f,
                "{needs} answers of the {} for {}, it has {has}",
                side(*live),
                quantile.name()
            ),
        }
    }
}

/// What is made of the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check had enough to go by, and passed.
    Pass,
    /// A check has failed, whatever else comes.
    Fail(Finding),
    /// None has failed, and one has too little to go by.
    Hold(Lack),
}

/// Judges a candidate.
#[must_use]
pub fn judge(checks: &Checks, evidence: &Evidence) -> Verdict {
    let (candidate, live) = (&evidence.whole.candidate, &evidence.whole.live);
    let errors = [&evidence.recent, &evidence.whole];
    let found = errors
        .into_iter()
        .find_map(|sides| checks.errors(sides))
        .or_else(|| checks.latencies(candidate, live));
    if let Some(finding) = found {
        return Verdict::Fail(finding);
    }
    checks
        .lack(candidate, live)
        .map_or(Verdict::Pass, Verdict::Hold)
}

/// Judges a slot that has taken the place of another: whether so many of its requests fail that it is to be taken back. What fails no
/// less often than with the old one, `evidence.whole.live`, is not the new one's doing.
#[must_use]
pub fn worse(most: Rate, evidence: &Evidence) -> Option<Finding> {
    let checks = Checks {
        error_rate: Some(most),
        ..Checks::default()
    };
    let old = &evidence.whole.live;
    [&evidence.recent, &evidence.whole]
        .into_iter()
        .filter(|sides| {
            let new = &sides.candidate;
            // At least twice as often as it was before.
            wide(new.errors) * wide(old.requests.max(1))
                >= wide(old.errors) * wide(new.requests) * 2
        })
        .find_map(|sides| checks.errors(sides))
}

fn wide(count: u64) -> u128 {
    u128::from(count)
}

impl Checks {
    /// A check that the requests which failed do not pass. As many as the fewest that count would allow is no failure yet.
    fn errors(&self, sides: &Sides) -> Option<Finding> {
        let Sides { candidate, live } = sides;
        let counted = candidate.requests.max(self.min_requests);
        let told = format!(
            "{} of {} requests of the candidate failed",
            candidate.errors, candidate.requests
        );
        if let Some(most) = self.error_rate
            && candidate.errors > most.of(counted)
        {
            return Some(Finding {
                failed: Failed::ErrorRate,
                text: format!("{told}, more than {most}"),
            });
        }
        let ratio = self
            .error_ratio
            .filter(|_| live.requests >= self.min_requests)?;
        // A live slot without an error may have had its first one now.
        let allowed = wide(live.errors.max(1)) * wide(counted) * u128::from(ratio.0);
        let more = wide(candidate.errors) * wide(live.requests) * 100 > allowed;
        // One alone is chance.
        (more && candidate.errors > 1).then(|| Finding {
            failed: Failed::ErrorRatio,
            text: format!(
                "{told}, and {} of {} of the live slot: more than {ratio} times as many",
                live.errors, live.requests
            ),
        })
    }

    fn latencies(&self, candidate: &Sample, live: &Sample) -> Option<Finding> {
        let enough = |sample: &Sample, quantile: Quantile| {
            sample.timed >= quantile.needs().max(self.min_requests)
        };
        let of = |sample: &Sample, quantile: Quantile| {
            let known = sample.latencies.get(&quantile).copied();
            known.filter(|_| enough(sample, quantile))
        };
        let absolute = self.latency.iter().find_map(|(quantile, most)| {
            let found = of(candidate, *quantile)?;
            (found > *most).then(|| Finding {
                failed: Failed::Latency,
                text: format!(
                    "{} of the candidate is {}, more than {}",
                    quantile.name(),
                    millis(found),
                    millis(*most)
                ),
            })
        });
        absolute.or_else(|| {
            self.latency_ratio.iter().find_map(|(quantile, ratio)| {
                let (found, beside) = (of(candidate, *quantile)?, of(live, *quantile)?);
                let slower = found > ratio.times(beside) && found > beside + ALIKE;
                slower.then(|| Finding {
                    failed: Failed::LatencyRatio,
                    text: format!(
                        "{} of the candidate is {}, of the live slot {}: more than {ratio} times as much",
                        quantile.name(),
                        millis(found),
                        millis(beside)
                    ),
                })
            })
        })
    }

    /// What some check has too little of.
    fn lack(&self, candidate: &Sample, live: &Sample) -> Option<Lack> {
        let requests = |live: bool, sample: &Sample| {
            (sample.requests < self.min_requests).then_some(Lack::Requests {
                live,
                has: sample.requests,
                needs: self.min_requests,
            })
        };
        let latencies = |live: bool, sample: &Sample, quantile: &Quantile| {
            let needs = quantile.needs().max(self.min_requests);
            (sample.timed < needs).then_some(Lack::Latencies {
                live,
                quantile: *quantile,
                has: sample.timed,
                needs,
            })
        };
        let beside = self.error_ratio.is_some() || !self.latency_ratio.is_empty();
        requests(false, candidate)
            .or_else(|| requests(true, live).filter(|_| beside))
            .or_else(|| {
                let mut quantiles = self.latency.keys().chain(self.latency_ratio.keys());
                quantiles.find_map(|quantile| latencies(false, candidate, quantile))
            })
            .or_else(|| {
                let mut quantiles = self.latency_ratio.keys();
                quantiles.find_map(|quantile| latencies(true, live, quantile))
            })
    }
}

/// `512 ms`, `1.5 ms`, for people.
fn millis(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} ms", micros / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(requests: u64, errors: u64, p99: u64) -> Sample {
        let latencies = Quantile::ALL.map(|quantile| (quantile, Duration::from_millis(p99)));
        Sample {
            requests,
            errors,
            timed: requests - errors,
            latencies: latencies.into(),
        }
    }

    fn evidence(candidate: Sample, live: Sample) -> Evidence {
        let whole = Sides { candidate, live };
        Evidence {
            recent: whole.clone(),
            whole,
        }
    }

    fn failed(verdict: &Verdict) -> Option<Failed> {
        match verdict {
            Verdict::Fail(finding) => Some(finding.failed),
            Verdict::Pass | Verdict::Hold(_) => None,
        }
    }

    #[test]
    fn silence_is_never_a_pass() {
        for has in 0..100 {
            let verdict = judge(
                &Checks::default(),
                &evidence(sample(has, 0, 1), sample(9_000, 0, 1)),
            );
            let needs = 100;
            let live = false;
            assert_eq!(verdict, Verdict::Hold(Lack::Requests { live, has, needs }));
        }
        let enough = evidence(sample(100, 0, 1), Sample::default());
        assert_eq!(judge(&Checks::default(), &enough), Verdict::Pass);
    }

    #[test]
    fn errors_fail_as_soon_as_the_fewest_that_count_would_not_allow_them() {
        let of = |requests, errors| {
            let found = evidence(sample(requests, errors, 1), Sample::default());
            failed(&judge(&Checks::default(), &found))
        };
        assert_eq!(of(5, 5), None);
        assert_eq!(of(6, 6), Some(Failed::ErrorRate));
        assert_eq!(of(1_000, 50), None);
        assert_eq!(of(1_000, 51), Some(Failed::ErrorRate));
    }

    #[test]
    fn what_has_just_begun_to_fail_is_not_hidden_by_what_went_well() {
        let mut found = evidence(sample(100_000, 20, 1), sample(100_000, 0, 1));
        assert_eq!(judge(&Checks::default(), &found), Verdict::Pass);
        found.recent.candidate = sample(40, 20, 1);
        assert_eq!(
            failed(&judge(&Checks::default(), &found)),
            Some(Failed::ErrorRate)
        );
    }

    #[test]
    fn a_ratio_of_errors_is_to_those_of_the_live_slot_in_the_same_time() {
        let checks = Checks {
            error_rate: None,
            error_ratio: Some(Ratio(200)),
            ..Checks::default()
        };
        let of = |candidate, live| judge(&checks, &evidence(candidate, live));
        assert_eq!(of(sample(100, 20, 1), sample(1_000, 100, 1)), Verdict::Pass);
        let more = of(sample(100, 21, 1), sample(1_000, 100, 1));
        assert_eq!(failed(&more), Some(Failed::ErrorRatio));
        // The live slot has none: one of the candidate's is chance, more are not.
        assert_eq!(of(sample(100, 1, 1), sample(1_000, 0, 1)), Verdict::Pass);
        let more = of(sample(100, 2, 1), sample(1_000, 0, 1));
        assert_eq!(failed(&more), Some(Failed::ErrorRatio));
        // Who is not asked says nothing.
        let quiet = of(sample(100, 2, 1), sample(99, 0, 1));
        assert!(matches!(
            quiet,
            Verdict::Hold(Lack::Requests { live: true, .. })
        ));
    }

    #[test]
    fn a_quantile_needs_ten_latencies_above_it() {
        assert_eq!(Quantile::ALL.map(Quantile::needs), [20, 200, 1000]);
        let checks = Checks {
            latency: [(Quantile::P99, Duration::from_millis(100))].into(),
            ..Checks::default()
        };
        let of = |count, p99| judge(&checks, &evidence(sample(count, 0, p99), Sample::default()));
        let held = of(999, 5_000);
        assert!(matches!(
            held,
            Verdict::Hold(Lack::Latencies { needs: 1000, .. })
        ));
        assert_eq!(failed(&of(1_000, 101)), Some(Failed::Latency));
        assert_eq!(of(1_000, 100), Verdict::Pass);
    }

    #[test]
    fn a_slow_candidate_is_told_by_its_ratio_to_the_live_slot_and_not_by_trifles() {
        let checks = Checks {
            latency_ratio: [(Quantile::P99, Ratio(200))].into(),
            ..Checks::default()
        };
        let of = |candidate, live| {
            judge(
                &checks,
                &evidence(sample(2_000, 0, candidate), sample(2_000, 0, live)),
            )
        };
        assert_eq!(failed(&of(100, 20)), Some(Failed::LatencyRatio));
        assert_eq!(of(40, 20), Verdict::Pass);
        assert_eq!(of(5, 1), Verdict::Pass);
        assert_eq!(failed(&of(7, 1)), Some(Failed::LatencyRatio));
        // As slow as the one that it replaces: not its doing.
        assert_eq!(of(3_000, 3_000), Verdict::Pass);
    }

    #[test]
    fn a_new_slot_is_taken_back_for_errors_that_the_old_one_did_not_have() {
        let of = |new, old| worse(Rate(1_000), &evidence(new, old)).is_some();
        assert!(of(sample(200, 100, 1), sample(10_000, 10, 1)));
        assert!(of(sample(11, 11, 1), Sample::default()));
        assert!(!of(sample(10, 10, 1), Sample::default()));
        // The old one failed as often.
        assert!(!of(sample(200, 100, 1), sample(10_000, 5_001, 1)));
        assert!(of(sample(200, 100, 1), sample(10_000, 2_500, 1)));
    }

    #[test]
    fn rates_and_ratios_are_written_as_people_do() {
        assert_eq!(Rate(500).to_string(), "5%");
        assert_eq!(Rate(50).to_string(), "0.5%");
        assert_eq!(Ratio(125).to_string(), "1.25");
        assert_eq!(millis(Duration::from_micros(1_540)), "1.5 ms");
        assert_eq!(millis(Duration::from_millis(1_540)), "1540 ms");
    }
}
