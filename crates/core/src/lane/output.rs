//! Context and output of a call into a pool of lanes.

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

/// What every call into a pool needs: the time, randomness, counters, and the output.
pub struct PoolContext<'a> {
    pub now: Now,
    /// Position of this shard among the shards of all members, from 0.
    pub writer: usize,
    pub rng: &'a mut SmallRng,
    pub counters: &'a mut Counters,
    pub out: &'a mut PoolOutput,
}

/// An operation that left its lane with an outcome.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    pub reservation: ReservationId,
    pub answer: Answer,
    /// What the store holds for the reservation, if that is known.
    pub record: Option<RecordView>,
    /// The record is the result of this shard's write.
    pub is_own_write: bool,
}

/// An operation that left its lane without an outcome, because its write was based on a wrong assumption.
#[derive(Debug, PartialEq, Eq)]
pub struct Redecision {
    pub operation: Operation,
    /// The state of the record that the write relied on.
    pub from: Option<ReservationState>,
    pub cause: RedecisionCause,
}

/// Why an operation is decided again.
#[derive(Debug, PartialEq, Eq)]
pub enum RedecisionCause {
    /// The record is this, or there is none.
    Record(Option<RecordView>),
    /// These seats are not free, or do not exist.
    Seats(Vec<(SeatId, Option<SeatState>)>),
    /// A read of all stripes showed this many units, which is too few. Whether the operation is rejected
    /// depends on a read of its record: see [`super::stripe_planner`].
    Shortage { remaining: u64 },
}

/// What a pool returns to the engine after each call.
#[derive(Debug, Default)]
pub struct PoolOutput {
    pub completions: Vec<Completion>,
    /// Transactions to send, each with its lane.
    pub send: Vec<(u16, Rc<Transaction>)>,
    /// Lanes whose transaction has an unknown outcome: send [`Pool::unresolved`] again.
    ///
    /// [`Pool::unresolved`]: super::Pool::unresolved
    pub unresolved: Vec<u16>,
    /// Start a strong read of all stripes.
    pub read_stripes: bool,
    /// The layout of the event, if the store has just returned it.
    pub(crate) layout_read: Option<EventLayout>,
    /// Operations to be decided again.
    pub redecisions: Vec<Redecision>,
    /// Results are not older than this instant. Other writers may have changed the items since.
    pub as_of: Micros,
    /// Writes to the event's stripes.
    pub stock: Vec<StripeUpdate>,
    /// Units of holds that were confirmed.
    pub confirmed: u64,
    /// When `stock` and `confirmed` were first sent. `None`: whether and when it was applied is unknown.
    pub(crate) stripe_updates_sent: Option<Micros>,
}

impl PoolOutput {
    pub(super) fn reject(&mut self, entry: BatchEntry, rejection: Rejection) {
        self.completions.push(Completion {
            reservation: entry.write.operation.reservation,
            answer: Answer::Rejected(rejection),
            record: None,
            is_own_write: false,
        });
    }

    pub(super) fn written(&mut self, record: RecordWrite, at: UnixMillis) {
        let answer = rules::answer_written(&record, at);
        let view = record.view(at);
        self.completions.push(Completion {
            reservation: record.operation.reservation,
            answer,
            record: Some(view),
            is_own_write: true,
        });
    }
}
