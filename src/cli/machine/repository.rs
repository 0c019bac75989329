//! The repository whose commits are deployed: the user's own, read as that user; and staging, which is a work tree of it.
//!
//! **Invariant:** nothing of the work tree, the index or a branch of the user's is changed; staging is a work tree of its own, on a branch
//! of its own.
//! **Invariant:** what is in staging and nowhere else is never removed.

use std::path::{Path, PathBuf};

use crate::api::machine::{Commits, STAGING};
use crate::deploy::ReleaseId;
use crate::git::{self, Commit, GitError, Held, NoCommit, Part, Store};
use crate::release::{self, Layout, Root};
use crate::staging::{Made, Promoted, Staging};
use crate::telemetry::chain;

/// A repository, and the data directory of the app that is deployed from it.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    path: PathBuf,
    data: PathBuf,
    shared_dirs: Vec<String>,
}

impl Repository {
    pub(super) fn new(path: &Path, data: &Path, shared_dirs: Vec<String>) -> Self {
        Self {
            path: path.to_owned(),
            data: data.to_owned(),
            shared_dirs,
        }
    }
}

impl Commits for Repository {
    async fn resolve(&self, name: &str) -> Result<String, String> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let found = move || git::Repository::find(&path)?.resolve(&name);
        let resolved = blocking(found).await?;
        Ok(resolved.commit.to_string())
    }

    async fn lay_out(self, commit: String, directory: PathBuf) -> Result<(), String> {
        let lay_out = move || {
            let commit: Commit = commit.parse().map_err(|_| GitError::Unknown {
                name: commit.clone(),
                directory: self.path.clone(),
                hint: String::new(),
            })?;
            let repository = git::Repository::find(&self.path)?;
            let store = Store::of(&self.data);
            let held = store.hold()?;
            for part in repository.parts(&commit)? {
                take_contents(&store, &held, &part)?;
                let have: Vec<Commit> = store.have()?.into_iter().collect();
                let pack = part.pack(&have)?;
                if part.commit == commit {
                    let release = commit.short().parse().expect("eight digits are an id");
                    held.take(&commit, &release, pack, || true)?;
                } else {
                    held.take_module(&part.commit, pack, || true)?;
                }
            }
            held.lay_out(&commit, &directory)
        };
        blocking(lay_out).await
    }

    async fn stage(self, release: ReleaseId, commit: String) -> Result<(), String> {
        let data = self.data.clone();
        let let_go = move || {
            let root = Root::new(data, Layout::SlotMachine);
            let kept = release::list(&root).into_iter().map(|(id, _)| id);
            Store::of(&root).prune(&kept.collect())
        };
        if let Err(why) = blocking(let_go).await {
            tracing::warn!("commits that no release is of are kept: {why}");
        }
        let staging = Staging::of_users(self.data.join(STAGING), self.path.clone());
        let promoted = Promoted {
            home: Root::new(self.data.clone(), Layout::SlotMachine).home(&release),
            release,
            commit: commit
                .parse()
                .map_err(|error: NoCommit| error.to_string())?,
            shared_dirs: self.shared_dirs,
        };
        // The repository has the commit already: it is where it came from.
        let make = move || staging.make(&promoted, |_| Ok(std::io::empty()));
        match blocking(make).await? {
            Made::Of(_) => Ok(()),
            Made::Kept(why) => Err(why),
        }
    }
}

/// Takes what the files of a part have in them that Git LFS keeps.
fn take_contents(store: &Store, held: &Held, part: &Part) -> Result<(), GitError> {
    let files = part.large()?;
    let mut lacked = store.lacks(files.iter().map(|file| (&file.oid, file.size)));
    // Each with the first file that has it.
    let wanted: Vec<_> = files.iter().filter(|it| lacked.remove(&it.oid)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let shelf = part.shelf()?;
    let absent = shelf.absent(&wanted);
    if !absent.is_empty() {
        tracing::info!("{} files of Git LFS are fetched", absent.len());
        shelf.fetch(&absent, true)?;
    }
    for file in wanted {
        held.take_content(&file.oid, file.size, shelf.open(file)?, || true)?;
    }
    Ok(())
}

/// Runs what blocks away from the threads that must not.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
        .map_err(|error| chain(&error))
}
