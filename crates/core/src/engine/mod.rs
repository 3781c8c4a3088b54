//! All lanes of one shard, and the way of a call to its lane and back.
//!
//! A call is answered from the cache of settled reservations; else it joins the call in flight for
//! the same reservation; else it goes to the lane of a stripe: here, or on the shard that owns it.
//! Everything enters through a method and leaves as [`Effect`]s.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | what enters: calls, outcomes, reads, time |
//! | `pending.rs` | calls in flight by reservation: joined, or queued behind |
//! | `route.rs` | the way of one operation: look, decide, write |
//! | `predictor.rs` | which events are sold in two steps, and so are better looked at first |
//! | `lookups.rs` | records that must be read first, in batches |
//! | `lanes.rs` | the lanes, their timers, which shard owns which stripe |
//! | `seated.rs` | one seated event: its map, and who is about to get which seat |
//! | `seats.rs` | operations on seats |
//! | `ask.rs` | queries |

mod hold_predictor;
mod in_flight;
mod planner;
mod pools;
mod queries;
mod record_reads;
mod seat_operations;
#[cfg(test)]
mod seat_tests;
mod seated_event;
#[cfg(test)]
mod tests;

use crate::fault::{self, Fault};
use std::collections::HashMap;

use lru::LruCache;
use rand::rngs::SmallRng;

use self::hold_predictor::HoldPredictor;
use self::in_flight::{InFlightCalls, Registration, Waiter};
use self::pools::Pools;
use self::record_reads::RecordReads;
use self::seated_event::SeatedEvent;
use super::answer::{Answer, Rejection};
use super::counters::Counters;
use super::effect::{CallId, Effect, LaneId, PoolId, RecordHint, Route};
use super::ids::{EventId, ReservationId};
use super::lane::{Completion, LaneSettings, Pool, PoolContext, PoolOutput};
use super::operation::{Operation, Verb};
use super::record_cache::RecordCache;
use super::rules::{self, Decision, LateCommit};
use super::stock_reads::{FinishedRead, StockReadWaiter, StockReads};
use super::stock_snapshots::{StockSnapshots, deltas_of};
use super::time::{Micros, Now, UnixMillis};
use super::transaction::{
    EventLayout, RecordView, ReservationState, StripesRead, TransactionOutcome,
};
use crate::limits;

type SeatedEvents = HashMap<EventId, SeatedEvent, foldhash::fast::RandomState>;

/// What a engine is built with.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// This shard, from 0.
    pub shard: usize,
    /// How many there are.
    pub shards: usize,
    /// Completion reservations to remember; 0: none.
    pub cache_capacity: usize,
    /// For how long.
    pub cache_for: Micros,
    pub late_commit: LateCommit,
    /// For how long after a strong read of all stripes began it may be said to callers who come later
    /// that there is too little; zero: never.
    pub sold_out_latch: Micros,
    /// How long before a query about units the read may have begun that answers it; 0: not at all.
    pub read_staleness: Micros,
}

/// See the module's head.
pub struct Engine {
    settings: EngineSettings,
    cache: RecordCache,
    in_flight: InFlightCalls,
    pools: Pools,
    stock_reads: StockReads,
    snapshots: StockSnapshots,
    record_reads: RecordReads,
    hold_predictor: HoldPredictor,
    /// The seated events that this shard owns and has heard of.
    seated_events: SeatedEvents,
    /// What events seen are like, a hint: a lane whose stripe is short looks again.
    events: LruCache<EventId, EventLayout, foldhash::fast::RandomState>,
    /// Holds past their time whose end is under way.
    expiring: usize,
    counters: Counters,
    rng: SmallRng,
    scratch: PoolOutput,
}

