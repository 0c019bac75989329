//! `slotctl app reload`: what was changed in the files in `/etc/slot/apps` is taken over.
//!
//! **Invariant:** nothing is changed before every file there is right: systemd reads all of them at once, and an app whose file is wrong
//! has units that do not start.
//! **Invariant:** no unit of an app is started, stopped or restarted, but what looks for something new.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::super::args::{AppReload, Global};
use super::super::client::{Client, ClientError, empty};
use super::super::exit::{Ended, Exit};
use super::super::term::{harmless, note, say, say_json};
use super::add::{allow, check, watch};
use super::{APPS, file_of, is_machines_own, systemctl};
use crate::config::{App, ConfigError, locate};
use crate::deploy::AppName;
use crate::units::{GENERATED, differing, render, watch_triggers};
use crate::wire::api::Status;

/// What came of it.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    ended: Ended,
    /// Apps that go by their files now.
    reloaded: Vec<String>,
    /// The others, and why.
    refused: BTreeMap<String, String>,
    /// What slotd has to say of those that go by their files now.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    warnings: BTreeMap<String, Vec<String>>,
}

/// Takes over what changed.
///
/// # Errors
/// A file is wrong, there is none, or systemd or slotd does not do what is asked.
pub async fn run(global: &Global, options: &AppReload) -> anyhow::Result<Exit> {
    if !is_machines_own(global.socket()) {
        return Err(Exit::Usage.because(format!(
            "the files in {APPS} are those of this machine's own slotd, and {} is not where it listens; an app that `slotctl start` runs \
             has its file read when that is started",
            global.socket().display()
        )));
    }
    let named = options.name.as_ref().or(global.app.as_ref());
    let names = match named {
        Some(name) if !file_of(name).exists() => {
            return Err(Exit::NotFound.because(format!(
                "there is no app {name}: no file {}; `slotctl app add` makes it of a slot.toml",
                file_of(name).display()
            )));
        }
        Some(name) => vec![name.clone()],
        None => files().iter().filter_map(|file| name_of(file)).collect(),
    };
    let is_root = nix::unistd::geteuid().is_root();
    let apps = if is_root {
        read_all(&names)?
    } else {
        Vec::new()
    };
    let apps: Vec<(App, bool)> = apps.into_iter().map(with_difference).collect();
    if is_root {
        systemctl(&["daemon-reload"])?;
    }
    let (mut reloaded, mut refused) = (BTreeMap::new(), Vec::new());
    for name in &names {
        let app = apps.iter().find(|(app, _)| app.name == *name);
        match take_over(global, name, app).await {
            Ok(warnings) => drop(reloaded.insert(name.to_string(), warnings)),
            Err(error) => refused.push((name.to_string(), error)),
        }
    }
    tell(global.json, reloaded, &refused)
}

/// Has slotd go by an app's file, and does as root what is not slotd's; of the app as its file says, with what [`with_difference`] says. Gives
/// what slotd has to say of it.
async fn take_over(
    global: &Global,
    name: &AppName,
    app: Option<&(App, bool)>,
) -> anyhow::Result<Vec<String>> {
    let warnings = ask(global, name).await?.warnings;
    let Some((app, differs)) = app else {
        return Ok(warnings);
    };
    // Only now: until slotd goes by the file it may have to stop a slot that is not named there any more.
    let rest = allow(app).and_then(|()| match *differs || is_watched_otherwise(app)? {
        true => watch(app),
        // One that is under way goes on.
        false => Ok(()),
    });
    rest.with_context(|| {
        format!(
            "slotd goes by {} as it is now, and the rest is not done; `slotctl app reload {name}` does it",
            file_of(name).display()
        )
    })?;
    Ok(warnings)
}

/// An app, and whether what its file says of automatic deployments is not what generators have made of it. That is looked at before
/// systemd reads it.
fn with_difference(app: App) -> (App, bool) {
    let of_watch = format!("slot-watch@{}.", app.name);
    let made = render(&app, &file_of(&app.name));
    let differing = differing(&app.name, &made, Path::new(GENERATED));
    let differs = differing.iter().any(|path| path.starts_with(&of_watch));
    (app, differs)
}

/// Whether other units start the watch of an app than those that its file asks for. Somebody may have had systemd read the file before: it
/// starts no unit by that, and stops none.
fn is_watched_otherwise(app: &App) -> anyhow::Result<bool> {
    let mut words = vec!["list-units", "--plain", "--no-legend", "--state=active"];
    let triggers = [
        format!("slot-watch@{}.timer", app.name),
        format!("slot-watch@{}.path", app.name),
    ];
    words.extend(triggers.iter().map(String::as_str));
    let listed = systemctl(&words)?;
    Ok(units_in(&listed) != watch_triggers(app).into_iter().collect())
}

