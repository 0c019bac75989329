//! Starting and stopping: jobs of PID 1, followed to their end.
//!
//! **Invariant:** the ends of jobs are listened to before a job is asked for, since PID 1 may end it before it answers.
//! **Invariant:** a job's result is never the last word; what the unit is afterwards is.
//! **Invariant:** each call may be given up at any await. The job then goes on, and the next call joins it: PID 1 merges a job with one of
//! its kind.

use std::time::Duration;

use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until};
use zbus::OwnedObjectPath;

use super::bus::JobEnd;
use super::failure::failure;
use super::{Bus, CallError, Properties, UnitName, seen};
use crate::deploy::{BootId, Seen, UnitFailure};

/// How long after the unit's own limit a job is given up; the unit's is meant to fire, because its result says more.
const MARGIN: Duration = Duration::from_secs(3);

/// When a unit that may take for ever to stop is asked again.
const LONG_STOP: Duration = Duration::from_secs(3600);

/// How often a job is looked for, lest the signal of its end be lost.
const LOOK: Duration = Duration::from_secs(1);

/// Between attempts of what must succeed in the end.
const AGAIN: Duration = Duration::from_secs(1);

/// `StartUnit` and `StopUnit`: an opposite job that waits is cancelled (systemctl(1), `--job-mode=`).
const MODE: &str = "replace";

/// A unit that is not up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was started and is not up.
    #[error("{unit} {}", .failure.text)]
    Failed {
        /// Which.
        unit: UnitName,
        /// What its result says.
        failure: UnitFailure,
        /// As it was when its job ended; a moment later it may be in another run.
        last: Box<Properties>,
    },
    /// It could not be asked to start.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// How the wait for a job ended.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    /// PID 1 told.
    Ended(String),
    /// The job is no more, and nobody heard of its end.
    Gone,
    /// Too long.
    TimedOut,
}

impl Bus {
    /// What runs in a unit now. Waits for PID 1 if it is not on the bus.
    pub async fn seen(&self, unit: &UnitName) -> Seen {
        seen(&self.properties(unit).await)
    }

    /// Starts a service, its socket before it if it has one, and returns when it is up: READY, or exec'd (systemd.service(5), `Type=`).
    /// One that is up already is a success. A unit that does not come up is stopped, so that its `Restart=` does not try on; but not a
    /// router for which PID 1 keeps something.
    ///
    /// While the machine goes down it never returns: that is neither a success nor a failure of the unit.
    ///
    /// # Errors
    /// The unit's own result, read at the moment when its job ended.
    pub async fn start(
        &self,
        service: &UnitName,
        socket: Option<&UnitName>,
        limit: Duration,
    ) -> Result<BootId, StartError> {
        let until = Instant::now() + limit + MARGIN;
        loop {
            let begun = async {
                if let Some(socket) = socket {
                    self.listen(socket, until).await?;
                }
                self.try_start(service, limit, until).await
            };
            let failed = match begun.await {
                Ok(Some(run)) => return Ok(run),
                Ok(None) => continue,
                Err(failed) => failed,
            };
            match failed {
                StartError::Call(CallError::GoingDown { .. }) => sleep(AGAIN).await,
                // A shutdown cancels the jobs that it finds, and ends what has just come up.
                _ if self.going_down().await => sleep(AGAIN).await,
                StartError::Call(CallError::Lost { .. }) if Instant::now() < until => {}
                failed => {
                    self.take_down(socket).await;
                    let last = match &failed {
                        StartError::Failed { last, .. } => (**last).clone(),
                        StartError::Call(_) => self.properties(service).await,
                    };
                    if is_given_up(service, &failed, &last) {
                        self.take_down(Some(service)).await;
                    }
                    return Err(failed);
                }
            }
        }
    }

