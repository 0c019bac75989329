//! What is known of a release besides its bits: on disk beside them, and in the API.

use serde::{Deserialize, Serialize};

/// Where a release's bits came from, as whoever deployed it named it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// A commit.
    Git {
        /// 40 hexadecimal digits.
        commit: String,
        /// The branch, the tag or the part of the hash that was asked for.
        #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },
    /// A file or a directory.
    Path {
        /// `build/server`.
        path: String,
    },
    /// An archive.
    Archive {
        /// `release.tar.gz`; `-` for one that had no name.
        path: String,
    },
    /// What said it is lost, or of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Origin {
    /// What a commit was called: a branch or a tag.
    #[must_use]
    pub fn named(&self) -> Option<&str> {
        match self {
            Self::Git { commit, reference } => {
                let name = reference.as_deref()?;
                (!commit.starts_with(name)).then_some(name)
            }
            Self::Path { .. } | Self::Archive { .. } | Self::Unknown => None,
        }
    }

    /// As people are told: `main (commit 1a2b3c4d)`, `build/server`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Git { commit, .. } => {
                let short = commit.get(..8).unwrap_or(commit);
                match self.named() {
                    Some(name) => format!("{name} (commit {short})"),
                    None => format!("commit {short}"),
                }
            }
            Self::Archive { path } if path == "-" => "an archive".to_owned(),
            Self::Path { path } | Self::Archive { path } => path.clone(),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// The commits of an app that slotd has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// 40 hexadecimal digits each.
    pub have: Vec<String>,
}

/// The contents of files that Git LFS keeps, which a commit needs that is going to be sent: one for each file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// Each.
    pub contents: Vec<Content>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its SHA-256, 64 hexadecimal digits.
    pub oid: String,
    /// Its bytes.
    pub size: u64,
}

/// The contents that slotd does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// 64 hexadecimal digits each.
    pub lacking: Vec<String>,
}

/// The releases of an app, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// Each that is on disk.
    pub releases: Vec<Release>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its id.
    pub id: String,
    /// Where its bits came from.
    pub source: Origin,
    /// What `--version` called it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its files' bytes together.
    pub size: u64,
    /// When it was put on disk, milliseconds since the epoch.
    pub made_ms: u64,
    /// The active slot runs it.
    pub live: bool,
    /// It is `prev` of the status: what is gone back to, unless what is live was brought by a rollback itself.
    pub prev: bool,
    /// It was rolled back by itself: `rollback` never goes to it, `deploy` only by force.
    #[serde(default)]
    pub marked: bool,
    /// The slots that have it.
    #[serde(default)]
    pub slots: Vec<String>,
}
