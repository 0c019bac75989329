//! The unit that runs an app's hooks: `slot-hook@web.service`, an instance of the template that the package brings.
//!
//! **Invariant:** it runs what the app's file says, as the app itself runs: its user, its data, its environment; never as root.
//! **Invariant:** the template alone runs nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::{assignment, drop_in, word};
use super::{CREDENTIAL, RUN, STATE, UnitFile};
use crate::config::{App, Bind, systemd_span};
use crate::deploy::AppName;

/// The unit that runs an app's hooks.
#[must_use]
pub fn hook_service(name: &AppName) -> String {
    format!("slot-hook@{name}.service")
}

/// Where that unit asks slotd which hook it is to run; `run` is `/run/slot`.
#[must_use]
pub fn hook_socket(run: &Path, name: &AppName) -> PathBuf {
    run.join("slotd/hook").join(format!("{name}.sock"))
}

/// What an app adds to the template; nothing without `[hooks]`.
pub(super) fn hook_drop_in(app: &App, source: &Path) -> Option<UnitFile> {
    if app.hooks.commands.is_empty() {
        return None;
    }
    let name = &app.name;
    let mut line = format!(
        "hook --app {name} --root {STATE} --socket {}",
        hook_socket(Path::new(RUN), name).display(),
    );
    if let Some(file) = &app.env_file {
        let _ = write!(line, " --env-file {}", word(file));
    }
    for (hook, command) in &app.hooks.commands {
        let option = hook.name().replace('_', "-");
        for argument in command {
            let _ = write!(line, " {}", word(&format!("--{option}={argument}")));
        }
    }
    let mut settings = format!("RuntimeMaxSec={}\n", systemd_span(app.hooks.timeout));
    let whose = match (&app.user, app.setup_user()) {
        (None, _) => format!("User=slot-app-{name}\n"),
        (Some(_), Some(user)) => format!("DynamicUser=no\nUser={user}\nProtectHome=read-only\n"),
        // The app may do more than any hook should.
        (Some(_), None) => String::new(),
    };
    if !whose.is_empty() {
        let _ = write!(
            settings,
            "{whose}StateDirectory=slot-app/{name}\nStateDirectoryMode=0750\n"
        );
        if app.bind == Bind::Unix {
            // As the app has it, so that its data stay whose they are.
            settings.push_str("Group=slot-upstream\nUMask=0007\n");
        }
    }
    if app.bind != Bind::Port {
        let _ = writeln!(settings, "BindPaths=-{RUN}/{name}");
    }
    if let Some(file) = app.env_file.as_deref().filter(|file| file.starts_with('/')) {
        let _ = writeln!(
            settings,
            "LoadCredential={CREDENTIAL}:{}",
            file.replace('%', "%%")
        );
    }
    for (variable, value) in &app.env {
        let _ = writeln!(settings, "Environment={}", assignment(variable, value));
    }
    Some(drop_in(&hook_service(name), source, &line, &settings))
}
