//! What a caller wants done to one reservation.

use super::ids::{EventId, Fingerprint, ReservationId, Seats};
use super::time::{Micros, UnixMillis};

/// The verbs that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Take the stock until [`Operation::hold_until`].
    Hold,
    /// Confirm what is held; of a reservation that holds nothing, take the stock and confirm, in one
    /// step.
    Commit,
    /// Give up the reservation; of one that never was, leave a tombstone.
    Release,
    /// Give back what a hold that is past its time still has. Asked for by the reclaimer and by a
    /// buyer who meets such a hold, never by a client.
    Expire,
    /// Give back what a confirmed reservation has. Asked for by an operator only.
    Refund,
}

/// How much a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Units, 1 to the configured maximum. Of a seated event: that many seats, chosen here.
    Quantity(u32),
    /// These very seats, 1 to [`crate::limits::SEATS_PER_RESERVATION_MAX`], distinct.
    Seats(Seats),
    /// Whatever the reservation holds; not for [`Verb::Hold`].
    AsRecorded,
}

/// What a caller believes about the reservation: a hint that saves a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordExpectation {
    /// That there is none yet: write at once, and learn from a failed condition.
    Absent,
    /// That there is one: look first, unless this shard remembers it.
    Present,
}

/// One call on one reservation, validated: the ids are legal, the quantity is in bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub verb: Verb,
    pub reservation: ReservationId,
    pub event: EventId,
    pub selection: Selection,
    /// Of event and `selection`: see [`Operation::fingerprint_of`].
    pub fingerprint: Fingerprint,
    /// Where seats are to be chosen; anywhere without one. Only with [`Selection::Quantity`].
    pub section: Option<String>,
    /// The payment this commit belongs to; recorded, never interpreted. Empty when not given.
    pub payment_intent: String,
    /// When a hold ends. Only with [`Verb::Hold`].
    pub hold_until: Option<UnixMillis>,
    pub expectation: RecordExpectation,
    /// Past this instant the caller has gone: the operation must not be dispatched any more.
    pub deadline: Micros,
}

impl Operation {
    /// The fingerprint that an operation on `selection` of `event` carries.
    pub fn fingerprint_of(event: &EventId, selection: &Selection) -> Fingerprint {
        match selection {
            Selection::Quantity(qty) => Fingerprint::of_quantity(event, *qty),
            Selection::Seats(seats) => Fingerprint::of_seats(event, seats),
            Selection::AsRecorded => Fingerprint::of_whatever(event),
        }
    }
}
