//! Latency of calls: a curve through three percentiles, which depend on the operation and its number of
//! actions.
//!
//! Between the percentiles the curve is log-normal piece by piece: the logarithm of the latency is linear in
//! the normal score. Below the median the first piece continues, above the 99th percentile the last one, up to
//! [`limits::LATENCY_Z_MAX`]; for transactions the last piece of the shortest one, which is the steepest, so that
//! more actions never take less time.
//!
//! Sources of the figures. `lambda-2020`: PutItem and TransactWriteItems of 5 and 25 items are percentiles
//! published in 2020, 400 calls each, from Lambda. `in-region` is assumed to be about 0.6 of them, for a warm
//! server in the region. Also assumed: transactions of 100 actions (in `lambda-2020` scaled from 25 as in
//! `in-region`), reads (in `lambda-2020` scaled from PutItem as in `in-region`), and the 99th percentile of reads.

use clap::ValueEnum;
use rand::Rng;
use rand_distr::StandardNormal;

use crate::ModelTime;
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LatencyProfile {
    /// A warm server in the table's region.
    InRegion,
    /// As published from Lambda in 2020.
    #[value(name = "lambda-2020")]
    Lambda2020,
    /// No latency: for comparing responses.
    None,
}

/// 50th, 95th and 99th percentile in milliseconds.
type Percentiles = [f64; 3];

struct LatencyCurves {
    write: Percentiles,
    read: Percentiles,
    /// By number of actions, ascending. Transactions of fewer actions take the first entry.
    transaction: [(f64, Percentiles); 3],
}

const IN_REGION: LatencyCurves = LatencyCurves {
    write: [4.5, 8.0, 10.0],
    read: [3.0, 6.0, 9.0],
    transaction: [
        (5.0, [13.0, 21.0, 45.0]),
        (25.0, [19.0, 28.0, 55.0]),
        (100.0, [28.0, 39.0, 70.0]),
    ],
};

const LAMBDA_2020: LatencyCurves = LatencyCurves {
    write: [7.55, 13.2, 16.2],
    // 3, 6, 9 times 7.55/4.5, 13.2/8, 16.2/10.
    read: [5.03, 9.9, 14.6],
    transaction: [
        (5.0, [25.3, 36.4, 92.5]),
        (25.0, [32.1, 47.2, 97.5]),
        // Times 28/19, 39/28, 70/55.
        (100.0, [47.3, 65.7, 124.1]),
    ],
};

/// Normal scores of the three percentiles.
const SCORES: [f64; 3] = [0.0, 1.644_853_627, 2.326_347_874];

/// Kind of a call, with the number of its actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LatencyClass {
    Write,
    /// Concurrent reads: as slow as the slowest of them.
    Reads(usize),
    Transaction(usize),
}

impl LatencyProfile {
    /// Draws the latency of one call.
    pub(crate) fn draw(self, class: LatencyClass, rng: &mut impl Rng) -> ModelTime {
        let draws = match (self, class) {
            (Self::None, _) => return 0,
            (_, LatencyClass::Reads(reads)) => reads.max(1),
            _ => 1,
        };
        let scores = (0..draws).map(|_| rng.sample::<f64, _>(StandardNormal));
        self.latency(class, scores.fold(f64::NEG_INFINITY, f64::max))
    }

    /// The latency of the slowest action, at a normal score.
    fn latency(self, class: LatencyClass, score: f64) -> ModelTime {
        let curves = match self {
            Self::InRegion => &IN_REGION,
            Self::Lambda2020 => &LAMBDA_2020,
            Self::None => return 0,
        };
        let (percentiles, tail) = match class {
            LatencyClass::Write => (curves.write, curves.write),
            LatencyClass::Reads(_) => (curves.read, curves.read),
            LatencyClass::Transaction(actions) => {
                let percentiles = interpolate(&curves.transaction, actions as f64);
                (percentiles, curves.transaction[0].1)
            }
        };
        let score = score.clamp(limits::LATENCY_Z_MIN, limits::LATENCY_Z_MAX);
        (at_score(percentiles, tail, score) * 1_000.0) as ModelTime
    }
}

