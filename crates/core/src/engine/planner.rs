//! The planner: the next step of an operation, from its event's layout and what is known of its record.
//!
//! Pure functions. `steps.rs` reads, writes and answers; [`crate::rules`] has the meaning of each verb in each state.

use crate::answer::Answer;
use crate::effect::RecordHint;
use crate::fault::{self, Fault};
use crate::ids::Seats;
use crate::limits;
use crate::operation::{Operation, Selection};
use crate::rules::{self, Decision, LateCommit, StockChange, Transition};
use crate::time::UnixMillis;
use crate::transaction::{EventLayout, RecordView, ReservationState};

/// The next step of an operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// What is known is not reliable enough to answer: read the record first.
    ReadRecord,
    Answer(Answer),
    /// Write a transition that moves seats, or a tombstone in a seated event.
    WriteSeats(Transition),
    /// Write a transition that moves units, or no stock at all.
    WriteUnits(Transition),
}

/// The next step of an operation on the shard that executes it.
pub(super) fn next_step(
    operation: &Operation,
    layout: EventLayout,
    hint: &RecordHint,
    now: UnixMillis,
    late: LateCommit,
) -> NextStep {
    let record = hint.record();
    match rules::decide(operation, record, now, late) {
        // Another node may have changed the record since. A write is checked by its condition; an answer needs
        // a read of the record.
        Decision::Answer(_)
            if !hint.is_confirmed()
                && !record.is_some_and(is_final)
                && !fault::planted(Fault::HoldFromCache) =>
        {
            NextStep::ReadRecord
        }
        // Nothing is reserved in a closed event, so no condition would check the record: read it.
        Decision::Write(transition)
            if !hint.is_confirmed()
                && layout.closed
                && transition.stock_change() == StockChange::Reserve
                && !fault::planted(Fault::ClosedBeforeRecord) =>
        {
            NextStep::ReadRecord
        }
        Decision::Answer(answer) => NextStep::Answer(answer),
        Decision::Write(transition) => {
            let by_seat = is_by_seat(operation, layout);
            let has_seats = record.map_or(by_seat, |record| {
                record.seats.is_some() || (by_seat && record.draws.is_empty())
            });
            match has_seats {
                true => NextStep::WriteSeats(transition),
                false => NextStep::WriteUnits(transition),
            }
        }
    }
}

/// Whether an operation is about seats: it belongs to the shard that owns the event's seats.
pub(super) fn is_by_seat(operation: &Operation, layout: EventLayout) -> bool {
    layout.is_seated() || matches!(operation.selection, Selection::Seats(_))
}

/// The seats that a transition writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SeatsToWrite {
    /// None: a tombstone.
    None,
    /// The event is closed: nothing may be reserved.
    Closed,
    /// The seats of the record, or of the request.
    Given(Seats),
    /// This many seats, to be chosen from the seat map.
    Chosen(u32),
    /// More than fit into one transaction.
    TooMany { most: u32 },
    /// The record should have seats and has none.
    Missing,
}

/// See [`SeatsToWrite`].
pub(super) fn seats_to_write(
    operation: &Operation,
    layout: EventLayout,
    transition: Transition,
    record: Option<&RecordView>,
) -> SeatsToWrite {
    let held = record.and_then(|record| record.seats.clone());
    match (transition.stock_change(), held, &operation.selection) {
        (StockChange::None, ..) => SeatsToWrite::None,
        (StockChange::Reserve, ..) if layout.closed => SeatsToWrite::Closed,
        (_, Some(held), _) => SeatsToWrite::Given(held),
        (StockChange::Reserve, None, Selection::Seats(seats)) => {
            // The prices are those of the seat map, whatever the caller has.
            SeatsToWrite::Given(Seats::clone(seats).with_prices(None))
        }
        (StockChange::Reserve, None, Selection::Quantity(qty)) => match too_many_seats(*qty) {
            Some(most) => SeatsToWrite::TooMany { most },
            None => SeatsToWrite::Chosen(*qty),
        },
        _ => SeatsToWrite::Missing,
    }
}

/// The most seats that a reservation can have, if these are more.
pub(super) fn too_many_seats(qty: u32) -> Option<u32> {
    let most = limits::SEATS_PER_TRANSACTION_MAX as u32;
    (qty > most).then_some(most)
}

/// Units that an operation takes: those of its record, or those it names.
pub(super) fn units_to_take(operation: &Operation, record: Option<&RecordView>) -> u32 {
    match (record, &operation.selection) {
        (Some(record), _) => record.qty,
        (None, Selection::Quantity(qty)) => *qty,
        (None, _) => 0,
    }
}

/// Whether a record in this state changes only by an operator's action.
pub(super) fn is_final(record: &RecordView) -> bool {
    matches!(
        record.state,
        ReservationState::Confirmed | ReservationState::Released | ReservationState::Refunded
    )
}
