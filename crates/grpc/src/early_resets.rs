//! Bounds the calls that a client opens and resets before the server has read them (rapid reset).
//!
//! A client whose calls expire while the server, the machine or the network stalls sends such calls in bursts,
//! so the bound follows from what a client within its stream limit can produce. An early reset runs no handler.

use crate::limits::EARLY_RESETS_PER_STREAM_AND_SECOND;
use inventory_core::time::Micros;

/// A token bucket: one second's early resets at once, and as many in each second.
pub(super) struct EarlyResetBudget {
    per_second: u64,
    /// Millionths of a reset.
    left: u64,
    updated: Micros,
}

const WHOLE: u64 = 1_000_000;

impl EarlyResetBudget {
    /// `streams` is the stream limit of the connection.
    pub(super) fn new(streams: u32, now: Micros) -> Self {
        let per_second = u64::from(streams) * EARLY_RESETS_PER_STREAM_AND_SECOND;
        Self { per_second, left: per_second * WHOLE, updated: now }
    }

    /// Counts one early reset; false if the budget is used up.
    pub(super) fn spend(&mut self, now: Micros) -> bool {
        let elapsed = now.since(self.updated).0;
        self.updated = now;
        let full = self.per_second * WHOLE;
        self.left = self.left.saturating_add(elapsed.saturating_mul(self.per_second)).min(full);
        match self.left.checked_sub(WHOLE) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend_all(budget: &mut EarlyResetBudget, now: Micros) -> u64 {
        (0..).find(|_| !budget.spend(now)).unwrap_or(0)
    }

    #[test]
    fn one_second_of_resets_is_available_at_once_and_again_after_a_second() {
        let burst = 100 * EARLY_RESETS_PER_STREAM_AND_SECOND;
        let mut budget = EarlyResetBudget::new(100, Micros(5));
        assert_eq!(spend_all(&mut budget, Micros(5)), burst);
        assert_eq!(spend_all(&mut budget, Micros(5)), 0);
        assert_eq!(spend_all(&mut budget, Micros(500_005)), burst / 2);
        assert_eq!(spend_all(&mut budget, Micros(u64::MAX)), burst);
    }
}
