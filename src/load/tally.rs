//! What came of requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// In what way a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// The connection ended before the whole answer was there.
    Reset,
    /// No whole answer within [`PATIENCE`](super::PATIENCE).
    TimedOut,
    /// A status that is not 200.
    Status(u16),
    /// A body that the app never sends.
    WrongBody,
    /// An answer from a release that new requests were not to reach any more.
    WrongRelease,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Reset => f.write_str("connection ended without an answer"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::WrongBody => f.write_str("not the app's answer"),
            Self::WrongRelease => f.write_str("answered by a release that was not to"),
        }
    }
}

/// Everything that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times of those that were answered as they should, in microseconds, in no order until [`Tally::sort`].
    times: Vec<u32>,
    /// Answers by release.
    pub releases: BTreeMap<String, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<Failure, u64>,
}

impl Tally {
    pub(super) fn served(&mut self, release: &str, time: Duration) {
        self.times
            .push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        match self.releases.get_mut(release) {
            Some(count) => *count += 1,
            None => {
                self.releases.insert(release.to_owned(), 1);
            }
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        for (release, count) in other.releases {
            *self.releases.entry(release).or_default() += count;
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        self.times.sort_unstable();
    }

    /// Requests that were answered as they should.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.times.len() as u64
    }

    /// Requests that were not.
    #[must_use]
    pub fn failed_requests(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The time that a share of the requests (0 to 100 per cent) took at most.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )] // An index into as many numbers as fit into memory.
        let index = (self.times.len() as f64 * percent / 100.0).ceil() as usize;
        let time = self.times.get(
            index
                .saturating_sub(1)
                .min(self.times.len().saturating_sub(1)),
        );
        Duration::from_micros(time.copied().unwrap_or_default().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_slowest_of_two_tallies() {
        let mut all = Tally::default();
        assert_eq!(all.percentile(50.0), Duration::ZERO);
        for times in [[1, 9, 3], [2, 100, 4]] {
            let mut tally = Tally::default();
            for time in times {
                tally.served("1", Duration::from_micros(time));
            }
            tally.failed(Failure::Refused);
            all.add(tally);
        }
        assert_eq!(all.percentile(50.0), Duration::from_micros(3));
        assert_eq!(all.percentile(100.0), Duration::from_micros(100));
        assert_eq!((all.requests(), all.failed_requests()), (6, 2));
    }
}
