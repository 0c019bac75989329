//! The instances of the router as units: one is exchanged for the next without a connection refused or cut.
//!
//! **Invariant:** an instance that does not come up is stopped, and the one that accepts was never asked to do anything.
//! **Invariant:** one for which PID 1 keeps streams is never stopped, whatever becomes of it.
//! **Invariant:** one at a time: an upgrade and the mending of one do not cross.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::succession::{self, Doing, Instance, Next};
use crate::config::{Machine, MachineError};
use crate::deploy::BootId;
use crate::systemd::{Bus, StartError, UnitName, journal};
use crate::telemetry::{chain, message};
use crate::traffic::{Routers, TrafficError};
use crate::wire::api::Upgraded;

/// The units of all instances, as a pattern (glob(7)).
const UNITS: &str = "slot-router@*.service";

/// How long an instance may take to be ready; `TimeoutStartSec=` of its unit.
const START: Duration = Duration::from_secs(20);

/// How often it is looked whether one instance accepts.
const LOOK: Duration = Duration::from_secs(2);

/// Why the router was not upgraded.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The next instance did not come up.
    #[error(
        "{unit} did not come up: {why}; {}, {}; `{journal}` says more",
        match kept {
            false => "it was stopped",
            true => "it is not stopped, since that would cut the streams that it has left, but started again and again",
        },
        match before {
            Some(before) => format!("and slot-router@{before} goes on as before"),
            None => "and the next connection starts slot-router@1".to_owned(),
        }
    )]
    NotReady {
        /// The instance's unit.
        unit: UnitName,
        /// What its result says.
        why: String,
        /// PID 1 keeps streams for it.
        kept: bool,
        /// The one that accepts.
        before: Option<u8>,
        /// The command that shows its log.
        journal: String,
    },
    /// Every number is in use.
    #[error(
        "there are {} instances of the router, as many as there may be; see what they still hold (`slotctl status`), and stop one (`systemctl stop slot-router@N`)",
        succession::NUMBERS.count()
    )]
    Full,
    /// The new instance accepts, and an old one could not be told to stop; slotd tries again by itself.
    #[error("slot-router@{new} accepts, and so does the one before it until slotd reaches it")]
    NotRetired {
        /// The new instance.
        new: u8,
        /// Why not.
        #[source]
        source: TrafficError,
    },
    /// The new instance came up and cannot use the machine's settings.
    #[error(
        "slot-router@{before} goes on as before, and slot-router@{new} was ended again: {problem}"
    )]
    Unheeded {
        /// The new instance.
        new: u8,
        /// The one that accepts.
        before: u8,
        /// What is wrong with them.
        problem: String,
    },
    /// The instances cannot be found.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// A new instance could not use the machine's settings, so none was started.
    #[error("the router goes on as it was, since its settings are wrong")]
    Settings(#[from] MachineError),
}

/// All instances of the machine's router.
#[derive(Debug)]
pub struct Instances {
    bus: Arc<Bus>,
    routers: Routers,
    /// `/etc/slot/machine.toml`.
    settings: PathBuf,
    turn: Mutex<()>,
}

impl Instances {
    /// The instances that keep their control sockets where `routers` looks, and read the machine's `settings` when they start.
    #[must_use]
    pub fn new(bus: Arc<Bus>, routers: Routers, settings: PathBuf) -> Self {
        Self {
            bus,
            routers,
            settings,
            turn: Mutex::default(),
        }
    }

