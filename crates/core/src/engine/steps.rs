//! Execution of the engine's steps: what becomes of an operation from its registration to its answer.
//!
//! An operation is registered, decided ([`planner::next_step`]), and then waits for a read, goes to
//! another shard, enters a lane, or is completed. A completed operation answers its callers and releases
//! what waited for it. Methods here call the engine's parts and push [`Step`]s; none calls an input.

use super::in_flight::{InFlightCall, Registration, Waiter};
use super::planner::{self, NextStep, SeatsToWrite};
use super::seated_event::{SeatMapWaiter, SeatedEvent};
use super::{Engine, OperationTask};
use crate::answer::{Answer, Rejection, ReleaseOutcome};
use crate::effect::{CallId, Effect, LaneId, PoolId, RecordHint};
use crate::fault::{self, Fault};
use crate::ids::{EventId, ReservationId, SeatId, Seats};
use crate::lane::{
    Completion, Pool, PoolContext, PoolKind, PoolOutput, Redecision, RedecisionCause, SoldOutHint,
    WriteIntent,
};
use crate::limits;
use crate::operation::{Operation, RecordExpectation, Selection, Verb};
use crate::rules::{StockChange, Transition};
use crate::seats::SeatState;
use crate::stock_reads::StockReadWaiter;
use crate::time::{Micros, Now};
use crate::transaction::{EventLayout, RecordView, ReservationState, StripeUpdate};

/// Work that an input still has to do. See the bounds in the engine's head.
pub(super) enum Step {
    /// Decide an operation that a seat lock blocked, or that watched another one.
    Advance(OperationTask),
    /// Complete and redecide what a pool returned.
    PoolResults(PoolResults),
    /// Complete an operation.
    Complete(EventId, Completed),
    /// Answer the callers of an operation after those that it had blocked went on.
    AnswerCallers(EventId, Completed),
    /// Answer the other callers of an operation whose first caller is answered.
    AnswerWaiters(Box<WaitersToAnswer>),
    /// Expire an overdue hold that has a seat which a buyer asks for.
    ExpireHolder(Box<OverdueHolder>),
    /// Release the seat lock of an expiry that was not registered: nobody else would.
    UnlockUnregistered(EventId, ReservationId),
    /// Go on with a buyer after the overdue holders of its seats have been dealt with.
    ResumeBuyer(Box<Buyer>),
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
    event: EventId,
    as_of: Micros,
    completions: Vec<Completion>,
    redecisions: Vec<Redecision>,
}

/// See [`Step::AnswerWaiters`].
pub(super) struct WaitersToAnswer {
    event: EventId,
    verb: Verb,
    fingerprint: crate::ids::Fingerprint,
    started_at: Micros,
    waiters: std::vec::IntoIter<Waiter>,
    watchers: Vec<OperationTask>,
    answer: Answer,
    record: Option<RecordView>,
}

/// A hold that is past its expiry and has a seat which a buyer asks for.
pub(super) struct OverdueHolder {
    event: EventId,
    layout: EventLayout,
    holder: ReservationId,
    seat: SeatId,
    deadline: Micros,
}

/// A buyer whose write found seats that were not free.
pub(super) struct Buyer {
    task: OperationTask,
    layout: EventLayout,
    /// The engine chose the seats.
    is_choice: bool,
    /// Overdue holders of its seats.
    overdue: Vec<ReservationId>,
}

/// The stack, and outputs.
impl Engine {
    /// Works off all steps.
    pub(super) fn run(&mut self) {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Advance(task) => self.advance(task),
                Step::PoolResults(results) => self.apply_pool_results(results),
                Step::Complete(event, completed) => self.complete(&event, completed),
                Step::AnswerCallers(event, completed) => {
                    let Completed {
                        reservation,
                        answer,
                        record,
                    } = completed;
                    if let Some(call) = self.in_flight.remove(&reservation, &event) {
                        self.answer_callers(&event, call, answer, record);
                    }
                }
                Step::AnswerWaiters(waiters) => self.answer_waiters(waiters),
                Step::ExpireHolder(overdue) => self.expire_holder(*overdue),
                Step::UnlockUnregistered(event, reservation) => {
                    if self.in_flight.started_at(&reservation, &event).is_none() {
                        self.unlock_seats(&event, &reservation);
                    }
                }
                Step::ResumeBuyer(buyer) => self.resume_buyer(*buyer),
            }
        }
    }

    /// Pushes tasks so that they are decided in this order.
    fn push_tasks(&mut self, tasks: Vec<OperationTask>) {
        if fault::planted(Fault::BlockedOperationLost) {
            return;
        }
        self.steps
            .extend(tasks.into_iter().rev().map(Step::Advance));
    }

    pub(super) fn answer(&mut self, call: CallId, answer: Answer, record: Option<RecordView>) {
        self.effects.push_back(Effect::Answer {
            call,
            answer,
            record,
        });
    }

    pub(super) fn send_record_reads(&mut self) {
        while let Some((read, reservations)) = self.record_reads.next_read() {
            self.effects
                .push_back(Effect::ReadRecords { read, reservations });
        }
    }

    pub(super) fn send_stripes_read(&mut self, event: &EventId, stripes_hint: Option<u16>) {
        self.effects.push_back(Effect::ReadStripes {
            event: event.clone(),
            stripes_hint,
        });
    }
}

