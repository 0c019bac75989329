//! The task that owns the state of one app.
//!
//! **Invariant:** commit, then act: no effect of a state is performed and no notice of it is told before it is on disk, and the state in
//! memory is always the one on disk.
//! **Invariant:** an event that cannot be committed is not lost: it waits, in order, and is tried again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::world::World;
use crate::deploy::{Effect, Event, Guard, Refusal, State, Step, effects, step};

/// How long an event waits for its next try when its state could not be committed.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// Events that may wait for the owner; whoever reports more waits too.
const INBOX: usize = 256;

/// Why somebody's request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A candidate would do harm to what runs.
    #[error("nothing was done, in pre-flight: {0}")]
    Harmful(String),
    /// The release that was named cannot be had.
    #[error(transparent)]
    Release(#[from] crate::release::ReleaseError),
    /// The state that would follow cannot be written, so nothing was done.
    #[error("nothing was done, because the state cannot be written: {0}")]
    NotCommitted(String),
    /// Somebody lets nothing be deployed by itself.
    #[error("nothing was deployed: {0}")]
    Held(String),
    /// What the app's remote has is not known.
    #[error("the remote was not looked at: {0}")]
    Unlooked(String),
    /// The owner has ended: the app was removed, or slotd stops.
    #[error("slotd stops, or does not manage this app any more")]
    Gone,
}

/// Somebody's request and where its answer goes.
struct Ask {
    /// Nothing is asked for but that the state be written once more.
    event: Option<Event>,
    answer: oneshot::Sender<Result<Arc<State>, AskError>>,
}

/// The way to an owner.
#[derive(Clone, Debug)]
pub struct Owner {
    asks: mpsc::Sender<Ask>,
    events: mpsc::Sender<Event>,
    state: watch::Receiver<Arc<State>>,
    end: Arc<Notify>,
}

impl Owner {
    /// Starts to own an app: what the step's state demands is performed from here on.
    pub async fn start<W: World>(world: Arc<W>, first: Step) -> Result<Self, W::Error> {
        world.commit(&first.state).await?;
        world.tell(first.notices, &first.state).await;
        let (events, event_inbox) = mpsc::channel(INBOX);
        let (asks, ask_inbox) = mpsc::channel(INBOX);
        let shared = Arc::new(first.state);
        let (publish, state) = watch::channel(Arc::clone(&shared));
        let task = Task {
            world,
            state: shared,
            publish,
            report: events.clone(),
            running: Vec::new(),
        };
        let end = Arc::new(Notify::new());
        tokio::spawn(task.run(event_inbox, ask_inbox, Arc::clone(&end)));
        Ok(Self {
            asks,
            events,
            state,
            end,
        })
    }

    /// Asks for something; returns the state that followed, which is on disk.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn ask(&self, event: Event) -> Result<Arc<State>, AskError> {
        self.ask_for(Some(event)).await
    }

    /// Has the state written once more, as it is: somebody, or a disk, has lost what was committed.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn rewrite(&self) -> Result<(), AskError> {
        self.ask_for(None).await.map(drop)
    }

    async fn ask_for(&self, event: Option<Event>) -> Result<Arc<State>, AskError> {
        let (answer, answered) = oneshot::channel();
        self.asks
            .send(Ask { event, answer })
            .await
            .map_err(|_| AskError::Gone)?;
        answered.await.map_err(|_| AskError::Gone)?
    }

    /// The same, where the guard admits it: both are decided as one.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn ask_if(&self, guard: Guard, event: Event) -> Result<Arc<State>, AskError> {
        let event = Box::new(event);
        self.ask(Event::Guarded { guard, event }).await
    }

    /// Reports something that happened.
    pub async fn report(&self, event: Event) {
        // An owner that has ended needs no reports.
        let _ = self.events.send(event).await;
    }

    /// The committed state, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Ends the ownership: what is being committed is, every effect is given up where it is, and nothing is stopped.
    pub fn end(&self) {
        self.end.notify_one();
    }

    /// Returns when the ownership has ended: nothing is written any more.
    pub async fn ended(&self) {
        self.asks.closed().await;
    }
}

struct Task<W: World> {
    world: Arc<W>,
    state: Arc<State>,
    publish: watch::Sender<Arc<State>>,
    report: mpsc::Sender<Event>,
    running: Vec<(Effect, Running)>,
}

/// A task that ends with its owner.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<W: World> Task<W> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut asks: mpsc::Receiver<Ask>,
        end: Arc<Notify>,
    ) {
        self.perform(|_| true);
        // What could not be committed waits here; what comes after it waits in its channel.
        let mut delayed: Option<Event> = None;
        loop {
            let wait = match &delayed {
                Some(_) => Some(COMMIT_AGAIN),
                None => self
                    .state
                    .next_deadline()
                    .map(|deadline| deadline.since(self.world.now())),
            };
            let event = tokio::select! {
                biased;
                () = end.notified() => return,
                Some(event) = events.recv(), if delayed.is_none() => event,
                Some(Ask { event, answer }) = asks.recv() => {
                    let taken = match event {
                        Some(event) => self.take(event).await,
                        None => self.commit(&self.state).await,
                    };
                    let taken = taken.map(|()| Arc::clone(&self.state));
                    // Whoever asked may be gone; what was decided stands.
                    let _ = answer.send(taken);
                    continue;
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    delayed.take().unwrap_or(Event::Tick)
                }
                else => return,
            };
            match self.take(event.clone()).await {
                Ok(()) => {}
                Err(AskError::NotCommitted(_)) => delayed = Some(event),
                // Only people are refused, and they are answered above.
                Err(error) => tracing::error!("an event was refused: {error}"),
            }
        }
    }

    /// Decides, commits, tells and performs, in this order.
    async fn take(&mut self, event: Event) -> Result<(), AskError> {
        let next = step(&self.state, event, self.world.now())?;
        if next.state != *self.state {
            self.commit(&next.state).await?;
            self.state = Arc::new(next.state);
        }
        // Traffic does not wait for words: telling may collect the evidence of a failure first.
        self.perform(|effect| matches!(effect, Effect::Route(_)));
        if !next.notices.is_empty() {
            self.world.tell(next.notices, &self.state).await;
        }
        self.publish.send_if_modified(|published| {
            let changed = !Arc::ptr_eq(published, &self.state);
            *published = Arc::clone(&self.state);
            changed
        });
        self.perform(|_| true);
        Ok(())
    }

    async fn commit(&self, state: &State) -> Result<(), AskError> {
        self.world.commit(state).await.map_err(|error| {
            self.world.warn(&error);
            AskError::NotCommitted(crate::telemetry::chain(&error))
        })
    }

    /// Of the effects of a kind, gives up what is not demanded any more, and begins what newly is.
    fn perform(&mut self, kind: fn(&Effect) -> bool) {
        let demanded = effects(&self.state);
        self.running
            .retain(|(effect, _)| !kind(effect) || demanded.contains(effect));
        for effect in demanded.into_iter().filter(kind) {
            if self.running.iter().any(|(running, _)| *running == effect) {
                continue;
            }
            let task = Arc::clone(&self.world).perform(effect.clone(), self.report.clone());
            self.running
                .push((effect, Running(tokio::spawn(task).abort_handle())));
        }
    }
}
