//! The world as it is: units, routers, disks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, mpsc};

use super::remember::Memory;
use super::tables::Tables;
use super::units::Units;
use super::world::World;
use crate::config::App;
use crate::deploy::{
    BootId, Effect, Event, Generation, Limits, Notice, Pace, ReleaseId, Seen, SlotName, State,
    Time, UnitFailure,
};
use crate::git::Store;
use crate::release::{self, Root, Turn};
use crate::store::{FileError, History, StateFile, replace};
use crate::telemetry::chain;
use crate::wire::api;

/// The first pause between two probes of a gate, and the longest; it grows by half each time.
const GATE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

/// The pause between two probes of a soak.
const SOAK_PAUSE: Duration = Duration::from_secs(1);

/// The pause before a probe of a slot whose soak is over.
const LOOKOUT_PAUSE: Duration = Duration::from_secs(10);

/// How long one probe may take.
pub(super) const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// How long an effect that failed waits for its next try.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// What is set aside on disk so that the end of a deployment can be written when the disk is full: a few states.
const RESERVE: usize = 256 * 1024;

/// The world of one app.
#[derive(Debug)]
pub struct Live<U> {
    pub(super) app: Arc<App>,
    /// `/var/lib/slot/<app>`.
    pub(super) root: Root,
    pub(super) units: U,
    pub(super) tables: Arc<Tables>,
    state_file: StateFile,
    pub(super) history: History,
    pub(super) told: broadcast::Sender<api::Event>,
    pub(super) memory: Mutex<Memory>,
    /// Whose turn it is among the hooks.
    pub(super) hooking: tokio::sync::Mutex<()>,
    /// Whose turn it is to ask the remote.
    pub(super) fetching: tokio::sync::Mutex<()>,
    /// Told when a notice was written down.
    pub(super) posted: tokio::sync::Notify,
}

impl<U: Units> Live<U> {
    /// The world of an app whose directory is `root`.
    pub fn new(
        app: Arc<App>,
        root: impl Into<Root>,
        units: U,
        tables: Arc<Tables>,
        state_file: StateFile,
    ) -> Self {
        let root = root.into();
        let history = History::at(root.join("history.jsonl"));
        let (told, _) = broadcast::channel(256);
        Self {
            app,
            root,
            units,
            tables,
            state_file,
            history,
            told,
            memory: Mutex::default(),
            hooking: tokio::sync::Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            posted: tokio::sync::Notify::new(),
        }
    }