/// Registration and completion.
impl Engine {
    /// Makes a call the leader for its reservation, or a waiter of the call that is.
    pub(super) fn register(&mut self, call: CallId, task: OperationTask) {
        let OperationTask {
            operation,
            layout,
            hint,
        } = task;
        let now = self.now.mono;
        if operation.deadline <= now {
            self.counters.expired += 1;
            let rejection = Answer::Rejected(Rejection::DeadlineExceeded);
            self.answer(call, rejection, None);
            return;
        }
        match self.in_flight.register(call, operation, layout, now) {
            Registration::Leader(operation) => {
                self.expiries += usize::from(operation.verb == Verb::Expire);
                self.advance(OperationTask {
                    operation,
                    layout,
                    hint,
                });
            }
            Registration::Waiting => self.counters.coalesced += 1,
            Registration::Full => {
                self.counters.rejected_overloaded += 1;
                self.answer(call, Answer::Rejected(Rejection::overloaded()), None);
            }
        }
    }

    /// Registers the expiry of a hold whose record is known.
    pub(super) fn register_expiry(
        &mut self,
        call: CallId,
        event: EventId,
        reservation: ReservationId,
        record: RecordView,
        deadline: Micros,
    ) {
        let task = OperationTask {
            operation: expiry(event, reservation, deadline),
            layout: None,
            hint: RecordHint::Confirmed(Some(record)),
        };
        self.register(call, task);
    }

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

    fn reject_overloaded(&mut self, operation: &Operation) {
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
            self.steps
                .push(Step::AnswerCallers(event.clone(), completed));
            self.push_tasks(blocked);
            return;
        }
        let Completed {
            reservation,
            answer,
            record,
        } = completed;
        let call = self.in_flight.remove(&reservation, event);
        if let Some(record) = &record {
            self.cache.insert(reservation, record.clone(), now);
        }
        if let Some(call) = call {
            self.answer_callers(event, call, answer, record);
        }
    }

    fn answer_callers(
        &mut self,
        event: &EventId,
        call: InFlightCall,
        answer: Answer,
        record: Option<RecordView>,
    ) {
        self.expiries -= usize::from(call.verb == Verb::Expire);
        if call.waiters.is_empty() && call.watchers.is_empty() {
            self.answer(call.leader, answer, record);
            return;
        }
        self.answer(call.leader, answer.clone(), record.clone());
        self.answer_waiters(Box::new(WaitersToAnswer {
            event: event.clone(),
            verb: call.verb,
            fingerprint: call.fingerprint,
            started_at: call.started_at,
            waiters: call.waiters.into_iter(),
            watchers: call.watchers,
            answer,
            record,
        }));
    }

    /// Answers waiters in order of arrival, until one has to be registered as a call of its own: the
    /// others wait for what follows from that.
    fn answer_waiters(&mut self, mut done: Box<WaitersToAnswer>) {
        let now = self.now.mono;
        while let Some(waiter) = done.waiters.next() {
            let Waiter {
                call,
                operation,
                layout,
                arrived,
            } = waiter;
            let is_equal = operation.verb == done.verb && operation.fingerprint == done.fingerprint;
            if is_equal && applies_to_waiter(&done.answer, arrived, done.started_at) {
                self.answer(call, done.answer.clone(), done.record.clone());
            } else if let Some(answer) = self.cached_answer(&operation, now) {
                let record = self.cache.get(&operation.reservation, now);
                self.answer(call, answer, record);
            } else {
                self.steps.push(Step::AnswerWaiters(done));
                let task = OperationTask {
                    operation,
                    layout,
                    hint: RecordHint::None,
                };
                self.register(call, task);
                return;
            }
        }
        for buyer in &done.watchers {
            let reservation = &buyer.operation.reservation;
            self.in_flight.set_watching(reservation, &done.event, false);
        }
        self.push_tasks(done.watchers);
    }
}

/// Decisions.
impl Engine {
    /// Decides an operation, and brings it to a read, to another shard, into a lane, or to its answer.
    pub(super) fn advance(&mut self, mut task: OperationTask) {
        let now = self.now;
        let operation = &task.operation;
        if operation.deadline <= now.mono {
            self.counters.expired += 1;
            self.reject(operation, Rejection::DeadlineExceeded);
            return;
        }
        let cached = || self.layouts.get(&operation.event).copied();
        let Some(layout) = task.layout.or_else(cached) else {
            self.read_layout(task);
            return;
        };
        if task.layout.is_none() && planner::is_by_seat(operation, layout) {
            let owner = self.pools.owner(&operation.event, 0);
            if owner != self.settings.shard {
                self.forward(owner, layout, task.operation, task.hint);
                return;
            }
        }
        match &task.hint {
            RecordHint::Confirmed(record) => self.train_predictor(operation, record.as_ref()),
            RecordHint::Cached(_) => {}
            RecordHint::None => match self.cache.get(&operation.reservation, now.mono) {
                Some(record) => task.hint = RecordHint::Cached(record),
                None if operation.expectation == RecordExpectation::Present
                    || self.expects_hold(operation) =>
                {
                    self.read_record(task);
                    return;
                }
                None => {}
            },
        }
        let late = self.settings.late_commit;
        match planner::next_step(&task.operation, layout, &task.hint, now.unix, late) {
            NextStep::ReadRecord => self.read_record(task),
            NextStep::Answer(answer) => {
                let event = &task.operation.event;
                let completed = Completed {
                    reservation: task.operation.reservation.clone(),
                    answer,
                    record: task.hint.into_record(),
                };
                self.complete(event, completed);
            }
            NextStep::WriteSeats(transition) => self.write_seats(task, layout, transition),
            NextStep::WriteUnits(transition) => self.write_units(task, layout, transition),
        }
    }

