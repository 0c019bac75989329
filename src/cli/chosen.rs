//! What `slotctl deploy` is to deploy: a path, a commit of the repository around it or of the app's remote, or a release that is on disk.
//!
//! **Invariant:** what could be a path as well as a commit is refused, never guessed.

use std::io;
use std::path::Path;

use super::args::Deploy;
use super::client::{Body, Client};
use super::deploy::{explain, path_of};
use super::exit::Exit;
use super::large;
use super::machine;
use super::pack::{Packing, Upload, packed};
use super::progress::Screen;
use super::project::here;
use super::term::harmless;
use crate::git::{Commit, GitError, Repository, Resolved};
use crate::telemetry::chain;
use crate::wire::release;

/// So many files with changes are named.
const MOST_NAMED: usize = 20;

/// What is deployed.
pub enum Chosen {
    /// A file, a directory or an archive.
    Upload(Upload),
    /// A commit.
    Commit(Checkout),
    /// What is on disk: its id or label.
    Release(String),
    /// What slotd fetches: what is called so at the app's remote, or the remote's default.
    Remote(Option<String>),
    /// The same, if the app has a remote; if not, this is what is wrong.
    RemoteOr(Option<String>, anyhow::Error),
}

/// A commit that was found.
pub struct Checkout {
    repository: Repository,
    resolved: Resolved,
}

impl Chosen {
    /// Finds what was meant.
    ///
    /// # Errors
    /// It is nothing, or more than one thing; or HEAD was meant and the work tree has changes that it has not.
    pub fn of(options: &Deploy) -> anyhow::Result<Self> {
        if let Some(release) = &options.release {
            return Ok(Self::Release(release.clone()));
        }
        if let Some(named) = &options.remote {
            return Ok(Self::Remote(named.clone()));
        }
        let Some(what) = &options.what else {
            let here = here()?;
            let beside = options.config.as_deref().and_then(Path::parent);
            let directory = beside.map_or(here.clone(), |beside| here.join(beside));
            return match Checkout::head(&directory, options.allow_dirty) {
                Err(error) if is_in_no_repository(&directory) => Ok(Self::RemoteOr(None, error)),
                head => head.map(Self::Commit),
            };
        };
        let is_path = what == Path::new("-")
            || [b'.', b'/'].contains(
                &what
                    .as_os_str()
                    .as_encoded_bytes()
                    .first()
                    .copied()
                    .unwrap_or(b'.'),
            );
        let name = what.to_str().filter(|_| !is_path);
        let Some(name) = name else {
            return Upload::look_over(what).map(Self::Upload);
        };
        let exists = what.symlink_metadata().is_ok();
        let repository = match Repository::find(&here()?) {
            Ok(repository) => repository,
            // Then it can only be a path, and whatever is wrong with it is told.
            Err(_) if exists => return Upload::look_over(what).map(Self::Upload),
            Err(GitError::NoRepository { said: None, .. }) => {
                return Ok(match Upload::look_over(what) {
                    Ok(source) => Self::Upload(source),
                    Err(error) => Self::RemoteOr(Some(name.to_owned()), error),
                });
            }
            Err(error) => return Err(refused(&error)),
        };
        match (repository.resolve(name), exists) {
            (Ok(_) | Err(GitError::Ambiguous { .. }), true) => Err(Exit::Input.because(format!(
                "{name} is a path here and a commit of the repository at {}; write ./{name} for the path, or for the commit its hash \
                 (`git rev-parse {name}`)",
                repository.directory().display()
            ))),
            (Err(_), true) => Upload::look_over(what).map(Self::Upload),
            (Ok(resolved), false) => Ok(Self::Commit(Checkout {
                repository,
                resolved,
            })),
            (Err(error @ GitError::Unknown { .. }), false) => Err(Exit::Input.because(format!(
                "{name} does not exist as a path, and {}",
                chain(&error)
            ))),
            (Err(error), false) => Err(refused(&error)),
        }
    }

    /// The path that was named, if it was one.
    #[must_use]
    pub fn path<'o>(&self, options: &'o Deploy) -> Option<&'o Path> {
        match self {
            Self::Upload(_) => options.what.as_deref(),
            Self::Commit(_) | Self::Release(_) | Self::Remote(_) | Self::RemoteOr(..) => None,
        }
    }
}

