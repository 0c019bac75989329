//! The world as it is: units, routers, disks.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, mpsc};

use super::owner::Owner;
use super::tables::Tables;
use super::tell;
use super::units::{Report, Units};
use super::world::World;
use crate::config::App;
use crate::deploy::{
    BootId, Cause, Effect, End, Event, Notice, Outcome, Pace, ReleaseId, Route, Seen, SlotName,
    State, Time,
};
use crate::release;
use crate::store::{Entry, FileError, History, StateFile, replace};
use crate::telemetry::chain;
use crate::wire::{api, table};

/// The first pause between two probes of a gate, and the longest; it grows by half each time.
const GATE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The pause between two probes of a soak.
const SOAK_PAUSE: Duration = Duration::from_secs(1);

/// How long one probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// How long an effect that failed waits for its next try.
const AGAIN: Duration = Duration::from_millis(500);

/// How long the evidence of a failure may take to collect, while the failed candidate waits to be stopped.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Outcomes kept for whoever asks later; the last one is on disk as well.
const OUTCOMES: usize = 32;

/// What is set aside on disk so that the end of a deployment can be written when the disk is full: a few states.
const RESERVE: usize = 256 * 1024;

/// The world of one app.
#[derive(Debug)]
pub struct Live<U> {
    pub(super) app: Arc<App>,
    /// `/var/lib/slot/<app>`.
    pub(super) root: PathBuf,
    pub(super) units: U,
    pub(super) tables: Arc<Tables>,
    state_file: StateFile,
    history: History,
    told: broadcast::Sender<api::Event>,
    memory: Mutex<Memory>,
}

/// What is remembered beside the state, for people: lost when slotd restarts.
#[derive(Debug, Default)]
struct Memory {
    attempt: Option<Attempt>,
    outcomes: VecDeque<api::Outcome>,
    /// Ends of watches: generation, success, cause, sentence.
    watches: VecDeque<(u64, bool, String, String)>,
    warnings: Vec<String>,
}

/// The attempt under way.
#[derive(Clone, Debug, Default)]
struct Attempt {
    generation: u64,
    phases: Vec<(String, Time)>,
    slot: Option<SlotName>,
    boot: Option<BootId>,
    previous: Option<ReleaseId>,
}

