//! How an attempt ended, on one screen.
//!
//! **Invariant:** pure; the same outcome and status give the same text.

use std::fmt::Write;
use std::time::Duration;

use super::status::{cut, in_flight};
use super::term::{Paint, harmless, span};
use crate::wire::api::{Outcome, Report, SlotStatus, Status};

/// Lines of the run's log that fit on the screen with all the rest.
const LOG_LINES: usize = 20;

/// The screen for an outcome. `status` is the app's state after it, if slotd still answers; `now` is milliseconds since
/// the epoch.
#[must_use]
pub fn screen(
    app: &str,
    outcome: &Outcome,
    status: Option<&Status>,
    now: u64,
    paint: Paint,
) -> String {
    if outcome.success {
        success(app, outcome, status, now, paint)
    } else {
        failure(app, outcome, status, paint)
    }
}

fn success(
    app: &str,
    outcome: &Outcome,
    status: Option<&Status>,
    now: u64,
    paint: Paint,
) -> String {
    let mut text = String::new();
    let release = outcome.release.as_deref().unwrap_or("(unknown)");
    let ran = status.and_then(|status| {
        let its = |slot: &&SlotStatus| slot.release == outcome.release;
        status.slots.iter().find(its)?.source.as_ref()?.named()
    });
    let release = match ran {
        Some(name) => format!("{release} ({})", harmless(name)),
        None => release.to_owned(),
    };
    let slot = outcome.slot.as_deref().unwrap_or("(unknown)");
    let did = match (outcome.cause.as_str(), outcome.kind.as_str()) {
        ("trial", _) => format!(
            "release {release} is up in {slot}, with {}% of new requests",
            outcome.weight.unwrap_or_default()
        ),
        ("standby", _) => format!("release {release} stands by in {slot}"),
        ("already-live", _) => format!("release {release} is live already"),
        (_, "rollback") => format!("rolled back: release {release} serves from {slot}"),
        _ => format!("release {release} serves from {slot}"),
    };
    let _ = write!(
        text,
        "{} {}",
        paint.bold(&format!("{app}:")),
        paint.good(&did)
    );
    if let Some(previous) = &outcome.previous {
        let _ = match Some(previous) == outcome.release.as_ref() {
            _ if outcome.cause == "already-live" => Ok(()),
            _ if outcome.cause == "trial" => write!(text, " (the rest: {previous})"),
            true => write!(text, " (as before, started anew)"),
            false => write!(text, " (before: {previous})"),
        };
    }
    text.push('\n');
    if outcome.cause == "trial" {
        let _ = writeln!(
            text,
            "  it stays there: `slotctl weight {slot} 50` gives it another share, `slotctl promote` all, `slotctl abort` takes it back"
        );
    }
    if outcome.cause == "standby" {
        let _ = writeln!(text, "  make it active with `slotctl promote {slot}`");
    }
    if let Some(found) = outcome
        .reached
        .as_ref()
        .filter(|_| outcome.kind == "rollback")
    {
        let _ = writeln!(text, "  {}", harmless(found));
    }
    for address in status.iter().flat_map(|status| &status.addresses) {
        let _ = writeln!(text, "  {address}");
    }
    if !outcome.phases_ms.is_empty() {
        let _ = writeln!(text, "  {}", paint.dim(&phases(&outcome.phases_ms)));
    }
    for slot in status.iter().flat_map(|status| &status.slots) {
        let Some(held) = slot.in_flight.filter(|held| held.total() > 0) else {
            continue;
        };
        if slot.condition == "draining" || slot.condition == "warm" {
            let until = cut(slot, now).map_or_else(String::new, |cut| format!(", {cut}"));
            let _ = writeln!(
                text,
                "  {} finishes what is in flight: {}{until}",
                slot.slot,
                in_flight(held)
            );
        }
    }
    let is_told = matches!(outcome.cause.as_str(), "switched" | "standby" | "trial");
    if !is_told && !outcome.text.is_empty() {
        let _ = writeln!(text, "  {}", harmless(&outcome.text));
    }
    text
}

