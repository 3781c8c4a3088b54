//! Outcome handling: from the outcome of a transaction to answers, retries, splits and redecisions.

use crate::fault::{self, Fault};
use std::rc::Rc;

use rand::Rng;

use super::batch_entry::BatchEntry;
use super::capacity::{self, BackoffCause, RecordStatus};
use super::pool_state::{PoolState, bit};
use super::stock_move::StockMove;
use super::{
    Completion, InFlightTransaction, Lane, PoolContext, PoolOutput, Redecision, RedecisionCause,
};
use crate::answer::Rejection;
use crate::backoff;
use crate::limits;
use crate::operation::Verb;
use crate::rules::{self, Decision, StockChange};
use crate::time::{Micros, Now};
use crate::transaction::{ActionOutcome, RecordView, RecordWrite, Transaction, TransactionOutcome};

/// What becomes of an entry of a cancelled transaction, by its own record and seats.
enum OutcomeAction {
    Retry(RecordStatus),
    RejectBusy,
    /// The store rejects the action, or the record cannot be parsed.
    RejectInvalid,
    Redecide(RedecisionCause),
}

impl Lane {
    /// Handles the outcome of the transaction in flight; ignored if none is. The driver reports one outcome per
    /// attempt.
    pub(super) fn handle_outcome(
        &mut self,
        outcome: TransactionOutcome,
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        self.is_swept = false;
        Self::record_outcome(&outcome, &in_flight, state, cx);
        match outcome {
            TransactionOutcome::Committed => {
                self.consecutive_backoffs = 0;
                self.move_conflicts = 0;
                self.complete_all(in_flight, state, cx);
            }
            TransactionOutcome::Unknown => {
                cx.counters.unknown_outcomes += 1;
                self.resend_later(in_flight, cx);
                return;
            }
            // A repeat that backs off leaves the outcome of the first attempt unknown.
            TransactionOutcome::Conflict
            | TransactionOutcome::Throttled
            | TransactionOutcome::Refused
                if in_flight.was_unknown() =>
            {
                let is_refused = outcome == TransactionOutcome::Refused;
                self.resend_later(in_flight, cx);
                if is_refused {
                    self.reject_queued(state, cx);
                }
                return;
            }
            TransactionOutcome::Conflict => {
                let stock_move = in_flight.stock_move;
                self.counter_conflicts += usize::from(in_flight.transaction.counter.is_some());
                self.back_off_after_conflict(stock_move, into_entries(in_flight), state, cx);
            }
            TransactionOutcome::Throttled => {
                self.incoming = in_flight.stock_move;
                self.back_off(into_entries(in_flight), BackoffCause::Throttled, state, cx);
            }
            TransactionOutcome::Rejected => {
                self.consecutive_backoffs = 0;
                self.incoming = in_flight.stock_move;
                // The transactions of a split do not show the rate of the queue behind them.
                state.latency.reset_window();
                self.split(into_entries(in_flight), cx);
            }
            TransactionOutcome::Refused => {
                self.consecutive_backoffs = 0;
                for entry in into_entries(in_flight) {
                    cx.out.reject(entry, Rejection::store_unavailable());
                }
                self.reject_queued(state, cx);
            }
            TransactionOutcome::Cancelled(reasons) => {
                self.cancelled(in_flight, &reasons, state, cx)
            }
        }
        self.dispatch(state, cx);
    }

    /// Records what the outcome shows about the stock, and counts it.
    fn record_outcome(
        outcome: &TransactionOutcome,
        in_flight: &InFlightTransaction,
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        // A write with an unknown outcome may have been applied long ago. A write with a known outcome was
        // applied just now, and no other writer has changed its items since.
        cx.out.as_of = match outcome {
            TransactionOutcome::Committed
                if !in_flight.was_unknown() || fault::planted(Fault::LateOutcomeFresh) =>
            {
                cx.now.mono
            }
            _ => in_flight.sent,
        };
        let is_written = *outcome == TransactionOutcome::Committed;
        // An earlier attempt may have been applied, if the store has forgotten the token.
        let may_be_applied = in_flight.was_unknown()
            && matches!(outcome, TransactionOutcome::Cancelled(_) | TransactionOutcome::Rejected);
        if is_written || (may_be_applied && !fault::planted(Fault::LostOutcomeForgotten)) {
            cx.out.stock.extend_from_slice(&in_flight.transaction.stripes);
            cx.out.confirmed += in_flight.transaction.counter.map_or(0, |counter| counter.units);
            cx.out.stripe_updates_sent = is_written.then_some(in_flight.sent);
        }
        if let Some(stock_move) = in_flight.stock_move {
            let was_unknown = in_flight.was_unknown();
            stock_move.count_outcome(outcome, &in_flight.transaction, was_unknown, cx.counters);
        }
        if in_flight.was_unknown() {
            match outcome {
                TransactionOutcome::Committed => cx.counters.unknown_applied += 1,
                TransactionOutcome::Cancelled(_) | TransactionOutcome::Rejected => {
                    cx.counters.unknown_not_applied += 1
                }
                // Still unknown.
                _ => {}
            }
        }
        if !matches!(outcome, TransactionOutcome::Unknown | TransactionOutcome::Refused) {
            state.latency.record_transaction(cx.now.mono.since(in_flight.sent));
        }
    }