impl Engine {
    /// `rng` must be seeded from real randomness in production: it draws the request tokens.
    pub fn new(settings: EngineSettings, rng: SmallRng) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let known = std::num::NonZeroUsize::new(limits::EVENTS_CACHED_MAX)
            .unwrap_or(std::num::NonZeroUsize::MIN);
        Self {
            settings,
            cache: RecordCache::new(settings.cache_capacity, settings.cache_for),
            in_flight: InFlightCalls::default(),
            pools: Pools::new(
                settings.shard,
                settings.shards,
                LaneSettings {
                    late_commit: settings.late_commit,
                    sold_out_latch: settings.sold_out_latch,
                },
            ),
            stock_reads: StockReads::new(settings.read_staleness),
            snapshots: StockSnapshots::new(settings.read_staleness),
            record_reads: RecordReads::default(),
            hold_predictor: HoldPredictor::new(),
            seated_events: SeatedEvents::default(),
            events: LruCache::with_hasher(known, hasher),
            expiring: 0,
            counters: Counters::default(),
            rng,
            scratch: PoolOutput::default(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Operations taken and not answered.
    pub fn calls_in_flight(&self) -> usize {
        self.in_flight.calls()
    }

    /// Completion reservations remembered.
    pub fn cached_records(&self) -> usize {
        self.cache.len()
    }

    /// Nothing is in flight, in a lane or being read.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.pools.all_idle()
            && self.stock_reads.is_empty()
            && self.record_reads.is_empty()
            && self.seated_events.values().all(SeatedEvent::is_idle)
    }

    /// Operations in lanes that have not settled, whether or not their callers still wait.
    pub fn operations_in_pools(&self) -> usize {
        self.pools.depth()
    }

    /// Callers that wait in line for a lane.
    pub fn queue_depth(&self) -> usize {
        self.pools.waiting()
    }

    /// When [`Engine::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.pools.wake_at()
    }