/// Linear in the number of actions, constant outside the entries.
fn interpolate(entries: &[(f64, Percentiles); 3], actions: f64) -> Percentiles {
    let actions = actions.clamp(entries[0].0, entries[2].0);
    let [(n0, low), (n1, high)] = match actions <= entries[1].0 {
        true => [entries[0], entries[1]],
        false => [entries[1], entries[2]],
    };
    let part = (actions - n0) / (n1 - n0);
    std::array::from_fn(|at| low[at] + (high[at] - low[at]) * part)
}

/// `tail`: the percentiles whose last piece continues beyond the 99th.
fn at_score(percentiles: Percentiles, tail: Percentiles, score: f64) -> f64 {
    let slope = |of: Percentiles, piece: usize| {
        (of[piece + 1] / of[piece]).ln() / (SCORES[piece + 1] - SCORES[piece])
    };
    let (from, slope) = match score {
        s if s > SCORES[2] => (2, slope(tail, 1)),
        s if s > SCORES[1] => (1, slope(percentiles, 1)),
        _ => (0, slope(percentiles, 0)),
    };
    percentiles[from] * (slope * (score - SCORES[from])).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    /// 50th, 95th and 99th percentile of 200,000 draws, in milliseconds.
    fn drawn(profile: LatencyProfile, class: LatencyClass) -> Percentiles {
        let mut rng = SmallRng::seed_from_u64(7);
        let draws = (0..200_000).map(|_| profile.draw(class, &mut rng));
        let mut draws: Vec<ModelTime> = draws.collect();
        draws.sort_unstable();
        [0.5, 0.95, 0.99].map(|p| draws[(draws.len() as f64 * p) as usize] as f64 / 1_000.0)
    }

    #[test]
    fn draws_have_the_percentiles_of_the_table() {
        use LatencyClass::{Reads, Transaction, Write};
        use LatencyProfile::{InRegion, Lambda2020};
        for (profile, class, expected) in [
            (InRegion, Write, [4.5, 8.0, 10.0]),
            (InRegion, Reads(1), [3.0, 6.0, 9.0]),
            (InRegion, Transaction(1), [13.0, 21.0, 45.0]),
            (InRegion, Transaction(5), [13.0, 21.0, 45.0]),
            (InRegion, Transaction(25), [19.0, 28.0, 55.0]),
            (InRegion, Transaction(100), [28.0, 39.0, 70.0]),
            (Lambda2020, Write, [7.55, 13.2, 16.2]),
            (Lambda2020, Transaction(5), [25.3, 36.4, 92.5]),
            (Lambda2020, Transaction(25), [32.1, 47.2, 97.5]),
            (Lambda2020, Transaction(100), [47.3, 65.7, 124.1]),
        ] {
            let drawn = drawn(profile, class);
            for (drawn, expected) in drawn.iter().zip(expected) {
                assert!(
                    (drawn / expected - 1.0).abs() < 0.02,
                    "{profile:?} {class:?}: {drawn} instead of {expected}"
                );
            }
        }
        let mut rng = SmallRng::seed_from_u64(7);
        assert_eq!(LatencyProfile::None.draw(Write, &mut rng), 0);
    }

    #[test]
    fn more_actions_never_take_less_time() {
        for profile in [LatencyProfile::InRegion, LatencyProfile::Lambda2020] {
            for score in [-2.3, 0.0, 1.3, 1.9, 3.1, 4.0] {
                let of = |n| profile.latency(LatencyClass::Transaction(n), score);
                assert!((1..130).all(|n| of(n) <= of(n + 1)), "{profile:?} {score}");
            }
        }
    }

    #[test]
    fn a_batch_of_reads_is_as_slow_as_its_slowest_read() {
        let of = drawn(LatencyProfile::InRegion, LatencyClass::Reads(64));
        // The 0.5^(1/64) = 0.9892 quantile of one read is close to its 99th percentile.
        assert!((8.0..10.0).contains(&of[0]), "{of:?}");
    }
}