    /// Whether an operation without a known record most likely finds a hold.
    fn expects_hold(&self, operation: &Operation) -> bool {
        operation.verb == Verb::Commit && self.hold_predictor.expects_hold(&operation.event)
    }

    /// Records whether a commit met a hold. A record in any other state shows nothing: the call repeats
    /// what is done.
    fn train_predictor(&mut self, operation: &Operation, record: Option<&RecordView>) {
        if operation.verb != Verb::Commit {
            return;
        }
        match record.map(|record| record.state) {
            Some(ReservationState::Held) => self.hold_predictor.record_hold(&operation.event),
            None => self.hold_predictor.record_direct_sale(&operation.event),
            Some(_) => {}
        }
    }

    fn read_layout(&mut self, task: OperationTask) {
        let event = task.operation.event.clone();
        let waiter = StockReadWaiter::Operation(Box::new((task.operation, task.hint)));
        match self.stock_reads.request(&event, waiter, self.now.mono) {
            Ok(true) => self.send_stripes_read(&event, None),
            Ok(false) => {}
            Err(StockReadWaiter::Operation(waiting)) => self.reject_overloaded(&waiting.0),
            // The waiter that is returned is the one that was passed.
            Err(_) => {}
        }
    }

    /// Reads the layout again for nobody: an operator may have closed the event since.
    fn refresh_layout(&mut self, event: &EventId, layout: EventLayout) {
        let waiter = StockReadWaiter::Layout;
        if let Ok(true) = self.stock_reads.request(event, waiter, self.now.mono) {
            self.send_stripes_read(event, Some(layout.stripes));
        }
    }

    fn read_record(&mut self, task: OperationTask) {
        self.counters.record_reads += 1;
        self.record_reads.request(task);
        self.send_record_reads();
    }

    fn forward(
        &mut self,
        shard: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
    ) {
        self.counters.forwarded += 1;
        self.in_flight
            .mark_forwarded(&operation.reservation, &operation.event);
        self.effects.push_back(Effect::Forward {
            shard,
            layout,
            operation,
            hint,
        });
    }

    /// Decides an operation again whose write relied on something that is not so.
    fn redecide(&mut self, event: &EventId, redecision: Redecision, as_of: Micros) {
        let Redecision {
            operation,
            from,
            cause,
        } = redecision;
        if fault::planted(Fault::RedecisionLost) {
            return;
        }
        if !self.in_flight.count_attempt(&operation.reservation, event) {
            self.reject(&operation, Rejection::store_busy());
            return;
        }
        // The operation was in a lane of this shard, so this shard executes it.
        let layout = self.layouts.get(event).copied();
        match cause {
            RedecisionCause::Record(record) => {
                match &record {
                    Some(record) => {
                        let reservation = operation.reservation.clone();
                        self.cache
                            .insert(reservation, record.clone(), self.now.mono);
                    }
                    None => self.cache.remove(&operation.reservation),
                }
                let task = OperationTask {
                    layout: self.layout_if_executed_here(&operation, layout),
                    operation,
                    hint: RecordHint::Confirmed(record),
                };
                self.advance_after_unlock(task);
            }
            RedecisionCause::Shortage { remaining } => {
                match self.layout_if_executed_here(&operation, layout) {
                    Some(layout) => self.confirm_shortage(operation, layout, remaining),
                    // The layout was dropped meanwhile: start anew.
                    None => self.advance(OperationTask {
                        operation,
                        layout: None,
                        hint: RecordHint::None,
                    }),
                }
            }
            RedecisionCause::Seats(seats) => match layout {
                Some(layout) => self.resolve_seat_conflict(operation, layout, from, seats, as_of),
                // The layout was dropped meanwhile: the next write finds the seats again.
                None => self.advance_after_unlock(OperationTask {
                    operation,
                    layout: None,
                    hint: RecordHint::None,
                }),
            },
        }
    }

    /// Releases an operation's seat locks, lets those that they blocked go first, and decides it again.
    fn advance_after_unlock(&mut self, task: OperationTask) {
        let (reservation, event) = (&task.operation.reservation, &task.operation.event);
        let blocked = self.seated_events.unlock(event, reservation);
        if blocked.is_empty() {
            self.advance(task);
            return;
        }
        self.steps.push(Step::Advance(task));
        self.push_tasks(blocked);
    }

