//! Clients that keep to a slot while shares grow: what a client is known by, and which of a hundred places that has.
//!
//! A client's key and the salt of a trial give its place, and places belong to slots, as many as their weights say. So a share is exact
//! over places, and who has a place keeps its slot as long as the slot keeps the place. Another salt puts everybody elsewhere: the same
//! people are not the first ones each time.
//!
//! **Invariant:** a place follows from key and salt alone, in every thread, process and version of the router.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::super::h1::tokens::is_token;
use super::{Builder, Slot, TableError};

/// How many places there are: weights are per cent.
pub const PLACES: u8 = 100;

/// What a client is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A cookie of the router's own.
    Cookie,
    /// The value of a field of its requests.
    Header(String),
    /// Its address.
    Address,
}

impl FromStr for By {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cookie" => Ok(Self::Cookie),
            "address" => Ok(Self::Address),
            _ => match text.strip_prefix("header:") {
                Some(name) if is_token(name.as_bytes()) => Ok(Self::Header(name.to_owned())),
                _ => Err("expected cookie, address or header:NAME"),
            },
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie => f.write_str("cookie"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Address => f.write_str("address"),
        }
    }
}

/// What stands for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// Of what a client says, or is.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let first = digest.first_chunk().expect("a digest has 32 bytes");
        Self(u64::from_be_bytes(*first))
    }

    /// Of a cookie: the number that it was made of, or whatever else somebody has put there.
    #[must_use]
    pub fn of_cookie(value: &[u8]) -> Self {
        let number = std::str::from_utf8(value).ok().filter(|text| {
            let is_ours = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            text.len() == 16 && value.iter().all(is_ours)
        });
        let number = number.and_then(|text| u64::from_str_radix(text, 16).ok());
        number.map_or_else(|| Self::of(value), Self)
    }

    /// As the value of a cookie: 16 hexadecimal digits.
    #[must_use]
    pub fn digits(self) -> [u8; 16] {
        std::array::from_fn(|at| b"0123456789abcdef"[(self.0 >> (60 - 4 * at)) as usize & 15])
    }
}

/// How the clients of an app are kept to its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// What they are known by.
    pub by: By,
    /// Of the trial.
    salt: u64,
    /// The index of each place's slot.
    places: [u8; PLACES as usize],
}

impl Sticky {
    /// The index of a client's slot.
    #[must_use]
    pub fn slot(&self, key: Key) -> usize {
        let place = mix(key.0 ^ mix(self.salt)) % u64::from(PLACES);
        usize::from(self.places[place as usize])
    }

    /// A key that has a certain place, made of chance.
    #[must_use]
    pub fn mint(&self, place: u8, random: u64) -> Key {
        let places = u64::from(PLACES);
        // Half of all numbers, so that adding never overflows.
        let mixed = (random >> 1) / places * places + u64::from(place % PLACES);
        Key(unmix(mixed) ^ mix(self.salt))
    }
}

impl Builder<'_> {
    /// Has the clients of the app that was added last keep to its slots, all of which it has. `places` says how many places in a row
    /// which slot has; if it is empty, they follow the weights in the order of the slots.
    ///
    /// # Errors
    /// There is no such way, or the places are not what the weights say.
    pub fn sticky(
        &mut self,
        by: &str,
        salt: u64,
        places: &[(u8, String)],
    ) -> Result<(), TableError> {
        let Some(app) = self.table.apps.last_mut() else {
            return Ok(());
        };
        let refused = |why: &str| TableError::Sticky {
            app: app.name.clone(),
            why: why.to_owned(),
        };
        let by = by.parse().map_err(refused)?;
        let own = |(index, slot): (usize, &Slot)| (index, slot.weight);
        let rows: Vec<(usize, u8)> = match places {
            [] => app.slots.iter().enumerate().map(own).collect(),
            _ => {
                let index = |name: &String| app.slots.iter().position(|slot| slot.name == *name);
                let rows = places
                    .iter()
                    .map(|(count, name)| Some((index(name)?, *count)));
                let rows: Option<_> = rows.collect();
                rows.ok_or_else(|| refused("a place is that of a slot that is not there"))?
            }
        };
        let all = rows
            .iter()
            .flat_map(|(slot, count)| std::iter::repeat_n(*slot as u8, usize::from(*count)));
        let all: Vec<u8> = all.collect();
        let shared = app.slots.iter().enumerate().all(|(index, slot)| {
            let own = all.iter().filter(|place| usize::from(**place) == index);
            own.count() == usize::from(slot.weight)
        });
        if !shared || app.slots.len() > usize::from(PLACES) {
            return Err(refused("its places are not what the weights say"));
        }
        // Where all weights are 0 there are none.
        let several = app.slots.iter().filter(|slot| slot.weight > 0).count() > 1;
        app.sticky = all
            .try_into()
            .ok()
            .filter(|_| several)
            .map(|places| Sticky { by, salt, places });
        Ok(())
    }
}

