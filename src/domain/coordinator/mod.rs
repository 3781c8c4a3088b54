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
//! | `lanes.rs` | the lanes, their timers, which shard owns which stripe |

mod lanes;
mod pending;
#[cfg(test)]
mod tests;

use lru::LruCache;
use rand::rngs::SmallRng;

use self::lanes::Lanes;
use self::pending::{Follower, Joined, Pendings};
use super::answer::{Answer, Refusal};
use super::cache::SettledCache;
use super::counters::Counters;
use super::effect::{Availability, CallId, Effect, LaneId, Route};
use super::ids::{EventId, ReservationId};
use super::lane::LaneOutput;
use super::operation::Operation;
use super::reads::{Reads, Waiter};
use super::rules;
use super::time::{Micros, Now};
use super::transaction::{EventRead, Outcome, RecordView};
use crate::limits;

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
}

/// See the module's head.
pub struct Coordinator {
    settings: Settings,
    cache: SettledCache,
    pending: Pendings,
    lanes: Lanes,
    reads: Reads,
    /// Stripe counts of events seen, a hint: a lane whose stripe is short looks again.
    events: LruCache<EventId, u16, foldhash::fast::RandomState>,
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
            lanes: Lanes::new(settings.shard, settings.shards),
            reads: Reads::default(),
            events: LruCache::with_hasher(known, hasher),
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
        self.pending.is_empty() && self.lanes.all_idle() && self.reads.is_empty()
    }

    /// Operations in lanes that have not settled, whether or not their callers still wait.
    pub fn in_lanes(&self) -> usize {
        self.lanes.depth()
    }

    /// When [`Coordinator::wake`] is next due.
    pub fn wake_at(&self) -> Option<Micros> {
        self.lanes.wake_at()
    }

    /// The answer, if the reservation has settled and is remembered. Costs no [`CallId`].
    pub fn replay(&mut self, operation: &Operation, now: Micros) -> Option<Answer> {
        let Some(record) = self.cache.get(&operation.reservation, now) else {
            self.counters.cache_misses += 1;
            return None;
        };
        self.counters.cache_hits += 1;
        match rules::decide(operation, Some(&record), crate::domain::time::UnixMillis(0), Default::default()) {
            rules::Decision::Answer(answer) => Some(answer),
            rules::Decision::Write(_) => None,
        }
    }

    /// Takes a call that arrived at this shard and that [`Coordinator::replay`] has no answer for.
    pub fn submit(&mut self, call: CallId, operation: Operation, now: Now, fx: &mut Vec<Effect>) {
        self.enter(call, operation, None, now, fx);
    }

    /// Takes a call that another shard routed to a stripe owned here.
    pub fn submit_forwarded(
        &mut self,
        call: CallId,
        operation: Operation,
        route: Route,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(record) = self.cache.get(&operation.reservation, now.mono) {
            let rules::Decision::Answer(answer) = rules::decide(&operation, Some(&record), now.unix, Default::default()) else { return };
            let learned = Some(record);
            fx.push(Effect::Answer {
                call,
                answer,
                learned,
            });
            return;
        }
        self.enter(call, operation, Some(route), now, fx);
    }

    /// Asks whether `qty` units could be sold now.
    pub fn check(
        &mut self,
        call: CallId,
        event: EventId,
        qty: u32,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let hint = self.events.get(&event).copied();
        let waiter = Waiter::Check { call, qty };
        if self.reads.want(&event, hint, waiter, now.mono, fx).is_err() {
            self.counters.shed += 1;
            let result = Err(Refusal::overloaded());
            fx.push(Effect::Checked { call, result });
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
        let Some(at) = self.lanes.get_mut(lane) else {
            return;
        };
        let mut out = std::mem::take(&mut self.scratch);
        at.settled(outcome, now, &mut self.rng, &mut self.counters, &mut out);
        self.collect(lane, out, now, fx);
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
            self.events.put(event.clone(), stripes.len() as u16);
        }
        let hint = self.events.get(event).copied();
        let Some((began, waiters)) = self.reads.done(event, hint, now.mono, fx) else {
            return;
        };
        for waiter in waiters {
            match waiter {
                Waiter::Check { call, qty } => fx.push(Effect::Checked {
                    call,
                    result: availability(read, qty),
                }),
                Waiter::Route(operation) => match refusal_of(read) {
                    None => self.route(operation, None, now, fx),
                    Some(refusal) => {
                        let reservation = operation.reservation;
                        let answer = Answer::Refused(refusal);
                        self.settle(event, &reservation, answer, None, now, fx);
                    }
                },
                Waiter::Lane(lane) => {
                    if let Some(at) = self.lanes.get_mut(lane) {
                        let mut out = std::mem::take(&mut self.scratch);
                        at.stripes_read(
                            began,
                            read,
                            now,
                            &mut self.rng,
                            &mut self.counters,
                            &mut out,
                        );
                        self.collect(lane, out, now, fx);
                    }
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
        self.settle(event, reservation, answer, learned, now, fx);
    }

    /// Does what is due by now.
    pub fn wake(&mut self, now: Now, fx: &mut Vec<Effect>) {
        for lane in self.lanes.take_due(now.mono) {
            if let Some(at) = self.lanes.get_mut(lane) {
                let mut out = std::mem::take(&mut self.scratch);
                at.wake(now, &mut self.rng, &mut self.counters, &mut out);
                self.collect(lane, out, now, fx);
            }
        }
    }

    /// Joins the call in flight for the same reservation, or becomes it.
    fn enter(
        &mut self,
        call: CallId,
        operation: Operation,
        route: Option<Route>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if operation.deadline <= now.mono {
            self.counters.expired += 1;
            refuse(call, Refusal::DeadlineExceeded, fx);
            return;
        }
        match self.pending.enter(call, operation, route, now.mono) {
            Joined::First(operation) => self.route(operation, route, now, fx),
            Joined::Behind => self.counters.joined += 1,
            Joined::Full => {
                self.counters.shed += 1;
                refuse(call, Refusal::overloaded(), fx);
            }
        }
    }

    /// Brings an operation to its lane.
    fn route(
        &mut self,
        operation: Operation,
        route: Option<Route>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let known = route
            .map(|r| r.stripes)
            .or_else(|| self.events.get(&operation.event).copied());
        let Some(stripes) = known else {
            let event = operation.event.clone();
            let waiter = Waiter::Route(operation);
            if let Err(waiter) = self.reads.want(&event, None, waiter, now.mono, fx) {
                self.counters.shed += 1;
                if let Waiter::Route(Operation { reservation, .. }) = waiter {
                    let answer = Answer::Refused(Refusal::overloaded());
                    self.settle(&event, &reservation, answer, None, now, fx);
                }
            }
            return;
        };
        let (shard, stripe) = match route {
            Some(route) => (self.settings.shard, route.stripe),
            None => self.lanes.choose(&operation, stripes),
        };
        if shard != self.settings.shard {
            self.counters.forwarded += 1;
            fx.push(Effect::Forward {
                shard,
                route: Route { stripe, stripes },
                operation,
            });
            return;
        }
        let Some((lane, at)) = self.lanes.open(&operation.event, stripe, stripes) else {
            self.counters.shed += 1;
            let answer = Answer::Refused(Refusal::overloaded());
            let (event, reservation) = (operation.event, operation.reservation);
            self.settle(&event, &reservation, answer, None, now, fx);
            return;
        };
        let mut out = std::mem::take(&mut self.scratch);
        at.submit(operation, now, &mut self.rng, &mut self.counters, &mut out);
        self.collect(lane, out, now, fx);
    }

    /// Carries out what a lane wants.
    fn collect(&mut self, lane: LaneId, mut out: LaneOutput, now: Now, fx: &mut Vec<Effect>) {
        if let Some(transaction) = out.send.take() {
            fx.push(Effect::Transact { lane, transaction });
        }
        let read = std::mem::take(&mut out.read_stripes);
        let learned = out.learned_stripes.take();
        let mut settled = std::mem::take(&mut out.settled);
        let nothing_more = !read && learned.is_none() && settled.is_empty();
        let event = match self.lanes.get_mut(lane) {
            Some(at) if !nothing_more => Some(at.stripe().event.clone()),
            _ => None,
        };
        if let Some(event) = &event {
            if let Some(stripes) = learned {
                self.events.put(event.clone(), stripes);
            }
            if read {
                let hint = self.events.get(event).copied();
                // Cannot be refused: a lane's wish is always taken.
                let waiter = Waiter::Lane(lane);
                let _ = self.reads.want(event, hint, waiter, now.mono, fx);
            }
        }
        self.lanes.after(lane);
        self.scratch = out;
        if let Some(event) = &event {
            for one in settled.drain(..) {
                self.settle(event, &one.reservation, one.answer, one.learned, now, fx);
            }
        }
        // Give the buffer back unless answering took and filled another one.
        if self.scratch.settled.capacity() < settled.capacity() {
            self.scratch.settled = settled;
        }
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
        let Some(pending) = self.pending.leave(reservation, event) else {
            return;
        };
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
                self.enter(call, operation, route, now, fx);
            }
        }
    }
}

/// Whether what the leader was told is also true for an equal call that joined it at `joined`.
///
/// A deadline is each call's own. That there is too little, or no such event, was read after the
/// leader set out; who came later has a right to a later read.
fn holds_for(answer: &Answer, joined: Micros, since: Micros) -> bool {
    match answer {
        Answer::Refused(Refusal::DeadlineExceeded) => false,
        Answer::Refused(Refusal::InsufficientInventory { .. } | Refusal::EventNotFound) => {
            joined <= since
        }
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

fn availability(read: &EventRead, qty: u32) -> Result<Availability, Refusal> {
    match read {
        EventRead::Found(stripes) => {
            let remaining = stripes.iter().map(|s| s.remaining).sum();
            Ok(Availability {
                remaining,
                available: remaining >= u64::from(qty),
            })
        }
        other => Err(refusal_of(other).unwrap_or(Refusal::Internal)),
    }
}