    /// The layout, if this shard executes the operation. Otherwise the call was forwarded here for
    /// stock that another shard owns.
    fn layout_if_executed_here(
        &self,
        operation: &Operation,
        layout: Option<EventLayout>,
    ) -> Option<EventLayout> {
        let (event, reservation) = (&operation.event, &operation.reservation);
        layout.filter(|layout| {
            layout.is_seated()
                || self.pools.seller(event, reservation, layout.stripes) == self.settings.shard
        })
    }
}

/// Units, lanes and stock.
impl Engine {
    /// Writes a transition that moves units, or no stock at all.
    fn write_units(
        &mut self,
        mut task: OperationTask,
        layout: EventLayout,
        transition: Transition,
    ) {
        let (event, reservation) = (&task.operation.event, &task.operation.reservation);
        let is_placed = task.layout.is_some();
        let kind = match transition.stock_change() {
            StockChange::Reserve if layout.closed => {
                self.reject(&task.operation, Rejection::EventClosed);
                return;
            }
            StockChange::Reserve => {
                let seller = match is_placed {
                    true => self.settings.shard,
                    false => self.pools.seller(event, reservation, layout.stripes),
                };
                if seller != self.settings.shard {
                    let hint = task.hint.for_other_shard();
                    self.forward(seller, layout, task.operation, hint);
                    return;
                }
                match self.unless_sold_out(task, layout, transition) {
                    Some(same) => task = same,
                    None => return,
                }
                PoolKind::Stripes
            }
            StockChange::Return => {
                let draw = task.hint.record().and_then(|record| record.draws.first());
                let stripe = draw.map_or(0, |draw| draw.stripe);
                let owner = self.pools.owner(event, stripe);
                if self.joins_expiry_batch(&task.operation) {
                    PoolKind::ExpiryBatch(stripe)
                } else if !is_placed && owner != self.settings.shard {
                    let hint = task.hint.for_other_shard();
                    self.forward(owner, layout, task.operation, hint);
                    return;
                } else {
                    PoolKind::Stripes
                }
            }
            StockChange::Keep | StockChange::None => PoolKind::Unstriped,
        };
        let intent = WriteIntent {
            transition,
            record: task.hint.into_record(),
            seats: None,
        };
        self.enqueue(task.operation, kind, layout, intent);
    }

    /// Completes an operation that there are too few units for, or reads its record for that; returns
    /// the operation if it is to be written.
    ///
    /// The read that showed too few units may miss what this reservation has itself, on another node
    /// and just now. So its record is read once more, after that read.
    fn unless_sold_out(
        &mut self,
        task: OperationTask,
        layout: EventLayout,
        transition: Transition,
    ) -> Option<OperationTask> {
        let (reservation, event) = (&task.operation.reservation, &task.operation.event);
        if task.hint.is_confirmed()
            && let Some(remaining) = self.in_flight.shortage(reservation, event)
        {
            self.counters.sold_out += 1;
            let rejection = match transition.from {
                Some(_) => Rejection::HoldExpired,
                None => Rejection::InsufficientInventory { remaining },
            };
            let completed = Completed {
                reservation: reservation.clone(),
                answer: Answer::Rejected(rejection),
                record: task.hint.into_record(),
            };
            self.complete(&task.operation.event, completed);
            return None;
        }
        let units = planner::units_to_take(&task.operation, task.hint.record());
        let started_at = self.in_flight.started_at(reservation, event);
        let arrived = started_at.unwrap_or(self.now.mono);
        let pool = self.pools.selling(event);
        let hint = pool.map_or(SoldOutHint::None, |pool| pool.sold_out_hint(units, arrived));
        match hint {
            SoldOutHint::None | SoldOutHint::Stale => Some(task),
            SoldOutHint::Fresh { remaining }
                if fault::planted(Fault::SoldOutUnread)
                    || (task.hint.is_confirmed() && fault::planted(Fault::RecordReadTooEarly)) =>
            {
                self.reject(
                    &task.operation,
                    Rejection::InsufficientInventory { remaining },
                );
                None
            }
            SoldOutHint::Fresh { remaining } => {
                self.confirm_shortage(task.operation, layout, remaining);
                None
            }
        }
    }

    /// Reads the record of an operation that there are too few units for: it is rejected unless the
    /// record says otherwise.
    fn confirm_shortage(&mut self, operation: Operation, layout: EventLayout, remaining: u64) {
        let (reservation, event) = (&operation.reservation, &operation.event);
        self.in_flight
            .set_shortage(reservation, event, Some(remaining));
        self.read_record(OperationTask {
            operation,
            layout: Some(layout),
            hint: RecordHint::None,
        });
    }

    /// Whether so many holds expire that they are written in batches of their own.
    fn joins_expiry_batch(&self, operation: &Operation) -> bool {
        operation.verb == Verb::Expire
            && !operation.reservation.is_slip()
            && self.expiries > limits::EXPIRY_BATCH_THRESHOLD
    }

