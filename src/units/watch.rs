//! The units by which an app is deployed by itself: `slot-watch@web.service` looks, and `.timer` and `.path` start it.
//!
//! **Invariant:** it is none of slotd's: no polkit rule names it, and slotd never starts it.
//! **Invariant:** the template alone runs nothing.

use std::fmt::Write as _;
use std::path::Path;

use super::UnitFile;
use super::text::{drop_in, word};
use crate::config::{App, Auto, Watched, systemd_span};
use crate::deploy::AppName;

/// The unit that looks, and deploys what is new.
#[must_use]
pub fn watch_service(name: &AppName) -> String {
    format!("slot-watch@{name}.service")
}

/// Those that start it.
#[must_use]
pub fn watch_triggers(app: &App) -> Vec<String> {
    let timer = format!("slot-watch@{}.timer", app.name);
    let path = format!("slot-watch@{}.path", app.name);
    match app.auto.as_ref().map(|auto| &auto.watched) {
        Some(Watched::Git) => vec![timer],
        Some(Watched::Path(_)) => vec![timer, path],
        None => Vec::new(),
    }
}

/// A pattern for all of an app's that are loaded, whatever its file says now.
#[must_use]
pub fn watch_units(name: &AppName) -> String {
    format!("slot-watch@{name}.[pst]*")
}

/// What an app adds; nothing without `[auto]`.
pub(super) fn watch(app: &App, source: &Path) -> Vec<UnitFile> {
    let Some(auto) = &app.auto else {
        return Vec::new();
    };
    let mut files = vec![service(app, auto, source), timer(app, auto, source)];
    if let Watched::Path(path) = &auto.watched {
        files.push(UnitFile {
            path: format!("slot-watch@{}.path", app.name),
            text: format!(
                "{}\n\
                 [Path]\n\
                 # When what was opened for writing is closed, and when a file comes by its name (systemd.path(5)).\n\
                 PathChanged={path}\n\
                 # A directory that is written to all the time is looked at by the timer.\n\
                 TriggerLimitIntervalSec=10s\n\
                 TriggerLimitBurst=100\n",
                header(app, source, "New files for"),
            ),
        });
    }
    // What a generator makes has no [Install]: these are its links.
    for trigger in watch_triggers(app) {
        let target = match trigger.ends_with(".timer") {
            true => "timers.target",
            false => "paths.target",
        };
        files.push(UnitFile {
            path: format!("{target}.d/50-slot-watch-{}.conf", app.name),
            text: format!("[Unit]\nWants={trigger}\n"),
        });
    }
    files
}

fn service(app: &App, auto: &Auto, source: &Path) -> UnitFile {
    let name = &app.name;
    let mut command = format!("auto --app {name} --memory /var/lib/slot-watch/{name}");
    for window in &auto.windows {
        let _ = write!(command, " --window {}", word(&window.to_string()));
    }
    let mut settings = String::new();
    if let Watched::Path(path) = &auto.watched {
        let _ = write!(command, " --path {path}");
    } else {
        command.push_str(" --git");
    }
    if let Some(user) = &auto.user {
        let _ = write!(
            settings,
            "DynamicUser=no\nUser={user}\nProtectHome=read-only\n"
        );
    }
    drop_in(&watch_service(name), source, &command, &settings)
}

fn timer(app: &App, auto: &Auto, source: &Path) -> UnitFile {
    let every = systemd_span(auto.every);
    UnitFile {
        path: format!("slot-watch@{}.timer", app.name),
        text: format!(
            "{}\n\
             [Timer]\n\
             OnActiveSec=2s\n\
             # From the end of a look to the next.\n\
             OnUnitInactiveSec={every}\n\
             AccuracySec=1s\n\
             # Not every server at once.\n\
             RandomizedDelaySec={}\n",
            header(app, source, "Looks for what is new of"),
            systemd_span(auto.every / 10),
        ),
    }
}

fn header(app: &App, source: &Path, what: &str) -> String {
    let source = source.display();
    format!(
        "# Made by slot-generator out of {source}: what is changed here is lost.\n\
         [Unit]\n\
         Description={what} {name}\n\
         Documentation=man:slot.toml(5)\n\
         SourcePath={source}\n",
        name = app.name,
    )
}
