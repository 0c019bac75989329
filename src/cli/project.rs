//! A project's slot.toml: where it is, and what it says.

use std::fs;
use std::path::{Path, PathBuf};

use super::exit::Exit;
use crate::config::{App, SlotMachine};
use crate::deploy::AppName;

/// The file's name in a project.
pub const FILE: &str = "slot.toml";

/// A slot.toml that was found.
#[derive(Clone, Debug)]
pub struct Project {
    /// Where.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// What it says.
    pub app: App,
}

impl Project {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or is not an app's file.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = fs::read_to_string(file).map_err(|error| {
            Exit::Input.because(format!(
                "cannot read {shown}: {error}; `slotctl init` writes a slot.toml into the current directory"
            ))
        })?;
        let app = App::parse(&text, &shown.to_string())?;
        Ok(Self {
            file: file.to_owned(),
            text,
            app,
        })
    }

    /// Whether the file names an app, and another one than this.
    #[must_use]
    pub fn is_of_another(&self, name: &AppName) -> bool {
        // Where it names none, it is a file for whatever app is asked for.
        let names_one = self
            .text
            .parse::<toml::Table>()
            .is_ok_and(|keys| keys.contains_key("name"));
        names_one && self.app.name != *name
    }

    /// The slot.toml of the current directory or one above, else that of a directory above `path`.
    ///
    /// # Errors
    /// If there is one and it is wrong.
    pub fn find(path: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let here = std::env::current_dir()?;
        let there = path.and_then(|path| path.canonicalize().ok());
        std::iter::once(here.as_path())
            .chain(there.as_deref())
            .find_map(above)
            .map(|file| Self::read(&file))
            .transpose()
    }
}

/// The nearest slot.toml, in a directory or above it.
fn above(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .map(|folder| folder.join(FILE))
        .find(|file| file.is_file())
}

/// Whether a file is a slot-machine.json, whatever it is called. One that cannot be read is told with what it is wanted for.
#[must_use]
pub fn is_slot_machine(file: &Path) -> bool {
    SlotMachine::is_meant(&fs::read_to_string(file).unwrap_or_default())
}

/// The app that a command means: `--app`, or that of the project around the current directory, or none.
///
/// # Errors
/// If the project's file is wrong, since a guess could mean another app.
pub fn app_meant(named: Option<&AppName>) -> anyhow::Result<Option<AppName>> {
    if let Some(name) = named {
        return Ok(Some(name.clone()));
    }
    Project::find(None)
        .map(|project| project.map(|project| project.app.name))
        .map_err(|error| error.context("which app? name it with --app, or correct the file"))
}
