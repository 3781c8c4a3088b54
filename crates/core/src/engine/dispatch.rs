//! Dispatch: the lowest layer of the engine's methods. Outputs, reads, lanes, and the completion of an
//! operation.
//!
//! Methods here call the engine's parts, push effects, and push [`Step`]s for what follows. None decides
//! an operation.

use super::in_flight::{Caller, ForwardOrigin, InFlightCall, Waiter};
use super::{Engine, OperationTask, planner};
use crate::answer::{Answer, Rejection};
use crate::effect::{CallId, Effect, LaneId, PoolId, RecordHint};
use crate::fault::{self, Fault};
use crate::ids::{EventId, Fingerprint, PaymentHash, ReservationId, SeatId};
use crate::lane::{
    Completion, Pool, PoolContext, PoolKind, PoolOutput, Redecision, WriteIntent, batching_delay,
};
use crate::operation::{Operation, Verb};
use crate::query::QueryResult;
use crate::rules::{self, Decision};
use crate::stock_reads::StockReadWaiter;
use crate::stock_snapshots::StockDeltas;
use crate::time::{Micros, UnixMillis};
use crate::transaction::{EventLayout, RecordView};

/// Work that an input still has to do. See "Bounds" in `engine/mod.rs`.
pub(super) enum Step {
    /// Decide an operation that waited for a seat lock, or for the outcome of another reservation.
    Advance(OperationTask),
    /// Register a call of the engine itself.
    Register(OperationTask),
    /// Complete and redecide what a pool returned.
    PoolResults(PoolResults),
    /// Complete an operation.
    Complete(EventId, Completed),
    /// Answer the callers of an operation, after the operations that it blocked have continued.
    AnswerCallers(EventId, Completed),
    /// Answer the other callers of an operation whose first caller is answered.
    AnswerWaiters(Box<WaitersToAnswer>),
    /// Expire an overdue hold whose seat a buyer requests.
    ExpireHolder(Box<OverdueHolder>),
    /// Release the seat lock of an expiry that was not registered, because no completion will release it.
    UnlockUnregistered(EventId, ReservationId),
    /// Continue with a buyer after the overdue holds of its seats were expired or failed to expire.
    ResumeBuyer(Box<SeatRequest>),
}

/// The outcome of an operation.
pub(super) struct Completed {
    pub(super) reservation: ReservationId,
    pub(super) answer: Answer,
    /// What the store holds for the reservation, if that is known.
    pub(super) record: Option<RecordView>,
}

/// What a pool returned; both lists in reverse order.
pub(super) struct PoolResults {
    pub(super) event: EventId,
    pub(super) as_of: Micros,
    pub(super) completions: Vec<Completion>,
    pub(super) redecisions: Vec<Redecision>,
}

/// See [`Step::AnswerWaiters`].
pub(super) struct WaitersToAnswer {
    pub(super) event: EventId,
    pub(super) verb: Verb,
    pub(super) fingerprint: Fingerprint,
    pub(super) payment: Option<PaymentHash>,
    pub(super) started_at: Micros,
    pub(super) waiters: std::vec::IntoIter<Waiter>,
    pub(super) watchers: Vec<OperationTask>,
    pub(super) answer: Answer,
    pub(super) record: Option<RecordView>,
}

/// An overdue hold whose seat a buyer requests.
pub(super) struct OverdueHolder {
    pub(super) event: EventId,
    pub(super) layout: EventLayout,
    pub(super) holder: ReservationId,
    pub(super) seat: SeatId,
    pub(super) deadline: Micros,
}

/// A buyer whose write found seats that were not free.
pub(super) struct SeatRequest {
    pub(super) task: OperationTask,
    pub(super) layout: EventLayout,
    /// The engine chose the seats.
    pub(super) is_best_available: bool,
    /// Overdue holders of its seats.
    pub(super) overdue: Vec<ReservationId>,
}

