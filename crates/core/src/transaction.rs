//! One batch as the store sees it, and what the store can say to it.
//!
//! Plain data both ways. `store::codec` turns a [`Transaction`] into a `TransactWriteItems` call and
//! its result into an [`TransactionOutcome`]; the simulation applies it to a map.

use smallvec::SmallVec;

use super::ids::{EventId, Fingerprint, OrderId, ReservationId, SeatId, Seats};
use super::seats::SeatState;
use super::time::UnixMillis;

/// 128 random bits, the `ClientRequestToken` (32 hex digits of the 36 allowed). A new body gets a
/// new token; the same body is sent again under the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestToken(pub u128);

/// The states of a reservation that has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationState {
    /// Has its stock until its time is over.
    Held,
    /// Has its stock for good.
    Confirmed,
    /// Released, or a tombstone of a release that arrived first.
    Released,
    /// Was held, and its time was over.
    Expired,
    /// Was confirmed, and an operator gave it back.
    Refunded,
}

/// Units taken from one stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripeAllocation {
    pub stripe: u16,
    pub units: u32,
}

/// Where a reservation's units came from: nearly always one stripe.
pub type StripeAllocations = SmallVec<[StripeAllocation; 2]>;

/// `remaining += give - take, version += 1` on one stripe item.
///
/// Written only if the item exists; if anything is taken, only while the event is open; and where
/// more is taken than given, only if `remaining >= take - give`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeUpdate {
    pub stripe: u16,
    /// Units to take.
    pub take: u64,
    /// Units to give back.
    pub give: u64,
}

/// What a write asks of the hold it ends, as of [`Transaction::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryCondition {
    Any,
    /// Its time is over: `expires_at <= at`.
    Over,
    /// It is not: `expires_at > at`.
    Ahead,
}

/// One reservation's part of a transaction: its record goes from one state to another, and its
/// units and seats with it. Which of them move, and how, is [`super::rules::stock_change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordWrite {
    pub reservation: ReservationId,
    pub fingerprint: Fingerprint,
    /// The state the record must have; `None`: there must be no record.
    pub from: Option<ReservationState>,
    pub due: ExpiryCondition,
    pub to: ReservationState,
    pub qty: u32,
    /// Where the units come from or go back to; empty for seats and for a tombstone.
    pub draws: StripeAllocations,
    pub seats: Option<Seats>,
    /// Only when confirmed.
    pub order: Option<OrderId>,
    /// Empty when not given.
    pub payment_intent: String,
    /// When a hold ends. Also after it has: an expired record keeps it.
    pub expires_at: Option<UnixMillis>,
}

/// One conditional, all-or-nothing write. Actions are numbered stripes first, then records, then the
/// seats of each record that moves any, in order; [`TransactionOutcome::Cancelled`] has one reason per action in
/// that numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub token: RequestToken,
    pub event: EventId,
    /// Over how many partition keys the event's seats are spread; 0 where it has none.
    pub seat_keys: u16,
    /// Distinct stripes; empty when no record moves units.
    pub stripes: Vec<StripeUpdate>,
    /// Distinct reservations with distinct seats; never empty.
    pub records: Vec<RecordWrite>,
    /// Written into `updated_at` and `created_at`.
    pub at: UnixMillis,
}

impl Transaction {
    pub fn action_count(&self) -> usize {
        let seats: usize = self.records.iter().map(|r| r.seats_moved().len()).sum();
        self.stripes.len() + self.records.len() + seats
    }
}

impl RecordWrite {
    /// The seats this write changes: all it has, but for a tombstone, which changes none.
    pub fn seats_moved(&self) -> &[super::ids::SeatId] {
        match super::rules::stock_change(self.from, self.to) {
            super::rules::StockChange::None => &[],
            _ => self.seats.as_deref().unwrap_or_default(),
        }
    }

