//! When each call is due: a rate curve, and arrivals drawn along it.
//!
//! The curve is a list of linear segments, so that the expected number of calls up to any time, and the time of
//! any call number, are exact formulas. Arrivals are steps in call numbers: of length one (uniform), or
//! exponential with mean one (Poisson).

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rand_distr::Exp1;
use serde::Deserialize;

/// A linear segment of a rate curve, in calls per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateSegment {
    pub seconds: f64,
    pub from: f64,
    pub to: f64,
}

impl RateSegment {
    fn calls(self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// Seconds from the start of the segment to the `n`-th call.
    fn time_of(self, n: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // Solves from·t + slope·t²/2 = n in the form that stays exact for small slopes.
        let root = (self.from * self.from + 2.0 * slope * n).max(0.0).sqrt();
        let t = if n <= 0.0 { 0.0 } else { 2.0 * n / (self.from + root) };
        t.min(self.seconds)
    }
}

/// Calls per second over time.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RateCurve {
    segments: Vec<RateSegment>,
}

impl RateCurve {
    pub fn new(segments: Vec<RateSegment>) -> Self {
        Self { segments }
    }

    pub fn segments(&self) -> &[RateSegment] {
        &self.segments
    }

    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.segments.iter().map(|segment| segment.seconds).sum()
    }

    /// Expected number of calls.
    pub fn calls(&self) -> f64 {
        self.segments.iter().map(|segment| segment.calls()).sum()
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        let ends = self.segments.iter().flat_map(|segment| [segment.from, segment.to]);
        ends.fold(0.0, f64::max)
    }

    /// The curve with every rate multiplied by `factor`.
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |segment: &RateSegment| RateSegment {
            from: segment.from * factor,
            to: segment.to * factor,
            ..*segment
        };
        Self::new(self.segments.iter().map(scale).collect())
    }

    /// Seconds from the start to the `n`-th call; `None` beyond the end.
    pub fn time_of(&self, mut n: f64) -> Option<f64> {
        let mut start = 0.0;
        for segment in &self.segments {
            let calls = segment.calls();
            if n < calls {
                return Some(start + segment.time_of(n));
            }
            n -= calls;
            start += segment.seconds;
        }
        None
    }
}

/// Distribution of arrivals along a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalSpacing {
    /// Independent arrivals.
    Poisson,
    /// Equal gaps.
    Uniform,
}

/// Due times of one worker in ascending order, in nanoseconds since the start.
#[derive(Clone, Debug)]
pub struct Arrivals {
    curve: RateCurve,
    spacing: ArrivalSpacing,
    rng: SmallRng,
    /// Call number of the next arrival.
    at: f64,
    /// The segment it lies in, the expected calls before that segment, and its start in seconds.
    segment: usize,
    before: f64,
    start: f64,
}

impl Arrivals {
    /// Part `part` of `parts` of the calls of `curve`. All parts together follow the curve.
    pub fn new(
        curve: &RateCurve,
        spacing: ArrivalSpacing,
        seed: u64,
        part: u32,
        parts: u32,
    ) -> Self {
        let parts = parts.max(1);
        let mut arrivals = Self {
            curve: curve.scaled(1.0 / f64::from(parts)),
            spacing,
            rng: SmallRng::seed_from_u64(seed ^ (u64::from(part) << 32)),
            at: 0.0,
            segment: 0,
            before: 0.0,
            start: 0.0,
        };
        arrivals.at = match spacing {
            ArrivalSpacing::Poisson => arrivals.step(),
            ArrivalSpacing::Uniform => f64::from(part) / f64::from(parts),
        };
        arrivals
    }