/// `preparing 12 ms, starting 180 ms, 192 ms in all`.
fn phases(phases: &[(String, u64)]) -> String {
    let mut text = String::new();
    for (phase, millis) in phases {
        let _ = write!(text, "{phase} {}, ", span(Duration::from_millis(*millis)));
    }
    let all = phases.iter().map(|(_, millis)| millis).sum();
    let _ = write!(text, "{} in all", span(Duration::from_millis(all)));
    text
}

fn failure(app: &str, outcome: &Outcome, status: Option<&Status>, paint: Paint) -> String {
    let mut text = String::new();
    let what = match outcome.kind.as_str() {
        "rollback" => "rollback",
        "promote" => "promotion",
        "by-hand" => "start by hand",
        _ => "deployment",
    };
    let head = if outcome.cause == "aborted" {
        format!(
            "{what} {} was aborted in phase {}",
            outcome.generation, outcome.phase
        )
    } else if in_soak(outcome) {
        format!("{what} {} failed in its soak", outcome.generation)
    } else {
        format!(
            "{what} {} failed in phase {}",
            outcome.generation, outcome.phase
        )
    };
    let _ = writeln!(
        text,
        "{} {}: {}",
        paint.bold(&format!("{app}:")),
        paint.bad(&head),
        outcome.cause
    );
    let _ = writeln!(text, "  {}\n", harmless(sentence(outcome)));
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(
            text,
            "  {}  {}",
            paint.dim(&format!("{name:<10}")),
            harmless(value)
        );
    };
    match (&outcome.release, &outcome.slot) {
        (Some(release), Some(slot)) => row("release", &format!("{release} in {slot}")),
        (Some(release), None) => row("release", release),
        (None, _) => {}
    }
    if let Some(gate) = gate(outcome) {
        row("gate", gate);
    }
    if let Some(report) = &outcome.report {
        evidence(report, &mut row);
    }
    if !outcome.phases_ms.is_empty() {
        row("time", &phases(&outcome.phases_ms));
    }
    if let Some(report) = &outcome.report {
        log(report, &mut text, paint);
    }
    let _ = writeln!(text, "\n  {}", untouched(outcome, status, paint));
    if let Some(journal) = outcome
        .report
        .as_ref()
        .and_then(|report| report.journal.as_ref())
    {
        let _ = writeln!(text, "  The rest of the log: {}", harmless(journal));
    }
    text
}

/// What happened, without the last probe: that has a row of its own.
fn sentence(outcome: &Outcome) -> &str {
    let probe = outcome
        .report
        .as_ref()
        .and_then(|report| report.probe.as_ref());
    let short = probe.and_then(|probe| outcome.text.strip_suffix(probe.as_str()));
    short
        .and_then(|text| text.strip_suffix("; the last one found: "))
        .unwrap_or(&outcome.text)
}

fn evidence(report: &Report, row: &mut impl FnMut(&str, &str)) {
    row("unit", &report.unit);
    match (&report.result, &report.exit) {
        (Some(result), Some(exit)) => row("result", &format!("{result}: {exit}")),
        // systemd's word for a unit that nothing is wrong with, until it is stopped for the gate that it did not pass.
        (Some(result), None) if result == "success" => row("result", "success: it was running"),
        (Some(only), None) | (None, Some(only)) => row("result", only),
        (None, None) => {}
    }
    if let Some(status) = &report.status_text {
        row("STATUS=", status);
    }
    if let Some(probe) = &report.probe {
        row("last probe", probe);
    }
    let elsewhere = !report.listens.is_empty()
        && report
            .expected
            .as_ref()
            .is_some_and(|told| !report.listens.iter().any(|at| names(at, told)));
    if elsewhere {
        row("listens on", &report.listens.join(", "));
        let told = report.expected.as_deref().unwrap_or_default();
        let way = if told.starts_with("unix:") {
            "let it make the socket that $SOCKET names"
        } else {
            "let it take the port from $PORT, and the address 127.0.0.1"
        };
        row("told", &format!("{told}: {way}"));
    } else if report.listens.is_empty() && report.expected.is_some() && report.probe.is_some() {
        row(
            "listens on",
            &format!(
                "nothing, and was told {}",
                report.expected.as_deref().unwrap_or_default()
            ),
        );
    }
}

