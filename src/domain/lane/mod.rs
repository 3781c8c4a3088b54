//! The group commit: one stock stripe's queue, and at most ONE transaction in flight for it.
//!
//! An idle lane dispatches at once. A busy lane accumulates, and sends what has gathered when the
//! transaction in flight settles. There is no timer and no linger: the batch size follows the load.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the lane's state, submitting, dispatching, waking |
//! | `member.rs` | one operation in it, and the write it became |
//! | `batch.rs` | members → one transaction within the store's limits |
//! | `settle.rs` | the store's answer → answers, retries, splits |
//! | `rooms.rs` | what short stripes have left, and who fits |
//! | `overflow.rs` | a short stripe: strong read of all stripes, draw on others, or sold out |
//!
//! A lane is either a stripe's, which all units of that stripe go through, or a loose one, whose
//! writes touch nothing that others share: commits of holds, tombstones, seats.
//!
//! Must not live here: which shard owns a stripe, joining of equal calls, who may have which seat
//! (all `coordinator`).

mod batch;
mod member;
mod overflow;
mod rooms;
mod settle;

use std::collections::VecDeque;
use std::rc::Rc;

use rand::Rng;

pub use self::member::Plan;
use self::member::{Head, Member};
use super::answer::{Answer, Refusal};
use super::counters::Counters;
use super::ids::{EventId, ReservationId, SeatId};
use super::operation::Operation;
use super::rules::{self, LateCommit};
use super::seats::SeatState;
use super::time::{Micros, Now, UnixMillis};
use super::transaction::{
    Draw, Draws, EventShape, RecordView, RecordWrite, ReservationState, StripeUpdate, Token,
    Transaction,
};
use crate::limits;

/// What a lane writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Track {
    /// The units of this stripe, one transaction at a time.
    Stripe(u16),
    /// What has no stripe. Several of them work side by side.
    Loose(u16),
    /// Holds past their time, when there are many: what they had goes to one slip per transaction,
    /// and this stripe sees only the slip. See [`batch`].
    Bundle { stripe: u16, lane: u16 },
}

/// Which lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    pub event: EventId,
    pub track: Track,
}

/// A dispatched transaction. Its members' records live in it and come back out of it.
#[derive(Debug)]
struct Flight {
    heads: Vec<Head>,
    transaction: Rc<Transaction>,
    /// When it was first sent.
    sent: Micros,
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
    /// It holds that because of this very write.
    pub wrote: bool,
}

/// An operation that left the lane without an outcome: what its write relied on is not so.
#[derive(Debug, PartialEq, Eq)]
pub struct Returned {
    pub operation: Operation,
    /// The state of the record that its write was for.
    pub from: Option<ReservationState>,
    pub because: Because,
}

/// See [`Returned`].
#[derive(Debug, PartialEq, Eq)]
pub enum Because {
    /// Its record is this, or there is none.
    Record(Option<RecordView>),
    /// These seats are not free, or not there at all.
    Seats(Vec<(SeatId, Option<SeatState>)>),
}

/// What a lane wants, collected by the coordinator after each call into it.
#[derive(Debug, Default)]
pub struct LaneOutput {
    pub settled: Vec<Settled>,
    pub send: Option<Rc<Transaction>>,
    /// A strong read of all stripes, begun from now on.
    pub read_stripes: bool,
    /// What the event is like, when the store has just said it.
    pub learned_shape: Option<EventShape>,
    /// To be decided anew.
    pub returned: Vec<Returned>,
    /// What was written, or met, was so at this instant or later. Others may have changed it since.
    pub as_of: Micros,
    /// What was written to the event's stripes.
    pub stock: Vec<StripeUpdate>,
    /// When that was first sent; `None`: it may not have been written, or long ago.
    pub stock_sent: Option<Micros>,
}

impl LaneOutput {
    fn refuse(&mut self, member: Member, refusal: Refusal) {
        self.settled.push(Settled {
            reservation: member.write.reservation,
            answer: Answer::Refused(refusal),
            learned: None,
            wrote: false,
        });
    }

