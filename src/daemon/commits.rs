//! Commits that are deployed: taken from whoever has them, laid out, kept for as long as their releases are.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Read;
use std::path::PathBuf;

use super::app::Managed;
use super::live::blocking;
use super::owner::AskError;
use super::prepare::Unready;
use super::units::Units;
use crate::config::Semantics;
use crate::deploy::{Generation, ReleaseId};
use crate::git::{Commit, GitError, Held, Oid, Store};
use crate::preflight;
use crate::release::{self, About, Identity, Incoming, Links, ReleaseError, Root};
use crate::telemetry::chain;
use crate::wire::release::{self as api, Origin};

/// The step in which a commit comes and is laid out.
pub(super) const CHECKOUT: &str = "checkout";

/// What came of a commit.
enum LaidOut {
    /// Its release is on disk.
    Known(ReleaseId),
    /// It is in a directory of its own, and stays in the store.
    New(Incoming, Identity, Held),
}

impl<U: Units> Managed<U> {
    /// Puts a commit on disk whose pack is uploaded, and its deployment on its way; as `upload` does with an archive.
    pub async fn upload_commit(
        &self,
        generation: Generation,
        commit: Commit,
        about: About,
        mut pack: impl Read + Send + 'static,
    ) -> Option<String> {
        let root = self.world().root.clone();
        let mut preparation = self.preparation(generation, about);
        let (wanted, made_with) = (preparation.wanted(), preparation.about.made_with.clone());
        self.world().enter_step(generation, CHECKOUT);
        let task = tokio::spawn(async move {
            let work = move || {
                let laid_out = lay_out(&root, &commit, made_with.as_deref(), &mut pack, wanted);
                (laid_out, pack)
            };
            let (laid_out, mut rest) = blocking(work).await;
            let id = match laid_out {
                Ok(LaidOut::Known(id)) => preparation.known(id).await,
                Ok(LaidOut::New(incoming, identity, held)) => {
                    preparation.held = Some(held);
                    preparation.go_on(Ok((incoming, identity))).await
                }
                Err(error) => preparation.go_on(Err(error)).await,
            };
            // Whoever still sends comes to the answer.
            let _ = blocking(move || std::io::copy(&mut rest, &mut std::io::sink())).await;
            id
        });
        task.await.ok().flatten()
    }