/// `127.0.0.1:3000 (node)` and `127.0.0.1:3000` both name that address.
fn names(listener: &str, address: &str) -> bool {
    listener
        .strip_prefix(address)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
}

fn log(report: &Report, text: &mut String, paint: Paint) {
    if report.log.is_empty() {
        let _ = writeln!(text, "\n  It wrote nothing to its log.");
        return;
    }
    let skipped = report.log.len().saturating_sub(LOG_LINES);
    let lines = &report.log[skipped..];
    let _ = match lines.len() {
        1 => writeln!(text, "\n  The last line of its log:"),
        count => writeln!(text, "\n  The last {count} lines of its log:"),
    };
    for line in lines {
        let _ = writeln!(text, "  {} {}", paint.dim("|"), harmless(line));
    }
}

/// It had switched before it failed.
fn in_soak(outcome: &Outcome) -> bool {
    outcome.phase == "switched"
}

/// Which gate or time-out a cause stands for, in the words of the app's file.
fn gate(outcome: &Outcome) -> Option<&'static str> {
    Some(match outcome.cause.as_str() {
        "rebooted" => "at its weight: the machine was restarted",
        "exited" if in_soak(outcome) => "the soak: it has to stay up",
        "build-failed" => "setup_command has to end with status 0",
        "build-timeout" => "setup_command has to end within setup_timeout",
        "hook-failed" => "a hook before the switch has to end with status 0",
        "hook-timeout" => "a hook has to end within `timeout` of [hooks]",
        "unprepared" => "the release could not be put on disk",
        "unrouted" => "the table of the switch could not be given to the routers",
        "no-idle-slot" => "no slot became idle in time (--queue)",
        "start-failed" => "the unit has to start",
        "start-timeout" => "READY=1 within start_timeout",
        "health-timeout" => "a health probe that passes within health_timeout",
        "exited" if outcome.phase == "shifting" => "at its weight: it has to stay up",
        "exited" => "it has to stay up until it is healthy",
        "probes-failed" if in_soak(outcome) => "the soak: probes failed in a row",
        "probes-failed" => "at its weight: probes failed in a row",
        "error-rate" if in_soak(outcome) => "the soak: soak_error_rate, of its requests",
        "error-rate" => "error_rate of [canary], of its requests",
        "error-ratio" => "error_ratio of [canary], beside the live slot",
        "latency" => "latency of [canary]",
        "latency-ratio" => "latency_ratio of [canary], beside the live slot",
        "max-hold" => "max_hold of [canary]: a verdict in time",
        _ => return None,
    })
}

fn untouched(outcome: &Outcome, status: Option<&Status>, paint: Paint) -> String {
    let Some(status) = status else {
        return match &outcome.previous {
            Some(previous) => {
                format!("The active slot was not touched; it has release {previous}.")
            }
            None => "The active slot was not touched.".to_owned(),
        };
    };
    let Some(active) = &status.active else {
        return "No release is active yet, so nothing serves.".to_owned();
    };
    let live = status.live.as_deref().unwrap_or("(unknown)");
    let after_switch = in_soak(outcome);
    if !status.serving && after_switch {
        return paint.bad(&format!(
            "{active}, release {live}, is not up: requests are held."
        ));
    }
    if !status.serving {
        return paint.odd(&format!(
            "The active slot was not touched, but it is not up: {active}, release {live}; requests are held."
        ));
    }
    if after_switch && Some(active) != outcome.slot.as_ref() {
        paint.good(&format!(
            "It was rolled back: {active} serves release {live} again."
        ))
    } else if after_switch {
        paint.odd(&format!(
            "There was nothing to go back to: {active} still serves release {live}."
        ))
    } else {
        paint.good(&format!(
            "The active slot is untouched: {active} serves release {live}."
        ))
    }
}
