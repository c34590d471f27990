//! Latencies in buckets: fixed memory however long a run is, at most 3 % off. It must never hold the single values.

/// Buckets to each doubling; 32 of them put a value at most 1/32 off.
const STEPS: u64 = 32;
const STEPS_LOG2: u64 = 5;
/// Values from 2^40 microseconds (twelve days) on share the last bucket.
const TOP_LOG2: u64 = 40;

/// Counts of durations in microseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    highest_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0, highest_us: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, value_us: u64) {
        self.counts[bucket(value_us)] += 1;
        self.total += 1;
        self.highest_us = self.highest_us.max(value_us);
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.highest_us = self.highest_us.max(other.highest_us);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn highest_us(&self) -> u64 {
        self.highest_us
    }

    /// The value that `percent` of all values do not exceed; 0 when nothing was recorded.
    pub fn percentile_us(&self, percent: f64) -> u64 {
        let rank = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_us(index as u64).min(self.highest_us);
            }
        }
        self.highest_us
    }
}

fn bucket(value_us: u64) -> usize {
    let value = value_us.min((1 << TOP_LOG2) - 1);
    if value < STEPS {
        return value as usize;
    }
    let log2 = u64::from(value.ilog2());
    let shift = log2 - STEPS_LOG2;
    ((shift + 1) * STEPS + ((value >> shift) & (STEPS - 1))) as usize
}

/// The highest value of a bucket.
fn upper_us(index: u64) -> u64 {
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    ((STEPS + index % STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_at_most_a_thirty_second_too_high() {
        for value in (0..5_000).chain((0..36).map(|power| (1 << power) + 7)) {
            let upper = upper_us(bucket(value) as u64);
            assert!(
                upper >= value && upper - value <= value / STEPS,
                "{value} is counted as {upper}"
            );
        }
        assert_eq!(bucket(u64::MAX), bucket(1 << TOP_LOG2));
    }

    #[test]
    fn percentiles_of_two_merged_halves_are_those_of_the_whole() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        (1..=50).for_each(|value| low.record(value));
        (51..=100).for_each(|value| high.record(value * 10));
        low.merge(&high);
        assert_eq!(low.total(), 100);
        assert_eq!(low.percentile_us(50.0), 50);
        assert_eq!(low.percentile_us(100.0), 1_000);
        assert!((990..=1_000).contains(&low.percentile_us(99.0)));
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::default().percentile_us(99.0), 0);
    }
}
