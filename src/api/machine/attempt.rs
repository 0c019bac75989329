//! Deploying a commit and going back, as slot-machine's API does: each is answered when it is over, its old slot stopped and the disk
//! as it is to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;

use super::journal::Journal;
use crate::config::Semantics;
use crate::daemon::app::{Managed, Wish};
use crate::daemon::owner::AskError;
use crate::daemon::status::Wait;
use crate::daemon::units::Units;
use crate::deploy::{Condition, Generation, Refusal, ReleaseId, Service, State};
use crate::release::Record;
use crate::telemetry::chain;
use crate::wire::api::Outcome;
use crate::wire::machine::{Deployed, Entry, Status, rfc3339};
use crate::wire::release::Origin;

/// Who an attempt is by.
const BY: &str = "slot-machine's API";

/// What staging is called in the data directory.
pub const STAGING: &str = "slot-staging";

/// How long an answer waits for staging to be made.
const STAGING_WAIT: Duration = Duration::from_secs(10);

/// What a shell ends with when it cannot execute a command, and when it does not find one (sh(1), "Exit Status for Commands").
const NOT_STARTED: [&str; 2] = ["exited with status 126", "exited with status 127"];

/// The commits that are deployed.
pub trait Commits: Clone + Send + Sync + 'static {
    /// The 40 hexadecimal digits of a commit, by whatever name it has: `HEAD`, a branch, a tag, some of its digits.
    ///
    /// # Errors
    /// A sentence: which name it is that means nothing, or more than one thing.
    fn resolve(&self, name: &str) -> impl Future<Output = Result<String, String>> + Send;

    /// Puts exactly the files of a commit into a directory, which is empty.
    ///
    /// # Errors
    /// A sentence.
    fn lay_out(
        self,
        commit: String,
        directory: PathBuf,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes staging anew after a promotion, unless there is work in it; says why, if so.
    fn stage(
        self,
        release: ReleaseId,
        commit: String,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// An app that is deployed by its commits.
#[derive(Debug)]
pub struct Machine<U, C> {
    app: Arc<Managed<U>>,
    commits: C,
    journal: Journal,
    /// Why staging was not made anew.
    unstaged: std::sync::Mutex<Option<String>>,
}

impl<U: Units, C: Commits> Machine<U, C> {
    /// An app with its data in `data`.
    pub fn new(app: Arc<Managed<U>>, commits: C, data: &Path) -> Self {
        Self {
            app,
            commits,
            journal: Journal::at(data.join("journal.ndjson")),
            unstaged: std::sync::Mutex::default(),
        }
    }

    /// Deploys what somebody calls a commit.
    pub async fn deploy(&self, name: &str) -> (StatusCode, Deployed) {
        let previous = self.live().await.1;
        let failed = |error| Deployed {
            previous_commit: Some(previous.clone()),
            error: Some(error),
            ..Deployed::default()
        };
        let commit = match self.commits.resolve(name).await {
            Ok(commit) => commit,
            Err(why) => return (StatusCode::INTERNAL_SERVER_ERROR, failed(why)),
        };
        // Who comes while another deployment is under way is refused; who comes while the slot before is being left waits for it.
        let is_busy = self.app.owner().state().borrow().deployment.is_some();
        let queue = if is_busy {
            Duration::ZERO
        } else {
            self.patience()
        };
        let wish = Wish {
            by: BY.to_owned(),
            queue,
            ..Wish::default()
        };
        let begun = self.app.begin(wish).await;
        let generation = match begun {
            Ok(generation) => generation,
            Err(error) => return (refusal(&error), failed(chain(&error))),
        };
        let reference = (!commit.starts_with(name)).then(|| name.to_owned());
        let commits = self.commits.clone();
        let laid_out = commit.clone();
        let lay_out = move |directory| commits.lay_out(laid_out, directory);
        self.app
            .check_out(generation, commit.clone(), reference, lay_out)
            .await;
        let outcome = self.ended(generation).await;
        if !outcome.success {
            return (
                failure(&outcome),
                Deployed {
                    cause: Some(outcome.cause.clone()),
                    log: outcome.report.map(|report| report.log).unwrap_or_default(),
                    ..failed(outcome.text)
                },
            );
        }
        let slot = self.promoted("deploy", &outcome, &previous).await;
        (
            StatusCode::OK,
            Deployed {
                success: true,
                slot,
                commit,
                previous_commit: Some(previous),
                ..Deployed::default()
            },
        )
    }

    /// Goes back to the release before.
    pub async fn rollback(&self) -> (StatusCode, Deployed) {
        let previous = self.live().await.1;
        let failed = |error| Deployed {
            error: Some(error),
            ..Deployed::default()
        };
        let generation = match self.app.rollback(None, BY.to_owned()).await {
            Ok(state) => state.generation,
            Err(error) => return (refusal(&error), failed(chain(&error))),
        };
        let outcome = self.ended(generation).await;
        if !outcome.success {
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                Deployed {
                    cause: Some(outcome.cause),
                    log: outcome.report.map(|report| report.log).unwrap_or_default(),
                    ..failed(outcome.text)
                },
            );
        }
        let slot = self.promoted("rollback", &outcome, &previous).await;
        let (_, commit) = self.live().await;
        (
            StatusCode::OK,
            Deployed {
                success: true,
                slot,
                commit,
                ..Deployed::default()
            },
        )
    }

    /// Where things are.
    pub async fn status(&self) -> Status {
        let own = self.app.status().await;
        let (live_slot, live_commit) = self.live().await;
        let prev = self.app.owner().state().borrow().prev.clone();
        let (previous_slot, previous_commit) = self.named(prev).await;
        let mut warnings = own.warnings;
        let unstaged = self.unstaged.lock();
        warnings.extend(unstaged.ok().and_then(|why| why.clone()));
        Status {
            live_slot,
            live_commit,
            previous_slot,
            previous_commit,
            staging_dir: STAGING.to_owned(),
            last_deploy_time: self.journal.last(),
            healthy: own.serving,
            state: own.state,
            warnings,
        }
    }

    /// Whether something is live, running or not.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.app.owner().state().borrow().live().is_some()
    }

    /// Returns when the active slot, if there is one, has come up or has not.
    pub async fn settled(&self) {
        let mut state = self.app.owner().state();
        let booting = |state: &Arc<State>| {
            let active = state.active.as_ref();
            let slot = active.and_then(|active| state.slots.get(active));
            slot.is_some_and(|slot| {
                matches!(slot.condition, Condition::Active(Service::Booting { .. }))
            })
        };
        // An owner that has ended brings nothing up any more.
        let _ = state.wait_for(|state| !booting(state)).await;
    }

    /// `slot-<hash8>` and the commit of what is live; empty if nothing is.
    async fn live(&self) -> (String, String) {
        let live = self.app.owner().state().borrow().live().cloned();
        self.named(live).await
    }

    async fn named(&self, release: Option<ReleaseId>) -> (String, String) {
        let Some(release) = release else {
            return (String::new(), String::new());
        };
        let slot = format!("slot-{release}");
        if let Some(Record {
            origin: Origin::Git { commit, .. },
            ..
        }) = Record::read(self.app.root(), &release)
        {
            return (slot, commit);
        }
        // slot-machine itself has laid it out, and its name is all that is known of it.
        let commit = self.commits.resolve(release.as_str()).await;
        (slot, commit.unwrap_or_default())
    }

    /// How long a deployment waits for the slot that another one has just left.
    fn patience(&self) -> Duration {
        let drain = self.app.app().drain.by_class().last().unwrap_or_default();
        drain + self.app.app().stop_timeout + Duration::from_secs(5)
    }

    /// How an attempt ended; with slot-machine's rules, once nothing of what it replaced runs any more.
    async fn ended(&self, generation: Generation) -> Outcome {
        let until = match self.app.app().semantics {
            Semantics::SlotMachine => Wait::Stopped,
            // A soak is watched for long after whoever deployed has gone on.
            Semantics::Slot => Wait::Switched,
        };
        let mut state = self.app.owner().state();
        loop {
            state.mark_unchanged();
            if let Some(outcome) = self.app.settled(generation.0, until) {
                return outcome;
            }
            if state.changed().await.is_err() {
                return Outcome {
                    text: "the daemon is ending".to_owned(),
                    ..Outcome::default()
                };
            }
        }
    }

    /// Writes down what was made live, and makes staging of it; returns `slot-<hash8>`.
    async fn promoted(&self, action: &str, outcome: &Outcome, previous: &str) -> String {
        self.app.on_disk().await;
        let release: Option<ReleaseId> = outcome
            .release
            .as_deref()
            .and_then(|release| release.parse().ok());
        let (slot, commit) = self.named(release.clone()).await;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let entry = Entry {
            time: rfc3339(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            action: action.to_owned(),
            commit: commit.clone(),
            slot_dir: slot.clone(),
            prev_commit: previous.to_owned(),
        };
        if let Err(error) = self.journal.add(&entry) {
            tracing::warn!("journal.ndjson lacks a line: {}", chain(&error));
        }
        if let Some(release) = release {
            // Making it may take long, and nobody but the next author waits for it.
            let staging = tokio::spawn(self.commits.clone().stage(release, commit));
            let staged = tokio::time::timeout(STAGING_WAIT, staging).await;
            let why = match staged {
                Ok(Ok(Err(why))) => Some(why),
                Ok(_) | Err(_) => None,
            };
            if let Some(why) = &why {
                tracing::warn!("{why}");
            }
            if let Ok(mut unstaged) = self.unstaged.lock() {
                *unstaged = why;
            }
        }
        slot
    }
}

fn refusal(error: &AskError) -> StatusCode {
    match error {
        AskError::Refused(Refusal::Busy { .. }) => StatusCode::CONFLICT,
        AskError::Refused(Refusal::NothingToRollBackTo { .. }) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// 200 where there was a candidate, and it failed: the request was fine, the commit was not.
fn failure(outcome: &Outcome) -> StatusCode {
    let report = outcome.report.as_ref();
    let exit = report.and_then(|report| report.exit.as_deref());
    let started = !exit.is_some_and(|exit| NOT_STARTED.contains(&exit));
    match outcome.cause.as_str() {
        "health-timeout" | "start-timeout" => StatusCode::OK,
        "exited" if started => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
