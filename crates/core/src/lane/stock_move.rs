//! Moves of units between stripes: a lane whose stripe is short gets half of the units of a richer stripe.
//!
//! A move goes with the lane's next transaction, as a change of two stripes: both are conditional, and together they
//! change no total. Few large moves replace many small allocations from stripes of other processes. Each allocation
//! could conflict with a transaction of the owner. Below [`limits::STOCK_MOVE_SOURCE_MIN`] units nothing is moved, so
//! two processes do not move the same units back and forth: between two moves of a process at least half of that many
//! units are sold.

use rand::Rng;
use rand::rngs::SmallRng;

use super::pool_state::bit;
use crate::counters::Counters;
use crate::fault::{self, Fault};
use crate::limits;
use crate::transaction::{
    ActionOutcome, StripeUpdate, StripeView, Transaction, TransactionOutcome,
};

/// Units that a lane moves to its stripe with its next transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StockMove {
    /// The stripe that the units come from.
    pub(super) from: u16,
    pub(super) units: u64,
}

impl StockMove {
    /// Adds the move to the updates of a transaction.
    pub(super) fn add_to(self, updates: &mut Vec<StripeUpdate>, to: u16) {
        let units = i64::try_from(self.units).unwrap_or(0);
        for (stripe, moved) in [(to, units), (self.from, -units)] {
            if moved < 0 && fault::planted(Fault::MoveHalved) {
                continue;
            }
            match updates.iter_mut().find(|update| update.stripe == stripe) {
                Some(update) => update.moved += moved,
                None => updates.push(StripeUpdate { stripe, moved, ..StripeUpdate::default() }),
            }
        }
    }

    /// Counts the outcome of an attempt; an unknown one is counted once it is resolved. `was_unknown`: an earlier
    /// attempt of the same transaction has an unknown outcome.
    pub(super) fn count_outcome(
        self,
        outcome: &TransactionOutcome,
        transaction: &Transaction,
        was_unknown: bool,
        counters: &mut Counters,
    ) {
        let result = match outcome {
            TransactionOutcome::Unknown => return,
            // Sent again, so the outcome stays unknown.
            TransactionOutcome::Conflict
            | TransactionOutcome::Throttled
            | TransactionOutcome::Refused
                if was_unknown =>
            {
                return;
            }
            TransactionOutcome::Committed => {
                counters.stock_moved_units += self.units;
                &mut counters.stock_moves_applied
            }
            TransactionOutcome::Conflict => &mut counters.stock_moves_conflicted,
            TransactionOutcome::Cancelled(reasons) => {
                let mut actions = transaction.stripes.iter().zip(reasons);
                let source = actions.find(|(update, _)| update.stripe == self.from);
                match source {
                    Some((_, ActionOutcome::Stripe(_))) => &mut counters.stock_moves_short,
                    _ if reasons.contains(&ActionOutcome::Conflict) => {
                        &mut counters.stock_moves_conflicted
                    }
                    _ => &mut counters.stock_moves_failed,
                }
            }
            TransactionOutcome::Throttled
            | TransactionOutcome::Rejected
            | TransactionOutcome::Refused => &mut counters.stock_moves_failed,
        };
        *result += 1;
    }
}