    /// Rejects what waits for this lane: the store would refuse it too, and the callers would find out only one transaction
    /// after the other.
    pub(super) fn reject_queued(&mut self, state: &mut PoolState, cx: &mut PoolContext<'_>) {
        self.reject_own(cx);
        for entry in state.queue.take_all() {
            cx.out.reject(entry, Rejection::store_unavailable());
        }
    }

    /// Rejects the entries that only this lane can write.
    pub(super) fn reject_own(&mut self, cx: &mut PoolContext<'_>) {
        let groups = std::mem::take(&mut self.groups).into_iter().flatten();
        for entry in groups.chain(self.own.take_all()) {
            cx.out.reject(entry, Rejection::store_unavailable());
        }
    }

    /// Completes all entries of a committed transaction.
    fn complete_all(
        &mut self,
        in_flight: InFlightTransaction,
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        self.conflict_score = self.conflict_score.saturating_sub(1);
        self.leave_gap(&in_flight, state, cx);
        let at = in_flight.transaction.at;
        let mut given = 0;
        for record in into_writes(in_flight.transaction) {
            if rules::stock_change(record.from, record.to) == StockChange::Return {
                state.discard_sold_out_hint(cx.now.mono);
                for draw in &record.draws {
                    state.return_units(draw.stripe, draw.units);
                    given += u64::from(draw.units);
                }
            }
            cx.out.written(record, at);
        }
        state.retry_awaiting(given);
    }

    /// On the only stripe of this pool, which other processes share, a transaction is followed by a pause of random
    /// length up to its own duration. Otherwise the process that is first would always be first: it sends its next
    /// transaction before the others try again.
    fn leave_gap(
        &mut self,
        in_flight: &InFlightTransaction,
        state: &PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        if bit(self.index) & state.shared & state.owned == 0 || state.has_several_lanes() {
            return;
        }
        let took = cx.now.mono.since(in_flight.sent).0;
        let most = limits::SHARED_STRIPE_GAP_MAX.as_micros() as u64;
        let gap = Micros(cx.rng.random_range(0..=took.min(most)));
        self.pause_until = Some(cx.now.mono.plus(gap));
    }

    /// Keeps the transaction, to send the same body under the same token: the engine says when.
    fn resend_later(&mut self, mut in_flight: InFlightTransaction, cx: &mut PoolContext<'_>) {
        self.consecutive_backoffs = self.consecutive_backoffs.saturating_add(1);
        in_flight.unknown_since.get_or_insert(cx.now.mono);
        self.in_flight = Some(in_flight);
        cx.out.unresolved.push(self.index);
    }

    /// Requeues entries in order, and pauses. Entries that only this lane can write and that would miss their
    /// deadline because of the pause are rejected now. Background entries are rejected: the reclaimer finds their
    /// holds again.
    fn back_off(
        &mut self,
        entries: Vec<BatchEntry>,
        cause: BackoffCause,
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        match cause {
            BackoffCause::Conflict => cx.counters.conflicts += 1,
            BackoffCause::Throttled => cx.counters.throttles += 1,
        }
        self.consecutive_backoffs = self.consecutive_backoffs.saturating_add(1);
        let is_shared = bit(self.index) & state.shared != 0 && cause == BackoffCause::Conflict;
        let attempt = match is_shared && !state.has_several_lanes() {
            // The others leave gaps.
            true => self.consecutive_backoffs.min(2),
            false => self.consecutive_backoffs,
        };
        let until = cx.now.mono.plus(backoff::pause(attempt, cx.rng));
        self.pause_until = Some(until);
        if cause == BackoffCause::Conflict && state.has_several_lanes() {
            self.yield_queue(state, cx);
        }
        let mut remaining = Vec::with_capacity(entries.len());
        for entry in entries {
            let may_move = state.has_several_lanes() && state.is_for_any(&entry);
            let by = if may_move { cx.now.mono } else { until };
            if entry.is_background() {
                cx.out.reject(entry, Rejection::store_busy());
            } else if entry.deadline() > by {
                remaining.push(entry);
            } else {
                cx.counters.deadline_missed += 1;
                cx.out.reject(entry, Rejection::store_busy());
            }
        }
        self.requeue(remaining, state);
    }

