//! Request ids: 128 bits that no other request has, as 32 hexadecimal digits.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use super::table::sticky::mix;

/// A thread's source of ids: a random start and a count, both mixed so that neighbours look unrelated.
#[derive(Debug)]
pub struct Ids {
    random: u64,
    count: Cell<u64>,
}

impl Default for Ids {
    fn default() -> Self {
        // The standard library's hash keys are the operating system's randomness.
        let state = RandomState::new();
        Self {
            random: state.hash_one(0),
            count: Cell::new(state.hash_one(1)),
        }
    }
}

impl Ids {
    /// The next id.
    pub fn next(&self) -> [u8; 32] {
        let count = self.count();
        let halves = [mix(self.random ^ count.rotate_left(32)), mix(count)];
        let mut id = [0; 32];
        let quarters = halves.map(|half| [(half >> 32) as u32, half as u32]);
        for (digits, quarter) in id.chunks_exact_mut(8).zip(quarters.as_flattened()) {
            digits.copy_from_slice(&hexadecimal(*quarter));
        }
        id
    }

    /// A number that nobody expects.
    pub fn number(&self) -> u64 {
        mix(self.random ^ self.count().rotate_left(32))
    }

    fn count(&self) -> u64 {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        count
    }
}

/// The eight digits of a number, made all at once in the bytes of one word.
fn hexadecimal(number: u32) -> [u8; 8] {
    const ONES: u64 = u64::MAX / 0xff;
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // From ten on a letter stands for it.
    let letters = ((digits + ONES * 6) >> 4) & ONES;
    let letter = u64::from(b'a' - b'0' - 10);
    (digits + ONES * u64::from(b'0') + letters * letter).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let ids = Ids::default();
        let all: std::collections::HashSet<_> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().flatten().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 1, 0x89ab_cdef, 0x0123_4567, 0x9aa9_f00f, u32::MAX] {
            let digits = hexadecimal(number);
            assert_eq!(digits, format!("{number:08x}").as_bytes(), "{number:x}");
        }
    }
}
