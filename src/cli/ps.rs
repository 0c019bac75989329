//! `slotctl ps`: the slots of an app, or of all, a line each.
//!
//! **Invariant:** the text is a pure function of what slotd answers.

use std::io::stdout;

use hyper::Method;
use serde::Serialize;

use super::client::{Client, empty};
use super::exit::Exit;
use super::status::in_flight;
use super::term::{Paint, aligned, harmless, say, say_json};
use crate::wire::api::{Apps, SlotStatus, Status};

/// What `--json` says.
#[derive(Debug, Serialize)]
struct Listed {
    slots: Vec<Line>,
}

/// One slot, and whose it is.
#[derive(Debug, Serialize)]
struct Line {
    app: String,
    #[serde(flatten)]
    slot: SlotStatus,
}

/// Lists the slots.
///
/// # Errors
/// If slotd does not answer.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    let apps = match client.names_an_app() {
        true => vec![client.get::<Status>("/status").await?],
        false => {
            client
                .ask::<Apps>(Method::GET, "/apps", empty())
                .await?
                .apps
        }
    };
    if json {
        let lines = apps.into_iter().flat_map(|status| {
            let app = status.app;
            let of_app = move |slot| Line {
                app: app.clone(),
                slot,
            };
            status.slots.into_iter().map(of_app)
        });
        say_json(&Listed {
            slots: lines.collect(),
        })?;
    } else {
        say(&table(&apps, Paint::of(&stdout())))?;
    }
    Ok(Exit::Ok)
}

/// A line for each slot; each is called as it can be named, `web:blue`.
#[must_use]
pub fn table(apps: &[Status], paint: Paint) -> String {
    let slots = || {
        apps.iter()
            .flat_map(|status| status.slots.iter().map(|slot| (&*status.app, slot)))
    };
    if slots().next().is_none() {
        return "No app is registered; `slotctl init` and `sudo slotctl deploy PATH` make the first.\n"
            .to_owned();
    }
    let head = [
        "SLOT",
        "CONDITION",
        "RELEASE",
        "VERSION",
        "WEIGHT",
        "HEALTH",
        "IN FLIGHT",
        "RESTARTS",
        "BOOT ID",
    ]
    .map(str::to_owned);
    let rows: Vec<[String; 9]> = slots().map(|(app, slot)| row(app, slot)).collect();
    let mut lines = aligned(&head, &rows).into_iter();
    let mut text = lines
        .next()
        .map(|head| paint.dim(&head))
        .unwrap_or_default();
    text.push('\n');
    for ((_, slot), line) in slots().zip(lines) {
        text.push_str(&match (slot.health.as_deref(), slot.weight) {
            (Some("down" | "failing"), _) => paint.bad(&line),
            (_, 1..) => paint.good(&line),
            (_, 0) => line,
        });
        text.push('\n');
    }
    text
}

fn row(app: &str, slot: &SlotStatus) -> [String; 9] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        format!("{app}:{}", slot.slot),
        slot.condition.clone(),
        or_none(slot.release.clone()),
        or_none(slot.label.as_deref().map(harmless)),
        format!("{}%", slot.weight),
        or_none(slot.health.clone()),
        or_none(slot.in_flight.map(in_flight)),
        or_none(slot.restarts.map(|count| count.to_string())),
        or_none(slot.boot_id.clone()),
    ]
}
