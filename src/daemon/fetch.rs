//! Commits that slotd has fetched for it: by a unit, or a child, that has the key and asks the remote, which slotd does not.
//!
//! What the fetcher sends is taken the way that an upload is, and looked over as one.

use std::sync::Arc;

use super::app::Managed;
use super::commits::{CHECKOUT, lay_out_taken};
use super::errand::Call;
use super::live::blocking;
use super::owner::AskError;
use super::prepare::{Preparation, Unready};
use super::taker::{TOLD, Taker, What, look, refused};
use super::tell;
use super::units::{Unbuilt, Units};
use crate::config::{App, Remote};
use crate::deploy::{Generation, Label, UnitResult};
use crate::git::Store;
use crate::release::{About, ReleaseError};
use crate::wire::api::AtRemote;
use crate::wire::fetch::Order;
use crate::wire::release::Origin;

/// The step in which a commit is fetched.
pub(super) const FETCH: &str = "fetch";

impl<U: Units> Managed<U> {
    /// Why nothing can be fetched for the app, if that can be told beforehand.
    #[must_use]
    pub fn no_remote(&self) -> Option<String> {
        let app = self.app();
        match &app.remote {
            None => Some(format!(
                "{} has no remote to fetch from; write `[git]` and `remote = \"git@example.org:me/shop.git\"` into its slot.toml, then \
                 `slotctl app add`; or deploy out of a repository here",
                app.name
            )),
            Some(remote) => remote
                .key_problem()
                .map(|problem| format!("deploy_key: {problem}")),
        }
    }

    /// What the app's remote has on its branch now. A deployment goes first: as soon as there is one, this is given up.
    ///
    /// # Errors
    /// That cannot be found out.
    pub async fn at_remote(&self) -> Result<AtRemote, AskError> {
        let (app, world) = (self.app(), self.world());
        let Some(remote) = &app.remote else {
            return Err(AskError::Unlooked(self.no_remote().unwrap_or_default()));
        };
        let order = Order {
            remote: remote.url.clone(),
            reference: remote.branch.clone(),
            have: Vec::new(),
        };
        let look = async {
            let _turn = world.fetching.lock().await;
            let exchange = move |call: &Call| look(&call.stream, &order);
            world.units.fetch(exchange).await
        };
        let mut state = self.owner().state();
        let looked = tokio::select! {
            biased;
            _ = state.wait_for(|state| state.deployment.is_some()) => {
                return Err(AskError::Unlooked("a deployment is in progress".to_owned()));
            }
            looked = look => looked,
        };
        let (commit, reference) =
            looked.map_err(|unfetched| AskError::Unlooked(why(app, remote, &unfetched)))?;
        Ok(AtRemote {
            commit: commit.to_string(),
            reference,
        })
    }

    /// Puts a deployment on its way with a commit that is fetched from the app's remote: that of a branch, a tag or its whole name;
    /// without one of the app's `branch`, or what the remote's HEAD names. With `check`, there has to be room for what Git LFS keeps of
    /// it. Returns at once.
    pub fn fetch(
        &self,
        generation: Generation,
        reference: Option<String>,
        label: Option<Label>,
        check: bool,
    ) {
        let origin = Origin::Unknown;
        let preparation = self.preparation(
            generation,
            About {
                origin,
                label,
                ..About::default()
            },
        );
        let world = Arc::clone(&preparation.world);
        tokio::spawn(async move {
            let Some(remote) = world.app.remote.clone() else {
                // Who asks has asked for that.
                return preparation.go_on(Err(ReleaseError::Unwanted.into())).await;
            };
            let reference = reference.or_else(|| remote.branch.clone());
            let what = reference.as_deref().unwrap_or("HEAD");
            let text = format!("asks {} for {what}", remote.url);
            world.tell_step(generation, FETCH, text);
            preparation.fetched(&remote, reference, check).await
        });
    }
}

impl<U: Units> Preparation<U> {
    async fn fetched(
        mut self,
        remote: &Remote,
        reference: Option<String>,
        check: bool,
    ) -> Option<String> {
        let (root, wanted) = (self.world.root.clone(), self.wanted());
        let (url, tell) = (remote.url.clone(), self.tell());
        let made_with = self.about.made_with.clone();
        let exchange = move |call: &Call| {
            // What the fetcher leaves out, because it is here now, stays.
            let held = Store::of(&root).hold().map_err(refused)?;
            let have = Store::of(&root).have().map_err(refused)?;
            let order = Order {
                remote: url,
                reference,
                have: have.iter().map(ToString::to_string).collect(),
            };
            let wanted = || call.is_wanted() && wanted();
            let taker = Taker {
                root: &root,
                made_with: made_with.as_deref(),
                held,
                check,
                wanted,
                tell,
            };
            taker.take(&call.stream, &order)
        };
        let fetch = async {
            let _turn = self.world.fetching.lock().await;
            self.world.units.fetch(exchange).await
        };
        let came = tokio::select! {
            came = fetch => came,
            () = self.ended() => {
                self.world.units.end_fetch().await;
                return self.go_on(Err(ReleaseError::Unwanted.into())).await;
            }
        };
        let came = match came {
            Ok(came) => came,
            Err(unfetched) => {
                let why = why(&self.world.app, remote, &unfetched);
                let report = Box::new(unfetched.report);
                return self.go_on(Err(Unready::Unfetched { why, report })).await;
            }
        };
        self.about.origin = Origin::Git {
            commit: came.commit.to_string(),
            reference: came.reference,
        };
        let held = match came.what {
            What::Known(id) => return self.known(id).await,
            What::Taken(held) => held,
        };
        self.world.enter_step(self.generation, CHECKOUT);
        let (root, wanted) = (self.world.root.clone(), self.wanted());
        let laid_out = blocking(move || {
            let laid_out = lay_out_taken(&root, &held, &came.commit, wanted);
            laid_out.map(|laid_out| (laid_out, held))
        });
        let laid_out = laid_out.await.map(|(laid_out, held)| {
            self.held = Some(held);
            laid_out
        });
        self.go_on(laid_out).await
    }

    /// Tells how far it has come.
    fn tell(&self) -> impl Fn(String) + Send + 'static {
        let (world, generation) = (Arc::clone(&self.world), self.generation);
        move |text| world.tell_step(generation, FETCH, text)
    }
}

/// The sentence for a fetch that did not end well.
fn why(app: &App, remote: &Remote, unfetched: &Unbuilt) -> String {
    let failure = &unfetched.failure;
    match &failure.result {
        UnitResult::Timeout => format!(
            "the fetch from {} did not end within fetch_timeout ({}): the remote does not answer, or there is much to fetch; if it is \
             that, write a longer one under [git] in the file of {}",
            remote.url,
            tell::span(remote.timeout),
            app.name
        ),
        UnitResult::Other(result) if result == TOLD => failure.text.clone(),
        UnitResult::Success | UnitResult::Other(_) => {
            format!("the fetch from {} failed: {}", remote.url, failure.text)
        }
    }
}
