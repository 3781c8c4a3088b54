//! A batch entry: one operation in a lane, and the write that it became.

use crate::answer::Rejection;
use crate::fault::{self, Fault};
use crate::ids::{Fingerprint, OrderId, Seats};
use crate::operation::{Operation, RecordExpectation, Selection, Verb};
use crate::rules::{self, StockChange, Transition};
use crate::time::Micros;
use crate::transaction::{RecordView, RecordWrite, ReservationState, StripeAllocations};

/// One operation in a lane, with its write and its place in the queue.
#[derive(Clone, Debug)]
pub(super) struct BatchEntry {
    /// The write, with the operation.
    pub(super) write: RecordWrite,
    pub(super) queue: QueueMetadata,
}

/// The metadata of an entry, which is not written.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueMetadata {
    /// Position in the order of arrival in the pool.
    pub(super) sequence: u64,
    pub(super) arrived: Micros,
    /// Expected time in the queue, if it was known on arrival; else zero.
    pub(super) expected_wait: Micros,
    /// A read of all stripes fixed the stripe allocations of the entry. Without a plan an entry takes its units
    /// from the stripe of the lane that sends it.
    pub(super) has_stripe_plan: bool,
    /// Reads of all stripes after which no stripe had units for the entry, although the total had.
    pub(super) reads: u8,
}

/// What a transition of one reservation writes, beside what the operation contains.
#[derive(Clone, Debug)]
pub struct WriteIntent {
    pub transition: Transition,
    /// The record that the transition was decided on.
    pub record: Option<RecordView>,
    /// The seats to take, in a seated event.
    pub seats: Option<Seats>,
}

impl BatchEntry {
    pub(super) fn new(
        operation: Operation,
        intent: WriteIntent,
        sequence: u64,
        arrived: Micros,
    ) -> Self {
        let WriteIntent { transition, record, seats } = intent;
        let write = match (transition.stock_change(), record) {
            (StockChange::Keep | StockChange::Return, Some(record)) => {
                write_of_recorded_stock(operation, transition, record)
            }
            (StockChange::None, Some(record)) if rules::adds_payment(transition) => RecordWrite {
                payment_added_to: Some(record.at),
                ..write_of_recorded_stock(operation, transition, record)
            },
            (_, record) => write_of_requested_stock(operation, transition, record.as_ref(), seats),
        };
        let queue = QueueMetadata {
            sequence,
            arrived,
            expected_wait: Micros(0),
            has_stripe_plan: false,
            reads: 0,
        };
        Self { write, queue }
    }

    /// The entry must not be sent from this instant on.
    pub(super) fn deadline(&self) -> Micros {
        self.write.operation.deadline
    }

    pub(super) fn stock_change(&self) -> StockChange {
        rules::stock_change(self.write.from, self.write.to)
    }

    /// Actions of a transaction for this entry alone, its stripes included.
    pub(super) fn actions(&self) -> usize {
        self.write.draws.len() + 1 + self.write.seats_moved().len()
    }

    /// The operation, to be decided again: by now there may be a record.
    pub(super) fn into_operation(self) -> Operation {
        Operation { expectation: RecordExpectation::Present, ..self.write.operation }
    }

    /// The rejection for too few units: sold out, or that the hold has expired if its units were returned before.
    pub(super) fn shortage_rejection(&self, remaining: u64) -> Rejection {
        match self.write.from {
            Some(ReservationState::Expired) => Rejection::HoldExpired,
            _ => Rejection::InsufficientInventory { remaining },
        }
    }

    /// Whether no caller waits for the entry. The reclaimer finds an expired hold again later.
    pub(super) fn is_background(&self) -> bool {
        self.write.operation.verb == Verb::Expire
    }
}

/// A write that keeps or returns the stock of an existing record, or adds a payment to it. The record keeps its allocations and its fingerprint.
fn write_of_recorded_stock(
    operation: Operation,
    transition: Transition,
    record: RecordView,
) -> RecordWrite {
    let draws = match (&operation.selection, record.draws.first()) {
        (Selection::Quantity(qty), Some(draw)) if fault::planted(Fault::RequestDecidesReturn) => {
            super::drawn_from(draw.stripe, *qty)
        }
        _ => record.draws,
    };
    RecordWrite {
        fingerprint: record.fingerprint,
        from: transition.from,
        due: transition.due,
        to: transition.to,
        qty: record.qty,
        draws,
        seats: record.seats,
        order: new_order(&operation, transition).or(record.order),
        expires_at: record.expires_at,
        payment_added_to: None,
        counted: record.counted,
        operation,
    }
}

/// A write that takes stock, or moves none.
fn write_of_requested_stock(
    operation: Operation,
    transition: Transition,
    record: Option<&RecordView>,
    seats: Option<Seats>,
) -> RecordWrite {
    let fingerprint = match (&seats, record) {
        (_, Some(record)) => record.fingerprint,
        (Some(seats), None) => Fingerprint::of_seats(&operation.event, seats),
        (None, None) => operation.fingerprint,
    };
    let requested = match &operation.selection {
        Selection::Quantity(qty) => *qty,
        Selection::Seats(seats) => seats.len() as u32,
        Selection::AsRecorded => 0,
    };
    let is_hold_of_units = transition.to == ReservationState::Held && seats.is_none();
    RecordWrite {
        fingerprint,
        from: transition.from,
        due: transition.due,
        to: transition.to,
        counted: record.map_or(is_hold_of_units, |record| record.counted),
        qty: record.map_or(requested, |record| record.qty),
        draws: StripeAllocations::new(),
        seats,
        order: new_order(&operation, transition),
        expires_at: operation.hold_until.or_else(|| record.and_then(|record| record.expires_at)),
        payment_added_to: None,
        operation,
    }
}

/// The order of a transition that confirms.
fn new_order(operation: &Operation, transition: Transition) -> Option<OrderId> {
    let confirms = transition.to == ReservationState::Confirmed;
    confirms.then(|| OrderId::of(&operation.reservation))
}
