//! One operation in a lane: what the caller asked for, and the write it became.

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

/// The part of a entry that the transaction does not carry.
#[derive(Clone, Debug)]
pub(super) struct OperationMetadata {
    pub(super) verb: Verb,
    selection: Selection,
    fingerprint: Fingerprint,
    section: Option<String>,
    hold_until: Option<UnixMillis>,
    /// In the order of coming into the pool.
    pub(super) number: u64,
    pub(super) arrived: Micros,
    /// How long it was to wait in queue, as far as that was known when it came; else zero.
    pub(super) expected: Micros,
    pub(super) deadline: Micros,
    /// Its draws were fixed by a read of all stripes. Otherwise who takes units draws on the stripe
    /// of the lane that sends it.
    pub(super) planned: bool,
}

/// What a transition of one reservation writes, beside what the operation says.
#[derive(Clone, Debug)]
pub struct WriteIntent {
    pub transition: Transition,
    /// The record it was decided on.
    pub record: Option<RecordView>,
    /// The seats to take, where stock is seats.
    pub seats: Option<Seats>,
}

impl BatchEntry {
    pub(super) fn new(
        operation: Operation,
        plan: WriteIntent,
        number: u64,
        arrived: Micros,
    ) -> Self {
        let WriteIntent {
            transition,
            record,
            seats,
        } = plan;
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
                    expires_at: operation
                        .hold_until
                        .or_else(|| old.and_then(|r| r.expires_at)),
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

    /// The operation it was made from, to be decided anew.
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

    /// What is said when its stock has gone: of a hold that has expired, that it is gone for good.
    pub(super) fn too_little(&self, remaining: u64) -> Rejection {
        match self.write.from {
            Some(ReservationState::Expired) => Rejection::HoldExpired,
            _ => Rejection::InsufficientInventory { remaining },
        }
    }

    /// Nobody waits for it: it is asked for again in a while if it does not work now.
    pub(super) fn is_background(&self) -> bool {
        self.metadata.verb == Verb::Expire
    }
}
