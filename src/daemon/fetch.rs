//! Commits that slotd has fetched for it: by a unit, or a child, that has the key and asks the remote, which slotd does not.
//!
//! What the fetcher sends is taken the way that an upload is, and looked over as one.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::app::Managed;
use super::commits::{CHECKOUT, lay_out_taken};
use super::errand::{Broken, Call};
use super::live::blocking;
use super::prepare::{Preparation, Unready};
use super::tell;
use super::units::{Unbuilt, Units};
use crate::config::{App, Remote, is_ref_name};
use crate::deploy::{Generation, Label, ReleaseId, UnitFailure, UnitResult};
use crate::git::{Commit, GitError, Held, Store};
use crate::release::{self, About, Identity, ReleaseError, Root};
use crate::telemetry::chain;
use crate::wire::fetch::{FromPieces, Order, Word};
use crate::wire::release::Origin;

/// The step in which a commit is fetched.
pub(super) const FETCH: &str = "fetch";

/// The result of a fetch that did not end well by itself: what there is to say of it is a sentence.
const TOLD: &str = "fetch-failed";

/// What a fetcher had.
#[derive(Debug)]
struct Came {
    commit: Commit,
    reference: Option<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A commit whose release is on disk.
    Known(ReleaseId),
    /// The commit, in the store.
    Taken(Held),
}

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

    /// Puts a deployment on its way with a commit that is fetched from the app's remote: that of a branch, a tag or its whole name;
    /// without one of the app's `branch`, or what the remote's HEAD names. Returns at once.
    pub fn fetch(&self, generation: Generation, reference: Option<String>, label: Option<Label>) {
        let origin = Origin::Unknown;
        let preparation = self.preparation(generation, About { origin, label });
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
            preparation.fetched(&remote, reference).await
        });
    }
}

impl<U: Units> Preparation<U> {
    async fn fetched(mut self, remote: &Remote, reference: Option<String>) -> Option<String> {
        let (root, wanted) = (self.world.root.clone(), self.wanted());
        let (url, named) = (remote.url.clone(), self.named());
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
            exchange(&call.stream, &order, &root, held, wanted, named)
        };
        let came = tokio::select! {
            came = self.world.units.fetch(exchange) => came,
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
            What::Known(id) => return self.again(id).await,
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

    /// Tells which commit it is that was meant.
    fn named(&self) -> impl Fn(&Commit, Option<&str>) + Send + 'static {
        let (world, generation) = (Arc::clone(&self.world), self.generation);
        move |commit, reference| {
            let short = commit.short();
            let text = match reference.filter(|name| *name != commit.as_str()) {
                Some(name) => format!("{name} is {short}"),
                None => format!("commit {short}"),
            };
            world.tell_step(generation, FETCH, text);
        }
    }
}

/// Tells the fetcher what is wanted, and takes it.
fn exchange(
    stream: &UnixStream,
    order: &Order,
    root: &Root,
    held: Held,
    wanted: impl Fn() -> bool,
    named: impl Fn(&Commit, Option<&str>),
) -> Result<Came, Broken> {
    let mut to = stream;
    serde_json::to_writer(&mut to, order)
        .map_err(io::Error::from)
        .and_then(|()| to.write_all(b"\n"))
        .map_err(|error| broke_off(&error))?;
    let mut from = BufReader::with_capacity(1 << 16, stream);
    let next = |from: &mut BufReader<&UnixStream>| match Word::read(from) {
        Ok(Word::Failed { said }) => Err(Broken::Here(UnitFailure {
            result: TOLD.into(),
            text: said,
        })),
        word => word.map_err(|error| broke_off(&error)),
    };
    let Word::Named { commit, reference } = next(&mut from)? else {
        return Err(broke_off(&io::ErrorKind::InvalidData.into()));
    };
    let commit: Commit = commit
        .parse()
        .map_err(|error| refused(GitError::from(error)))?;
    // It becomes a part of what is remembered, and comes from a unit that a stranger's server speaks to.
    let reference = reference.filter(|name| is_ref_name(name) || name.parse::<Commit>().is_ok());
    named(&commit, reference.as_deref());
    let identity = Identity::Commit(commit.to_string());
    let id = identity.id().ok_or(ReleaseError::Nameless);
    let id = id.map_err(|error| not_taken(&error))?;
    if let Some(known) = release::known(root, &identity).map_err(|error| not_taken(&error))? {
        return Ok(Came {
            commit,
            reference,
            what: What::Known(known),
        });
    }
    loop {
        let Word::Part { commit: part } = next(&mut from)? else {
            return Err(broke_off(&io::ErrorKind::InvalidData.into()));
        };
        let part: Commit = part
            .parse()
            .map_err(|error| refused(GitError::from(error)))?;
        let pack = FromPieces::of(&mut from);
        if part == commit {
            held.take(&part, &id, pack, &wanted).map_err(refused)?;
            return Ok(Came {
                commit,
                reference,
                what: What::Taken(held),
            });
        }
        held.take_module(&part, pack, &wanted).map_err(refused)?;
    }
}

fn broke_off(error: &io::Error) -> Broken {
    Broken::There(format!("broke off: {error}"))
}

fn refused(error: GitError) -> Broken {
    match error {
        GitError::Torn { source, .. } => broke_off(&source),
        error => not_taken(&error),
    }
}

fn not_taken(error: &dyn std::error::Error) -> Broken {
    Broken::Here(UnitFailure {
        result: TOLD.into(),
        text: chain(error),
    })
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
        UnitResult::Other(_) => format!("the fetch from {} failed: {}", remote.url, failure.text),
    }
}
