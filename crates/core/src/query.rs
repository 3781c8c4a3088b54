//! Queries about an event, and their results. Nothing is written for a query.

use super::answer::Rejection;
use super::ids::{SeatId, Seats};
use super::seats::{Price, SeatItem};
use super::time::UnixMillis;
use super::transaction::{StockTotals, StripeView, held_units};

/// A question about an event that writes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Are `qty` units available? In a seated event: which seats, in `section` if one is named. Answered by
    /// [`QueryResult::Units`] or [`QueryResult::Offer`].
    Availability { qty: u32, section: Option<String> },
    /// Are these seats available? Answered by [`QueryResult::Seats`]; a quantity event reports all of them
    /// as unknown.
    Seats { seats: Seats },
    /// Status of the sale. Answered by [`QueryResult::Status`].
    Status,
    /// Details of seats, for an answer about a reservation: from the seat map whatever its age, and from a read
    /// only if there is no map. Answered by [`QueryResult::Seats`].
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
        /// As many as requested, or none.
        seats: Vec<SeatItem>,
        /// Available seats in the section, or in all.
        remaining: u64,
    },
    Seats {
        /// The seats that the event has, in the order of the query, each with its state.
        known: Vec<SeatItem>,
        unknown: Vec<SeatId>,
    },
    Status(Box<EventStatus>),
    /// The event sells nothing now: [`Rejection::EventClosed`]. Its status has the figures all the same.
    NotOnSale(Rejection),
}

/// Version of an event's status: equal versions mean an equal status, to the last seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusVersion {
    pub as_of: UnixMillis,
    pub changes: u64,
    pub closed: bool,
}

/// Status of a sale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventStatus {
    /// Over all sections, or over all stripes.
    pub counts: StockCounts,
    /// By name; empty for a quantity event.
    pub sections: Vec<SectionStatus>,
    /// When the oldest part of the status was read.
    pub as_of: UnixMillis,
    /// Whether the stock consists of seats.
    pub seated: bool,
    pub closed: bool,
}

/// Seats, or units, by state. They add up to `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockCounts {
    pub total: u64,
    pub available: u64,
    /// Seats in unexpired holds. Units in holds whose stock has not been returned, overdue or not, without those of
    /// holds that a version before the confirmation counters wrote: these are `sold` until they end.
    pub held: u64,
    pub sold: u64,
    pub blocked: u64,
}

impl StockCounts {
    /// The units of a quantity event, by a read of its stripes and confirmation counters. Without the counters held
    /// units are not known, and counted as sold.
    pub fn of_units(stripes: &[StripeView]) -> Self {
        let StockTotals { capacity: total, remaining: available } = StockTotals::of(stripes);
        let held = held_units(stripes).unwrap_or(0);
        Self::of_totals(total, available, held)
    }

    /// `available` and `held` are limited to what is possible.
    pub(crate) fn of_totals(total: u64, available: u64, held: u64) -> Self {
        let taken = total.saturating_sub(available);
        let held = held.min(taken);
        Self { total, available, held, sold: taken - held, blocked: 0 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionStatus {
    pub section: String,
    pub counts: StockCounts,
    /// Lowest and highest price in each currency, by currency.
    pub prices: Vec<(Price, Price)>,
}

impl SectionStatus {
    /// Lowest and highest price, if all prices have one currency.
    pub fn price(&self) -> Option<&(Price, Price)> {
        match self.prices.as_slice() {
            [price] => Some(price),
            _ => None,
        }
    }
}