    /// Starts the next instance, waits until it accepts, and has the others stop accepting: each drains, for no longer than `limit`, where
    /// zero is for ever and none what the machine's settings say. A limit that is given is also that of those that drain already. Goes on
    /// when its caller does not.
    ///
    /// # Errors
    /// [`UpgradeError`], as it says.
    pub async fn upgrade(
        self: &Arc<Self>,
        limit: Option<Duration>,
    ) -> Result<Upgraded, UpgradeError> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            let exchanged = this.exchange(limit).await;
            if let Err(error) = &exchanged {
                tracing::error!(
                    message_id = message::id("router-not-upgraded"),
                    "{}",
                    chain(error)
                );
            }
            exchanged
        });
        match task.await {
            Ok(upgraded) => upgraded,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // slotd ends, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    async fn exchange(&self, limit: Option<Duration>) -> Result<Upgraded, UpgradeError> {
        let settings = Machine::read(&self.settings)?;
        let said = limit.is_some();
        let limit = limit.or(settings.drain).filter(|limit| !limit.is_zero());
        let seen = self.look().await?;
        if seen.is_empty() {
            return Ok(Upgraded {
                accepting: None,
                draining: Vec::new(),
            });
        }
        let new = succession::free(&seen).ok_or(UpgradeError::Full)?;
        let before = succession::accepting(&seen);
        self.start(new, before).await?;
        if let (Some(before), Some(problem)) = (before, self.problem(new).await) {
            // It accepts already: what it has come to hold meanwhile is not cut.
            self.retire(new, None).await?;
            return Err(UpgradeError::Unheeded {
                new,
                before,
                problem,
            });
        }
        tracing::info!(
            message_id = message::id("router-upgraded"),
            "slot-router@{new} accepts"
        );
        let mut draining = Vec::new();
        for instance in self.look().await? {
            let accepts = matches!(instance.doing, Doing::Accepts { .. });
            // Those that drain already go by what this command says, if it does.
            let drains = said && matches!(instance.doing, Doing::Drains);
            if instance.number == new || !(accepts || drains) {
                continue;
            }
            let retired = self.retire(instance.number, limit).await;
            retired.map_err(|source| UpgradeError::NotRetired { new, source })?;
            draining.push(instance.number);
        }
        Ok(Upgraded {
            accepting: Some(new),
            draining,
        })
    }

    /// Sees to it that one instance accepts whenever some run, whatever was left half done; never returns.
    pub async fn keep(&self) {
        let mut sure = false;
        loop {
            sure = match self.is_usual().await {
                // Units that come up say nothing yet; after that, what answers tells enough.
                true if sure => true,
                _ => self.mend().await,
            };
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn is_usual(&self) -> bool {
        match self.routers.stats().await {
            Ok(told) => {
                let accepting = told.iter().filter_map(|(_, stats)| stats.as_ref().ok());
                accepting.filter(|stats| stats.accepting).count() == 1
            }
            Err(_) => false,
        }
    }

    /// Does what is to be done, step by step; true if nothing is left.
    async fn mend(&self) -> bool {
        let _turn = self.turn.lock().await;
        // As many steps as one that could be needed for every instance.
        for _ in succession::NUMBERS {
            let Ok(seen) = self.look().await else {
                return false;
            };
            let Some(next) = succession::next(&seen) else {
                return true;
            };
            tracing::info!(
                message_id = message::id("routers-mended"),
                ?seen,
                "the router's instances are not as they should be: {next:?}"
            );
            let before = succession::accepting(&seen);
            let done = match next {
                Next::Start(number) | Next::Finish(number) => self.start(number, before).await,
                Next::Retire(number) => {
                    // A wrong file says no limit, and to have two that accept would be worse than to wait.
                    let limit = Machine::read(&self.settings).ok().and_then(|it| it.drain);
                    self.retire(number, limit).await.map_err(Into::into)
                }
            };
            if let Err(error) = done {
                tracing::error!(
                    message_id = message::id("router-not-upgraded"),
                    "{}",
                    chain(&error)
                );
                return false;
            }
        }
        false
    }

    async fn start(&self, number: u8, before: Option<u8>) -> Result<(), UpgradeError> {
        let unit = UnitName::router(number);
        let started = self.bus.start(&unit, None, START).await;
        started.map(drop).map_err(|error| {
            let (why, kept) = match &error {
                StartError::Failed { failure, last, .. } => (failure.text.clone(), last.stored > 0),
                StartError::Call(error) => (error.to_string(), false),
            };
            UpgradeError::NotReady {
                // Not by its invocation: PID 1 may forget that of a unit that is gone before journald has read its last lines.
                journal: journal::command(unit.stem(), None),
                unit,
                why,
                kept,
                before,
            }
        })
    }

    /// Why an instance does not go by the machine's settings as they are now.
    async fn problem(&self, number: u8) -> Option<String> {
        let told = self.routers.stats().await.ok()?.into_iter();
        let own = told.filter(|(name, _)| *name == number.to_string());
        own.filter_map(|(_, stats)| stats.ok()?.problem).next()
    }

    async fn retire(&self, number: u8, limit: Option<Duration>) -> Result<(), TrafficError> {
        let name = number.to_string();
        self.routers.stop_accepting(&name, limit).await
    }

    /// The runs of all instances that are up; `None` while one is on its way up or down.
    pub async fn runs(&self) -> Option<BTreeMap<String, BootId>> {
        let mut runs = BTreeMap::new();
        for (unit, state) in self.bus.units(UNITS).await {
            match state.as_str() {
                "inactive" | "failed" => {}
                "active" => {
                    let run = self.bus.properties(&UnitName::router(number(&unit)?)).await;
                    runs.insert(unit, run.invocation?);
                }
                _ => return None,
            }
        }
        Some(runs)
    }

    /// Every instance whose unit is not down.
    async fn look(&self) -> Result<Vec<Instance>, TrafficError> {
        let listed = self.bus.units(UNITS).await;
        let told = self.routers.stats().await?;
        let mut seen = Vec::new();
        for (unit, state) in &listed {
            let Some(number) = number(unit) else { continue };
            let own = told.iter().find(|(name, _)| *name == number.to_string());
            let doing = match (state.as_str(), own) {
                ("inactive" | "failed", _) => continue,
                ("activating", _) => {
                    let unit = self.bus.properties(&UnitName::router(number)).await;
                    match unit.stored {
                        0 => Doing::Coming,
                        _ => Doing::Returning,
                    }
                }
                (_, Some((_, Ok(stats)))) if stats.accepting => Doing::Accepts {
                    since: stats.since_ms,
                },
                (_, Some((_, Ok(_)))) => Doing::Drains,
                (_, Some((_, Err(_))) | None) => Doing::Silent,
            };
            seen.push(Instance { number, doing });
        }
        Ok(seen)
    }
}

/// The number of an instance by the name of its unit.
fn number(unit: &str) -> Option<u8> {
    let number = unit
        .strip_prefix("slot-router@")?
        .strip_suffix(".service")?;
    number.parse().ok()
}