/// Plans a move to each of these lanes, in this order, while there is a stripe to move from. `left` has the units of
/// each stripe and is updated.
pub(super) fn plan_moves(
    lanes: &[u16],
    stripes: &[StripeView],
    owned: u64,
    left: &mut [u64],
    rng: &mut SmallRng,
) -> Vec<(u16, StockMove)> {
    let mut sources: Vec<u16> = (0_u16..)
        .zip(stripes)
        .filter(|(index, stripe)| bit(*index) & owned == 0 && !stripe.closed)
        .map(|(index, _)| index)
        .collect();
    let mut moves = Vec::new();
    for lane in lanes {
        let units = |stripe: &u16| left.get(usize::from(*stripe)).copied().unwrap_or(0);
        let most = sources.iter().map(units).max().unwrap_or(0);
        if most < limits::STOCK_MOVE_SOURCE_MIN {
            break;
        }
        // Processes that are short at the same time should not all take from the same stripe.
        let rich: Vec<u16> =
            sources.iter().copied().filter(|stripe| units(stripe) > most / 2).collect();
        let Some(from) = rich.get(rng.random_range(0..rich.len().max(1))).copied() else {
            break;
        };
        let moved = (units(&from) / 2).min(limits::STOCK_MOVE_UNITS_MAX);
        sources.retain(|stripe| *stripe != from);
        if let Some(source) = left.get_mut(usize::from(from)) {
            *source -= moved;
        }
        if let Some(target) = left.get_mut(usize::from(*lane)) {
            *target += moved;
        }
        moves.push((*lane, StockMove { from, units: moved }));
    }
    moves
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::time::UnixMillis;
    use crate::transaction::RequestToken;

    fn stripes(remaining: &[u64]) -> Vec<StripeView> {
        let stripe =
            |remaining: &u64| StripeView { remaining: *remaining, ..StripeView::default() };
        remaining.iter().map(stripe).collect()
    }

    fn plan(
        lanes: &[u16],
        owned: u64,
        stripes: &[StripeView],
    ) -> (Vec<(u16, StockMove)>, Vec<u64>) {
        let mut left: Vec<u64> = stripes.iter().map(|stripe| stripe.remaining).collect();
        let mut rng = SmallRng::seed_from_u64(1);
        (plan_moves(lanes, stripes, owned, &mut left, &mut rng), left)
    }

    #[test]
    fn half_of_a_rich_stripe_is_moved() {
        let min = limits::STOCK_MOVE_SOURCE_MIN;
        let (moves, left) = plan(&[0], 0b1, &stripes(&[3, min, min / 4]));
        assert_eq!(moves, [(0, StockMove { from: 1, units: min / 2 })]);
        assert_eq!(left, [3 + min / 2, min - min / 2, min / 4]);
        // Not from a poor stripe, from a stripe of this shard, or from a closed one.
        assert_eq!(plan(&[0], 0b1, &stripes(&[3, min - 1])).0, []);
        assert_eq!(plan(&[0], 0b11, &stripes(&[3, 10 * min])).0, []);
        let closed = StripeView { closed: true, remaining: 10 * min, ..StripeView::default() };
        assert_eq!(plan(&[0], 0b1, &[StripeView::default(), closed]).0, []);
        let huge = 100 * limits::STOCK_MOVE_UNITS_MAX;
        let (moves, _) = plan(&[1], 0b10, &stripes(&[huge, 0]));
        assert_eq!(moves, [(1, StockMove { from: 0, units: limits::STOCK_MOVE_UNITS_MAX })]);
    }

    #[test]
    fn lanes_get_units_from_different_stripes() {
        let min = limits::STOCK_MOVE_SOURCE_MIN;
        let (moves, _) = plan(&[0, 1, 2], 0b111, &stripes(&[0, 0, 0, 4 * min, 4 * min]));
        let mut sources: Vec<u16> = moves.iter().map(|(_, moved)| moved.from).collect();
        sources.sort_unstable();
        assert_eq!(sources, [3, 4], "one for each of two lanes");
    }

    #[test]
    fn a_move_changes_no_total() {
        let moved = StockMove { from: 4, units: 70 };
        let mut updates = vec![StripeUpdate { stripe: 2, take: 90, ..StripeUpdate::default() }];
        moved.add_to(&mut updates, 2);
        assert_eq!(updates.iter().map(|update| update.moved).sum::<i64>(), 0);
        assert_eq!(updates.iter().map(StripeUpdate::change).collect::<Vec<_>>(), [-20, -70]);
    }

    #[test]
    fn each_attempt_is_counted_by_its_known_outcome() {
        let moved = StockMove { from: 4, units: 70 };
        let mut stripes = Vec::new();
        moved.add_to(&mut stripes, 2);
        let transaction = Transaction {
            token: RequestToken(1),
            event: "evt".parse().expect("legal"),
            seat_keys: 0,
            stripes,
            records: Vec::new(),
            counter: None,
            at: UnixMillis(1),
        };
        let counted = |outcome: TransactionOutcome, was_unknown: bool| {
            let mut counters = Counters::default();
            moved.count_outcome(&outcome, &transaction, was_unknown, &mut counters);
            let Counters { stock_moves_applied, stock_moves_conflicted, .. } = counters;
            let Counters { stock_moves_short, stock_moves_failed, stock_moved_units, .. } =
                counters;
            let by_result = [
                stock_moves_applied,
                stock_moves_conflicted,
                stock_moves_short,
                stock_moves_failed,
            ];
            (by_result, stock_moved_units)
        };
        // The stripe that gets the units is the first action.
        let cancelled = |to, from| TransactionOutcome::Cancelled(vec![to, from]);
        let short = || ActionOutcome::Stripe(Some(StripeView::default()));
        let (applied, conflict) = ([1, 0, 0, 0], [0, 1, 0, 0]);
        for (outcome, by_result) in [
            (TransactionOutcome::Committed, applied),
            (TransactionOutcome::Conflict, conflict),
            (cancelled(ActionOutcome::Conflict, ActionOutcome::Fine), conflict),
            (cancelled(ActionOutcome::Fine, ActionOutcome::Conflict), conflict),
            (cancelled(ActionOutcome::Fine, short()), [0, 0, 1, 0]),
            (cancelled(short(), ActionOutcome::Fine), [0, 0, 0, 1]),
            (TransactionOutcome::Throttled, [0, 0, 0, 1]),
            (TransactionOutcome::Rejected, [0, 0, 0, 1]),
            (TransactionOutcome::Refused, [0, 0, 0, 1]),
            (TransactionOutcome::Unknown, [0; 4]),
        ] {
            let units = 70 * by_result[0];
            assert_eq!(counted(outcome.clone(), false), (by_result, units), "{outcome:?}");
        }
        // Only a write or a cancellation resolves an unknown outcome.
        assert_eq!(counted(TransactionOutcome::Committed, true), (applied, 70));
        for outcome in [
            TransactionOutcome::Conflict,
            TransactionOutcome::Throttled,
            TransactionOutcome::Refused,
            TransactionOutcome::Unknown,
        ] {
            assert_eq!(counted(outcome, true), ([0; 4], 0));
        }
    }
}
