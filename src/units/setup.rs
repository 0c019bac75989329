//! The unit that makes an app's releases ready: `slot-setup@web.service`, an instance of the template that the package brings.
//!
//! **Invariant:** the template alone runs nothing, so that every name that a polkit rule may let slotd's user start has a unit,
//! whatever became of the app's file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::{assignment, drop_in, word};
use super::{RUN, STATE, UnitFile};
use crate::config::{App, systemd_span};
use crate::deploy::AppName;

/// The unit that runs an app's `setup_command`.
#[must_use]
pub fn setup_service(name: &AppName) -> String {
    format!("slot-setup@{name}.service")
}

/// Where slotd gives a build its bits and takes what it makes of them; `run` is `/run/slot`. In a directory of slotd's own, and never
/// mounted anywhere: PID 1 follows no path that slotd can replace.
#[must_use]
pub fn setup_socket(run: &Path, name: &AppName) -> PathBuf {
    run.join("slotd/build").join(format!("{name}.sock"))
}

/// What an app adds to the template; nothing without a `setup_command`.
pub(super) fn setup_drop_in(app: &App, source: &Path) -> Option<UnitFile> {
    let command = app.setup_command.as_ref()?;
    let name = &app.name;
    let mut line = format!(
        "build --app {name} --root {STATE} --socket {} --",
        setup_socket(Path::new(RUN), name).display(),
    );
    for argument in command {
        let _ = write!(line, " {}", word(argument));
    }
    let mut settings = format!("RuntimeMaxSec={}\n", systemd_span(app.setup_timeout));
    if let Some(user) = app.setup_user() {
        let _ = write!(
            settings,
            "DynamicUser=no\nUser={user}\nProtectHome=read-only\n"
        );
    }
    for (variable, value) in &app.env {
        let _ = writeln!(settings, "Environment={}", assignment(variable, value));
    }
    Some(drop_in(&setup_service(name), source, &line, &settings))
}
