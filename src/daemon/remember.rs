//! What is remembered of attempts and watches for people beside the state: the evidence of failures, the ends of watches. It is lost
//! when slotd restarts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::app::settings;
use super::live::Live;
use super::tell;
use super::units::{Report, Units};
use super::world::World;
use crate::deploy::{
    BootId, Cause, Condition, Evidence, Generation, Measured, Notice, Outcome, Phase, SlotName,
    State, Tiding, Time,
};
use crate::store::Entry;
use crate::telemetry::{chain, message};
use crate::wire::api;
use crate::wire::control::{InFlight, Stats};

/// How long the evidence of a failure may take to collect, while the failed candidate waits to be stopped.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Outcomes kept for whoever asks later; the last one is on disk as well.
const OUTCOMES: usize = 32;

/// The name of [`Phase::Preparing`].
const PREPARING: &str = "preparing";

/// The name of [`Phase::Ready`].
const READY: &str = "ready";

/// The step of a candidate that is ready.
const BEFORE_SWITCH: &str = "before_switch";

/// What warnings are about that a receiver does not get his notices.
const NOTICES: &str = "notices";

/// What is held up by a hook that failed after a switch: nothing, but somebody should know.
const HOOK: &str = "hook";

/// What is remembered beside the state, for people: lost when slotd restarts.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The run of the candidate of the attempt under way: when that has ended, the state does not know it any more.
    candidate: Option<BootId>,
    /// What the attempt under way prepares at present: `build`, and a sentence about it.
    step: Option<(Generation, &'static str, String)>,
    /// What the fetch or the build of the attempt under way said when it failed.
    said: Option<(Generation, Report)>,
    outcomes: VecDeque<api::Outcome>,
    /// The last that was measured.
    evidence: Option<(Generation, Measured, Evidence)>,
    /// Ends of watches: generation, success, cause, sentence.
    watches: VecDeque<(u64, bool, String, String)>,
    staging: api::Staging,
    /// With what they are about.
    warnings: Vec<(String, String)>,
    /// What cannot be done at present, and why: `state`, `table`.
    held_up: BTreeMap<&'static str, String>,
    /// The receivers of notices that do not get theirs.
    undelivered: BTreeMap<String, Undelivered>,
}

/// Notices that a receiver does not get.
#[derive(Debug)]
pub(super) struct Undelivered {
    /// Where he is.
    pub(super) place: String,
    /// How many wait.
    pub(super) many: usize,
    /// Since when the oldest one does.
    pub(super) since_ms: u64,
    /// Why it was not sent the last time.
    pub(super) why: String,
}

impl<U: Units> Live<U> {
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

    /// How the watch of an attempt ended without a rollback: success, cause, sentence.
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

    /// A deployment that is being prepared has come to another step of that: for people, to whom it is a phase.
    pub(super) fn enter_step(&self, generation: Generation, step: &'static str) {
        self.tell_step(generation, step, step.to_owned());
    }

    /// The same, with what there is to say about it; of a step that it is in already, that is news.
    pub(super) fn tell_step(&self, generation: Generation, step: &'static str, text: String) {
        self.memory().step = Some((generation, step, text.clone()));
        let event = api::Event {
            at_ms: self.now().0,
            app: self.app.name.to_string(),
            generation: generation.0,
            event: "phase".to_owned(),
            phase: Some(step.to_owned()),
            text,
            ..api::Event::default()
        };
        self.log(&event);
        // Nobody may be listening.
        let _ = self.told.send(event);
    }

    /// The step that an attempt is in, if that phase has steps: all of those of preparing, and the hook of a candidate that is ready.
    fn step_in(&self, phase: &'static str, generation: Generation) -> &'static str {
        let step = self.step(generation).map(|(step, _)| step);
        let own = step.filter(|step| phase == PREPARING || *step == BEFORE_SWITCH);
        own.unwrap_or(phase)
    }

    /// The phase of an attempt, as people are told it: of one that is being prepared, its step.
    #[must_use]
    pub fn phase(&self, generation: Generation, phase: &Phase) -> &'static str {
        match phase {
            Phase::Preparing { .. } | Phase::Ready { .. } => self.step_in(phase.name(), generation),
            _ => phase.name(),
        }
    }

    /// The step that an attempt is in while it is being prepared, and the sentence about it.
    pub(super) fn step(&self, generation: Generation) -> Option<(&'static str, String)> {
        let step = self.memory().step.clone();
        step.filter(|(of, ..)| *of == generation)
            .map(|(_, step, text)| (step, text))
    }

    /// The step of a phase that goes on is over.
    pub(super) fn leave_step(&self, generation: Generation) {
        let step = &mut self.memory().step;
        // A hook that comes after the switch may end in the midst of the next attempt.
        *step = step.take().filter(|(of, ..)| *of != generation);
    }

