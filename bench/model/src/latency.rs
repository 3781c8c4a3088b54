//! How long a call takes: drawn from a curve through three percentiles, which depend on the operation
//! and on how many actions it has.
//!
//! Between the percentiles the curve is log-normal, each piece with its own spread: the logarithm of
//! the latency is linear in the normal score. Below the median the first piece goes on, above the 99th
//! percentile the last one, as far as [`limits::LATENCY_Z_MAX`]; of transactions that of the shortest,
//! which is the steepest, so that a longer one never takes less time.
//!
//! Sources of the figures. `lambda-2020`: PutItem and TransactWriteItems of 5 and 25 items are
//! percentiles published in 2020, 400 calls each, from Lambda. `in-region` is assumed from them for a
//! warm server in the region, about 0.6 of it. Assumed too, in both: transactions of 100 actions (in
//! `lambda-2020` scaled from 25 as in `in-region`), and reads (in `lambda-2020` scaled from PutItem as
//! in `in-region`), the 99th percentile of reads.

use crate::Micros;
use crate::limits;

/// Which figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A warm server in the region of the table.
    InRegion,
    /// As published from Lambda in 2020.
    Lambda2020,
    /// No time passes: for comparing answers.
    None,
}

/// 50th, 95th and 99th percentile, milliseconds.
type Percentiles = [f64; 3];

/// A transaction of one action takes as long as one of five; `in-region` gives 2 to 5 one figure.
struct Figures {
    write: Percentiles,
    read: Percentiles,
    /// By number of actions, ascending.
    transaction: [(f64, Percentiles); 3],
}

const IN_REGION: Figures = Figures {
    write: [4.5, 8.0, 10.0],
    read: [3.0, 6.0, 9.0],
    transaction: [
        (5.0, [13.0, 21.0, 45.0]),
        (25.0, [19.0, 28.0, 55.0]),
        (100.0, [28.0, 39.0, 70.0]),
    ],
};

const LAMBDA_2020: Figures = Figures {
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

/// What takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Write,
    /// So many reads side by side: as long as the longest of them.
    Reads(usize),
    /// So many actions.
    Transaction(usize),
}

impl Profile {
    pub const ALL: [(&'static str, Profile); 3] = [
        ("in-region", Profile::InRegion),
        ("lambda-2020", Profile::Lambda2020),
        ("none", Profile::None),
    ];

    /// The latency at `uniform`, which is drawn evenly from 0 to 1.
    pub fn latency(self, shape: Shape, uniform: f64) -> Micros {
        let figures = match self {
            Profile::InRegion => &IN_REGION,
            Profile::Lambda2020 => &LAMBDA_2020,
            Profile::None => return 0,
        };
        let (percentiles, tail, uniform) = match shape {
            Shape::Write => (figures.write, figures.write, uniform),
            Shape::Reads(count) => {
                let slowest = uniform.powf(1.0 / count.max(1) as f64);
                (figures.read, figures.read, slowest)
            }
            Shape::Transaction(actions) => {
                let percentiles = between(&figures.transaction, actions as f64);
                (percentiles, figures.transaction[0].1, uniform)
            }
        };
        let score = normal_score(uniform).clamp(limits::LATENCY_Z_MIN, limits::LATENCY_Z_MAX);
        (at(percentiles, tail, score) * 1_000.0) as Micros
    }
}

/// Linear in the number of actions, level outside the figures.
fn between(figures: &[(f64, Percentiles); 3], actions: f64) -> Percentiles {
    let actions = actions.clamp(figures[0].0, figures[2].0);
    let [(n0, low), (n1, high)] = match actions <= figures[1].0 {
        true => [figures[0], figures[1]],
        false => [figures[1], figures[2]],
    };
    let part = (actions - n0) / (n1 - n0);
    std::array::from_fn(|at| low[at] + (high[at] - low[at]) * part)
}

/// `tail`: the percentiles whose last piece goes on beyond the 99th.
fn at(percentiles: Percentiles, tail: Percentiles, score: f64) -> f64 {
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

/// The normal distribution's quantile, by Acklam's rational approximation (relative error below
/// 1.2e-9).
fn normal_score(uniform: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        0.007_784_695_709_041_462,
        0.322_467_129_070_039_8,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    let power = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        power(&C, q) / (power(&D, q) * q + 1.0)
    };
    let p = uniform.clamp(1e-12, 1.0 - 1e-12);
    if p < 0.024_25 {
        tail(p)
    } else if p > 1.0 - 0.024_25 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        power(&A, r) * q / (power(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    /// The 50th, 95th and 99th percentile of 200,000 draws, milliseconds.
    fn drawn(profile: Profile, shape: Shape) -> Percentiles {
        let mut rng = SmallRng::seed_from_u64(7);
        let draw = |_| profile.latency(shape, rng.random::<f64>());
        let mut all: Vec<Micros> = (0..200_000).map(draw).collect();
        all.sort_unstable();
        [0.5, 0.95, 0.99].map(|p| all[(all.len() as f64 * p) as usize] as f64 / 1_000.0)
    }

    #[test]
    fn what_is_drawn_keeps_to_the_table() {
        use Profile::{InRegion, Lambda2020};
        use Shape::{Reads, Transaction, Write};
        for (profile, shape, wanted) in [
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
            let drawn = drawn(profile, shape);
            for (drawn, wanted) in drawn.iter().zip(wanted) {
                assert!(
                    (drawn / wanted - 1.0).abs() < 0.02,
                    "{profile:?} {shape:?}: {drawn} for {wanted}"
                );
            }
        }
        assert_eq!(Profile::None.latency(Write, 0.999), 0);
    }

    #[test]
    fn more_actions_never_take_less_time() {
        for profile in [Profile::InRegion, Profile::Lambda2020] {
            for uniform in [0.01, 0.5, 0.9, 0.97, 0.999, 1.0] {
                let of = |n| profile.latency(Shape::Transaction(n), uniform);
                assert!(
                    (1..130).all(|n| of(n) <= of(n + 1)),
                    "{profile:?} {uniform}"
                );
                let reads = |n| profile.latency(Shape::Reads(n), uniform);
                assert!((1..100).all(|n| reads(n) <= reads(n + 1)));
            }
        }
    }

    #[test]
    fn many_reads_are_as_slow_as_their_slowest() {
        let of = drawn(Profile::InRegion, Shape::Reads(64));
        // The 0.5^(1/64) = 0.9892 quantile of one is close to its 99th percentile.
        assert!((8.0..10.0).contains(&of[0]), "{of:?}");
    }
}
