//! The one owner of the table: takes a new one, hands it to every thread, adds up what they count.
//!
//! **Invariant:** a table is in force only when every thread has taken it, and only then is it said to be.
//!
//! **Invariant:** revisions never go back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::counts::{Counts, RunName};
use super::label::Draining;
use super::load;
use super::roll::{Cut, Whose};
use super::table::TableError;
use super::worker::{Command, Shared};
use crate::wire::control::{InFlight, Listing, Stats};
use crate::wire::table::{App, Table};

/// Why a table was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It makes no sense; nothing has changed.
    #[error(transparent)]
    Invalid(#[from] TableError),
    /// The router has a newer one.
    #[error("the router has revision {0}, which is newer")]
    Older(u64),
    /// The router is ending.
    #[error("the router is ending")]
    Ending,
}

#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    counts: HashMap<RunName, Arc<Counts>>,
}

impl State {
    /// Forgets runs that the table does not name and that have nothing under way.
    fn tidy(&mut self) {
        let Some(table) = &self.table else {
            return;
        };
        let named = |run: &RunName| {
            table.apps.iter().any(|a| {
                a.name == run.app
                    && a.slots
                        .iter()
                        .any(|s| s.name == run.slot && s.boot_id == run.boot_id)
            })
        };
        self.counts
            .retain(|run, counts| counts.in_flight().total() > 0 || named(run));
    }
}

/// Logs, under an app's name, where its new requests go from now on, if that is not where they went.
fn tell_changes(old: Option<&Table>, new: &Table) {
    let weighed = |app: &App| -> Vec<(String, u8, bool)> {
        let weighed = app.slots.iter().filter(|slot| slot.weight > 0);
        weighed
            .map(|slot| (slot.name.clone(), slot.weight, slot.ready))
            .collect()
    };
    for app in &new.apps {
        let before = old.and_then(|old| old.apps.iter().find(|before| before.name == app.name));
        let now = weighed(app);
        if before.map(weighed).as_ref() == Some(&now) {
            continue;
        }
        for (slot, weight, ready) in now {
            let what = if ready { "go to" } else { "are held for" };
            tracing::info!(
                slot_app = app.name,
                slot_name = slot,
                slot_generation = app.generation,
                weight,
                "new requests of {} {what} {slot}",
                app.name
            );
        }
    }
}

/// The router as those see it who steer it. Clones are of the same router.
#[derive(Clone, Debug)]
pub struct Control {
    state: Arc<Mutex<State>>,
    shared: Arc<Shared>,
    threads: Arc<[mpsc::UnboundedSender<Command>]>,
    accepting: Arc<AtomicBool>,
    /// When a drain ends, whatever is open then.
    until: watch::Sender<Option<Until>>,
    since: SystemTime,
}

/// A moment, in milliseconds since the epoch: it means the same to the process that comes after this one.
pub type Until = u64;