    /// A lane with repeated conflicts leaves the queue to the other lanes for growing times, so that processes that
    /// share stripes settle on different ones.
    fn yield_queue(&mut self, state: &mut PoolState, cx: &mut PoolContext<'_>) {
        self.conflict_score = self.conflict_score.saturating_add(1);
        // A single conflict shows nothing: another process may have returned or moved units.
        if let Some(times) = self.conflict_score.checked_sub(1).filter(|times| *times > 0) {
            state.record_contention(cx.now.mono);
            let yield_time = backoff::yield_duration(times, cx.rng);
            self.yields_until = Some(cx.now.mono.plus(yield_time));
            state.yielding |= bit(self.index);
        }
    }

    /// Entries of the finished transaction go before all others again, in order: into the queue if any lane
    /// may write them, and before groups that were split off behind them.
    fn requeue(&mut self, entries: Vec<BatchEntry>, state: &mut PoolState) {
        let has_others = state.has_several_lanes();
        let is_for_any_lane = |entry: &BatchEntry| state.is_for_any(entry);
        let is_for_queue =
            |entry: &BatchEntry| is_for_any_lane(entry) && (has_others || self.groups.is_empty());
        let (to_queue, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_for_queue);
        if fault::planted(Fault::RequeuedEntryTwice) {
            self.own.requeue(to_queue.clone());
        }
        state.requeue(to_queue);
        if self.groups.is_empty() {
            self.own.requeue(own);
        } else if !own.is_empty() {
            self.groups.push(own);
        }
    }

    /// The store rejected the body without naming an action: halve it until the invalid entry is alone.
    fn split(&mut self, mut entries: Vec<BatchEntry>, cx: &mut PoolContext<'_>) {
        if entries.len() <= 1 {
            for entry in entries {
                cx.out.reject(entry, Rejection::Internal);
            }
            return;
        }
        cx.counters.splits += 1;
        let second = entries.split_off(entries.len() / 2);
        self.groups.push(second);
        self.groups.push(entries);
    }

    /// Handles a conflict. A move is tried again after a short pause, and without entries: each attempt costs little, and
    /// the owner of the other stripe leaves short gaps between its transactions.
    fn back_off_after_conflict(
        &mut self,
        stock_move: Option<StockMove>,
        entries: Vec<BatchEntry>,
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        let Some(stock_move) = stock_move else {
            self.back_off(entries, BackoffCause::Conflict, state, cx);
            return;
        };
        cx.counters.conflicts += 1;
        self.move_conflicts += 1;
        let pause = limits::STOCK_MOVE_PAUSE.as_micros() as u64;
        self.pause_until = Some(cx.now.mono.plus(Micros(cx.rng.random_range(pause / 2..=pause))));
        match self.move_conflicts < limits::STOCK_MOVE_CONFLICTS_MAX {
            true => self.incoming = Some(stock_move),
            false => self.give_up_move(state, cx.now.mono),
        }
        self.requeue(entries, state);
    }

