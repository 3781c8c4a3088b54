//! What a caller wants to know about an event, and what it is told. Nothing is written for it.

use super::ids::{SeatId, Seats};
use super::seats::{Price, SeatItem};
use super::time::UnixMillis;

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Could `qty` units be had now? Of a seated event: which seats would they be, in `section` if
    /// one is named. Answered by [`QueryResult::Units`] or [`QueryResult::Offer`].
    Availability { qty: u32, section: Option<String> },
    /// Could these very seats be had now? Answered by [`QueryResult::Seats`]; of a quantity event all of
    /// them are unknown.
    Seats { seats: Seats },
    /// How does the sale stand? Answered by [`QueryResult::Status`].
    Status { section: Option<String> },
    /// What are these seats like, for an answer about a reservation? From memory as it is, without a
    /// read where it can do without. Answered by [`QueryResult::Seats`].
    Describe { seats: Seats },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryResult {
    Units {
        /// Over all stripes.
        remaining: u64,
        available: bool,
    },
    Offer {
        /// As many as asked for, or none: a client holds exactly these.
        seats: Vec<SeatItem>,
        /// Seats that can be had in the section asked about, or in all.
        remaining: u64,
    },
    Seats {
        /// Those the event has, in the order asked for, each with its state.
        known: Vec<SeatItem>,
        unknown: Vec<SeatId>,
    },
    Status(Box<EventStatus>),
}

/// Two equal marks of one event: how it stands is the same, to the last seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusVersion {
    pub as_of: UnixMillis,
    pub changes: u64,
    pub closed: bool,
}

/// How a sale stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventStatus {
    /// Of the sections asked about together; of a quantity event, of all stripes.
    pub counts: StockCounts,
    /// By name; empty for a quantity event.
    pub sections: Vec<SectionStatus>,
    /// When the oldest part of this was read.
    pub as_of: UnixMillis,
    /// Whether stock is seats.
    pub seated: bool,
    pub closed: bool,
}

/// Seats, or units, by state. They add up to `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockCounts {
    pub total: u64,
    pub available: u64,
    /// Held by reservations whose time is not over. Of a quantity event 0: its stripes do not tell
    /// held from sold.
    pub held: u64,
    /// Of a quantity event: held or confirmed.
    pub sold: u64,
    pub blocked: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionStatus {
    pub section: String,
    pub counts: StockCounts,
    /// Of the cheapest and the dearest seat that has a price, when all are in one currency.
    pub price: Option<(Price, Price)>,
}
