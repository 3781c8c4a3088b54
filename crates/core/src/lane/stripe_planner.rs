//! Short stripes: a strong read of all stripes, then an allocation from others, or sold out.
//!
//! "Sold out" needs a read of every stripe that began after the call arrived, or at most `SOLD_OUT_LATCH_MS` before it.
//! With one stripe a failed condition is such a read; otherwise the pool requests one.
//!
//! If stripes of other processes are much richer, the pool moves units from there: see [`super::stock_move`].
//!
//! The read alone is not enough, because the units may just have been sold to this reservation by another process. So
//! the record of an entry for which there are too few units is read outside the pool; without a record the entry is
//! rejected. That read costs half as much as a failed write, and no other entry waits for it.

use rand::Rng;
use rand::rngs::SmallRng;

use super::Lane;
use super::batch_entry::BatchEntry;
use super::output::{PoolContext, PoolOutput, Redecision, RedecisionCause};
use super::pool::Pool;
use super::pool_state::{SoldOutHint, bit};
use super::stock_move::plan_moves;
use crate::answer::Rejection;
use crate::fault::{self, Fault};
use crate::limits;
use crate::stripe_ownership::bits;
use crate::time::Micros;
use crate::transaction::{
    EventLayout, StockTotals, StripeAllocation, StripeAllocations, StripeView, StripesRead,
};

impl Pool {
    /// Requests a read if entries wait for one and none is in flight.
    pub(super) fn request_read(&mut self, cx: &mut PoolContext<'_>) {
        if !self.state.awaiting_read.is_empty() && !self.is_reading_stripes {
            self.is_reading_stripes = true;
            self.is_all_planned = false;
            cx.out.read_stripes = true;
        }
    }

    /// Requests a read for entries that have just arrived, unless entries before them wait for transactions of this
    /// pool to take all units that the last read showed.
    pub(super) fn request_read_for_arrivals(&mut self, cx: &mut PoolContext<'_>) {
        if !self.is_all_planned || self.lanes.values().all(Lane::is_idle) {
            self.request_read(cx);
        }
    }

    /// Handles the read that this pool asked for; it began at `began`.
    pub fn stripes_read(&mut self, began: Micros, read: &StripesRead, cx: &mut PoolContext<'_>) {
        self.is_reading_stripes = false;
        match read {
            StripesRead::Found(stripes) => self.plan(began, stripes, cx),
            StripesRead::NotFound => self.reject_awaiting(&Rejection::EventNotFound, cx),
            StripesRead::Throttled => self.reject_awaiting(&Rejection::store_busy(), cx),
            StripesRead::Unavailable => self.reject_awaiting(&Rejection::store_unavailable(), cx),
        }
        self.dispatch_queue(cx);
        // An entry that is still short waits for the transactions in flight; the units that remain then decide.
        if self.lanes.values().all(|lane| lane.in_flight.is_none()) {
            self.request_read(cx);
        }
    }

    fn reject_awaiting(&mut self, rejection: &Rejection, cx: &mut PoolContext<'_>) {
        for entry in std::mem::take(&mut self.state.awaiting_read) {
            cx.out.reject(entry, rejection.clone());
        }
    }

