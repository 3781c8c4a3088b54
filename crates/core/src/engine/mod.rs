//! The engine of one shard: a state machine without I/O that turns calls into transactions and answers.
//!
//! # Methods
//!
//! | class | methods |
//! |---|---|
//! | inputs | `handle_*`: a call, a query, a store result, another shard's message, a timeout |
//! | outputs | [`Engine::poll_effect`], [`Engine::poll_timeout`] |
//! | memory | [`Engine::cached_answer`], [`Engine::cached_query_result`], [`Engine::status_version`]: answers at once |
//! | state | [`Engine::counters`], [`Engine::is_idle`] and other figures for metrics and shutdown |
//!
//! # Order of polling
//!
//! 1. Call one input, or one memory method.
//! 2. Call [`Engine::poll_effect`] until it returns `None`; execute the effects in that order.
//! 3. Call [`Engine::poll_timeout`], and arrange for [`Engine::handle_timeout`] at that time.
//!
//! Time comes in with each input and stays fixed while the input is processed. The engine reads no
//! clock, and draws randomness only from the generator that it was built with.
//!
//! # Bounds
//!
//! No input calls another, and no step calls itself. What follows from a completion (waiters, blocked operations,
//! redecisions) is pushed on a stack of [`Step`]s, which `run` works off before the input returns. The steps that
//! follow from a step run before older ones. Every step belongs to a call in flight, bounded by
//! [`limits::OPERATIONS_IN_FLIGHT_MAX`], or to a batch that is being completed. An operation whose write or read
//! contradicts what it relied on is decided again, at most [`limits::ATTEMPTS_PER_OPERATION_MAX`] times. So `run`
//! terminates.
//!
//! # Files
//!
//! A file calls only files below it in this table. The first five files are methods of [`Engine`], the others are
//! parts. A part owns its fields, returns values and never calls the engine.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | inputs and outputs |
//! | `queries.rs` | queries, from memory and from reads |
//! | `steps.rs` | the stack of steps: registration, decisions, units, redecisions, waiters |
//! | `seats.rs` | seats: choice, locks, conflicts, the reads behind "sold out" |
//! | `dispatch.rs` | effects, reads, lanes, completion |
//! | `planner.rs` | pure: the next step of an operation from its layout and record |
//! | `in_flight.rs` | calls in flight by reservation, and the calls that wait for them |
//! | `hold_predictor.rs` | which events sell by hold and commit, so that a commit's record is read first |
//! | `record_reads.rs` | batched reads of records |
//! | `resends.rs` | which transactions with an unknown outcome are sent again, and when |
//! | `seated_event.rs` | a seated event: seat map, seat locks, operations that wait for them |
//! | `foreign_sales.rs` | how fast other processes sell the seats that they prefer |
//! | `pools.rs` | pools of lanes, their timers, and which shard owns which stripe |
//!
//! Stock reads and stock snapshots are in [`crate::stock_reads`] and [`crate::stock_snapshots`], the group commit is in
//! [`crate::lane`]. The path of a commit: [`Engine::handle_call`], `register`, `advance`, [`planner::next_step`],
//! `write_units`, `enqueue`, [`Pool::submit`], [`Effect::Transact`].

#[cfg(test)]
mod counter_tests;
mod dispatch;
mod foreign_sales;
mod hold_predictor;
mod in_flight;
mod planner;
mod pools;
mod queries;
#[cfg(test)]
mod query_tests;
mod record_reads;
mod resends;
#[cfg(test)]
mod seat_tests;
mod seated_event;
mod seats;
mod steps;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_outcome_tests;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;
use rand::rngs::SmallRng;

