//! The group commit: lanes with at most one transaction in flight each, which share a queue.
//!
//! A free lane dispatches at once, or after a delay of at most 8 ms while other lanes are busy (pacing, batching
//! delay). While all lanes are busy, entries collect in the queue, and the lane that finishes first sends them. The
//! batch size follows the load.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | one lane: its own entries, dispatch, timeouts |
//! | `pool.rs` | the lanes of one event that share a queue: admission control, and which lane is next |
//! | `pool_state.rs` | what the lanes of a pool share: the queue, pacing, known shortages |
//! | `queue.rs` | waiting entries, in order |
//! | `latency.rs` | the latency estimator behind admission control |
//! | `batch_entry.rs` | one operation in a lane, and the write that it became |
//! | `batch.rs` | collects entries into one transaction within the store's limits |
//! | `outcome.rs` | turns the outcome of a transaction into answers, retries, splits, redecisions |
//! | `capacity.rs` | remaining capacity of short stripes, and which entries fit |
//! | `stripe_planner.rs` | short stripes: a strong read of all stripes, allocation from others, sold out |
//! | `stock_move.rs` | moves of units from richer stripes to short ones |
//! | `output.rs` | context and output of a call into a pool |
//!
//! A lane of a stripe writes units of that stripe; entries with a stripe plan may take units of other stripes, too. An
//! unstriped lane writes no stripe: commits of holds, tombstones, seats.
//!
//! Not here: which shard owns a stripe, coalescing of equal calls, seat locks (all in
//! [`crate::engine`]).

mod batch;
mod batch_entry;
mod capacity;
mod latency;
mod outcome;
mod output;
mod pool;
mod pool_state;
mod queue;
mod stock_move;
mod stripe_planner;

use crate::fault::{self, Fault};
use std::rc::Rc;

use rand::Rng;

use self::batch::Batch;
pub use self::batch_entry::WriteIntent;
use self::batch_entry::{BatchEntry, QueueMetadata};
pub use self::output::{Completion, PoolContext, PoolOutput, Redecision, RedecisionCause};
pub use self::pool::Pool;
pub use self::pool_state::{LaneSettings, PoolKey, PoolKind};
use self::pool_state::{PoolState, bit};
pub(crate) use self::pool_state::{SoldOutHint, batching_delay};
use self::queue::Queue;
use self::stock_move::StockMove;
use super::answer::Rejection;
use super::counters::{BATCH_BOUNDS, TIME_BOUNDS_US};
use super::time::Micros;
use super::transaction::{
    EventLayout, RequestToken, StripeAllocation, StripeAllocations, Transaction,
};
use crate::limits;

/// A transaction in flight. The writes of its entries are in it and are taken back out of it.
#[derive(Debug)]
struct InFlightTransaction {
    /// By entry, in the order of the writes.
    queue: Vec<QueueMetadata>,
    transaction: Rc<Transaction>,
    /// When the transaction was first sent.
    sent: Micros,
    /// Units that it moves to the stripe of the lane.
    stock_move: Option<StockMove>,
    /// Since when the outcome is unknown. A resend that fails proves nothing about the first attempt.
    unknown_since: Option<Micros>,
}

impl InFlightTransaction {
    fn was_unknown(&self) -> bool {
        self.unknown_since.is_some()
    }

    /// When callers no longer wait behind this transaction.
    fn stuck_at(&self) -> Option<Micros> {
        let after = Micros(limits::LANE_STUCK_AFTER.as_micros() as u64);
        self.unknown_since.map(|since| since.plus(after))
    }
}

/// Sends at most one transaction at a time.
#[derive(Debug)]
struct Lane {
    /// The stripe of the lane, or its number among unstriped lanes.
    index: u16,
    /// Entries that only this lane can write: returns to its stripe, and planned allocations.
    own: Queue,
    /// Batches whose entries go together and before all others: halves of a rejected body, or the entries of a
    /// cancelled transaction that are sent again at once.
    groups: Vec<Vec<BatchEntry>>,
    /// Units that the next transaction moves to the stripe of the lane.
    incoming: Option<StockMove>,
    /// Conflicts of this move. After the first the move is sent without entries.
    move_conflicts: u32,
    in_flight: Option<InFlightTransaction>,
    /// What waited behind the transaction in flight has been rejected, because its outcome is unknown for too long.
    is_swept: bool,
    /// Attempts in a row that ended with a pause.
    consecutive_backoffs: u32,
    pause_until: Option<Micros>,
    /// Conflicts of this lane, less one for each success since.
    conflict_score: u32,
    /// Until then the lane leaves the queue to other lanes, because another process writes its stripe.
    yields_until: Option<Micros>,
    /// Conflicts on a confirmation counter: each of them moves the lane to the next counter.
    counter_conflicts: usize,
    /// The time in the pool's timers.
    timer: Option<Micros>,
}

impl Lane {
    fn new(index: u16) -> Self {
        Self {
            index,
            own: Queue::default(),
            groups: Vec::new(),
            incoming: None,
            move_conflicts: 0,
            in_flight: None,
            is_swept: false,
            consecutive_backoffs: 0,
            pause_until: None,
            conflict_score: 0,
            yields_until: None,
            counter_conflicts: 0,
            timer: None,
        }
    }

