//! Pauses before a transaction is retried.

use std::time::Duration;

use rand::Rng;

use super::time::Micros;
use crate::limits;

/// Pause before attempt `attempt` (1 is the first retry): the interval doubles each time up to a limit, and the pause
/// is uniform between half of it and all of it, so that lanes that collided do not collide again.
pub(crate) fn pause(attempt: u32, rng: &mut impl Rng) -> Micros {
    doubled(attempt, limits::RETRY_BACKOFF_MAX, rng)
}

/// Random time for which a lane leaves the queue to other lanes after `times` conflicts, computed like [`pause`].
pub(crate) fn yield_duration(times: u32, rng: &mut impl Rng) -> Micros {
    doubled(times, limits::LANE_YIELD_MAX, rng)
}

/// Pause before the next resend after `failures` in a row, random like [`pause`]. `timed_out`: the time-out of the last one, if it
/// timed out; a store that answers nothing gets longer pauses than one that refuses at once.
pub(crate) fn resend_pause(failures: u32, timed_out: Option<Micros>, rng: &mut impl Rng) -> Micros {
    let (shortest, max) = match timed_out {
        Some(limit) => (limit, limits::RESEND_PAUSE_MAX),
        None => (Micros(0), limits::RESEND_PAUSE_REFUSED_MAX),
    };
    let interval = interval(failures, max).max(shortest.0);
    Micros(rng.random_range(interval / 2..=interval))
}

fn doubled(attempt: u32, max: Duration, rng: &mut impl Rng) -> Micros {
    let interval = interval(attempt, max);
    Micros(rng.random_range(interval / 2..=interval))
}

fn interval(attempt: u32, max: Duration) -> u64 {
    let min = limits::RETRY_BACKOFF_MIN.as_micros() as u64;
    let doublings = attempt.saturating_sub(1).min(16);
    (min << doublings).min(max.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn grows_is_jittered_and_bounded() {
        let mut rng = SmallRng::seed_from_u64(1);
        let min = limits::RETRY_BACKOFF_MIN.as_micros() as u64;
        let max = limits::RETRY_BACKOFF_MAX.as_micros() as u64;
        for attempt in 1..200 {
            let Micros(pause) = pause(attempt, &mut rng);
            assert!(pause >= min / 2 && pause <= max, "attempt {attempt}: {pause}");
        }
        let first: Vec<u64> = (0..20).map(|_| pause(1, &mut rng).0).collect();
        assert!(first.iter().any(|p| *p != first[0]), "no jitter: {first:?}");
        assert!((0..20).all(|_| pause(20, &mut rng).0 >= max / 2));
    }
}