use self::dispatch::{Completed, Step};
use self::hold_predictor::HoldPredictor;
use self::in_flight::{Caller, InFlightCalls};
use self::pools::Pools;
use self::record_reads::{RecordReads, RecordWaiter};
use self::resends::ResendQueue;
use self::seated_event::{SeatMapWaiter, SeatedEvents};
use super::answer::{Answer, Rejection};
use super::counters::Counters;
use super::effect::{CallId, Effect, LaneId, RecordHint, RecordReadId};
use super::fault::{self, Fault};
use super::ids::{EventId, ReservationId};
use super::lane::{LaneSettings, Pool, PoolOutput};
use super::membership::Members;
use super::operation::Operation;
use super::query::{Query, QueryResult, StatusVersion};
use super::record_cache::RecordCache;
use super::rules::LateCommit;
use super::stock_reads::{FinishedRead, StockReadWaiter, StockReads};
use super::stock_snapshots::{StockDeltas, StockSnapshots};
use super::time::{Micros, Now};
use super::transaction::{
    EventLayout, FreeSeatsRead, RecordView, RecordsRead, SeatsRead, StripesRead, TransactionOutcome,
};
use crate::limits;

/// What an engine is built with.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// Index of this shard, from 0.
    pub shard: usize,
    /// Number of shards of this process.
    pub shards: usize,
    /// Capacity of the record cache, in reservations; 0: no cache.
    pub cache_capacity: usize,
    /// Age at which a cached record expires.
    pub cache_for: Micros,
    pub late_commit: LateCommit,
    /// How long after its start one strong read of all stripes may be reused to answer "sold out" to
    /// calls that arrive later; zero: never.
    pub sold_out_latch: Micros,
    /// Maximum age of the stock snapshot that answers a query about units; 0: no snapshots.
    pub read_staleness: Micros,
    /// Time-out of the first attempt of a transaction.
    pub attempt_timeout: Micros,
}

/// An operation between two steps, with what is known of its event and its record.
#[derive(Debug)]
struct OperationTask {
    operation: Operation,
    /// `Some`: the operation is on the shard that executes it, and this is the layout by which it was
    /// routed. `None`: the shard is still to be determined.
    layout: Option<EventLayout>,
    hint: RecordHint,
}

/// The state machine of one shard: inputs, effects, a timer.
pub struct Engine {
    settings: EngineSettings,
    /// The time of the input that is being processed.
    now: Now,
    effects: VecDeque<Effect>,
    /// Work that the current input still has to do; empty between inputs.
    steps: Vec<Step>,
    cache: RecordCache,
    in_flight: InFlightCalls,
    pools: Pools,
    stock_reads: StockReads,
    snapshots: StockSnapshots,
    record_reads: RecordReads,
    resends: ResendQueue,
    hold_predictor: HoldPredictor,
    /// The seated events that this shard owns and has been asked about.
    seated_events: SeatedEvents,
    /// Layouts of events seen before. A hint: a lane whose stripe is short reads them again.
    layouts: LruCache<EventId, EventLayout, foldhash::fast::RandomState>,
    /// Expiries of holds in flight.
    expiries: usize,
    counters: Counters,
    rng: SmallRng,
    /// Buffer for what a pool returns, reused.
    pool_output: PoolOutput,
}

