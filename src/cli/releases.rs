//! `slotctl releases`: what can be deployed again, and which one somebody means.

use std::io::stdout;
use std::time::Duration;

use super::client::Client;
use super::exit::Exit;
use super::status::now_ms;
use super::term::{Paint, aligned, harmless, say, say_json, whole_span};
use crate::telemetry::bytes;
use crate::wire::release::{Release, Releases};

/// Lists them, newest first.
///
/// # Errors
/// If slotd does not answer.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    let listed: Releases = client.get("/releases").await?;
    if json {
        say_json(&listed)?;
    } else {
        say(&table(&listed.releases, now_ms(), Paint::of(&stdout())))?;
    }
    Ok(Exit::Ok)
}

/// A line for each; `now` is milliseconds since the epoch.
#[must_use]
pub fn table(releases: &[Release], now: u64, paint: Paint) -> String {
    if releases.is_empty() {
        return "No release is on disk; `slotctl deploy PATH` makes the first.\n".to_owned();
    }
    let rows: Vec<[String; 6]> = releases
        .iter()
        .map(|release| {
            [
                release.id.clone(),
                harmless(&release.source.text()),
                release.label.clone().unwrap_or_else(|| "-".to_owned()),
                bytes(release.size),
                whole_span(Duration::from_millis(now.saturating_sub(release.made_ms))),
                used(release),
            ]
        })
        .collect();
    let head = ["RELEASE", "SOURCE", "LABEL", "SIZE", "AGE", "IN USE"].map(str::to_owned);
    let mut lines = aligned(&head, &rows).into_iter();
    let mut text = lines
        .next()
        .map(|head| paint.dim(&head))
        .unwrap_or_default();
    for (release, line) in releases.iter().zip(lines) {
        text.push('\n');
        text.push_str(&match (release.live, release.marked) {
            (true, _) => paint.good(&line),
            (false, true) => paint.odd(&line),
            (false, false) => line,
        });
    }
    text.push('\n');
    text
}

/// `live, blue`, `prev`, `rolled back`, or nothing.
fn used(release: &Release) -> String {
    let words = [
        (release.live, "live"),
        (release.prev, "prev"),
        (release.marked, "rolled back"),
    ];
    let words = words
        .iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, word)| *word);
    let used: Vec<&str> = words
        .chain(release.slots.iter().map(String::as_str))
        .collect();
    match used.is_empty() {
        true => "-".to_owned(),
        false => used.join(", "),
    }
}

/// The id of the release that is meant by an id or a label.
///
/// # Errors
/// There is none, or more than one has that label.
pub async fn meant(client: &Client, named: &str) -> anyhow::Result<String> {
    let listed: Releases = client.get("/releases").await?;
    if listed.releases.iter().any(|release| release.id == named) {
        return Ok(named.to_owned());
    }
    let labelled = |release: &&Release| release.label.as_deref() == Some(named);
    let found: Vec<&Release> = listed.releases.iter().filter(labelled).collect();
    let ids = |releases: &[&Release]| -> String {
        let named = |it: &&Release| match &it.label {
            Some(label) => format!("{} ({label})", it.id),
            None => it.id.clone(),
        };
        releases.iter().map(named).collect::<Vec<_>>().join(", ")
    };
    match found[..] {
        [release] => Ok(release.id.clone()),
        [] if listed.releases.is_empty() => Err(Exit::NotFound.because(format!(
            "there is no release {named}, nor any other: deploy one first"
        ))),
        [] => Err(Exit::NotFound.because(format!(
            "there is no release with the id or the label {named} on disk: it was never deployed here, or was removed since (`keep` in \
             slot.toml says how many stay); there are {}",
            ids(&listed.releases.iter().collect::<Vec<_>>())
        ))),
        _ => Err(Exit::Input.because(format!(
            "more than one release has the label {named}: {}; name one by its id",
            ids(&found)
        ))),
    }
}