    /// One start job; `None` when it has to be done again, because its end was not heard of and the unit is still on its way.
    async fn try_start(
        &self,
        unit: &UnitName,
        limit: Duration,
        until: Instant,
    ) -> Result<Option<BootId>, StartError> {
        let before = self.properties(unit).await;
        if let Seen::Running(run) = seen(&before) {
            return Ok(Some(run));
        }
        if matches!(before.active_state.as_str(), "inactive" | "failed") {
            // Forgets the last result, and with it the starts that count against the start limit.
            match self
                .call(unit, "reset", "ResetFailedUnit", &unit.as_str())
                .await
            {
                Ok(_) | Err(CallError::NotLoaded { .. }) => {}
                Err(denied) => return Err(denied.into()),
            }
        }
        let waited = self.job(unit, "start", "StartUnit", until).await?;
        let after = self.properties(unit).await;
        match outcome(&before, &waited, &after) {
            Outcome::Up(run) => Ok(Some(run)),
            Outcome::Unknown => Ok(None),
            Outcome::Failed => Err(StartError::Failed {
                unit: unit.clone(),
                failure: start_failure(&waited, &after, limit),
                last: Box::new(after),
            }),
        }
    }

    /// Starts a socket unit.
    async fn listen(&self, unit: &UnitName, until: Instant) -> Result<(), StartError> {
        if self.properties(unit).await.active_state == "active" {
            return Ok(());
        }
        let waited = self.job(unit, "start", "StartUnit", until).await?;
        let after = self.properties(unit).await;
        if after.active_state == "active" {
            return Ok(());
        }
        let mut failure = start_failure(&waited, &after, Duration::ZERO);
        failure.text = format!(
            "its socket {unit} does not listen ({})",
            failure.result.as_str()
        );
        Err(StartError::Failed {
            unit: unit.clone(),
            failure,
            last: Box::new(after),
        })
    }

    /// Stops a service, its socket first if it has one, and returns when it is inactive: true if SIGTERM was not enough. What goes
    /// wrong is logged and tried again.
    pub async fn stop(&self, service: &UnitName, socket: Option<&UnitName>) -> bool {
        if let Some(socket) = socket {
            // First, or the next connection would start the service again.
            self.stop_one(socket).await;
        }
        self.stop_one(service).await
    }

    async fn stop_one(&self, unit: &UnitName) -> bool {
        loop {
            let before = self.properties(unit).await;
            if is_down(&before) {
                return before.result == "timeout" && is_sigkilled(&before);
            }
            if before.is_frozen {
                // systemd 252 thaws what it stops, 257 refuses to stop it. What is wrong is said by the stop.
                let _ = self.call(unit, "thaw", "ThawUnit", &unit.as_str()).await;
            }
            let until = Instant::now() + before.stop_limit.min(LONG_STOP) + MARGIN;
            match self.job(unit, "stop", "StopUnit", until).await {
                Ok(_) => {
                    let after = self.properties(unit).await;
                    if is_down(&after) {
                        return was_killed(&before, &after);
                    }
                    tracing::warn!(%unit, state = after.active_state, "the unit is still there; stopping it again");
                }
                Err(CallError::NotLoaded { .. }) => return false,
                Err(CallError::Lost { .. }) => {}
                Err(error) => tracing::warn!(%unit, %error, "the unit does not stop; trying again"),
            }
            sleep(AGAIN).await;
        }
    }

    /// Asks for a stop and does not wait for it.
    async fn take_down(&self, unit: Option<&UnitName>) {
        let Some(unit) = unit else { return };
        match self
            .call(unit, "stop", "StopUnit", &(unit.as_str(), MODE))
            .await
        {
            Ok(_) | Err(CallError::NotLoaded { .. }) => {}
            Err(error) => {
                tracing::warn!(%unit, %error, "a unit that did not come up cannot be stopped")
            }
        }
    }

    /// One job, to its end.
    async fn job(
        &self,
        unit: &UnitName,
        verb: &'static str,
        method: &'static str,
        until: Instant,
    ) -> Result<Waited, CallError> {
        let mut ends = self.job_ends();
        let reply = self
            .call(unit, verb, method, &(unit.as_str(), MODE))
            .await?;
        let job: OwnedObjectPath =
            reply
                .body()
                .deserialize()
                .map_err(|reason| CallError::Lost {
                    unit: unit.clone(),
                    verb,
                    reason,
                })?;
        loop {
            let look = tokio::select! {
                end = heard_of(&mut ends, &job) => match end {
                    Some(result) => return Ok(Waited::Ended(result)),
                    None => true,
                },
                () = sleep(LOOK) => true,
                () = sleep_until(until) => false,
            };
            if !look {
                return Ok(Waited::TimedOut);
            }
            let now = self.properties(unit).await;
            if verb == "start" && now.active_state == "deactivating" && now.result != "success" {
                // It has failed; its job ends with its last process, which may ignore SIGTERM.
                return Ok(Waited::Gone);
            }
            if now.job != number(&job) {
                // The signal may have come while the question was on its way.
                let told = std::iter::from_fn(|| ends.try_recv().ok()).find(|end| end.job == job);
                return Ok(told.map_or(Waited::Gone, |end| Waited::Ended(end.result)));
            }
        }
    }
}