/// Construction, outputs and figures.
impl Engine {
    /// `rng` must be seeded from real randomness in production: it draws the request tokens.
    pub fn new(settings: EngineSettings, rng: SmallRng) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let layouts = NonZeroUsize::new(limits::EVENTS_CACHED_MAX).unwrap_or(NonZeroUsize::MIN);
        let lanes = LaneSettings {
            late_commit: settings.late_commit,
            sold_out_latch: settings.sold_out_latch,
        };
        Self {
            settings,
            now: Now::default(),
            effects: VecDeque::new(),
            steps: Vec::new(),
            cache: RecordCache::new(settings.cache_capacity, settings.cache_for),
            in_flight: InFlightCalls::default(),
            pools: Pools::new(settings.shard, settings.shards, lanes),
            stock_reads: StockReads::new(settings.read_staleness),
            snapshots: StockSnapshots::new(settings.read_staleness),
            record_reads: RecordReads::default(),
            resends: ResendQueue::new(settings.attempt_timeout),
            hold_predictor: HoldPredictor::new(),
            seated_events: SeatedEvents::default(),
            layouts: LruCache::with_hasher(layouts, hasher),
            expiries: 0,
            counters: Counters::default(),
            rng,
            pool_output: PoolOutput::default(),
        }
    }

    /// The next effect to execute, in order. `None`: no effect is pending.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Engine::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Micros> {
        let parts = [
            self.pools.wake_at(),
            self.resends.wake_at(),
            self.record_reads.wake_at(),
            self.seated_events.wake_at(),
        ];
        parts.into_iter().flatten().min()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Operations that have not been answered.
    pub fn calls_in_flight(&self) -> usize {
        self.in_flight.calls()
    }

    /// Whether nothing is in flight, in a lane or being read.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.pools.all_idle()
            && self.stock_reads.is_empty()
            && self.record_reads.is_empty()
            && self.seated_events.all_idle()
    }

    /// Transactions whose outcome is unknown; they are sent again.
    pub fn unresolved(&self) -> usize {
        self.resends.len()
    }

    /// Operations in lanes, whether or not their callers still wait.
    pub fn operations_in_pools(&self) -> usize {
        self.pools.depth()
    }

    /// Callers in the shared queues of the pools, or waiting for a read of all stripes; not those that only one lane
    /// can serve.
    pub fn queue_depth(&self) -> usize {
        self.pools.waiting()
    }
}

/// Memory: answers that need no effect.
impl Engine {
    /// The answer, if the reservation's cached record is final. Needs no [`CallId`].
    pub fn cached_answer(&mut self, operation: &Operation, now: Micros) -> Option<Answer> {
        self.answer_from_cache(operation, now)
    }

    /// The result of a query that arrived at `asked`, if a snapshot is recent enough. Needs no
    /// [`CallId`]. May start a read that refreshes the snapshot.
    pub fn cached_query_result(
        &mut self,
        event: &EventId,
        query: &Query,
        asked: Micros,
    ) -> Option<QueryResult> {
        self.query_snapshot(event, query, asked)
    }

    /// The version of the status of a whole seated event; `None` if this shard has no recent seat map.
    /// May start a read, as a query does.
    pub fn status_version(&mut self, event: &EventId, now: Now) -> Option<StatusVersion> {
        self.now = now;
        self.version_of_status(event)
    }
}

/// Inputs.
impl Engine {
    /// The processes that sell from this store have changed. A hint: see [`crate::membership`].
    pub fn handle_membership(&mut self, members: Rc<Members>, now: Now) {
        self.now = now;
        self.pools.set_members(members);
        self.run();
    }

    /// As of the last [`Engine::handle_membership`].
    pub fn members(&self) -> &Rc<Members> {
        self.pools.members()
    }

    /// A call that arrived at this shard and for which [`Engine::cached_answer`] has no answer.
    pub fn handle_call(&mut self, call: CallId, operation: Operation, now: Now) {
        self.now = now;
        let task = OperationTask { operation, layout: None, hint: RecordHint::None };
        self.register(Caller::Call(call), task);
        self.run();
    }

    /// A call that the shard `from` forwarded, because this shard owns its stripe or its seats. Answered by
    /// [`Effect::AnswerForwarded`].
    pub fn handle_forwarded_call(
        &mut self,
        from: usize,
        operation: Operation,
        mut layout: EventLayout,
        hint: RecordHint,
        now: Now,
    ) {
        self.now = now;
        let caller = Caller::of_shard(from, &operation);
        // An answer from memory takes no place among the calls in flight.
        if hint == RecordHint::None
            && let Some(answer) = self.cached_answer(&operation, now.mono)
        {
            let record = self.cache.get(&operation.reservation, now.mono);
            self.answer(caller, answer, record);
            return;
        }
        let own = self.layouts.get_or_insert(operation.event.clone(), || layout);
        // The shard that reads the seats is the first to see that the event was closed.
        layout.closed |= own.closed;
        let task = OperationTask { operation, layout: Some(layout), hint };
        self.register(caller, task);
        self.run();
    }