    /// Reads every reason; each entry is answered, requeued or sent again independently.
    fn cancelled(
        &mut self,
        in_flight: InFlightTransaction,
        reasons: &[ActionOutcome],
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        let updates = in_flight.transaction.stripes.clone();
        let expected = in_flight.transaction.action_count();
        // A release record has a record and no entry.
        let records = in_flight.transaction.records.len();
        let (sent, stock_move) = (in_flight.sent, in_flight.stock_move);
        let has_counter = in_flight.transaction.counter.is_some();
        let entries = into_entries(in_flight);
        if reasons.len() != expected {
            // Not applied, but the reasons cannot be assigned to the actions: handled as a conflict.
            self.back_off_after_conflict(stock_move, entries, state, cx);
            return;
        }
        let (of_stripes, of_entries) = reasons.split_at(updates.len());
        let of_counter = of_entries.last().filter(|_| has_counter);
        // A conflict delays only its entry. Throttling delays all entries, even if the throttled entry is
        // completed.
        let mut backoff = match of_entries.contains(&ActionOutcome::Throttled) {
            true => Some(BackoffCause::Throttled),
            false => backoff_cause(of_stripes),
        };
        // Another lane writes the counter, or its item was edited and cannot be added to: the next one will do.
        if matches!(of_counter, Some(ActionOutcome::Conflict | ActionOutcome::Invalid)) {
            self.counter_conflicts += 1;
            backoff.get_or_insert(BackoffCause::Conflict);
        }
        let mut capacities =
            capacity::stripe_capacities(&updates, of_stripes, &mut backoff, state, cx.out);
        let had_move = stock_move.is_some();
        let stock_move = stock_move.filter(|stock_move| {
            let mut actions = updates.iter().zip(of_stripes);
            let source = actions.find(|(update, _)| update.stripe == stock_move.from);
            let is_short = source.is_none_or(|(_, of)| matches!(of, ActionOutcome::Stripe(_)));
            if is_short {
                // The entries relied on the units of the move: the stripes are read again.
                self.move_conflicts = 0;
                capacity::forget_units(&mut capacities, self.index);
            }
            !is_short
        });
        let departed_before = departures(cx.out);
        let retried = judge_entries(entries, of_entries, records, &mut backoff, state, cx);
        let capacity::RetryGroups { fitting, later, too_large } =
            capacity::group_retries(retried, &mut capacities, sent, state, cx);
        let no_entry_departed = departures(cx.out) == departed_before;
        let gave_up_move = had_move && stock_move.is_none();
        if backoff.is_none()
            && !gave_up_move
            && !fault::planted(Fault::UnexplainedRetried)
            && no_entry_departed
            && later.is_empty()
            && too_large.is_empty()
        {
            // Nothing explains the cancellation: never retry it in a tight loop.
            backoff = Some(BackoffCause::Conflict);
        }
        state.requeue(too_large);
        self.requeue(later, state);
        self.retry(fitting, stock_move, backoff, state, cx);
        for (stripe, capacity) in capacities {
            if let capacity::StripeCapacity::Limited { left, .. } = capacity {
                state.record_remainder(stripe, left, cx.now.mono);
            }
        }
    }

    /// Keeps the entries that fit into the next transaction, for at once or for after a pause.
    fn retry(
        &mut self,
        fitting: Vec<BatchEntry>,
        stock_move: Option<StockMove>,
        backoff: Option<BackoffCause>,
        state: &mut PoolState,
        cx: &mut PoolContext<'_>,
    ) {
        match backoff {
            Some(BackoffCause::Conflict) => {
                self.back_off_after_conflict(stock_move, fitting, state, cx);
            }
            Some(cause) => {
                self.incoming = stock_move;
                self.back_off(fitting, cause, state, cx);
            }
            None => {
                self.incoming = stock_move;
                self.consecutive_backoffs = 0;
                if !fitting.is_empty() {
                    self.groups.push(fitting);
                }
            }
        }
    }
}

/// Handles the outcome of each entry; `of_entries` has those of the records, then those of the seats. Returns the entries
/// to retry with the status of their records, and raises `backoff` to the strongest cause among them.
fn judge_entries(
    entries: Vec<BatchEntry>,
    of_entries: &[ActionOutcome],
    records: usize,
    backoff: &mut Option<BackoffCause>,
    state: &mut PoolState,
    cx: &mut PoolContext<'_>,
) -> Vec<(BatchEntry, RecordStatus)> {
    let (of_records, mut of_seats) = of_entries.split_at(records);
    let mut retried = Vec::with_capacity(entries.len());
    for (entry, of_record) in entries.into_iter().zip(of_records) {
        let (seats, of_later_entries) = of_seats.split_at(entry.write.seats_moved().len());
        of_seats = of_later_entries;
        match judge(&entry, of_record, seats) {
            OutcomeAction::Retry(record) => {
                let own = backoff_cause(std::slice::from_ref(of_record));
                *backoff = stronger_backoff(*backoff, stronger_backoff(own, backoff_cause(seats)));
                retried.push((entry, record));
            }
            OutcomeAction::RejectBusy => cx.out.reject(entry, Rejection::store_busy()),
            OutcomeAction::RejectInvalid => cx.out.reject(entry, Rejection::Internal),
            OutcomeAction::Redecide(RedecisionCause::Record(Some(view))) => {
                cx.counters.duplicates += 1;
                handle_existing_record(entry, view, state, cx.now, cx.out);
            }
            OutcomeAction::Redecide(cause) => redecide(entry, cause, cx.out),
        }
    }
    retried
}

