//! Latency estimator: the rate of a queue and the duration of a transaction, as measured, and the wait
//! that a new call has to expect.
//!
//! The rate is measured only while entries wait, because then the lanes determine it and not the arrivals. An estimate
//! that is too old is not used; then no call is rejected.

use crate::limits;
use crate::time::Micros;

/// Weight of a new rate in the mean: a few windows of [`limits::RATE_WINDOW`] each.
const RATE_GAIN: f64 = 0.3;

/// Weights of a new duration in the mean and in the deviation, as TCP measures round trips.
const DURATION_GAIN: f64 = 0.125;
const DURATION_DEVIATION_GAIN: f64 = 0.25;

/// Gain of the correction factor (actual ÷ expected wait), which covers what the estimate leaves out: variance, pauses,
/// requeued entries.
const WAIT_RATIO_GAIN: f64 = 0.1;

/// Bounds of the correction factor.
const WAIT_RATIO_MIN: f64 = 0.35;
const WAIT_RATIO_MAX: f64 = 3.0;

/// Shortest expected wait, in microseconds, whose actual wait is measured.
const MEASURED_WAIT_MIN_US: u64 = 5_000;

/// Number of deviations added to the mean for an upper bound of transaction times and of waits.
const DURATION_DEVIATIONS: f64 = 4.0;
const WAIT_RATIO_DEVIATIONS: f64 = 3.0;

/// Factor of the spacing: interval = factor × duration of a transaction ÷ lanes.
const SPACING_FACTOR: f64 = 0.8;

#[derive(Clone, Copy, Debug)]
struct LatencySamples {
    began: Micros,
    taken: usize,
}

/// Measures the queue and its transactions, and estimates the wait of a new call.
#[derive(Clone, Copy, Debug)]
pub(super) struct LatencyEstimator {
    /// The interval in which every dispatch has left entries waiting, and what was taken in it.
    window: Option<LatencySamples>,
    /// Entries that leave the queue, per microsecond.
    rate: f64,
    rate_measured_at: Option<Micros>,
    /// Mean duration of a transaction and its deviation, in microseconds.
    duration_us: f64,
    duration_deviation: f64,
    /// Actual ÷ expected wait: mean and deviation.
    wait_ratio: f64,
    wait_ratio_deviation: f64,
}

impl Default for LatencyEstimator {
    fn default() -> Self {
        Self {
            window: None,
            rate: 0.0,
            rate_measured_at: None,
            duration_us: 0.0,
            duration_deviation: 0.0,
            wait_ratio: 1.0,
            wait_ratio_deviation: 0.0,
        }
    }
}

impl LatencyEstimator {
    /// Records that a lane took `taken` foreground entries, and whether it left others because it was full.
    pub(super) fn record_dispatch(&mut self, taken: usize, leaves_some: bool, now: Micros) {
        if let Some(window) = &mut self.window {
            window.taken += taken;
            let elapsed = now.since(window.began);
            if elapsed.0 >= limits::RATE_WINDOW.as_micros() as u64 {
                let rate = window.taken as f64 / elapsed.0 as f64;
                self.rate = match self.rate_measured_at {
                    Some(at) if !is_old(at, now) => self.rate + RATE_GAIN * (rate - self.rate),
                    _ => rate,
                };
                self.rate_measured_at = Some(now);
                self.window = None;
            }
        }
        if !leaves_some {
            self.window = None;
        } else if self.window.is_none() {
            self.window = Some(LatencySamples { began: now, taken: 0 });
        }
    }

    /// Ends the current measurement: nothing waits any more, or a lane is busy with a split.
    pub(super) fn reset_window(&mut self) {
        self.window = None;
    }

    /// Records the duration of a transaction, from its first attempt to a known outcome.
    pub(super) fn record_transaction(&mut self, duration: Micros) {
        let duration_us = duration.0 as f64;
        if self.duration_us == 0.0 {
            self.duration_us = duration_us;
            self.duration_deviation = duration_us / 4.0;
            return;
        }
        let off = duration_us - self.duration_us;
        self.duration_us += DURATION_GAIN * off;
        self.duration_deviation += DURATION_DEVIATION_GAIN * (off.abs() - self.duration_deviation);
    }