    /// A hold that the reclaimer found to be past its expiry, with its record.
    pub fn handle_expired_hold(
        &mut self,
        call: CallId,
        event: EventId,
        reservation: ReservationId,
        record: RecordView,
        deadline: Micros,
        now: Now,
    ) {
        self.now = now;
        self.register_expiry(Caller::Call(call), event, reservation, record, deadline);
        self.run();
    }

    /// What the other shard answered to [`Effect::Forward`].
    pub fn handle_forward_outcome(
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
        answer: Answer,
        record: Option<RecordView>,
        now: Now,
    ) {
        self.now = now;
        // The record of a rejected call may belong to another event.
        if let Some(record) = &record
            && (!matches!(answer, Answer::Rejected(_)) || fault::planted(Fault::OtherEventCounted))
            && !fault::planted(Fault::ForwardedSaleMissing)
        {
            self.record_stock_write(event, &StockDeltas::of_record(record), None);
        }
        self.complete(event, Completed { reservation: reservation.clone(), answer, record });
        self.run();
    }

    /// The outcome of [`Effect::Transact`].
    pub fn handle_transaction_outcome(
        &mut self,
        lane: LaneId,
        outcome: TransactionOutcome,
        now: Now,
    ) {
        self.now = now;
        self.resends.record_outcome(lane, &outcome, now.mono, &mut self.rng);
        self.with_pool(lane.pool, |pool, cx| {
            pool.handle_outcome(lane.lane, outcome, cx);
        });
        self.run();
        self.send_unresolved();
    }

    /// The result of [`Effect::ReadRecords`].
    pub fn handle_records_read(&mut self, read: RecordReadId, result: &RecordsRead, now: Now) {
        self.now = now;
        let waiters = self.record_reads.finish(read);
        self.send_record_reads();
        for RecordWaiter { task, position } in waiters {
            let rejection = match result {
                RecordsRead::Found(records) => match records.get(position) {
                    Some(Ok(record)) => {
                        if let Some(record) = record {
                            let reservation = task.operation.reservation.clone();
                            self.cache.insert(reservation, record.clone(), now.mono);
                        }
                        let hint = RecordHint::Confirmed(record.clone());
                        self.advance(OperationTask { hint, ..task });
                        self.run();
                        continue;
                    }
                    Some(Err(_)) => Rejection::Internal,
                    None => Rejection::store_unavailable(),
                },
                RecordsRead::Unavailable => Rejection::store_unavailable(),
                RecordsRead::Throttled => Rejection::store_busy(),
            };
            self.reject(&task.operation, rejection);
            self.run();
        }
    }

    /// The result of [`Effect::ReadStripes`].
    pub fn handle_stripes_read(&mut self, event: &EventId, result: &StripesRead, now: Now) {
        self.now = now;
        self.counters.stripe_reads += 1;
        #[cfg(feature = "planted-faults")]
        let result = &match fault::planted(Fault::OtherStripesUnread) {
            true => self.pools.without_stripes_of_others(event, result.clone()),
            false => result.clone(),
        };
        if let StripesRead::Found(stripes) = result {
            self.layouts.put(event.clone(), EventLayout::of(stripes));
        }
        let hint = self.layouts.get(event).map(|layout| layout.stripes);
        let Some(read) = self.stock_reads.finish(event, now.mono) else {
            return;
        };
        if read.starts_next {
            self.send_stripes_read(event, hint);
        }
        self.store_snapshot(event, &read, result);
        let FinishedRead { began, waiters, .. } = read;
        for waiter in waiters {
            match waiter {
                StockReadWaiter::Query { call, query, asked } => {
                    self.answer_after_read(call, event, query, asked, began, result);
                }
                StockReadWaiter::Layout => {}
                StockReadWaiter::Operation(waiting) => {
                    let (operation, hint) = *waiting;
                    match queries::rejection_of(result) {
                        None => self.advance(OperationTask { operation, layout: None, hint }),
                        Some(rejection) => self.reject(&operation, rejection),
                    }
                }
                StockReadWaiter::Pool(pool) => {
                    self.with_pool(pool, |pool, cx| pool.stripes_read(began, result, cx));
                }
            }
            self.run();
        }
    }

