//! A project's slot.toml: where it is, and what it says.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::args::Global;
use super::client;
use super::exit::Exit;
use super::start::{DATA, SOCKET};
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
        let here = here()?;
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

/// The current directory.
///
/// # Errors
/// There is none any more.
pub fn here() -> anyhow::Result<PathBuf> {
    std::env::current_dir().map_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return Exit::Input.because(format!("cannot find the current directory: {error}"));
        }
        let name = std::env::var_os("PWD").map(PathBuf::from);
        let again = name.filter(|name| name.is_absolute() && name.is_dir());
        let remedy = match again {
            Some(path) => format!(
                "go to what is there now: `cd .`, or `cd {}`",
                shell_words::quote(&path.to_string_lossy())
            ),
            None => "`cd` to one that is there".to_owned(),
        };
        Exit::Input.because(format!(
            "the current directory is gone; it was removed, or it was staging, which is made anew after a deployment; {remedy}"
        ))
    })
}

/// The directory of the slot.toml around the current directory.
#[must_use]
pub fn around() -> Option<PathBuf> {
    let file = above(&std::env::current_dir().ok()?)?;
    file.parent().map(Path::to_owned)
}

/// Who is asked about a project: the daemon that `slotctl start` runs for it, unless a socket is named, or `--app` names another app than its
/// and the machine has a slotd, whose that may be.
///
/// # Errors
/// There is no current directory.
pub fn reached(global: &Global, project: Option<&Project>) -> anyhow::Result<Global> {
    let named = |app: &AppName| project.is_some_and(|project| project.app.name == *app);
    let is_elsewhere =
        || !global.app.as_ref().is_none_or(named) && Path::new(client::SOCKET).exists();
    if global.asked.is_some() || is_elsewhere() {
        return Ok(global.clone());
    }
    Ok(Global {
        asked: daemon(project.map(|project| project.file.as_path()))?,
        ..global.clone()
    })
}

/// The socket of the daemon that `slotctl start` runs for the project of a slot.toml, or in whose data (its staging) the current directory
/// is. One that is another user's is not asked: whoever may write to a directory could have whoever is in it, root too, talk to anything.
///
/// # Errors
/// There is no current directory.
fn daemon(file: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    let here = here()?;
    let beside = file.map(|file| here.join(file).with_file_name(DATA));
    let around = here.ancestors().filter(|folder| folder.ends_with(DATA));
    let data = beside.into_iter().chain(around.map(Path::to_owned));
    // As it is called itself: what a symlink names could be exchanged, and paths may be too long to connect to (unix(7)).
    Ok(data
        .filter_map(|data| data.join(SOCKET).canonicalize().ok())
        .find(|socket| is_own(socket) && answers(socket)))
}

fn is_own(socket: &Path) -> bool {
    let users = [nix::unistd::geteuid().as_raw(), 0];
    fs::symlink_metadata(socket)
        .is_ok_and(|about| about.file_type().is_socket() && users.contains(&about.uid()))
}

/// A daemon that was killed leaves its socket behind.
fn answers(socket: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    !UnixStream::connect(socket).is_err_and(refused)
}

/// Whether a file is a slot-machine.json, whatever it is called. One that cannot be read is told with what it is wanted for.
#[must_use]
pub fn is_slot_machine(file: &Path) -> bool {
    SlotMachine::is_meant(&fs::read_to_string(file).unwrap_or_default())
}

/// What a command is about, where `--app` may name the app: else it is that of the project around the current directory, if there is one.
/// The app, and the project.
///
/// # Errors
/// If the project's file is wrong and no app is named, since a guess could mean another app.
pub fn meant(named: Option<&AppName>) -> anyhow::Result<(Option<AppName>, Option<Project>)> {
    let project = Project::find(None);
    if let Some(name) = named {
        return Ok((Some(name.clone()), project.ok().flatten()));
    }
    project
        .map(|project| (project.as_ref().map(|it| it.app.name.clone()), project))
        .map_err(|error| error.context("which app? name it with --app, or correct the file"))
}
