//! `slotctl weight`, `route`, `abort`, `pause`, `resume`, `stop`: who gets how many of the new requests.

use std::io::stdout;

use super::args::{Abort, Global, Pause, Route, Stop, Target, Wait, Weight};
use super::client::{Client, empty};
use super::deploy::{path_of, show};
use super::exit::Exit;
use super::follow::attempt;
use super::progress::Screen;
use super::term::{Paint, harmless, say, say_json};
use crate::wire::api::{Begun, Shares};

/// The same options, for the app that a slot is named with.
///
/// # Errors
/// `--app` names another.
pub fn aimed(global: &Global, target: &Target) -> anyhow::Result<Global> {
    of_app(global, target.app.as_ref())
}

/// The same options, for an app that is named among the arguments.
///
/// # Errors
/// `--app` names another.
pub fn of_app(global: &Global, app: Option<&crate::deploy::AppName>) -> anyhow::Result<Global> {
    match (app, &global.app) {
        (Some(own), Some(app)) if own != app => Err(Exit::Usage.because(format!(
            "--app names {app}, and {own} is named too; leave one of them out"
        ))),
        (Some(own), _) => Ok(Global {
            app: Some(own.clone()),
            ..global.clone()
        }),
        (None, _) => Ok(global.clone()),
    }
}

/// Gives a slot another weight. All of it is a promotion, which is followed to its end.
///
/// # Errors
/// If slotd refuses.
pub async fn weight(global: &Global, client: &Client, options: &Weight) -> anyhow::Result<Exit> {
    let mut asked = options.expecting.queries();
    asked.push(("slot", options.slot.name.clone()));
    asked.push(("weight", options.weight.to_string()));
    let shares = client.post(&path_of("/weight", &asked), empty()).await?;
    tell(global, client, &shares).await
}

/// Lets a slot take the place of the active one.
///
/// # Errors
/// If slotd refuses.
pub async fn route(global: &Global, client: &Client, options: &Route) -> anyhow::Result<Exit> {
    let mut asked = options.expecting.queries();
    asked.push(("from", options.from.name.clone()));
    asked.push(("to", options.to.name.clone()));
    let shares = client.post(&path_of("/route", &asked), empty()).await?;
    tell(global, client, &shares).await
}

/// Takes back what has not switched yet.
///
/// # Errors
/// If slotd refuses.
pub async fn abort(global: &Global, client: &Client, options: &Abort) -> anyhow::Result<Exit> {
    let path = path_of("/abort", &options.expecting.queries());
    let shares = client.post(&path, empty()).await?;
    tell(global, client, &shares).await
}

/// Has the plan under way stand still, or go on.
///
/// # Errors
/// If slotd refuses.
pub async fn pause(
    global: &Global,
    client: &Client,
    options: &Pause,
    paused: bool,
) -> anyhow::Result<Exit> {
    let path = if paused { "/pause" } else { "/resume" };
    let path = path_of(path, &options.expecting.queries());
    let shares = client.post(&path, empty()).await?;
    tell(global, client, &shares).await
}

/// Stops a slot.
///
/// # Errors
/// If slotd refuses.
pub async fn stop(global: &Global, client: &Client, options: &Stop) -> anyhow::Result<Exit> {
    let mut asked = options.expecting.queries();
    asked.push(("slot", options.slot.name.clone()));
    asked.push(("force", options.force.to_string()));
    let shares = client.post(&path_of("/stop", &asked), empty()).await?;
    tell(global, client, &shares).await
}

/// Says what was done; a switch is watched until it is one.
async fn tell(global: &Global, client: &Client, shares: &Shares) -> anyhow::Result<Exit> {
    if shares.switches {
        let mut screen = Screen::new(global.json);
        let begun = Begun {
            generation: shares.generation,
            release: shares.release.clone(),
            repeated: false,
            already: None,
        };
        let begun = std::future::ready(Ok(begun));
        let outcome = attempt(client, begun, || None, Wait::Switched, &mut screen).await?;
        return show(global, client, &outcome).await;
    }
    if global.json {
        say_json(shares)?;
        return Ok(Exit::Ok);
    }
    say(&screen(shares, Paint::of(&stdout())))?;
    Ok(Exit::Ok)
}

/// `web: green has 50% of new requests, blue 50%`.
#[must_use]
pub fn screen(shares: &Shares, paint: Paint) -> String {
    let app = paint.bold(&format!("{}:", shares.app));
    let mut text = format!("{app} {}\n", harmless(&shares.text));
    if !shares.everywhere {
        text.push_str(&paint.odd(
            "  The routers do not all have the table yet; it is tried on, and `slotctl status` says why.",
        ));
        text.push('\n');
    }
    text
}