    fn written(&mut self, record: RecordWrite, at: UnixMillis) {
        let answer = rules::answer_written(&record, at);
        let learned = Some(record.view(at));
        self.settled.push(Settled {
            reservation: record.reservation,
            answer,
            learned,
            wrote: true,
        });
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Lane {
    key: LaneKey,
    /// Of the event, as last seen.
    shape: EventShape,
    late: LateCommit,
    queue: VecDeque<Member>,
    /// Members that nobody waits for. They take what room the queue leaves in a batch, and at least
    /// a quarter of it.
    quiet: VecDeque<Member>,
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
    pub fn new(key: LaneKey, shape: EventShape, late: LateCommit) -> Self {
        Self {
            key,
            shape,
            late,
            queue: VecDeque::new(),
            quiet: VecDeque::new(),
            groups: Vec::new(),
            short: Vec::new(),
            reading: false,
            flight: None,
            attempts: 0,
            pause_until: None,
            sweep_due: Micros(0),
        }
    }

    pub fn key(&self) -> &LaneKey {
        &self.key
    }

    /// Nothing queued, in flight or waited for: the lane can be dropped.
    pub fn is_idle(&self) -> bool {
        self.flight.is_none()
            && self.queue.is_empty()
            && self.quiet.is_empty()
            && self.groups.is_empty()
            && self.short.is_empty()
            && !self.reading
    }

    /// Operations in the lane that have not been answered.
    pub fn depth(&self) -> usize {
        let quiet = self.quiet.len();
        self.waiting() + quiet + self.flight.as_ref().map_or(0, |f| f.heads.len())
    }

    /// Callers that wait for a transaction, which the bound on the queue is for.
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
    /// The same reservation must not be submitted again before it has settled, nor one with a seat
    /// of it.
    pub fn submit(
        &mut self,
        operation: Operation,
        plan: Plan,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        let member = Member::new(operation, plan, now.mono);
        if member.is_quiet() {
            if self.quiet.len() >= limits::LANE_QUIET_MAX {
                out.refuse(member, Refusal::overloaded());
            } else {
                self.quiet.push_back(member);
                self.dispatch(now, rng, counters, out);
            }
            return;
        }
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
                None => {
                    let room = self.room();
                    batch::Batch::from_queues(&mut self.queue, &mut self.quiet, room, now.mono)
                }
            };
            batch.drop_expired(now.mono);
            for gone in batch.expired.drain(..) {
                counters.expired += 1;
                out.refuse(gone, self.why_late());
            }
            if !batch.members.is_empty() {
                break batch;
            }
            if self.groups.is_empty() && self.queue.is_empty() && self.quiet.is_empty() {
                return;
            }
        };
        counters.transactions += 1;
        counters.members += batch.members.len() as u64;
        counters.members_max = counters.members_max.max(batch.members.len() as u64);
        let token = Token(rng.random());
        let (heads, mut transaction) =
            batch.into_transaction(&self.key.event, self.shape, token, now.unix);
        if matches!(self.key.track, Track::Bundle { .. }) {
            batch::bundle(&mut transaction);
        }
        let transaction = Rc::new(transaction);
        out.send = Some(Rc::clone(&transaction));
        self.flight = Some(Flight {
            heads,
            transaction,
            sent: now.mono,
            resend_at: None,
            was_unknown: false,
        });
    }

    /// Actions of one transaction that are for members.
    fn room(&self) -> usize {
        match self.key.track {
            Track::Bundle { .. } => limits::TRANSACTION_ACTIONS_MAX - 1,
            Track::Stripe(_) | Track::Loose(_) => limits::TRANSACTION_ACTIONS_MAX,
        }
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

/// All units from one stripe.
pub fn drawn_from(stripe: u16, units: u32) -> Draws {
    smallvec::smallvec![Draw { stripe, units }]
}