    /// What was measured.
    pub(super) fn keep_evidence(&self, generation: Generation, of: Measured, evidence: Evidence) {
        self.memory().evidence = Some((generation, of, evidence));
    }

    /// What was measured last, if it was for that.
    pub(super) fn evidence(&self, generation: Generation, of: Measured) -> Option<Evidence> {
        let memory = self.memory();
        let (known, what, evidence) = memory.evidence.as_ref()?;
        (*known == generation && *what == of).then(|| evidence.clone())
    }

    /// What a fetch or a build said that is about to be reported as failed.
    pub(super) fn keep_report(&self, generation: Generation, report: Report) {
        self.memory().said = Some((generation, report));
    }

    /// How staging is, but for where.
    pub(super) fn remembered_staging(&self) -> api::Staging {
        self.memory().staging.clone()
    }

    /// Staging is another now.
    pub(super) fn tell_staging(&self, change: impl FnOnce(&mut api::Staging)) {
        change(&mut self.memory().staging);
    }

    /// What an administrator should know, each with what it is about ([`Status::topics`](api::Status::topics)).
    #[must_use]
    pub fn warnings(&self) -> Vec<(String, String)> {
        let memory = self.memory();
        let held_up = memory.held_up.iter();
        let held_up = held_up.map(|(what, text)| ((*what).to_owned(), text.clone()));
        let undelivered = memory.undelivered.values().map(|it| {
            let age = Duration::from_millis(self.now().0.saturating_sub(it.since_ms));
            let text = format!(
                "{} notices wait for {}, the oldest for {}: {}; `journalctl -u slotd -u slot-notify@{}` says more",
                it.many,
                it.place,
                tell::span(age),
                it.why,
                self.app.name
            );
            (NOTICES.to_owned(), text)
        });
        let known = memory.warnings.iter().cloned().chain(held_up);
        known.chain(undelivered).collect()
    }

    /// Tells an administrator what cannot be done, once and in every status until it can.
    pub(super) fn hold_up(&self, what: &'static str, text: String) {
        let mut memory = self.memory();
        if memory.held_up.get(what) != Some(&text) {
            tracing::error!(
                message_id = message::of("held-up", what),
                slot_app = self.app.name.as_str(),
                "{text}"
            );
            memory.held_up.insert(what, text);
        }
    }

    /// Says whether a receiver of notices gets them; what is the same as before is logged once.
    pub(super) fn tell_undelivered(&self, key: &str, undelivered: Option<Undelivered>) {
        let app = self.app.name.as_str();
        let mut memory = self.memory();
        let Some(now) = undelivered else {
            if let Some(before) = memory.undelivered.remove(key) {
                tracing::info!(slot_app = app, "{} gets its notices again", before.place);
            }
            return;
        };
        if memory
            .undelivered
            .get(key)
            .is_none_or(|it| it.why != now.why)
        {
            let (place, why) = (&now.place, &now.why);
            tracing::warn!(
                slot_app = app,
                "{place} does not get its notices: {why}; they are sent again"
            );
        }
        memory.undelivered.insert(key.to_owned(), now);
    }

    /// It can be done.
    pub(super) fn go_on(&self, what: &'static str) {
        self.memory().held_up.remove(what);
    }

