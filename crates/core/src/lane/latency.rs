//! Latency estimator: the rate of a queue and the duration of a transaction, as measured, and the wait
//! that a new call has to expect.
//!
//! The rate is measured only while entries are left waiting, because then the lanes determine it and
//! not the arrivals. Old figures are ignored: without a figure no call is rejected.

use crate::limits;
use crate::time::Micros;

/// Weight of a new rate in the mean: a few windows of [`limits::RATE_WINDOW`] each.
const RATE_GAIN: f64 = 0.3;

/// Weights of a new duration in its mean and its deviation, as TCP measures round trips.
const TIME_GAIN: f64 = 0.125;
const DEVIATION_GAIN: f64 = 0.25;

/// Weight of a ratio of actual to expected wait in its mean: so the estimator corrects for what the
/// figures leave out (variance, pauses, requeued entries).
const ERROR_GAIN: f64 = 0.1;

/// Bounds of that mean.
const ERROR_MIN: f64 = 0.35;
const ERROR_MAX: f64 = 3.0;

/// Shorter waits are not measured, in microseconds.
const WAIT_TOLD: u64 = 5_000;

/// Deviations over the mean within which nearly every transaction, and nearly every wait, ends.
const TIME_DEVIATIONS: f64 = 4.0;
const ERROR_DEVIATIONS: f64 = 3.0;

/// Spacing of two transactions, as part of an even share of the duration of one.
const PACE: f64 = 0.8;

#[derive(Clone, Copy, Debug)]
struct LatencySamples {
    began: Micros,
    taken: usize,
}

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct LatencyEstimator {
    /// Start of the interval in which every dispatch has left entries waiting.
    window: Option<LatencySamples>,
    /// Entries that leave the queue, per microsecond.
    rate: f64,
    rated: Option<Micros>,
    /// Mean duration of a transaction and its deviation, in microseconds.
    took: f64,
    deviation: f64,
    /// Ratio of actual to expected waits: mean and deviation.
    error: f64,
    error_deviation: f64,
}

impl Default for LatencyEstimator {
    fn default() -> Self {
        Self {
            window: None,
            rate: 0.0,
            rated: None,
            took: 0.0,
            deviation: 0.0,
            error: 1.0,
            error_deviation: 0.0,
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
                self.rate = match self.rated {
                    Some(at) if !is_old(at, now) => self.rate + RATE_GAIN * (rate - self.rate),
                    _ => rate,
                };
                self.rated = Some(now);
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
    pub(super) fn record_transaction(&mut self, took: Micros) {
        let took = took.0 as f64;
        if self.took == 0.0 {
            self.took = took;
            self.deviation = took / 4.0;
            return;
        }
        let off = took - self.took;
        self.took += TIME_GAIN * off;
        self.deviation += DEVIATION_GAIN * (off.abs() - self.deviation);
    }

    /// Records an actual wait and the expected one.
    pub(super) fn record_wait(&mut self, expected: Micros, waited: Micros) {
        if expected.0 < WAIT_TOLD {
            return;
        }
        let ratio = (waited.0 as f64 / expected.0 as f64).clamp(ERROR_MIN, ERROR_MAX);
        let off = ratio - self.error;
        self.error += ERROR_GAIN * off;
        self.error_deviation += ERROR_GAIN * (off.abs() - self.error_deviation);
    }

    /// Expected wait of a new entry behind `ahead` others; `None`: not known.
    pub(super) fn expected_wait(&self, ahead: usize, now: Micros) -> Option<Micros> {
        let at = self.rated.filter(|at| !is_old(*at, now))?;
        debug_assert!(at <= now);
        (self.rate > 0.0).then(|| Micros((ahead as f64 / self.rate) as u64))
    }

    /// Spacing of transactions at which that many lanes are all in use: somewhat less than an even share,
    /// so that no lane idles when transactions are quick.
    pub(super) fn spacing(&self, lanes: u64) -> Micros {
        let apart = (PACE * self.took / lanes.max(1) as f64) as u64;
        Micros(apart.min(limits::PACE_MAX.as_micros() as u64))
    }

    /// Upper bound of nearly every wait for which `expected` was estimated.
    pub(super) fn wait_bound(&self, expected: Micros) -> Micros {
        let most = self.error + ERROR_DEVIATIONS * self.error_deviation;
        Micros((expected.0 as f64 * most) as u64)
    }

    /// Upper bound of nearly every transaction.
    pub(super) fn transaction_time_bound(&self) -> Micros {
        Micros((self.took + TIME_DEVIATIONS * self.deviation) as u64)
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
    fn a_backlog_shows_the_rate_and_the_wait() {
        let mut latency = LatencyEstimator::default();
        let now = busy(&mut latency, 0, 500);
        let wait = latency.expected_wait(990, now).expect("measured");
        assert!(wait.0.abs_diff(280_000) < 5_000, "{wait:?}");
        assert!(latency.transaction_time_bound().0.abs_diff(28_000) < 4_000, "{latency:?}");
    }

    #[test]
    fn without_a_backlog_and_after_a_while_nothing_is_known() {
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
    fn waits_that_turn_out_longer_are_learned() {
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
    fn times_that_scatter_are_allowed_for() {
        let mut latency = LatencyEstimator::default();
        for n in 0..200 {
            latency.record_transaction(Micros::from_millis(if n % 2 == 0 { 20 } else { 40 }));
        }
        let most = latency.transaction_time_bound().0;
        assert!((60_000..85_000).contains(&most), "{most}");
    }
}