/// Outputs.
impl Engine {
    /// Pushes tasks so that they are decided in this order.
    pub(super) fn push_tasks(&mut self, tasks: Vec<OperationTask>) {
        if fault::planted(Fault::BlockedOperationLost) {
            return;
        }
        self.steps.extend(tasks.into_iter().rev().map(Step::Advance));
    }

    pub(super) fn answer(&mut self, caller: Caller, answer: Answer, record: Option<RecordView>) {
        self.effects.push_back(match caller {
            Caller::Call(call) => Effect::Answer { call, answer, record },
            Caller::Shard(origin) => {
                let ForwardOrigin { shard, event, reservation } = *origin;
                Effect::AnswerForwarded { shard, event, reservation, answer, record }
            }
        });
    }

    pub(super) fn answer_query(&mut self, call: CallId, result: Result<QueryResult, Rejection>) {
        self.effects.push_back(Effect::AnswerQuery { call, result });
    }

    pub(super) fn forward(
        &mut self,
        shard: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
    ) {
        self.counters.forwarded += 1;
        let ended = self.in_flight.mark_forwarded(&operation.reservation, &operation.event);
        for caller in ended {
            self.answer(caller, Answer::Rejected(Rejection::store_busy()), None);
        }
        self.effects.push_back(Effect::Forward { shard, layout, operation, hint });
    }

    pub(super) fn send_record_reads(&mut self) {
        let delay = batching_delay(self.pools.members().count());
        while let Some((read, reservations)) = self.record_reads.next_read(self.now.mono, delay) {
            self.effects.push_back(Effect::ReadRecords { read, reservations });
        }
    }

    pub(super) fn send_stripes_read(&mut self, event: &EventId, stripes_hint: Option<u16>) {
        let with_counters = self.stock_reads.with_counters(event);
        let event = event.clone();
        self.effects.push_back(Effect::ReadStripes { event, stripes_hint, with_counters });
    }
}

/// Completion.
impl Engine {
    /// Completes an operation with a rejection.
    pub(super) fn reject(&mut self, operation: &Operation, rejection: Rejection) {
        self.complete(
            &operation.event,
            Completed {
                reservation: operation.reservation.clone(),
                answer: Answer::Rejected(rejection),
                record: None,
            },
        );
    }

    pub(super) fn reject_overloaded(&mut self, operation: &Operation) {
        self.counters.rejected_overloaded += 1;
        self.reject(operation, Rejection::overloaded());
    }

    /// Releases an operation's seat locks, caches its record and answers its callers. Operations that
    /// its locks blocked are decided before the callers are answered.
    pub(super) fn complete(&mut self, event: &EventId, completed: Completed) {
        let now = self.now.mono;
        let blocked = match fault::planted(Fault::SeatLockKept) {
            true => Vec::new(),
            false => self.seated_events.unlock(event, &completed.reservation),
        };
        if !blocked.is_empty() {
            if let Some(record) = &completed.record {
                let reservation = completed.reservation.clone();
                self.cache.insert(reservation, record.clone(), now);
            }
            self.steps.push(Step::AnswerCallers(event.clone(), completed));
            self.push_tasks(blocked);
            return;
        }
        let Completed { reservation, answer, record } = completed;
        let call = self.in_flight.remove(&reservation, event);
        if let Some(record) = &record {
            self.cache.insert(reservation, record.clone(), now);
        }
        if let Some(call) = call {
            self.answer_callers(event, call, answer, record);
        }
    }

    pub(super) fn answer_callers(
        &mut self,
        event: &EventId,
        call: InFlightCall,
        answer: Answer,
        record: Option<RecordView>,
    ) {
        self.expiries -= usize::from(call.verb == Verb::Expire);
        let answer = call.without_false_claim(answer);
        if call.waiters.is_empty() && call.watchers.is_empty() {
            self.answer(call.leader, answer, record);
            return;
        }
        self.answer(call.leader, answer.clone(), record.clone());
        self.steps.push(Step::AnswerWaiters(Box::new(WaitersToAnswer {
            event: event.clone(),
            verb: call.verb,
            fingerprint: call.fingerprint,
            payment: call.payment,
            started_at: call.started_at,
            waiters: call.waiters.into_iter(),
            watchers: call.watchers,
            answer,
            record,
        })));
    }