    /// The confirmation counter of the lane's next transaction. Lanes of all shards and processes differ in it, as far as
    /// there are enough counters. A lane that met another one moves on.
    fn counter(&self, layout: EventLayout, writer: usize) -> u16 {
        let slot = writer * usize::from(limits::UNSTRIPED_LANES) + usize::from(self.index);
        let slot = slot + self.counter_conflicts;
        (slot % usize::from(limits::confirmation_counters(layout.stripes))) as u16
    }

    /// Whether nothing of its own waits, and nothing is in flight.
    fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.own.is_empty() && self.groups.is_empty()
    }

    /// Operations in the lane that have not been answered.
    fn depth(&self) -> usize {
        self.waiting()
            + self.own.background.len()
            + self.in_flight.as_ref().map_or(0, |f| f.queue.len())
    }

    /// Callers that wait for a transaction of this lane.
    fn waiting(&self) -> usize {
        let grouped: usize = self.groups.iter().map(Vec::len).sum();
        self.own.foreground.len() + grouped
    }

    /// What a read of all stripes has allocated to entries of this lane, queued or in flight.
    fn planned_allocations(&self) -> impl Iterator<Item = &StripeAllocation> {
        let queued = self.own.foreground.iter().chain(self.groups.iter().flatten());
        let queued = queued.map(|entry| (&entry.queue, &entry.write));
        let in_flight = self.in_flight.iter();
        let in_flight = in_flight.flat_map(|sent| sent.queue.iter().zip(&sent.transaction.records));
        queued
            .chain(in_flight)
            .filter(|(queue, _)| queue.has_stripe_plan)
            .flat_map(|(_, write)| &write.draws)
    }

    /// When [`Lane::wake`] is next due.
    fn wake_at(&self) -> Option<Micros> {
        match &self.in_flight {
            Some(in_flight) => in_flight.stuck_at().filter(|_| !self.is_swept),
            None => match (self.pause_until, self.yields_until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        }
    }

    /// Whether the lane can send at once.
    fn is_free(&self) -> bool {
        self.in_flight.is_none() && self.pause_until.is_none()
    }

    /// Whether the outcome in flight has been unknown for so long that callers do not wait behind it.
    fn is_stuck(&self, now: Micros) -> bool {
        self.in_flight.as_ref().and_then(InFlightTransaction::stuck_at).is_some_and(|at| at <= now)
    }

    /// The transaction in flight, if its outcome is unknown.
    fn unresolved(&self) -> Option<Rc<Transaction>> {
        let in_flight = self.in_flight.as_ref().filter(|in_flight| in_flight.was_unknown())?;
        Some(Rc::clone(&in_flight.transaction))
    }

    /// Does what is due: rejects what waits behind an unresolved transaction, or ends a pause.
    fn wake(&mut self, state: &mut PoolState, cx: &mut PoolContext<'_>) {
        let now = cx.now.mono;
        match &self.in_flight {
            Some(_) if self.is_stuck(now) => {
                self.is_swept = true;
                self.reject_own(cx);
            }
            Some(_) => {}
            None => {
                let over = |until: &mut Option<Micros>| until.take_if(|at| *at <= now);
                over(&mut self.pause_until);
                if over(&mut self.yields_until).is_some() {
                    state.yielding &= !bit(self.index);
                }
                self.dispatch(state, cx);
            }
        }
    }

    /// Sends the next batch unless one is in flight or the lane pauses: a group that stays together, else its own
    /// entries and those of the shared queue in order of arrival.
    fn dispatch(&mut self, state: &mut PoolState, cx: &mut PoolContext<'_>) {
        if !self.is_free() {
            return;
        }
        let now = cx.now.mono;
        if self.incoming.is_none() {
            // The move was given up, for example because the stripe is no longer owned.
            self.move_conflicts = 0;
        }
        if self.move_conflicts > 0 && self.groups.is_empty() {
            match self.is_idle() && !state.has_waiting() {
                true => self.give_up_move(state, now),
                false => {
                    self.send_move(state, cx);
                    return;
                }
            }
        }
        let Some(batch) = self.next_batch(state, cx) else {
            return;
        };
        if batch.taken_from_queue > 0 {
            state.pace(batch.taken_from_queue, now);
        }
        // A group that is sent again, and the lane's own entries, do not show the rate of the queue.
        let counts_all = fault::planted(Fault::SplitMeasured);
        if batch.uses_shared_queue || counts_all {
            let is_full = !batch.front_is_for_other_stripe && !state.queue.foreground.is_empty();
            let taken = match counts_all {
                true => batch.entries.len(),
                false => batch.taken_from_queue,
            };
            state.latency.record_dispatch(taken, is_full, now);
        }
        if let Some(last) = batch.entries.last() {
            let waited = now.since(last.queue.arrived);
            state.latency.record_wait(last.queue.expected_wait, waited);
        }
        for entry in &batch.entries {
            let waited = now.since(entry.queue.arrived);
            cx.counters.queue_times.record(&TIME_BOUNDS_US, waited.0);
        }
        let entries = batch.entries.len() as u64;
        cx.counters.batch_sizes.record(&BATCH_BOUNDS, entries);
        cx.counters.entries += entries;
        cx.counters.entries_max = cx.counters.entries_max.max(entries);
        let token = RequestToken(cx.rng.random());
        let counter = self.counter(state.layout, cx.writer);
        let (event, layout) = (&state.key.event, state.layout);
        let (queue, mut transaction) =
            batch.into_transaction(event, layout, token, cx.now.unix, counter);
        if matches!(state.key.kind, PoolKind::ExpiryBatch { .. }) {
            batch::add_release_record(&mut transaction);
        }
        #[cfg(feature = "planted-faults")]
        if fault::planted(Fault::OwnStripeUnconditional) {
            let own = state.owned & !state.shared;
            let updates = transaction.stripes.iter_mut();
            updates.for_each(|update| update.is_unconditional = bit(update.stripe) & own != 0);
        }
        let stock_move = self.incoming.take();
        self.send(queue, transaction, stock_move, cx);
    }

    /// Sends a transaction, with the move if there is one.
    fn send(
        &mut self,
        queue: Vec<QueueMetadata>,
        mut transaction: Transaction,
        stock_move: Option<StockMove>,
        cx: &mut PoolContext<'_>,
    ) {
        cx.counters.transactions += 1;
        if let Some(stock_move) = stock_move {
            cx.counters.stock_moves += 1;
            stock_move.add_to(&mut transaction.stripes, self.index);
        }
        let transaction = Rc::new(transaction);
        cx.out.send.push((self.index, Rc::clone(&transaction)));
        self.in_flight = Some(InFlightTransaction {
            queue,
            transaction,
            sent: cx.now.mono,
            stock_move,
            unknown_since: None,
        });
    }

    /// The next batch with entries; rejects those that would miss their deadline. `None` if nothing is to be sent.
    fn next_batch(&mut self, state: &mut PoolState, cx: &mut PoolContext<'_>) -> Option<Batch> {
        let now = cx.now.mono;
        loop {
            let mut batch = match self.groups.pop() {
                Some(group) => Batch::of_group(group),
                None => {
                    let mut batch = Batch::for_move(self.index, self.incoming);
                    batch.collect(self.index, &mut self.own, state, now);
                    batch
                }
            };
            batch.remove_late(now);
            let found = !batch.late.is_empty();
            for late_entry in batch.late.drain(..) {
                cx.counters.deadline_missed += 1;
                cx.out.reject(late_entry, self.lateness_rejection());
            }
            if !batch.entries.is_empty() {
                return Some(batch);
            }
            if !found && self.groups.is_empty() {
                return None;
            }
        }
    }

    /// Sends the move alone: it has conflicted with the owner of the other stripe, and may again.
    fn send_move(&mut self, state: &PoolState, cx: &mut PoolContext<'_>) {
        let Some(stock_move) = self.incoming.take() else {
            return;
        };
        let (token, at) = (RequestToken(cx.rng.random()), cx.now.unix);
        let batch = Batch::for_move(self.index, None);
        let (event, layout) = (&state.key.event, state.layout);
        let (queue, transaction) = batch.into_transaction(event, layout, token, at, 0);
        self.send(queue, transaction, Some(stock_move), cx);
    }

    /// Gives up a move: the stripe does not get the units that entries were to take from it.
    fn give_up_move(&mut self, state: &mut PoolState, now: Micros) {
        self.incoming = None;
        self.move_conflicts = 0;
        state.record_remainder(self.index, 0, now);
    }

    /// Rejects entries whose deadline has passed.
    fn reject_late(&mut self, cx: &mut PoolContext<'_>) {
        let mut late = Vec::new();
        self.own.remove_late(cx.now.mono, &mut late);
        for entry in late {
            cx.counters.deadline_missed += 1;
            cx.out.reject(entry, self.lateness_rejection());
        }
    }

    /// The store is the reason if the lane backed off until the deadline.
    fn lateness_rejection(&self) -> Rejection {
        if self.consecutive_backoffs > 0 && self.in_flight.is_none() {
            Rejection::store_busy()
        } else {
            Rejection::DeadlineExceeded
        }
    }
}

/// All units from one stripe.
pub(super) fn drawn_from(stripe: u16, units: u32) -> StripeAllocations {
    smallvec::smallvec![StripeAllocation { stripe, units }]
}

/// Actions of one transaction that entries can use.
fn action_budget(kind: PoolKind) -> usize {
    match kind {
        // The release record needs one.
        PoolKind::ExpiryBatch { .. } => limits::TRANSACTION_ACTIONS_MAX - 1,
        PoolKind::Stripes | PoolKind::Unstriped => limits::TRANSACTION_ACTIONS_MAX,
        PoolKind::ContendedSeats => limits::CONTENDED_SEATS_ACTIONS_MAX,
    }
}
