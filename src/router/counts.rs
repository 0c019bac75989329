//! What is under way and what was answered, per run of a slot.
//!
//! Each thread counts in its own cache lines, and only it writes there; readers add them up. So
//! counting costs no more than a store.
//!
//! **Invariant:** once every thread has taken a table, the sum of a run that the table gives no
//! requests only falls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::owned::Owned;
use crate::wire::control::{InFlight, SlotStats};
use crate::wire::histogram::{self, BUCKETS, Histogram};

/// What a run of a slot is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunName {
    /// The app.
    pub app: String,
    /// The slot.
    pub slot: String,
    /// The run.
    pub boot_id: Option<String>,
}

/// What kind of request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An ordinary one.
    Request,
    /// An answer without an end of its own.
    Stream,
    /// An upgraded connection.
    Tunnel,
}

impl Class {
    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stream => "stream",
            Self::Tunnel => "tunnel",
        }
    }
}

/// One thread's share. Two cache lines, as processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Share {
    in_flight: [AtomicU64; 3],
    answers: [AtomicU64; 5],
    errors: AtomicU64,
    given_up: AtomicU64,
    /// Made with the first answer: of many apps few are busy, on few threads.
    latencies: OnceLock<Box<[AtomicU64; BUCKETS]>>,
}

/// Adds to a counter that only this thread writes.
pub(super) fn add(counter: &AtomicU64, change: i64) {
    let value = counter.load(Ordering::Relaxed).wrapping_add_signed(change);
    counter.store(value, Ordering::Release);
}

impl Share {
    /// One more of `class` is under way, or one less.
    pub fn under_way(&self, class: Class, change: i64) {
        add(&self.in_flight[class as usize], change);
    }

    /// The slot answered.
    pub fn answered(&self, status: u16) {
        add(&self.answers[usize::from(status / 100).clamp(1, 5) - 1], 1);
    }

    /// The head of an answer came so many microseconds after the request was the run's.
    pub fn took(&self, micros: u64) {
        let none = || Box::new([const { AtomicU64::new(0) }; BUCKETS]);
        let latencies = self.latencies.get_or_init(none);
        add(&latencies[histogram::bucket(micros)], 1);
    }

    /// The slot did not answer.
    pub fn failed(&self) {
        add(&self.errors, 1);
    }

    /// A client has left before the slot answered; or one of those has its answer, or its error, after all.
    pub fn given_up(&self, change: i64) {
        add(&self.given_up, change);
    }
}

/// The counts of one run.
#[derive(Debug)]
pub struct Counts {
    /// Whose they are.
    pub name: RunName,
    shares: Box<[Share]>,
}

impl Counts {
    /// Zeroes, for this many threads.
    pub fn new(name: RunName, threads: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            shares: (0..threads).map(|_| Share::default()).collect(),
        })
    }

    /// The share of thread number `thread`.
    pub fn share(&self, thread: usize) -> &Share {
        &self.shares[thread]
    }

    /// What is under way in all threads.
    pub fn in_flight(&self) -> InFlight {
        let sum = |class: Class| {
            self.shares
                .iter()
                .map(|s| s.in_flight[class as usize].load(Ordering::Acquire))
                .fold(0, u64::wrapping_add)
        };
        InFlight {
            requests: sum(Class::Request),
            streams: sum(Class::Stream),
            tunnels: sum(Class::Tunnel),
        }
    }

    /// Everything but the latencies.
    pub fn stats(&self) -> SlotStats {
        let sum = |get: &dyn Fn(&Share) -> &AtomicU64| {
            self.shares
                .iter()
                .map(|s| get(s).load(Ordering::Relaxed))
                .sum()
        };
        SlotStats {
            app: self.name.app.clone(),
            slot: self.name.slot.clone(),
            boot_id: self.name.boot_id.clone(),
            in_flight: self.in_flight(),
            answers: std::array::from_fn(|class| sum(&|s| &s.answers[class])),
            errors: sum(&|s| &s.errors),
            given_up: sum(&|s| &s.given_up),
            latencies: Histogram::default(),
        }
    }

    /// Everything.
    pub fn figures(&self) -> SlotStats {
        let mut stats = self.stats();
        for share in self.shares.iter().filter_map(|s| s.latencies.get()) {
            for (bucket, count) in share.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                stats.latencies.add(bucket, count);
            }
        }
        stats
    }
}

/// One thread's own gauges.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauges {
    connections: AtomicU64,
    held: AtomicU64,
    /// What it owns, by which it also counts.
    pub(super) owned: Arc<Owned>,
}

/// Instead of a count of connections: the thread has ended.
const ENDED: u64 = u64::MAX;

impl Gauges {
    /// A connection came or went: the only count that another thread may change.
    pub fn connection(&self, change: i64) {
        self.connections
            .fetch_add(change.cast_unsigned(), Ordering::AcqRel);
    }

    /// Counts a connection that is handed to this thread; false if it has ended and takes none.
    pub fn hand_over(&self) -> bool {
        let one_more = |count| (count != ENDED).then(|| count + 1);
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
    }

    /// Ends the thread if it has no connection, also none on its way here; false if it has.
    pub fn end(&self) -> bool {
        self.connections
            .compare_exchange(0, ENDED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// A request began or ended to wait; returns how many wait.
    pub fn hold(&self, change: i64) -> u64 {
        add(&self.held, change);
        self.held()
    }

    /// Open client connections.
    pub fn connections(&self) -> u64 {
        match self.connections.load(Ordering::Acquire) {
            ENDED => 0,
            count => count,
        }
    }

    /// Held requests.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}
