//! Offset of the local clock from the store's, from the `Date` headers of its answers.
//!
//! `Date` is the store's time, cut to a second. An answer with the date `d`, received at `r` for a request that was
//! sent at `s`, bounds the offset of the local clock: at least `s - d - 1 s`, at most `r - d`. The error of one answer
//! is half a second and half the round trip. Further answers narrow the bounds, down to the round trip.

use inventory_core::time::Micros;

use crate::limits;

const SECOND: i64 = 1_000_000;

/// How far the local clock is ahead of the store's (negative: behind), and how far that may be wrong, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockSkew {
    pub ahead: f64,
    pub error: f64,
}

impl ClockSkew {
    /// The least offset that agrees with the measurement, whatever its sign.
    pub fn at_least(self) -> f64 {
        (self.ahead.abs() - self.error).max(0.0)
    }
}

/// Bounds of the offset in microseconds.
#[derive(Clone, Copy, Debug)]
struct OffsetBounds {
    least: i64,
    most: i64,
}

impl OffsetBounds {
    fn and(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), most: self.most.min(other.most) }
    }
}

/// Collects bounds over [`limits::CLOCK_SKEW_WINDOW`], so that a change of a clock is noticed.
#[derive(Debug, Default)]
pub(super) struct SkewEstimator {
    earlier: Option<OffsetBounds>,
    current: Option<OffsetBounds>,
    window_ends: Micros,
}

impl SkewEstimator {
    /// `date`: seconds since the Unix epoch. `sent` and `received`: the local wall clock in microseconds since then.
    pub(super) fn record(&mut self, date: i64, sent: i64, received: i64, now: Micros) {
        if now >= self.window_ends {
            let window = Micros(limits::CLOCK_SKEW_WINDOW.as_micros() as u64);
            self.window_ends = now.plus(window);
            self.earlier = self.current.take();
        }
        let date = date.saturating_mul(SECOND);
        let bounds = OffsetBounds { least: sent - date - SECOND, most: received - date };
        let both = self.current.map_or(bounds, |current| current.and(bounds));
        let is_consistent = both.least <= both.most;
        // A clock was set meanwhile: only the newest answer counts.
        self.current = Some(if is_consistent { both } else { bounds });
        if !is_consistent {
            self.earlier = None;
        }
    }

    /// `None` before the first answer with a date.
    pub(super) fn skew(&self) -> Option<ClockSkew> {
        let current = self.current.or(self.earlier)?;
        let both = self.earlier.map_or(current, |earlier| earlier.and(current));
        let bounds = if both.least <= both.most { both } else { current };
        let seconds = |micros: i64| micros as f64 / SECOND as f64;
        Some(ClockSkew {
            ahead: seconds(bounds.least + (bounds.most - bounds.least) / 2),
            error: seconds((bounds.most - bounds.least + 1) / 2),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Answers every 130 ms within 10 ms, while the local clock is `ahead` of the store's, in microseconds.
    fn measured(estimator: &mut SkewEstimator, from: i64, ahead: i64, answers: i64) -> ClockSkew {
        for answer in 0..answers {
            let store = 1_000_000 * SECOND + from + answer * 130_000;
            let local = store + ahead;
            let now = Micros((from + answer * 130_000) as u64);
            estimator.record(store.div_euclid(SECOND), local - 5_000, local + 5_000, now);
        }
        estimator.skew().unwrap()
    }

    #[test]
    fn one_answer_leaves_half_a_second_and_many_leave_little() {
        for ahead in [0, 45 * SECOND, -45 * SECOND, 300_000] {
            let one = measured(&mut SkewEstimator::default(), 400_000, ahead, 1);
            assert!((0.5..0.51).contains(&one.error), "{one:?}");
            let many = measured(&mut SkewEstimator::default(), 400_000, ahead, 100);
            assert!(many.error < 0.08, "{many:?}");
            for skew in [one, many] {
                let off = (skew.ahead - ahead as f64 / 1e6).abs();
                assert!(off <= skew.error, "{ahead}: {skew:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_is_measured_anew() {
        let mut estimator = SkewEstimator::default();
        measured(&mut estimator, 0, 0, 100);
        let skew = measured(&mut estimator, 13 * SECOND, 45 * SECOND, 100);
        assert!((skew.ahead - 45.0).abs() <= skew.error && skew.error < 0.08, "{skew:?}");
        assert!(skew.at_least() > 44.0);
    }

    #[test]
    fn a_slow_drift_is_followed() {
        let mut estimator = SkewEstimator::default();
        let window = limits::CLOCK_SKEW_WINDOW.as_micros() as i64;
        for step in 0..20 {
            let skew = measured(&mut estimator, step * window, step * 100_000, 100);
            let off = (skew.ahead - step as f64 / 10.0).abs();
            assert!(off <= skew.error + 0.1, "{step}: {skew:?}");
        }
    }
}
