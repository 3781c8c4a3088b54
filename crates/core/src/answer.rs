//! What a caller is told. Mapping to a wire status is the business of `api`.

use super::ids::{OrderId, SeatId, Seats};
use super::time::{Micros, UnixMillis};
use crate::limits;

/// The outcome of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stock is held and durably so, until `expires_at`.
    Held {
        expires_at: UnixMillis,
        qty: u32,
        seats: Option<Seats>,
    },
    /// The reservation is confirmed and durable.
    Confirmed {
        order: OrderId,
        /// When it was.
        at: UnixMillis,
        seats: Option<Seats>,
    },
    /// The reservation is given up and durably so.
    Released {
        how: ReleaseOutcome,
        at: UnixMillis,
        /// What it had, where that was seats.
        seats: Option<Seats>,
    },
    /// The hold is past its time, and what it had is given back.
    Expired,
    /// The order is refunded and what it had is given back, now or before.
    Refunded,
    Rejected(Rejection),
}

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReleaseOutcome {
    /// A hold, which this very call gave up.
    Released,
    /// A reservation that was given up or had expired before.
    AlreadyReleased,
    /// Nothing: from now on a late hold or commit of that id is refused.
    NoReservation,
}

/// Why an operation did not do what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A strong read over all stripes, begun after the call arrived or at most the latch before it,
    /// showed too little.
    InsufficientInventory {
        remaining: u64,
    },
    EventNotFound,
    /// The event takes no new reservations.
    EventClosed,
    /// Others have these seats, or an operator blocked them.
    SeatsUnavailable {
        seats: Vec<SeatId>,
    },
    /// The event has no such seats.
    SeatsNotFound {
        seats: Vec<SeatId>,
    },
    /// The reservation exists with another event, quantity or seats.
    IdempotencyConflict,
    /// Hold or commit of a reservation that was released or refunded.
    ReservationReleased,
    /// Hold or release of a confirmed reservation.
    ReservationCommitted,
    /// Hold of an expired reservation, or its commit when what it had cannot be taken again.
    HoldExpired,
    /// There is no such reservation to refund.
    ReservationNotFound,
    /// Refund of a reservation that was never confirmed.
    ReservationNotConfirmed,
    /// The deadline passed before dispatch; nothing was done.
    DeadlineExceeded,
    /// A queue is full, or too long for the caller's deadline, or the shard is draining; nothing was
    /// done.
    Overloaded {
        retry_after: Micros,
    },
    /// The store throttles or conflicts for longer than the deadline allows; nothing was done.
    StoreBusy {
        retry_after: Micros,
    },
    /// The store cannot be reached.
    StoreUnavailable {
        retry_after: Micros,
    },
    /// The store refused this very operation, or holds a record that cannot be understood.
    Internal,
}

/// What a caller is told to wait before it comes back.
const RETRY_AFTER: Micros = Micros(limits::RETRY_AFTER.as_micros() as u64);

impl Rejection {
    pub const fn overloaded() -> Self {
        Self::Overloaded {
            retry_after: RETRY_AFTER,
        }
    }

    /// With what is to be expected until there is room again, within bounds.
    pub fn overloaded_for(wait: Micros) -> Self {
        let most = Micros(limits::RETRY_AFTER_MAX.as_micros() as u64);
        Self::Overloaded {
            retry_after: wait.clamp(RETRY_AFTER, most),
        }
    }

    pub const fn store_busy() -> Self {
        Self::StoreBusy {
            retry_after: RETRY_AFTER,
        }
    }

    pub const fn store_unavailable() -> Self {
        Self::StoreUnavailable {
            retry_after: RETRY_AFTER,
        }
    }
}
