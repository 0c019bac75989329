//! One slot's child, as its owner sees it: start, stop, look.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::Pid;
use tokio::sync::{Notify, watch};

use super::program::Program;
use super::run::{Record, Run};
use super::supervise::{Supervisor, Told, Want};
use crate::deploy::{AppName, BootId, SlotName, UnitFailure};

/// How far a child is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing runs and nothing is wanted to.
    Stopped,
    /// It was executed and has not said READY=1 yet.
    Starting(BootId),
    /// It is up.
    Up(BootId),
    /// It was sent SIGTERM.
    Stopping(BootId),
    /// It ended by itself, and is executed again after a second, if it is to be ([`Program::restart`]).
    Ended(UnitFailure),
}

/// What is known of a child.
#[derive(Clone, Debug)]
pub struct Status {
    /// How far it is.
    pub phase: Phase,
    /// The process group of the run, while there is one.
    pub group: Option<Pid>,
    /// The number of the last want that the supervisor acts upon.
    pub(super) handled: u64,
    /// How often it was executed again by itself since it was started.
    pub(super) restarts: u32,
    /// The last stop took SIGKILL.
    pub(super) killed: bool,
    /// The last runs, oldest first.
    pub(super) runs: VecDeque<Run>,
}

/// A supervised program. Dropping it kills what runs.
#[derive(Debug)]
pub struct Child {
    want: watch::Sender<Want>,
    status: watch::Receiver<Status>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl Child {
    /// A child that is stopped. `run` is a directory for its sockets, made when it is not there; `changes` is told of each change.
    #[must_use]
    pub fn new(app: AppName, slot: SlotName, run: PathBuf, changes: Arc<Changes>) -> Self {
        let (want, wanted) = watch::channel(Want::default());
        let (told, status) = watch::channel(Status {
            phase: Phase::Stopped,
            group: None,
            handled: 0,
            restarts: 0,
            killed: false,
            runs: VecDeque::new(),
        });
        let supervisor = Supervisor {
            app,
            run,
            wanted,
            told: Told {
                slot,
                status: told,
                changes,
            },
        };
        Self {
            want,
            status,
            supervisor: tokio::spawn(supervisor.supervise()),
        }
    }

    /// Starts the program unless it is up already, and waits until it is up. One that waits to be executed again is executed at once.
    ///
    /// # Errors
    /// How the run ended instead; it is executed again after a second all the same, until it is stopped.
    pub async fn start(&self, program: Program) -> Result<BootId, UnitFailure> {
        let mut status = self.status.clone();
        let coming = matches!(status.borrow().phase, Phase::Starting(_) | Phase::Up(_));
        self.want.send_modify(|want| {
            if want.program.is_none() || !coming {
                want.serial += 1;
                want.program = Some(Arc::new(program));
            }
        });
        let serial = self.want.borrow().serial;
        let status = status
            .wait_for(|status| {
                status.handled >= serial && !matches!(status.phase, Phase::Starting(_))
            })
            .await;
        let failed = |text: &str| UnitFailure {
            result: "canceled".into(),
            text: text.to_owned(),
        };
        match status.as_deref().map(|status| &status.phase) {
            Ok(Phase::Up(boot)) => Ok(boot.clone()),
            Ok(Phase::Ended(failure)) => Err(failure.clone()),
            Ok(Phase::Stopped | Phase::Stopping(_) | Phase::Starting(_)) => {
                Err(failed("was stopped while it started"))
            }
            Err(_) => Err(failed("the deployer is ending")),
        }
    }

    /// Stops the child: SIGTERM to the main process, after the program's stop limit SIGKILL to the whole group, which is what processes get at once that
    /// the main process leaves behind. Returns when all of that is done; true if the main process took SIGKILL.
    pub async fn stop(&self) -> bool {
        let mut status = self.status.clone();
        self.want.send_modify(|want| {
            if want.program.take().is_some() {
                want.serial += 1;
            }
        });
        let serial = self.want.borrow().serial;
        let stopped = status
            .wait_for(|status| {
                let stopped = status.handled == serial && status.phase == Phase::Stopped;
                stopped || status.handled > serial
            })
            .await;
        stopped.is_ok_and(|status| status.killed)
    }

    /// How far it is now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status.borrow().phase.clone()
    }

    /// How often it was executed again by itself since it was started.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.status.borrow().restarts
    }

    /// The process group of the run, while there is one.
    #[must_use]
    pub fn group(&self) -> Option<Pid> {
        self.status.borrow().group
    }

    /// What is known of a run, the last one if none is named. Old runs are forgotten.
    #[must_use]
    pub fn record(&self, boot: Option<&BootId>) -> Option<Record> {
        let runs = &self.status.borrow().runs;
        let mut records = runs.iter().rev().map(Run::record);
        match boot {
            Some(boot) => records.find(|record| record.boot == *boot),
            None => records.next(),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// The slots whose children have changed since somebody asked.
#[derive(Debug, Default)]
pub struct Changes {
    slots: Mutex<BTreeSet<SlotName>>,
    wake: Notify,
}

impl Changes {
    /// Waits for a change. One task at a time may wait; what it is told, it has to look at.
    pub async fn next(&self) -> SlotName {
        loop {
            if let Some(slot) = self.lock().pop_first() {
                return slot;
            }
            // A change between the look and this wait has left a permit.
            self.wake.notified().await;
        }
    }

    pub(super) fn tell(&self, slot: &SlotName) {
        self.lock().insert(slot.clone());
        self.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<SlotName>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