    fn enqueue(
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
        let Some(pool) = self.pools.get_mut(id) else {
            return;
        };
        let mut out = std::mem::take(&mut self.pool_output);
        let mut cx = PoolContext {
            now: self.now,
            rng: &mut self.rng,
            counters: &mut self.counters,
            out: &mut out,
        };
        act(pool, &mut cx);
        self.apply_pool_output(id, out);
    }

    /// Sends what a pool wants sent, records its writes, and pushes its results.
    fn apply_pool_output(&mut self, pool: PoolId, mut out: PoolOutput) {
        for (lane, transaction) in out.send.drain(..) {
            let lane = LaneId { pool, lane };
            self.effects
                .push_back(Effect::Transact { lane, transaction });
        }
        let reads_stripes = std::mem::take(&mut out.read_stripes);
        let layout = out.learned_shape.take();
        let as_of = out.as_of;
        let mut completions = std::mem::take(&mut out.completions);
        let mut redecisions = std::mem::take(&mut out.redecisions);
        let is_done = !reads_stripes
            && layout.is_none()
            && completions.is_empty()
            && redecisions.is_empty()
            && out.stock.is_empty();
        let event = match self.pools.get_mut(pool) {
            Some(pool) if !is_done => Some(pool.key().event.clone()),
            _ => None,
        };
        if let Some(event) = &event {
            // Before a read begins, which will have seen the write.
            self.record_stock_write(event, &out.stock, out.stock_sent);
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
        self.pools.after(pool);
        self.pool_output = out;
        let Some(event) = event else {
            self.keep_buffer(completions);
            return;
        };
        // Before an operation that waited for one of these seats is decided.
        for one in completions.iter().filter(|one| one.wrote) {
            if let (Some(record), Some(seated)) = (&one.record, self.seated_events.get_mut(&event))
            {
                seated.record_write(&one.reservation, record, as_of);
            }
        }
        completions.reverse();
        redecisions.reverse();
        self.steps.push(Step::PoolResults(PoolResults {
            event,
            as_of,
            completions,
            redecisions,
        }));
    }

    /// Completes or redecides one operation after the other, until one has consequences: these go first.
    fn apply_pool_results(&mut self, mut results: PoolResults) {
        let base = self.steps.len();
        while self.steps.len() == base {
            if let Some(completion) = results.completions.pop() {
                self.apply_completion(&results.event, completion);
            } else if let Some(redecision) = results.redecisions.pop() {
                self.redecide(&results.event, redecision, results.as_of);
            } else {
                self.keep_buffer(results.completions);
                return;
            }
        }
        self.steps.insert(base, Step::PoolResults(results));
    }

    fn apply_completion(&mut self, event: &EventId, completion: Completion) {
        let Completion {
            reservation,
            answer,
            record,
            wrote,
        } = completion;
        if !(wrote && reservation.is_slip()) {
            let completed = Completed {
                reservation,
                answer,
                record,
            };
            self.complete(event, completed);
            return;
        }
        let Some(record) = record else { return };
        if record.state != ReservationState::Held {
            let completed = Completed {
                reservation,
                answer,
                record: Some(record),
            };
            self.complete(event, completed);
            return;
        }
        // A release record is past its expiry from the beginning: what it holds goes back to the stripe.
        let timeout = Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64);
        let deadline = self.now.mono.plus(timeout);
        self.register_expiry(
            CallId::INTERNAL,
            event.clone(),
            reservation,
            record,
            deadline,
        );
    }

    /// Returns an empty buffer to the pool output, unless that has a larger one.
    fn keep_buffer(&mut self, completions: Vec<Completion>) {
        if self.pool_output.completions.capacity() < completions.capacity() {
            self.pool_output.completions = completions;
        }
    }

    /// Records that this shard has written to the stripes, or may have; see
    /// [`crate::stock_snapshots`].
    pub(super) fn record_stock_write(
        &mut self,
        event: &EventId,
        written: &[StripeUpdate],
        sent: Option<Micros>,
    ) {
        if !written.is_empty() && !self.snapshots.is_off() {
            self.stock_reads.record_write(event, written);
            self.snapshots
                .record_write(event, written, sent, self.now.mono);
        }
    }
}

