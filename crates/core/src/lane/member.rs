//! One operation in a lane: what the caller asked for, and the write it became.

use crate::answer::Refusal;
use crate::ids::{EventId, Fingerprint, OrderId, Seats};
use crate::operation::{Expect, Operation, Verb, Wanted};
use crate::rules::{self, Movement, Transition};
use crate::time::{Micros, UnixMillis};
use crate::transaction::{Draws, RecordView, RecordWrite, ReservationState};

/// See the module's head.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) head: Head,
    pub(super) write: RecordWrite,
}

/// The part of a member that the transaction does not carry.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) verb: Verb,
    wanted: Wanted,
    fingerprint: Fingerprint,
    section: Option<String>,
    hold_until: Option<UnixMillis>,
    /// In the order of coming into the pool.
    pub(super) number: u64,
    pub(super) arrived: Micros,
    /// How long it was to wait in line, as far as that was known when it came; else zero.
    pub(super) expected: Micros,
    pub(super) deadline: Micros,
    /// Its draws were fixed by a read of all stripes. Otherwise who takes units draws on the stripe
    /// of the lane that sends it.
    pub(super) planned: bool,
}

/// What a transition of one reservation writes, beside what the operation says.
#[derive(Clone, Debug)]
pub struct Plan {
    pub transition: Transition,
    /// The record it was decided on.
    pub record: Option<RecordView>,
    /// The seats to take, where stock is seats.
    pub seats: Option<Seats>,
}

impl Member {
    pub(super) fn new(operation: Operation, plan: Plan, number: u64, arrived: Micros) -> Self {
        let Plan {
            transition,
            record,
            seats,
        } = plan;
        let to = transition.to;
        let confirms = to == ReservationState::Confirmed;
        let order = confirms.then(|| OrderId::of(&operation.reservation));
        let write = match (transition.movement(), record) {
            // What is there keeps its stock and its fingerprint.
            (Movement::Keep | Movement::Give, Some(record)) => RecordWrite {
                fingerprint: record.fingerprint,
                qty: record.qty,
                draws: record.draws,
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
                let named = match &operation.wanted {
                    Wanted::Quantity(qty) => *qty,
                    Wanted::Seats(seats) => seats.len() as u32,
                    Wanted::Whatever => 0,
                };
                RecordWrite {
                    fingerprint,
                    qty: old.map_or(named, |record| record.qty),
                    draws: Draws::new(),
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
            head: Head {
                verb: operation.verb,
                wanted: operation.wanted,
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

    pub(super) fn movement(&self) -> Movement {
        rules::movement(self.write.from, self.write.to)
    }

    /// The operation it was made from, to be decided anew.
    pub(super) fn into_operation(self, event: EventId) -> Operation {
        let Self { head, write } = self;
        Operation {
            verb: head.verb,
            reservation: write.reservation,
            event,
            wanted: head.wanted,
            fingerprint: head.fingerprint,
            section: head.section,
            payment_intent: write.payment_intent,
            hold_until: head.hold_until,
            expect: Expect::Known,
            deadline: head.deadline,
        }
    }

    /// What is said when its stock has gone: of a hold that has expired, that it is gone for good.
    pub(super) fn too_little(&self, remaining: u64) -> Refusal {
        match self.write.from {
            Some(ReservationState::Expired) => Refusal::HoldExpired,
            _ => Refusal::InsufficientInventory { remaining },
        }
    }

    /// Nobody waits for it: it is asked for again in a while if it does not work now.
    pub(super) fn is_quiet(&self) -> bool {
        self.head.verb == Verb::Expire
    }
}