    fn step(&mut self) -> f64 {
        match self.spacing {
            ArrivalSpacing::Uniform => 1.0,
            ArrivalSpacing::Poisson => self.rng.sample(Exp1),
        }
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let segment = *self.curve.segments.get(self.segment)?;
            let n = self.at - self.before;
            if n < segment.calls() {
                let due = self.start + segment.time_of(n);
                self.at += self.step();
                return Some((due * 1e9) as u64);
            }
            self.before += segment.calls();
            self.start += segment.seconds;
            self.segment += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments() -> impl Strategy<Value = Vec<RateSegment>> {
        let segment = (0.5..20.0_f64, 0.0..5_000.0_f64, 0.0..5_000.0_f64);
        let segment = segment.prop_map(|(seconds, from, to)| RateSegment { seconds, from, to });
        prop::collection::vec(segment, 1..5)
    }

    /// Expected calls up to `t`, by numeric integration.
    fn counted(curve: &RateCurve, t: f64) -> f64 {
        let (mut sum, mut start) = (0.0, 0.0);
        for segment in curve.segments() {
            let within = (t - start).clamp(0.0, segment.seconds);
            let slices = 2_000;
            for k in 0..slices {
                let at = (f64::from(k) + 0.5) / f64::from(slices) * within;
                let rate = segment.from + (segment.to - segment.from) * at / segment.seconds;
                sum += rate * within / f64::from(slices);
            }
            start += segment.seconds;
        }
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn time_of_a_call_is_where_the_curve_reaches_its_number(segments in segments(), part in 0.0..1.0_f64) {
            let curve = RateCurve::new(segments);
            let n = curve.calls() * part;
            let t = curve.time_of(n).unwrap();
            prop_assert!((counted(&curve, t) - n).abs() < 1e-6 * (1.0 + curve.calls()));
        }

        #[test]
        fn arrivals_ascend_and_match_the_expected_count(
            segments in segments(), poisson: bool, seed: u64, parts in 1..4_u32,
        ) {
            let curve = RateCurve::new(segments);
            let spacing = if poisson { ArrivalSpacing::Poisson } else { ArrivalSpacing::Uniform };
            let mut count = 0_u32;
            for part in 0..parts {
                let mut last = 0;
                for due in Arrivals::new(&curve, spacing, seed, part, parts) {
                    prop_assert!(due >= last);
                    prop_assert!(due as f64 / 1e9 <= curve.seconds() + 1e-6);
                    last = due;
                    count += 1;
                }
            }
            let want = curve.calls();
            let spread = if poisson { 6.0 * want.sqrt() + 10.0 } else { f64::from(parts) + 1.0 };
            prop_assert!((f64::from(count) - want).abs() <= spread, "{count}, want {want}");
        }

        #[test]
        fn every_second_has_its_rate(seed: u64, poisson: bool) {
            let segment = |seconds, from, to| RateSegment { seconds, from, to };
            let curve = RateCurve::new(vec![segment(2.0, 1_000.0, 1_000.0), segment(4.0, 1_000.0, 9_000.0), segment(1.0, 500.0, 500.0)]);
            let spacing = if poisson { ArrivalSpacing::Poisson } else { ArrivalSpacing::Uniform };
            let mut seconds = [0_u32; 7];
            for due in Arrivals::new(&curve, spacing, seed, 0, 1) {
                seconds[(due / 1_000_000_000).min(6) as usize] += 1;
            }
            for (got, want) in seconds.into_iter().zip([1_000.0, 1_000.0, 2_000.0, 4_000.0, 6_000.0, 8_000.0, 500.0_f64]) {
                let spread = if poisson { 6.0 * want.sqrt() } else { 1.5 };
                prop_assert!((f64::from(got) - want).abs() <= spread, "{got}, want {want}");
            }
        }
    }

    #[test]
    fn arrivals_depend_on_the_seed_only() {
        let curve = RateCurve::new(vec![RateSegment { seconds: 1.0, from: 1_000.0, to: 1_000.0 }]);
        let of =
            |seed| Arrivals::new(&curve, ArrivalSpacing::Poisson, seed, 0, 1).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        let curve =
            RateCurve::new(vec![RateSegment { seconds: 100.0, from: 1_000.0, to: 1_000.0 }]);
        let due: Vec<_> = Arrivals::new(&curve, ArrivalSpacing::Poisson, 3, 0, 1).collect();
        let gaps: Vec<_> = due.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        let long = gaps.iter().filter(|gap| **gap > 2.0).count() as f64 / gaps.len() as f64;
        assert!((long - (-2.0_f64).exp()).abs() < 0.01, "{long}");
    }
}
