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
//! | `habits.rs` | which events are sold in two steps, and so are better looked at first |
//! | `lookups.rs` | records that must be read first, in batches |
//! | `lanes.rs` | the lanes, their timers, which shard owns which stripe |
//! | `desk.rs` | one seated event: its map, and who is about to get which seat |
//! | `seats.rs` | operations on seats |
//! | `ask.rs` | questions |

mod ask;
mod desk;
mod habits;
mod lanes;
mod lookups;
mod pending;
mod route;
#[cfg(test)]
mod seat_tests;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use lru::LruCache;
use rand::rngs::SmallRng;

use self::desk::Desk;
use self::habits::Habits;
use self::lanes::Lanes;
use self::lookups::Lookups;
use self::pending::{Follower, Joined, Pendings};
use super::answer::{Answer, Refusal};
use super::cache::SettledCache;
use super::counters::Counters;
use super::effect::{CallId, Effect, Known, LaneId, PoolId, Route};
use super::ids::{EventId, ReservationId};
use super::lane::{LaneOutput, Pool, Settled, Terms, Turn};
use super::operation::{Operation, Verb};
use super::reads::{Done, Reads, Waiter};
use super::rules::{self, Decision, LateCommit};
use super::snapshots::{Snapshots, moved_by};
use super::time::{Micros, Now, UnixMillis};
use super::transaction::{EventRead, EventShape, Outcome, RecordView, ReservationState};
use crate::limits;

type Desks = HashMap<EventId, Desk, foldhash::fast::RandomState>;

/// What a coordinator is built with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This shard, from 0.
    pub shard: usize,
    /// How many there are.
    pub shards: usize,
    /// Settled reservations to remember; 0: none.
    pub cache_capacity: usize,
    /// For how long.
    pub cache_for: Micros,
    pub late_commit: LateCommit,
    /// For how long after a strong read of all stripes began it may be said to callers who come later
    /// that there is too little; zero: never.
    pub sold_out_latch: Micros,
    /// How long before a question about units the read may have begun that answers it; 0: not at all.
    pub read_staleness: Micros,
}

/// See the module's head.
pub struct Coordinator {
    settings: Settings,
    cache: SettledCache,
    pending: Pendings,
    lanes: Lanes,
    reads: Reads,
    snapshots: Snapshots,
    lookups: Lookups,
    habits: Habits,
    /// The seated events that this shard owns and has heard of.
    desks: Desks,
    /// What events seen are like, a hint: a lane whose stripe is short looks again.
    events: LruCache<EventId, EventShape, foldhash::fast::RandomState>,
    /// Holds past their time whose end is under way.
    expiring: usize,
    counters: Counters,
    rng: SmallRng,
    scratch: LaneOutput,
}

