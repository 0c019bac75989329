//! Commits that are deployed: taken from whoever has them, laid out, kept for as long as their releases are.

use std::io::Read;

use super::app::{CHECKOUT, Managed};
use super::live::blocking;
use super::prepare::Unready;
use super::units::Units;
use crate::deploy::Generation;
use crate::deploy::ReleaseId;
use crate::git::{Commit, GitError, Held, Store};
use crate::release::{self, About, Identity, Incoming, Links, ReleaseError, Root};
use crate::telemetry::chain;
use crate::wire::release as api;

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
        let wanted = preparation.wanted();
        self.world().enter_step(generation, CHECKOUT);
        let task = tokio::spawn(async move {
            let work = move || {
                let laid_out = lay_out(&root, &commit, &mut pack, wanted);
                (laid_out, pack)
            };
            let (laid_out, mut rest) = blocking(work).await;
            let id = match laid_out {
                Ok(LaidOut::Known(id)) => preparation.again(id).await,
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
}

fn lay_out(
    root: &Root,
    commit: &Commit,
    pack: &mut impl Read,
    wanted: impl Fn() -> bool,
) -> Result<LaidOut, Unready> {
    let identity = Identity::Commit(commit.to_string());
    if let Some(id) = release::known(root, &identity)? {
        return Ok(LaidOut::Known(id));
    }
    let id = identity.id().ok_or(ReleaseError::Nameless)?;
    let held = Store::of(root).hold()?;
    held.take(commit, &id, pack, &wanted)?;
    let incoming = release::begin(root)?;
    held.lay_out(commit, incoming.path())?;
    incoming.check(Links::Inside)?;
    if !wanted() {
        return Err(ReleaseError::Unwanted.into());
    }
    Ok(LaidOut::New(incoming, identity, held))
}
