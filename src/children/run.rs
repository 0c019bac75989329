//! What is remembered of one run of a child.
//!
//! **Invariant:** bounded: the last [`LINES`] lines of at most [`LINE`] bytes each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::deploy::{BootId, UnitFailure};

/// How many lines of output are kept.
pub(super) const LINES: usize = 20;

/// How long a line may be, in bytes, before it is taken for two.
pub(super) const LINE: usize = 4096;

/// One run, as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which run.
    pub boot: BootId,
    /// Its last `STATUS=`.
    pub status: Option<String>,
    /// How it ended, if it did by itself or was too late.
    pub failure: Option<UnitFailure>,
    /// The last lines of its output, oldest first.
    pub log: VecDeque<String>,
}

/// A record that is still being written: by the supervisor, and by the readers of both outputs.
#[derive(Clone, Debug)]
pub(super) struct Run(Arc<Mutex<Record>>);

impl Run {
    pub(super) fn new(boot: BootId) -> Self {
        Self(Arc::new(Mutex::new(Record {
            boot,
            status: None,
            failure: None,
            log: VecDeque::with_capacity(LINES),
        })))
    }

    /// A copy of what is known now.
    pub(super) fn record(&self) -> Record {
        self.lock().clone()
    }

    pub(super) fn said(&self, status: String) {
        self.lock().status = Some(status);
    }

    pub(super) fn failed(&self, failure: &UnitFailure) {
        self.lock().failure = Some(failure.clone());
    }

    pub(super) fn logged(&self, line: String) {
        let log = &mut self.lock().log;
        if log.len() == LINES {
            log.pop_front();
        }
        log.push_back(line);
    }

    /// Nothing panics while it holds the lock, and a record is whole after each change.
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
