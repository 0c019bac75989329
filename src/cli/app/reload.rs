//! `slotctl app reload`: what was changed in the files in `/etc/slot/apps` is taken over.
//!
//! **Invariant:** nothing is changed before every file there is right: systemd reads all of them at once, and an app whose file is wrong
//! has units that do not start.
//! **Invariant:** no unit of an app is started, stopped or restarted, but what looks for something new.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::args::{AppReload, Global};
use super::super::client::{Client, ClientError, empty};
use super::super::exit::{Ended, Exit};
use super::super::term::{harmless, note, say, say_json};
use super::add::{allow, check, watch};
use super::{APPS, file_of, is_machines_own, systemctl};
use crate::config::{App, ConfigError, locate};
use crate::deploy::AppName;
use crate::units::{GENERATED, render};
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
    /// What slotd warns of besides: that systemd does not go by the file as it is, say.
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
    let apps: Vec<(App, bool)> = apps.into_iter().map(with_watch).collect();
    if is_root {
        systemctl(&["daemon-reload"])?;
    }
    let (mut reloaded, mut refused, mut exit) = (Vec::new(), BTreeMap::new(), Exit::Ok);
    let mut warnings = BTreeMap::new();
    for name in &names {
        match ask(global, name).await {
            Ok(status) => {
                reloaded.push(name.to_string());
                if !status.warnings.is_empty() {
                    warnings.insert(name.to_string(), status.warnings);
                }
                // Only now: until slotd goes by the file it may have to stop a slot that is not named there any more.
                if let Some((app, watches_otherwise)) =
                    apps.iter().find(|(app, _)| app.name == *name)
                {
                    allow(app)?;
                    if *watches_otherwise {
                        watch(app)?;
                    }
                }
            }
            // The others would not be heard either.
            Err(error) if error.is_passing() => return Err(error.into()),
            Err(error) => {
                exit = error.exit();
                refused.insert(name.to_string(), error.to_string());
            }
        }
    }
    tell(global.json, exit, reloaded, refused, warnings)?;
    Ok(exit)
}

/// An app, and whether what it says of its automatic deployments is not what systemd has: if it is, one that is under way goes on.
fn with_watch(app: App) -> (App, bool) {
    let file = file_of(&app.name);
    let name = format!("slot-watch@{}.", app.name);
    let read = |path: &str| fs::read_to_string(Path::new(GENERATED).join(path));
    let mut units = render(&app, &file);
    units.retain(|unit| unit.path.starts_with(&name));
    let differs = match units.is_empty() {
        true => read(&format!("{name}timer")).is_ok(),
        false => units
            .iter()
            .any(|unit| read(&unit.path).ok().as_ref() != Some(&unit.text)),
    };
    (app, differs)
}

async fn ask(global: &Global, name: &AppName) -> Result<Status, ClientError> {
    let client = Client::new(global.socket(), Some(name.as_str()));
    client.post("/reload", empty()).await
}

fn tell(
    json: bool,
    exit: Exit,
    reloaded: Vec<String>,
    refused: BTreeMap<String, String>,
    warnings: BTreeMap<String, Vec<String>>,
) -> anyhow::Result<()> {
    let success = refused.is_empty();
    let whys = refused.values().map(String::as_str).collect::<Vec<_>>();
    if json {
        say_json(&Answer {
            ended: exit.ended(|| whys.join("\n")),
            reloaded,
            refused,
            warnings,
        })?;
        return Ok(());
    }
    for why in whys {
        note(&format!("slotctl: {}\n", harmless(why)));
    }
    for warning in warnings.values().flatten() {
        note(&format!("slotctl: warning: {}\n", harmless(warning)));
    }
    let line = |name: &String| format!("{name} goes by {APPS}/{name}.toml as it is now.\n");
    let text: String = reloaded.iter().map(line).collect();
    say(match (text.as_str(), success) {
        ("", true) => "No app is registered.\n",
        (text, _) => text,
    })?;
    Ok(())
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
