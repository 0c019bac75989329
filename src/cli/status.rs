//! `slotctl status`: an app on one screen.
//!
//! **Invariant:** the text is a pure function of what slotd answers and the time.

use std::fmt::Write;
use std::io::stdout;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;

use super::app;
use super::client::{Client, empty};
use super::exit::Exit;
use super::router;
use super::term::{Paint, aligned, harmless, say, say_json, whole_span, width, wrap};
use crate::wire::api::{Apps, Hold, PlanStatus, SlotStatus, Staging, Status};
use crate::wire::control::InFlight;

/// Shows one app, or all when none is named.
///
/// # Errors
/// If slotd does not answer.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    if json {
        let mut status: Status = client.get("/status").await?;
        complete(client, &mut status);
        say_json(&status)?;
        return Ok(Exit::Ok);
    }
    let mut apps = if client.names_an_app() {
        Apps {
            apps: vec![client.get("/status").await?],
            ..Apps::default()
        }
    } else {
        client.ask::<Apps>(Method::GET, "/apps", empty()).await?
    };
    let paint = Paint::of(&stdout());
    let mut text = String::new();
    for status in &mut apps.apps {
        if !text.is_empty() {
            text.push('\n');
        }
        complete(client, status);
        text.push_str(&table(status, now_ms(), paint, width()));
    }
    // The same for all of them.
    if let Some(status) = apps.apps.first() {
        let routers = router::table(&status.routers, now_ms(), paint);
        if !routers.is_empty() {
            let _ = write!(text, "\n{routers}");
        }
    }
    for (app, why) in &apps.broken {
        let _ = writeln!(
            text,
            "{} {}",
            paint.bad(&format!("{app}: broken:")),
            harmless(why)
        );
    }
    if text.is_empty() {
        text.push_str(
            "No app is registered; `slotctl init` and `sudo slotctl deploy PATH` make the first.\n",
        );
    }
    say(&text)?;
    Ok(Exit::Ok)
}

/// Before the first request there is no router yet that could say where it listens; systemd can.
pub fn complete(client: &Client, status: &mut Status) {
    if status.addresses.is_empty() && app::is_machines_own(client.socket()) {
        status.addresses = app::public::addresses();
    }
}

/// Milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| {
            u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
        })
}

/// An app as a paragraph, a table of its slots, and what is to be said of them; `now` is milliseconds since the epoch.
#[must_use]
pub fn table(status: &Status, now: u64, paint: Paint, width: usize) -> String {
    let mut text = String::new();
    let head = format!(
        "{}  {}  generation {}  {}",
        paint.bold(&status.app),
        status.state,
        status.generation,
        status.addresses.join(" ")
    );
    let _ = writeln!(text, "{}", head.trim_end());
    match (&status.live, &status.active) {
        (Some(live), Some(active)) => {
            let _ = write!(text, "  release {live} serves from {active}");
            if !status.serving {
                let _ = write!(text, "{}", paint.bad(" (not up: requests are held)"));
            }
        }
        _ if status.last.is_none() => text.push_str("  nothing is deployed yet"),
        _ => text.push_str(&paint.bad(
            "  no slot is active, requests are answered with 503: `slotctl deploy` makes one active",
        )),
    }
    match (&status.way_back, status.gone_back_ms) {
        (Some(previous), _) => {
            let _ = write!(text, ", `slotctl rollback` goes to {previous}");
        }
        (None, Some(at)) => {
            let ago = whole_span(Duration::from_millis(now.saturating_sub(at)));
            let _ = write!(text, ", since a rollback {ago} ago");
        }
        (None, None) => {}
    }
    text.push('\n');
    if let Some(until) = status.soak_until_ms {
        let _ = writeln!(
            text,
            "  soak ends {}, failed probes in a row: {}",
            time_until(until, now),
            status.health_fail_streak
        );
    }
    if let Some(held) = &status.deployment {
        let _ = write!(
            text,
            "  {} {} by {}: {} since {}",
            held.kind,
            held.generation,
            harmless(&held.by),
            held.phase,
            whole_span(Duration::from_millis(now.saturating_sub(held.began_ms)))
        );
        for (word, value) in [("release", &held.release), ("slot", &held.slot)] {
            if let Some(value) = value {
                let _ = write!(text, ", {word} {value}");
            }
        }
        if let Some(waits_for) = &held.waits_for {
            let _ = write!(text, "; waits for {}", harmless(waits_for));
        }
        text.push('\n');
        if let Some(plan) = &held.plan {
            text.push_str(&self::plan(plan, paint));
        }
    }
    text.push('\n');
    text.push_str(&slots(status, now, paint));
    let mut notes = remarks(status, now);
    notes.extend(last(status).map(|last| (Tone::of(last.1), last.0)));
    notes.extend(status.staging.as_ref().map(staging));
    if !status.previews.is_empty() {
        let text = format!("preview at {}", status.previews.join(", "));
        notes.push((Tone::Plain, text));
    }
    let held = status.hold.as_ref().map(|hold| held(hold, now));
    notes.extend(held);
    let warnings = status.warnings.iter();
    notes.extend(warnings.map(|warning| (Tone::Bad, format!("warning: {warning}"))));
    if !notes.is_empty() {
        text.push('\n');
    }
    for (tone, note) in notes {
        let lines = wrap(&format!("  {}", harmless(&note)), width, "    ");
        let lines = match tone {
            Tone::Plain => lines,
            Tone::Odd => paint.odd(&lines),
            Tone::Bad => paint.bad(&lines),
        };
        let _ = writeln!(text, "{lines}");
    }
    text
}

