//! A stored seat.

use super::ids::{ReservationId, SeatId};
use super::time::UnixMillis;

/// State of a seat. Stored as AVAILABLE, HOLD, SOLD, BLOCKED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatState {
    Available,
    Hold {
        reservation: ReservationId,
        /// From this time on the hold has no effect.
        until: UnixMillis,
    },
    Sold {
        reservation: ReservationId,
    },
    /// Taken off sale by an operator.
    Blocked,
}

/// Price of one seat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price {
    /// In the smallest unit of the currency.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
}

/// Facts of a seat that a sale does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatFacts {
    /// Empty if not given, like the other texts.
    pub section: String,
    pub row: String,
    pub number: String,
    pub price: Option<Price>,
}

/// A complete seat item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatItem {
    pub id: SeatId,
    pub facts: SeatFacts,
    pub state: SeatState,
}
