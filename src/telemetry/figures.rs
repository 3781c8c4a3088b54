//! What is counted: one [`Interval`] of it, the same type on a shard and in the sum over all shards.
//!
//! Must not live here: how it is rendered (`registry`), who may write (`recorder`).

use std::mem;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits;
use inventory_core::counters::{BATCH_BOUNDS, TIME_BOUNDS_US};
use inventory_core::spread::Spread;
use inventory_core::time::Micros;

/// Status codes of gRPC, OK included.
pub(super) const CODES: usize = 17;

/// Values by labels. The labels are code, a handful per metric, so a scan beats a hash: the pointers
/// of two equal literals are nearly always equal.
#[derive(Clone, Debug)]
pub(super) struct Series<const L: usize, V> {
    labels: Vec<[&'static str; L]>,
    values: Vec<V>,
}

impl<const L: usize, V> Default for Series<L, V> {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<const L: usize, V: Default> Series<L, V> {
    /// The value of `labels`, new if need be; past [`limits::SERIES_PER_METRIC_MAX`] the value of `other`.
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
        self.labels
            .iter()
            .position(|have| have.iter().zip(wanted).all(|(a, b)| same(a, b)))
    }

    fn push(&mut self, labels: [&'static str; L]) -> usize {
        self.labels.push(labels);
        self.values.push(V::default());
        self.values.len() - 1
    }

    /// Gives the values away and starts anew with the same labels.
    fn take(&mut self) -> Self {
        let fresh = Self {
            labels: self.labels.clone(),
            values: self.labels.iter().map(|_| V::default()).collect(),
        };
        mem::replace(self, fresh)
    }

    /// Adds `other`, label by label.
    fn absorb(&mut self, other: Self, add: impl Fn(&mut V, V)) {
        for (labels, value) in other.labels.into_iter().zip(other.values) {
            add(self.at(labels), value);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[&'static str; L], &V)> {
        self.labels.iter().zip(&self.values)
    }
}

/// A latency distribution: three significant digits from 1 µs to [`limits::LATENCY_MAX`], and the
/// exact sum.
#[derive(Clone, Debug, Default)]
pub(super) struct Latency {
    /// Made at the first recording: about 140 KB of address space, of which the pages that
    /// latencies fall into become memory. `u64`, so that it never wraps however rare the scrapes.
    histogram: Option<Histogram<u64>>,
    sum_us: u64,
}

impl Latency {
    pub(super) fn record(&mut self, span: Micros) {
        self.histogram
            .get_or_insert_with(empty_histogram)
            .saturating_record(span.0);
        self.sum_us = self.sum_us.saturating_add(span.0);
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        match (&mut self.histogram, other.histogram) {
            (_, None) => {}
            (mine @ None, theirs) => *mine = theirs,
            // Both have the same bounds, so nothing can fail to fit.
            (Some(mine), Some(theirs)) => mine.add(theirs).expect("histograms of equal bounds"),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// What of the recordings, in parts of one, is at most as long as the answer; `None` without any.
    pub(super) fn quantile(&self, part: f64) -> Option<Micros> {
        let histogram = self.histogram.as_ref().filter(|h| !h.is_empty())?;
        Some(Micros(histogram.value_at_quantile(part)))
    }

    /// For each bound (ascending, in µs) how many recordings are at most that long. A recording less
    /// than 0.1 % above a bound may count as on it: that is what three digits tell apart.
    pub(super) fn at_most(&self, bounds_us: &[u64]) -> Vec<u64> {
        let mut counts = Vec::with_capacity(bounds_us.len());
        let Some(histogram) = &self.histogram else {
            counts.resize(bounds_us.len(), 0);
            return counts;
        };
        let mut cells = histogram.iter_recorded().peekable();
        let mut so_far = 0;
        for bound in bounds_us {
            while let Some(cell) = cells
                .next_if(|cell| histogram.lowest_equivalent(cell.value_iterated_to()) <= *bound)
            {
                so_far += cell.count_at_value();
            }
            counts.push(so_far);
        }
        counts
    }
}

fn empty_histogram() -> Histogram<u64> {
    // A longer value is recorded as the highest one, which therefore must lie above the last bound
    // that a bucket may have.
    let highest = limits::LATENCY_MAX + Duration::from_secs(1);
    Histogram::new_with_bounds(1, highest.as_micros() as u64, 3).expect("constant bounds are legal")
}

/// Calls of one gRPC method.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    pub(super) latency: Latency,
    /// By the number of the status code.
    pub(super) codes: [u64; CODES],
}

/// Requests of one kind to the store.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreCalls {
    pub(super) latency: Latency,
    pub(super) statuses: Series<1, u64>,
}

/// Everything counted since some moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Interval {
    pub(super) calls: Series<1, Calls>,
    pub(super) store: Series<2, StoreCalls>,
    pub(super) commits: Series<2, u64>,
    pub(super) holds: Series<2, u64>,
    pub(super) releases: Series<2, u64>,
    pub(super) checks: Series<2, u64>,
    pub(super) conflicts: Series<1, u64>,
    pub(super) idempotency_hits: Series<1, u64>,
    pub(super) idempotency_misses: Series<1, u64>,
    pub(super) retries: Series<1, u64>,
    pub(super) questions: Series<1, u64>,
    pub(super) snapshot_refreshes: u64,
    pub(super) transactions: u64,
    pub(super) members: u64,
    pub(super) unknown_outcomes: u64,
    pub(super) unknown_resolved: Series<1, u64>,
    pub(super) batches: Spread<{ BATCH_BOUNDS.len() }>,
    pub(super) waits: Spread<{ TIME_BOUNDS_US.len() }>,
    pub(super) snapshot_ages: Spread<{ TIME_BOUNDS_US.len() }>,
    /// Capacity units by table and `read` or `write`.
    pub(super) units: Series<2, f64>,
    pub(super) reclaimed: Series<1, u64>,
    pub(super) reclaim_lag: Latency,
    pub(super) breaches: Series<1, u64>,
    pub(super) shed: Series<1, u64>,
    pub(super) sold_out_looks: u64,
}

impl Interval {
    /// Gives away what was counted and starts anew. New histograms are made at their next recording,
    /// so this costs a few small allocations.
    pub(super) fn take(&mut self) -> Self {
        Self {
            calls: self.calls.take(),
            store: self.store.take(),
            commits: self.commits.take(),
            holds: self.holds.take(),
            releases: self.releases.take(),
            checks: self.checks.take(),
            conflicts: self.conflicts.take(),
            idempotency_hits: self.idempotency_hits.take(),
            idempotency_misses: self.idempotency_misses.take(),
            retries: self.retries.take(),
            questions: self.questions.take(),
            snapshot_refreshes: mem::take(&mut self.snapshot_refreshes),
            transactions: mem::take(&mut self.transactions),
            members: mem::take(&mut self.members),
            unknown_outcomes: mem::take(&mut self.unknown_outcomes),
            unknown_resolved: self.unknown_resolved.take(),
            batches: mem::take(&mut self.batches),
            waits: mem::take(&mut self.waits),
            snapshot_ages: mem::take(&mut self.snapshot_ages),
            units: self.units.take(),
            reclaimed: self.reclaimed.take(),
            reclaim_lag: mem::take(&mut self.reclaim_lag),
            breaches: self.breaches.take(),
            shed: self.shed.take(),
            sold_out_looks: mem::take(&mut self.sold_out_looks),
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        let add = |mine: &mut u64, theirs: u64| *mine += theirs;
        self.calls.absorb(other.calls, |mine, theirs| {
            mine.latency.absorb(theirs.latency);
            for (mine, theirs) in mine.codes.iter_mut().zip(theirs.codes) {
                *mine += theirs;
            }
        });
        self.store.absorb(other.store, |mine, theirs| {
            mine.latency.absorb(theirs.latency);
            mine.statuses.absorb(theirs.statuses, add);
        });
        self.commits.absorb(other.commits, add);
        self.holds.absorb(other.holds, add);
        self.releases.absorb(other.releases, add);
        self.checks.absorb(other.checks, add);
        self.conflicts.absorb(other.conflicts, add);
        self.idempotency_hits.absorb(other.idempotency_hits, add);
        self.idempotency_misses
            .absorb(other.idempotency_misses, add);
        self.retries.absorb(other.retries, add);
        self.questions.absorb(other.questions, add);
        self.snapshot_refreshes += other.snapshot_refreshes;
        self.transactions += other.transactions;
        self.members += other.members;
        self.unknown_outcomes += other.unknown_outcomes;
        self.unknown_resolved.absorb(other.unknown_resolved, add);
        self.batches.add(&other.batches);
        self.waits.add(&other.waits);
        self.snapshot_ages.add(&other.snapshot_ages);
        self.units
            .absorb(other.units, |mine, theirs| *mine += theirs);
        self.reclaimed.absorb(other.reclaimed, add);
        self.reclaim_lag.absorb(other.reclaim_lag);
        self.breaches.absorb(other.breaches, add);
        self.shed.absorb(other.shed, add);
        self.sold_out_looks += other.sold_out_looks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_content_not_only_by_address() {
        let mut series: Series<1, u64> = Series::default();
        let elsewhere: &'static str = String::from("commit").leak();
        assert!(!std::ptr::eq(elsewhere, "commit"));
        *series.at(["commit"]) += 1;
        *series.at([elsewhere]) += 1;
        assert_eq!(series.iter().count(), 1);
        assert_eq!(*series.at(["commit"]), 2);
    }

    #[test]
    fn labels_past_the_bound_are_counted_as_other() {
        let mut series: Series<1, u64> = Series::default();
        for n in 0..limits::SERIES_PER_METRIC_MAX + 10 {
            *series.at([format!("label {n}").leak()]) += 1;
        }
        assert_eq!(series.iter().count(), limits::SERIES_PER_METRIC_MAX + 1);
        assert_eq!(*series.at(["other"]), 10);
        let sum: u64 = series.iter().map(|(_, value)| value).sum();
        assert_eq!(sum as usize, limits::SERIES_PER_METRIC_MAX + 10);
    }

    /// Against a plain list of what was recorded, split over shards and intervals at random.
    #[test]
    fn merged_buckets_equal_a_direct_count() {
        use rand::{Rng, SeedableRng, rngs::SmallRng};
        let bounds = [100, 1_000, 5_000, 40_000, 1_000_000, 60_000_000];
        let mut rng = SmallRng::seed_from_u64(7);
        let mut all = Vec::new();
        let mut total = Latency::default();
        for _interval in 0..20 {
            let mut part = Latency::default();
            for _ in 0..rng.random_range(0..500) {
                let span = 10_u64.pow(rng.random_range(0..8)) * rng.random_range(0..10);
                // Away from the blur above each bound, where three digits cannot decide.
                if bounds.iter().any(|b| span > *b && span < b + b / 1_000) {
                    continue;
                }
                part.record(Micros(span));
                all.push(span);
            }
            total.absorb(part);
        }
        let expected = bounds.map(|b| all.iter().filter(|span| **span <= b).count() as u64);
        assert_eq!(total.at_most(&bounds), expected);
        assert_eq!(total.count(), all.len() as u64);
        assert_eq!(total.sum_us, all.iter().sum::<u64>());
        assert!(
            expected[5] < total.count(),
            "some are beyond the last bound"
        );
    }

    #[test]
    fn a_latency_counts_at_its_bound_and_not_a_thousandth_beyond() {
        let bounds = [5_000, 10_000, 20_000, 40_000];
        for (n, bound) in bounds.iter().enumerate() {
            let mut on = Latency::default();
            on.record(Micros(*bound));
            assert_eq!(
                on.at_most(&bounds)[n],
                1,
                "{bound} counts as at most {bound}"
            );
            let mut beyond = Latency::default();
            beyond.record(Micros(bound + bound / 1_000 + 1));
            assert_eq!(beyond.at_most(&bounds)[n], 0);
        }
    }

    #[test]
    fn an_endless_latency_stays_in_the_count_and_whole_in_the_sum() {
        let mut latency = Latency::default();
        latency.record(Micros(3_600_000_000));
        latency.record(Micros(0));
        assert_eq!(latency.at_most(&[60_000_000]), [1]);
        assert_eq!(latency.count(), 2);
        assert!((latency.sum_seconds() - 3_600.0).abs() < 1e-9);
    }

    #[test]
    fn taking_leaves_nothing_behind() {
        let mut interval = Interval::default();
        interval.calls.at(["m"]).latency.record(Micros(5));
        interval.calls.at(["m"]).codes[0] += 1;
        *interval.commits.at(["quantity", "confirmed"]) += 3;
        interval.members += 2;
        let first = interval.take();
        let second = interval.take();
        assert_eq!(first.members, 2);
        let calls = |of: &Interval| of.calls.iter().map(|(_, c)| c.codes[0]).sum::<u64>();
        let commits = |of: &Interval| of.commits.iter().map(|(_, c)| c).sum::<u64>();
        assert_eq!((calls(&first), commits(&first)), (1, 3));
        assert_eq!(
            (calls(&second), commits(&second), second.members),
            (0, 0, 0)
        );
        assert!(second.calls.iter().all(|(_, c)| c.latency.count() == 0));
    }
}