/// Seats, on the shard that owns them.
impl Engine {
    /// Writes a transition that moves seats, or a tombstone in a seated event.
    fn write_seats(
        &mut self,
        mut task: OperationTask,
        layout: EventLayout,
        transition: Transition,
    ) {
        task.layout = Some(layout);
        let record = task.hint.record();
        let seats = match planner::seats_to_write(&task.operation, layout, transition, record) {
            SeatsToWrite::None => None,
            SeatsToWrite::Given(seats) => Some(seats),
            SeatsToWrite::Chosen(qty) => {
                self.choose_seats(task, layout, transition, qty);
                return;
            }
            SeatsToWrite::Closed => {
                self.reject(&task.operation, Rejection::EventClosed);
                return;
            }
            SeatsToWrite::Missing => {
                self.reject(&task.operation, Rejection::Internal);
                return;
            }
        };
        if let Some(seats) = &seats {
            let operation = &task.operation;
            let now = self.now;
            let seated = self.seated_events.open(&operation.event, now.mono);
            if transition.stock_change() == StockChange::Reserve
                && let Some(rejection) = known_taken(seated, seats, operation, transition, now)
            {
                if !task.hint.is_confirmed() && !fault::planted(Fault::SeatsRejectedUnread) {
                    // The same call may have got them meanwhile, on another node: a read shows that,
                    // and costs less than the write would.
                    self.read_record(task);
                    return;
                }
                self.counters.seats_refused += 1;
                self.reject(&task.operation, rejection);
                return;
            }
            if let Err(locked) = seated.lock_seats(seats, &operation.reservation) {
                if self.would_wait_for_expiry(&task.operation, &locked) {
                    self.reject(&task.operation, Rejection::store_busy());
                    return;
                }
                self.block(&locked, task);
                return;
            }
            self.refresh_seats(&task.operation.event, layout);
        }
        let intent = WriteIntent {
            transition,
            record: task.hint.into_record(),
            seats,
        };
        self.enqueue(task.operation, PoolKind::Unstriped, layout, intent);
    }

    /// Chooses the best available seats, locks and writes them.
    fn choose_seats(
        &mut self,
        task: OperationTask,
        layout: EventLayout,
        transition: Transition,
        qty: u32,
    ) {
        let now = self.now;
        let operation = &task.operation;
        let (reservation, event) = (&operation.reservation, &operation.event);
        let section = operation.section.as_deref();
        let reads_from = self.in_flight.reads_from(reservation, event, now.mono);
        let seated = self.seated_events.open(event, now.mono);
        let chosen = seated
            .map_and_locks()
            .and_then(|(map, locked)| map.pick(qty, section, now, &locked, &mut self.rng));
        let Some(chosen) = chosen else {
            if reads_from.is_some_and(|from| seated.is_read_since(from)) {
                self.reject_sold_out_seats(task, layout);
            } else {
                self.verify_free_seats(task, layout);
            }
            return;
        };
        self.in_flight.set_shortage(reservation, event, None);
        let seats: Seats = chosen.into();
        // The picker skips locked seats.
        let _ = seated.lock_seats(&seats, reservation);
        self.refresh_seats(&task.operation.event, layout);
        let intent = WriteIntent {
            transition,
            record: task.hint.into_record(),
            seats: Some(seats),
        };
        self.enqueue(task.operation, PoolKind::Unstriped, layout, intent);
    }

    /// Lets a choice that found too few seats wait for a read of what is free now.
    ///
    /// A read of the free seats is used where it suffices: of a sold-out event it returns nothing, while
    /// a read of all seats returns each of them. All callers that ask then wait for one read.
    fn verify_free_seats(&mut self, task: OperationTask, layout: EventLayout) {
        let now = self.now;
        let event = task.operation.event.clone();
        let task = Box::new(OperationTask {
            hint: task.hint.after_wait(),
            ..task
        });
        let seated = self.seated_events.open(&event, now.mono);
        if !seated.can_verify(now) {
            self.wait_for_seat_map(&event, layout, SeatMapWaiter::SeatChoice(task));
            return;
        }
        if let Err(task) = seated.wait_for_verification(task) {
            self.reject_overloaded(&task.operation);
            return;
        }
        if seated.start_verification(now) {
            self.counters.seat_verifications += 1;
            self.effects.push_back(Effect::ReadFreeSeats {
                event: event.clone(),
                seat_keys: layout.seat_keys.max(1),
                at: now.unix,
            });
            self.refresh_layout(&event, layout);
        }
        self.refresh_seats(&event, layout);
    }

    /// Rejects an operation that there are no seats for, once that is certain.
    ///
    /// "Sold out" needs a read that began after the call arrived, and no lock on a seat that the read
    /// shows as free: the write behind the lock may fail. The read alone is not enough, because what it
    /// found taken may have been sold to this reservation, on another node and just now. So the record
    /// is read once more, after everything that the seat map contains.
    fn reject_sold_out_seats(&mut self, task: OperationTask, layout: EventLayout) {
        let now = self.now;
        let operation = &task.operation;
        let (reservation, event) = (&operation.reservation, &operation.event);
        let is_confirmed = task.hint.is_confirmed();
        if (is_confirmed || fault::planted(Fault::SeatsSoldOutUnread))
            && let Some(remaining) = self.in_flight.shortage(reservation, event)
        {
            self.reject(operation, Rejection::InsufficientInventory { remaining });
            return;
        }
        let section = operation.section.as_deref();
        let seated = self.seated_events.open(event, now.mono);
        match seated.any_locked_seat(section) {
            Some(locked) if is_confirmed => {
                self.in_flight.waits_for_claim(reservation, event);
                self.block(&locked, task);
                return;
            }
            // The reservation may have seats itself, which others wait for.
            Some(_) => {}
            None => {
                let remaining = seated.map().map(|map| map.remaining(section, now.unix));
                let remaining = Some(remaining.unwrap_or_default());
                self.in_flight.set_shortage(reservation, event, remaining);
            }
        }
        self.read_record(OperationTask {
            layout: Some(layout),
            ..task
        });
    }

