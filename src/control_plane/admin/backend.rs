//! Interface between the admin service and the rest of the process.
//!
//! The server implements [`AdminBackend`] with messages to the shards; tests implement it in memory. Events, seats and
//! reservations are types of the store. Not here: validation, statuses or messages.

use std::time::Duration;

use futures::stream::BoxStream;

use crate::telemetry::membership::MembershipReport;
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::query::EventStatus;
use inventory_core::seats::{SeatFacts, SeatItem};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::StripeView;
use inventory_store::{EventAbout, NewEvent, SeatComparison, SeatOutcome, StoredRecord};

/// A listing in pages of bounded size; ends after the first error. Dropping the stream stops the listing.
pub type Pages<T> = BoxStream<'static, Result<Vec<T>, AdminError>>;

/// Executes admin calls. Arguments are within the bounds of the API. The future of a call may be dropped at its deadline;
/// a write that has started must still complete.
#[tonic::async_trait]
pub trait AdminBackend: Send + Sync + 'static {
    /// Creates the event, or finds it with the same total, stripes, seat keys, name and venue; an empty name or venue
    /// matches any.
    async fn create_event(&self, event: NewEvent) -> Result<EventCreation, AdminError>;

    /// Stock of an event: all stripes with strong consistency for a quantity event, cached counts for a seated event.
    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError>;

    /// The event without its stock.
    async fn describe_event(&self, event: EventId) -> Result<EventAbout, AdminError>;

    /// All events in no particular order.
    fn list_events(&self) -> Pages<EventAbout>;

    /// Sets the total of a quantity event, including units held or sold.
    async fn set_total(&self, event: EventId, total: u64) -> Result<EventStock, AdminError>;

    /// Closes the sale of an event. Idempotent.
    async fn close_event(&self, event: EventId) -> Result<EventStock, AdminError>;

    /// Number of these distinct seats that a seated event does not have, by its cached seat map.
    async fn count_new_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
    ) -> Result<usize, AdminError>;

    /// Writes at most [`crate::limits::SEATS_WRITTEN_AT_ONCE_MAX`] distinct seats; existing seats keep their state. With
    /// `may_exist`, the seats are compared with those that are stored, and seats with these facts are not written. Does
    /// not notify the shards, see [`AdminBackend::seats_changed`].
    async fn put_seats(
        &self,
        event: EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
        may_exist: bool,
    ) -> Result<SeatComparison, AdminError>;

    /// All seats of an event, in no particular order, with strong consistency.
    async fn list_seats(&self, event: EventId) -> Result<Vec<SeatItem>, AdminError>;

    /// Makes every shard read the seats of the event again.
    async fn seats_changed(&self, event: EventId);

    /// Blocks or unblocks at most [`crate::limits::SEATS_PER_CHUNK_MAX`] distinct seats. Returns one outcome per seat, in
    /// order.
    async fn block_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
        block: bool,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, AdminError>;

    /// Refunds a confirmed reservation. Idempotent.
    async fn refund(&self, reservation: ReservationId) -> Result<Refund, AdminError>;

    /// Reads one reservation with strong consistency.
    async fn get_reservation(&self, reservation: ReservationId)
    -> Result<StoredRecord, AdminError>;

    /// The server processes of the store, as this process sees them, and the time of the call.
    fn members(&self) -> (MembershipReport, Micros);

    /// The reservations of an existing event in no particular order.
    fn list_reservations(&self, event: EventId) -> Pages<StoredRecord>;
}

/// Result of [`AdminBackend::create_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCreation {
    pub stock: EventStock,
    /// False if the event existed with the same arguments.
    pub created: bool,
}

/// Result of [`AdminBackend::refund`].
#[derive(Clone, Debug, PartialEq)]
pub struct Refund {
    /// The record after the refund.
    pub record: StoredRecord,
    /// False if the reservation had been refunded before.
    pub refunded: bool,
}

/// An event with its stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStock {
    pub about: EventAbout,
    pub stock: Stock,
}

/// Stock of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stock {
    /// All stripes by index, and their read time.
    Units {
        stripes: Vec<StripeView>,
        as_of: UnixMillis,
    },
    Seats(EventStatus),
}

/// An admin call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    EventNotFound,
    /// The event exists with these other arguments.
    EventExists(Box<NewEvent>),
    /// The call needs a seated event, and the event is a quantity event.
    NotSeated,
    /// The call needs a quantity event, and the event is seated.
    Seated,
    /// The sale is closed.
    EventClosed,
    /// The event would have more seats than a seat map holds.
    TooManySeats {
        most: usize,
    },
    /// The requested total is below the units held or sold.
    TotalTooSmall {
        total: u64,
        /// Units held or sold.
        taken: u64,
    },
    ReservationNotFound,
    /// A refund of a reservation that is not confirmed.
    ReservationNotConfirmed,
    /// The shard or the store is overloaded; the call was not executed.
    Busy {
        retry_after: Duration,
    },
    /// The store throttles a call that has begun to write: some of it, or all, may be stored. Repeating the call is right.
    Unfinished {
        retry_after: Duration,
    },
    /// The store is unreachable, or the process is draining.
    Unavailable {
        retry_after: Duration,
    },
    /// The store refused the request or has a corrupt item; the log has the error.
    Internal,
}

impl AdminError {
    /// The error of a call that may have written something: it must not say that nothing was executed.
    pub(crate) fn after_write(self) -> Self {
        match self {
            Self::Busy { retry_after } => Self::Unfinished { retry_after },
            other => other,
        }
    }
}
