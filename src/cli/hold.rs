//! `slotctl hold` and `unhold`: whether anything is deployed by itself.

use super::args::{Hold, Unhold};
use super::client::{Client, empty};
use super::deploy::path_of;
use super::exit::Exit;
use super::term::{harmless, say, say_json};
use crate::wire::api::Status;

/// Lets nothing be deployed by itself.
///
/// # Errors
/// If slotd refuses.
pub async fn hold(client: &Client, options: &Hold, json: bool) -> anyhow::Result<Exit> {
    let reason = options
        .reason
        .iter()
        .map(|reason| ("reason", reason.clone()));
    let asked: Vec<_> = reason.chain(options.expecting.queries()).collect();
    let status: Status = client.post(&path_of("/hold", &asked), empty()).await?;
    show(&status, json)
}

/// Lets what is new be deployed by itself again.
///
/// # Errors
/// If slotd refuses.
pub async fn unhold(client: &Client, options: &Unhold, json: bool) -> anyhow::Result<Exit> {
    let path = path_of("/unhold", &options.expecting.queries());
    let status: Status = client.post(&path, empty()).await?;
    show(&status, json)
}

fn show(status: &Status, json: bool) -> anyhow::Result<Exit> {
    if json {
        say_json(status)?;
        return Ok(Exit::Ok);
    }
    let text = match &status.hold {
        Some(hold) => format!("{hold}; what people deploy goes on, `slotctl unhold` takes it back"),
        None => "what is new is deployed by itself, where `[auto]` of slot.toml says so".to_owned(),
    };
    say(&format!("{}: {}\n", status.app, harmless(&text)))?;
    Ok(Exit::Ok)
}