impl Coordinator {
    /// `rng` must be seeded from real randomness in production: it draws the request tokens.
    pub fn new(settings: Settings, rng: SmallRng) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let known = std::num::NonZeroUsize::new(limits::EVENTS_KNOWN_MAX)
            .unwrap_or(std::num::NonZeroUsize::MIN);
        Self {
            settings,
            cache: SettledCache::new(settings.cache_capacity, settings.cache_for),
            pending: Pendings::default(),
            lanes: Lanes::new(
                settings.shard,
                settings.shards,
                Terms {
                    late: settings.late_commit,
                    latch: settings.sold_out_latch,
                },
            ),
            reads: Reads::new(settings.read_staleness),
            snapshots: Snapshots::new(settings.read_staleness),
            lookups: Lookups::default(),
            habits: Habits::new(),
            desks: Desks::default(),
            events: LruCache::with_hasher(known, hasher),
            expiring: 0,
            counters: Counters::default(),
            rng,
            scratch: LaneOutput::default(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Operations taken and not answered.
    pub fn in_flight(&self) -> usize {
        self.pending.calls()
    }

    /// Settled reservations remembered.
    pub fn remembered(&self) -> usize {
        self.cache.len()
    }

    /// Nothing is in flight, in a lane or being read.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.lanes.all_idle()
            && self.reads.is_empty()
            && self.lookups.is_empty()
            && self.desks.values().all(Desk::is_idle)
    }

    /// Operations in lanes that have not settled, whether or not their callers still wait.
    pub fn in_lanes(&self) -> usize {
        self.lanes.depth()
    }

    /// Callers that wait in line for a lane.
    pub fn in_line(&self) -> usize {
        self.lanes.in_line()
    }

    /// When [`Coordinator::wake`] is next due.
    pub fn wake_at(&self) -> Option<Micros> {
        self.lanes.wake_at()
    }

    /// The answer, if the reservation has come to an end and is remembered. Costs no [`CallId`].
    pub fn replay(&mut self, operation: &Operation, now: Micros) -> Option<Answer> {
        let remembered = self.cache.get(&operation.reservation, now);
        let Some(record) = remembered.filter(route::is_final) else {
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

    /// Takes a call that arrived at this shard and that [`Coordinator::replay`] has no answer for.
    pub fn submit(&mut self, call: CallId, operation: Operation, now: Now, fx: &mut Vec<Effect>) {
        self.enter(call, operation, None, Known::Nothing, now, fx);
    }

    /// Takes a call that another shard routed to what is owned here.
    pub fn submit_forwarded(
        &mut self,
        call: CallId,
        operation: Operation,
        mut route: Route,
        known: Known,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        // A question that only needs memory costs no place among the calls in flight.
        if known == Known::Nothing
            && let Some(answer) = self.replay(&operation, now.mono)
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
        if self.pending.would_wait_in_a_ring(&operation) {
            refuse(call, Refusal::store_busy(), fx);
            return;
        }
        self.enter(call, operation, Some(route), known, now, fx);
    }

    /// Ends a hold that was found to be past its time, as `record` says.
    #[expect(clippy::too_many_arguments, reason = "one record, taken apart")]
    pub fn reclaim(
        &mut self,
        call: CallId,
        event: EventId,
        reservation: ReservationId,
        record: RecordView,
        deadline: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let operation = seats::expiry(event, reservation, deadline);
        self.enter(call, operation, None, Known::Record(Some(record)), now, fx);
    }

    /// Forgets what a reservation came to: the next call about it asks the store.
    pub fn forget_reservation(&mut self, reservation: &ReservationId) {
        self.cache.forget(reservation);
    }

    /// Forgets what an event is like and what its seats are: an operator has changed it.
    pub fn forget(&mut self, event: &EventId, now: Micros) {
        self.events.pop(event);
        if let Some(pool) = self.lanes.selling(event) {
            pool.reopen(now);
        }
        self.snapshots.forget(event);
        self.reads.spoil(event);
        if let Some(desk) = self.desks.get_mut(event) {
            desk.forget_map();
        }
    }

    /// Reports the outcome of [`Effect::Transact`].
    pub fn transaction_settled(
        &mut self,
        lane: LaneId,
        outcome: Outcome,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.with_pool(lane.pool, now, fx, |pool, turn| {
            pool.settled(lane.lane, outcome, turn);
        });
    }

    /// Lets a pool of lanes do something, and carries out what it wants.
    fn with_pool(
        &mut self,
        id: PoolId,
        now: Now,
        fx: &mut Vec<Effect>,
        act: impl FnOnce(&mut Pool, &mut Turn<'_>),
    ) {
        let Some(pool) = self.lanes.get_mut(id) else {
            return;
        };
        let mut out = std::mem::take(&mut self.scratch);
        let mut turn = Turn {
            now,
            rng: &mut self.rng,
            counters: &mut self.counters,
            out: &mut out,
        };
        act(pool, &mut turn);
        self.collect(id, out, now, fx);
    }

    /// Reports the result of [`Effect::ReadEvent`].
    pub fn event_read(
        &mut self,
        event: &EventId,
        read: &EventRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.counters.event_reads += 1;
        if let EventRead::Found(stripes) = read {
            self.events.put(event.clone(), EventShape::of(stripes));
        }
        let hint = self.events.get(event).map(|shape| shape.stripes);
        let Some(done) = self.reads.done(event, hint, now.mono, fx) else {
            return;
        };
        self.keep_snapshot(event, &done, read, now);
        let Done { began, waiters, .. } = done;
        for waiter in waiters {
            match waiter {
                Waiter::Ask {
                    call,
                    question,
                    asked,
                } if asked > began => {
                    self.answer_who_joined(call, event, question, asked, read, now, fx);
                }
                Waiter::Ask { call, question, .. } => {
                    self.answer_from_read(call, event, question, read, now, fx);
                }
                Waiter::Nobody => {}
                Waiter::Route(routed) => {
                    let (operation, known) = *routed;
                    match refusal_of(read) {
                        None => self.advance(operation, None, known, now, fx),
                        Some(refusal) => {
                            let refusal = Answer::Refused(refusal);
                            self.end(&operation, refusal, None, now, fx);
                        }
                    }
                }
                Waiter::Pool(id) => {
                    self.with_pool(id, now, fx, |pool, turn| {
                        pool.stripes_read(began, read, turn);
                    });
                }
            }
        }
    }

    /// Reports what the other shard answered to [`Effect::Forward`].
    pub fn forward_settled(
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
            && !matches!(answer, Answer::Refused(_))
        {
            self.stock_moved(event, &moved_by(record), None, now.mono);
        }
        self.settle(event, reservation, answer, learned, now, fx);
    }

    /// Does what is due by now.
    pub fn wake(&mut self, now: Now, fx: &mut Vec<Effect>) {
        for id in self.lanes.take_due(now.mono) {
            self.with_pool(id, now, fx, |pool, turn| pool.wake(turn));
        }
    }

    /// Joins the call in flight for the same reservation, or becomes it.
    fn enter(
        &mut self,
        call: CallId,
        operation: Operation,
        route: Option<Route>,
        known: Known,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if operation.deadline <= now.mono {
            self.counters.expired += 1;
            refuse(call, Refusal::DeadlineExceeded, fx);
            return;
        }
        match self.pending.enter(call, operation, route, now.mono) {
            Joined::First(operation) => {
                self.expiring += usize::from(operation.verb == Verb::Expire);
                self.advance(operation, route, known, now, fx);
            }
            Joined::Behind => self.counters.joined += 1,
            Joined::Full => {
                self.counters.shed += 1;
                refuse(call, Refusal::overloaded(), fx);
            }
        }
    }

    /// Carries out what a pool of lanes wants.
    fn collect(&mut self, pool: PoolId, mut out: LaneOutput, now: Now, fx: &mut Vec<Effect>) {
        for (lane, transaction) in out.send.drain(..) {
            let lane = LaneId { pool, lane };
            fx.push(Effect::Transact { lane, transaction });
        }
        let read = std::mem::take(&mut out.read_stripes);
        let learned = out.learned_shape.take();
        let as_of = out.as_of;
        let mut settled = std::mem::take(&mut out.settled);
        let returned = std::mem::take(&mut out.returned);
        let nothing_more = !read
            && learned.is_none()
            && settled.is_empty()
            && returned.is_empty()
            && out.stock.is_empty();
        let event = match self.lanes.get_mut(pool) {
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
                let waiter = Waiter::Pool(pool);
                let _ = self.reads.want(event, hint, waiter, now.mono, fx);
            }
        }
        out.stock.clear();
        self.lanes.after(pool);
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
                    self.end_slip(event, one, now, fx);
                    continue;
                }
                self.settle(event, &one.reservation, one.answer, one.learned, now, fx);
            }
            for one in returned {
                self.returned(event, one, as_of, now, fx);
            }
        }
        // Give the buffer back unless answering took and filled another one.
        if self.scratch.settled.capacity() < settled.capacity() {
            self.scratch.settled = settled;
        }
    }