    /// Whether an expiry would wait for another expiry.
    fn would_wait_for_expiry(&mut self, operation: &Operation, seat: &SeatId) -> bool {
        let event = &operation.event;
        let seated = self.seated_events.get_mut(event);
        let holder = seated.and_then(|seated| seated.lock_holder(seat).cloned());
        let verb = holder.and_then(|holder| self.in_flight.verb(&holder, event));
        operation.verb == Verb::Expire && verb == Some(Verb::Expire)
    }

    /// Lets an operation wait for the lock on a seat.
    fn block(&mut self, seat: &SeatId, task: OperationTask) {
        let now = self.now.mono;
        let seated = self.seated_events.open(&task.operation.event, now);
        let task = Box::new(OperationTask {
            hint: task.hint.after_wait(),
            ..task
        });
        if let Err(task) = seated.block(seat, task) {
            self.reject_overloaded(&task.operation);
        }
    }

    /// Records the seats that a write found, and decides its operation again or rejects it. Overdue
    /// holds of these seats are expired first.
    fn resolve_seat_conflict(
        &mut self,
        operation: Operation,
        layout: EventLayout,
        from: Option<ReservationState>,
        found: Vec<(SeatId, Option<SeatState>)>,
        as_of: Micros,
    ) {
        let now = self.now;
        let event = operation.event.clone();
        let seated = self.seated_events.open(&event, now.mono);
        let conflict = seated.record_conflict(found, &operation.reservation, as_of, now.unix);
        let mut blocked = seated.unlock(&operation.reservation);
        let is_choice = matches!(operation.selection, Selection::Quantity(_)) && from.is_none();
        let is_retried = conflict.unknown.is_empty() && conflict.taken.is_empty();
        let rejection = if from == Some(ReservationState::Held) {
            // The seats of a hold that it does not have were changed by an operator.
            Some(Rejection::HoldExpired)
        } else if is_choice || is_retried {
            None
        } else if from.is_some() {
            Some(Rejection::HoldExpired)
        } else if !conflict.unknown.is_empty() {
            Some(Rejection::SeatsNotFound {
                seats: conflict.unknown,
            })
        } else {
            Some(Rejection::SeatsUnavailable {
                seats: conflict.taken,
            })
        };
        if let Some(rejection) = rejection {
            self.counters.seats_taken += 1;
            // After those that the operation had blocked are decided.
            let completed = Completed {
                reservation: operation.reservation,
                answer: Answer::Rejected(rejection),
                record: None,
            };
            self.steps.push(Step::Complete(event, completed));
            self.push_tasks(blocked);
            return;
        }
        // Overdue holds are expired before anybody else meets them, and what a holder itself has in
        // flight goes first.
        for (_, holder) in &conflict.overdue {
            blocked.sort_by_key(|task| task.operation.reservation != *holder);
        }
        let deadline = operation.deadline;
        let hint = match from {
            None => RecordHint::Confirmed(None),
            Some(_) => RecordHint::None,
        };
        let overdue = conflict.overdue.iter().map(|(_, holder)| holder.clone());
        self.steps.push(Step::ResumeBuyer(Box::new(Buyer {
            overdue: overdue.collect(),
            task: OperationTask {
                operation,
                layout: Some(layout),
                hint,
            },
            layout,
            is_choice,
        })));
        self.push_tasks(blocked);
        if fault::planted(Fault::OverdueNotExpired) {
            return;
        }
        for (seat, holder) in conflict.overdue.into_iter().rev() {
            self.steps.push(Step::ExpireHolder(Box::new(OverdueHolder {
                event: event.clone(),
                layout,
                holder,
                seat,
                deadline,
            })));
        }
    }

    fn resume_buyer(&mut self, buyer: Buyer) {
        let Buyer {
            task,
            layout,
            is_choice,
            overdue,
        } = buyer;
        let event = task.operation.event.clone();
        let attempts = self.in_flight.attempts(&task.operation.reservation, &event);
        if is_choice && attempts > limits::SEAT_COLLISIONS_MAX {
            // The seat map is old: another node sells the same seats.
            let waiter = SeatMapWaiter::SeatChoice(Box::new(task));
            self.wait_for_seat_map(&event, layout, waiter);
            return;
        }
        let busy = overdue.into_iter().find(|holder| {
            self.is_busy_otherwise(holder, &event) && self.in_flight.can_be_watched(holder, &event)
        });
        match busy {
            None => self.advance(task),
            Some(holder) => self.in_flight.watch(&holder, &event, task),
        }
    }

    /// Whether a reservation has something other than its expiry in flight.
    fn is_busy_otherwise(&mut self, holder: &ReservationId, event: &EventId) -> bool {
        !matches!(
            self.in_flight.verb(holder, event),
            None | Some(Verb::Expire)
        )
    }