    /// See [`Engine::cached_answer`].
    pub(super) fn answer_from_cache(
        &mut self,
        operation: &Operation,
        now: Micros,
    ) -> Option<Answer> {
        let cached = self.cache.get(&operation.reservation, now);
        let Some(record) = cached.filter(planner::is_final) else {
            self.counters.cache_misses += 1;
            return None;
        };
        let late = self.settings.late_commit;
        // A final state does not depend on the time.
        match rules::decide(operation, Some(&record), UnixMillis(0), late) {
            Decision::Answer(answer) => {
                self.counters.cache_hits += 1;
                Some(answer)
            }
            Decision::Write(_) => {
                self.counters.cache_misses += 1;
                None
            }
        }
    }
}

/// Reads.
impl Engine {
    pub(super) fn read_layout(&mut self, task: OperationTask) {
        let event = task.operation.event.clone();
        let waiter = StockReadWaiter::Operation(Box::new((task.operation, task.hint)));
        match self.stock_reads.request(&event, waiter, self.now.mono) {
            Ok(true) => self.send_stripes_read(&event, None),
            Ok(false) => {}
            Err(StockReadWaiter::Operation(waiting)) => self.reject_overloaded(&waiting.0),
            Err(_) => {}
        }
    }

    /// Reads the layout without a waiter, because an operator may have closed the event.
    pub(super) fn refresh_layout(&mut self, event: &EventId, layout: EventLayout) {
        let waiter = StockReadWaiter::Layout;
        if let Ok(true) = self.stock_reads.request(event, waiter, self.now.mono) {
            self.send_stripes_read(event, Some(layout.stripes));
        }
    }

    pub(super) fn read_record(&mut self, task: OperationTask) {
        self.counters.record_reads += 1;
        self.record_reads.request(task);
        self.send_record_reads();
    }

    /// Reads the record of an operation for which there are too few units. Without a record the operation is
    /// rejected.
    pub(super) fn confirm_shortage(
        &mut self,
        operation: Operation,
        layout: EventLayout,
        remaining: u64,
    ) {
        let (reservation, event) = (&operation.reservation, &operation.event);
        self.in_flight.set_shortage(reservation, event, Some(remaining));
        self.read_record(OperationTask { operation, layout: Some(layout), hint: RecordHint::None });
    }
}

/// Lanes.
impl Engine {
    pub(super) fn enqueue(
        &mut self,
        operation: Operation,
        kind: PoolKind,
        layout: EventLayout,
        intent: WriteIntent,
    ) {
        match self.pools.open(&operation.event, kind, layout) {
            Some(pool) => self.with_pool(pool, |pool, cx| pool.submit(operation, intent, cx)),
            None => self.reject_overloaded(&operation),
        }
    }

