//! A batch entry: one operation in a lane, and the write that it became.

use crate::answer::Rejection;
use crate::fault::{self, Fault};
use crate::ids::{EventId, Fingerprint, OrderId, Seats};
use crate::operation::{Operation, RecordExpectation, Selection, Verb};
use crate::rules::{self, StockChange, Transition};
use crate::time::{Micros, UnixMillis};
use crate::transaction::{RecordView, RecordWrite, ReservationState, StripeAllocations};

/// See the module's head.
#[derive(Clone, Debug)]
pub(super) struct BatchEntry {
    pub(super) metadata: OperationMetadata,
    pub(super) write: RecordWrite,
}

/// The part of an entry that the transaction does not carry.
#[derive(Clone, Debug)]
pub(super) struct OperationMetadata {
    pub(super) verb: Verb,
    selection: Selection,
    fingerprint: Fingerprint,
    section: Option<String>,
    hold_until: Option<UnixMillis>,
    /// Position in the order of arrival in the pool.
    pub(super) number: u64,
    pub(super) arrived: Micros,
    /// Expected time in the queue, if it was known on arrival; else zero.
    pub(super) expected: Micros,
    pub(super) deadline: Micros,
    /// A read of all stripes fixed its allocations. Otherwise an entry that takes units takes them from the
    /// stripe of the lane that sends it.
    pub(super) planned: bool,
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
        plan: WriteIntent,
        number: u64,
        arrived: Micros,
    ) -> Self {
        let WriteIntent { transition, record, seats } = plan;
        let to = transition.to;
        let confirms = to == ReservationState::Confirmed;
        let order = confirms.then(|| OrderId::of(&operation.reservation));
        let write = match (transition.stock_change(), record) {
            // What is there keeps its stock and its fingerprint.
            (StockChange::Keep | StockChange::Return, Some(record)) => RecordWrite {
                fingerprint: record.fingerprint,
                qty: record.qty,
                draws: match (&operation.selection, record.draws.first()) {
                    (Selection::Quantity(qty), Some(draw))
                        if fault::planted(Fault::RequestDecidesReturn) =>
                    {
                        super::drawn_from(draw.stripe, *qty)
                    }
                    _ => record.draws,
                },
                seats: record.seats,
                order: order.or(record.order),
                expires_at: record.expires_at,
                reservation: operation.reservation,
                from: transition.from,
                due: transition.due,
                to,
                payment_intent: operation.payment_intent,
            },
            (_, record) => {
                let old = record.as_ref();
                let fingerprint = match (&seats, old) {
                    (_, Some(record)) => record.fingerprint,
                    (Some(seats), None) => Fingerprint::of_seats(&operation.event, seats),
                    (None, None) => operation.fingerprint,
                };
                let named = match &operation.selection {
                    Selection::Quantity(qty) => *qty,
                    Selection::Seats(seats) => seats.len() as u32,
                    Selection::AsRecorded => 0,
                };
                RecordWrite {
                    fingerprint,
                    qty: old.map_or(named, |record| record.qty),
                    draws: StripeAllocations::new(),
                    seats,
                    order,
                    expires_at: operation.hold_until.or_else(|| old.and_then(|r| r.expires_at)),
                    reservation: operation.reservation,
                    from: transition.from,
                    due: transition.due,
                    to,
                    payment_intent: operation.payment_intent,
                }
            }
        };
        Self {
            metadata: OperationMetadata {
                verb: operation.verb,
                selection: operation.selection,
                fingerprint: operation.fingerprint,
                section: operation.section,
                hold_until: operation.hold_until,
                number,
                arrived,
                expected: Micros(0),
                deadline: operation.deadline,
                planned: false,
            },
            write,
        }
    }

    pub(super) fn movement(&self) -> StockChange {
        rules::stock_change(self.write.from, self.write.to)
    }

    /// The operation that the entry was made from, to be decided again.
    pub(super) fn into_operation(self, event: EventId) -> Operation {
        let Self { metadata, write } = self;
        Operation {
            verb: metadata.verb,
            reservation: write.reservation,
            event,
            selection: metadata.selection,
            fingerprint: metadata.fingerprint,
            section: metadata.section,
            payment_intent: write.payment_intent,
            hold_until: metadata.hold_until,
            expectation: RecordExpectation::Present,
            deadline: metadata.deadline,
        }
    }

    /// The rejection if its stock is sold: an expired hold cannot be confirmed any more.
    pub(super) fn too_little(&self, remaining: u64) -> Rejection {
        match self.write.from {
            Some(ReservationState::Expired) => Rejection::HoldExpired,
            _ => Rejection::InsufficientInventory { remaining },
        }
    }

    /// Nobody waits for the entry: the reclaimer asks again later.
    pub(super) fn is_background(&self) -> bool {
        self.metadata.verb == Verb::Expire
    }
}
