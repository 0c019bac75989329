//! `slotctl app list`.

use std::fmt::Write;

use hyper::Method;

use super::super::client::{Client, empty};
use super::super::exit::Exit;
use super::super::term::{harmless, say, say_json};
use crate::wire::api::Apps;

/// Lists the apps.
///
/// # Errors
/// If slotd does not answer.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    let apps: Apps = client.ask(Method::GET, "/apps", empty()).await?;
    if json {
        say_json(&apps)?;
    } else {
        say(&table(&apps))?;
    }
    Ok(Exit::Ok)
}

fn table(apps: &Apps) -> String {
    let width = |names: &mut dyn Iterator<Item = &str>| names.map(str::len).max().unwrap_or(0);
    let name = width(&mut apps.apps.iter().map(|app| app.app.as_str()).chain(["APP"]));
    let state = width(
        &mut apps
            .apps
            .iter()
            .map(|app| app.state.as_str())
            .chain(["STATE"]),
    );
    let mut text = String::new();
    if !apps.apps.is_empty() {
        let _ = writeln!(
            text,
            "{:<name$}  {:<state$}  {:<8}  ADDRESS",
            "APP", "STATE", "RELEASE"
        );
    }
    for app in &apps.apps {
        let live = app.live.as_deref().unwrap_or("-");
        let line = format!(
            "{:<name$}  {:<state$}  {live:<8}  {}",
            app.app,
            app.state,
            app.addresses.join(" ")
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (app, why) in &apps.broken {
        let _ = writeln!(text, "{app}: broken: {}", harmless(why));
    }
    if text.is_empty() {
        text.push_str(
            "No app is registered; `slotctl init` and `sudo slotctl deploy PATH` make the first.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::Status;

    #[test]
    fn apps_and_what_could_not_be_read_are_listed() {
        let web = Status {
            app: "web".to_owned(),
            state: "idle".to_owned(),
            live: Some("1a2b3c4d".to_owned()),
            addresses: vec!["http://127.0.0.1:80/".to_owned()],
            ..Status::default()
        };
        let apps = Apps {
            apps: vec![web],
            broken: [("shop".to_owned(), "no command".to_owned())].into(),
        };
        assert_eq!(
            table(&apps),
            "APP  STATE  RELEASE   ADDRESS\n\
             web  idle   1a2b3c4d  http://127.0.0.1:80/\n\
             shop: broken: no command\n"
        );
    }
}
