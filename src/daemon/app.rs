//! One app under a deployer: its owner, its world, and what can be asked of them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::live::{Live, blocking};
use super::owner::{AskError, Owner};
use super::tables::Tables;
use super::tell;
use super::units::Units;
use super::world::World;
use crate::config::App;
use crate::deploy::{
    Condition, Event, Facts, Found, Generation, Phase, Request, Service, Settings, SlotName, State,
    Step, recover, rediscover,
};
use crate::release;
use crate::store::{FileError, History, Loaded, StateFile};
use crate::telemetry::chain;
use crate::wire::api;

/// Why an app cannot be managed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its state cannot be read or written.
    #[error(transparent)]
    Store(#[from] FileError),
    /// Its directory cannot be made or tidied.
    #[error(transparent)]
    Release(#[from] release::ReleaseError),
    /// Its directory cannot be made.
    #[error("cannot make the directory {path:?}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where a deployer keeps what it knows of its apps.
#[derive(Clone, Debug)]
pub struct Place {
    /// `/var/lib/slot`: a directory per app below it.
    pub data: std::path::PathBuf,
    /// The machine's boot id: when it changes, nothing that ran runs any more. An embedded deployer, whose children end with it,
    /// makes a new one each time.
    pub machine_boot: String,
}

/// An app that is being managed.
#[derive(Debug)]
pub struct Managed<U> {
    owner: Owner,
    world: Arc<Live<U>>,
    watcher: AbortHandle,
}

impl<U> Drop for Managed<U> {
    fn drop(&mut self) {
        self.owner.end();
        self.watcher.abort();
    }
}

/// What an app's file says about deployments.
#[must_use]
pub fn settings(app: &App) -> Settings {
    Settings {
        slots: app.slots.clone(),
        start_timeout: app.start_timeout,
        health_timeout: app.health_timeout,
        drain: forever_if_zero(app.drain),
        stop_timeout: app.stop_timeout,
        soak: app.soak,
    }
}

/// `drain = 0` never cuts.
fn forever_if_zero(span: Duration) -> Option<Duration> {
    (!span.is_zero()).then_some(span)
}

impl<U: Units> Managed<U> {
    /// Takes an app up where its state file, or what is found of it, says that it is.
    ///
    /// # Errors
    /// Its state is left as it is.
    pub async fn open(
        app: App,
        units: U,
        place: &Place,
        tables: Arc<Tables>,
    ) -> Result<Self, OpenError> {
        let root = place.data.join(app.name.as_str());
        let tidied = root.clone();
        blocking(move || {
            std::fs::create_dir_all(&tidied).map_err(|source| OpenError::Directory {
                path: tidied.clone(),
                source,
            })?;
            release::tidy(&tidied).map_err(OpenError::from)
        })
        .await?;
        let state_file = StateFile::at(root.join("state.json"), place.machine_boot.clone());
        let loaded = state_file.load()?;
        let app = Arc::new(app);
        let world = Arc::new(Live::new(Arc::clone(&app), root, units, tables, state_file));
        let first = take_up(&world, loaded).await;
        let owner = Owner::start(Arc::clone(&world), first).await?;
        let watcher = {
            let (world, owner) = (Arc::clone(&world), owner.clone());
            tokio::spawn(async move { world.watch_units(owner).await })
        };
        Ok(Self {
            owner,
            world,
            watcher: watcher.abort_handle(),
        })
    }

    /// The app's file as it was when it was taken up.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.world.app
    }

    /// The owner.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The world, for what was told and how things ended.
    #[must_use]
    pub fn world(&self) -> &Live<U> {
        &self.world
    }

    /// Begins a deployment: it holds the lock from here on, and its release is to be uploaded.
    ///
    /// # Errors
    /// Refused, or the disk is full; nothing was begun.
    pub async fn begin(
        &self,
        by: String,
        drain: Option<Duration>,
        queue: Duration,
    ) -> Result<Generation, AskError> {
        self.world
            .set_reserve_aside()
            .map_err(|error| AskError::NotCommitted(chain(&error)))?;
        let mut settings = settings(&self.world.app);
        if let Some(drain) = drain {
            settings.drain = forever_if_zero(drain);
        }
        let state = self
            .owner
            .ask(Event::Begin(Request {
                by,
                settings,
                queue,
            }))
            .await?;
        Ok(state.generation)
    }

    /// Puts the uploaded release of a deployment on disk, and the deployment on its way. Goes on when its caller does not.
    pub async fn upload(
        &self,
        generation: Generation,
        archive: impl Read + Send + 'static,
    ) -> Option<String> {
        let (root, owner) = (self.world.root.clone(), self.owner.clone());
        let task = tokio::spawn(async move {
            let unpacked = blocking(move || release::unpack(&root, archive)).await;
            let (id, event) = match unpacked {
                Ok(release) => (
                    Some(release.to_string()),
                    Event::Prepared {
                        generation,
                        release,
                    },
                ),
                Err(error) => (
                    None,
                    Event::Unprepared {
                        generation,
                        why: chain(&error),
                    },
                ),
            };
            owner.report(event).await;
            id
        });
        task.await.ok().flatten()
    }

    /// Goes back to the previous release.
    ///
    /// # Errors
    /// Refused; nothing was begun.
    pub async fn rollback(&self, by: String) -> Result<Arc<State>, AskError> {
        self.world
            .set_reserve_aside()
            .map_err(|error| AskError::NotCommitted(chain(&error)))?;
        self.owner
            .ask(Event::Rollback {
                by,
                settings: settings(&self.world.app),
            })
            .await
    }

    /// Makes a slot that stands by active.
    ///
    /// # Errors
    /// Refused; nothing was begun.
    pub async fn promote(&self, slot: SlotName, by: String) -> Result<Arc<State>, AskError> {
        self.owner
            .ask(Event::Promote {
                slot,
                by,
                settings: settings(&self.world.app),
            })
            .await
    }

    /// Cuts what a slot still drains.
    ///
    /// # Errors
    /// Refused; nothing is cut.
    pub async fn drain_now(&self, slot: SlotName) -> Result<Arc<State>, AskError> {
        self.owner.ask(Event::DrainNow { slot }).await
    }

    /// Takes the app out of the table and forgets it; its units are left to whoever removes them.
    ///
    /// # Errors
    /// It is still in some router's table.
    pub async fn withdraw(&self) -> Result<(), super::tables::PublishError> {
        self.owner.end();
        self.world
            .tables
            .withdraw(self.world.app.name.as_str())
            .await
    }

    /// The app as users see it.
    pub async fn status(&self) -> api::Status {
        let state = Arc::clone(&self.owner.state().borrow());
        let app = &self.world.app;
        let mut warnings = self.world.warnings();
        let stats = match self.world.tables.routers().stats().await {
            Ok(stats) => stats,
            Err(error) => {
                warnings.push(chain(&error));
                Vec::new()
            }
        };
        let addresses: BTreeSet<String> = stats
            .iter()
            .flat_map(|(_, stats)| &stats.listeners)
            .map(|at| format!("http://{}/", reachable(&at.address)))
            .collect();
        let mut slots = Vec::new();
        for (name, slot) in &state.slots {
            let in_flight = self.world.in_flight(name, slot.boot.as_ref()).await;
            slots.push(self.slot_status(&state, name, slot, in_flight));
        }
        api::Status {
            app: app.name.to_string(),
            state: state.name().to_owned(),
            generation: state.generation.0,
            active: state.active.as_ref().map(ToString::to_string),
            live: state.live().map(ToString::to_string),
            prev: state.prev.as_ref().map(ToString::to_string),
            serving: state
                .active
                .as_ref()
                .and_then(|active| state.slots.get(active))
                .is_some_and(|slot| slot.condition == Condition::Active(Service::Up)),
            addresses: addresses.into_iter().collect(),
            slots,
            deployment: progress(&state),
            soak_until_ms: state.watch.as_ref().map(|watch| watch.until.0),
            health_fail_streak: state.watch.as_ref().map_or(0, |watch| watch.streak),
            last: self.last(&state),
            warnings,
        }
    }

    fn last(&self, state: &State) -> Option<api::Outcome> {
        let outcome = state.outcome.as_ref()?;
        // After a restart of slotd only what is on disk is known of it.
        self.world.outcome(outcome.generation.0).or_else(|| {
            Some(api::Outcome {
                success: matches!(
                    outcome.cause,
                    crate::deploy::Cause::Switched | crate::deploy::Cause::StandsBy
                ),
                generation: outcome.generation.0,
                kind: tell::kind(outcome.kind).to_owned(),
                release: outcome.release.as_ref().map(ToString::to_string),
                phase: outcome.phase.to_owned(),
                cause: outcome.cause.code().to_owned(),
                text: tell::ended(&self.world.app, None, outcome),
                ..api::Outcome::default()
            })
        })
    }

    fn slot_status(
        &self,
        state: &State,
        name: &SlotName,
        slot: &crate::deploy::Slot,
        in_flight: Option<crate::wire::control::InFlight>,
    ) -> api::SlotStatus {
        let (detail, drain_until_ms) = match &slot.condition {
            Condition::Active(service) => (Some(service_name(service)), None),
            Condition::Failed(failure) => (Some(failure.text.clone()), None),
            Condition::Warm { drain: until, .. } | Condition::Draining { until } => {
                (None, until.map(|until| until.0))
            }
            Condition::Idle
            | Condition::Starting
            | Condition::Ready
            | Condition::Standby
            | Condition::Stopping { .. } => (None, None),
        };
        api::SlotStatus {
            slot: name.to_string(),
            unit: tell::unit(&self.world.app, name),
            condition: slot.condition.name().to_owned(),
            detail,
            release: slot.release.as_ref().map(ToString::to_string),
            boot_id: slot.boot.as_ref().map(ToString::to_string),
            upstream: self.world.units.upstream(name),
            weight: if state.active.as_ref() == Some(name) {
                100
            } else {
                0
            },
            in_flight,
            drain_until_ms,
        }
    }

    /// How an attempt stands with respect to what somebody waits for.
    #[must_use]
    pub fn settled(&self, generation: u64, wait: Wait) -> Option<api::Outcome> {
        let state = Arc::clone(&self.owner.state().borrow());
        let mut outcome = self.world.outcome(generation).or_else(|| {
            self.last(&state)
                .filter(|last| last.generation == generation)
        })?;
        if !outcome.success || wait == Wait::Switched {
            return Some(outcome);
        }
        if state
            .watch
            .as_ref()
            .is_some_and(|watch| watch.generation.0 == generation)
        {
            return None;
        }
        if let Some((success, cause, text)) = self.world.watch_end(generation) {
            (outcome.success, outcome.cause, outcome.text) = (success, cause, text);
        }
        let leaving = state.slots.iter().any(|(name, slot)| {
            state.active.as_ref() != Some(name)
                && matches!(
                    slot.condition,
                    Condition::Warm { .. }
                        | Condition::Draining { .. }
                        | Condition::Stopping { .. }
                )
        });
        (wait == Wait::Soaked || !leaving).then_some(outcome)
    }

    /// What an attempt under way waits for, with numbers.
    pub async fn waiting(&self) -> Option<api::Progress> {
        let state = Arc::clone(&self.owner.state().borrow());
        let mut shown = progress(&state).unwrap_or_else(|| api::Progress {
            generation: state.generation.0,
            phase: state.name().to_owned(),
            ..api::Progress::default()
        });
        let leaving = state.slots.iter().find(|(_, slot)| {
            matches!(
                slot.condition,
                Condition::Warm { .. } | Condition::Draining { .. }
            )
        });
        let (name, slot) = leaving?;
        shown.slot = shown.slot.or_else(|| Some(name.to_string()));
        shown.in_flight = self.world.in_flight(name, slot.boot.as_ref()).await;
        Some(shown)
    }
}

/// Until when somebody who began an attempt waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// The release serves.
    #[default]
    Switched,
    /// The soak has ended.
    Soaked,
    /// The old slot is stopped.
    Stopped,
}