    /// What will be told, from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<api::Event> {
        self.told.subscribe()
    }

    /// Makes sure that the end of a deployment can be written even if the disk gets full on the way.
    ///
    /// # Errors
    /// The disk is full now.
    pub fn set_reserve_aside(&self) -> Result<(), FileError> {
        let path = self.reserve();
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE as u64) {
            return Ok(());
        }
        // Bytes that are not zero, so that no file system makes a hole of them.
        replace(&path, &vec![b'.'; RESERVE], 0o600)
    }

    /// Whether the file of the state is what was written of it.
    ///
    /// # Errors
    /// As for [`StateFile::holds`].
    pub(super) async fn is_written(&self, state: Arc<State>) -> Result<bool, FileError> {
        let file = self.state_file.clone();
        blocking(move || file.holds(&state)).await
    }

    fn reserve(&self) -> PathBuf {
        self.root.join(".reserve")
    }

    /// What runs in the slot under another symlink is stopped first: a start would join it, and its launcher may have read the old one.
    async fn start(
        &self,
        turn: Turn,
        slot: SlotName,
        generation: Generation,
        id: ReleaseId,
        limits: Limits,
    ) -> Event {
        let (root, name, named) = (self.root.clone(), slot.clone(), id.clone());
        let changes = blocking(move || {
            release::named(&root, name.as_str()).as_ref() != Some(&named)
                // Without its release there is nothing to start, and so no reason to stop anything.
                && root.home(&named).is_dir()
        })
        .await;
        if changes {
            self.units.stop(&slot).await;
        }
        let (root, name, named) = (self.root.clone(), slot.clone(), id.clone());
        let linked =
            blocking(move || release::link_in_turn(&root, turn, name.as_str(), Some(&named))).await;
        let started = match linked {
            Ok(()) => self.units.start(&slot, &id, limits).await,
            Err(error) => Err(UnitFailure {
                result: "no-release".into(),
                text: chain(&error),
            }),
        };
        match started {
            Ok(boot) => Event::Started {
                slot,
                generation,
                boot,
            },
            Err(failure) => Event::StartFailed {
                slot,
                generation,
                failure,
            },
        }
    }

    async fn perform_in_turn(
        self: Arc<Self>,
        turn: Turn,
        effect: Effect,
        report: mpsc::Sender<Event>,
    ) {
        let event = match effect {
            Effect::Start {
                slot,
                generation,
                release,
                limits,
            } => self.start(turn, slot, generation, release, limits).await,
            Effect::Probe { slot, boot, pace } => {
                return self.probe(slot, boot, pace, report).await;
            }
            Effect::Measure(what) => return self.measure(what, report).await,
            Effect::Freeze { slot, boot } => return self.freeze(slot, boot, report).await,
            Effect::Route(route) => self.route(route, &report).await,
            Effect::Drain { slot, boot, until } => self.drained(slot, boot, until).await,
            Effect::Stop { slot } => {
                let killed = self.stop(&slot).await;
                Event::Stopped { slot, killed }
            }
            Effect::Link { live, prev } => {
                let root = self.root.clone();
                let work = move || {
                    release::link_in_turn(&root, turn, "live", live.as_ref())?;
                    release::link_in_turn(&root, turn, "prev", prev.as_ref())
                };
                return self
                    .disk("the symlinks live and prev are not as they should be", work)
                    .await;
            }
            Effect::Hook(occasion) => Event::Hooked {
                failure: self.hook(&occasion).await,
                hook: occasion.hook,
                generation: occasion.generation,
            },
            Effect::Post(tiding) => {
                self.post(&tiding).await;
                Event::Posted {
                    number: tiding.number,
                }
            }
            Effect::Retain { releases } => {
                let (root, keep) = (self.root.clone(), self.app.keep);
                let work = move || {
                    release::prune(&root, &releases, keep)?;
                    let kept = release::list(&root).into_iter().map(|(id, _)| id);
                    if let Err(error) = Store::of(&root).prune(&kept.collect()) {
                        // It takes room, and goes with the next.
                        tracing::warn!("{}", chain(&error));
                    }
                    Ok(())
                };
                return self.disk("an old release could not be removed", work).await;
            }
        };
        // The owner may have ended; then nobody needs to know.
        let _ = report.send(event).await;
    }

    async fn probe(&self, slot: SlotName, boot: BootId, pace: Pace, report: mpsc::Sender<Event>) {
        let mut pause = GATE_PAUSE.0;
        if pace == Pace::Gate {
            self.units.thaw(&slot).await;
        }
        loop {
            if pace == Pace::Lookout {
                tokio::time::sleep(LOOKOUT_PAUSE).await;
            }
            let probe = self.units.probe(&slot, PROBE_LIMIT).await;
            // Asked after the probe: what answered was this run, or it was not and does not count.
            match self.units.seen(&slot).await {
                Seen::Running(running) if running == boot => {
                    let event = Event::Probed {
                        slot: slot.clone(),
                        boot: boot.clone(),
                        probe,
                    };
                    if report.send(event).await.is_err() {
                        return;
                    }
                }
                other => {
                    for event in self.changes(&slot, Some(boot.clone()), other).await {
                        if report.send(event).await.is_err() {
                            return;
                        }
                    }
                }
            }
            match pace {
                Pace::Gate => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 3 / 2).min(GATE_PAUSE.1);
                }
                Pace::Soak => tokio::time::sleep(SOAK_PAUSE).await,
                Pace::Lookout => {}
            }
        }
    }

    async fn freeze(&self, slot: SlotName, boot: BootId, report: mpsc::Sender<Event>) {
        loop {
            match self.units.seen(&slot).await {
                Seen::Running(running) if running == boot => {}
                other => {
                    self.go_on("freeze");
                    for event in self.changes(&slot, Some(boot.clone()), other).await {
                        // The owner may have ended; then nobody needs to know.
                        let _ = report.send(event).await;
                    }
                    return;
                }
            }
            match self.units.freeze(&slot).await {
                Ok(()) => return self.go_on("freeze"),
                Err(why) => self.hold_up(
                    "freeze",
                    format!("slot {slot} is kept, and runs, because it cannot be frozen: {why}"),
                ),
            }
            tokio::time::sleep(AGAIN * 10).await;
        }
    }

    async fn disk(
        &self,
        what: &'static str,
        work: impl Fn() -> Result<(), release::ReleaseError> + Clone + Send + 'static,
    ) {
        while let Err(error) = blocking(work.clone()).await {
            tracing::warn!(
                slot_app = self.app.name.as_str(),
                "{what}: {}",
                chain(&error)
            );
            tokio::time::sleep(AGAIN * 10).await;
        }
    }
}

impl<U: Units> World for Live<U> {
    type Error = FileError;

    fn now(&self) -> Time {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Time(millis(since))
    }

    async fn commit(&self, state: &State) -> Result<(), FileError> {
        let (file, state, reserve) = (self.state_file.clone(), state.clone(), self.reserve());
        let committed = blocking(move || {
            file.save(&state).or_else(|first| {
                // The reserve is there for this: without it, try once more.
                std::fs::remove_file(reserve).map_err(|_| first)?;
                file.save(&state)
            })
        })
        .await;
        if committed.is_ok() {
            self.go_on("state");
        }
        committed
    }

    fn perform(
        self: Arc<Self>,
        effect: Effect,
        report: mpsc::Sender<Event>,
    ) -> impl Future<Output = ()> + Send {
        // Taken where the effect is decided on: what was given up meanwhile may be on a thread still, and has no say any more.
        self.perform_in_turn(Turn::next(), effect, report)
    }

    async fn tell(&self, notices: Vec<Notice>, state: &State) {
        for notice in notices {
            self.tell_one(&notice, state).await;
        }
    }

    fn warn(&self, error: &FileError) {
        let why = format!(
            "the state cannot be written, so nothing changes: {}",
            chain(error)
        );
        self.hold_up("state", why);
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Runs what blocks (disks) away from the threads that must not.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is being shut down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}