    /// A slip is past its time from the beginning; what it holds goes back to the stripe.
    fn end_slip(&mut self, event: &EventId, slip: Settled, now: Now, fx: &mut Vec<Effect>) {
        let Settled {
            reservation,
            learned: Some(record),
            ..
        } = slip
        else {
            return;
        };
        if record.state != ReservationState::Held {
            self.settle(event, &reservation, slip.answer, Some(record), now, fx);
            return;
        }
        let patience = Micros(limits::RECLAIM_PATIENCE.as_micros() as u64);
        let deadline = now.mono.plus(patience);
        self.reclaim(
            CallId::NOBODY,
            event.clone(),
            reservation,
            record,
            deadline,
            now,
            fx,
        );
    }

    /// Answers everybody who waits for this outcome, and lets the next in line go.
    fn settle(
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
        self.unclaim(event, reservation, now, fx);
        let Some(pending) = self.pending.leave(reservation, event) else {
            return;
        };
        self.expiring -= usize::from(pending.verb == Verb::Expire);
        fx.push(Effect::Answer {
            call: pending.leader,
            answer: answer.clone(),
            learned: learned.clone(),
        });
        for follower in pending.followers {
            let Follower {
                call,
                operation,
                route,
                joined,
            } = follower;
            let same =
                operation.verb == pending.verb && operation.fingerprint == pending.fingerprint;
            if same && holds_for(&answer, joined, pending.since) {
                fx.push(Effect::Answer {
                    call,
                    answer: answer.clone(),
                    learned: learned.clone(),
                });
            } else if let Some(answer) = self.replay(&operation, now.mono) {
                let learned = self.cache.get(reservation, now.mono);
                fx.push(Effect::Answer {
                    call,
                    answer,
                    learned,
                });
            } else {
                self.enter(call, operation, route, Known::Nothing, now, fx);
            }
        }
        for buyer in &pending.watchers {
            let reservation = &buyer.operation.reservation;
            self.pending.is_watching(reservation, event, false);
        }
        self.let_go(pending.watchers, now, fx);
    }
}