/// The first word of each line of `systemctl list-units --plain --no-legend`.
fn units_in(listed: &str) -> BTreeSet<String> {
    let units = listed
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next());
    units.map(str::to_owned).collect()
}

async fn ask(global: &Global, name: &AppName) -> Result<Status, ClientError> {
    let client = Client::new(global.socket(), Some(name.as_str()));
    client.post("/reload", empty()).await
}

/// Tells of every app, and gives the status: that of a refusal, or of several where they have the same.
fn tell(
    json: bool,
    reloaded: BTreeMap<String, Vec<String>>,
    refused: &[(String, anyhow::Error)],
) -> anyhow::Result<Exit> {
    let exit = status(refused.iter().map(|(_, error)| Exit::of(error)));
    let why = |error: &anyhow::Error| format!("{error:#}");
    // slotd that is away is so for all of them.
    let whys: BTreeSet<String> = refused.iter().map(|(_, error)| why(error)).collect();
    if json {
        say_json(&Answer {
            ended: exit.ended(|| Vec::from_iter(whys).join("\n")),
            reloaded: reloaded.keys().cloned().collect(),
            refused: (refused.iter())
                .map(|(name, error)| (name.clone(), why(error)))
                .collect(),
            warnings: (reloaded.into_iter())
                .filter(|(_, warnings)| !warnings.is_empty())
                .collect(),
        })?;
        return Ok(exit);
    }
    for why in whys {
        note(&format!("slotctl: {}\n", harmless(&why)));
    }
    for warning in reloaded.values().flatten() {
        note(&format!("slotctl: warning: {}\n", harmless(warning)));
    }
    let line = |name: &String| format!("{name} goes by {APPS}/{name}.toml as it is now.\n");
    let text: String = reloaded.keys().map(line).collect();
    say(match (text.as_str(), exit) {
        ("", Exit::Ok) => "No app is registered.\n",
        (text, _) => text,
    })?;
    Ok(exit)
}

fn status(mut refusals: impl Iterator<Item = Exit>) -> Exit {
    let Some(first) = refusals.next() else {
        return Exit::Ok;
    };
    match refusals.all(|exit| exit == first) {
        true => first,
        false => Exit::Failed,
    }
}

/// The apps, of which every file there is was found to be right.
fn read_all(names: &[AppName]) -> anyhow::Result<Vec<App>> {
    let (mut apps, mut faults) = (Vec::new(), Vec::new());
    for file in files() {
        let shown = file.display().to_string();
        match fs::read_to_string(&file) {
            Ok(text) => match App::parse(&text, &shown) {
                Ok(app) => match app.check_installed(&shown) {
                    Ok(()) => apps.push(app),
                    Err(fault) => faults.push(placed(fault, &text)),
                },
                Err(_) => faults.extend(App::faults(&text, &shown)),
            },
            Err(error) => {
                return Err(Exit::Input.because(format!("cannot read {shown}: {error}")));
            }
        }
    }
    if !faults.is_empty() {
        let lines: Vec<String> = faults
            .iter()
            .map(|fault| harmless(&fault.to_string()))
            .collect();
        return Err(Exit::Input.because(format!(
            "nothing was taken over, and everything goes on by the settings that it has:\n{}",
            lines.join("\n")
        )));
    }
    let wanted = apps.into_iter().filter(|app| names.contains(&app.name));
    let apps: Vec<App> = wanted.collect();
    for app in &apps {
        check(app, &file_of(&app.name).display().to_string())?;
    }
    Ok(apps)
}

/// With the line of its key, or of the table that the key is missing in.
fn placed(fault: ConfigError, text: &str) -> ConfigError {
    let (line, column) = locate(text, &fault.key).unzip();
    ConfigError {
        line,
        column,
        ..fault
    }
}

/// Every app's file, in order.
fn files() -> Vec<PathBuf> {
    let listed = fs::read_dir(APPS).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == "toml"));
    files.sort();
    files
}

fn name_of(file: &Path) -> Option<AppName> {
    file.file_stem()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_refusals_where_they_have_one() {
        let of = |exits: &[Exit]| status(exits.iter().copied());
        assert_eq!(of(&[]), Exit::Ok);
        assert_eq!(of(&[Exit::Busy]), Exit::Busy);
        assert_eq!(
            of(&[Exit::Unreachable, Exit::Unreachable]),
            Exit::Unreachable
        );
        assert_eq!(of(&[Exit::Busy, Exit::Unreachable]), Exit::Failed);
    }

    #[test]
    fn units_are_read_from_what_systemctl_lists() {
        let listed = "slot-watch@web.path  loaded active waiting New files for web\n\
                      slot-watch@web.timer loaded active waiting Looks for what is new of web\n";
        let units = units_in(listed);
        assert_eq!(
            Vec::from_iter(units),
            ["slot-watch@web.path", "slot-watch@web.timer"]
        );
        assert!(units_in("").is_empty());
    }
}
