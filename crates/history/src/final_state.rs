//! What the store contains at the end of a history, in the terms of the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Status of a reservation, stored or as a read returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FinalStatus {
    Held,
    Confirmed,
    Released,
    Expired,
    Refunded,
}

impl FinalStatus {
    /// The status with this stored name.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "HELD" => Self::Held,
            "CONFIRMED" => Self::Confirmed,
            "RELEASED" => Self::Released,
            "EXPIRED" => Self::Expired,
            "REFUNDED" => Self::Refunded,
            _ => return None,
        })
    }

    /// Whether a reservation in this state has units or seats.
    pub fn has_stock(self) -> bool {
        matches!(self, Self::Held | Self::Confirmed)
    }
}

impl fmt::Display for FinalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Refunded => "REFUNDED",
        })
    }
}

/// A stored reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalReservation {
    pub event_id: String,
    pub status: FinalStatus,
    /// Units, or number of seats; what an ended reservation had.
    pub qty: u32,
    /// Empty for units.
    pub seats: BTreeSet<String>,
    /// Empty unless the reservation was confirmed.
    pub order_id: String,
    /// Milliseconds since the Unix epoch; `None` if there was no hold.
    pub expires_at_ms: Option<u64>,
}

/// State of a stored seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalSeatState {
    Available,
    Hold,
    Sold,
    Blocked,
}

/// A stored seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalSeat {
    pub state: FinalSeatState,
    /// The holder or buyer; empty if there is none.
    pub reservation_id: String,
}

/// Stock of an event: sums over its stripes, or over its seats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalEvent {
    /// Capacity, or number of seats.
    pub total: i64,
    pub available: i64,
    /// Units that the stripes and confirmation counters count as held, or seats on hold.
    pub held: i64,
    /// `total - available - held - blocked` of a quantity event; sold seats of a seated event, counted by their state.
    pub sold: i64,
    /// Blocked seats.
    pub blocked: i64,
    /// Empty for a quantity event.
    pub seats: BTreeMap<String, FinalSeat>,
}

/// All records and stock of a store, read while no call is in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// Time of the read, since the start of the history.
    pub read_at: Duration,
    pub reservations: BTreeMap<String, FinalReservation>,
    pub events: BTreeMap<String, FinalEvent>,
}
