//! What a caller is told. Mapping to a wire status is the business of `api`.

use super::ids::OrderId;
use super::time::Micros;
use crate::limits;

/// The outcome of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reservation is confirmed and durable.
    Confirmed {
        order: OrderId,
    },
    /// The reservation is released and durable.
    Released,
    Refused(Refusal),
}

/// Why an operation did not do what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A strong read over all stripes, begun after the call arrived, showed too little.
    InsufficientInventory {
        remaining: u64,
    },
    EventNotFound,
    /// The reservation exists with another event or quantity.
    IdempotencyConflict,
    /// Commit of a released reservation.
    ReservationReleased,
    /// Release of a confirmed reservation.
    ReservationCommitted,
    /// The deadline passed before dispatch; nothing was done.
    DeadlineExceeded,
    /// A queue is full or the shard is draining; nothing was done.
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

impl Refusal {
    pub const fn overloaded() -> Self {
        Self::Overloaded {
            retry_after: RETRY_AFTER,
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