impl Checkout {
    /// HEAD of the repository that a directory is in.
    ///
    /// # Errors
    /// There is none, or tracked files have changes that it has not and `allow_dirty` does not say that this is meant.
    pub fn head(directory: &Path, allow_dirty: bool) -> anyhow::Result<Self> {
        let of_commits = machine::around(directory).is_some();
        let repository = Repository::find(directory).map_err(|error| match error {
            GitError::NoRepository { said: None, .. } => Exit::Input.because(format!(
                "{} is in no git repository, so there is no commit to deploy; {}",
                directory.display(),
                match of_commits {
                    true => "with slot-machine.json it is always one: `git init`, `git add -A`, `git commit`, then deploy",
                    false => "name a binary, a directory or an archive: `slotctl deploy ./build/server`",
                }
            )),
            error => refused(&error),
        })?;
        let resolved = repository
            .resolve("HEAD")
            .map_err(|error| refused(&error))?;
        if !allow_dirty {
            let changed = repository.changes().map_err(|error| refused(&error))?;
            if !changed.is_empty() {
                let count = changed.len();
                let mut list: Vec<String> = changed
                    .iter()
                    .take(MOST_NAMED)
                    .map(|path| format!("  {}", harmless(&path.to_string_lossy())))
                    .collect();
                if count > MOST_NAMED {
                    list.push(format!("  and {} more", count - MOST_NAMED));
                }
                return Err(Exit::Input.because(format!(
                    "{count} tracked {} changes that are not committed, and what is deployed is HEAD, without them:\n{}\ncommit them or \
                     stash them (`git stash`), or deploy HEAD as it is: `slotctl deploy --allow-dirty`",
                    if count == 1 { "file has" } else { "files have" },
                    list.join("\n")
                )));
            }
        }
        Ok(Self {
            repository,
            resolved,
        })
    }

    /// Which.
    #[must_use]
    pub fn commit(&self) -> &Commit {
        &self.resolved.commit
    }

    /// What is asked of slotd with it.
    #[must_use]
    pub fn queries(&self) -> Vec<(&'static str, String)> {
        let commit = ("commit", self.resolved.commit.to_string());
        let reference = self.resolved.reference.clone().map(|name| ("ref", name));
        std::iter::once(commit).chain(reference).collect()
    }

    /// Sends what slotd lacks of its submodules and of what Git LFS keeps, and gives what it lacks of the commit itself, and what is
    /// the bytes that the commit takes on disk, as far as that is known.
    ///
    /// # Errors
    /// A submodule or a content is not here, or slotd refuses one.
    pub async fn body(
        &self,
        client: &Client,
        options: &Deploy,
        screen: &mut Screen,
    ) -> anyhow::Result<(Body, Packing, Option<u64>)> {
        let parts = self
            .repository
            .parts(&self.resolved.commit)
            .map_err(|error| refused(&error))?;
        let mut size = large::send(client, &parts, options, screen).await?;
        let known: release::Repository = client.get("/repository").await?;
        let mut have: Vec<Commit> = known.have.iter().filter_map(|it| it.parse().ok()).collect();
        if !have.contains(&self.resolved.commit) {
            for part in &parts {
                let files = part.size().map_err(|error| refused(&error))?;
                size = Some(size.unwrap_or(0) + files);
            }
        }
        let mut body = None;
        for part in parts {
            let pack = if have.contains(&part.commit) {
                None
            } else {
                Some(part.pack(&have).map_err(|error| refused(&error))?)
            };
            if part.commit == self.resolved.commit {
                body = Some(packed(pack)?);
            } else if pack.is_some() {
                let (sent, packing) = packed(pack)?;
                let path = path_of("/repository", &[("commit", part.commit.to_string())]);
                if let Err(error) = client.post::<release::Repository>(&path, sent).await {
                    return Err(explain(client, packing, error.into()).await);
                }
                have.push(part.commit);
            }
        }
        let (body, packing) =
            body.ok_or_else(|| io::Error::other("a commit is a part of itself"))?;
        Ok((body, packing, size))
    }
}

pub(super) fn refused(error: &GitError) -> anyhow::Error {
    Exit::Input.because(chain(error))
}

fn is_in_no_repository(directory: &Path) -> bool {
    let found = Repository::find(directory);
    matches!(found, Err(GitError::NoRepository { said: None, .. }))
}
