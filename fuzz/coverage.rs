//! The counters that SanitizerCoverage puts into each branch (clang.llvm.org, SanitizerCoverage, "Inline 8bit-counters").
#![allow(
    unsafe_code,
    reason = "the compiler hands its counters over as two addresses"
)]

use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// Called before main, once for each part of the program that has counters.
///
/// # Safety
/// `start` to `stop` are one section of this program, which lives as long as it runs and holds bytes that only the counting code
/// writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(
    start: *const AtomicU8,
    stop: *const AtomicU8,
) {
    // SAFETY: as above; every byte is a valid AtomicU8. Counting is not atomic, which loses a count now and then.
    let counters = unsafe { slice::from_raw_parts(start, stop.offset_from(start) as usize) };
    if let Ok(mut all) = COUNTERS.lock() {
        all.push(counters);
    }
}

/// What was ever reached, as the magnitudes of each count.
#[derive(Default)]
pub struct Reached(Vec<u8>);

impl Reached {
    /// True if something was reached since the last time that never was before; counting starts over.
    pub fn anything_new(&mut self) -> bool {
        let counters = COUNTERS.lock().expect("nobody panics with it");
        let mut fresh = false;
        for (place, counter) in counters.iter().copied().flatten().enumerate() {
            let count = counter.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            counter.store(0, Ordering::Relaxed);
            if self.0.len() <= place {
                self.0.resize(place + 1, 0);
            }
            let magnitude = 1 << count.ilog2();
            fresh |= self.0[place] & magnitude == 0;
            self.0[place] |= magnitude;
        }
        fresh
    }

    /// How many branches were reached.
    pub fn branches(&self) -> usize {
        self.0.iter().filter(|magnitudes| **magnitudes > 0).count()
    }
}