/// The step of a plan, and what both slots answered since it began.
fn plan(plan: &PlanStatus, paint: Paint) -> String {
    let state = match (plan.finished, plan.paused) {
        (true, _) => ", every step has passed",
        (_, true) => ", stands still",
        (false, false) => "",
    };
    let verdict = match plan.verdict.as_deref() {
        Some("fail") => paint.bad("fail"),
        Some(other) => other.to_owned(),
        None => "none yet".to_owned(),
    };
    let mut text = format!(
        "  step {} of {} at {}%{state}; verdict: {verdict}\n",
        plan.step, plan.steps, plan.weight
    );
    for (side, figures) in [("candidate", &plan.candidate), ("live", &plan.live)] {
        let _ = write!(
            text,
            "    {side:<9}  {} requests, {} errors",
            figures.requests, figures.errors
        );
        if figures.given_up > 0 {
            let _ = write!(text, ", {} given up", figures.given_up);
        }
        let quantiles = [
            ("p50", figures.p50_us),
            ("p95", figures.p95_us),
            ("p99", figures.p99_us),
        ];
        for (name, micros) in quantiles {
            if let Some(micros) = micros {
                let _ = write!(
                    text,
                    ", {name} {}.{} ms",
                    micros / 1000,
                    micros % 1000 / 100
                );
            }
        }
        text.push('\n');
    }
    text
}

/// How a remark is meant.
enum Tone {
    Plain,
    Odd,
    Bad,
}

impl Tone {
    fn of(success: bool) -> Self {
        if success { Self::Plain } else { Self::Odd }
    }
}

/// What the table has no room for: that the traffic went back, and what is wrong with a slot.
fn remarks(status: &Status, now: u64) -> Vec<(Tone, String)> {
    let mut remarks = Vec::new();
    if let Some(back) = &status.rolled_back {
        let release = |id: &Option<String>| id.clone().unwrap_or_else(|| "(unknown)".to_owned());
        let ago = whole_span(Duration::from_millis(now.saturating_sub(back.at_ms)));
        let text = format!(
            "rolled back by itself {ago} ago: the traffic went from release {} in {} back to release {} in {}, because {}",
            release(&back.from_release),
            back.from_slot,
            release(&back.to_release),
            back.to_slot,
            back.text
        );
        let text = match &back.reached {
            Some(found) => format!("{text}; then {found}"),
            None => text,
        };
        remarks.push((Tone::Bad, text));
    }
    for slot in &status.slots {
        let detail = slot.detail.as_deref().unwrap_or_default();
        let unit = slot.unit.trim_end_matches(".service");
        match (slot.condition.as_str(), detail.split_once(": ")) {
            ("failed", _) => remarks.push((Tone::Bad, format!("{} failed: {detail}", slot.slot))),
            ("active", Some(("down", why))) => {
                let text = format!("{} is down, its requests are held: {why}", slot.slot);
                remarks.push((Tone::Bad, text));
            }
            ("active", None) if detail == "stopped-by-hand" => {
                let text = format!(
                    "{} was stopped by hand, its requests are held, then refused; `systemctl start {unit}` brings it back",
                    slot.slot
                );
                remarks.push((Tone::Bad, text));
            }
            _ => {}
        }
    }
    remarks
}

