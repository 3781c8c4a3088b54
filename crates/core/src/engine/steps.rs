//! Execution of the engine's steps: an operation from its registration to its answer.
//!
//! An operation is registered, decided ([`planner::next_step`]), and then waits for a read, goes to
//! another shard, enters a lane, or is completed. A completed operation answers its callers and releases
//! what waited for it. This file calls `seats.rs` and `dispatch.rs`, which never call it: they push
//! [`Step`]s.

use super::dispatch::{Completed, PoolResults, Step, WaitersToAnswer};
use super::in_flight::{Caller, Registration, Waiter};
use super::planner::{self, NextStep};
use super::{Engine, OperationTask, seats};
use crate::answer::{Answer, Rejection, ReleaseOutcome};
use crate::effect::RecordHint;
use crate::fault::{self, Fault};
use crate::ids::{EventId, ReservationId};
use crate::lane::{Completion, PoolKind, Redecision, RedecisionCause, SoldOutHint, WriteIntent};
use crate::limits;
use crate::operation::{Operation, RecordExpectation, Verb};
use crate::rules::{StockChange, Transition};
use crate::time::Micros;
use crate::transaction::{EventLayout, RecordView, ReservationState};

/// The stack.
impl Engine {
    /// Works off all steps.
    pub(super) fn run(&mut self) {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Advance(task) => self.advance(task),
                Step::Register(task) => self.register(Caller::INTERNAL, task),
                Step::PoolResults(results) => self.apply_pool_results(results),
                Step::Complete(event, completed) => self.complete(&event, completed),
                Step::AnswerCallers(event, completed) => {
                    let Completed { reservation, answer, record } = completed;
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

    /// Completes or redecides one operation after the other, until one pushes steps: these run first.
    pub(super) fn apply_pool_results(&mut self, mut results: PoolResults) {
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

    pub(super) fn apply_completion(&mut self, event: &EventId, completion: Completion) {
        let Completion { reservation, answer, record, is_own_write } = completion;
        if !(is_own_write && reservation.is_release_record()) {
            let completed = Completed { reservation, answer, record };
            self.complete(event, completed);
            return;
        }
        let Some(record) = record else { return };
        if record.state != ReservationState::Held {
            let completed = Completed { reservation, answer, record: Some(record) };
            self.complete(event, completed);
            return;
        }
        // A release record is overdue at once: expire it, which returns its units to the stripe.
        let timeout = Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64);
        let deadline = self.now.mono.plus(timeout);
        self.register_expiry(Caller::INTERNAL, event.clone(), reservation, record, deadline);
    }

    /// Answers waiters in order of arrival, until one has to be registered as a call of its own: the remaining
    /// waiters wait for that call.
    pub(super) fn answer_waiters(&mut self, mut done: Box<WaitersToAnswer>) {
        let now = self.now.mono;
        while let Some(waiter) = done.waiters.next() {
            let Waiter { caller, operation, layout, arrived } = waiter;
            let is_equal = operation.verb == done.verb
                && operation.fingerprint == done.fingerprint
                && (operation.payment() == done.payment || fault::planted(Fault::PaymentJoined));
            let is_final = done.record.as_ref().is_some_and(planner::is_final);
            if is_equal && applies_to_waiter(&done.answer, is_final, arrived, done.started_at) {
                self.answer(caller, done.answer.clone(), done.record.clone());
            } else if let Some(answer) = self.answer_from_cache(&operation, now) {
                let record = self.cache.get(&operation.reservation, now);
                self.answer(caller, answer, record);
            } else {
                self.steps.push(Step::AnswerWaiters(done));
                let task = OperationTask { operation, layout, hint: RecordHint::None };
                self.register(caller, task);
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

/// Registration.
impl Engine {
    /// Makes a call the leader for its reservation, or a waiter of the call that is.
    pub(super) fn register(&mut self, caller: Caller, task: OperationTask) {
        let OperationTask { operation, layout, hint } = task;
        let now = self.now.mono;
        if operation.deadline <= now {
            self.counters.deadline_missed += 1;
            let rejection = Answer::Rejected(Rejection::DeadlineExceeded);
            self.answer(caller, rejection, None);
            return;
        }
        // Also a call that has waited here: the leader that it would wait for next may be forwarded by now.
        if matches!(caller, Caller::Shard(_)) && self.in_flight.would_deadlock(&operation) {
            self.answer(caller, Answer::Rejected(Rejection::store_busy()), None);
            return;
        }
        match self.in_flight.register(caller, operation, layout, now) {
            Registration::Leader(operation) => {
                self.expiries += usize::from(operation.verb == Verb::Expire);
                self.advance(OperationTask { operation, layout, hint });
            }
            Registration::Waiting => self.counters.joined += 1,
            Registration::Full(caller) => {
                self.counters.rejected_overloaded += 1;
                self.answer(caller, Answer::Rejected(Rejection::overloaded()), None);
            }
        }
    }

    /// Registers the expiry of a hold whose record is known.
    pub(super) fn register_expiry(
        &mut self,
        caller: Caller,
        event: EventId,
        reservation: ReservationId,
        record: RecordView,
        deadline: Micros,
    ) {
        let task = OperationTask {
            operation: seats::expiry(event, reservation, deadline),
            layout: None,
            hint: RecordHint::Confirmed(Some(record)),
        };
        self.register(caller, task);
    }
}

/// Decisions.
impl Engine {
    /// Decides an operation, and starts a read, forwards it, enqueues it or answers it.
    pub(super) fn advance(&mut self, mut task: OperationTask) {
        let now = self.now;
        let operation = &task.operation;
        if operation.deadline <= now.mono {
            self.counters.deadline_missed += 1;
            self.reject(operation, Rejection::DeadlineExceeded);
            return;
        }
        let cached = || self.layouts.get(&operation.event).copied();
        let Some(layout) = task.layout.or_else(cached) else {
            self.read_layout(task);
            return;
        };
        if task.layout.is_none() && planner::is_by_seat(operation, layout) {
            let owner = self.pools.shard_of_seats(&operation.event);
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
    pub(super) fn expects_hold(&self, operation: &Operation) -> bool {
        operation.verb == Verb::Commit && self.hold_predictor.expects_hold(&operation.event)
    }

    /// Records whether a commit found a hold. A record in any other state shows nothing: the call is a repeat, or too
    /// late.
    pub(super) fn train_predictor(&mut self, operation: &Operation, record: Option<&RecordView>) {
        if operation.verb != Verb::Commit {
            return;
        }
        match record.map(|record| record.state) {
            Some(ReservationState::Held) => self.hold_predictor.record_hold(&operation.event),
            None => self.hold_predictor.record_direct_sale(&operation.event),
            Some(_) => {}
        }
    }

    /// Decides an operation again whose write was based on a wrong assumption.
    pub(super) fn redecide(&mut self, event: &EventId, redecision: Redecision, as_of: Micros) {
        let Redecision { operation, from, cause } = redecision;
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
                        self.cache.insert(reservation, record.clone(), self.now.mono);
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

    /// Releases an operation's seat locks, and decides the operation again after those that the locks blocked.
    pub(super) fn advance_after_unlock(&mut self, task: OperationTask) {
        let (reservation, event) = (&task.operation.reservation, &task.operation.event);
        let blocked = self.seated_events.unlock(event, reservation);
        if blocked.is_empty() {
            self.advance(task);
            return;
        }
        self.steps.push(Step::Advance(task));
        self.push_tasks(blocked);
    }

    /// The layout; `None` if another shard must execute the operation, because the shard that forwarded the call
    /// had another layout.
    pub(super) fn layout_if_executed_here(
        &mut self,
        operation: &Operation,
        layout: Option<EventLayout>,
    ) -> Option<EventLayout> {
        let (event, reservation) = (&operation.event, &operation.reservation);
        layout.filter(|layout| {
            layout.is_seated()
                || self.pools.shard_for_reserve(event, reservation, layout.stripes)
                    == self.settings.shard
        })
    }
}

/// Units.
impl Engine {
    /// Writes a transition that moves units, or no stock at all.
    pub(super) fn write_units(
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
                let shard_for_reserve = match is_placed {
                    true => self.settings.shard,
                    false => self.pools.shard_for_reserve(event, reservation, layout.stripes),
                };
                if shard_for_reserve != self.settings.shard {
                    let hint = task.hint.for_other_shard();
                    self.forward(shard_for_reserve, layout, task.operation, hint);
                    return;
                }
                match self.check_sold_out(task, layout, transition) {
                    Some(checked) => task = checked,
                    None => return,
                }
                PoolKind::Stripes
            }
            StockChange::Return => {
                let record = task.hint.record();
                let draw = record.and_then(|record| record.draws.first());
                let stripe = draw.map_or(0, |draw| draw.stripe);
                let owner = self.pools.shard_of_stripe(event, layout.stripes, stripe);
                if self.joins_expiry_batch(&task.operation) {
                    let counted = record.is_some_and(|record| record.counted)
                        || fault::planted(Fault::ExpiryBatchMixed);
                    PoolKind::ExpiryBatch { stripe, counted }
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
        let intent = WriteIntent { transition, record: task.hint.into_record(), seats: None };
        self.enqueue(task.operation, kind, layout, intent);
    }

    /// Completes an operation for which there are too few units, or reads its record first. Returns the operation if it
    /// is to be written.
    ///
    /// The units may just have been sold to this reservation by another process. So its record is read once more, after
    /// the read that showed too few units.
    pub(super) fn check_sold_out(
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
                self.reject(&task.operation, Rejection::InsufficientInventory { remaining });
                None
            }
            SoldOutHint::Fresh { remaining } => {
                self.confirm_shortage(task.operation, layout, remaining);
                None
            }
        }
    }

    /// Whether this expiry is written in an expiry batch: more than [`limits::EXPIRY_BATCH_THRESHOLD`] are in
    /// flight.
    pub(super) fn joins_expiry_batch(&self, operation: &Operation) -> bool {
        operation.verb == Verb::Expire
            && !operation.reservation.is_release_record()
            && self.expiries > limits::EXPIRY_BATCH_THRESHOLD
    }
}

/// Whether the leader's answer also holds for an equal call that arrived at `arrived`.
///
/// Rejections for a deadline or an overload depend on the deadline of the call. A shortage or a missing event was read
/// after the leader started, so it does not apply to a call that arrived later. The same is true of states that another
/// node may have changed before the call arrived: a commit may have taken the stock again after a release found an
/// expired hold.
fn applies_to_waiter(answer: &Answer, is_final: bool, arrived: Micros, started_at: Micros) -> bool {
    match answer {
        Answer::Released { .. } if is_final => true,
        Answer::Rejected(
            Rejection::DeadlineExceeded
            | Rejection::Overloaded { .. }
            | Rejection::OutcomeUnknown { .. },
        ) => false,
        Answer::Held { .. }
        | Answer::Released { how: ReleaseOutcome::AlreadyReleased, .. }
        | Answer::Rejected(
            Rejection::InsufficientInventory { .. }
            | Rejection::EventNotFound
            | Rejection::EventClosed
            | Rejection::SectionNotFound(_)
            | Rejection::SeatsUnavailable { .. }
            | Rejection::SeatsNotFound { .. }
            | Rejection::HoldExpired
            | Rejection::ReservationNotFound
            | Rejection::ReservationNotConfirmed,
        ) => arrived <= started_at || fault::planted(Fault::LateWaiterShares),
        _ => true,
    }
}
