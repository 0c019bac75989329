//! An app's directory, and what its releases are called in it.
//!
//! | layout | a release | its record |
//! |---|---|---|
//! | slot's own | `releases/<id>/` | `releases/<id>.json` |
//! | slot-machine's | `slot-<id>/` | `.releases/<id>.json` |
//!
//! **Invariant:** the layout decides on names alone; what they mean is the same in both.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::deploy::ReleaseId;

/// How an app's directory is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// slot's own.
    #[default]
    Slot,
    /// That of slot-machine's data directory, which its users' scripts look into.
    SlotMachine,
}

/// An app's directory. A path alone is one of slot's own layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    layout: Layout,
}

impl Root {
    /// A directory that is laid out in this way.
    #[must_use]
    pub fn new(path: PathBuf, layout: Layout) -> Self {
        Self { path, layout }
    }

    /// Which layout it has.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where a release is, or would be.
    #[must_use]
    pub fn home(&self, id: &ReleaseId) -> PathBuf {
        self.path.join(self.target(id))
    }

    /// What a symlink to a release says.
    pub(super) fn target(&self, id: &ReleaseId) -> PathBuf {
        match self.layout {
            Layout::Slot => Path::new("releases").join(id.as_str()),
            Layout::SlotMachine => PathBuf::from(format!("slot-{id}")),
        }
    }

    /// The directory that releases are in.
    pub(super) fn homes(&self) -> PathBuf {
        match self.layout {
            Layout::Slot => self.path.join("releases"),
            Layout::SlotMachine => self.path.clone(),
        }
    }

    /// The directory that their records are in, and what is on its way out.
    pub(super) fn records(&self) -> PathBuf {
        self.path.join(match self.layout {
            Layout::Slot => "releases",
            Layout::SlotMachine => ".releases",
        })
    }

    /// The release whose directory has this name.
    pub(super) fn id(&self, name: &OsStr) -> Option<ReleaseId> {
        let name = name.to_str()?;
        match self.layout {
            Layout::Slot => name.parse().ok(),
            Layout::SlotMachine => name.strip_prefix("slot-")?.parse().ok(),
        }
    }
}

impl Deref for Root {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl From<&Path> for Root {
    fn from(path: &Path) -> Self {
        Self::new(path.to_owned(), Layout::Slot)
    }
}

impl From<&PathBuf> for Root {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<PathBuf> for Root {
    fn from(path: PathBuf) -> Self {
        Self::new(path, Layout::Slot)
    }
}

impl From<&Root> for Root {
    fn from(root: &Root) -> Self {
        root.clone()
    }
}
