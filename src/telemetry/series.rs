//! Values by labels, and latency distributions.
//!
//! Not here: names of metrics (`metrics`, `aggregate`) or the exposition format (`exposition`).

use std::mem;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits;
use inventory_core::time::Micros;

/// Values by labels. Labels are literals in the code, a handful per metric: a linear search by pointer is faster than a
/// hash map.
#[derive(Clone, Debug)]
pub(super) struct Series<const L: usize, V> {
    labels: Vec<[&'static str; L]>,
    values: Vec<V>,
}

impl<const L: usize, V> Default for Series<L, V> {
    fn default() -> Self {
        Self { labels: Vec::new(), values: Vec::new() }
    }
}

impl<const L: usize, V: Default> Series<L, V> {
    /// The value of `labels`, created if necessary; beyond [`limits::SERIES_PER_METRIC_MAX`] series the value of `other`.
    pub(super) fn at(&mut self, labels: [&'static str; L]) -> &mut V {
        let index = match self.find(&labels) {
            Some(index) => index,
            None if self.labels.len() < limits::SERIES_PER_METRIC_MAX => self.push(labels),
            None => {
                let other = ["other"; L];
                self.find(&other).unwrap_or_else(|| self.push(other))
            }
        };
        &mut self.values[index]
    }

    fn find(&self, wanted: &[&'static str; L]) -> Option<usize> {
        let same = |a: &'static str, b: &'static str| std::ptr::eq(a, b) || a == b;
        self.labels.iter().position(|have| have.iter().zip(wanted).all(|(a, b)| same(a, b)))
    }

    fn push(&mut self, labels: [&'static str; L]) -> usize {
        self.labels.push(labels);
        self.values.push(V::default());
        self.values.len() - 1
    }

    /// Returns the values and resets them, keeping the labels.
    pub(super) fn take(&mut self) -> Self {
        let fresh = Self {
            labels: self.labels.clone(),
            values: self.labels.iter().map(|_| V::default()).collect(),
        };
        mem::replace(self, fresh)
    }

    /// Adds `other`, label by label.
    pub(super) fn absorb(&mut self, other: Self, add: impl Fn(&mut V, V)) {
        for (labels, value) in other.labels.into_iter().zip(other.values) {
            add(self.at(labels), value);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[&'static str; L], &V)> {
        self.labels.iter().zip(&self.values)
    }
}

/// A latency distribution with three significant digits from 1 µs to [`limits::LATENCY_MAX`], and the exact sum.
#[derive(Clone, Debug, Default)]
pub(super) struct LatencyHistogram {
    /// Allocated with the first value: about 140 KB of address space, of which only touched pages use memory. `u64` does
    /// not overflow between scrapes.
    histogram: Option<Histogram<u64>>,
    sum_us: u64,
}

impl LatencyHistogram {
    pub(super) fn record(&mut self, span: Micros) {
        self.histogram.get_or_insert_with(empty_histogram).saturating_record(span.0);
        self.sum_us = self.sum_us.saturating_add(span.0);
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        match (&mut self.histogram, other.histogram) {
            (_, None) => {}
            (mine @ None, theirs) => *mine = theirs,
            // Both have the same bounds, so `add` cannot fail.
            (Some(mine), Some(theirs)) => mine.add(theirs).expect("histograms of equal bounds"),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// The quantile `q` (0 to 1) of the recorded values; `None` if there are none.
    pub(super) fn quantile(&self, q: f64) -> Option<Micros> {
        let histogram = self.histogram.as_ref().filter(|h| !h.is_empty())?;
        Some(Micros(histogram.value_at_quantile(q)))
    }

    /// Cumulative count for each of the ascending bounds in µs. A value less than 0.1 % above a bound may count as equal
    /// to it, because the histogram has three significant digits.
    pub(super) fn cumulative(&self, bounds_us: &[u64]) -> Vec<u64> {
        let mut counts = Vec::with_capacity(bounds_us.len());
        let Some(histogram) = &self.histogram else {
            counts.resize(bounds_us.len(), 0);
            return counts;
        };
        let mut cells = histogram.iter_recorded().peekable();
        let mut total = 0;
        for bound in bounds_us {
            while let Some(cell) = cells
                .next_if(|cell| histogram.lowest_equivalent(cell.value_iterated_to()) <= *bound)
            {
                total += cell.count_at_value();
            }
            counts.push(total);
        }
        counts
    }
}

fn empty_histogram() -> Histogram<u64> {
    // A longer value is recorded as the highest one, which therefore must be above the last bucket bound.
    let highest = limits::LATENCY_MAX + Duration::from_secs(1);
    Histogram::new_with_bounds(1, highest.as_micros() as u64, 3).expect("constant bounds are legal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_by_content() {
        let mut series: Series<1, u64> = Series::default();
        let elsewhere: &'static str = String::from("commit").leak();
        assert!(!std::ptr::eq(elsewhere, "commit"));
        *series.at(["commit"]) += 1;
        *series.at([elsewhere]) += 1;
        assert_eq!(series.iter().count(), 1);
        assert_eq!(*series.at(["commit"]), 2);
    }

    #[test]
    fn labels_beyond_the_bound_are_counted_as_other() {
        let mut series: Series<1, u64> = Series::default();
        for n in 0..limits::SERIES_PER_METRIC_MAX + 10 {
            *series.at([format!("label {n}").leak()]) += 1;
        }
        assert_eq!(series.iter().count(), limits::SERIES_PER_METRIC_MAX + 1);
        assert_eq!(*series.at(["other"]), 10);
        let sum: u64 = series.iter().map(|(_, value)| value).sum();
        assert_eq!(sum as usize, limits::SERIES_PER_METRIC_MAX + 10);
    }

    /// Compares with a list of all values, split over intervals at random.
    #[test]
    fn merged_buckets_equal_a_direct_count() {
        use rand::{Rng, SeedableRng, rngs::SmallRng};
        let bounds = [100, 1_000, 5_000, 40_000, 1_000_000, 60_000_000];
        let mut rng = SmallRng::seed_from_u64(7);
        let mut all = Vec::new();
        let mut total = LatencyHistogram::default();
        for _interval in 0..20 {
            let mut part = LatencyHistogram::default();
            for _ in 0..rng.random_range(0..500) {
                let span = 10_u64.pow(rng.random_range(0..8)) * rng.random_range(0..10);
                // Values within 0.1 % above a bound are ambiguous.
                if bounds.iter().any(|b| span > *b && span < b + b / 1_000) {
                    continue;
                }
                part.record(Micros(span));
                all.push(span);
            }
            total.absorb(part);
        }
        let expected = bounds.map(|b| all.iter().filter(|span| **span <= b).count() as u64);
        assert_eq!(total.cumulative(&bounds), expected);
        assert_eq!(total.count(), all.len() as u64);
        assert_eq!(total.sum_us, all.iter().sum::<u64>());
        assert!(expected[5] < total.count(), "some values are above the last bound");
    }

    #[test]
    fn latency_counts_at_its_bound_and_not_0_1_percent_above() {
        let bounds = [5_000, 10_000, 20_000, 40_000];
        for (n, bound) in bounds.iter().enumerate() {
            let mut on = LatencyHistogram::default();
            on.record(Micros(*bound));
            assert_eq!(on.cumulative(&bounds)[n], 1, "{bound} counts as at most {bound}");
            let mut beyond = LatencyHistogram::default();
            beyond.record(Micros(bound + bound / 1_000 + 1));
            assert_eq!(beyond.cumulative(&bounds)[n], 0);
        }
    }

    #[test]
    fn latency_above_the_maximum_is_counted_and_summed() {
        let mut latency = LatencyHistogram::default();
        latency.record(Micros(3_600_000_000));
        latency.record(Micros(0));
        assert_eq!(latency.cumulative(&[60_000_000]), [1]);
        assert_eq!(latency.count(), 2);
        assert!((latency.sum_seconds() - 3_600.0).abs() < 1e-9);
    }
}
