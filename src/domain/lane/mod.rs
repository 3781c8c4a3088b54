//! The group commit: one stock stripe's queue, and at most ONE transaction in flight for it.
//!
//! An idle lane dispatches at once. A busy lane accumulates, and sends what has gathered when the
//! transaction in flight settles. There is no timer and no linger: the batch size follows the load.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the lane's state, submitting, dispatching, waking |
//! | `batch.rs` | members → one transaction within the store's limits |
//! | `settle.rs` | the store's answer → answers, retries, splits |
//! | `overflow.rs` | a short stripe: strong read of all stripes, draw on others, or sold out |
//!
//! Must not live here: which shard owns a stripe, joining of equal calls (both `coordinator`).

mod batch;
mod overflow;
mod settle;

use std::collections::VecDeque;
use std::rc::Rc;

use rand::Rng;

use super::answer::{Answer, Refusal};
use super::counters::Counters;
use super::ids::{ReservationId, StripeId};
use super::operation::{Operation, Verb};
use super::rules;
use super::time::{Micros, Now};
use super::transaction::{Draw, Draws, Due, RecordView, RecordWrite, ReservationState, Token, Transaction};
use crate::limits;

/// One operation in a lane.
#[derive(Clone, Debug)]
struct Member {
    head: Head,
    record: RecordWrite,
}

/// The part of a member that the transaction does not carry.
#[derive(Clone, Copy, Debug)]
struct Head {
    verb: Verb,
    arrived: Micros,
    deadline: Micros,
    /// What a read of all stripes showed, where that is too little. Whether the member is refused
    /// for it is left to one more write: see [`overflow`].
    too_few: Option<u64>,
}

/// A dispatched transaction. Its members' records live in it and come back out of it.
#[derive(Debug)]
struct Flight {
    heads: Vec<Head>,
    transaction: Rc<Transaction>,
    /// Set while the outcome of the last try is unknown: when to send the same body again.
    resend_at: Option<Micros>,
    /// Once unknown, a refusal of a repeat proves nothing about the first try.
    was_unknown: bool,
}

/// An operation that left the lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    pub reservation: ReservationId,
    pub answer: Answer,
    /// What the store holds for this reservation, when that is known.
    pub learned: Option<RecordView>,
}

/// What a lane wants, collected by the coordinator after each call into it.
#[derive(Debug, Default)]
pub struct LaneOutput {
    pub settled: Vec<Settled>,
    pub send: Option<Rc<Transaction>>,
    /// A strong read of all stripes, begun from now on.
    pub read_stripes: bool,
    /// The event's stripe count, when the store has just said it.
    pub learned_stripes: Option<u16>,
}

impl LaneOutput {
    fn refuse(&mut self, member: Member, refusal: Refusal) {
        self.settled.push(Settled {
            reservation: member.record.reservation,
            answer: Answer::Refused(refusal),
            learned: None,
        });
    }

