//! What a run does: number of rounds, seeds, length of the outage. From the environment, because the test harness has
//! no arguments of its own.

use std::env;
use std::time::Duration;

/// Seconds of the store outage in `cargo test`: long enough for short holds to expire meanwhile.
const SHORT_OUTAGE_SECONDS: u64 = 3;

/// Seconds of the store outage in a full run. All holds of the load expire meanwhile, as does the minute in which the
/// reclaimer reads a bucket most often (`RECLAIM_SETTLE`, 60 s). The holds whose expiry is moved back stand for
/// longer outages.
const FULL_OUTAGE_SECONDS: u64 = 65;

/// Settings of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChaosSettings {
    pub(crate) rounds: u64,
    /// Seed of the first round; each further round has the next one.
    pub(crate) first_seed: u64,
    /// Rounds that run at the same time: most of a round is waiting.
    pub(crate) at_once: usize,
    /// All faults, as often as [`super::schedule`] says; otherwise a few of them.
    pub(crate) is_full: bool,
    pub(crate) outage: Duration,
}

impl ChaosSettings {
    /// `CHAOS_ROUNDS` makes a full run; without it a short round with each store runs.
    ///
    /// # Panics
    /// If a variable is not a number.
    pub(crate) fn from_env() -> Self {
        let rounds = number("CHAOS_ROUNDS");
        let is_full = rounds.is_some();
        let outage = match is_full {
            true => FULL_OUTAGE_SECONDS,
            false => SHORT_OUTAGE_SECONDS,
        };
        Self {
            // One round per store.
            rounds: rounds.unwrap_or(2),
            at_once: number("CHAOS_AT_ONCE").map_or(2, |count| count.max(1) as usize),
            first_seed: number("CHAOS_SEED").unwrap_or(0),
            is_full,
            outage: Duration::from_secs(number("CHAOS_OUTAGE_SECONDS").unwrap_or(outage)),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text}: must be a whole number, 20 for example")))
}