async fn take_up<U: Units>(world: &Arc<Live<U>>, loaded: Loaded) -> Step {
    let settings = settings(&world.app);
    let known = match &loaded {
        Loaded::State(state, _) => state.slots.keys().cloned().collect(),
        Loaded::Absent | Loaded::Corrupt { .. } => BTreeSet::new(),
    };
    let mut facts = Facts::default();
    for name in known.into_iter().chain(settings.slots.iter().cloned()) {
        let found = Found {
            seen: world.units.seen(&name).await,
            release: release::named(&world.root, name.as_str()),
        };
        facts.slots.insert(name, found);
    }
    facts.live = release::named(&world.root, "live");
    facts.prev = release::named(&world.root, "prev");
    let part = world.tables.part(world.app.name.as_str()).await;
    let routed = part
        .as_ref()
        .and_then(|part| part.slots.iter().find(|slot| slot.weight == 100));
    facts.routed = routed.and_then(|slot| slot.name.parse().ok());
    facts.serving = routed
        .filter(|slot| slot.ready)
        .and_then(|slot| slot.boot_id.as_ref()?.parse().ok());
    let recorded = History::at(world.root.join("history.jsonl")).last_generation();
    facts.generation = Generation(recorded.max(part.map_or(0, |part| part.generation)));
    let now = world.now();
    match loaded {
        Loaded::State(state, rebooted) => {
            facts.rebooted = rebooted;
            recover(&state, &facts, now)
        }
        Loaded::Absent if facts.live.is_none() => recover(&State::new(settings), &facts, now),
        Loaded::Absent => {
            world.keep_warning("state.json is missing; the active slot was found by its units and symlinks instead".to_owned());
            recover(&rediscover(settings, &facts, now), &facts, now)
        }
        Loaded::Corrupt { aside, why } => {
            world.keep_warning(format!(
                "state.json could not be read ({why}); it is kept as {}, and the active slot was found by the routers' table, units and symlinks instead",
                aside.display()
            ));
            recover(&rediscover(settings, &facts, now), &facts, now)
        }
    }
}

