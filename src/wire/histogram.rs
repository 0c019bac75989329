//! How long answers took, as counts in buckets: small enough for every thread and run to have its own, and added up or subtracted without loss.
//!
//! Buckets are log-linear, as HdrHistogram's: a microsecond each below 32, then 16 to an octave, up to 2^32 µs (71 minutes). So a bucket's
//! upper edge is at most a sixteenth (6.25 %) above what was counted there.
//!
//! **Invariant:** whatever another process has sent is a histogram: buckets that do not exist count as the last one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many buckets there are.
pub const BUCKETS: usize = 464;

/// An octave has 2 to the power of this many buckets.
const BITS: u32 = 4;

/// The number of the bucket of a latency in microseconds; what is longer than all of them is counted in the last one.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    let micros = micros.min(u64::from(u32::MAX));
    // So far down that BITS + 1 bits are left, the highest of them set.
    let shift = (64 - BITS).saturating_sub(micros.leading_zeros() + 1);
    ((shift << BITS) as usize) + (micros >> shift) as usize
}

/// The longest latency that is counted in a bucket; that of the last one also for what is longer.
#[must_use]
pub fn upper_edge(bucket: usize) -> Duration {
    let (bucket, octave) = (bucket.min(BUCKETS - 1) as u64, 1 << BITS);
    // The first two octaves have the same width, a microsecond.
    let shift = (bucket >> BITS).saturating_sub(1);
    let place = bucket - shift * octave;
    Duration::from_micros(((place + 1) << shift) - 1)
}

/// Counts by bucket. As JSON it is `[[bucket, count], …]`, of those that are not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram(BTreeMap<u16, u64>);

impl Histogram {
    /// True if nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many latencies are counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = self.0.values();
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Counts so many more in a bucket.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if count > 0 {
            let bucket = self.0.entry(bucket.min(BUCKETS - 1) as u16).or_default();
            *bucket = bucket.saturating_add(count);
        }
    }

    /// Counts what another one has counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add(usize::from(*bucket), *count);
        }
    }

    /// What was counted since `earlier`, which is the same one at another time.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = Self::default();
        for (bucket, count) in &self.0 {
            let before = earlier.0.get(bucket).copied().unwrap_or_default();
            later.add(usize::from(*bucket), count.saturating_sub(before));
        }
        later
    }

    /// What a share of the latencies, `0.99` for 99 %, is not longer than: the upper edge of a bucket, so never less than it was.
    /// `None` if nothing is counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        // Truth is within a rounding error of the product, and one more is on the safe side.
        let rank = ((share * self.total() as f64).ceil() as u64).max(1);
        let mut seen = 0u64;
        let reached = self.0.iter().find(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen >= rank
        });
        let (bucket, _) = reached.or(self.0.iter().next_back())?;
        Some(upper_edge(usize::from(*bucket)))
    }
}

impl From<Vec<(u16, u64)>> for Histogram {
    fn from(counts: Vec<(u16, u64)>) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in counts {
            histogram.add(usize::from(bucket), count);
        }
        histogram
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(latencies: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for micros in latencies {
            histogram.add(bucket(*micros), 1);
        }
        histogram
    }

    #[test]
    fn each_bucket_ends_where_the_next_one_begins() {
        let mut begins = 0;
        for number in 0..BUCKETS {
            let edge = upper_edge(number).as_micros() as u64;
            assert_eq!((bucket(begins), bucket(edge)), (number, number));
            begins = edge + 1;
        }
        assert_eq!(begins, 1 << 32);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_another_process_sends_is_a_histogram_whatever_it_is() {
        let sent = "[[65535,1],[3,2],[3,5],[4,0]]";
        let histogram: Histogram = serde_json::from_str(sent).expect("pairs of numbers");
        assert_eq!(histogram.total(), 8);
        assert_eq!(histogram.quantile(2.0), Some(upper_edge(BUCKETS - 1)));
        assert_eq!(histogram.quantile(f64::NAN), Some(upper_edge(3)));
        let json = serde_json::to_string(&histogram).expect("pairs of numbers");
        assert_eq!(json, "[[3,7],[463,1]]");
        let endless = Histogram::from(vec![(1, u64::MAX), (2, u64::MAX)]);
        assert_eq!(
            (endless.total(), endless.since(&endless).total()),
            (u64::MAX, 0)
        );
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    /// As they are spread in the world: over orders of magnitude.
    fn latencies() -> impl Strategy<Value = Vec<u64>> {
        let latency = (0u32..32).prop_flat_map(|octave| 0..=1u64 << octave);
        prop::collection::vec(latency, 1..300)
    }

    proptest! {
        #[test]
        fn a_quantile_is_that_of_the_sorted_latencies_or_up_to_a_sixteenth_more(
            mut all in latencies(), per_mille in 1usize..=1000,
        ) {
            let found = of(&all).quantile(per_mille as f64 / 1000.0).expect("there are some");
            all.sort_unstable();
            let truth = all[(all.len() * per_mille).div_ceil(1000) - 1];
            let found = found.as_micros() as u64;
            prop_assert!(found >= truth, "{found} is better than {truth}");
            // One rank further where the product was rounded up.
            let most = all[((all.len() * per_mille).div_ceil(1000)).min(all.len() - 1)];
            prop_assert!(found <= most + most / 16, "{found} is far from {truth}");
        }

        #[test]
        fn what_is_merged_can_be_subtracted_again(one in latencies(), other in latencies()) {
            let (one, other) = (of(&one), of(&other));
            let mut both = one.clone();
            both.merge(&other);
            prop_assert_eq!(both.total(), one.total() + other.total());
            prop_assert_eq!(both.since(&one), other);
            prop_assert!(one.since(&both).is_empty());
        }
    }
}
