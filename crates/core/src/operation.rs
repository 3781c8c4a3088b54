//! Operations: what a caller asks for about one reservation.

use super::ids::{EventId, Fingerprint, PaymentHash, ReservationId, Seats};
use super::time::{Micros, UnixMillis};

/// The verbs that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Take the stock until [`Operation::hold_until`].
    Hold,
    /// Confirm a hold; if the reservation has no stock, take it and confirm in one step.
    Commit,
    /// Release the reservation; if there is none, write a tombstone.
    Release,
    /// Return the stock of an overdue hold. Requested by the reclaimer, and by the engine for a buyer of a seat of
    /// the hold; never by a client.
    Expire,
    /// Return the stock of a confirmed reservation. Requested by an operator only.
    Refund,
}

/// Units or seats of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Units, 1 to the configured maximum. In a seated event: that many seats, chosen by the engine.
    Quantity(u32),
    /// These seats, 1 to [`crate::limits::SEATS_PER_RESERVATION_MAX`], distinct.
    Seats(Seats),
    /// The units or seats of the record. Not valid for [`Verb::Hold`].
    AsRecorded,
}

/// What a caller expects about the record: a hint that saves a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordExpectation {
    /// There is no record: write at once; a failed condition shows otherwise.
    Absent,
    /// There is a record: read it first, unless it is cached.
    Present,
}

/// A validated call on one reservation: the ids are legal, the quantity is in bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub verb: Verb,
    pub reservation: ReservationId,
    pub event: EventId,
    pub selection: Selection,
    /// Fingerprint of event and `selection`: see [`Operation::fingerprint_of`].
    pub fingerprint: Fingerprint,
    /// Section in which seats are chosen; any if `None`. Only with [`Selection::Quantity`].
    pub section: Option<String>,
    /// The payment of this commit; stored, never interpreted. Empty if not given.
    pub payment_intent: String,
    /// Expiry of the hold. Only with [`Verb::Hold`].
    pub hold_until: Option<UnixMillis>,
    pub expectation: RecordExpectation,
    /// The operation must not be dispatched after this instant.
    pub deadline: Micros,
}

impl Operation {
    /// The payment of the operation, if it has one.
    pub fn payment(&self) -> Option<PaymentHash> {
        PaymentHash::of(&self.payment_intent)
    }

    /// An operation without a section, a payment or a hold, on a reservation that has no record yet.
    #[inline]
    pub fn new(
        verb: Verb,
        reservation: ReservationId,
        event: EventId,
        selection: Selection,
        deadline: Micros,
    ) -> Self {
        Self {
            verb,
            reservation,
            fingerprint: Self::fingerprint_of(&event, &selection),
            event,
            selection,
            section: None,
            payment_intent: String::new(),
            hold_until: None,
            expectation: RecordExpectation::Absent,
            deadline,
        }
    }

    /// The fingerprint that an operation on `selection` of `event` carries.
    pub fn fingerprint_of(event: &EventId, selection: &Selection) -> Fingerprint {
        match selection {
            Selection::Quantity(qty) => Fingerprint::of_quantity(event, *qty),
            Selection::Seats(seats) => Fingerprint::of_seats(event, seats),
            Selection::AsRecorded => Fingerprint::of_recorded_stock(event),
        }
    }
}
