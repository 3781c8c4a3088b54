//! What a call into a pool of lanes brings along, and what comes out of it.

use std::rc::Rc;

use rand::rngs::SmallRng;

use super::batch_entry::BatchEntry;
use crate::answer::{Answer, Rejection};
use crate::counters::Counters;
use crate::ids::{ReservationId, SeatId};
use crate::operation::Operation;
use crate::rules;
use crate::seats::SeatState;
use crate::time::{Micros, Now, UnixMillis};
use crate::transaction::{
    EventLayout, RecordView, RecordWrite, ReservationState, StripeUpdate, Transaction,
};

/// What every call into a pool brings along: the time, randomness, and where its wishes go.
pub struct PoolContext<'a> {
    pub now: Now,
    pub rng: &'a mut SmallRng,
    pub counters: &'a mut Counters,
    pub out: &'a mut PoolOutput,
}

/// An operation that left its lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    pub reservation: ReservationId,
    pub answer: Answer,
    /// What the store holds for this reservation, when that is known.
    pub record: Option<RecordView>,
    /// It holds that cause of this very write.
    pub wrote: bool,
}

/// An operation that left its lane without an outcome: what its write relied on is not so.
#[derive(Debug, PartialEq, Eq)]
pub struct Redecision {
    pub operation: Operation,
    /// The state of the record that its write was for.
    pub from: Option<ReservationState>,
    pub cause: RedecisionCause,
}

/// See [`Redecision`].
#[derive(Debug, PartialEq, Eq)]
pub enum RedecisionCause {
    /// Its record is this, or there is none.
    Record(Option<RecordView>),
    /// These seats are not free, or not there at all.
    Seats(Vec<(SeatId, Option<SeatState>)>),
    /// A read of all stripes showed only so much, which is too little. Whether it is refused for that
    /// is left to a look at its record: see [`super::stripe_planner`].
    Shortage { remaining: u64 },
}

/// What a pool wants, collected by the engine after each call into it.
#[derive(Debug, Default)]
pub struct PoolOutput {
    pub completions: Vec<Completion>,
    /// Transactions, each of one lane.
    pub send: Vec<(u16, Rc<Transaction>)>,
    /// A strong read of all stripes, begun from now on.
    pub read_stripes: bool,
    /// What the event is like, when the store has just said it.
    pub learned_shape: Option<EventLayout>,
    /// To be decided anew.
    pub redecisions: Vec<Redecision>,
    /// What was written, or met, was so at this instant or later. Others may have changed it since.
    pub as_of: Micros,
    /// What was written to the event's stripes.
    pub stock: Vec<StripeUpdate>,
    /// When that was first sent; `None`: it may not have been written, or long ago.
    pub stock_sent: Option<Micros>,
}

impl PoolOutput {
    pub(super) fn reject(&mut self, entry: BatchEntry, rejection: Rejection) {
        self.completions.push(Completion {
            reservation: entry.write.reservation,
            answer: Answer::Rejected(rejection),
            record: None,
            wrote: false,
        });
    }

    pub(super) fn written(&mut self, record: RecordWrite, at: UnixMillis) {
        let answer = rules::answer_written(&record, at);
        let view = record.view(at);
        self.completions.push(Completion {
            reservation: record.reservation,
            answer,
            record: Some(view),
            wrote: true,
        });
    }
}
