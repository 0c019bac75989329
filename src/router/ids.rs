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
        let mut id = [0; 32];
        write(&mut id[..16], mix(self.random ^ count.rotate_left(32)));
        write(&mut id[16..], mix(count));
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

fn write(digits: &mut [u8], value: u64) {
    for (at, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * at)) as usize & 15];
    }
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
}
