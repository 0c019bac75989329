//! From laid-out bits to a release that can be started: the app's `setup_command`, its shared directories, the record.
//!
//! **Invariant:** it goes on when whoever asked does not, and ends when the deployment does: a rollback waits for no build.

use std::path::Path;
use std::sync::Arc;

use super::commits::CHECKOUT;
use super::live::{Live, blocking};
use super::owner::Owner;
use super::units::{Report, Unbuilt, Units};
use crate::config::App;
use crate::deploy::{Event, Generation, Hook, ReleaseId};
use crate::git::{GitError, Held};
use crate::preflight;
use crate::release::{
    self, About, Identity, Incoming, Links, Record, ReleaseError, Settled, Unfinished, share,
};
use crate::telemetry::chain;

/// The step in which the `setup_command` runs.
const BUILD: &str = "build";

/// Why there is no release.
pub(super) enum Unready {
    Release(ReleaseError),
    Git(GitError),
    Build(Box<Unbuilt>),
    /// It could not be fetched.
    Unfetched {
        why: String,
        report: Box<Report>,
    },
}

impl From<ReleaseError> for Unready {
    fn from(error: ReleaseError) -> Self {
        Self::Release(error)
    }
}

impl From<GitError> for Unready {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

/// One deployment that is being prepared.
pub(super) struct Preparation<U> {
    pub world: Arc<Live<U>>,
    pub owner: Owner,
    pub generation: Generation,
    pub about: About,
    /// Keeps a commit where it came to, until its release is there.
    pub held: Option<Held>,
}

impl<U: Units> Preparation<U> {
    /// Makes a release of what was laid out, and puts the deployment on its way, or ends it. Returns the id as soon as that is known; a
    /// build goes on after that.
    pub(super) async fn go_on(
        self,
        laid_out: Result<(Incoming, Identity), Unready>,
    ) -> Option<String> {
        let app = &self.world.app;
        let settled = match laid_out {
            Ok((incoming, identity)) => {
                let identity = identity.made_by(app.setup_command.as_deref(), &app.shared_dirs);
                let wanted = self.wanted();
                blocking(move || incoming.settle(identity, wanted))
                    .await
                    .map_err(Unready::from)
            }
            Err(error) => Err(error),
        };
        match settled {
            Ok(Settled::Known(id)) => self.again(id).await,
            Ok(Settled::New(unfinished)) if self.is_barred(unfinished.id()) => {
                let id = unfinished.id().clone();
                // A tree is removed.
                blocking(move || drop(unfinished)).await;
                self.bar(id).await
            }
            Ok(Settled::New(unfinished)) => {
                let id = unfinished.id().to_string();
                let builds = app.setup_command.is_some();
                let made = async move {
                    let made = self.make(unfinished).await;
                    self.report(made).await
                };
                if builds {
                    tokio::spawn(made);
                    return Some(id);
                }
                made.await
            }
            Err(error) => self.report(Err(error)).await,
        }
    }

    /// The same with the release of a commit that is on disk.
    pub(super) async fn known(self, id: ReleaseId) -> Option<String> {
        let (root, read) = (self.world.root.clone(), id.clone());
        let record = blocking(move || Record::read(&root, &read)).await;
        let made_with = self.about.made_with.as_deref();
        if record.is_some_and(|record| record.is_made_otherwise(made_with)) {
            let text = format!(
                "release {id} is in use as it is: it was made with another setup_command or other shared_dirs; to have it made anew, deploy \
                 another commit (`git commit --allow-empty`)"
            );
            self.world.tell_step(self.generation, CHECKOUT, text);
        }
        self.again(id).await
    }

    /// The same with a release that is on disk.
    pub(super) async fn again(self, id: ReleaseId) -> Option<String> {
        if self.is_barred(&id) {
            return self.bar(id).await;
        }
        let (root, about, wanted) = (self.world.root.clone(), self.about.clone(), self.wanted());
        let (app, home) = (Arc::clone(&self.world.app), root.home(&id));
        let take = move || {
            let id = release::take(&root, &id, &about, wanted)?;
            runnable(&app, &home).map(|()| id)
        };
        let taken = blocking(take).await;
        self.report(taken.map_err(Unready::from)).await
    }

    /// Whether the release is not to serve by this deployment, so that nothing need be made of it.
    fn is_barred(&self, id: &ReleaseId) -> bool {
        let state = Arc::clone(&self.owner.state().borrow());
        state.bars(self.generation, id).is_some()
    }

    async fn bar(&self, release: ReleaseId) -> Option<String> {
        let id = release.to_string();
        let generation = self.generation;
        let event = Event::Barred {
            generation,
            release,
        };
        self.owner.report(event).await;
        Some(id)
    }