    /// The answer, if the reservation has come to an end and is remembered. Costs no [`CallId`].
    pub fn cached_answer(&mut self, operation: &Operation, now: Micros) -> Option<Answer> {
        let remembered = self.cache.get(&operation.reservation, now);
        let Some(record) = remembered.filter(planner::is_final) else {
            self.counters.cache_misses += 1;
            return None;
        };
        let late = self.settings.late_commit;
        // What has come to an end is so at any time.
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

    /// Takes a call that arrived at this shard and that [`Engine::cached_answer`] has no answer for.
    pub fn handle_call(
        &mut self,
        call: CallId,
        operation: Operation,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.register(call, operation, None, RecordHint::None, now, fx);
    }

    /// Takes a call that another shard routed to what is owned here.
    pub fn handle_forwarded_call(
        &mut self,
        call: CallId,
        operation: Operation,
        mut route: Route,
        known: RecordHint,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        // A query that only needs memory costs no place among the calls in flight.
        if known == RecordHint::None
            && let Some(answer) = self.cached_answer(&operation, now.mono)
        {
            let learned = self.cache.get(&operation.reservation, now.mono);
            fx.push(Effect::Answer {
                call,
                answer,
                learned,
            });
            return;
        }
        let shape = route.shape;
        let mine = self.events.get_or_insert(operation.event.clone(), || shape);
        // Who reads the seats is the first to see that the event was closed.
        route.shape.closed |= mine.closed;
        if self.in_flight.would_deadlock(&operation) {
            reject(call, Rejection::store_busy(), fx);
            return;
        }
        self.register(call, operation, Some(route), known, now, fx);
    }

    /// Ends a hold that was found to be past its time, as `record` says.
    #[expect(clippy::too_many_arguments, reason = "one record, taken apart")]
    pub fn handle_expired_hold(
        &mut self,
        call: CallId,
        event: EventId,
        reservation: ReservationId,
        record: RecordView,
        deadline: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let operation = seat_operations::expiry(event, reservation, deadline);
        self.register(
            call,
            operation,
            None,
            RecordHint::Confirmed(Some(record)),
            now,
            fx,
        );
    }

    /// Forgets what a reservation came to: the next call about it asks the store.
    pub fn handle_reservation_changed(&mut self, reservation: &ReservationId) {
        self.cache.remove(reservation);
    }

    /// Forgets what an event is like and what its seats are: an operator has changed it.
    pub fn handle_event_changed(&mut self, event: &EventId, now: Micros) {
        self.events.pop(event);
        if let Some(pool) = self.pools.selling(event) {
            pool.reopen(now);
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

    /// Reports the outcome of [`Effect::Transact`].
    pub fn handle_transaction_outcome(
        &mut self,
        lane: LaneId,
        outcome: TransactionOutcome,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.with_pool(lane.pool, now, fx, |pool, cx| {
            pool.handle_outcome(lane.lane, outcome, cx);
        });
    }

    /// Lets a pool of lanes do something, and carries out what it wants.
    fn with_pool(
        &mut self,
        id: PoolId,
        now: Now,
        fx: &mut Vec<Effect>,
        act: impl FnOnce(&mut Pool, &mut PoolContext<'_>),
    ) {
        let Some(pool) = self.pools.get_mut(id) else {
            return;
        };
        let mut out = std::mem::take(&mut self.scratch);
        let mut cx = PoolContext {
            now,
            rng: &mut self.rng,
            counters: &mut self.counters,
            out: &mut out,
        };
        act(pool, &mut cx);
        self.apply_pool_output(id, out, now, fx);
    }

    /// Reports the result of [`Effect::ReadStripes`].
    pub fn handle_stripes_read(
        &mut self,
        event: &EventId,
        read: &StripesRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.counters.stripe_reads += 1;
        if let StripesRead::Found(stripes) = read {
            self.events.put(event.clone(), EventLayout::of(stripes));
        }
        let hint = self.events.get(event).map(|shape| shape.stripes);
        let Some(done) = self.stock_reads.finish(event, hint, now.mono, fx) else {
            return;
        };
        self.keep_snapshot(event, &done, read, now);
        let FinishedRead { began, waiters, .. } = done;
        for waiter in waiters {
            match waiter {
                StockReadWaiter::Query { call, query, asked }
                    if asked > began && !fault::planted(Fault::JoinedQueryStale) =>
                {
                    self.answer_who_joined(call, event, query, asked, read, now, fx);
                }
                StockReadWaiter::Query { call, query, .. } => {
                    self.answer_from_read(call, event, query, read, now, fx);
                }
                StockReadWaiter::Layout => {}
                StockReadWaiter::Operation(routed) => {
                    let (operation, known) = *routed;
                    match rejection_of(read) {
                        None => self.advance(operation, None, known, now, fx),
                        Some(rejection) => {
                            let rejection = Answer::Rejected(rejection);
                            self.end(&operation, rejection, None, now, fx);
                        }
                    }
                }
                StockReadWaiter::Pool(id) => {
                    self.with_pool(id, now, fx, |pool, cx| {
                        pool.stripes_read(began, read, cx);
                    });
                }
            }
        }
    }

    /// Reports what the other shard answered to [`Effect::Forward`].
    pub fn handle_forward_outcome(
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
        answer: Answer,
        learned: Option<RecordView>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        // The record of a refused call may be of another event.
        if let Some(record) = &learned
            && (!matches!(answer, Answer::Rejected(_)) || fault::planted(Fault::OtherEventCounted))
            && !fault::planted(Fault::ForwardedSaleMissing)
        {
            self.stock_moved(event, &deltas_of(record), None, now.mono);
        }
        self.complete(event, reservation, answer, learned, now, fx);
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now, fx: &mut Vec<Effect>) {
        for id in self.pools.take_due(now.mono) {
            self.with_pool(id, now, fx, |pool, cx| pool.wake(cx));
        }
    }

    /// Joins the call in flight for the same reservation, or becomes it.
    fn register(
        &mut self,
        call: CallId,
        operation: Operation,
        route: Option<Route>,
        known: RecordHint,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if operation.deadline <= now.mono {
            self.counters.expired += 1;
            reject(call, Rejection::DeadlineExceeded, fx);
            return;
        }
        match self.in_flight.register(call, operation, route, now.mono) {
            Registration::Leader(operation) => {
                self.expiring += usize::from(operation.verb == Verb::Expire);
                self.advance(operation, route, known, now, fx);
            }
            Registration::Waiting => self.counters.coalesced += 1,
            Registration::Full => {
                self.counters.rejected_overloaded += 1;
                reject(call, Rejection::overloaded(), fx);
            }
        }
    }

    /// Carries out what a pool of lanes wants.
    fn apply_pool_output(
        &mut self,
        pool: PoolId,
        mut out: PoolOutput,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        for (lane, transaction) in out.send.drain(..) {
            let lane = LaneId { pool, lane };
            fx.push(Effect::Transact { lane, transaction });
        }
        let read = std::mem::take(&mut out.read_stripes);
        let learned = out.learned_shape.take();
        let as_of = out.as_of;
        let mut settled = std::mem::take(&mut out.completions);
        let returned = std::mem::take(&mut out.redecisions);
        let nothing_more = !read
            && learned.is_none()
            && settled.is_empty()
            && returned.is_empty()
            && out.stock.is_empty();
        let event = match self.pools.get_mut(pool) {
            Some(at) if !nothing_more => Some(at.key().event.clone()),
            _ => None,
        };
        if let Some(event) = &event {
            // Before a read begins, which will have seen it.
            self.stock_moved(event, &out.stock, out.stock_sent, now.mono);
            if let Some(shape) = learned {
                self.events.put(event.clone(), shape);
            }
            if read {
                let hint = self.events.get(event).map(|shape| shape.stripes);
                // Cannot be refused: a pool's wish is always taken.
                let waiter = StockReadWaiter::Pool(pool);
                let _ = self.stock_reads.request(event, hint, waiter, now.mono, fx);
            }
        }
        out.stock.clear();
        self.pools.after(pool);
        self.scratch = out;
        if let Some(event) = &event {
            // Before anybody is let go on who waited for one of these seats.
            for one in settled.iter().filter(|one| one.wrote) {
                if let Some(record) = &one.learned {
                    self.seats_written(event, &one.reservation, record, as_of);
                }
            }
            for one in settled.drain(..) {
                if one.wrote && one.reservation.is_slip() {
                    self.expire_release_record(event, one, now, fx);
                    continue;
                }
                self.complete(event, &one.reservation, one.answer, one.learned, now, fx);
            }
            for one in returned {
                if fault::planted(Fault::RedecisionLost) {
                    continue;
                }
                self.returned(event, one, as_of, now, fx);
            }
        }
        // Give the buffer back unless answering took and filled another one.
        if self.scratch.completions.capacity() < settled.capacity() {
            self.scratch.completions = settled;
        }
    }

    /// A slip is past its time from the beginning; what it holds goes back to the stripe.
    fn expire_release_record(
        &mut self,
        event: &EventId,
        slip: Completion,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Completion {
            reservation,
            learned: Some(record),
            ..
        } = slip
        else {
            return;
        };
        if record.state != ReservationState::Held {
            self.complete(event, &reservation, slip.answer, Some(record), now, fx);
            return;
        }
        let patience = Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64);
        let deadline = now.mono.plus(patience);
        self.handle_expired_hold(
            CallId::INTERNAL,
            event.clone(),
            reservation,
            record,
            deadline,
            now,
            fx,
        );
    }

    /// Answers everybody who waits for this outcome, and lets the next in line go.
    fn complete(
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
        answer: Answer,
        learned: Option<RecordView>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(record) = learned.clone() {
            self.cache.insert(reservation.clone(), record, now.mono);
        }
        if !fault::planted(Fault::SeatLockKept) {
            self.unclaim(event, reservation, now, fx);
        }
        let Some(pending) = self.in_flight.remove(reservation, event) else {
            return;
        };
        self.expiring -= usize::from(pending.verb == Verb::Expire);
        fx.push(Effect::Answer {
            call: pending.leader,
            answer: answer.clone(),
            learned: learned.clone(),
        });
        for waiter in pending.waiters {
            let Waiter {
                call,
                operation,
                route,
                joined,
            } = waiter;
            let same =
                operation.verb == pending.verb && operation.fingerprint == pending.fingerprint;
            if same && applies_to_waiter(&answer, joined, pending.started_at) {
                fx.push(Effect::Answer {
                    call,
                    answer: answer.clone(),
                    learned: learned.clone(),
                });
            } else if let Some(answer) = self.cached_answer(&operation, now.mono) {
                let learned = self.cache.get(reservation, now.mono);
                fx.push(Effect::Answer {
                    call,
                    answer,
                    learned,
                });
            } else {
                self.register(call, operation, route, RecordHint::None, now, fx);
            }
        }
        for buyer in &pending.watchers {
            let reservation = &buyer.operation.reservation;
            self.in_flight.set_watching(reservation, event, false);
        }
        self.let_go(pending.watchers, now, fx);
    }
}

/// Whether what the leader was told is also true for an equal call that joined it at `joined`.
///
/// A deadline is each call's own, and so is that a line is too long for it. That there is too little, or no such event, was read after the
/// leader set out; who came later has a right to a later read. So with states of the record that
/// another node may have moved on before the call came.
fn applies_to_waiter(answer: &Answer, joined: Micros, since: Micros) -> bool {
    match answer {
        Answer::Rejected(Rejection::DeadlineExceeded | Rejection::Overloaded { .. }) => false,
        Answer::Held { .. }
        | Answer::Rejected(
            Rejection::InsufficientInventory { .. }
            | Rejection::EventNotFound
            | Rejection::EventClosed
            | Rejection::SeatsUnavailable { .. }
            | Rejection::SeatsNotFound { .. }
            | Rejection::HoldExpired
            | Rejection::ReservationNotFound
            | Rejection::ReservationNotConfirmed,
        ) => joined <= since || fault::planted(Fault::LateWaiterShares),
        _ => true,
    }
}

fn reject(call: CallId, rejection: Rejection, fx: &mut Vec<Effect>) {
    fx.push(Effect::Answer {
        call,
        answer: Answer::Rejected(rejection),
        learned: None,
    });
}

/// Why a read that was needed to go on is no use.
fn rejection_of(read: &StripesRead) -> Option<Rejection> {
    match read {
        StripesRead::Found(_) => None,
        StripesRead::NotFound => Some(Rejection::EventNotFound),
        StripesRead::Throttled => Some(Rejection::store_busy()),
        StripesRead::Unavailable => Some(Rejection::store_unavailable()),
    }
}
