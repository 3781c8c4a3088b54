//! How fast other processes sell the seats that they prefer, by what two reads have shown.
//!
//! A hint: it decides how long a choice waits, never whether there are seats.

use crate::limits;
use crate::seat_map::FreeSeatsFound;
use crate::time::Micros;

/// Sales of other processes between two reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForeignSales {
    /// When the later read began.
    at: Micros,
    /// Time between the beginnings of the reads.
    span: Micros,
    /// Seats that others have taken meanwhile.
    taken: usize,
    /// Free seats that others prefer, at the later read.
    free: usize,
}

impl ForeignSales {
    /// Of a read that began at `at`, and one that began at `before`.
    pub(super) fn between(before: Micros, at: Micros, found: &FreeSeatsFound) -> Self {
        let span = Micros(at.since(before).0.max(1));
        Self { at, span, taken: found.taken_by_others, free: found.free_of_others }
    }

    /// Whether the reads are recent enough to compare with.
    pub(super) fn is_known(&self, now: Micros) -> bool {
        now.since(self.at).0 < limits::SEAT_COLLISION_MEMORY.as_micros() as u64
    }

    /// Whether others have free seats, and will have sold them before a choice of now is written if they go on like that.
    pub(super) fn end_soon(&self, now: Micros) -> bool {
        if self.free == 0 {
            return false;
        }
        let ahead = limits::SEAT_CHOICE_HORIZON.as_micros() as u64;
        let time = now.since(self.at).0.saturating_add(ahead);
        self.taken as u128 * u128::from(time) >= self.free as u128 * u128::from(self.span.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sales(taken: usize, free: usize) -> ForeignSales {
        let found = FreeSeatsFound { agrees: true, taken_by_others: taken, free_of_others: free };
        ForeignSales::between(Micros(1_000_000), Micros(1_050_000), &found)
    }

    fn after(ms: u64) -> Micros {
        Micros(1_050_000 + 1_000 * ms)
    }

    #[test]
    fn seats_that_sell_within_the_horizon_end_soon() {
        let horizon = limits::SEAT_CHOICE_HORIZON.as_millis() as u64;
        // Two a millisecond.
        let lasting = |ms: u64| sales(100, 2 * ms as usize);
        assert!(lasting(horizon - 1).end_soon(after(0)));
        assert!(!lasting(horizon + 1).end_soon(after(0)));
        // What is known is old.
        assert!(lasting(horizon + 19).end_soon(after(20)));
        assert!(!lasting(horizon + 21).end_soon(after(20)));
    }

    #[test]
    fn seats_that_nobody_sells_do_not_end() {
        assert!(!sales(0, 1).end_soon(after(900)));
        // Nothing is free that others prefer: nothing is to be waited for.
        assert!(!sales(100, 0).end_soon(after(0)));
    }

    #[test]
    fn old_reads_are_forgotten() {
        let memory = limits::SEAT_COLLISION_MEMORY.as_millis() as u64;
        assert!(sales(1, 1).is_known(after(memory - 1)));
        assert!(!sales(1, 1).is_known(after(memory)));
    }
}
