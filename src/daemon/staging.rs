//! Staging after each promotion: which release the work tree for the next deployment is to be of.
//!
//! **Invariant:** no deployment waits for it: it is made when the state has nothing under way, beside whatever comes next.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use super::live::{Live, blocking};
use super::owner::Owner;
use super::units::Units;
use crate::deploy::{ReleaseId, State};
use crate::git::{Commit, Store};
use crate::release::Record;
use crate::staging::{Made, Promoted, TREE};
use crate::telemetry::chain;
use crate::wire::api;
use crate::wire::release::Origin;

impl<U: Units> Live<U> {
    /// Has staging made of what is live, again and again; returns when the app is not managed any more, or has none.
    pub(super) async fn keep_staging(self: Arc<Self>, owner: Owner) {
        if self.app.staging.is_none() {
            return;
        }
        let mut state = owner.state();
        let mut last: Option<ReleaseId> = None;
        loop {
            let due = |state: &State| {
                let live = state.live().filter(|_| state.deployment.is_none());
                live.filter(|live| Some(*live) != last.as_ref()).cloned()
            };
            let seen = state.wait_for(|state| due(state).is_some()).await;
            let Some(release) = seen.ok().and_then(|state| due(&state)) else {
                // The owner has ended.
                return;
            };
            self.stage(&release).await;
            last = Some(release);
        }
    }

    async fn stage(&self, release: &ReleaseId) {
        let app = self.app.name.as_str();
        self.tell_staging(|staging| staging.coming = Some(release.to_string()));
        let made = self.make_staging(release).await;
        let kept = match made {
            Ok(Made::Of(_)) => {
                tracing::info!(
                    slot_app = app,
                    slot_release = release.as_str(),
                    "staging is of release {release}"
                );
                None
            }
            Ok(Made::Kept(why)) => {
                tracing::warn!(slot_app = app, slot_release = release.as_str(), "{why}");
                Some(why)
            }
            Err(why) => {
                let why = format!("staging was not made of release {release}: {why}");
                tracing::warn!(slot_app = app, slot_release = release.as_str(), "{why}");
                Some(why)
            }
        };
        self.tell_staging(|staging| {
            staging.coming = None;
            if kept.is_none() {
                staging.release = Some(release.to_string());
            }
            staging.kept = kept;
        });
    }

    async fn make_staging(&self, release: &ReleaseId) -> Result<Made, String> {
        let (root, id) = (self.root.clone(), release.clone());
        let record = blocking(move || Record::read(&root, &id)).await;
        let Some(Origin::Git { commit, .. }) = record.map(|record| record.origin) else {
            return Ok(Made::Kept(format!(
                "{TREE} stays as it is: release {release} is of no commit, and without one there is nothing to work on"
            )));
        };
        let commit: Commit = commit.parse().map_err(|error| chain(&error))?;
        let promoted = Promoted {
            home: self.root.home(release),
            release: release.clone(),
            commit,
            shared_dirs: self.app.shared_dirs.clone(),
        };
        let (link, tree) = (self.root.join(TREE), self.units.staging());
        if link != tree
            && let Err(error) = blocking(move || name(&link, &tree)).await
        {
            // It is found at its own place as well.
            tracing::warn!(
                slot_app = self.app.name.as_str(),
                "the symlink staging is missing: {error}"
            );
        }
        self.units.stage(promoted, Store::of(&self.root)).await
    }

    /// How staging is, for people; `None` without one.
    #[must_use]
    pub fn staging(&self) -> Option<api::Staging> {
        self.app.staging.as_ref()?;
        let mut staging = self.remembered_staging();
        staging.path = self.units.staging().to_string_lossy().into_owned();
        Some(staging)
    }
}

/// Makes a symlink say where the tree is.
fn name(link: &Path, tree: &Path) -> std::io::Result<()> {
    if fs::read_link(link).is_ok_and(|target| target == tree) {
        return Ok(());
    }
    let new = link.with_extension("new");
    let _ = fs::remove_file(&new);
    symlink(tree, &new)?;
    fs::rename(&new, link)
}