    fn plan(&mut self, began: Micros, stripes: &[StripeView], cx: &mut PoolContext<'_>) {
        self.set_layout(EventLayout::of(stripes));
        let mut total = StockTotals::of(stripes).remaining;
        let mut left: Vec<u64> = stripes.iter().map(|s| s.remaining).collect();
        if fault::planted(Fault::SoldOutByTornSum) {
            total = left.iter().sum();
        }
        if fault::planted(Fault::OwnStripesSoldOut) {
            let owned = bits(self.state.owned).filter_map(|stripe| left.get(usize::from(stripe)));
            total = owned.sum();
        }
        self.count_pending_moves(&mut left);
        self.subtract_planned(&mut left);
        let has_plans = left.iter().zip(stripes).any(|(left, stripe)| *left < stripe.remaining);
        self.plan_stock_moves(stripes, total, &mut left, cx);
        let mut planned: Vec<BatchEntry> = Vec::new();
        let mut for_queue: Vec<BatchEntry> = Vec::new();
        let mut own_units = OwnUnits::new(self.state.owned, &left);
        let mut allocator = Allocator::new(self.state.owned, left.len(), cx.rng);
        self.state.record_total(total, began);
        for mut entry in std::mem::take(&mut self.state.awaiting_read) {
            let is_decided_by_read = entry.queue.arrived <= began
                || self.state.sold_out_hint(entry.write.qty, entry.queue.arrived)
                    == SoldOutHint::Fresh { remaining: total };
            let is_short = u64::from(entry.write.qty) > total;
            if is_short && !is_decided_by_read {
                self.state.awaiting_read.push(entry);
            } else if is_short {
                cx.counters.stripe_shortages += 1;
                redecide_shortage(entry, total, cx.out);
            } else if entry.deadline() <= cx.now.mono {
                cx.counters.deadline_missed += 1;
                cx.out.reject(entry, Rejection::DeadlineExceeded);
            } else if stripes.len() > 1 && own_units.reserve(&mut left, entry.write.qty) {
                // Any lane of this pool may send it.
                for_queue.push(entry);
            } else if let Some(draws) = allocator.allocate(&mut left, entry.write.qty) {
                // Includes entries that arrived after the read began; otherwise later calls would be
                // served before them.
                entry.write.draws = draws;
                entry.queue.has_stripe_plan = true;
                planned.push(entry);
            } else if stripes.len() == 1 {
                // Earlier entries may be rejected. For a single stripe the next write decides.
                for_queue.push(entry);
            } else if entry.queue.reads >= limits::STRIPE_READS_PER_ENTRY_MAX {
                cx.out.reject(entry, Rejection::store_busy());
            } else {
                // Entries that come first have the units, or the read missed some that are being moved. A read that
                // has units for some entry is progress: the others wait until their deadline.
                let is_progress = has_plans || !planned.is_empty() || !for_queue.is_empty();
                entry.queue.reads += u8::from(!is_progress);
                self.state.awaiting_read.push(entry);
            }
        }
        self.is_all_planned = left.iter().all(|left| *left == 0);
        self.state.queue.requeue(for_queue);
        own_units.put_back(&mut left);
        for (index, units) in left.iter().enumerate() {
            let index = index as u16;
            self.state.record_remainder(index, *units, cx.now.mono);
        }
        self.send_planned(planned, cx);
    }

    /// Counts moves that lanes have yet to send as made, so that entries get no units that will be moved. Gives up those
    /// that their source is too short for, and those of lanes with nothing to send: they are planned anew.
    fn count_pending_moves(&mut self, left: &mut [u64]) {
        for lane in self.lanes.values_mut() {
            let Some(pending) = lane.incoming.take() else { continue };
            let has_entries = !lane.own.is_empty() || !lane.groups.is_empty();
            let source = left.get_mut(usize::from(pending.from));
            let Some(source) = source.filter(|source| **source >= pending.units) else { continue };
            if !has_entries && lane.move_conflicts == 0 {
                continue;
            }
            *source -= pending.units;
            lane.incoming = Some(pending);
            if let Some(target) = left.get_mut(usize::from(lane.index)) {
                *target += pending.units;
            }
        }
    }

    /// Subtracts what is planned for entries of this pool that are not answered. A read may have seen some of their
    /// transactions; then less is allocated than there is, until the next read.
    fn subtract_planned(&self, left: &mut [u64]) {
        for draw in self.lanes.values().flat_map(Lane::planned_allocations) {
            if let Some(left) = left.get_mut(usize::from(draw.stripe)) {
                *left = left.saturating_sub(u64::from(draw.units));
            }
        }
    }

