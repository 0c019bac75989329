//! The record of a release: what makes a directory one.
//!
//! ```text
//! releases/1a2b3c4d.json   {"version":1,"digest":"1a2b3c4d…","source":{"kind":"path","path":"build/server"},
//!                           "label":"v1.2","size":5242880,"made_ms":1760000000000}
//! ```
//!
//! **Invariant:** it is written when the directory is complete and on disk, and removed before the directory is.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::incoming::{make_directory, sync_one};
use super::{ReleaseError, Root};
use crate::deploy::{Label, ReleaseId};
use crate::wire::release::Origin;

/// What whoever deploys a release says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Where its bits came from.
    pub origin: Origin,
    /// What it is called, if it is.
    pub label: Option<Label>,
    /// [`made_with`](super::made_with), where that is known.
    pub made_with: Option<String>,
}

/// What tells a release from every other; its id is the beginning of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The digest of its content as it was deployed, before anything was built of it: 64 hexadecimal digits.
    Content(String),
    /// The commit that it is of: 40 hexadecimal digits.
    Commit(String),
}

impl Identity {
    /// The first eight digits; `None` if they are none.
    #[must_use]
    pub fn id(&self) -> Option<ReleaseId> {
        let (Self::Content(hash) | Self::Commit(hash)) = self;
        hash.get(..8)?.parse().ok()
    }
}

/// What is on disk of a release besides its bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The digest of its content, where that is its identity.
    pub digest: Option<String>,
    /// Where its bits came from, as the latest deployment of it said.
    pub origin: Origin,
    /// What the latest deployment that named it called it.
    pub label: Option<Label>,
    /// [`made_with`](super::made_with), where that is known.
    pub made_with: Option<String>,
    /// Its files' bytes together.
    pub size: u64,
    /// When it was put on disk, milliseconds since the epoch.
    pub made_ms: u64,
}

/// The file. Whatever a later version adds is passed over.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default)]
    source: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_with: Option<String>,
    size: u64,
    made_ms: u64,
}

impl Record {
    /// What the release is; `None` where that is lost.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        match (&self.digest, &self.origin) {
            (Some(digest), _) => Some(Identity::Content(digest.clone())),
            (None, Origin::Git { commit, .. }) => Some(Identity::Commit(commit.clone())),
            (None, Origin::Path { .. } | Origin::Archive { .. } | Origin::Unknown) => None,
        }
    }

    /// Whether it is known that it was made in another way than this.
    #[must_use]
    pub fn is_made_otherwise(&self, made_with: Option<&str>) -> bool {
        let both = self.made_with.as_deref().zip(made_with);
        both.is_some_and(|(own, other)| own != other)
    }

    /// What a deployment of it says of it holds from now on; what that leaves unsaid stays.
    pub(super) fn renew(&mut self, about: &About) {
        if about.origin != Origin::Unknown {
            self.origin = about.origin.clone();
        }
        if about.label.is_some() {
            self.label.clone_from(&about.label);
        }
    }

    /// The record of a release; `None` if there is none, or what is there is none.
    #[must_use]
    pub fn read(root: impl Into<Root>, id: &ReleaseId) -> Option<Self> {
        let root = &root.into();
        let text = fs::read(path(root, id)).ok()?;
        let written: Written = serde_json::from_slice(&text).ok()?;
        Some(Self {
            digest: written.digest,
            origin: written.source,
            // A label says nothing that anything depends on.
            label: written.label.and_then(|label| label.parse().ok()),
            made_with: written.made_with,
            size: written.size,
            made_ms: written.made_ms,
        })
    }

    /// Makes it last.
    pub(super) fn write(&self, root: &Root, id: &ReleaseId) -> Result<(), ReleaseError> {
        let written = Written {
            version: 1,
            digest: self.digest.clone(),
            source: self.origin.clone(),
            label: self.label.as_ref().map(ToString::to_string),
            made_with: self.made_with.clone(),
            size: self.size,
            made_ms: self.made_ms,
        };
        let text = serde_json::to_string(&written).expect("a record is strings and numbers");
        let (path, temporary) = (path(root, id), temporary(root, id));
        make_directory(&root.records())?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)
            .map_err(ReleaseError::disk("create", &temporary))?;
        file.write_all(format!("{text}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &path))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
            .map_err(ReleaseError::disk("write", &path))?;
        sync_one(&root.records())
    }
}

pub(super) fn path(root: &Root, id: &ReleaseId) -> PathBuf {
    root.records().join(format!("{id}.json"))
}

fn temporary(root: &Root, id: &ReleaseId) -> PathBuf {
    root.records().join(format!("{id}.json.new"))
}

/// Takes the record away, lastingly: what it was of is no release from here on.
pub(super) fn remove(root: &Root, id: &ReleaseId) -> Result<(), ReleaseError> {
    let path = path(root, id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(ReleaseError::disk("remove", &path))?,
    }
    sync_one(&root.records())
}
