//! Answers to operations. `api` maps them to a wire status.

use super::ids::{OrderId, SeatId, Seats};
use super::time::{Micros, UnixMillis};
use crate::limits;

/// The outcome of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stock is held durably, until `expires_at`.
    Held {
        expires_at: UnixMillis,
        qty: u32,
        seats: Option<Seats>,
    },
    /// The reservation is confirmed and durable.
    Confirmed {
        order: OrderId,
        /// When it was confirmed.
        at: UnixMillis,
        seats: Option<Seats>,
    },
    /// The reservation is released, durably.
    Released {
        how: ReleaseOutcome,
        at: UnixMillis,
        /// The seats it had, if any.
        seats: Option<Seats>,
    },
    /// The hold is past its expiry, and its stock is returned.
    Expired,
    /// The order is refunded and its stock is returned, by this call or before.
    Refunded,
    Rejected(Rejection),
}

/// State of the reservation when it was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReleaseOutcome {
    /// A hold, which this call released.
    Released,
    /// A reservation that had been released or had expired.
    AlreadyReleased,
    /// No reservation: a later hold or commit of this id is rejected.
    NoReservation,
}

/// Why an operation was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A strong read of all stripes showed too few units. The read began after the call arrived, or at most
    /// the sold-out latch before.
    InsufficientInventory {
        remaining: u64,
    },
    EventNotFound,
    /// The event takes no new reservations.
    EventClosed,
    /// Other reservations have these seats, or an operator blocked them.
    SeatsUnavailable {
        seats: Vec<SeatId>,
    },
    /// The event has no such seats.
    SeatsNotFound {
        seats: Vec<SeatId>,
        /// False if the event has no seats at all.
        seated: bool,
    },
    /// The event has seats, and no section of this name.
    SectionNotFound(Box<UnknownSection>),
    /// More seats than one reservation can have.
    TooManySeats {
        most: u32,
    },
    /// The reservation exists with another event, quantity or seats.
    IdempotencyConflict,
    /// Commit of a confirmed reservation with another payment.
    PaymentConflict {
        order: OrderId,
    },
    /// Hold or commit of a reservation that was released or refunded.
    ReservationReleased,
    /// Hold or release of a confirmed reservation.
    ReservationCommitted,
    /// A hold with the id of an expired reservation, or a commit of one whose stock cannot be taken again.
    HoldExpired,
    /// There is no such reservation to refund.
    ReservationNotFound,
    /// Refund of a reservation that was never confirmed.
    ReservationNotConfirmed,
    /// The deadline passed before dispatch; the request was not executed.
    DeadlineExceeded,
    /// A queue is full, or too long for the call's deadline, or the shard drains; the request was not
    /// executed.
    Overloaded {
        retry_after: Micros,
    },
    /// The store throttles or conflicts for longer than the deadline allows; the request was not executed.
    StoreBusy {
        retry_after: Micros,
    },
    /// The store cannot be reached.
    StoreUnavailable {
        retry_after: Micros,
    },
    /// The deadline passed, or the attempts were used up, and one of them may have been applied.
    OutcomeUnknown {
        retry_after: Micros,
    },
    /// The store rejected this operation, or holds a record that cannot be parsed.
    Internal,
}

/// See [`Rejection::SectionNotFound`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSection {
    /// As the call names it.
    pub section: String,
    /// A section whose name differs only in case, white space and punctuation.
    pub nearest: Option<String>,
    /// The event's sections by name, at most [`limits::SECTIONS_LISTED_BYTES_MAX`].
    pub known: Vec<String>,
}

impl UnknownSection {
    /// `section` among the names that the event has.
    pub fn among<'a>(known: impl Iterator<Item = &'a str>, section: &str) -> Self {
        let (mut nearest, mut listed, mut bytes) = (None, Vec::new(), 0);
        for name in known {
            if nearest.is_none() && is_same_word(name, section) {
                nearest = Some(name.to_owned());
            }
            bytes += name.len();
            if bytes <= limits::SECTIONS_LISTED_BYTES_MAX {
                listed.push(name.to_owned());
            }
        }
        Self { section: section.to_owned(), nearest, known: listed }
    }
}

/// Whether two names differ only in case, white space and punctuation.
fn is_same_word(one: &str, other: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    letters(one) == letters(other)
}

/// Time after which a rejected caller should retry.
const RETRY_AFTER: Micros = Micros(limits::RETRY_AFTER.as_micros() as u64);

impl Rejection {
    pub const fn overloaded() -> Self {
        Self::Overloaded { retry_after: RETRY_AFTER }
    }

    /// With the wait to expect until there is capacity again, within bounds.
    pub(crate) fn overloaded_for(wait: Micros) -> Self {
        let most = Micros(limits::RETRY_AFTER_MAX.as_micros() as u64);
        Self::Overloaded { retry_after: wait.clamp(RETRY_AFTER, most) }
    }

    pub const fn store_busy() -> Self {
        Self::StoreBusy { retry_after: RETRY_AFTER }
    }

    pub const fn store_unavailable() -> Self {
        Self::StoreUnavailable { retry_after: RETRY_AFTER }
    }

    pub(crate) const fn outcome_unknown() -> Self {
        Self::OutcomeUnknown { retry_after: RETRY_AFTER }
    }

    /// Whether the rejection says that the call was not executed, and will not be.
    pub(crate) fn claims_not_executed(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::Overloaded { .. } | Self::StoreBusy { .. })
    }
}
