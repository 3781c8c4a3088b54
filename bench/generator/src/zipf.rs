//! Which of many: the first is wanted most.

/// Shares of `n` things by Zipf's law: the k-th, counted from 1, has a weight of `k^-s`.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Upper ends of the shares in `0..=2^53`.
    ends: Vec<u64>,
}

/// Draws are taken out of this many.
const WHOLE: f64 = (1_u64 << 53) as f64;

impl Zipf {
    /// `exponent` 0 makes all alike. There is at least one thing.
    pub fn new(n: u32, exponent: f64) -> Self {
        let n = n.max(1);
        let weights = (1..=n).map(|k| f64::from(k).powf(-exponent));
        let total: f64 = weights.clone().sum();
        let mut sum = 0.0;
        let ends = weights
            .map(|weight| {
                sum += weight / total;
                (sum * WHOLE) as u64
            })
            .collect();
        Self { ends }
    }

    /// The thing at `draw`, of which the upper 53 bits count.
    pub fn pick(&self, draw: u64) -> u32 {
        let at = self.ends.partition_point(|end| *end <= draw >> 11);
        // Rounding may leave the last end a little short.
        u32::try_from(at.min(self.ends.len() - 1)).unwrap_or(0)
    }

    /// The share of the k-th, counted from 0.
    pub fn share(&self, k: u32) -> f64 {
        let k = k as usize;
        let from = match k {
            0 => 0,
            _ => self.ends.get(k - 1).copied().unwrap_or(0),
        };
        let to = self.ends.get(k).copied().unwrap_or(from);
        (to - from) as f64 / WHOLE
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn what_is_drawn_has_the_shares_of_the_law() {
        for (n, s) in [(50, 1.1), (10, 0.0), (1, 2.0), (1_000, 0.7)] {
            let zipf = Zipf::new(n, s);
            let mut rng = SmallRng::seed_from_u64(7);
            let draws = 400_000;
            let mut counts = vec![0_u32; n as usize];
            for _ in 0..draws {
                counts[zipf.pick(rng.random()) as usize] += 1;
            }
            let norm: f64 = (1..=n).map(|k| f64::from(k).powf(-s)).sum();
            for k in [0, n / 2, n - 1] {
                let want = f64::from(k + 1).powf(-s) / norm;
                let got = f64::from(counts[k as usize]) / f64::from(draws);
                let spread = (want / f64::from(draws)).sqrt();
                assert!(
                    (got - want).abs() < 5.0 * spread + 1e-9,
                    "{n} {s} {k}: {got}, want {want}"
                );
                assert!((zipf.share(k) - want).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_things_too() {
        let zipf = Zipf::new(3, 1.0);
        assert_eq!(zipf.pick(0), 0);
        assert_eq!(zipf.pick(u64::MAX), 2);
    }
}
