//! A seat as the store has it.

use super::ids::{ReservationId, SeatId};
use super::time::UnixMillis;

/// Whose a seat is. Stored as AVAILABLE, HOLD, SOLD, BLOCKED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatState {
    Available,
    Hold {
        reservation: ReservationId,
        /// From here on the hold counts for nothing.
        until: UnixMillis,
    },
    Sold {
        reservation: ReservationId,
    },
    /// Taken out of the sale by an operator.
    Blocked,
}

/// What one seat costs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price {
    /// In the currency's smallest unit.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
}

/// What never changes when a seat is sold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatFacts {
    /// Empty where not told, as the others are.
    pub section: String,
    pub row: String,
    pub number: String,
    pub price: Option<Price>,
}

/// A seat item, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatItem {
    pub id: SeatId,
    pub facts: SeatFacts,
    pub state: SeatState,
}