    /// Puts a deployment on its way with a commit, which `lay_out` lays out in a directory unless there is a release of it. Goes on when
    /// its caller does not.
    pub async fn check_out<F>(
        &self,
        generation: Generation,
        commit: String,
        reference: Option<String>,
        lay_out: impl FnOnce(PathBuf) -> F + Send + 'static,
    ) -> Option<String>
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let origin = Origin::Git {
            commit: commit.clone(),
            reference,
        };
        let about = About {
            origin,
            ..About::default()
        };
        let (root, preparation) = (
            self.world().root.clone(),
            self.preparation(generation, about),
        );
        let identity = Identity::Commit(commit);
        // There it is the user's own repository, and his own process: what a work tree may have in it, a release may.
        let links = match self.app().semantics {
            Semantics::SlotMachine => Links::Any,
            Semantics::Slot => Links::Inside,
        };
        let task = tokio::spawn(async move {
            let (looked, wanted) = (root.clone(), identity.clone());
            let made_with = preparation.about.made_with.clone();
            let look = move || release::known(&looked, &wanted, made_with.as_deref());
            let known = blocking(look).await;
            if let Ok(Some(id)) = known {
                return preparation.known(id).await;
            }
            let laid_out = async {
                known?;
                preparation.world.enter_step(generation, CHECKOUT);
                let incoming = blocking(move || release::begin(&root)).await?;
                lay_out(incoming.path().to_owned())
                    .await
                    .map_err(ReleaseError::NotLaidOut)?;
                blocking(move || incoming.check(links).map(|()| (incoming, identity))).await
            };
            let laid_out: Result<_, ReleaseError> = laid_out.await;
            preparation.go_on(laid_out.map_err(Unready::from)).await
        });
        task.await.ok().flatten()
    }

    /// Which commits are here, so that nothing of them need be sent.
    pub async fn repository(&self) -> api::Repository {
        let store = Store::of(&self.world().root);
        let have = match blocking(move || store.have()).await {
            Ok(have) => have.iter().map(ToString::to_string).collect(),
            Err(error) => {
                // Then all of it is sent, and taken or refused.
                tracing::warn!(slot_app = self.app().name.as_str(), "{}", chain(&error));
                Vec::new()
            }
        };
        api::Repository { have }
    }

    /// Keeps the commits that are here, until what is given is dropped.
    #[must_use]
    pub fn keep_commits(&self) -> Held {
        Store::of(&self.world().root).keep()
    }

    /// Takes a commit of a submodule, for the commit that has it and comes next.
    ///
    /// # Errors
    /// It was torn, or is refused; nothing of it is kept.
    pub async fn take_module(
        &self,
        commit: Commit,
        pack: impl Read + Send + 'static,
    ) -> Result<(), GitError> {
        let store = Store::of(&self.world().root);
        blocking(move || store.hold()?.take_module(&commit, pack, || true)).await
    }

    /// Which contents of files of Git LFS are not here, of one for each file of a commit. With `check`, that there is room for those, and
    /// for all of them once more in the release.
    ///
    /// # Errors
    /// There is not.
    pub async fn lacks(
        &self,
        contents: Vec<(Oid, u64)>,
        check: bool,
    ) -> Result<BTreeSet<Oid>, AskError> {
        let root = self.world().root.clone();
        blocking(move || {
            let lacked = lacked(&root, &contents);
            let laid_out = contents.iter().map(|(_, size)| size);
            let sizes = lacked.values().chain(laid_out);
            let needed = sizes.fold(0, |sum: u64, size| sum.saturating_add(*size));
            if check
                && !lacked.is_empty()
                && let Some(why) = preflight::short_of_disk(&root, Some(needed))
            {
                return Err(AskError::Harmful(why));
            }
            Ok(lacked.into_keys().collect())
        })
        .await
    }

    /// Takes a content of Git LFS, for the commit that has its file and comes later.
    ///
    /// # Errors
    /// It was torn, or is not what it was said to be; nothing of it is kept.
    pub async fn take_content(
        &self,
        oid: Oid,
        size: u64,
        mut content: impl Read + Send + 'static,
    ) -> Result<(), GitError> {
        let store = Store::of(&self.world().root);
        blocking(move || {
            let held = store.hold()?;
            let taken = held.take_content(&oid, size, &mut content, || true);
            // Whoever still sends, to a disk that is full for instance, comes to the answer.
            let _ = std::io::copy(&mut content, &mut std::io::sink());
            taken
        })
        .await
    }
}

/// Clears what a crash left of a commit that came.
pub(super) fn tidy(root: &Root) {
    if let Err(error) = Store::of(root).tidy() {
        // It is in nobody's way.
        tracing::warn!("{}", chain(&error));
    }
}

fn lay_out(
    root: &Root,
    commit: &Commit,
    made_with: Option<&str>,
    pack: &mut impl Read,
    wanted: impl Fn() -> bool,
) -> Result<LaidOut, Unready> {
    let identity = Identity::Commit(commit.to_string());
    if let Some(id) = release::known(root, &identity, made_with)? {
        return Ok(LaidOut::Known(id));
    }
    let id = identity.id().ok_or(ReleaseError::Nameless)?;
    let held = Store::of(root).hold()?;
    held.take(commit, &id, pack, &wanted)?;
    let (incoming, identity) = lay_out_taken(root, &held, commit, wanted)?;
    Ok(LaidOut::New(incoming, identity, held))
}

/// Lays out a commit that is in the store, in a directory of its own.
pub(super) fn lay_out_taken(
    root: &Root,
    held: &Held,
    commit: &Commit,
    wanted: impl Fn() -> bool,
) -> Result<(Incoming, Identity), Unready> {
    let incoming = release::begin(root)?;
    held.lay_out(commit, incoming.path())?;
    incoming.check(Links::Inside)?;
    if !wanted() {
        return Err(ReleaseError::Unwanted.into());
    }
    Ok((incoming, Identity::Commit(commit.to_string())))
}

/// Which contents of files of Git LFS an app's store lacks, of one for each file, with their bytes.
pub(super) fn lacked(root: &Root, contents: &[(Oid, u64)]) -> BTreeMap<Oid, u64> {
    let mut each: BTreeMap<Oid, u64> = contents.iter().cloned().collect();
    let lacked = Store::of(root).lacks(each.iter().map(|(oid, size)| (oid, *size)));
    each.retain(|oid, _| lacked.contains(oid));
    each
}