    /// Moves units to lanes of this pool if their stripes have too few for what waits.
    fn plan_stock_moves(
        &mut self,
        stripes: &[StripeView],
        total: u64,
        left: &mut [u64],
        cx: &mut PoolContext<'_>,
    ) {
        let owned = self.state.owned;
        let waiting = self.state.awaiting_read.iter().chain(&self.state.queue.foreground);
        let wanted: u64 = waiting.map(|entry| u64::from(entry.write.qty)).sum();
        let units = |stripe: &u16| left.get(usize::from(*stripe)).copied().unwrap_or(0);
        let available: u64 = bits(owned).map(|stripe| units(&stripe)).sum();
        if stripes.len() <= 1 || wanted == 0 || available >= wanted || total <= available {
            return;
        }
        let has_move = |index: &u16| {
            let lane = self.lanes.get(index);
            lane.is_some_and(|lane| {
                let in_flight = lane.in_flight.as_ref();
                lane.incoming.is_some() || in_flight.is_some_and(|sent| sent.stock_move.is_some())
            })
        };
        let count = u16::try_from(stripes.len()).unwrap_or(u16::MAX);
        let lanes = bits(owned).filter(|index| *index < count && !has_move(index));
        let mut lanes: Vec<u16> = lanes.collect();
        // Lanes that could send now, and among these the shortest.
        lanes.sort_by_key(|index| (self.state.busy & bit(*index) != 0, units(index), *index));
        let most = wanted.div_ceil(limits::BATCH_ENTRIES_MAX as u64);
        lanes.truncate(most.min(limits::STOCK_MOVES_PER_READ_MAX) as usize);
        for (index, stock_move) in plan_moves(&lanes, stripes, owned, left, cx.rng) {
            self.with_lane(index, |lane, _| lane.incoming = Some(stock_move));
        }
    }

    /// Gives each entry to the lane of a stripe that it takes from, if this pool has that lane, so that few lanes
    /// write to one stripe.
    fn send_planned(&mut self, planned: Vec<BatchEntry>, cx: &mut PoolContext<'_>) {
        let mut by_lane: Vec<(u16, Vec<BatchEntry>)> = Vec::new();
        for entry in planned {
            let draws = entry.write.draws.iter().map(|draw| draw.stripe);
            let owned = self.state.owned;
            let own_lane = draws.clone().find(|stripe| bit(*stripe) & owned != 0);
            // Units of one stripe go through one lane, which does not conflict with itself.
            let lanes = owned.count_ones().max(1) as usize;
            let by_stripe = draws.clone().next().map_or(0, |stripe| usize::from(stripe) % lanes);
            let lane = own_lane.or_else(|| bits(owned).nth(by_stripe)).unwrap_or(0);
            match by_lane.iter_mut().find(|(index, _)| *index == lane) {
                Some((_, entries)) => entries.push(entry),
                None => by_lane.push((lane, vec![entry])),
            }
        }
        for (lane, entries) in by_lane {
            self.with_lane(lane, |lane, state| {
                lane.own.requeue(entries);
                lane.dispatch(state, cx);
            });
        }
    }
}

fn redecide_shortage(entry: BatchEntry, remaining: u64, out: &mut PoolOutput) {
    out.redecisions.push(Redecision {
        from: entry.write.from,
        operation: entry.into_operation(),
        cause: RedecisionCause::Shortage { remaining },
    });
}

/// Units of own stripes for entries that stay in the queue: which lane sends them is not known yet.
struct OwnUnits {
    own: Vec<u16>,
    /// The units reserved, by position in `own`.
    reserved: Vec<u64>,
}

impl OwnUnits {
    fn new(owned: u64, left: &[u64]) -> Self {
        let own: Vec<u16> =
            bits(owned).filter(|stripe| usize::from(*stripe) < left.len()).collect();
        Self { reserved: vec![0; own.len()], own }
    }

    /// Reserves units if one stripe has as many.
    fn reserve(&mut self, left: &mut [u64], qty: u32) -> bool {
        let qty = u64::from(qty);
        for (stripe, reserved) in self.own.iter().zip(&mut self.reserved) {
            if let Some(left) = left.get_mut(usize::from(*stripe)).filter(|left| **left >= qty) {
                *left -= qty;
                *reserved += qty;
                return true;
            }
        }
        false
    }

