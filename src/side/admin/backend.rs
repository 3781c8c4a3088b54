//! What the admin service asks of the rest of the process, in the domain's words.
//!
//! The server implements [`AdminBackend`] with messages to the shards; tests do it in memory. Must
//! not live here: checking of input, statuses, messages.

use std::time::Duration;

use futures::stream::BoxStream;

use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::query::EventStatus;
use inventory_core::seats::SeatFacts;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{RecordView, StripeView};

/// A listing in pages, each of bounded size; it ends after its first error. Dropping it ends the
/// work for it.
pub type Pages<T> = BoxStream<'static, Result<Vec<T>, AdminError>>;

/// Does what the admin service is asked for. Arguments are within the bounds of the contract. A
/// call's future may be dropped at its deadline: what writes must then run on to its end.
#[tonic::async_trait]
pub trait AdminBackend: Send + Sync + 'static {
    /// Creates the event, or finds it standing with the same total, stripes and seat keys.
    async fn create_event(&self, event: NewEvent) -> Result<Created, AdminError>;

    /// How the event stands: all stripes, read strongly, of a quantity; of seats the counts from
    /// memory.
    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError>;

    /// What the event is, without its stock.
    async fn describe_event(&self, event: EventId) -> Result<EventAbout, AdminError>;

    /// Every event, in no order.
    fn list_events(&self) -> Pages<EventAbout>;

    /// Restocks or shrinks a quantity event to `total` units, sold ones included.
    async fn set_total(&self, event: EventId, total: u64) -> Result<EventStock, AdminError>;

    /// Ends the sale; also of an event whose sale has ended.
    async fn close_event(&self, event: EventId) -> Result<EventStock, AdminError>;

    /// How many of these distinct seats a seated event does not have, as far as memory knows.
    async fn count_new_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
    ) -> Result<usize, AdminError>;

    /// Writes at most [`crate::limits::SEATS_WRITTEN_AT_ONCE_MAX`] distinct seats; those that are
    /// there keep their state. Nothing else hears of it: see [`AdminBackend::seats_changed`].
    async fn put_seats(
        &self,
        event: EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
    ) -> Result<(), AdminError>;

    /// Has every shard read the event's seats again.
    async fn seats_changed(&self, event: EventId);

    /// Takes seats out of the sale (`block`) or puts them back; at most
    /// [`crate::limits::SEATS_PER_CHUNK_MAX`] distinct ones. One outcome per seat, in order.
    async fn block_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
        block: bool,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, AdminError>;

    /// Gives back what a confirmed reservation has; how it stands afterwards. Of a refunded one
    /// just that.
    async fn refund(&self, reservation: ReservationId) -> Result<Reservation, AdminError>;

    /// Reads one reservation, strongly.
    async fn get_reservation(&self, reservation: ReservationId) -> Result<Reservation, AdminError>;

    /// The reservations of an event that exists, in no order.
    fn list_reservations(&self, event: EventId) -> Pages<Reservation>;
}

/// An event as it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub event: EventId,
    /// 1 to [`crate::limits::EVENT_TOTAL_MAX`]; 0 of a seated event.
    pub total: u64,
    /// 1 to [`crate::limits::STRIPES_MAX`], at most `total`; 1 of a seated event.
    pub stripes: u16,
    /// 1 to [`crate::limits::SEAT_KEYS_MAX`]; 0 of a quantity event.
    pub seat_keys: u16,
    /// For people, as `venue` is; empty when not given.
    pub name: String,
    pub venue: String,
}

/// What [`AdminBackend::create_event`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub stock: EventStock,
    /// False when the event stood there already with the same arguments.
    pub created: bool,
}

/// What an event is, without its stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAbout {
    pub event: EventId,
    pub stripes: u16,
    /// 0 of a quantity event.
    pub seat_keys: u16,
    pub closed: bool,
    pub name: String,
    pub venue: String,
}

/// How an event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStock {
    pub about: EventAbout,
    pub stock: Stock,
}

/// The stock of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stock {
    /// Every stripe, by index, and when they were read.
    Units {
        stripes: Vec<StripeView>,
        as_of: UnixMillis,
    },
    Seats(EventStatus),
}

/// What became of one seat that was to be blocked or unblocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeatOutcome {
    Changed,
    /// It was so before.
    Unchanged,
    Held,
    Sold,
    NotFound,
}

/// A reservation as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub id: ReservationId,
    pub event: EventId,
    pub record: RecordView,
    /// Empty when none was given.
    pub payment_intent: String,
    /// 0 where the record does not say.
    pub created_at: UnixMillis,
}

/// Why the backend did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    EventNotFound,
    /// The event stands there with other arguments, these.
    EventExists(Box<NewEvent>),
    /// It is about seats, and the event is of a quantity.
    NotSeated,
    /// It is about units, and the event has seats.
    Seated,
    /// The sale is over.
    EventClosed,
    /// The event would have more seats than it can be read with.
    TooManySeats {
        most: usize,
    },
    /// The wanted total is under the units held or sold, and not all of the rest could be taken.
    TotalTooSmall {
        total: u64,
        /// Units held or sold.
        taken: u64,
    },
    ReservationNotFound,
    /// A refund of what was never confirmed.
    ReservationNotConfirmed,
    /// The shard or the store has too much to do; nothing was done.
    Busy {
        retry_after: Duration,
    },
    /// The store cannot be reached, or the process is draining.
    Unavailable {
        retry_after: Duration,
    },
    /// The store refused this very request, or holds what cannot be understood; it is in the log.
    Internal,
}
