//! What a thread of the router holds because of its clients: descriptors of connections and of the pipes between them, and memory for
//! bytes under way.
//!
//! Whoever leaks one of these leaks it for as long as the process lives, and a router lives for months. So they are counted: the statistics say
//! how many there are, and the tests ask after each router that they started whether all of them are back.
//!
//! **Invariant:** what is counted is a value that lives exactly as long as what it stands for. Nothing is given back by hand, so nothing
//! can be gone and still count, or be there and not.
//!
//! **Invariant:** memory that is kept for whoever comes next does not count: without clients there is none, however many there were. (It is
//! bounded by the number of pieces, see [`super::buffer::Spare`].)

use std::cell::OnceCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counts::add;

/// What one thread owns, which alone writes here.
#[derive(Debug, Default)]
pub struct Owned {
    descriptors: AtomicU64,
    bytes: AtomicU64,
}

thread_local! {
    static HERE: OnceCell<Arc<Owned>> = const { OnceCell::new() };
}

impl Owned {
    /// Has what the current thread owns counted here: once in its life, before it owns anything.
    pub fn is_of_this_thread(self: &Arc<Self>) {
        let first = HERE.with(|here| here.set(Arc::clone(self)));
        debug_assert!(first.is_ok(), "it owned something before");
    }

    /// Descriptors of clients, of upstreams and of pipes.
    pub fn descriptors(&self) -> u64 {
        self.descriptors.load(Ordering::Acquire)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }
}

/// Counts at the current thread; one that is ending, with all that it had, has nobody left to count for.
fn count(of: fn(&Owned) -> &AtomicU64, change: i64) {
    _ = HERE.try_with(|here| add(of(here.get_or_init(Arc::default)), change));
}

/// Keeps a value on the thread at which it counts.
type Here = PhantomData<*const ()>;

/// So many descriptors, for as long as this lives.
#[derive(Debug)]
pub struct Descriptors<const COUNT: i64>(Here);

impl<const COUNT: i64> Descriptors<COUNT> {
    /// They have been opened.
    pub fn new() -> Self {
        count(|owned| &owned.descriptors, COUNT);
        Self(PhantomData)
    }
}

impl<const COUNT: i64> Drop for Descriptors<COUNT> {
    fn drop(&mut self) {
        count(|owned| &owned.descriptors, -COUNT);
    }
}

/// Memory in use; none by default.
#[derive(Debug, Default)]
pub struct Memory(Box<[u8]>, Here);

impl Memory {
    /// Its use begins.
    pub fn new(bytes: Box<[u8]>) -> Self {
        count(|owned| &owned.bytes, bytes.len() as i64);
        Self(bytes, PhantomData)
    }

    /// Its use ends.
    pub fn free(mut self) -> Box<[u8]> {
        let bytes = std::mem::take(&mut self.0);
        count(|owned| &owned.bytes, -(bytes.len() as i64));
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            count(|owned| &owned.bytes, -(self.0.len() as i64));
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_or_given_back_does_not_count_any_more() {
        let counting = || {
            let owned = Arc::<Owned>::default();
            owned.is_of_this_thread();
            let (one, two) = (Descriptors::<1>::new(), Descriptors::<2>::new());
            let (kept, dropped) = (Memory::new(Box::new([0; 5])), Memory::new(Box::new([0; 7])));
            assert_eq!((owned.descriptors(), owned.bytes()), (3, 12));
            drop((one, dropped));
            assert_eq!((owned.descriptors(), owned.bytes()), (2, 5));
            drop(two);
            assert_eq!(kept.free().len(), 5);
            assert_eq!((owned.descriptors(), owned.bytes()), (0, 0));
        };
        std::thread::spawn(counting).join().expect("no panic");
    }
}
