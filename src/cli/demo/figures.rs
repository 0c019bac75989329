//! What came of it, in numbers: a table for people, an object for scripts.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::super::term::{Paint, span};
use crate::load::{Ended, Tally};
use crate::wire::api::Outcome;

/// Phases of a deployment, in order; each is a column.
const PHASES: [&str; 5] = ["preparing", "waiting", "starting", "ready", "shifting"];

/// Everything that was counted; its JSON is the last line of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Requests that were answered as they should.
    requests: u64,
    /// Requests that were not.
    failed: u64,
    /// How they failed, by kind.
    failures: std::collections::BTreeMap<String, u64>,
    median_us: u64,
    p99_us: u64,
    slowest_us: u64,
    streams: usize,
    stream_messages: u64,
    /// Between two messages of a stream, which come every 50 ms.
    stream_longest_pause_ms: u64,
    streams_cut: usize,
    /// How they were cut.
    cuts: Vec<String>,
    deploys: Vec<Deploy>,
}

/// One attempt.
#[derive(Debug, Serialize)]
pub(super) struct Deploy {
    /// The release's id; absent when it was refused before it had one.
    release: Option<String>,
    /// `release 2`, as the story calls it.
    name: String,
    kind: String,
    success: bool,
    /// It ended as it was to: served, or refused.
    expected: bool,
    cause: String,
    text: String,
    /// From the request to the answer.
    total_ms: u64,
    #[serde(serialize_with = "in_order")]
    phases_ms: Vec<(String, u64)>,
}

impl Deploy {
    pub(super) fn new(name: &str, outcome: &Outcome, to_serve: bool, total: Duration) -> Self {
        Self {
            release: outcome.release.clone(),
            name: name.to_owned(),
            kind: outcome.kind.clone(),
            success: outcome.success,
            expected: outcome.success == to_serve,
            cause: outcome.cause.clone(),
            text: outcome.text.clone(),
            total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX),
            phases_ms: outcome.phases_ms.clone(),
        }
    }

    pub(super) fn is_expected(&self) -> bool {
        self.expected
    }

    fn phase(&self, name: &str) -> Option<u64> {
        let mut same = self.phases_ms.iter().filter(|(phase, _)| phase == name);
        same.next().map(|(_, ms)| *ms)
    }
}

impl Figures {
    pub(super) fn new(tally: &Tally, streams: &[Ended], deploys: Vec<Deploy>) -> Self {
        let micros =
            |percent| u64::try_from(tally.percentile(percent).as_micros()).unwrap_or(u64::MAX);
        let cuts: Vec<String> = streams
            .iter()
            .filter_map(|ended| ended.cut.clone())
            .collect();
        let longest_pause = streams.iter().map(|ended| ended.longest_pause).max();
        let failures = tally.failures.iter();
        Self {
            requests: tally.requests() + tally.failed_requests(),
            failed: tally.failed_requests(),
            failures: failures
                .map(|(kind, count)| (kind.to_string(), *count))
                .collect(),
            median_us: micros(50.0),
            p99_us: micros(99.0),
            slowest_us: micros(100.0),
            streams: streams.len(),
            stream_messages: streams.iter().map(|ended| ended.messages).sum(),
            stream_longest_pause_ms: longest_pause.map_or(0, |pause| {
                u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
            }),
            streams_cut: cuts.len(),
            cuts,
            deploys,
        }
    }

    /// No request failed, no stream was cut, and every attempt ended as it was to.
    pub(super) fn is_flawless(&self) -> bool {
        self.failed == 0 && self.streams_cut == 0 && self.deploys.iter().all(Deploy::is_expected)
    }

    /// For people.
    pub(super) fn table(&self, paint: Paint) -> String {
        let mut text = String::new();
        let zero = |count: u64| match count {
            0 => paint.good("0"),
            count => paint.bad(&count.to_string()),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "\n  {:<18}{}",
            "requests served",
            self.requests - self.failed
        );
        let _ = writeln!(text, "  {:<18}{}", "requests failed", zero(self.failed));
        for (kind, count) in &self.failures {
            let _ = writeln!(text, "  {:<18}{count} × {kind}", "");
        }
        let _ = writeln!(
            text,
            "  {:<18}{}, slowest {}",
            "median request",
            millis(self.median_us),
            millis(self.slowest_us)
        );
        let _ = writeln!(
            text,
            "  {:<18}{} (of {}, with {} messages; longest pause {} ms)",
            "streams cut",
            zero(self.streams_cut as u64),
            self.streams,
            self.stream_messages,
            self.stream_longest_pause_ms
        );
        for cut in &self.cuts {
            let _ = writeln!(text, "  {:<18}{cut}", "");
        }
        self.deploys_table(&mut text, paint);
        text
    }

    fn deploys_table(&self, text: &mut String, paint: Paint) {
        let columns: Vec<&str> = PHASES
            .into_iter()
            .filter(|phase| {
                self.deploys
                    .iter()
                    .any(|deploy| deploy.phase(phase).is_some())
            })
            .collect();
        let mut head = format!("  {:<26}", "");
        for column in columns.iter().chain([&"total"]) {
            let _ = write!(head, "{column:>11}");
        }
        let _ = writeln!(text, "\n{}", paint.dim(&head));
        for deploy in &self.deploys {
            let did = match deploy.kind.as_str() {
                "rollback" => format!("rollback to {}", deploy.name),
                _ => format!("deploy {}", deploy.name),
            };
            let _ = write!(text, "  {did:<26}");
            for column in &columns {
                let cell = deploy
                    .phase(column)
                    .map(|ms| span(Duration::from_millis(ms)));
                let _ = write!(text, "{:>11}", cell.unwrap_or_else(|| "–".to_owned()));
            }
            let total = span(Duration::from_millis(deploy.total_ms));
            let ended = match (deploy.success, deploy.expected) {
                (true, true) => paint.good("serves"),
                (false, true) => paint.good(&format!("refused: {}", deploy.cause)),
                (_, false) => paint.bad(&deploy.cause),
            };
            let _ = writeln!(text, "{total:>11}  {ended}");
        }
    }
}

/// `0.42 ms`.
fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

/// A map in the order of the phases, not of the alphabet.
fn in_order<S: Serializer>(phases: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(phases.len()))?;
    for (phase, ms) in phases {
        map.serialize_entry(phase, ms)?;
    }
    map.end()
}
