//! What slot-generator does: app files in, units out.
//!
//! **Invariant:** it reads app files, lists polkit rules, and writes below one directory; nothing else is there to be asked when a
//! generator runs. A file that is wrong costs its own app only.
//! **Invariant:** no app that has a polkit rule is without units, be its file wrong or gone ([`stand_in`] says why).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{UnitFile, app_of_rule, render, stand_in};
use crate::config::App;

/// Why not all units could be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A directory of files.
    #[error("cannot list {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A unit.
    #[error("cannot write {}", path.display())]
    Write {
        /// The unit's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes the units of every app. What was wrong with files is returned, after everything else is done.
///
/// # Errors
/// A directory cannot be listed, or a unit not be written.
pub fn generate(apps: &Path, rules: &Path, normal: &Path) -> Result<Vec<String>, GenerateError> {
    let mut problems = Vec::new();
    let mut in_place = |name: &str, source: &Path, problem: String| {
        let name = name.parse();
        let units = name.map_or_else(|_| Vec::new(), |name| stand_in(&name, source, &problem));
        problems.push(problem);
        units
    };
    for file in list(apps)? {
        let name = file.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(".toml")) else {
            continue;
        };
        let made = match read(&file) {
            Ok(app) => render(&app, &file),
            Err(problem) => in_place(name, &file, problem),
        };
        write(normal, &made)?;
    }
    for rule in list(rules)? {
        let Some(name) = app_of_rule(&rule) else {
            continue;
        };
        let file = apps.join(format!("{name}.toml"));
        if !file.exists() {
            let problem = format!(
                "{} is gone, and {} is not: `slotctl app remove {name}` removes the rest, `slotctl app add` makes it anew",
                file.display(),
                rule.display()
            );
            write(normal, &in_place(name, &rule, problem))?;
        }
    }
    Ok(problems)
}

/// What is in a directory, in order; nothing, where it is not.
fn list(directory: &Path) -> Result<Vec<PathBuf>, GenerateError> {
    let cannot = |source| GenerateError::List {
        path: directory.to_owned(),
        source,
    };
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(cannot)?,
    };
    let paths = listing.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(cannot)?;
    files.sort();
    Ok(files)
}

fn write(normal: &Path, units: &[UnitFile]) -> Result<(), GenerateError> {
    for unit in units {
        let path = normal.join(&unit.path);
        fs::create_dir_all(path.parent().unwrap_or(normal))
            .and_then(|()| fs::write(&path, &unit.text))
            .map_err(|source| GenerateError::Write { path, source })?;
    }
    Ok(())
}

/// An app's file; an error is for people.
fn read(file: &Path) -> Result<App, String> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let app = App::parse(&text, &name).and_then(|app| app.check_installed(&name).map(|()| app));
    app.map_err(|error| error.to_string())
}