/// The finaliser of splitmix64: a bijection, so different numbers stay different.
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Undoes [`mix`]: shifts are undone by shifts, products by the inverses of their factors modulo 2^64.
fn unmix(mut z: u64) -> u64 {
    z = (z ^ (z >> 31) ^ (z >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    z ^ (z >> 30) ^ (z >> 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Slot 1 has the first of the places.
    fn first(salt: u64, weight: u8) -> Sticky {
        let places = std::array::from_fn(|place| u8::from(place < usize::from(weight)));
        Sticky {
            by: By::Cookie,
            salt,
            places,
        }
    }

    proptest! {
        #[test]
        fn a_key_is_minted_for_its_place_and_known_by_its_cookie_again(
            salt: u64, random: u64, place in 0..PLACES,
        ) {
            let key = first(salt, 0).mint(place, random);
            prop_assert_eq!(Key::of_cookie(&key.digits()), key);
            prop_assert_eq!(first(salt, place + 1).slot(key), 1);
            prop_assert_eq!(first(salt, place).slot(key), 0);
        }
    }

    #[test]
    fn what_is_known_of_clients_is_spread_evenly_and_anew_by_each_salt() {
        let keys: Vec<_> = (0..10_000)
            .map(|n| Key::of(format!("user-{n}").as_bytes()))
            .collect();
        let (one, other) = (first(7, 10), first(8, 10));
        let count = |chosen: &dyn Fn(Key) -> bool| keys.iter().filter(|key| chosen(**key)).count();
        // Three standard deviations of a binomial distribution: 90 of 10,000, and 30.
        assert!(count(&|key| one.slot(key) == 1).abs_diff(1_000) <= 90);
        assert!(count(&|key| other.slot(key) == 1).abs_diff(1_000) <= 90);
        assert!(count(&|key| one.slot(key) == 1 && other.slot(key) == 1).abs_diff(100) <= 30);
    }

    #[test]
    fn a_key_is_the_same_in_every_version() {
        assert_eq!(&Key::of(b"alice").digits(), b"2bd806c97f0e00af");
        let all: Vec<_> = (0..8).map(|n| first(7, 50).slot(Key(n))).collect();
        assert_eq!(all, [0, 0, 1, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn any_other_cookie_of_that_name_is_a_key_too() {
        for other in [
            "",
            "0",
            "00000000000000000",
            "+000000000000001",
            "ABCDEF0123456789",
        ] {
            assert_eq!(
                Key::of_cookie(other.as_bytes()),
                Key::of(other.as_bytes()),
                "{other:?}"
            );
        }
    }

    #[test]
    fn what_clients_are_known_by_is_said_in_a_word() {
        for word in ["cookie", "address", "header:X-User"] {
            assert_eq!(
                word.parse::<By>().map(|by| by.to_string()),
                Ok(word.to_owned())
            );
        }
        for wrong in ["", "Cookie", "header:", "header:X User", "header: X"] {
            assert!(wrong.parse::<By>().is_err(), "{wrong:?}");
        }
    }
}