    fn written(&mut self, record: RecordWrite, at: super::time::UnixMillis) {
        let answer = rules::answer_written(&record, at);
        let learned = Some(record.view(at));
        self.settled.push(Settled {
            reservation: record.reservation,
            answer,
            learned,
        });
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Lane {
    stripe: StripeId,
    /// Stripes of the event, as last seen.
    stripes: u16,
    queue: VecDeque<Member>,
    /// Batches whose members must go together and before the queue: halves of a refused body, or
    /// the members that a short stripe has room for.
    groups: Vec<Vec<Member>>,
    /// Members this stripe is too short for, waiting for a read of all stripes.
    short: Vec<Member>,
    reading: bool,
    flight: Option<Flight>,
    /// Tries in a row that were put off.
    attempts: u32,
    pause_until: Option<Micros>,
    /// A full lane looks for callers that have gone from here on.
    sweep_due: Micros,
}

impl Lane {
    pub fn new(stripe: StripeId, stripes: u16) -> Self {
        Self {
            stripe,
            stripes,
            queue: VecDeque::new(),
            groups: Vec::new(),
            short: Vec::new(),
            reading: false,
            flight: None,
            attempts: 0,
            pause_until: None,
            sweep_due: Micros(0),
        }
    }

    pub fn stripe(&self) -> &StripeId {
        &self.stripe
    }

    /// Nothing queued, in flight or waited for: the lane can be dropped.
    pub fn is_idle(&self) -> bool {
        self.flight.is_none()
            && self.queue.is_empty()
            && self.groups.is_empty()
            && self.short.is_empty()
            && !self.reading
    }

    /// Operations in the lane that have not been answered.
    pub fn depth(&self) -> usize {
        self.waiting() + self.flight.as_ref().map_or(0, |f| f.heads.len())
    }

    /// Operations that wait for a transaction, which the bound on the queue is for.
    fn waiting(&self) -> usize {
        let grouped: usize = self.groups.iter().map(Vec::len).sum();
        self.queue.len() + grouped + self.short.len()
    }

    /// When [`Lane::wake`] is next due.
    pub fn wake_at(&self) -> Option<Micros> {
        match &self.flight {
            Some(flight) => flight.resend_at,
            None => self.pause_until,
        }
    }

    /// Takes an operation on; dispatches at once if the lane is free.
    ///
    /// The same reservation must not be submitted again before it has settled.
    pub fn submit(
        &mut self,
        operation: Operation,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        let member = Member::new(operation, &self.stripe, now.mono);
        if self.waiting() >= limits::LANE_QUEUE_MAX && self.sweep_due <= now.mono {
            self.drop_expired(now.mono, counters, out);
        }
        if self.waiting() >= limits::LANE_QUEUE_MAX {
            counters.shed += 1;
            out.refuse(member, Refusal::overloaded());
            return;
        }
        self.queue.push_back(member);
        self.dispatch(now, rng, counters, out);
    }

    /// Does what is due: sends an unresolved transaction again, or ends a pause.
    pub fn wake(
        &mut self,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        match &mut self.flight {
            Some(flight) => {
                if flight.resend_at.is_some_and(|at| at <= now.mono) {
                    flight.resend_at = None;
                    counters.resends += 1;
                    out.send = Some(Rc::clone(&flight.transaction));
                    self.drop_expired(now.mono, counters, out);
                }
            }
            None => self.dispatch(now, rng, counters, out),
        }
    }

    /// Sends the next batch unless one is in flight or the lane pauses.
    fn dispatch(
        &mut self,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        if self.flight.is_some() || self.pause_until.is_some_and(|until| until > now.mono) {
            return;
        }
        self.pause_until = None;
        let batch = loop {
            let mut batch = match self.groups.pop() {
                Some(group) => batch::Batch::of_group(group),
                None => batch::Batch::from_queue(&mut self.queue, now.mono),
            };
            batch.drop_expired(now.mono);
            for gone in batch.expired.drain(..) {
                counters.expired += 1;
                out.refuse(gone, self.why_late());
            }
            if !batch.members.is_empty() {
                break batch;
            }
            if self.groups.is_empty() && self.queue.is_empty() {
                return;
            }
        };
        counters.transactions += 1;
        counters.members += batch.members.len() as u64;
        counters.members_max = counters.members_max.max(batch.members.len() as u64);
        let (heads, transaction) =
            batch.into_transaction(&self.stripe.event, Token(rng.random()), now.unix);
        let transaction = Rc::new(transaction);
        out.send = Some(Rc::clone(&transaction));
        self.flight = Some(Flight {
            heads,
            transaction,
            resend_at: None,
            was_unknown: false,
        });
    }

    /// Frees the room of callers that have gone, be it in the queue or waiting for a read.
    fn drop_expired(&mut self, now: Micros, counters: &mut Counters, out: &mut LaneOutput) {
        let late = self.why_late();
        self.sweep_due = now.plus(Micros(limits::LANE_SWEEP_EVERY.as_micros() as u64));
        let mut kept = VecDeque::with_capacity(self.queue.len());
        let mut kept_short = Vec::with_capacity(self.short.len());
        let queued = self.queue.drain(..).map(|member| (member, false));
        let short = self.short.drain(..).map(|member| (member, true));
        for (member, is_short) in short.chain(queued) {
            if member.head.deadline <= now {
                counters.expired += 1;
                out.refuse(member, late.clone());
            } else if is_short {
                kept_short.push(member);
            } else {
                kept.push_back(member);
            }
        }
        self.queue = kept;
        self.short = kept_short;
    }

    /// A deadline that passed because the store kept putting the lane off is the store's doing.
    fn why_late(&self) -> Refusal {
        if self.attempts > 0 && self.flight.is_none() {
            Refusal::store_busy()
        } else {
            Refusal::DeadlineExceeded
        }
    }
}

impl Member {
    fn new(operation: Operation, home: &StripeId, arrived: Micros) -> Self {
        let state = match operation.verb {
            Verb::Commit => ReservationState::Confirmed,
            _ => ReservationState::Released,
        };
        let qty = match operation.wanted {
            crate::domain::operation::Wanted::Quantity(qty) => qty,
            _ => 0,
        };
        let takes = state == ReservationState::Confirmed;
        let draws = if takes { at_home(home, qty) } else { Draws::new() };
        let order = takes.then(|| super::ids::OrderId::of(&operation.reservation));
        Self {
            head: Head {
                verb: operation.verb,
                arrived,
                deadline: operation.deadline,
                too_few: None,
            },
            record: RecordWrite {
                reservation: operation.reservation,
                fingerprint: operation.fingerprint,
                from: None,
                due: Due::Any,
                to: state,
                qty,
                draws,
                seats: None,
                order,
                payment_intent: operation.payment_intent,
                expires_at: None,
            },
        }
    }
}

/// All units from the lane's own stripe.
fn at_home(home: &StripeId, units: u32) -> Draws {
    smallvec::smallvec![Draw {
        stripe: home.index,
        units,
    }]
}