    /// Tells an administrator something that stays true until slotd restarts; its `topic` may be explained ([`message`]).
    pub fn keep_warning(&self, topic: &str, text: String) {
        tracing::error!(
            message_id = message::id(topic),
            slot_app = self.app.name.as_str(),
            "{text}"
        );
        self.memory().warnings.push((topic.to_owned(), text));
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What is behind the lock is for people only; a panic elsewhere does not make it wrong.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what a notice means for the attempt under way; gives its outcome when it ended.
    async fn remember(&self, notice: &Notice, state: &State, at: Time) {
        match notice {
            Notice::Began { .. } => {
                let mut memory = self.memory();
                memory.candidate = None;
                memory.step = None;
                memory.said = None;
            }
            Notice::Phase { slot, .. } => {
                let slot = slot.as_ref().and_then(|slot| state.slots.get(slot));
                if let Some(boot) = slot.and_then(|slot| slot.boot.clone()) {
                    self.memory().candidate = Some(boot);
                }
            }
            Notice::Ended(outcome) => {
                let outcome = self.outcome_of(outcome, state, at).await;
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
                let success = matches!(
                    cause,
                    Cause::Soaked | Cause::Superseded | Cause::OldSlotGone
                );
                self.remember_watch(generation.0, success, cause.code(), text);
            }
            Notice::RolledBack(back) => {
                // Of a newer attempt's candidate there is nothing to tell here.
                let boot = self.memory().candidate.clone();
                let boot = boot.filter(|_| state.generation == back.generation);
                let report = self.report(&back.from, boot.as_ref(), &back.cause).await;
                let mut memory = self.memory();
                let mut known = memory.outcomes.iter_mut();
                if let Some(known) = known.find(|known| known.generation == back.generation.0) {
                    known.report = Some(report);
                }
            }
            Notice::Hooked { occasion, failure } => {
                let text = tell::hooked(occasion, failure.as_ref());
                let held_up = &mut self.memory().held_up;
                match failure {
                    Some(_) => held_up.insert(HOOK, text),
                    None => held_up.remove(HOOK),
                };
            }
            Notice::Failing { .. }
            | Notice::Returned(_)
            | Notice::Weighed { .. }
            | Notice::Holds { .. }
            | Notice::Draining { .. }
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

    async fn outcome_of(&self, outcome: &Outcome, state: &State, at: Time) -> api::Outcome {
        let mut told = tell::outcome(&self.app, outcome);
        if let PREPARING | READY = outcome.phase {
            let step = self.step_in(outcome.phase, outcome.generation);
            step.clone_into(&mut told.phase);
        }
        if let Cause::Unbuilt(_) | Cause::Unprepared(_) | Cause::Unhooked(..) = &outcome.cause {
            let said = self.memory().said.take();
            let said = said.filter(|(of, _)| *of == outcome.generation);
            told.report = said.map(|(_, report)| shown(report));
        }
        if let Cause::NoIdleSlot { holder, .. } = &outcome.cause {
            told.text = self.no_idle_slot(holder, state, at).await;
        }
        // Of what somebody took back there is no failure to tell.
        let failed = !told.success && !matches!(outcome.cause, Cause::Aborted(_));
        let unsaid = failed && told.report.is_none();
        if let Some(slot) = outcome.slot.as_ref().filter(|_| unsaid) {
            let boot = self.memory().candidate.clone();
            let boot = boot.or_else(|| state.slots.get(slot)?.boot.clone());
            told.report = Some(self.report(slot, boot.as_ref(), &outcome.cause).await);
        }
        told
    }

    /// Who holds the slot that was waited for, what it still does, and the ways out.
    async fn no_idle_slot(&self, holder: &SlotName, state: &State, at: Time) -> String {
        let held = state.slots.get(holder);
        let boot = held.and_then(|slot| slot.boot.as_ref());
        let condition = held.map_or("in use", |slot| slot.condition.name());
        if state.lingering.contains(holder) {
            return format!(
                "no slot became idle in time: the routers may still send requests to {holder}, because they do not have the last table yet; `slotctl status` says why"
            );
        }
        let busy = match self.in_flight(holder, boot).await {
            Some(held) if held.total() > 0 => format!(
                " and has {} requests, {} streams and {} tunnels in flight",
                held.requests, held.streams, held.tunnels
            ),
            _ => String::new(),
        };
        let until = match held.map(|slot| &slot.condition) {
            Some(Condition::Draining { until, .. } | Condition::Warm { drain: until, .. }) => {
                match until.last() {
                    Some(until) => format!(", for {} at most", tell::span(until.since(at))),
                    None => ", however long they take".to_owned(),
                }
            }
            _ => String::new(),
        };
        let way_out = match held.map(|slot| &slot.condition) {
            Some(Condition::Standby { .. } | Condition::Trial { .. }) => {
                format!(
                    "make it active (`slotctl promote {holder}`), stop it (`slotctl stop {holder}`)"
                )
            }
            Some(Condition::Warm { .. } | Condition::Draining { .. }) => {
                format!(
                    "wait for it (`slotctl deploy --queue 10m` does), cut it now (`slotctl drain --now {holder}`)"
                )
            }
            _ => "wait for it (`slotctl deploy --queue 10m` does)".to_owned(),
        };
        format!(
            "no slot became idle in time: {holder} is {condition}{busy}{until}. The ways out: {way_out}, or give the app \
             a third slot (`slots` in its file)"
        )
    }

    /// What is in flight at a run of a slot, over all routers; `None` when one does not answer.
    pub async fn in_flight(&self, slot: &SlotName, boot: Option<&BootId>) -> Option<InFlight> {
        let stats = self.tables.routers().stats().await.ok()?;
        let stats = stats.into_iter().map(|(_, stats)| stats);
        let stats: Vec<Stats> = stats.collect::<Result<_, _>>().ok()?;
        Some(self.sum(&stats, slot, boot))
    }

    /// What is in flight at a run of a slot, out of what all routers say.
    pub(super) fn sum(&self, stats: &[Stats], slot: &SlotName, boot: Option<&BootId>) -> InFlight {
        let runs = stats.iter().flat_map(|stats| &stats.slots).filter(|run| {
            run.app == self.app.name.as_str()
                && run.slot == slot.as_str()
                && (boot.is_none() || run.boot_id.as_deref() == boot.map(BootId::as_str))
        });
        runs.map(|run| run.in_flight).sum()
    }

    async fn report(&self, slot: &SlotName, boot: Option<&BootId>, cause: &Cause) -> api::Report {
        let found = tokio::time::timeout(REPORT_LIMIT, self.units.report(slot, boot))
            .await
            .unwrap_or_else(|_| Report {
                unit: self.units.unit(slot),
                ..Report::default()
            });
        let probe = match cause {
            Cause::HealthTimeout(Some(probe)) | Cause::ProbesFailed(probe) => {
                Some(probe.text.clone())
            }
            _ => None,
        };
        api::Report {
            probe,
            expected: Some(self.units.upstream(slot)),
            ..shown(found)
        }
    }

    fn log(&self, event: &api::Event) {
        let bad = matches!(
            event.event.as_str(),
            "rolled-back" | "forced" | "down" | "failing"
        ) || (event.event == "ended"
            && !matches!(
                event.cause.as_deref(),
                Some("switched" | "already-live" | "left")
            ))
            || (event.event == "hook" && event.cause.is_some());
        let known = event.standing.as_deref();
        let active = known.and_then(|it| it.active.as_ref());
        let candidate = known.and_then(|it| it.candidate.as_ref());
        let old = known.and_then(|it| it.old.as_ref());
        let slot = |run: Option<&'_ api::Run>| run.map(|run| run.slot.clone());
        let release = |run: Option<&'_ api::Run>| run.and_then(|run| run.release.clone());
        let boot = |run: Option<&'_ api::Run>| run.and_then(|run| run.boot_id.clone());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    message_id = message::of_event(&event.event, event.cause.as_deref()),
                    slot_app = event.app.as_str(),
                    slot_name = event.slot.as_deref(),
                    slot_release = event.release.as_deref(),
                    slot_generation = event.generation,
                    slot_phase = event.phase.as_deref(),
                    slot_cause = event.cause.as_deref(),
                    slot_state = known.map(|it| it.state.as_str()),
                    slot_active = slot(active),
                    slot_active_release = release(active),
                    slot_active_boot_id = boot(active),
                    slot_candidate = slot(candidate),
                    slot_candidate_release = release(candidate),
                    slot_candidate_boot_id = boot(candidate),
                    slot_old = slot(old),
                    slot_old_release = release(old),
                    slot_old_boot_id = boot(old),
                    slot_switched_at_ms = known.and_then(|it| it.switched_at_ms),
                    slot_health_fail_streak = known.map(|it| it.health_fail_streak),
                    slot_rollback_cause = known.and_then(|it| it.rollback_cause.as_deref()),
                    slot_rollback_at_ms = known.and_then(|it| it.rollback_at_ms),
                    slot_initiated_by = known.and_then(|it| it.initiated_by.as_deref()),
                    slot_commit = known.and_then(|it| it.commit.as_deref()),
                    slot_previous_commit = known.and_then(|it| it.previous_commit.as_deref()),
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
            "ended"
                | "soak"
                | "rolled-back"
                | "returned"
                | "failing"
                | "forced"
                | "weighed"
                | "holds"
                | "hook"
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

    /// Of an attempt that has ended, what is remembered says more than the state.
    fn tell_remembered(&self, event: &mut api::Event, notice: &Notice) {
        if let Notice::Ended(_) = notice
            && let Some(outcome) = self.outcome(event.generation)
        {
            event.phase = Some(outcome.phase);
            event.slot = outcome.slot;
            event.text = outcome.text;
        }
    }

    /// What somebody elsewhere is told: the same as anybody here.
    pub(super) fn event_of_tiding(&self, tiding: &Tiding) -> api::Event {
        let then = State::new(settings(&self.app));
        let mut event = tell::event(&self.app, &tiding.notice, &then, tiding.at);
        event.generation = tiding.generation.0;
        event.release = event
            .release
            .or_else(|| tiding.release.as_ref().map(ToString::to_string));
        self.tell_remembered(&mut event, &tiding.notice);
        event
    }

    /// Remembers, logs, keeps and broadcasts one notice.
    pub(super) async fn tell_one(&self, notice: &Notice, state: &State) {
        let at = self.now();
        let mut event = tell::event(&self.app, notice, state, at);
        event.standing = Some(Box::new(self.standing(state).await));
        self.remember(notice, state, at).await;
        self.tell_remembered(&mut event, notice);
        self.log(&event);
        self.keep(&event);
        // Nobody may be listening.
        let _ = self.told.send(event);
    }
}

fn shown(found: Report) -> api::Report {
    api::Report {
        unit: found.unit,
        result: found.result,
        exit: found.exit,
        status_text: found.status_text,
        probe: None,
        log: found.log,
        listens: found.listens,
        expected: None,
        journal: found.journal,
    }
}
