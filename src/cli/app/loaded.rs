//! An app's units as PID 1 has them in memory, which may be more than its file says: a file that was removed or changed by hand leaves
//! what ran.

use super::super::exit::Exit;
use super::systemctl;
use crate::config::App;
use crate::deploy::AppName;
use crate::systemd::user;

/// A unit that is loaded under an app's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// `web@blue.service`.
    pub unit: String,
    /// Whether it is installed, or only in memory.
    pub installed: bool,
    /// Whether it is one of slot's: everything that slot runs is in its slice, and nothing else is.
    pub ours: bool,
    /// Its main process; 0 when there is none.
    pid: u32,
}

/// The units of some patterns that are loaded and run, or are installed.
pub(super) fn loaded(patterns: &[String]) -> anyhow::Result<Vec<Loaded>> {
    let mut words = vec![
        "show",
        "--property=Id,LoadState,ActiveState,Slice,ControlGroup,MainPID",
    ];
    words.extend(patterns.iter().map(String::as_str));
    Ok(read(&systemctl(&words)?))
}

/// A paragraph of `NAME=value` lines for each unit. One that is neither installed nor active is only spoken of by another.
fn read(shown: &str) -> Vec<Loaded> {
    let paragraphs = shown.split("\n\n").map(|paragraph| {
        let value = |name: &str| {
            let mut pairs = paragraph.lines().filter_map(|line| line.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map_or("", |(_, value)| value)
        };
        let idle = matches!(value("ActiveState"), "inactive" | "failed");
        let installed = !matches!(value("LoadState"), "not-found" | "");
        let slice = "/slot.slice/";
        let unit = Loaded {
            unit: value("Id").to_owned(),
            installed,
            ours: value("Slice") == "slot.slice" || value("ControlGroup").starts_with(slice),
            pid: value("MainPID").parse().unwrap_or(0),
        };
        (unit, idle)
    });
    let there = paragraphs.filter(|(unit, idle)| unit.installed || !idle);
    there
        .map(|(unit, _)| unit)
        .filter(|unit| !unit.unit.is_empty())
        .collect()
}

/// Refuses a user that is not the one as whom slots of the app run: PID 1 gives the data that all its slots share to the user of
/// the slot that it starts, under those that run.
pub(super) fn check_user(app: &App, file: &str) -> anyhow::Result<()> {
    let own = format!("slot-app-{}", app.name);
    let next = app.user.as_deref().unwrap_or(&own);
    for unit in of(&app.name)?
        .iter()
        .filter(|unit| unit.ours && unit.pid != 0)
    {
        let Some(uid) = user::owner(unit.pid) else {
            continue;
        };
        if !user::is_user(uid, next, app.user.is_none()) {
            return Err(Exit::Input.because(format!(
                "{file}: user: {} runs as {}, and this makes the app run as {next}: as soon as another slot started, systemd would \
                 take /var/lib/slot-app/{} away from the one that serves. Nothing was changed. Keep the user, or change it with an \
                 outage: `systemctl stop '{2}@*.service'`, then this again, then deploy",
                unit.unit,
                user::name(uid, &own),
                app.name
            )));
        }
    }
    Ok(())
}

/// Of an app: its services and sockets.
pub(super) fn of(name: &AppName) -> anyhow::Result<Vec<Loaded>> {
    loaded(&[format!("{name}@*.service"), format!("{name}@*.socket")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_without_a_file_is_told_from_what_is_only_spoken_of() {
        let shown = "MainPID=42\nId=web@blue.service\nLoadState=not-found\nActiveState=active\nControlGroup=/slot.slice/web@blue.service\n\
                     Slice=\n\nMainPID=0\nId=web@red.service\nLoadState=not-found\nActiveState=inactive\n\n\
                     Id=web@x.socket\nLoadState=loaded\nActiveState=inactive\nSlice=system.slice\nControlGroup=\n";
        let found = read(shown);
        let told: Vec<_> = found
            .iter()
            .map(|unit| (unit.unit.as_str(), unit.installed, unit.ours, unit.pid))
            .collect();
        assert_eq!(
            told,
            [
                ("web@blue.service", false, true, 42),
                ("web@x.socket", true, false, 0)
            ]
        );
        assert_eq!(read(""), []);
    }
}
