//! Whether an app's name is free: what is made of it must not be anybody else's.
//!
//! Units of an app are `<name>@<slot>.service`; a static user or group of a dynamic user's name would be used instead of it
//! (systemd.exec(5), `DynamicUser=`).

use nix::unistd::{Group, User};

use super::super::exit::Exit;
use super::loaded::loaded;
use super::systemctl;
use crate::deploy::AppName;

/// Checks a name that no app has yet. `said_by` is where it was written.
///
/// # Errors
/// Naming what has the name.
pub fn check_free(name: &AppName, said_by: &str) -> anyhow::Result<()> {
    let taken = |what: String| {
        Err(Exit::Input.because(format!(
            "{said_by}: name: {what}; choose another name for the app, for instance `name = \"{name}-app\"`"
        )))
    };
    if let Some(unit) = unit_with(name)? {
        return taken(format!(
            "{name} is taken: this machine has the unit {unit} (`systemctl cat {unit}`)"
        ));
    }
    let dynamic = [format!("slot-app-{name}"), format!("slot-bld-{name}")];
    // The app that needs no name has that of slotd's own user.
    let own = (name.as_str() != "slot").then(|| name.to_string());
    for account in own.iter().chain(&dynamic) {
        if User::from_name(account)?.is_some() {
            return taken(format!("{account} is a user of this machine"));
        }
        if Group::from_name(account)?.is_some() {
            return taken(format!("{account} is a group of this machine"));
        }
    }
    Ok(())
}

/// A unit, installed or only loaded, that has one of the names. What is left in slot's slice of an app whose file was removed by hand is
/// that app's, and its name is free for it.
fn unit_with(name: &AppName) -> anyhow::Result<Option<String>> {
    let patterns = patterns(name);
    let mut words = vec![
        "list-unit-files",
        "--no-legend",
        "--no-pager",
        "--plain",
        "--full",
    ];
    words.extend(patterns.iter().map(String::as_str));
    // It fails when nothing matches on some versions; a failure to list is not a name that is taken.
    let listed = systemctl(&words).unwrap_or_default();
    let mut first_words = listed
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next());
    if let Some(unit) = first_words.next() {
        return Ok(Some(unit.to_owned()));
    }
    let mut others = loaded(&patterns)?.into_iter().filter(|unit| !unit.ours);
    Ok(others.next().map(|unit| unit.unit))
}

fn patterns(name: &AppName) -> Vec<String> {
    let mut patterns = vec![
        format!("{name}@*"),
        format!("{name}.service"),
        format!("{name}.socket"),
    ];
    // slot.slice is slot's own.
    if name.as_str() != "slot" {
        patterns.push(format!("{name}.*"));
    }
    patterns
}