    fn expire_holder(&mut self, overdue: OverdueHolder) {
        let OverdueHolder {
            event,
            layout,
            holder,
            seat,
            deadline,
        } = overdue;
        // What the holder itself has in flight here may wait for a seat, and must not do so with a lock.
        if self.is_busy_otherwise(&holder, &event) {
            return;
        }
        // Locked at once, so that the buyer waits for the expiry.
        let seated = self.seated_events.open(&event, self.now.mono);
        if seated
            .lock_seats(std::slice::from_ref(&seat), &holder)
            .is_err()
        {
            return;
        }
        self.steps
            .push(Step::UnlockUnregistered(event.clone(), holder.clone()));
        let task = OperationTask {
            operation: expiry(event, holder, deadline),
            layout: Some(layout),
            hint: RecordHint::None,
        };
        self.register(CallId::INTERNAL, task);
    }

    /// Releases a reservation's seat locks and decides what they blocked.
    fn unlock_seats(&mut self, event: &EventId, reservation: &ReservationId) {
        let blocked = self.seated_events.unlock(event, reservation);
        self.push_tasks(blocked);
    }

    /// Lets a waiter wait for a read of all seats, which is started unless one is in flight.
    pub(super) fn wait_for_seat_map(
        &mut self,
        event: &EventId,
        layout: EventLayout,
        waiter: SeatMapWaiter,
    ) {
        let seated = self.seated_events.open(event, self.now.mono);
        match seated.wait_for_map(waiter) {
            Ok(()) => self.read_seats(event, layout),
            Err(SeatMapWaiter::Query { call, .. }) => {
                self.counters.rejected_overloaded += 1;
                self.answer_query(call, Err(Rejection::overloaded()));
            }
            Err(SeatMapWaiter::SeatChoice(task)) => self.reject_overloaded(&task.operation),
        }
    }

    /// Reads the seats before the seat map is too old, so that nobody waits for that.
    pub(super) fn refresh_seats(&mut self, event: &EventId, layout: EventLayout) {
        let now = self.now.mono;
        if layout.is_seated() && self.seated_events.open(event, now).needs_refresh(now) {
            self.read_seats(event, layout);
        }
    }

    fn read_seats(&mut self, event: &EventId, layout: EventLayout) {
        let now = self.now;
        let seated = self.seated_events.open(event, now.mono);
        if !seated.start_read(now.mono, now.unix) {
            return;
        }
        self.counters.seat_reads += 1;
        self.effects.push_back(Effect::ReadSeats {
            event: event.clone(),
            seat_keys: layout.seat_keys.max(1),
        });
        self.refresh_layout(event, layout);
    }

    pub(super) fn answer_query(
        &mut self,
        call: CallId,
        result: Result<crate::query::QueryResult, Rejection>,
    ) {
        self.effects.push_back(Effect::AnswerQuery { call, result });
    }
}

/// The operation that expires a hold.
fn expiry(event: EventId, reservation: ReservationId, deadline: Micros) -> Operation {
    let selection = Selection::AsRecorded;
    Operation {
        verb: Verb::Expire,
        fingerprint: Operation::fingerprint_of(&event, &selection),
        reservation,
        event,
        selection,
        section: None,
        payment_intent: String::new(),
        hold_until: None,
        expectation: RecordExpectation::Present,
        deadline,
    }
}

/// The rejection of seats that the seat map shows as another reservation's.
fn known_taken(
    seated: &mut SeatedEvent,
    seats: &[SeatId],
    operation: &Operation,
    transition: Transition,
    now: Now,
) -> Option<Rejection> {
    let map = seated.map()?;
    let taken = |seat: &&SeatId| map.known_taken(seat, &operation.reservation, now);
    let seats: Vec<SeatId> = seats.iter().filter(taken).cloned().collect();
    match (seats.is_empty(), transition.from) {
        (true, _) => None,
        (false, None) => Some(Rejection::SeatsUnavailable { seats }),
        (false, Some(_)) => Some(Rejection::HoldExpired),
    }
}

/// Whether the leader's answer also holds for an equal call that arrived at `arrived`.
///
/// A deadline is each call's own, and so is a queue that is too long for it. A shortage, or a missing
/// event, was read after the leader started: a call that arrived later has a right to a later read. The
/// same is true of states that another node may have changed before the call arrived: a release that found
/// an expired hold says nothing about a commit that took the stock again.
fn applies_to_waiter(answer: &Answer, arrived: Micros, started_at: Micros) -> bool {
    match answer {
        Answer::Rejected(Rejection::DeadlineExceeded | Rejection::Overloaded { .. }) => false,
        Answer::Held { .. }
        | Answer::Released {
            how: ReleaseOutcome::AlreadyReleased,
            ..
        }
        | Answer::Rejected(
            Rejection::InsufficientInventory { .. }
            | Rejection::EventNotFound
            | Rejection::EventClosed
            | Rejection::SeatsUnavailable { .. }
            | Rejection::SeatsNotFound { .. }
            | Rejection::HoldExpired
            | Rejection::ReservationNotFound
            | Rejection::ReservationNotConfirmed,
        ) => arrived <= started_at || fault::planted(Fault::LateWaiterShares),
        _ => true,
    }
}
