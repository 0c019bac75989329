//! `state.json` of one app.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::deploy::State;

use super::files::{FileError, replace, sync_directory};
use super::record::{Record, VERSION};

/// What a state file holds.
#[derive(Debug)]
pub enum Loaded {
    /// There is none: the app was never deployed.
    Absent,
    /// A state, and whether the machine was started since it was written.
    State(Box<State>, bool),
    /// It cannot be read. It was kept aside under this name; the state is to be rediscovered.
    Corrupt {
        /// Where it is now.
        aside: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A state, and whether the machine was started since it was written.
pub type Found = (Box<State>, bool);

/// An app's state on disk.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    machine_boot: String,
}

impl StateFile {
    /// The state in that file; `machine_boot` is the machine's present boot id.
    #[must_use]
    pub fn at(path: PathBuf, machine_boot: String) -> Self {
        Self { path, machine_boot }
    }

    /// Reads it, and keeps aside what cannot be read.
    ///
    /// # Errors
    /// The file is there but cannot be opened, or was written by a slotd whose format this one does not know: then nothing is done
    /// to it, and the app is left as it is.
    pub fn load(&self) -> Result<Loaded, FileError> {
        Ok(match self.look()? {
            Ok(None) => Loaded::Absent,
            Ok(Some((state, rebooted))) => Loaded::State(state, rebooted),
            Err(why) => Loaded::Corrupt {
                aside: self.keep_aside()?,
                why,
            },
        })
    }

    /// What it says, and whether the machine was started since; `None` if there is no file. What is wrong with it is the inner error.
    /// Nothing is done to it.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn look(&self) -> Result<Result<Option<Found>, String>, FileError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(error) => return Err(FileError::of("read", &self.path)(error)),
        };
        self.is_ours(&bytes)?;
        let parsed = serde_json::from_slice::<Record>(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|record| {
                let rebooted = record.machine_boot != self.machine_boot;
                let state = record.into_state().map_err(|error| error.to_string())?;
                match state.contradiction() {
                    None => Ok(Some((Box::new(state), rebooted))),
                    Some(what) => Err(what.to_owned()),
                }
            });
        Ok(parsed)
    }

    /// Refuses what a newer slotd has written and this one cannot read.
    fn is_ours(&self, bytes: &[u8]) -> Result<(), FileError> {
        let Some(newer) = readable_from(bytes).filter(|from| *from > VERSION) else {
            return Ok(());
        };
        let why = format!(
            "it needs a slotd that reads format {newer}, this one reads {VERSION}: install the newer package again"
        );
        Err(FileError::of("use", &self.path)(io::Error::other(why)))
    }

    /// Writes it; it is on disk when this returns.
    ///
    /// # Errors
    /// The operation that failed; the file is as it was.
    pub fn save(&self, state: &State) -> Result<(), FileError> {
        replace(&self.path, &self.text(state), 0o644)
    }

    /// Whether the file is what [`Self::save`] has made of that state.
    ///
    /// # Errors
    /// A newer slotd has written it, and this one may not write over it.
    pub fn holds(&self, state: &State) -> Result<bool, FileError> {
        let Ok(bytes) = fs::read(&self.path) else {
            return Ok(false);
        };
        self.is_ours(&bytes)?;
        Ok(bytes == self.text(state))
    }

    fn text(&self, state: &State) -> Vec<u8> {
        let record = Record::of(state, &self.machine_boot);
        let mut bytes =
            serde_json::to_vec_pretty(&record).expect("a record is strings, numbers and lists");
        bytes.push(b'\n');
        bytes
    }

    fn keep_aside(&self) -> Result<PathBuf, FileError> {
        let aside = (1..)
            .map(|number| self.path.with_extension(format!("json.corrupt-{number}")))
            .find(|aside| !exists(aside))
            .expect("the numbers do not end");
        fs::rename(&self.path, &aside).map_err(FileError::of("keep aside", &self.path))?;
        sync_directory(&self.path)?;
        Ok(aside)
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The one key that is read before everything else.
fn readable_from(bytes: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Head {
        readable_from: u32,
    }
    serde_json::from_slice::<Head>(bytes)
        .ok()
        .map(|head| head.readable_from)
}