/// The result of a job; none if some ends were missed.
async fn heard_of(ends: &mut Receiver<JobEnd>, job: &OwnedObjectPath) -> Option<String> {
    loop {
        match ends.recv().await {
            Ok(end) if end.job == *job => return Some(end.result),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return None,
            // The sender lives as long as the bus.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// `/org/freedesktop/systemd1/job/4711`.
fn number(job: &OwnedObjectPath) -> u32 {
    job.rsplit('/')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn is_down(unit: &Properties) -> bool {
    matches!(unit.active_state.as_str(), "inactive" | "failed")
        && !unit.sub_state.contains("auto-restart")
}

fn is_sigkilled(unit: &Properties) -> bool {
    // CLD_KILLED or CLD_DUMPED, by SIGKILL.
    matches!(unit.exec_main_code, 2 | 3) && unit.exec_main_status == 9
}

/// Whether a stop took SIGKILL. A main process that died of SIGKILL before does not count.
fn was_killed(before: &Properties, after: &Properties) -> bool {
    let timed_out = after.result == "timeout";
    (timed_out && before.result != "timeout")
        || (is_sigkilled(after) && (timed_out || before.main_pid != 0))
}

/// Whether a unit that did not come up is to be stopped.
///
/// What PID 1 keeps for a router are connections of people, which a stop would cut. It has been up before, and its `Restart=` brings it
/// back to them sooner or later. What an app has PID 1 keep is of no use to anybody if the app does not come up.
fn is_given_up(unit: &UnitName, failed: &StartError, last: &Properties) -> bool {
    match failed {
        // What may not be started, or is not there, was not started.
        StartError::Call(CallError::Denied { .. } | CallError::NotLoaded { .. }) => false,
        StartError::Call(_) | StartError::Failed { .. } => !unit.is_router() || last.stored == 0,
    }
}

/// What has come of a start job.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is up, in this run.
    Up(BootId),
    /// It is still on its way, and the end of its job was not heard of.
    Unknown,
    /// It is not up.
    Failed,
}

/// Judges a start by the unit as it was before its job was asked for, and as it is afterwards.
///
/// The run has to be a new one, except where the job joined a start that was under way: that start's run is the one that the unit had
/// before.
fn outcome(before: &Properties, waited: &Waited, after: &Properties) -> Outcome {
    match seen(after) {
        Seen::Running(run)
            if after.main_pid != 0
                && (seen(before) == Seen::Coming || before.invocation.as_ref() != Some(&run)) =>
        {
            Outcome::Up(run)
        }
        Seen::Coming if *waited == Waited::Gone => Outcome::Unknown,
        Seen::Running(_) | Seen::Coming | Seen::Ended(_) => Outcome::Failed,
    }
}

/// Why a start did not end well.
fn start_failure(waited: &Waited, after: &Properties, limit: Duration) -> UnitFailure {
    let own = |result: &str, text: String| UnitFailure {
        result: result.into(),
        text,
    };
    let late = || {
        own(
            "timeout",
            format!("was not ready within {limit:?}: it did not send READY=1"),
        )
    };
    if after.result == "timeout" {
        return late();
    }
    if !matches!(after.result.as_str(), "" | "success") {
        return failure(after);
    }
    match waited {
        Waited::TimedOut => late(),
        Waited::Ended(result) => match result.as_str() {
            "canceled" => own(
                result,
                "was stopped by somebody while it started".to_owned(),
            ),
            "dependency" => own(
                result,
                "was not started, because a unit that it needs failed".to_owned(),
            ),
            "assert" => own(
                result,
                "was not started, because its release is missing (an Assert… of its unit fails)"
                    .to_owned(),
            ),
            "done" if after.exec_main_code == 0 => own(
                "skipped",
                "was not started, because a Condition… of its unit fails".to_owned(),
            ),
            "done" => failure(after),
            "timeout" => late(),
            result => own(
                result,
                format!("was not started: its job ended as {result}"),
            ),
        },
        Waited::Gone => failure(after),
    }
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