fn progress(state: &State) -> Option<api::Progress> {
    let held = state.deployment.as_ref()?;
    let slot = held.phase.slot();
    Some(api::Progress {
        generation: held.generation.0,
        kind: tell::kind(held.kind).to_owned(),
        by: held.by.clone(),
        began_ms: held.began.0,
        phase: held.phase.name().to_owned(),
        slot: slot.map(ToString::to_string),
        release: slot
            .and_then(|slot| state.slots.get(slot)?.release.as_ref())
            .map(ToString::to_string),
        waits_for: match &held.phase {
            Phase::Preparing { .. } => Some("the upload of the release".to_owned()),
            Phase::Waiting { .. } => Some("a slot to become idle".to_owned()),
            Phase::Starting { slot, .. } => Some(format!("{slot} to be READY")),
            Phase::Ready {
                probe: Some(probe), ..
            } => Some(format!(
                "a probe to pass; the last one found: {}",
                probe.text
            )),
            Phase::Ready { slot, .. } => Some(format!("a probe of {slot} to pass")),
            Phase::Shifting { .. } => Some("the routers to take the table".to_owned()),
        },
        in_flight: None,
    })
}

fn service_name(service: &Service) -> String {
    match service {
        Service::Up => "up".to_owned(),
        Service::Booting { .. } => "booting".to_owned(),
        Service::Down { failure, .. } => format!("down: {}", failure.text),
        Service::ByHand => "stopped-by-hand".to_owned(),
    }
}

