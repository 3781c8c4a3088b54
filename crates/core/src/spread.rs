//! Histogram with fixed buckets, for the engine's counters. Copied as a whole; never allocates.

/// Number of values per bucket, for `N` ascending upper bounds, and the sum of all values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread<const N: usize> {
    /// Each value is counted once, in the first bucket whose bound is not exceeded.
    counts: [u64; N],
    overflow: u64,
    sum: u64,
}

impl<const N: usize> Default for Spread<N> {
    fn default() -> Self {
        Self { counts: [0; N], overflow: 0, sum: 0 }
    }
}

impl<const N: usize> Spread<N> {
    /// Counts `value`. `bounds` must be the same in every call.
    pub(crate) fn record(&mut self, bounds: &[u64; N], value: u64) {
        match self.counts.get_mut(bounds.partition_point(|b| *b < value)) {
            Some(count) => *count += 1,
            None => self.overflow += 1,
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds the values of another histogram with the same bounds.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.overflow += other.overflow;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Cumulative number of values at or below each bound.
    pub fn at_most(&self) -> [u64; N] {
        let mut so_far = 0;
        self.counts.map(|count| {
            so_far += count;
            so_far
        })
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.overflow + self.counts.iter().sum::<u64>()
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 3] = [1, 10, 100];

    #[test]
    fn value_is_counted_in_the_first_bucket_that_contains_it() {
        let mut spread = Spread::default();
        for value in [0, 1, 2, 10, 11, 100, 101, 5_000] {
            spread.record(&BOUNDS, value);
        }
        assert_eq!(spread.at_most(), [2, 4, 6]);
        assert_eq!((spread.count(), spread.sum()), (8, 5_225));
    }

    #[test]
    fn sum_contains_the_values_of_both() {
        let (mut one, mut other) = (Spread::default(), Spread::default());
        one.record(&BOUNDS, 7);
        other.record(&BOUNDS, 70);
        other.record(&BOUNDS, 700);
        one.add(&other);
        assert_eq!((one.at_most(), one.count(), one.sum()), ([0, 1, 2], 3, 777));
    }
}