/// Whether what the leader was told is also true for an equal call that joined it at `joined`.
///
/// A deadline is each call's own, and so is that a line is too long for it. That there is too little, or no such event, was read after the
/// leader set out; who came later has a right to a later read. So with states of the record that
/// another node may have moved on before the call came.
fn holds_for(answer: &Answer, joined: Micros, since: Micros) -> bool {
    match answer {
        Answer::Refused(Refusal::DeadlineExceeded | Refusal::Overloaded { .. }) => false,
        Answer::Held { .. }
        | Answer::Refused(
            Refusal::InsufficientInventory { .. }
            | Refusal::EventNotFound
            | Refusal::EventClosed
            | Refusal::SeatsUnavailable { .. }
            | Refusal::SeatsNotFound { .. }
            | Refusal::HoldExpired
            | Refusal::ReservationNotFound
            | Refusal::ReservationNotConfirmed,
        ) => joined <= since,
        _ => true,
    }
}

fn refuse(call: CallId, refusal: Refusal, fx: &mut Vec<Effect>) {
    fx.push(Effect::Answer {
        call,
        answer: Answer::Refused(refusal),
        learned: None,
    });
}

/// Why a read that was needed to go on is no use.
fn refusal_of(read: &EventRead) -> Option<Refusal> {
    match read {
        EventRead::Found(_) => None,
        EventRead::NotFound => Some(Refusal::EventNotFound),
        EventRead::Throttled => Some(Refusal::store_busy()),
        EventRead::Unavailable => Some(Refusal::store_unavailable()),
    }
}
