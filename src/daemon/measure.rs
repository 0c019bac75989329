//! What a new slot answers, beside the slot that it is to replace or has replaced: the routers' counts, told again and again.
//!
//! **Invariant:** what was counted before is not evidence: a router's counts are of its whole life, and only what is added to them since
//! the measurement began is told. Of a soak the old slot's are told whole, since what it gets beside the new one, if anything, is as good.
//! **Invariant:** a router that does not answer says nothing; a deployer that starts again measures anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::live::{Live, PROBE_LIMIT};
use super::route::internal_name;
use super::units::Units;
use super::world::World;
use crate::config::Canary;
use crate::deploy::{
    Event, Evidence, Measured, Measurement, Quantile, Sample, Sides, SlotName, Verdict, judge,
};
use crate::probe::{Address, ask};
use crate::wire::control::{SlotStats, Stats};
use crate::wire::histogram::{Histogram, bucket};

/// The pause between two counts.
const PAUSE: Duration = Duration::from_secs(1);

/// What is recent.
const RECENT: Duration = Duration::from_secs(10);

/// The most requests that slot itself makes of a slot between two counts, and for how long.
const PROBES: (usize, Duration) = (20, Duration::from_secs(1));

/// How much longer one may take before there is a socket to make it with.
const GRACE: Duration = Duration::from_secs(1);

/// What one slot answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    requests: u64,
    errors: u64,
    /// Of `requests`, those that slot itself made.
    probes: u64,
    given_up: u64,
    latencies: Histogram,
}

impl Tally {
    fn of(stats: &SlotStats) -> Self {
        let [_, good @ .., bad] = stats.answers;
        Self {
            requests: good.iter().sum::<u64>() + bad + stats.errors,
            errors: bad + stats.errors,
            probes: 0,
            given_up: stats.given_up,
            latencies: stats.latencies.clone(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.probes += other.probes;
        self.given_up += other.given_up;
        self.latencies.merge(&other.latencies);
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            probes: self.probes.saturating_sub(earlier.probes),
            given_up: self.given_up.saturating_sub(earlier.given_up),
            latencies: self.latencies.since(&earlier.latencies),
        }
    }

    fn sample(&self) -> Sample {
        let quantile = |which: Quantile| {
            let share = f64::from(which.percent()) / 100.0;
            Some((which, self.latencies.quantile(share)?))
        };
        Sample {
            requests: self.requests,
            errors: self.errors,
            probes: self.probes,
            given_up: self.given_up,
            timed: self.latencies.total(),
            latencies: Quantile::ALL.into_iter().filter_map(quantile).collect(),
        }
    }
}

/// Both slots' tallies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Both {
    candidate: Tally,
    live: Tally,
}

impl Both {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            candidate: self.candidate.since(&earlier.candidate),
            live: self.live.since(&earlier.live),
        }
    }

    fn sides(&self) -> Sides {
        Sides {
            candidate: self.candidate.sample(),
            live: self.live.sample(),
        }
    }
}

/// Where a count comes from: a router's process, a part of the table, and a run of a slot.
type Source = (String, u64, String, String, Option<String>);

/// A count when it was first seen, and the last time.
#[derive(Debug, Default)]
struct Counted {
    first: Tally,
    last: Tally,
}

/// The counts of all routers since some moment.
#[derive(Debug)]
struct Tallies {
    of: Measurement,
    /// Milliseconds since the epoch.
    since_ms: u64,
    sources: BTreeMap<Source, Counted>,
    /// What slot itself requested.
    probed: Both,
    /// Sums of the last [`RECENT`], oldest first.
    past: VecDeque<(Instant, Both)>,
}

impl Tallies {
    fn new(of: Measurement, since_ms: u64) -> Self {
        Self {
            of,
            since_ms,
            sources: BTreeMap::new(),
            probed: Both::default(),
            past: VecDeque::new(),
        }
    }

    /// Takes in what a router says.
    fn take(&mut self, instance: &str, stats: &Stats) {
        for slot in &stats.slots {
            let is_candidate = self.is_candidate(&slot.slot, slot.boot_id.as_deref());
            if !is_candidate && slot.slot != self.of.beside.as_str() {
                continue;
            }
            let source = (
                instance.to_owned(),
                stats.since_ms,
                slot.app.clone(),
                slot.slot.clone(),
                slot.boot_id.clone(),
            );
            let told = Tally::of(slot);
            let whole =
                stats.since_ms >= self.since_ms || (!is_candidate && self.of.of == Measured::Soak);
            let counted = self.sources.entry(source).or_insert_with(|| Counted {
                first: if whole {
                    Tally::default()
                } else {
                    told.clone()
                },
                last: Tally::default(),
            });
            counted.last = told;
        }
    }

