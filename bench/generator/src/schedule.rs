//! When each call is due: a rate curve, and arrivals drawn along it.
//!
//! The curve is a list of straight pieces, so that the expected number of calls up to any instant,
//! and the instant of any number, are exact formulas. Arrivals are steps along that number: of
//! length one (uniform), or exponential with mean one (Poisson).

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::Deserialize;

/// One piece of a curve: from one rate to another in a straight line. Calls per second, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    pub seconds: f64,
    pub from: f64,
    pub to: f64,
}

impl Piece {
    fn calls(self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// The instant, within the piece, of the `n`-th call.
    fn instant(self, n: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // from t + slope t²/2 = n, in the form that loses nothing when the slope is small.
        let root = (self.from * self.from + 2.0 * slope * n).max(0.0).sqrt();
        let t = if n <= 0.0 {
            0.0
        } else {
            2.0 * n / (self.from + root)
        };
        t.min(self.seconds)
    }
}

/// Calls per second over time.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Curve {
    pieces: Vec<Piece>,
}

impl Curve {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces }
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Seconds in all.
    pub fn seconds(&self) -> f64 {
        self.pieces.iter().map(|piece| piece.seconds).sum()
    }

    /// Calls expected in all.
    pub fn calls(&self) -> f64 {
        self.pieces.iter().map(|piece| piece.calls()).sum()
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        let ends = self.pieces.iter().flat_map(|piece| [piece.from, piece.to]);
        ends.fold(0.0, f64::max)
    }

    /// The same with every rate times `factor`.
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |piece: &Piece| Piece {
            from: piece.from * factor,
            to: piece.to * factor,
            ..*piece
        };
        Self::new(self.pieces.iter().map(scale).collect())
    }

    /// Which piece `seconds` lies in; the last one beyond the end.
    pub fn piece_at(&self, seconds: f64) -> usize {
        let mut end = 0.0;
        for (index, piece) in self.pieces.iter().enumerate() {
            end += piece.seconds;
            if seconds < end {
                return index;
            }
        }
        self.pieces.len().saturating_sub(1)
    }

    /// The instant of the `n`-th call, in seconds; `None` beyond the end.
    pub fn instant(&self, mut n: f64) -> Option<f64> {
        let mut start = 0.0;
        for piece in &self.pieces {
            let calls = piece.calls();
            if n < calls {
                return Some(start + piece.instant(n));
            }
            n -= calls;
            start += piece.seconds;
        }
        None
    }
}

/// How arrivals lie along a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// As independent buyers come.
    Poisson,
    /// Evenly.
    Uniform,
}

/// The due instants of one worker, in nanoseconds since the start, ascending.
#[derive(Clone, Debug)]
pub struct Arrivals {
    curve: Curve,
    spacing: Spacing,
    rng: SmallRng,
    /// Expected calls up to the next arrival.
    at: f64,
    /// The piece it lies in, the expected calls before that piece, and its start in seconds.
    piece: usize,
    before: f64,
    start: f64,
}

impl Arrivals {
    /// Part `part` of `parts` of the calls of `curve`; all parts together follow the curve.
    pub fn new(curve: &Curve, spacing: Spacing, seed: u64, part: u32, parts: u32) -> Self {
        let parts = parts.max(1);
        let mut arrivals = Self {
            curve: curve.scaled(1.0 / f64::from(parts)),
            spacing,
            rng: SmallRng::seed_from_u64(seed ^ (u64::from(part) << 32)),
            at: 0.0,
            piece: 0,
            before: 0.0,
            start: 0.0,
        };
        arrivals.at = match spacing {
            Spacing::Poisson => arrivals.step(),
            // The parts interleave.
            Spacing::Uniform => f64::from(part) / f64::from(parts),
        };
        arrivals
    }

    fn step(&mut self) -> f64 {
        match self.spacing {
            Spacing::Uniform => 1.0,
            Spacing::Poisson => {
                // In (0, 1]: its logarithm is finite.
                let draw = 1.0 - self.rng.random::<f64>();
                -draw.ln()
            }
        }
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let piece = *self.curve.pieces.get(self.piece)?;
            let n = self.at - self.before;
            if n < piece.calls() {
                let due = self.start + piece.instant(n);
                self.at += self.step();
                return Some((due * 1e9) as u64);
            }
            self.before += piece.calls();
            self.start += piece.seconds;
            self.piece += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let piece = (0.5..20.0_f64, 0.0..5_000.0_f64, 0.0..5_000.0_f64);
        let piece = piece.prop_map(|(seconds, from, to)| Piece { seconds, from, to });
        prop::collection::vec(piece, 1..5)
    }

    /// Expected calls up to `t`, by adding up thin slices.
    fn counted(curve: &Curve, t: f64) -> f64 {
        let (mut sum, mut start) = (0.0, 0.0);
        for piece in curve.pieces() {
            let within = (t - start).clamp(0.0, piece.seconds);
            let slices = 2_000;
            for k in 0..slices {
                let at = (f64::from(k) + 0.5) / f64::from(slices) * within;
                let rate = piece.from + (piece.to - piece.from) * at / piece.seconds;
                sum += rate * within / f64::from(slices);
            }
            start += piece.seconds;
        }
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_instant_of_a_number_is_where_the_curve_reaches_it(pieces in pieces(), part in 0.0..1.0_f64) {
            let curve = Curve::new(pieces);
            let n = curve.calls() * part;
            let t = curve.instant(n).unwrap();
            prop_assert!((counted(&curve, t) - n).abs() < 1e-6 * (1.0 + curve.calls()));
        }

        #[test]
        fn arrivals_ascend_and_are_as_many_as_the_curve_says(
            pieces in pieces(), poisson: bool, seed: u64, parts in 1..4_u32,
        ) {
            let curve = Curve::new(pieces);
            let spacing = if poisson { Spacing::Poisson } else { Spacing::Uniform };
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
            let piece = |seconds, from, to| Piece { seconds, from, to };
            let curve = Curve::new(vec![piece(2.0, 1_000.0, 1_000.0), piece(4.0, 1_000.0, 9_000.0), piece(1.0, 500.0, 500.0)]);
            let spacing = if poisson { Spacing::Poisson } else { Spacing::Uniform };
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
    fn the_same_seed_gives_the_same_arrivals_and_another_does_not() {
        let curve = Curve::new(vec![Piece {
            seconds: 1.0,
            from: 1_000.0,
            to: 1_000.0,
        }]);
        let of = |seed| Arrivals::new(&curve, Spacing::Poisson, seed, 0, 1).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        let curve = Curve::new(vec![Piece {
            seconds: 100.0,
            from: 1_000.0,
            to: 1_000.0,
        }]);
        let due: Vec<_> = Arrivals::new(&curve, Spacing::Poisson, 3, 0, 1).collect();
        let gaps: Vec<_> = due.windows(2).map(|w| (w[1] - w[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        let long = gaps.iter().filter(|gap| **gap > 2.0).count() as f64 / gaps.len() as f64;
        assert!((long - (-2.0_f64).exp()).abs() < 0.01, "{long}");
    }
}
