//! What is remembered from one look to the next: what was tried last, how it ended, and what was said.
//!
//! **Invariant:** what is tried is on disk before it is begun.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::super::random::random;
use super::super::term::note;
use super::dropped::Dropped;
use crate::deploy::{Ended, Key, Tried};
use crate::store::replace;
use crate::wire::hex;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    tried: Option<TriedKept>,
    file: Option<Dropped>,
    #[serde(default)]
    said: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct TriedKept {
    wanted: String,
    tries: u32,
    /// What the request is known by, so that one whose answer was lost is not carried out again.
    #[serde(default)]
    key: Option<String>,
    /// The attempt, once it has begun; gone when it is known how that ended.
    #[serde(default)]
    generation: Option<u64>,
    served: Option<String>,
    failed: Option<String>,
}

/// What no other request has: 32 hexadecimal digits. (The unit does not see `/proc/sys`, which has a UUID.)
fn unique() -> anyhow::Result<String> {
    Ok(hex(&random::<16>()?))
}

/// The memory of one app's.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    kept: Kept,
}

impl Memory {
    /// That in a directory. One that cannot be understood is none: what is wanted is then deployed once more, at worst.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("tried.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Self { path, kept })
    }

    fn write(&self) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(&self.kept)?;
        Ok(replace(&self.path, &bytes, 0o600)?)
    }

    pub(super) fn tried(&self) -> Option<Tried> {
        let tried = self.kept.tried.as_ref()?;
        let served = tried.served.clone().map(Ended::Served);
        Some(Tried {
            wanted: tried.wanted.clone(),
            tries: tried.tries,
            ended: served.or_else(|| tried.failed.clone().map(Ended::Failed)),
        })
    }

    /// It is tried, once more or for the first time, with this key: that of the last try, while it is not known what became of it.
    pub(super) fn begin(&mut self, wanted: &str) -> anyhow::Result<Key> {
        let before = self.kept.tried.take().filter(|it| it.wanted == wanted);
        let tries = before.as_ref().map_or(0, |it| it.tries) + 1;
        let lost = before
            .and_then(|it| it.key)
            .and_then(|key| key.parse().ok());
        let key: Key = lost.map_or_else(|| Ok(unique()?.parse()?), anyhow::Ok)?;
        self.kept.tried = Some(TriedKept {
            wanted: wanted.to_owned(),
            tries,
            key: Some(key.to_string()),
            generation: None,
            served: None,
            failed: None,
        });
        self.kept.said.clear();
        self.write()?;
        Ok(key)
    }

    /// What is tried has begun, as this attempt.
    pub(super) fn begun(&mut self, generation: u64) -> anyhow::Result<()> {
        if let Some(tried) = &mut self.kept.tried {
            tried.generation = Some(generation);
        }
        self.write()
    }

    /// The attempt of which it is not known how it ended.
    pub(super) fn unknown(&self) -> Option<u64> {
        self.kept.tried.as_ref()?.generation
    }

    /// It was not tried after all.
    pub(super) fn take_back(&mut self) -> anyhow::Result<()> {
        if let Some(tried) = &mut self.kept.tried {
            tried.tries = tried.tries.saturating_sub(1);
            (tried.key, tried.generation) = (None, None);
        }
        self.write()
    }

    /// What was tried is not known.
    pub(super) fn forget(&mut self) -> anyhow::Result<()> {
        self.kept.tried = None;
        self.write()
    }

    /// It ended so; `None`: that says nothing of it.
    pub(super) fn end(&mut self, ended: Option<Ended>) -> anyhow::Result<()> {
        if let Some(tried) = &mut self.kept.tried {
            (tried.key, tried.generation) = (None, None);
            match ended {
                Some(Ended::Served(release)) => tried.served = Some(release),
                Some(Ended::Failed(cause)) => tried.failed = Some(cause),
                None => {}
            }
        }
        self.write()
    }

    /// It is live, whoever deployed it.
    pub(super) fn serves(&mut self, wanted: &str, release: &str) -> anyhow::Result<()> {
        let served = |it: &TriedKept| it.wanted == wanted && it.served.as_deref() == Some(release);
        if self.kept.tried.as_ref().is_some_and(served) {
            return Ok(());
        }
        self.kept.tried = Some(TriedKept {
            wanted: wanted.to_owned(),
            tries: 0,
            key: None,
            generation: None,
            served: Some(release.to_owned()),
            failed: None,
        });
        self.write()
    }

    /// The file that was found last.
    pub(super) fn file(&self) -> Option<&Dropped> {
        self.kept.file.as_ref()
    }

    pub(super) fn keep_file(&mut self, file: &Dropped) -> anyhow::Result<()> {
        if self.kept.file.as_ref() == Some(file) {
            return Ok(());
        }
        self.kept.file = Some(file.clone());
        self.write()
    }

    /// Says something, unless it was the last thing that was said.
    pub(super) fn tell(&mut self, text: &str) -> anyhow::Result<()> {
        if self.kept.said == text {
            return Ok(());
        }
        if !text.is_empty() {
            note(&format!("{text}\n"));
        }
        text.clone_into(&mut self.kept.said);
        self.write()
    }
}
