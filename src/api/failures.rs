//! Who has come with a wrong token lately, and how often.
//!
//! **Invariant:** what is remembered is bounded: so many addresses, and a number for all others together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// So many wrong tokens from one address, within [`WINDOW`] of the first, are each answered as wrong; more are turned away (429).
pub(super) const MOST: u32 = 10;

/// How long they count.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// How many addresses are remembered.
const ADDRESSES: usize = 1024;

/// Wrong tokens.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by: HashMap<IpAddr, Count>,
    /// All those that there was no room for.
    others: Option<Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    failures: u32,
}

impl Count {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }

    /// How long more are turned away.
    fn wait(&self, now: Instant) -> Option<Duration> {
        (self.failures >= MOST && !self.is_over(now))
            .then(|| WINDOW.saturating_sub(now.duration_since(self.since)))
    }
}

impl Failures {
    /// How long what comes from an address without a right token is turned away, if it is.
    pub(super) fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let count = match self.by.get(&network(from)) {
            Some(count) => Some(count),
            // One that has not failed yet goes by the others only while it could not be remembered.
            None if self.by.len() >= ADDRESSES => self.others.as_ref(),
            None => None,
        };
        count?.wait(now)
    }

    /// One more; how many it has been.
    pub(super) fn add(&mut self, from: IpAddr, now: Instant) -> u32 {
        let from = network(from);
        if self.by.len() >= ADDRESSES && !self.by.contains_key(&from) {
            self.by.retain(|_, count| !count.is_over(now));
        }
        let fresh = Count {
            since: now,
            failures: 0,
        };
        let count = if self.by.len() >= ADDRESSES && !self.by.contains_key(&from) {
            self.others.get_or_insert(fresh)
        } else {
            self.by.entry(from).or_insert(fresh)
        };
        if count.is_over(now) {
            *count = fresh;
        }
        count.failures += 1;
        count.failures
    }
}

/// One who has an IPv6 address has all of a /64 (RFC 6177).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_too_often_waits_and_others_do_not() {
        let mut failures = Failures::default();
        let (bad, good) = (address(1), address(2));
        for _ in 0..MOST {
            assert_eq!(failures.wait(bad, Instant::now()), None);
            failures.add(bad, Instant::now());
        }
        assert_eq!(failures.wait(bad, Instant::now()), Some(WINDOW));
        assert_eq!(failures.wait(good, Instant::now()), None);
        tokio::time::advance(WINDOW).await;
        assert_eq!(failures.wait(bad, Instant::now()), None);
        assert_eq!(failures.add(bad, Instant::now()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let mut failures = Failures::default();
        for n in 0..3 * ADDRESSES {
            failures.add(address(n), Instant::now());
        }
        assert_eq!(failures.by.len(), ADDRESSES);
        let late = address(9 * ADDRESSES);
        assert!(failures.wait(late, Instant::now()).is_some());
        assert_eq!(failures.wait(address(3), Instant::now()), None);
        tokio::time::advance(WINDOW).await;
        assert_eq!(failures.wait(late, Instant::now()), None);
        failures.add(late, Instant::now());
        assert_eq!(failures.by.len(), 1, "what is over makes room");
    }

    #[test]
    fn all_of_an_ipv6_network_is_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.7"), of("10.0.0.7"));
    }
}