    fn is_candidate(&self, slot: &str, boot: Option<&str>) -> bool {
        slot == self.of.slot.as_str() && boot == Some(self.of.boot.as_str())
    }

    /// What there is to judge by, at a moment.
    fn evidence(&mut self, now: Instant) -> Evidence {
        let mut all = self.probed.clone();
        for ((_, _, _, slot, boot), counted) in &self.sources {
            let side = match self.is_candidate(slot, boot.as_deref()) {
                true => &mut all.candidate,
                false => &mut all.live,
            };
            side.add(&counted.last.since(&counted.first));
        }
        while self.past.len() > 1 && self.past[1].0 + RECENT <= now {
            self.past.pop_front();
        }
        self.past.push_back((now, all.clone()));
        let recent = all.since(&self.past[0].1);
        Evidence {
            whole: all.sides(),
            recent: recent.sides(),
        }
    }
}

impl<U: Units> Live<U> {
    /// Counts, and reports, until nobody demands it any more.
    pub(super) async fn measure(&self, of: Measurement, report: mpsc::Sender<Event>) {
        let canary = self.app.canary.as_ref();
        if let (Measured::Step(0), Some(canary)) = (of.of, canary) {
            tokio::time::sleep(canary.plan.warm_up).await;
        }
        let began = Instant::now();
        let (kind, generation) = (of.of, of.generation);
        let mut tallies = Tallies::new(of, self.now().0);
        let internal = self.app.internal_listener.as_ref();
        let internal = internal.map(|_| internal_name(&self.app));
        let parts: Vec<String> = [self.app.name.to_string()]
            .into_iter()
            .chain(internal)
            .collect();
        loop {
            for part in &parts {
                // What the routers do not say is missing, and a verdict waits for it.
                let told = self
                    .tables
                    .routers()
                    .figures(part)
                    .await
                    .unwrap_or_default();
                for (instance, stats) in told {
                    if let Ok(stats) = stats {
                        tallies.take(&instance, &stats);
                    }
                }
            }
            let evidence = tallies.evidence(Instant::now());
            self.keep_evidence(generation, kind, evidence.clone());
            if let (Measured::Step(step), Some(canary)) = (kind, canary) {
                let lasts = canary.plan.steps.get(step).map(|step| step.lasts);
                let is_over = lasts.is_some_and(|lasts| began + lasts <= Instant::now());
                let verdict = judge(&canary.plan.checks, &evidence);
                let lacks = matches!(&verdict, Verdict::Hold(lack) if canary.plan.probes(lack));
                if is_over && lacks {
                    self.request_some(canary, &mut tallies).await;
                }
            }
            let event = Event::Measured {
                of: kind,
                generation,
                evidence,
            };
            if report.send(event).await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Requests the paths that the app's file names of both slots, where nobody else does.
    async fn request_some(&self, canary: &Canary, tallies: &mut Tallies) {
        let until = Instant::now() + PROBES.1;
        let (slot, beside) = (tallies.of.slot.clone(), tallies.of.beside.clone());
        for path in canary.probes.iter().cycle().take(PROBES.0) {
            if until <= Instant::now() {
                return;
            }
            let (new, old) = tokio::join!(self.request(&slot, path), self.request(&beside, path));
            tallies.probed.candidate.add(&new);
            tallies.probed.live.add(&old);
        }
    }

    async fn request(&self, slot: &SlotName, path: &str) -> Tally {
        let mut tally = Tally {
            requests: 1,
            probes: 1,
            ..Tally::default()
        };
        let answer = match self.units.upstream(slot).parse::<Address>() {
            Ok(at) => {
                let asked = ask(
                    self.units.internet(),
                    &at,
                    self.app.host(),
                    path,
                    PROBE_LIMIT,
                );
                match timeout(PROBE_LIMIT + GRACE, asked).await {
                    Ok(answer) => answer.ok(),
                    // There was no socket to ask with; that tells nothing of the slot.
                    Err(_) => return Tally::default(),
                }
            }
            Err(_) => None,
        };
        match answer {
            Some(answer) if !answer.status.is_server_error() => {
                let micros = u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX);
                tally.latencies.add(bucket(micros), 1);
            }
            Some(_) | None => tally.errors = 1,
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::{BootId, Generation, Time};

    const BOOT: &str = "0123456789abcdef0123456789abcdef";

    fn tallies(of: Measured) -> Tallies {
        let boot: BootId = BOOT.parse().unwrap();
        let of = Measurement {
            of,
            generation: Generation(3),
            since: Time::default(),
            slot: "green".parse().unwrap(),
            boot,
            beside: "blue".parse().unwrap(),
        };
        Tallies::new(of, 1_000)
    }

    fn stats(since_ms: u64, slot: &str, boot: &str, good: u64, bad: u64, errors: u64) -> Stats {
        let mut latencies = Histogram::default();
        latencies.add(bucket(1_000), good);
        let slot = SlotStats {
            app: "web".to_owned(),
            slot: slot.to_owned(),
            boot_id: Some(boot.to_owned()),
            answers: [0, good, 0, 0, bad],
            errors,
            latencies,
            ..SlotStats::default()
        };
        Stats {
            since_ms,
            slots: vec![slot],
            ..Stats::default()
        }
    }

    #[test]
    fn what_was_counted_before_is_no_evidence() {
        let (mut tallies, now) = (tallies(Measured::Step(0)), Instant::now());
        tallies.take("a", &stats(5, "blue", "old", 70, 7, 3));
        tallies.take("a", &stats(5, "green", BOOT, 10, 2, 0));
        assert_eq!(tallies.evidence(now).whole.live.requests, 0);
        tallies.take("a", &stats(5, "blue", "old", 100, 8, 5));
        tallies.take("a", &stats(5, "green", BOOT, 14, 3, 1));
        let whole = tallies.evidence(now).whole;
        assert_eq!((whole.live.requests, whole.live.errors), (33, 3));
        assert_eq!((whole.candidate.requests, whole.candidate.errors), (6, 2));
        assert_eq!((whole.live.timed, whole.candidate.timed), (30, 4));
    }

    #[test]
    fn routers_that_come_and_go_are_added_up() {
        let (mut tallies, now) = (tallies(Measured::Step(0)), Instant::now());
        tallies.take("a", &stats(5, "green", BOOT, 10, 0, 0));
        tallies.take("a", &stats(5, "green", BOOT, 30, 0, 0));
        // It was replaced: the next one counts from nothing, and of what the first counted nothing is lost.
        tallies.take("b", &stats(2_000, "green", BOOT, 7, 0, 0));
        assert_eq!(tallies.evidence(now).whole.candidate.requests, 27);
        // The same instance in another process.
        tallies.take("a", &stats(3_000, "green", BOOT, 1, 0, 0));
        assert_eq!(tallies.evidence(now).whole.candidate.requests, 28);
    }

    #[test]
    fn another_run_of_the_candidates_slot_is_not_the_candidate() {
        let (mut tallies, now) = (tallies(Measured::Step(0)), Instant::now());
        tallies.take("b", &stats(2_000, "green", "another", 7, 7, 7));
        assert_eq!(tallies.evidence(now).whole, Sides::default());
    }

    #[test]
    fn the_last_seconds_are_told_apart() {
        let (mut tallies, began) = (tallies(Measured::Step(0)), Instant::now());
        for second in 0..60 {
            let bad = if second < 50 { 0 } else { (second - 49) * 10 };
            tallies.take("a", &stats(5, "green", BOOT, second * 100, bad, 0));
            let evidence = tallies.evidence(began + Duration::from_secs(second));
            let recent = evidence.recent.candidate;
            if second == 40 {
                assert_eq!((recent.requests, recent.errors), (1_000, 0));
            }
            if second == 59 {
                assert_eq!((recent.requests, recent.errors), (1_100, 100));
                assert_eq!(evidence.whole.candidate.errors, 100);
            }
        }
    }

    #[test]
    fn of_a_soak_the_old_slot_is_told_by_all_that_is_known_of_it() {
        let (mut tallies, now) = (tallies(Measured::Soak), Instant::now());
        tallies.take("a", &stats(5, "blue", "old", 70, 7, 3));
        tallies.take("a", &stats(5, "green", BOOT, 10, 0, 0));
        let whole = tallies.evidence(now).whole;
        assert_eq!((whole.live.requests, whole.live.errors), (80, 10));
        assert_eq!(whole.candidate.requests, 0);
    }
}
