//! `slotctl status`: an app on one screen.
//!
//! **Invariant:** the text is a pure function of what slotd answers and the time.

use std::fmt::Write;
use std::io::stdout;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;

use super::client::{Client, empty};
use super::exit::Exit;
use super::term::{Paint, harmless, say, say_json, whole_span};
use crate::wire::api::{Apps, SlotStatus, Status};
use crate::wire::control::InFlight;

/// Shows one app, or all when none is named.
///
/// # Errors
/// If slotd does not answer.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    if json {
        say_json(&client.get::<Status>("/status").await?)?;
        return Ok(Exit::Ok);
    }
    let apps = if client.names_an_app() {
        Apps {
            apps: vec![client.get("/status").await?],
            ..Apps::default()
        }
    } else {
        client.ask::<Apps>(Method::GET, "/apps", empty()).await?
    };
    let paint = Paint::of(&stdout());
    let mut text = String::new();
    for status in &apps.apps {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table(status, now_ms(), paint));
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

/// Milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| {
            u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
        })
}

/// An app as a paragraph and a table of its slots; `now` is milliseconds since the epoch.
#[must_use]
pub fn table(status: &Status, now: u64, paint: Paint) -> String {
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
        _ => text.push_str("  nothing is deployed yet"),
    }
    if let Some(previous) = &status.prev {
        let _ = write!(text, ", `slotctl rollback` goes to {previous}");
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
    }
    text.push('\n');
    text.push_str(&slots(status, now, paint));
    if let Some(last) = &status.last {
        let ended = if last.success {
            format!("last: {} {} {}", last.kind, last.generation, last.cause)
        } else {
            paint.odd(&format!(
                "last: {} {} failed in phase {}: {}",
                last.kind, last.generation, last.phase, last.cause
            ))
        };
        let _ = write!(text, "\n  {ended}");
        if !last.success {
            let _ = write!(text, ", {}", harmless(&last.text));
        }
        text.push('\n');
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "  {} {}", paint.bad("warning:"), harmless(warning));
    }
    text
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
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            std::iter::once(&head)
                .chain(&rows)
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &[String; 7]| {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:<width$} ");
        }
        line.trim_end().to_owned()
    };
    let mut text = format!("{}\n", paint.dim(&line(&head)));
    for (slot, row) in status.slots.iter().zip(&rows) {
        let line = line(row);
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
            Some(detail) => format!("{} ({})", slot.condition, harmless(detail)),
            None => slot.condition.clone(),
        },
        slot.release.clone().unwrap_or_else(none),
        format!("{}%", slot.weight),
        slot.in_flight.map_or_else(none, in_flight),
        slot.drain_until_ms
            .map_or_else(none, |until| format!("cut {}", time_until(until, now))),
        slot.unit.clone(),
    ]
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
