//! One batch as the store sees it, and what the store can say to it.
//!
//! Plain data both ways. `store::codec` turns a [`Transaction`] into a `TransactWriteItems` call and
//! its result into an [`Outcome`]; the simulation applies it to a map.

use super::ids::{EventId, Fingerprint, OrderId, ReservationId};
use super::time::UnixMillis;

/// 128 random bits, the `ClientRequestToken` (32 hex digits of the 36 allowed). A new body gets a
/// new token; the same body is sent again under the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u128);

/// The states of a reservation that this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationState {
    Confirmed,
    /// Released, or a tombstone of a release that arrived first.
    Released,
}

/// Units taken from one stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub stripe: u16,
    pub units: u32,
}

/// `remaining -= take, version += 1, if remaining >= take` on one stripe item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeUpdate {
    pub stripe: u16,
    /// Units to take, at least 1.
    pub take: u64,
}

/// A reservation's record, written only if no record of that id exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub reservation: ReservationId,
    pub fingerprint: Fingerprint,
    pub state: ReservationState,
    pub qty: u32,
    /// Where the units came from; empty for a tombstone.
    pub draws: Vec<Draw>,
    /// Only when confirmed.
    pub order: Option<OrderId>,
    /// Empty when not given.
    pub payment_intent: String,
}

/// One conditional, all-or-nothing write. Actions are numbered stripes first, then records, in
/// order; [`Outcome::Cancelled`] has one reason per action in that numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub token: Token,
    pub event: EventId,
    /// Distinct stripes; may be empty when every record is a tombstone.
    pub stripes: Vec<StripeUpdate>,
    /// Distinct reservations; never empty.
    pub records: Vec<NewRecord>,
    /// Written into `updated_at` and `created_at`.
    pub at: UnixMillis,
}

impl Transaction {
    pub fn action_count(&self) -> usize {
        self.stripes.len() + self.records.len()
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
}

/// A reservation's record as returned by a failed condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView {
    pub fingerprint: Fingerprint,
    pub state: ReservationState,
    pub order: Option<OrderId>,
}

/// Why one action did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This action was fine; another cancelled the transaction.
    Fine,
    /// A stripe's condition failed; `None`: there is no such item.
    Stripe(Option<StripeView>),
    /// A record of that id exists.
    Record(RecordView),
    /// A record of that id exists and cannot be understood (written by something else).
    RecordUnreadable,
    /// Another transaction has the item.
    Conflict,
    Throttled,
    /// The store calls this action itself invalid.
    Invalid,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// Not applied. One [`Reason`] per action, in order.
    Cancelled(Vec<Reason>),
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
pub enum EventRead {
    /// Every stripe, by index; at least one.
    Found(Vec<StripeView>),
    NotFound,
    /// The read failed in a way that a later try may not.
    Unavailable,
    Throttled,
}
