//! Verdicts on a candidate: from what two slots answered in the same time to pass, fail or hold.
//!
//! **Invariant:** silence is never a pass: where a check has too little to go by, the verdict is to hold.
//! **Invariant:** whole numbers throughout, so that the same counts give the same verdict wherever they are judged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Two latencies that differ by less are alike, whatever their ratio: 1 ms beside 0.2 ms is nobody's trouble.
pub const ALIKE: Duration = Duration::from_millis(5);

/// Of a slot's requests, one in so many may be given up by its clients before they have an answer: people leave, whatever serves them.
const GIVEN_UP: u64 = 10;

/// Fewer that were given up than that are chance.
const FEW: u64 = 5;

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
    /// Those of them that slot itself made, where there were too few.
    pub probes: u64,
    /// What is none of them: requests whose clients left before the head of an answer came.
    pub given_up: u64,
    /// Those with a 5xx answer, or none: connect errors, resets, time-outs.
    pub errors: u64,
    /// Answers whose latency was taken; streams and upgrades are none.
    pub timed: u64,
    /// From the request to the head of its answer.
    pub latencies: BTreeMap<Quantile, Duration>,
}

impl Sample {
    /// The requests of clients, whatever became of them.
    fn clients(&self) -> u64 {
        self.requests.saturating_sub(self.probes) + self.given_up
    }
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
    /// Clients who wait for an answer: more of the candidate's leave without one than of the live slot's.
    Patience {
        /// How many have left.
        given_up: u64,
        /// Of how many.
        of: u64,
    },
}

impl Lack {
    /// Nobody asks often enough, which requests of slot's own, or the app's file, may make up for.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Requests { .. } | Self::Latencies { .. } => true,
            Self::Patience { .. } => false,
        }
    }
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
            Self::Patience { given_up, of } => write!(
                f,
                "the candidate to answer before its clients give up, as {given_up} of {of} did"
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
    /// None has failed, and one has too little to go by, or clients do not wait for the candidate.
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
    // It comes before silence, which may be taken for a pass.
    let windows = [&evidence.recent, &evidence.whole];
    (windows.into_iter().find_map(impatience))
        .or_else(|| checks.lack(candidate, live))
        .map_or(Verdict::Pass, Verdict::Hold)
}

/// That clients of the candidate leave before it answers, and those of the live slot do not: more than one in [`GIVEN_UP`], and more than
/// twice the part. That is no failure, since nobody knows what it would have answered; and no pass either.
fn impatience(sides: &Sides) -> Option<Lack> {
    let (new, old) = (&sides.candidate, &sides.live);
    let (given_up, of) = (new.given_up, new.clients());
    let many = given_up >= FEW && wide(given_up) * wide(GIVEN_UP) > wide(of);
    let more = wide(given_up) * wide(old.clients().max(1)) > wide(old.given_up) * wide(of) * 2;
    (many && more).then_some(Lack::Patience { given_up, of })
}

/// Judges a slot that has taken the place of another: whether so many of its requests fail that it is to be taken back. What fails no
/// less often than with the old one, `evidence.whole.live`, is not the new one's doing. What clients gave up is nothing to take it back by.
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
#[path = "verdict_tests.rs"]
mod tests;