/// Where staging is, and what it is of.
fn staging(staging: &Staging) -> (Tone, String) {
    let path = &staging.path;
    match (&staging.kept, &staging.coming, &staging.release) {
        (_, Some(coming), _) => (
            Tone::Plain,
            format!("staging: {path} is being made of release {coming}"),
        ),
        (Some(kept), None, _) => (Tone::Odd, format!("staging: {path}; {kept}")),
        (None, None, Some(release)) => (
            Tone::Plain,
            format!("staging: {path} is of release {release}"),
        ),
        (None, None, None) => (
            Tone::Plain,
            format!("staging: {path}, once a commit is deployed"),
        ),
    }
}

/// That nothing is deployed by itself, and since when.
fn held(hold: &Hold, now: u64) -> (Tone, String) {
    let since = whole_span(Duration::from_millis(now.saturating_sub(hold.at_ms)));
    let text = format!("{hold} (for {since}; `slotctl unhold` takes it back)");
    (Tone::Odd, text)
}

/// How the last attempt ended, and whether well.
fn last(status: &Status) -> Option<(String, bool)> {
    let last = status.last.as_ref()?;
    let what = format!("last: {} {}", last.kind, last.generation);
    let taken_back = status
        .rolled_back
        .as_ref()
        .is_some_and(|back| back.generation == last.generation);
    let text = if taken_back {
        // The reason stands above.
        format!("{what} switched, and was rolled back: {}", last.cause)
    } else if last.success {
        format!("{what} {}", last.cause)
    } else {
        format!(
            "{what} failed in phase {}: {}, {}",
            last.phase, last.cause, last.text
        )
    };
    Some((text, last.success))
}

