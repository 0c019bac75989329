//! Deploying a commit and going back, as slot-machine's API does: each is answered when it is over, its old slot stopped and the disk
//! as it is to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::watch;

use super::journal::Journal;
use crate::config::Semantics;
use crate::daemon::app::{Managed, Wish};
use crate::daemon::owner::AskError;
use crate::daemon::status::Wait;
use crate::daemon::units::Units;
use crate::daemon::world::World;
use crate::deploy::{
    Cause, Condition, Generation, Guard, Kind, Refusal, ReleaseId, Service, State,
};
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
    /// Where slotd's own API is, for what this one cannot do.
    socket: PathBuf,
    followed: watch::Sender<Followed>,
}

/// What has been made of the promotions so far.
#[derive(Clone, Debug, Default)]
struct Followed {
    /// The last one that is in the journal.
    noted: Generation,
    /// What it made live.
    live: Option<ReleaseId>,
    /// The last one that staging was made of, or kept in spite of.
    staged: Generation,
    /// Why it was kept.
    unstaged: Option<String>,
}

impl<U: Units, C: Commits> Machine<U, C> {
    /// An app with its data in `data`, and slotd's own API at `socket`. Whatever is promoted is followed, by whomever it was, and also if
    /// that was before a crash.
    pub fn new(app: Arc<Managed<U>>, commits: C, data: &Path, socket: PathBuf) -> Arc<Self> {
        let machine = Arc::new(Self {
            app,
            commits,
            journal: Journal::at(data.join("journal.ndjson")),
            socket,
            followed: watch::Sender::default(),
        });
        tokio::spawn(Arc::clone(&machine).note_all());
        tokio::spawn(Arc::clone(&machine).stage_all());
        machine
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
        let wish = Wish {
            by: BY.to_owned(),
            patience: self.patience(),
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
            return (failure(&outcome), self.told(outcome, &failed));
        }
        let slot = self.promoted(&outcome).await;
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

    /// A second rollback goes forward again, as slot-machine has it.
    async fn back(&self) -> Result<Arc<State>, AskError> {
        let to = |release| self.app.rollback(release, BY.to_owned(), Guard::default());
        let asked = to(None).await;
        let left = match &asked {
            Err(AskError::Refused(Refusal::AlreadyBack { left, .. })) => left.clone(),
            Ok(state) if state.preempted().is_some() => {
                state.gone_back().and_then(|(_, left)| left.cloned())
            }
            _ => None,
        };
        match left {
            Some(_) => to(left).await,
            None => asked,
        }
    }

    /// Goes back to the release before.
    pub async fn rollback(&self) -> (StatusCode, Deployed) {
        let failed = |error| Deployed {
            error: Some(error),
            ..Deployed::default()
        };
        let generation = match self.back().await {
            Ok(state) => state.generation,
            Err(AskError::Refused(Refusal::UnderWay { generation, .. })) => generation,
            Err(error) => return (refusal(&error), failed(chain(&error))),
        };
        let outcome = self.ended(generation).await;
        if !outcome.success {
            let told = self.told(outcome, &failed);
            return (StatusCode::INTERNAL_SERVER_ERROR, told);
        }
        let slot = self.promoted(&outcome).await;
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

    /// A failure, with its evidence.
    fn told(&self, outcome: Outcome, failed: &impl Fn(String) -> Deployed) -> Deployed {
        let app = self.app.app();
        let report = outcome.report.unwrap_or_default();
        let mut text = outcome.text;
        if outcome.cause == "health-timeout" && app.semantics == Semantics::SlotMachine {
            let listens = match report.listens.is_empty() {
                true => "nowhere".to_owned(),
                false => format!("on {}", report.listens.join(", ")),
            };
            text += &format!(
                "; the app listens {listens}: let it serve {} on $INTERNAL_PORT (another port than $PORT), or give it longer with health_timeout_ms",
                app.health
            );
        }
        Deployed {
            cause: Some(outcome.cause),
            log: report.log,
            ..failed(text)
        }
    }

    /// Where things are.
    pub async fn status(&self) -> Status {
        let own = self.app.status().await;
        let state = Arc::clone(&self.app.owner().state().borrow());
        let (live_slot, live_commit) = self.named(state.live().cloned()).await;
        let (previous_slot, previous_commit) = self.named(state.prev.clone()).await;
        let mut warnings = own.warnings;
        warnings.extend(self.followed.borrow().unstaged.clone());
        let down = own.slots.iter().find(|slot| slot.condition == "active");
        let down = down
            .and_then(|slot| slot.detail.as_deref())
            .filter(|_| !own.serving);
        warnings.extend(down.map(|why| format!("nothing serves: {why}")));
        // Whoever asked for it may have gone before it ended.
        let failed = own.last.filter(|last| !last.success);
        warnings.extend(failed.map(|last| {
            format!(
                "{} {} ended in phase {}: {}",
                last.kind, last.generation, last.phase, last.text
            )
        }));
        Status {
            live_slot,
            live_commit,
            previous_slot,
            previous_commit,
            staging_dir: STAGING.to_owned(),
            last_deploy_time: self.journal.last().time,
            healthy: own.serving,
            state: own.deployment.map_or(own.state, |held| held.phase),
            socket: self.socket.to_string_lossy().into_owned(),
            warnings,
        }
    }

    /// Whether something is live, running or not.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.app.owner().state().borrow().live().is_some()
    }

    /// Returns when a deployment that was under way before a crash has ended, and the active slot, if there is one, has come up or has not.
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
        let _ = state
            .wait_for(|state| state.deployment.is_none() && !booting(state))
            .await;
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
                    text: "the daemon ends before that is over; it goes on with it when it is started again, and `slotctl status` \
                           says what came of it then"
                        .to_owned(),
                    ..Outcome::default()
                };
            }
        }
    }

    /// Waits until what was made live is written down, and, for a while, until staging is made of it; returns `slot-<hash8>`.
    async fn promoted(&self, outcome: &Outcome) -> String {
        self.app.on_disk().await;
        let mut followed = self.followed.subscribe();
        // Both fail only when there is nobody left who would make it.
        let _ = followed
            .wait_for(|it| it.noted.0 >= outcome.generation)
            .await;
        let staged = followed.wait_for(|it| it.staged.0 >= outcome.generation);
        let _ = tokio::time::timeout(STAGING_WAIT, staged).await;
        let release = outcome.release.as_deref();
        release.map_or(String::new(), |release| format!("slot-{release}"))
    }

    /// Writes each promotion into the journal.
    async fn note_all(self: Arc<Self>) {
        let mut state = self.app.owner().state();
        loop {
            let now = Arc::clone(&state.borrow_and_update());
            let held = now.deployment.as_ref();
            if held.is_none_or(|held| held.generation != now.routed)
                && let Some(live) = now.live()
            {
                self.note(&now, live).await;
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    async fn note(&self, state: &State, live: &ReleaseId) {
        let before = self.followed.borrow().clone();
        let is_same = before.live.as_ref() == Some(live);
        if is_same && before.noted == state.routed {
            return;
        }
        let (slot, commit) = self.named(Some(live.clone())).await;
        let last = self.journal.last();
        let outcome = state.outcome.as_ref();
        let outcome = outcome.filter(|it| it.generation == state.routed);
        let is_known = match &before.live {
            // The first look after a start finds what the last line says, unless that line could not be written any more.
            None => last.slot_dir == slot,
            // A switch that was taken back.
            Some(_) => is_same && !outcome.is_some_and(|it| it.cause == Cause::Switched),
        };
        if !is_known {
            let goes_back =
                before.noted == state.routed || outcome.is_some_and(|it| it.kind == Kind::Rollback);
            let at = outcome.map_or_else(|| self.app.world().now(), |it| it.at);
            let entry = Entry {
                time: rfc3339(at.0),
                action: if goes_back { "rollback" } else { "deploy" }.to_owned(),
                commit,
                slot_dir: slot,
                prev_commit: last.commit,
            };
            if let Err(error) = self.journal.add(&entry) {
                tracing::warn!("journal.ndjson lacks a line: {}", chain(&error));
            }
        }
        self.followed.send_modify(|followed| {
            followed.noted = state.routed;
            followed.live = Some(live.clone());
            // Whether staging was made before a start, or why it was kept, nobody remembers: it is seen to once more.
            if is_known && before.live.is_some() {
                followed.staged = state.routed;
            }
        });
    }

    /// Makes staging of the last promotion, one at a time: it may take long, and nobody but the next author waits for it.
    async fn stage_all(self: Arc<Self>) {
        let mut followed = self.followed.subscribe();
        loop {
            let now = followed.borrow_and_update().clone();
            if now.noted != now.staged
                && let Some(live) = now.live
            {
                let (_, commit) = self.named(Some(live.clone())).await;
                let why = self.commits.clone().stage(live, commit).await.err();
                if let Some(why) = &why {
                    tracing::warn!("{why}");
                }
                self.followed.send_modify(|followed| {
                    followed.staged = now.noted;
                    followed.unstaged = why;
                });
            } else if followed.changed().await.is_err() {
                return;
            }
        }
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