    async fn make(&self, unfinished: Unfinished) -> Result<ReleaseId, Unready> {
        if let Err(error) = self.build(&unfinished).await {
            // A tree is removed.
            blocking(move || drop(unfinished)).await;
            return Err(error);
        }
        let app = Arc::clone(&self.world.app);
        let (shared, about, wanted) =
            (self.world.units.shared(), self.about.clone(), self.wanted());
        let finished = blocking(move || {
            let path = unfinished.path();
            runnable(&app, &path)?;
            share(&path, &app.shared_dirs, &shared)?;
            // What was sent has been looked over; what was made of it here may lead anywhere.
            unfinished.finish(&about, Links::Any, wanted)
        });
        Ok(finished.await?)
    }

    async fn build(&self, unfinished: &Unfinished) -> Result<(), Unready> {
        if self.world.app.setup_command.is_none() {
            return Ok(());
        }
        self.world.enter_step(self.generation, BUILD);
        let site = unfinished.site();
        let built = tokio::select! {
            built = self.world.units.build(&site) => Some(built),
            () = self.ended() => None,
        };
        match built {
            Some(built) => built.map_err(|unbuilt| Unready::Build(Box::new(unbuilt))),
            None => {
                self.world.units.end_build().await;
                Err(ReleaseError::Unwanted.into())
            }
        }
    }

    /// Runs the hook for the release, if there is one, and tells the owner. Nobody waits for it who only wants the release's id.
    fn hand_on(&self, release: ReleaseId) {
        let (world, owner) = (Arc::clone(&self.world), self.owner.clone());
        let generation = self.generation;
        tokio::spawn(async move {
            let state = Arc::clone(&owner.state().borrow());
            let failure = tokio::select! {
                failure = world.before_deploy(generation, &release, &state) => failure,
                () = over(&owner, generation) => return,
            };
            let event = match failure {
                None => Event::Prepared {
                    generation,
                    release,
                },
                failure => Event::Hooked {
                    hook: Hook::BeforeDeploy,
                    generation,
                    failure,
                },
            };
            owner.report(event).await;
        });
    }

    /// Tells the owner what came of it.
    async fn report(&self, made: Result<ReleaseId, Unready>) -> Option<String> {
        let generation = self.generation;
        if let Ok(release) = &made
            && self.world.has_hook(Hook::BeforeDeploy)
        {
            self.hand_on(release.clone());
            return Some(release.to_string());
        }
        let (id, event) = match made {
            Ok(release) => (
                Some(release.to_string()),
                Event::Prepared {
                    generation,
                    release,
                },
            ),
            Err(Unready::Release(error)) => (
                None,
                Event::Unprepared {
                    generation,
                    why: chain(&error),
                },
            ),
            Err(Unready::Git(error)) => (
                None,
                Event::Unprepared {
                    generation,
                    why: chain(&error),
                },
            ),
            Err(Unready::Unfetched { why, report }) => {
                self.world.keep_report(generation, *report);
                (None, Event::Unprepared { generation, why })
            }
            Err(Unready::Build(unbuilt)) => {
                self.world.keep_report(generation, unbuilt.report);
                let failure = unbuilt.failure;
                (
                    None,
                    Event::Unbuilt {
                        generation,
                        failure,
                    },
                )
            }
        };
        self.owner.report(event).await;
        id
    }

    /// Asks whether somebody still waits for the release: the deployment has not ended, and was not taken over.
    pub(super) fn wanted(&self) -> impl Fn() -> bool + Send + 'static {
        let (state, generation) = (self.owner.state(), self.generation);
        move || {
            let held = state.borrow().deployment.as_ref().map(|it| it.generation);
            // The state of an owner that has ended stays as it was; it has no deployment any more.
            held == Some(generation) && state.has_changed().is_ok()
        }
    }

    /// Returns when nobody waits for it any more.
    pub(super) async fn ended(&self) {
        over(&self.owner, self.generation).await;
    }
}

/// Returns when an attempt does not hold the lock any more.
async fn over(owner: &Owner, generation: Generation) {
    let mut state = owner.state();
    // An owner that has ended has no deployment any more.
    let _ = state
        .wait_for(|state| {
            let held = state.deployment.as_ref().map(|it| it.generation);
            held != Some(generation)
        })
        .await;
}

/// That a release has the program that the app's command runs, if it is one of the release.
fn runnable(app: &App, release: &Path) -> Result<(), ReleaseError> {
    let word = app.command.first().map_or("", String::as_str);
    preflight::lacking(word, release).map_or(Ok(()), |why| Err(ReleaseError::Unrunnable(why)))
}