impl<U: Units> Live<U> {
    /// The world of an app whose directory is `root`.
    pub fn new(
        app: Arc<App>,
        root: PathBuf,
        units: U,
        tables: Arc<Tables>,
        state_file: StateFile,
    ) -> Self {
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
        }
    }

    /// What will be told, from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<api::Event> {
        self.told.subscribe()
    }

    /// How an attempt ended, if it has and is still remembered.
    #[must_use]
    pub fn outcome(&self, generation: u64) -> Option<api::Outcome> {
        self.memory()
            .outcomes
            .iter()
            .rev()
            .find(|outcome| outcome.generation == generation)
            .cloned()
    }

    /// How the watch of an attempt ended: success, cause, sentence.
    #[must_use]
    pub fn watch_end(&self, generation: u64) -> Option<(bool, String, String)> {
        let memory = self.memory();
        let (_, success, cause, text) = memory
            .watches
            .iter()
            .rev()
            .find(|(of, ..)| *of == generation)?;
        Some((*success, cause.clone(), text.clone()))
    }

    /// What an administrator should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.memory().warnings.clone()
    }

    /// Tells an administrator something that stays true until slotd restarts.
    pub fn keep_warning(&self, text: String) {
        tracing::error!(slot_app = self.app.name.as_str(), "{text}");
        self.memory().warnings.push(text);
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

    fn reserve(&self) -> PathBuf {
        self.root.join(".reserve")
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What is behind the lock is for people only; a panic elsewhere does not make it wrong.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports every change of the app's units; never returns.
    pub async fn watch_units(&self, owner: Owner) {
        let state = owner.state();
        loop {
            let slot = self.units.changed().await;
            let known = state
                .borrow()
                .slots
                .get(&slot)
                .and_then(|slot| slot.boot.clone());
            let seen = self.units.seen(&slot).await;
            for event in self.changes(&slot, known, seen) {
                owner.report(event).await;
            }
        }
    }

    /// The events that bring what is known of a slot up to what is seen.
    fn changes(&self, slot: &SlotName, known: Option<BootId>, seen: Seen) -> Vec<Event> {
        let vanished = |boot, end| Event::Vanished {
            slot: slot.clone(),
            boot,
            end,
        };
        match (known, seen) {
            (Some(known), Seen::Running(boot)) if known == boot => Vec::new(),
            (Some(known), Seen::Running(boot)) => {
                let end = End::Restarting(unseen_end());
                vec![vanished(known, end), self.appeared(slot, boot)]
            }
            (None, Seen::Running(boot)) => vec![self.appeared(slot, boot)],
            (Some(known), Seen::Coming) => vec![vanished(known, End::Restarting(unseen_end()))],
            (Some(known), Seen::Ended(end)) => vec![vanished(known, end)],
            (None, Seen::Coming | Seen::Ended(_)) => Vec::new(),
        }
    }

    fn appeared(&self, slot: &SlotName, boot: BootId) -> Event {
        let release = release::named(&self.root, slot.as_str());
        Event::Appeared {
            slot: slot.clone(),
            boot,
            release,
        }
    }

    async fn start(
        &self,
        slot: SlotName,
        generation: crate::deploy::Generation,
        id: ReleaseId,
    ) -> Event {
        let (root, name, named) = (self.root.clone(), slot.clone(), id.clone());
        let linked = blocking(move || release::link(&root, name.as_str(), Some(&named))).await;
        let started = match linked {
            Ok(()) => self.units.start(&slot, &id, self.app.start_timeout).await,
            Err(error) => Err(crate::deploy::UnitFailure {
                result: "no-release".to_owned(),
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

    async fn probe(&self, slot: SlotName, boot: BootId, pace: Pace, report: mpsc::Sender<Event>) {
        let mut pause = GATE_PAUSE.0;
        loop {
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
                    for event in self.changes(&slot, Some(boot.clone()), other) {
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
            }
        }
    }

    async fn route(&self, route: Route) -> Event {
        let part = self.part(&route);
        loop {
            match self.tables.publish(part.clone()).await {
                Ok(()) => {
                    return Event::Routed {
                        generation: route.generation,
                        active: route.active,
                    };
                }
                Err(error) => {
                    tracing::warn!(
                        slot_app = self.app.name.as_str(),
                        "the table is not everywhere yet: {}",
                        chain(&error)
                    );
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// An app's part of the table: what the state decides and what its file says.
    fn part(&self, route: &Route) -> table::App {
        let routes = self.app.hosts.iter().flat_map(|host| {
            self.app.paths.iter().map(move |path| table::Route {
                listener: self.app.listener.clone(),
                host: host.clone(),
                path: path.clone(),
            })
        });
        let mut slots: BTreeSet<&SlotName> = self.app.slots.iter().collect();
        // A slot that the file does not name any more serves until it is replaced.
        slots.extend(&route.active);
        let slots = slots.into_iter().map(|slot| {
            let active = route.active.as_ref() == Some(slot);
            let boot = route
                .boots
                .iter()
                .find(|(name, _)| name == slot)
                .map(|(_, boot)| boot.to_string());
            table::Slot {
                name: slot.to_string(),
                weight: if active { 100 } else { 0 },
                upstream: self.units.upstream(slot),
                boot_id: boot,
                ready: !active || route.ready,
            }
        });
        table::App {
            name: self.app.name.to_string(),
            generation: route.generation.0,
            routes: routes.collect(),
            slots: slots.collect(),
            hold_ms: u64::try_from(route.hold.as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn drained(&self, slot: SlotName, boot: Option<BootId>) -> Event {
        let run = boot.as_ref().map(BootId::as_str);
        while let Err(error) = self
            .tables
            .routers()
            .drained(self.app.name.as_str(), slot.as_str(), run)
            .await
        {
            tracing::debug!("a drain is asked for again: {}", chain(&error));
            tokio::time::sleep(AGAIN).await;
        }
        Event::Drained { slot, boot }
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

    /// Remembers what a notice means for the attempt under way; gives its outcome when it ended.
    async fn remember(&self, notice: &Notice, state: &State, at: Time) {
        match notice {
            Notice::Began { generation, .. } => {
                self.memory().attempt = Some(Attempt {
                    generation: generation.0,
                    previous: state.live().cloned(),
                    ..Attempt::default()
                });
            }
            Notice::Phase {
                generation,
                phase,
                slot,
                ..
            } => {
                let mut memory = self.memory();
                let attempt = memory.attempt.get_or_insert_default();
                attempt.generation = generation.0;
                attempt.phases.push(((*phase).to_owned(), at));
                if let Some(slot) = slot {
                    attempt.boot = state
                        .slots
                        .get(slot)
                        .and_then(|slot| slot.boot.clone())
                        .or(attempt.boot.take());
                    attempt.slot = Some(slot.clone());
                }
            }
            Notice::Ended(outcome) => {
                let attempt = self.memory().attempt.take().unwrap_or_default();
                let outcome = self.outcome_of(outcome, attempt, state, at).await;
                let mut memory = self.memory();
                memory.outcomes.push_back(outcome);
                let surplus = memory.outcomes.len().saturating_sub(OUTCOMES);
                memory.outcomes.drain(..surplus);
            }
            Notice::Soak {
                generation,
                slot,
                cause,
            } => {
                let text = tell::cause(&self.app, Some(slot.as_str()), cause);
                let success = !matches!(cause, Cause::ProbesFailed(_) | Cause::Exited(_));
                self.remember_watch(generation.0, success, cause.code(), text);
            }
            Notice::RolledBack {
                generation,
                from,
                cause,
                ..
            } => {
                let text = tell::cause(&self.app, Some(from.as_str()), cause);
                self.remember_watch(generation.0, false, cause.code(), text);
            }
            Notice::Draining { .. }
            | Notice::Forced { .. }
            | Notice::Stopped { .. }
            | Notice::Down { .. }
            | Notice::Up { .. }
            | Notice::StandsBy { .. } => {}
        }
    }

    fn remember_watch(&self, generation: u64, success: bool, cause: &str, text: String) {
        let mut memory = self.memory();
        memory
            .watches
            .push_back((generation, success, cause.to_owned(), text));
        let surplus = memory.watches.len().saturating_sub(OUTCOMES);
        memory.watches.drain(..surplus);
    }

    async fn outcome_of(
        &self,
        outcome: &Outcome,
        attempt: Attempt,
        state: &State,
        at: Time,
    ) -> api::Outcome {
        let success = matches!(outcome.cause, Cause::Switched | Cause::StandsBy);
        let slot = attempt.slot.as_ref().map(ToString::to_string);
        let mut text = tell::ended(&self.app, slot.as_deref(), outcome);
        if let Cause::NoIdleSlot { holder, .. } = &outcome.cause {
            text = self.no_idle_slot(holder, state, at).await;
        }
        let ends = attempt
            .phases
            .iter()
            .skip(1)
            .map(|(_, began)| *began)
            .chain([at]);
        let phases_ms = attempt.phases.iter().zip(ends);
        api::Outcome {
            success,
            generation: outcome.generation.0,
            kind: tell::kind(outcome.kind).to_owned(),
            release: outcome.release.as_ref().map(ToString::to_string),
            previous: attempt.previous.as_ref().map(ToString::to_string),
            phase: outcome.phase.to_owned(),
            cause: outcome.cause.code().to_owned(),
            text,
            phases_ms: phases_ms
                .map(|((phase, began), end)| (phase.clone(), millis(end.since(*began))))
                .collect(),
            report: match &attempt.slot {
                Some(slot) if !success => Some(
                    self.report(slot, attempt.boot.as_ref(), &outcome.cause)
                        .await,
                ),
                _ => None,
            },
            slot,
        }
    }

    /// Who holds the slot that was waited for, what it still does, and the ways out.
    async fn no_idle_slot(&self, holder: &SlotName, state: &State, at: Time) -> String {
        let held = state.slots.get(holder);
        let boot = held.and_then(|slot| slot.boot.as_ref());
        let condition = held.map_or("in use", |slot| slot.condition.name());
        let busy = match self.in_flight(holder, boot).await {
            Some(held) if held.total() > 0 => format!(
                " and has {} requests, {} streams and {} tunnels in flight",
                held.requests, held.streams, held.tunnels
            ),
            _ => String::new(),
        };
        let until = match held.map(|slot| &slot.condition) {
            Some(
                crate::deploy::Condition::Draining { until }
                | crate::deploy::Condition::Warm { drain: until, .. },
            ) => match until {
                Some(until) => format!(", for {} at most", tell::span(until.since(at))),
                None => ", however long they take".to_owned(),
            },
            _ => String::new(),
        };
        format!(
            "no slot became idle in time: {holder} is {condition}{busy}{until}. Wait for it (`--queue 10m`), cut it now \
             (`slotctl drain --now {holder}`), or give the app a third slot (`slots` in its file)"
        )
    }

    /// What is in flight at a run of a slot, over all routers; `None` when one does not answer.
    pub async fn in_flight(
        &self,
        slot: &SlotName,
        boot: Option<&BootId>,
    ) -> Option<crate::wire::control::InFlight> {
        let stats = self.tables.routers().stats().await.ok()?;
        let mut sum = crate::wire::control::InFlight::default();
        for run in stats.iter().flat_map(|(_, stats)| &stats.slots) {
            let this = boot.is_none() || run.boot_id.as_deref() == boot.map(BootId::as_str);
            if run.app == self.app.name.as_str() && run.slot == slot.as_str() && this {
                sum.requests += run.in_flight.requests;
                sum.streams += run.in_flight.streams;
                sum.tunnels += run.in_flight.tunnels;
            }
        }
        Some(sum)
    }

    async fn report(&self, slot: &SlotName, boot: Option<&BootId>, cause: &Cause) -> api::Report {
        let found = tokio::time::timeout(REPORT_LIMIT, self.units.report(slot, boot))
            .await
            .unwrap_or_else(|_| Report {
                unit: tell::unit(&self.app, slot),
                ..Report::default()
            });
        let probe = match cause {
            Cause::HealthTimeout(Some(probe)) => Some(probe.text.clone()),
            _ => None,
        };
        api::Report {
            unit: found.unit,
            result: found.result,
            exit: found.exit,
            status_text: found.status_text,
            probe,
            log: found.log,
            listens: found.listens,
            expected: Some(self.units.upstream(slot)),
            journal: found.journal,
        }
    }

    fn log(&self, event: &api::Event) {
        let bad = matches!(event.event.as_str(), "rolled-back" | "forced" | "down")
            || (event.event == "ended" && event.cause.as_deref() != Some("switched"));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    slot_app = event.app.as_str(),
                    slot_name = event.slot.as_deref(),
                    slot_release = event.release.as_deref(),
                    slot_generation = event.generation,
                    slot_phase = event.phase.as_deref(),
                    slot_cause = event.cause.as_deref(),
                    "{}",
                    event.text
                )
            };
        }
        if bad { line!(warn) } else { line!(info) }
    }

    fn keep(&self, event: &api::Event) {
        if !matches!(
            event.event.as_str(),
            "ended" | "soak" | "rolled-back" | "forced"
        ) {
            return;
        }
        let entry = Entry {
            at_ms: event.at_ms,
            generation: event.generation,
            event: event.event.clone(),
            slot: event.slot.clone(),
            release: event.release.clone(),
            cause: event.cause.clone(),
            text: event.text.clone(),
        };
        if let Err(error) = self.history.add(&entry) {
            tracing::warn!(
                slot_app = event.app.as_str(),
                "the history lacks a line: {}",
                chain(&error)
            );
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
        blocking(move || {
            file.save(&state).or_else(|first| {
                // The reserve is there for this: without it, try once more.
                std::fs::remove_file(reserve).map_err(|_| first)?;
                file.save(&state)
            })
        })
        .await
    }

    async fn perform(self: Arc<Self>, effect: Effect, report: mpsc::Sender<Event>) {
        let event = match effect {
            Effect::Start {
                slot,
                generation,
                release,
            } => self.start(slot, generation, release).await,
            Effect::Probe { slot, boot, pace } => {
                return self.probe(slot, boot, pace, report).await;
            }
            Effect::Route(route) => self.route(route).await,
            Effect::Drain { slot, boot } => self.drained(slot, boot).await,
            Effect::Stop { slot } => {
                let killed = self.units.stop(&slot, self.app.stop_timeout).await;
                Event::Stopped { slot, killed }
            }
            Effect::Link { live, prev } => {
                let root = self.root.clone();
                let work = move || {
                    release::link(&root, "live", live.as_ref())?;
                    release::link(&root, "prev", prev.as_ref())
                };
                return self
                    .disk("the symlinks live and prev are not as they should be", work)
                    .await;
            }
            Effect::Retain { releases } => {
                let (root, keep) = (self.root.clone(), self.app.keep);
                let work = move || release::prune(&root, &releases, keep);
                return self.disk("an old release could not be removed", work).await;
            }
        };
        // The owner may have ended; then nobody needs to know.
        let _ = report.send(event).await;
    }

    async fn tell(&self, notices: Vec<Notice>, state: &State) {
        let at = self.now();
        for notice in notices {
            let mut event = tell::event(&self.app, &notice, state, at);
            if matches!(notice, Notice::Ended(_)) {
                event.slot = event.slot.or_else(|| {
                    self.memory()
                        .attempt
                        .as_ref()
                        .and_then(|attempt| attempt.slot.as_ref())
                        .map(ToString::to_string)
                });
            }
            self.remember(&notice, state, at).await;
            if let Notice::Ended(_) = notice {
                if let Some(outcome) = self.outcome(event.generation) {
                    event.text = outcome.text;
                }
            }
            self.log(&event);
            self.keep(&event);
            // Nobody may be listening.
            let _ = self.told.send(event);
        }
    }

    fn warn(&self, error: &FileError) {
        tracing::error!(
            slot_app = self.app.name.as_str(),
            "the state cannot be written, so nothing changes: {}",
            chain(error)
        );
    }
}

fn unseen_end() -> crate::deploy::UnitFailure {
    crate::deploy::UnitFailure {
        result: "unknown".to_owned(),
        text: "ended and is being started again".to_owned(),
    }
}

fn millis(span: Duration) -> u64 {
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
