//! Who changes an app's directory, and whose word is the last.
//!
//! What the owner of an app demands is done on threads that may block, and to give such a demand up does not stop its thread: a symlink
//! that was decided on earlier may be set later, a release may be removed while it is uploaded again, and an upload that nobody waits
//! for may still be read. So whoever changes the directory does it here, one after the other, and each symlink remembers the latest
//! [`Turn`] that set it.
//!
//! The order is kept in memory: a directory belongs to one process, and a lock file or a lock on the directory itself could be held by
//! whoever may open it.
//!
//! **Invariant:** nothing that takes as long as an upload or the removal of a tree is done here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Root;
use crate::deploy::ReleaseId;

/// A place in the order of all that is decided on. It is taken where something is decided, not where it is done: what was decided
/// earlier then does nothing when it comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u64);

impl Turn {
    /// After every turn that was taken before.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // One counter has one order of changes, whatever the ordering with other memory.
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A number that no other turn of this process has.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

/// What is remembered of an app's directory.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The latest turn in which each symlink was set.
    pub set: BTreeMap<String, Turn>,
    /// What a deployment took last, until a symlink names it: it is about to be started, and no state names it yet.
    pub uploaded: Option<ReleaseId>,
    /// The same of a rollback that named a release.
    pub chosen: Option<ReleaseId>,
    /// The directories in `releases` that are somebody's and no releases yet, by the turn in which each came there.
    pub unfinished: BTreeMap<ReleaseId, Turn>,
}

/// Does something to an app's directory while nobody else in this process does.
pub(super) fn alone<T>(root: &Root, work: impl FnOnce(&mut Ledger) -> T) -> T {
    // One entry for each app that ever was: its directory is named the same way by everybody.
    static LEDGERS: Mutex<BTreeMap<PathBuf, Arc<Mutex<Ledger>>>> = Mutex::new(BTreeMap::new());
    let ledger = {
        let mut ledgers = LEDGERS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(ledgers.entry(root.to_path_buf()).or_default())
    };
    // Whatever a panic interrupted is on disk as after a crash, which everything here copes with.
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    work(&mut ledger)
}
