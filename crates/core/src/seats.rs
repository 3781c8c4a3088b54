//! A stored seat.

use super::ids::{ReservationId, SeatId};
pub use super::prices::{Price, SeatPrices};
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
