//! `slotctl app`: which apps this machine has. An app is a file in `/etc/slot/apps`, a polkit rule, and slotd knowing of it.
//!
//! **Invariant:** slotd's user may start a unit only while that unit is installed: a rule is written after the app's file was
//! made into units, and goes before the file goes (design rule 12).

pub mod add;
pub mod changes;
mod list;
mod loaded;
mod names;
pub(super) mod ports;
pub(super) mod public;
mod reload;
mod remove;
mod renew;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::args::{App, Global};
use super::client::{Client, SOCKET};
use super::exit::Exit;
use super::project::{FILE, Project};
use super::term::note;
use crate::deploy::AppName;

/// The apps' files.
pub(super) const APPS: &str = "/etc/slot/apps";
/// What `app add` enables.
const UNITS: [&str; 3] = ["slot-router.socket", "slotd.socket", "slotd.service"];

/// Runs one of the commands.
///
/// # Errors
/// If it is refused or fails.
pub async fn run(global: &Global, command: &App) -> anyhow::Result<Exit> {
    match command {
        App::Add(options) => {
            let project = match &options.file {
                Some(file) => Project::read(file)?,
                None => Project::find(None)?.ok_or_else(|| {
                    Exit::Input.because(format!(
                        "there is no {FILE} here or above; write one with `slotctl init`, or name the file"
                    ))
                })?,
            };
            let name = global
                .app
                .clone()
                .unwrap_or_else(|| project.app.name.clone());
            add::run(global, &project, &name).await
        }
        App::Reload(options) => reload::run(global, options).await,
        App::List => list::run(&Client::new(global.socket(), None), global.json).await,
        App::Remove(options) => remove::run(global, options).await,
        App::Renew => Ok(renew::run()),
    }
}

/// Whether this is the slotd that systemd runs here, whose apps are in `/etc/slot/apps`.
#[must_use]
pub fn is_machines_own(socket: &Path) -> bool {
    socket == Path::new(SOCKET) && systemd_runs()
}

/// Makes sure that what is deployed here can be reached: the public socket listens. Only root can, and only here.
///
/// # Errors
/// It does not listen and cannot be started.
pub fn listen(socket: &Path) -> anyhow::Result<()> {
    let ours = is_machines_own(socket) && nix::unistd::geteuid().is_root();
    if !ours || systemctl(&["is-active", UNITS[0]]).is_ok() {
        return Ok(());
    }
    note(&format!("{} does not listen; starting it\n", UNITS[0]));
    public::check()?;
    systemctl(&["enable", "--now", UNITS[0]]).map(|_| ()).map_err(|error| {
        Exit::Failed.because(format!(
            "nobody would reach the release, because the public socket does not listen: {error}; `journalctl -u {}` says why",
            UNITS[0]
        ))
    })
}

/// sd_booted(3).
pub(super) fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether the machine has a file for the app.
#[must_use]
pub fn is_registered(name: &AppName) -> bool {
    file_of(name).exists()
}

pub(super) fn file_of(name: &AppName) -> PathBuf {
    Path::new(APPS).join(format!("{name}.toml"))
}

/// That this process may change the machine, and that it is one that slot can be installed on.
pub(super) fn ready_to_change(doing: &str) -> anyhow::Result<()> {
    if !systemd_runs() {
        return Err(Exit::Failed.because(format!(
            "cannot {doing}: systemd does not run here; `slotctl start` runs router, deployer and app in one process without it"
        )));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Exit::Forbidden.because(format!("cannot {doing}: that takes root; use sudo")));
    }
    Ok(())
}

/// Runs systemctl(1) and gives what it printed.
pub(super) fn systemctl(words: &[&str]) -> anyhow::Result<String> {
    let line = || format!("systemctl {}", words.join(" "));
    let output = Command::new("systemctl")
        .args(words)
        .env("SYSTEMD_COLORS", "0")
        .output()
        .map_err(|error| Exit::Failed.because(format!("cannot run `{}`: {error}", line())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Exit::Failed.because(format!(
        "`{}` failed ({}): {}",
        line(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