fn slots(status: &Status, now: u64, paint: Paint) -> String {
    let rows: Vec<[String; 7]> = status.slots.iter().map(|slot| row(slot, now)).collect();
    let head = [
        "SLOT",
        "CONDITION",
        "RELEASE",
        "WEIGHT",
        "IN FLIGHT",
        "DRAIN",
        "UNIT",
    ]
    .map(str::to_owned);
    let mut lines = aligned(&head, &rows).into_iter();
    let mut text = lines
        .next()
        .map(|head| paint.dim(&head))
        .unwrap_or_default();
    text.push('\n');
    for (slot, line) in status.slots.iter().zip(lines) {
        let line = match slot.condition.as_str() {
            "active" => paint.good(&line),
            "failed" => paint.bad(&line),
            "draining" | "warm" | "stopping" | "standby" => paint.odd(&line),
            _ => line,
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

fn row(slot: &SlotStatus, now: u64) -> [String; 7] {
    let none = || "-".to_owned();
    [
        slot.slot.clone(),
        match &slot.detail {
            // Why it failed, or is down, is told below the table.
            Some(detail) if slot.condition != "failed" => {
                let word = detail.split(": ").next().unwrap_or_default();
                format!("{} ({})", slot.condition, harmless(word))
            }
            Some(_) | None => slot.condition.clone(),
        },
        match (
            &slot.release,
            slot.label
                .as_deref()
                .or_else(|| slot.source.as_ref()?.named()),
        ) {
            (Some(release), Some(name)) => format!("{release} ({})", harmless(name)),
            (Some(release), None) => release.clone(),
            (None, _) => none(),
        },
        format!("{}%", slot.weight),
        slot.in_flight.map_or_else(none, in_flight),
        cut(slot, now).unwrap_or_else(none),
        slot.unit.clone(),
    ]
}

/// `cut in 2m 15s`, or `cut requests now, streams in 10m, tunnels never`; nothing if it is never.
#[must_use]
pub fn cut(slot: &SlotStatus, now: u64) -> Option<String> {
    let Some(classes) = slot.drain_classes else {
        let until = slot.drain_until_ms?;
        return Some(format!("cut {}", time_until(until, now)));
    };
    let each = [
        ("requests", classes.requests_ms),
        ("streams", classes.streams_ms),
        ("tunnels", classes.tunnels_ms),
    ]
    .map(|(class, until)| {
        let when = until.map_or_else(|| "never".to_owned(), |until| time_until(until, now));
        format!("{class} {when}")
    });
    Some(format!("cut {}", each.join(", ")))
}

/// `requests 2, streams 1`, or `nothing`.
#[must_use]
pub fn in_flight(held: InFlight) -> String {
    let named = [
        ("requests", held.requests),
        ("streams", held.streams),
        ("tunnels", held.tunnels),
    ];
    let some: Vec<String> = named
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if some.is_empty() {
        "nothing".to_owned()
    } else {
        some.join(", ")
    }
}

/// `in 2m 15s`, or `now`; both in milliseconds since the epoch.
#[must_use]
pub fn time_until(until: u64, now: u64) -> String {
    match until.saturating_sub(now) {
        0..1000 => "now".to_owned(),
        left => format!("in {}", whole_span(Duration::from_millis(left))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::{Deadlines, Figures, Outcome, Progress};

    #[test]
    fn what_was_never_deployed_is_told_from_what_was_stopped() {
        let mut status = Status::default();
        let said = |status: &Status| table(status, 0, Paint::default(), 200);
        assert!(said(&status).contains("nothing is deployed yet"));
        status.last = Some(Outcome::default());
        assert!(
            said(&status).contains("no slot is active"),
            "{}",
            said(&status)
        );
    }

    #[test]
    fn a_plan_shows_what_both_sides_answered() {
        let figures = |requests, given_up, p50| Figures {
            requests,
            errors: requests / 100,
            given_up,
            p50_us: Some(p50),
            p95_us: Some(10 * p50),
            p99_us: None,
        };
        let held = Progress {
            plan: Some(PlanStatus {
                step: 2,
                steps: 3,
                weight: 10,
                verdict: Some("hold".to_owned()),
                candidate: figures(120, 7, 1_540),
                live: figures(1_080, 0, 950),
                ..PlanStatus::default()
            }),
            ..Progress::default()
        };
        let status = Status {
            deployment: Some(held),
            ..Status::default()
        };
        let said = table(&status, 0, Paint::default(), 200);
        for line in [
            "  step 2 of 3 at 10%; verdict: hold",
            "    candidate  120 requests, 1 errors, 7 given up, p50 1.5 ms, p95 15.4 ms",
            "    live       1080 requests, 10 errors, p50 0.9 ms, p95 9.5 ms",
        ] {
            assert!(said.lines().any(|it| it == line), "{line:?} in {said}");
        }
    }

    #[test]
    fn where_a_rollback_goes_is_said_unless_one_has_brought_what_is_live() {
        let mut status = Status {
            live: Some("00000001".to_owned()),
            active: Some("blue".to_owned()),
            serving: true,
            prev: Some("00000002".to_owned()),
            way_back: Some("00000002".to_owned()),
            ..Status::default()
        };
        let said = |status: &Status| table(status, 200_000, Paint::default(), 200);
        assert!(said(&status).contains("serves from blue, `slotctl rollback` goes to 00000002"));
        (status.way_back, status.gone_back_ms) = (None, Some(20_000));
        let text = said(&status);
        assert!(
            text.contains("serves from blue, since a rollback 3m 0s ago"),
            "{text}"
        );
        assert!(!text.contains("slotctl rollback"), "{text}");
    }

    #[test]
    fn a_drain_says_when_each_class_is_cut_where_they_differ() {
        let mut slot = SlotStatus::default();
        assert_eq!(cut(&slot, 1_000), None);
        slot.drain_until_ms = Some(31_000);
        assert_eq!(cut(&slot, 1_000).as_deref(), Some("cut in 30s"));
        slot.drain_classes = Some(Deadlines {
            requests_ms: Some(1_000),
            streams_ms: Some(601_000),
            tunnels_ms: None,
        });
        assert_eq!(
            cut(&slot, 1_000).as_deref(),
            Some("cut requests now, streams in 10m 0s, tunnels never")
        );
    }
}
