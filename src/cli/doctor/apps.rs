//! Apps: their files, what was made of them, their directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::app::APPS;
use crate::config::App;
use crate::deploy::State as Deployed;
use crate::doctor::{AppFacts, Link, PolkitRule, Seen, Stand, State, UnitText};
use crate::release;
use crate::store::StateFile;
use crate::units::{GENERATED, STATE, polkit_rule, polkit_rule_path, render, watch_triggers};

/// The apps that have a file, as it is now.
pub fn files() -> BTreeMap<String, (PathBuf, Result<Box<App>, String>)> {
    let listed = fs::read_dir(APPS).into_iter().flatten().flatten();
    let named = listed.filter_map(|entry| {
        let path = entry.path();
        let name = path
            .file_name()?
            .to_str()?
            .strip_suffix(".toml")?
            .to_owned();
        let app = read(&path);
        Some((name, (path, app)))
    });
    named.collect()
}

fn read(file: &Path) -> Result<Box<App>, String> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let app = App::parse(&text, &name).and_then(|app| app.check_installed(&name).map(|()| app));
    app.map(Box::new).map_err(|error| error.to_string())
}

/// What there is to know of one app.
pub fn facts(name: &str, file: PathBuf, app: Result<Box<App>, String>, boot: &str) -> AppFacts {
    let root = Path::new(STATE).join(name);
    let texts = app
        .as_ref()
        .map_or_else(|_| Vec::new(), |app| texts(app, &file));
    let known = release::list(&root);
    let recorded: BTreeSet<String> = known.iter().map(|(id, _)| id.to_string()).collect();
    let state = state(&root, boot);
    let mut names: BTreeSet<String> = ["live", "prev"].map(str::to_owned).into();
    if let State::Stands(stand) = &state {
        // Where the file is wrong, or names others now.
        names.extend(stand.weights.keys().cloned());
    }
    names.extend(
        app.iter()
            .flat_map(|app| &app.slots)
            .map(ToString::to_string),
    );
    AppFacts {
        texts,
        aside: aside(&root),
        links: links(&root, &names),
        unrecorded: unrecorded(&root, &recorded),
        largest: known
            .iter()
            .map(|(_, record)| record.size)
            .max()
            .unwrap_or(0),
        triggers: app.iter().flat_map(|app| watch_triggers(app)).collect(),
        rule: rule(name, app.as_ref().ok().map(|app| &**app)),
        may_start: None,
        taken_user: taken(name),
        state,
        file,
        app,
    }
}

fn texts(app: &App, file: &Path) -> Vec<UnitText> {
    let made = render(app, file).into_iter();
    let compared = made.map(|unit| UnitText {
        found: fs::read_to_string(Path::new(GENERATED).join(&unit.path)).ok(),
        path: unit.path,
        made: unit.text,
    });
    compared.collect()
}

/// Only looked at: a state that cannot be read is slotd's to keep aside.
fn state(root: &Path, boot: &str) -> State {
    let path = root.join("state.json");
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return State::Absent,
        Err(error) => return State::Unseen(unseen(&error)),
        Ok(about) if !about.is_file() => return State::Corrupt("it is no file".to_owned()),
        Ok(_) => {}
    }
    match StateFile::at(path, boot.to_owned()).look() {
        Ok(Ok(None)) => State::Absent,
        Ok(Ok(Some((state, _)))) => State::Stands(Box::new(stand(&state))),
        Ok(Err(why)) => State::Corrupt(why),
        // One of a newer slot's is left alone by slotd too, and not kept aside.
        Err(error) => State::Unseen(unseen(&error.source)),
    }
}

fn stand(state: &Deployed) -> Stand {
    let weights = state
        .slots
        .keys()
        .map(|slot| (slot.to_string(), state.weight(slot).get()));
    Stand {
        active: state.active.as_ref().map(ToString::to_string),
        live: state.live().map(ToString::to_string),
        prev: state.prev.as_ref().map(ToString::to_string),
        weights: weights.collect(),
        busy: state.deployment.is_some()
            || state
                .watch
                .as_ref()
                .is_some_and(|watch| watch.rolling_back.is_some())
            || !state.everywhere,
    }
}

fn aside(root: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(root).into_iter().flatten().flatten();
    let mut aside: Vec<PathBuf> = listed
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("state.json.corrupt-")
        })
        .map(|entry| entry.path())
        .collect();
    aside.sort();
    aside
}

fn links(root: &Path, names: &BTreeSet<String>) -> Seen<BTreeMap<String, Link>> {
    let mut links = BTreeMap::new();
    for name in names {
        let target = match fs::read_link(root.join(name)) {
            Ok(target) => target,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                continue;
            }
            Err(error) => return Err(unseen(&error)),
        };
        let release = target.file_name().unwrap_or(target.as_os_str());
        let release = release.to_string_lossy().into_owned();
        let there = root.join(&target).is_dir();
        links.insert(name.clone(), Link { release, there });
    }
    Ok(links)
}

fn unrecorded(root: &Path, recorded: &BTreeSet<String>) -> Seen<BTreeSet<PathBuf>> {
    let listed = match fs::read_dir(root.join("releases")) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(unseen(&error)),
    };
    let directories = listed
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let others =
        directories.filter(|entry| !recorded.contains(&*entry.file_name().to_string_lossy()));
    Ok(others.map(|entry| entry.path()).collect())
}

fn rule(name: &str, app: Option<&App>) -> PolkitRule {
    let path = Path::new(crate::units::POLKIT_RULES).join(format!("60-slot-app-{name}.rules"));
    let found = match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unseen(&error)),
    };
    PolkitRule {
        path: name.parse().map_or(path, |name| polkit_rule_path(&name)),
        made: app.map(polkit_rule).unwrap_or_default(),
        found,
    }
}

/// A static user or group of the dynamic user's name. NSS is not asked: it knows the dynamic one too.
fn taken(name: &str) -> Option<String> {
    let user = format!("slot-app-{name}");
    let begins = format!("{user}:");
    let has = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.starts_with(&begins))
    };
    (has("/etc/passwd") || has("/etc/group")).then_some(user)
}

/// Whether polkit lets the process of slotd start a unit, by pkcheck(1), which root alone may ask for others. Nothing is started.
pub fn may_start(slotd: u32, unit: &str) -> Option<bool> {
    // The start time and the user, by which polkit knows that the number is still that process's.
    let stat = fs::read_to_string(format!("/proc/{slotd}/stat")).ok()?;
    let began = stat
        .rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .to_owned();
    let user = crate::systemd::user::owner(slotd)?;
    let asked = Command::new("pkcheck")
        .args(["--action-id", "org.freedesktop.systemd1.manage-units"])
        .args(["--process", &format!("{slotd},{began},{user}")])
        .args(["--detail", "unit", unit, "--detail", "verb", "start"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    match asked.status.code()? {
        0 => Some(true),
        // Not authorized; it would take a password, and there is nobody to ask for one (pkcheck(1)).
        1..=3 => Some(false),
        _ => None,
    }
}

/// Why something could not be looked at, for people.
pub fn unseen(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => "it takes root to look: use sudo".to_owned(),
        _ => error.to_string(),
    }
}