    /// The result of [`Effect::ReadSeats`].
    pub fn handle_seats_read(&mut self, event: &EventId, result: SeatsRead, now: Now) {
        self.now = now;
        let (seats, rejection) = match result {
            SeatsRead::Found(seats) => (Some(seats), None),
            SeatsRead::Unavailable => (None, Some(Rejection::store_unavailable())),
            SeatsRead::Throttled => (None, Some(Rejection::store_busy())),
        };
        let Some(seated) = self.seated_events.get_mut(event) else {
            return;
        };
        for waiter in seated.finish_read(seats, now.mono) {
            match (waiter, &rejection) {
                (SeatMapWaiter::Query { call, query }, None) => {
                    self.answer_from_seat_map(call, event, query);
                }
                (SeatMapWaiter::Query { call, .. }, Some(rejection)) => {
                    self.answer_query(call, Err(rejection.clone()));
                }
                (SeatMapWaiter::SeatChoice(task), None) => self.advance(*task),
                (SeatMapWaiter::SeatChoice(task), Some(rejection)) => {
                    self.reject(&task.operation, rejection.clone());
                }
            }
            self.run();
        }
    }

    /// The result of [`Effect::ReadFreeSeats`].
    pub fn handle_free_seats_read(&mut self, event: &EventId, result: FreeSeatsRead, now: Now) {
        self.now = now;
        let (free, rejection) = match result {
            FreeSeatsRead::Found(free) => (Some(free), None),
            FreeSeatsRead::Unavailable => (None, Some(Rejection::store_unavailable())),
            FreeSeatsRead::Throttled => (None, Some(Rejection::store_busy())),
        };
        let Some(seated) = self.seated_events.get_mut(event) else {
            return;
        };
        let (waiting, agrees) = seated.finish_verification(free, now.mono);
        self.counters.seat_verification_mismatches += u64::from(!agrees);
        for task in waiting {
            match &rejection {
                None => self.advance(task),
                Some(rejection) => self.reject(&task.operation, rejection.clone()),
            }
            self.run();
        }
    }

    /// A query for which [`Engine::cached_query_result`] has no result.
    pub fn handle_query(&mut self, call: CallId, event: EventId, query: Query, now: Now) {
        self.now = now;
        self.route_query(call, event, query);
        self.run();
    }

    /// A query that another shard passed on, because this shard owns the event's seats.
    pub fn handle_forwarded_query(
        &mut self,
        call: CallId,
        event: &EventId,
        layout: EventLayout,
        query: Query,
        now: Now,
    ) {
        self.now = now;
        self.query_seats(call, event, layout, query);
        self.run();
    }

    /// An operator has changed the event: its cached layout, stock and seats are dropped.
    pub fn handle_event_changed(&mut self, event: &EventId, now: Now) {
        self.now = now;
        self.layouts.pop(event);
        if let Some(pool) = self.pools.selling(event) {
            pool.discard_sold_out_hint(now.mono);
        }
        if !fault::planted(Fault::SnapshotSurvivesAdmin) {
            self.snapshots.invalidate(event);
        }
        if !fault::planted(Fault::ReadSurvivesAdmin) {
            self.stock_reads.mark_stale(event);
        }
        if let Some(seated) = self.seated_events.get_mut(event) {
            seated.invalidate_map();
        }
    }

    /// An operator has changed the reservation: its cached record is dropped.
    pub fn handle_reservation_changed(&mut self, reservation: &ReservationId) {
        self.cache.remove(reservation);
    }

    /// The store answers again after an outage: unknown outcomes need not wait for the end of a pause.
    pub fn handle_store_available(&mut self, now: Now) {
        self.now = now;
        self.resends.store_available(now.mono);
        self.send_unresolved();
    }

    /// The time that [`Engine::poll_timeout`] returned has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        for pool in self.pools.take_due(now.mono) {
            self.with_pool(pool, Pool::wake);
            self.run();
        }
        self.send_record_reads();
        self.start_due_verifications();
        self.send_unresolved();
    }
}