    /// Calls a pool of lanes, and applies what it returns.
    pub(super) fn with_pool(
        &mut self,
        id: PoolId,
        act: impl FnOnce(&mut Pool, &mut PoolContext<'_>),
    ) {
        let writer = self.pools.writer();
        let Some(pool) = self.pools.get_mut(id) else {
            return;
        };
        let mut out = std::mem::take(&mut self.pool_output);
        let mut cx = PoolContext {
            now: self.now,
            writer,
            rng: &mut self.rng,
            counters: &mut self.counters,
            out: &mut out,
        };
        act(pool, &mut cx);
        self.apply_pool_output(id, out);
    }

    /// Sends transactions with an unknown outcome again, as far as they may be.
    pub(super) fn send_unresolved(&mut self) {
        while let Some((lane, limit)) = self.resends.take_due(self.now.mono) {
            let pool = self.pools.get_mut(lane.pool);
            if let Some(transaction) = pool.and_then(|pool| pool.unresolved(lane.lane)) {
                self.counters.resends += 1;
                self.effects.push_back(Effect::Transact { lane, transaction, limit });
            }
        }
    }

    /// From now on no call of the lane's transaction is rejected as not executed.
    fn mark_unresolved(&mut self, pool: PoolId, lane: u16) {
        if fault::planted(Fault::UnknownAttemptForgotten) {
            return;
        }
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let Some(transaction) = pool.unresolved(lane) else { return };
        let event = &pool.key().event;
        for record in &transaction.records {
            self.in_flight.mark_may_be_written(&record.operation.reservation, event);
        }
    }

    /// Sends the transactions and reads of a pool's output, records its writes, and pushes its results as a step.
    pub(super) fn apply_pool_output(&mut self, pool: PoolId, mut out: PoolOutput) {
        for (lane, transaction) in out.send.drain(..) {
            let lane = LaneId { pool, lane };
            let limit = self.resends.attempt_timeout();
            self.effects.push_back(Effect::Transact { lane, transaction, limit });
        }
        for lane in out.unresolved.drain(..) {
            self.resends.push(LaneId { pool, lane }, self.now.mono, &mut self.rng);
            self.mark_unresolved(pool, lane);
        }
        let reads_stripes = std::mem::take(&mut out.read_stripes);
        let layout = out.layout_read.take();
        let as_of = out.as_of;
        let mut completions = std::mem::take(&mut out.completions);
        let mut redecisions = std::mem::take(&mut out.redecisions);
        let is_done = !reads_stripes
            && layout.is_none()
            && completions.is_empty()
            && redecisions.is_empty()
            && out.stock.is_empty()
            && out.confirmed == 0;
        let event = match self.pools.get_mut(pool) {
            Some(pool) if !is_done => Some(pool.key().event.clone()),
            _ => None,
        };
        if let Some(event) = &event {
            // First: a read that is started below will contain this write.
            let written = StockDeltas::of(&out.stock, out.confirmed);
            self.record_stock_write(event, &written, out.stripe_updates_sent);
            if let Some(layout) = layout {
                self.layouts.put(event.clone(), layout);
            }
            if reads_stripes {
                let hint = self.layouts.get(event).map(|layout| layout.stripes);
                let waiter = StockReadWaiter::Pool(pool);
                // A pool's request is never rejected.
                if let Ok(true) = self.stock_reads.request(event, waiter, self.now.mono) {
                    self.send_stripes_read(event, hint);
                }
            }
        }
        out.stock.clear();
        out.confirmed = 0;
        self.pools.update_after_use(pool);
        self.pool_output = out;
        let Some(event) = event else {
            self.keep_buffer(completions);
            return;
        };
        // Before an operation that waited for one of these seats is decided.
        for one in completions.iter().filter(|one| one.is_own_write) {
            if let (Some(record), Some(seated)) = (&one.record, self.seated_events.get_mut(&event))
            {
                seated.record_write(&one.reservation, record, as_of);
            }
        }
        completions.reverse();
        redecisions.reverse();
        self.steps.push(Step::PoolResults(PoolResults { event, as_of, completions, redecisions }));
    }

    /// Returns an empty buffer to the pool output, unless that has a larger one.
    pub(super) fn keep_buffer(&mut self, completions: Vec<Completion>) {
        if self.pool_output.completions.capacity() < completions.capacity() {
            self.pool_output.completions = completions;
        }
    }

    /// Records that this shard has written to the stripes or confirmed holds, or may have; see
    /// [`crate::stock_snapshots`].
    pub(super) fn record_stock_write(
        &mut self,
        event: &EventId,
        written: &StockDeltas,
        sent: Option<Micros>,
    ) {
        if !written.is_empty() && !self.snapshots.is_off() {
            self.stock_reads.record_write(event, written);
            self.snapshots.record_write(event, written, sent, self.now.mono);
        }
    }

    /// Releases a reservation's seat locks and decides what they blocked.
    pub(super) fn unlock_seats(&mut self, event: &EventId, reservation: &ReservationId) {
        let blocked = self.seated_events.unlock(event, reservation);
        self.push_tasks(blocked);
    }
}