    /// Records an actual wait and the expected one.
    pub(super) fn record_wait(&mut self, expected: Micros, waited: Micros) {
        if expected.0 < MEASURED_WAIT_MIN_US {
            return;
        }
        let ratio = (waited.0 as f64 / expected.0 as f64).clamp(WAIT_RATIO_MIN, WAIT_RATIO_MAX);
        let off = ratio - self.wait_ratio;
        self.wait_ratio += WAIT_RATIO_GAIN * off;
        self.wait_ratio_deviation += WAIT_RATIO_GAIN * (off.abs() - self.wait_ratio_deviation);
    }

    /// Expected wait of a new entry behind `ahead` others; `None`: not known.
    pub(super) fn expected_wait(&self, ahead: usize, now: Micros) -> Option<Micros> {
        let at = self.rate_measured_at.filter(|at| !is_old(*at, now))?;
        debug_assert!(at <= now);
        (self.rate > 0.0).then(|| Micros((ahead as f64 / self.rate) as u64))
    }

    /// Spacing of transactions at which that many lanes are all in use. Somewhat shorter than duration ÷ lanes, so
    /// that no lane idles while transactions are fast.
    pub(super) fn spacing(&self, lanes: u64) -> Micros {
        let apart = (SPACING_FACTOR * self.duration_us / lanes.max(1) as f64) as u64;
        Micros(apart.min(limits::PACE_MAX.as_micros() as u64))
    }

    /// Upper bound of nearly every wait for which `expected` was estimated.
    pub(super) fn wait_bound(&self, expected: Micros) -> Micros {
        let most = self.wait_ratio + WAIT_RATIO_DEVIATIONS * self.wait_ratio_deviation;
        Micros((expected.0 as f64 * most) as u64)
    }

    /// Upper bound of nearly every transaction.
    pub(super) fn transaction_time_bound(&self) -> Micros {
        Micros((self.duration_us + DURATION_DEVIATIONS * self.duration_deviation) as u64)
    }
}

fn is_old(at: Micros, now: Micros) -> bool {
    now.since(at).0 > limits::RATE_AGE_MAX.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane that takes 99 of many every 28 ms, until `until`.
    fn busy(latency: &mut LatencyEstimator, from: u64, until: u64) -> Micros {
        let mut now = Micros::from_millis(from);
        while now < Micros::from_millis(until) {
            latency.record_transaction(Micros::from_millis(28));
            latency.record_dispatch(99, true, now);
            now = now.plus(Micros::from_millis(28));
        }
        now
    }

    #[test]
    fn rate_and_wait_are_measured_under_a_backlog() {
        let mut latency = LatencyEstimator::default();
        let now = busy(&mut latency, 0, 500);
        let wait = latency.expected_wait(990, now).expect("measured");
        assert!(wait.0.abs_diff(280_000) < 5_000, "{wait:?}");
        assert!(latency.transaction_time_bound().0.abs_diff(28_000) < 4_000, "{latency:?}");
    }

    #[test]
    fn no_estimate_without_a_backlog_or_after_its_age() {
        let mut latency = LatencyEstimator::default();
        for ms in 0..1_000 {
            latency.record_dispatch(1, false, Micros::from_millis(ms));
        }
        assert_eq!(latency.expected_wait(10_000, Micros::from_millis(1_000)), None);
        let now = busy(&mut latency, 1_000, 2_000);
        assert!(latency.expected_wait(1, now).is_some());
        let later = now.plus(Micros(limits::RATE_AGE_MAX.as_micros() as u64 + 1));
        assert_eq!(latency.expected_wait(10_000, later), None);
    }

    #[test]
    fn estimate_follows_actual_waits() {
        let mut latency = LatencyEstimator::default();
        let expected = Micros::from_millis(100);
        for _ in 0..100 {
            latency.record_wait(expected, Micros::from_millis(150));
        }
        assert!(latency.wait_bound(expected).0.abs_diff(150_000) < 3_000, "{latency:?}");
        latency.record_wait(Micros(10), Micros::from_millis(500));
        assert!(latency.wait_bound(expected).0 < 153_000, "a short wait teaches nothing");
    }

    #[test]
    fn bound_covers_varying_transaction_times() {
        let mut latency = LatencyEstimator::default();
        for n in 0..200 {
            latency.record_transaction(Micros::from_millis(if n % 2 == 0 { 20 } else { 40 }));
        }
        let most = latency.transaction_time_bound().0;
        assert!((60_000..85_000).contains(&most), "{most}");
    }
}