/// Number of entries that were completed or are redecided.
fn departures(out: &PoolOutput) -> usize {
    out.completions.len() + out.redecisions.len()
}

/// The record differs from the condition of the write. The answer may follow from the record.
fn handle_existing_record(
    entry: BatchEntry,
    view: RecordView,
    state: &PoolState,
    now: Now,
    out: &mut PoolOutput,
) {
    let from = entry.write.from;
    let operation = entry.into_operation();
    match rules::decide(&operation, Some(&view), now.unix, state.late) {
        Decision::Answer(answer) => out.completions.push(Completion {
            reservation: operation.reservation,
            answer,
            record: Some(view),
            is_own_write: false,
        }),
        Decision::Write(_) => out.redecisions.push(Redecision {
            operation,
            from,
            cause: RedecisionCause::Record(Some(view)),
        }),
    }
}

fn redecide(entry: BatchEntry, cause: RedecisionCause, out: &mut PoolOutput) {
    out.redecisions.push(Redecision {
        from: entry.write.from,
        operation: entry.into_operation(),
        cause,
    });
}

/// Decides about an entry by the outcomes of its actions. The record comes first: if the reservation is already
/// written, the answer follows from its record, even if its seats have changed since.
fn judge(
    entry: &BatchEntry,
    of_record: &ActionOutcome,
    of_seats: &[ActionOutcome],
) -> OutcomeAction {
    let back_off = |reason: &ActionOutcome| {
        matches!(reason, ActionOutcome::Conflict | ActionOutcome::Throttled)
    };
    match of_record {
        ActionOutcome::Record(view) => {
            return OutcomeAction::Redecide(RedecisionCause::Record(Some(view.clone())));
        }
        ActionOutcome::RecordMissing => {
            return OutcomeAction::Redecide(RedecisionCause::Record(None));
        }
        ActionOutcome::RecordUnreadable | ActionOutcome::Invalid => {
            return OutcomeAction::RejectInvalid;
        }
        _ if entry.is_background() && (back_off(of_record) || of_seats.iter().any(back_off)) => {
            return OutcomeAction::RejectBusy;
        }
        // The store did not report the record.
        reason if back_off(reason) => return OutcomeAction::Retry(RecordStatus::Unknown),
        _ => {}
    }
    if of_seats.contains(&ActionOutcome::Invalid) {
        return OutcomeAction::RejectInvalid;
    }
    let differs: Vec<_> = entry
        .write
        .seats_moved()
        .iter()
        .zip(of_seats)
        .filter_map(|(seat, reason)| match reason {
            ActionOutcome::Seat(state) => Some((seat.clone(), state.clone())),
            _ => None,
        })
        .collect();
    if differs.is_empty() {
        return OutcomeAction::Retry(RecordStatus::AsExpected);
    }
    match entry.stock_change() {
        StockChange::Reserve => OutcomeAction::Redecide(RedecisionCause::Seats(differs)),
        // The seats that the record names belong to another reservation or to none: an operator changed them.
        _ if entry.write.operation.verb == Verb::Commit => {
            OutcomeAction::Redecide(RedecisionCause::Seats(differs))
        }
        _ => OutcomeAction::RejectInvalid,
    }
}

/// Throttling takes precedence over a conflict, because it asks for a longer pause.
fn backoff_cause(reasons: &[ActionOutcome]) -> Option<BackoffCause> {
    if reasons.contains(&ActionOutcome::Throttled) {
        Some(BackoffCause::Throttled)
    } else if reasons.contains(&ActionOutcome::Conflict) {
        Some(BackoffCause::Conflict)
    } else {
        None
    }
}

fn stronger_backoff(
    one: Option<BackoffCause>,
    other: Option<BackoffCause>,
) -> Option<BackoffCause> {
    match (one, other) {
        (Some(BackoffCause::Throttled), _) | (_, None) => one,
        _ => other,
    }
}

fn into_writes(transaction: Rc<Transaction>) -> Vec<RecordWrite> {
    // The driver has dropped its reference by now; the copy is for a driver that has not.
    Rc::try_unwrap(transaction).unwrap_or_else(|shared| (*shared).clone()).records
}

fn into_entries(in_flight: InFlightTransaction) -> Vec<BatchEntry> {
    in_flight
        .queue
        .into_iter()
        .zip(into_writes(in_flight.transaction))
        .map(|(queue, write)| BatchEntry { write, queue })
        .collect()
}