    /// The lanes count the units when they take the entries.
    fn put_back(&self, left: &mut [u64]) {
        for (stripe, reserved) in self.own.iter().zip(&self.reserved) {
            if let Some(left) = left.get_mut(usize::from(*stripe)) {
                *left += reserved;
            }
        }
    }
}

/// Allocates units of stripes to entries, one after the other.
struct Allocator {
    /// The stripes of this pool.
    owned: u64,
    /// Stripes of other pools that entries have been given units of.
    used: u64,
    /// The order of stripes that are equal otherwise: random, so that processes choose different ones.
    first: usize,
    count: usize,
}

impl Allocator {
    fn new(owned: u64, count: usize, rng: &mut SmallRng) -> Self {
        let count = count.max(1);
        Self { owned, used: 0, first: rng.random_range(0..count), count }
    }

    /// Allocates `qty` from one stripe if one has it, else from as few as possible, largest first. Prefers the stripes
    /// of this pool, then those that it has used already. `None`, and nothing allocated, if all together have too few.
    fn allocate(&mut self, left: &mut [u64], qty: u32) -> Option<StripeAllocations> {
        if left.iter().sum::<u64>() < u64::from(qty) {
            return None;
        }
        let mut missing = u64::from(qty);
        let mut draws = StripeAllocations::new();
        while missing > 0 {
            let rank = |index: usize, units: u64| {
                let is_in = |set: u64| bit(index as u16) & set != 0;
                let order = (index + self.first) % self.count;
                (units.min(missing), is_in(self.owned), is_in(self.used), order)
            };
            let stripes = left.iter_mut().enumerate();
            let (index, most) = stripes.max_by_key(|(index, units)| rank(*index, **units))?;
            let units = missing.min(*most);
            *most -= units;
            missing -= units;
            self.used |= bit(index as u16);
            draws.push(StripeAllocation { stripe: index as u16, units: units as u32 });
        }
        Some(draws)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::answer::Answer;
    use crate::ids::EventId;
    use crate::lane::pool::tests::call;
    use crate::lane::stock_move::StockMove;
    use crate::lane::{LaneSettings, PoolKey, PoolKind, WriteIntent};
    use crate::operation::{Operation, Selection, Verb};
    use crate::rules::{self, Decision, LateCommit};
    use crate::stripe_ownership::StripeSet;
    use crate::time::UnixMillis;
    use crate::transaction::{ActionOutcome, StripeUpdate, Transaction, TransactionOutcome};

    #[test]
    fn allocates_from_one_stripe_if_possible_else_from_the_largest() {
        let mut left = [3, 9, 4];
        let mut allocator = Allocator { owned: 0, used: 0, first: 0, count: 3 };
        let one = allocator.allocate(&mut left, 5).expect("enough");
        assert_eq!(one[..], [StripeAllocation { stripe: 1, units: 5 }]);
        assert_eq!(left, [3, 4, 4]);

        let several = allocator.allocate(&mut left, 10).expect("enough");
        assert_eq!(several.iter().map(|d| d.units).sum::<u32>(), 10);
        assert_eq!(left.iter().sum::<u64>(), 1);

        let mut untouched = left;
        assert_eq!(allocator.allocate(&mut untouched, 2), None);
        assert_eq!(untouched, left);
    }

    fn order(reservation: &str, units: u32) -> (Operation, WriteIntent) {
        let (reservation, event) =
            (reservation.parse().expect("legal"), "evt".parse().expect("legal"));
        let selection = Selection::Quantity(units);
        let deadline = Micros(1_000_000);
        let operation = Operation::new(Verb::Commit, reservation, event, selection, deadline);
        let late = LateCommit::default();
        let Decision::Write(transition) = rules::decide(&operation, None, UnixMillis(1), late)
        else {
            panic!("there is no record");
        };
        (operation, WriteIntent { transition, record: None, seats: None })
    }

    /// A pool of stripe 0 of two whose only entry, for 150 units, has found that stripe short.
    fn pool_that_reads() -> Pool {
        let event: EventId = "evt".parse().expect("legal");
        let key = PoolKey { event: event.clone(), kind: PoolKind::Stripes };
        let layout = EventLayout { stripes: 2, seat_keys: 0, closed: false };
        let own = StripeSet { owned: 0b1, shared: 0, processes: 1 };
        let mut pool = Pool::new(key, own, layout, LaneSettings::default());
        let (operation, intent) = order("r-1", 150);
        call(&mut pool, |pool, cx| pool.submit(operation, intent, cx));
        let short = StripeView { capacity: 10, remaining: 10, ..StripeView::default() };
        let reasons = vec![ActionOutcome::Stripe(Some(short)), ActionOutcome::Fine];
        let outcome = TransactionOutcome::Cancelled(reasons);
        let out = call(&mut pool, |pool, cx| pool.handle_outcome(0, outcome, cx));
        assert!(out.read_stripes && out.send.is_empty());
        pool
    }

    /// Stripe 0 is read before another process moves 100 units to it, and stripe 1 after that.
    #[test]
    fn units_that_are_moved_during_a_read_are_not_missed() {
        let mut pool = pool_that_reads();
        let stripe = |remaining: u64, moved: i64| StripeView {
            capacity: remaining,
            remaining,
            moved,
            ..StripeView::default()
        };
        let torn = StripesRead::Found(vec![stripe(10, 0), stripe(100, -100)]);
        let out = call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &torn, cx));
        assert!(out.redecisions.is_empty() && out.completions.is_empty(), "{out:?}");
        assert!(out.read_stripes, "no stripe shows the units: they are read again");
        let read = StripesRead::Found(vec![stripe(110, 100), stripe(100, -100)]);
        let out = call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &read, cx));
        let (_, transaction) = out.send.first().expect("planned");
        let units: u32 = transaction.records[0].draws.iter().map(|draw| draw.units).sum();
        assert_eq!(units, 150);
    }

    fn stripes_of(remaining: [u64; 2]) -> StripesRead {
        let stripe = |remaining| StripeView { remaining, ..StripeView::default() };
        StripesRead::Found(remaining.map(stripe).to_vec())
    }

    fn moved(transaction: &Transaction) -> i64 {
        transaction.stripes.iter().map(|update| update.moved.max(0)).sum()
    }

    /// A lane has yet to send a move of 60 units from stripe 1 when the stripes are read again.
    #[test]
    fn a_pending_move_of_a_lane_with_nothing_to_send_is_planned_anew() {
        let mut pool = pool_that_reads();
        let lane = pool.lanes.get_mut(&0).expect("used");
        lane.incoming = Some(StockMove { from: 1, units: 60 });
        let read = stripes_of([10, 150]);
        let out = call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &read, cx));
        let (_, transaction) = out.send.first().expect("enough units");
        assert_eq!(moved(transaction), 75);
        for update in &transaction.stripes {
            let left = [10_u64, 150][usize::from(update.stripe)];
            assert!(left.checked_add_signed(update.change()).is_some(), "{update:?}");
        }
    }

    /// The move has conflicted and is sent again before the entries, which get units that remain after it.
    #[test]
    fn entries_get_no_units_that_a_pending_move_takes() {
        for (units, expected) in [(60, [(0, 60), (1, 90)]), (200, [(0, 85), (1, 65)])] {
            let mut pool = pool_that_reads();
            let lane = pool.lanes.get_mut(&0).expect("used");
            (lane.incoming, lane.move_conflicts) = (Some(StockMove { from: 1, units }), 1);
            let read = stripes_of([10, 150]);
            call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &read, cx));
            let lane = &pool.lanes[&0];
            let mut draws: Vec<(u16, u32)> =
                lane.planned_allocations().map(|draw| (draw.stripe, draw.units)).collect();
            draws.sort_unstable();
            // A move that is larger than its source is given up, and planned anew.
            assert_eq!(draws, expected, "{units}");
        }
    }

    /// The source of a move is short, and the entry of the same transaction needs none of the moved units.
    #[test]
    fn an_entry_is_sent_again_at_once_without_a_move_that_failed() {
        let mut pool = pool_that_reads();
        let mut entry = pool.state.awaiting_read.pop().expect("waits");
        entry.write.draws = smallvec::smallvec![StripeAllocation { stripe: 1, units: 150 }];
        entry.queue.has_stripe_plan = true;
        pool.is_reading_stripes = false;
        let out = call(&mut pool, |pool, cx| {
            pool.with_lane(0, |lane, state| {
                lane.incoming = Some(StockMove { from: 1, units: 60 });
                lane.own.requeue(vec![entry]);
                lane.dispatch(state, cx);
            });
        });
        let (_, transaction) = out.send.first().expect("free");
        assert_eq!(moved(transaction), 60);
        let reason = |update: &StripeUpdate| match update.stripe {
            1 => ActionOutcome::Stripe(Some(StripeView { remaining: 180, ..Default::default() })),
            _ => ActionOutcome::Fine,
        };
        let mut reasons: Vec<ActionOutcome> = transaction.stripes.iter().map(reason).collect();
        reasons.push(ActionOutcome::Fine);
        let outcome = TransactionOutcome::Cancelled(reasons);
        let out = call(&mut pool, |pool, cx| pool.handle_outcome(0, outcome, cx));
        let (_, again) = out.send.first().expect("no pause");
        assert_eq!(moved(again), 0);
        assert_eq!(again.records[0].draws, transaction.records[0].draws);
    }

    /// Reads that never show the units are given up.
    #[test]
    fn reads_for_one_entry_are_bounded() {
        let mut pool = pool_that_reads();
        let moved = StripeView { moved: -200, ..StripeView::default() };
        let torn = StripesRead::Found(vec![StripeView::default(), moved]);
        for _ in 0..limits::STRIPE_READS_PER_ENTRY_MAX {
            let out = call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &torn, cx));
            assert!(out.read_stripes && out.completions.is_empty());
        }
        let out = call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &torn, cx));
        assert!(!out.read_stripes && pool.is_idle());
        assert_eq!(out.completions[0].answer, Answer::Rejected(Rejection::store_busy()));
    }

    /// However many entries before it get the units and turn out to need none, because their reservations have records.
    #[test]
    fn reads_with_units_for_other_entries_reject_no_entry() {
        let mut pool = pool_that_reads();
        for round in 0..2 * u64::from(limits::STRIPE_READS_PER_ENTRY_MAX) {
            let (operation, intent) = order(&format!("before-{round}"), 10);
            let before = BatchEntry::new(operation, intent, round, Micros(1));
            pool.state.awaiting_read.insert(0, before);
            let read = stripes_of([10, 145]);
            let out = call(&mut pool, |pool, cx| pool.stripes_read(Micros(1_000), &read, cx));
            assert!(out.completions.is_empty(), "{round}: {out:?}");
            assert_eq!(pool.state.awaiting_read.len(), 1, "{round}");
        }
    }

    /// Each further stripe is another item that may conflict with another process.
    #[test]
    fn entries_are_allocated_from_few_stripes() {
        for first in 0..5 {
            let mut left = [1, 50, 50, 50, 50];
            let mut allocator = Allocator { owned: 0b1, used: 0, first, count: 5 };
            let entries: Vec<u16> = (0..40)
                .flat_map(|_| allocator.allocate(&mut left, 1).expect("enough"))
                .map(|draw| draw.stripe)
                .collect();
            assert_eq!(entries[0], 0, "its own stripe first");
            assert!(entries[1..].iter().all(|stripe| *stripe == entries[1]), "{entries:?}");
        }
    }
}