/// A listener's address as somebody on this machine would use it.
fn reachable(address: &str) -> String {
    let local = address
        .replace("0.0.0.0:", "127.0.0.1:")
        .replace("[::]:", "127.0.0.1:");
    local
        .strip_suffix(":80")
        .map_or(local.clone(), ToOwned::to_owned)
}

/// What is new after every start of the machine: the kernel's boot id and when PID 1 began, in clock ticks since the kernel did (proc(5)).
///
/// The boot id alone would not do. A container that is started again keeps its host's; and where its runtime hides that behind one of its
/// own, `ProtectKernelTunables=` brings the host's back for slotd.
///
/// # Errors
/// `/proc` is not mounted.
pub fn machine_boot(proc: &Path) -> std::io::Result<String> {
    let id = std::fs::read_to_string(proc.join("sys/kernel/random/boot_id"))?;
    let stat = std::fs::read_to_string(proc.join("1/stat"))?;
    // The name of the process, the second field, may have anything in it, spaces and parentheses too.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let began = after_name.split(' ').nth(19).unwrap_or_default();
    Ok(format!("{} {began}", id.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_told_by_the_kernel_and_by_when_pid_1_began() {
        let proc = tempfile::tempdir().unwrap();
        let random = proc.path().join("sys/kernel/random");
        std::fs::create_dir_all(&random).unwrap();
        std::fs::create_dir(proc.path().join("1")).unwrap();
        std::fs::write(random.join("boot_id"), "5f3aaaa0-4f6a\n").unwrap();
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10\n";
        std::fs::write(proc.path().join("1/stat"), stat).unwrap();
        assert_eq!(machine_boot(proc.path()).unwrap(), "5f3aaaa0-4f6a 4711");
        let here = machine_boot("/proc".as_ref()).unwrap();
        assert!(here.split(' ').nth(1).unwrap().parse::<u64>().is_ok());
    }
}
