//! What a caller wants done to one reservation.

use super::ids::{EventId, Fingerprint, ReservationId};
use super::time::Micros;

/// The verbs that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Take the stock and confirm, in one step.
    Commit,
    /// Give up the reservation; of one that never was, leave a tombstone.
    Release,
}

/// One call on one reservation, validated: the id is legal, the quantity is in bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub verb: Verb,
    pub reservation: ReservationId,
    pub event: EventId,
    /// Units wanted, 1 to the configured maximum.
    pub qty: u32,
    pub fingerprint: Fingerprint,
    /// The payment this commit belongs to; recorded, never interpreted. Empty when not given.
    pub payment_intent: String,
    /// Past this instant the caller has gone: the operation must not be dispatched any more.
    pub deadline: Micros,
}