/// From the epoch to a moment.
pub(super) fn since_epoch(moment: SystemTime) -> Duration {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// While someone waits for a drain, counts are looked at this often.
const LOOK: Duration = Duration::from_millis(5);

impl Control {
    /// `counts` are those of what was left by the process before this one, which was told to drain if this is `draining`.
    pub(super) fn new(
        shared: Arc<Shared>,
        threads: Vec<mpsc::UnboundedSender<Command>>,
        counts: HashMap<RunName, Arc<Counts>>,
        draining: Option<Draining>,
    ) -> Self {
        let state = State {
            table: None,
            counts,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            shared,
            threads: threads.into(),
            accepting: Arc::new(AtomicBool::new(draining.is_none())),
            until: watch::Sender::new(draining.and_then(|it| it.until)),
            since: SystemTime::now(),
        }
    }

    /// Takes `table` and returns its revision once every thread uses it. One of the same revision is
    /// taken again.
    ///
    /// # Errors
    /// It makes no sense or is older; then nothing has changed.
    pub async fn put(&self, table: Table) -> Result<u64, PutError> {
        let mut state = self.state.lock().await;
        if let Some(own) = &state.table
            && own.revision > table.revision
        {
            return Err(PutError::Older(own.revision));
        }
        let compiled = Arc::new(load::compile(
            &table,
            &self.shared.listeners,
            &self.shared.limits,
        )?);
        let counts = compiled.apps().iter().map(|app| {
            let slots = app.slots.iter().map(|slot| {
                let name = RunName {
                    app: app.name.clone(),
                    slot: slot.name.clone(),
                    boot_id: slot.boot_id.clone(),
                };
                let counts = state.counts.entry(name.clone());
                Arc::clone(counts.or_insert_with(|| Counts::new(name, self.threads.len())))
            });
            slots.collect()
        });
        let counts: Arc<Vec<Vec<_>>> = Arc::new(counts.collect());
        let mut taken = Vec::with_capacity(self.threads.len());
        for thread in self.threads.iter() {
            let (done, ack) = oneshot::channel();
            let swap = Command::Swap(Arc::clone(&compiled), Arc::clone(&counts), done);
            // A thread that has drained and ended serves nobody by the old table.
            if thread.send(swap).is_ok() {
                taken.push(ack);
            }
        }
        let mut any = false;
        for ack in taken {
            any |= ack.await.is_ok();
        }
        let revision = table.revision;
        tell_changes(state.table.as_ref(), &table);
        state.table = Some(table);
        state.tidy();
        tracing::info!(
            "table {revision} taken, with {} apps",
            compiled.apps().len()
        );
        if any {
            Ok(revision)
        } else {
            Err(PutError::Ending)
        }
    }

    /// The table in force.
    pub async fn table(&self) -> Option<Table> {
        self.state.lock().await.table.clone()
    }

    /// Everything that is counted, but for latencies.
    pub async fn stats(&self) -> Stats {
        self.stats_of(None).await
    }

    /// As [`Self::stats`], of one app's slots with their latencies, if one is named.
    pub async fn stats_of(&self, app: Option<&str>) -> Stats {
        let mut state = self.state.lock().await;
        state.tidy();
        let all = state.counts.values();
        let mut slots: Vec<_> = match app {
            None => all.map(|c| c.stats()).collect(),
            Some(app) => all
                .filter(|c| c.name.app == app)
                .map(|c| c.figures())
                .collect(),
        };
        slots.sort_by(|a, b| (&a.app, &a.slot, &a.boot_id).cmp(&(&b.app, &b.slot, &b.boot_id)));
        Stats {
            revision: state.table.as_ref().map(|t| t.revision),
            listeners: self.shared.addresses(),
            accepting: self.accepting.load(Ordering::Relaxed),
            since_ms: since_epoch(self.since).as_millis() as u64,
            drain_until_ms: *self.until.borrow(),
            problem: self.shared.problem.clone(),
            connections: self.shared.gauges.iter().map(|g| g.connections()).sum(),
            held: self.shared.gauges.iter().map(|g| g.held()).sum(),
            unkept: self.shared.unkept.load(Ordering::Relaxed),
            descriptors: self
                .shared
                .gauges
                .iter()
                .map(|g| g.owned.descriptors())
                .sum(),
            buffer_bytes: self.shared.gauges.iter().map(|g| g.owned.bytes()).sum(),
            slots,
        }
    }

    /// What is under way at a slot, or at one run of it.
    pub async fn in_flight(&self, app: &str, slot: &str, boot_id: Option<&str>) -> InFlight {
        let state = self.state.lock().await;
        let runs = state.counts.values().filter(|counts| {
            let name = &counts.name;
            name.app == app
                && name.slot == slot
                && (boot_id.is_none() || name.boot_id.as_deref() == boot_id)
        });
        runs.map(|counts| counts.in_flight()).sum()
    }

    /// As [`Self::in_flight`], once that is nothing or after `wait`.
    pub async fn drained(
        &self,
        app: &str,
        slot: &str,
        boot_id: Option<&str>,
        wait: Duration,
    ) -> InFlight {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let in_flight = self.in_flight(app, slot, boot_id).await;
            if in_flight.total() == 0 || tokio::time::Instant::now() >= deadline {
                return in_flight;
            }
            tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + LOOK)).await;
        }
    }

    /// Stops accepting; the router ends when its last connection has.
    pub fn drain(&self) {
        if self.accepting.swap(false, Ordering::Relaxed) {
            tracing::info!("stopped accepting, draining");
        }
        for thread in self.threads.iter() {
            // Fails for one that has ended, which is what it was to do.
            _ = thread.send(Command::Drain);
        }
    }

    /// As [`Self::drain`], with an end: what is open then is closed.
    pub fn drain_until(&self, until: Option<Until>) {
        self.until.send_replace(until);
        self.drain();
    }

    /// What it was told of a drain, if it was.
    pub(super) fn draining(&self) -> Option<Draining> {
        let until = *self.until.borrow();
        (!self.accepting.load(Ordering::Relaxed)).then_some(Draining { until })
    }

    /// Ends the router when its drain is to be over; never returns before.
    pub(super) async fn end_in_time(&self) {
        let mut changes = self.until.subscribe();
        loop {
            let until = *changes.borrow_and_update();
            let left = until
                .map(|at| Duration::from_millis(at).saturating_sub(since_epoch(SystemTime::now())));
            tokio::select! {
                // The sender is ours.
                _ = changes.changed() => {}
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => break,
            }
        }
        let stats = self.stats().await;
        tracing::warn!(
            "the drain's limit has passed; closing what is left, {} connections",
            stats.connections
        );
        for thread in self.threads.iter() {
            _ = thread.send(Command::End);
        }
    }

    /// What is under way at a slot, in all threads.
    pub async fn connections(&self, whose: &Whose) -> Listing {
        let mut all = Listing::default();
        for thread in self.threads.iter() {
            let (listed, list) = oneshot::channel();
            if thread.send(Command::List(whose.clone(), listed)).is_ok() {
                all.add(list.await.unwrap_or_default());
            }
        }
        all
    }

    /// Has something that is under way end.
    pub fn cut(&self, cut: &Cut) {
        for thread in self.threads.iter() {
            _ = thread.send(Command::Cut(cut.clone()));
        }
    }

    /// True if every thread that has not ended answers.
    pub async fn is_alive(&self) -> bool {
        for thread in self.threads.iter() {
            let (alive, ack) = oneshot::channel();
            if thread.send(Command::Ping(alive)).is_ok()
                && ack.await.is_err()
                && !thread.is_closed()
            {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::worker::tests::shared;
    use super::*;

    #[tokio::test]
    async fn one_that_comes_back_while_it_drains_never_says_that_it_accepts() {
        let (thread, _told) = mpsc::unbounded_channel();
        let control = |draining| {
            let threads = vec![thread.clone()];
            Control::new(shared(&thread), threads, HashMap::new(), draining)
        };
        let draining = Draining { until: Some(7) };
        let said = control(Some(draining)).stats().await;
        assert_eq!((said.accepting, said.drain_until_ms), (false, Some(7)));
        assert!(control(None).stats().await.accepting);
    }
}