    /// The record as the store has it once this is written.
    pub fn view(&self, at: UnixMillis) -> RecordView {
        RecordView {
            fingerprint: self.fingerprint,
            state: self.to,
            order: self.order,
            qty: self.qty,
            draws: self.draws.clone(),
            seats: self.seats.clone(),
            expires_at: self.expires_at,
            at,
        }
    }
}

/// A stripe item as read or as returned by a failed condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeView {
    /// Units this stripe was given.
    pub capacity: u64,
    pub remaining: u64,
    pub version: u64,
    /// How many stripes the event has; only stripe 0 knows, others say `None`.
    pub stripes: Option<u16>,
    /// Over how many partition keys the event's seats are spread; 0 where stock is a quantity. Only
    /// stripe 0 knows.
    pub seat_keys: u16,
    /// The event takes no new reservations.
    pub closed: bool,
}

/// What must be known of an event to route an operation on it; hardly ever changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLayout {
    /// At least 1.
    pub stripes: u16,
    /// 0 where stock is a quantity.
    pub seat_keys: u16,
    pub closed: bool,
}

impl EventLayout {
    /// Of an event with these stripes, all of them, by index.
    pub fn of(stripes: &[StripeView]) -> Self {
        let first = stripes.first();
        Self {
            stripes: (stripes.len() as u16).max(1),
            seat_keys: first.map_or(0, |s| s.seat_keys),
            closed: first.is_some_and(|s| s.closed),
        }
    }

    pub fn is_seated(self) -> bool {
        self.seat_keys > 0
    }
}

/// A reservation's record as read or as returned by a failed condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    pub fingerprint: Fingerprint,
    pub state: ReservationState,
    pub order: Option<OrderId>,
    pub qty: u32,
    pub draws: StripeAllocations,
    pub seats: Option<Seats>,
    /// When a hold ends or ended.
    pub expires_at: Option<UnixMillis>,
    /// When the record got its state.
    pub at: UnixMillis,
}

/// Why one action did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// This action was fine; another cancelled the transaction.
    Fine,
    /// A stripe's condition failed; `None`: there is no such item.
    Stripe(Option<StripeView>),
    /// The record is not as the write needs it.
    Record(RecordView),
    /// There is no record, and the write needs one.
    RecordMissing,
    /// A record of that id exists and cannot be understood (written by something else).
    RecordUnreadable,
    /// The seat is not as the write needs it; `None`: there is no such seat.
    Seat(Option<SeatState>),
    /// Another transaction has the item.
    Conflict,
    Throttled,
    /// The store calls this action itself invalid.
    Invalid,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionOutcome {
    Committed,
    /// Not applied. One [`ActionOutcome`] per action, in order.
    Cancelled(Vec<ActionOutcome>),
    /// Not applied: the whole call was refused for conflict (or the same token is in progress).
    Conflict,
    /// Not applied: the whole call was throttled.
    Throttled,
    /// Not applied: the body was refused as a whole, without saying which action is at fault.
    Rejected,
    /// Not applied and not the body's fault: access denied, table missing, expired credentials.
    Refused,
    /// Timeout, lost answer, 5xx: it may or may not have been applied.
    Unknown,
}

/// What a strong read of all of an event's stripes found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripesRead {
    /// Every stripe, by index; at least one.
    Found(Vec<StripeView>),
    NotFound,
    /// The read failed in a way that a later try may not.
    Unavailable,
    Throttled,
}

/// What a strong read of some records found, in the order they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordsRead {
    /// `Ok(None)`: there is no such record. `Err`: there is one that cannot be understood.
    Found(Vec<Result<Option<RecordView>, Unreadable>>),
    Unavailable,
    Throttled,
}

/// A record that something else wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What a strong read of those of an event's seats that could be had at an instant found: those that
/// nobody has, and those whose hold is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FreeSeatsRead {
    Found(Vec<(SeatId, SeatState)>),
    Unavailable,
    Throttled,
}

/// What a read of all of an event's seats found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatsRead {
    Found(Vec<super::seats::SeatItem>),
    Unavailable,
    Throttled,
}
