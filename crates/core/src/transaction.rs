//! A transaction as the store receives it, and its outcomes.
//!
//! Plain data in both directions. `inventory_store` encodes a [`Transaction`] as `TransactWriteItems` and decodes the
//! answer to a [`TransactionOutcome`]; the simulation applies transactions to a map.

use super::fault::{self, Fault};
use smallvec::SmallVec;

use super::ids::{EventId, Fingerprint, OrderId, PaymentHash, ReservationId, SeatId, Seats};
use super::operation::Operation;
use super::seats::SeatState;
use super::time::UnixMillis;

/// 128 random bits, sent as `ClientRequestToken` (32 hex digits of the 36 allowed). A new body gets a new token; a
/// resent body keeps its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestToken(pub u128);

/// States of a reservation that has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationState {
    /// Holds its stock until it expires.
    Held,
    /// Owns its stock permanently.
    Confirmed,
    /// Released, or a tombstone of a release that arrived first.
    Released,
    /// Was held and has expired.
    Expired,
    /// Was confirmed and refunded by an operator.
    Refunded,
}

impl ReservationState {
    /// As stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Refunded => "REFUNDED",
        }
    }
}

/// Change of units and seats when a record moves from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StockChange {
    /// Stock is moved from the event to the reservation.
    Reserve,
    /// The stock stays with the reservation; seats change from HOLD to SOLD.
    Keep,
    /// Stock is moved from the reservation back to the event.
    Return,
    /// No stock is involved.
    None,
}

/// The stock change of a transition; `from` is `None` if there is no record.
pub fn stock_change(from: Option<ReservationState>, to: ReservationState) -> StockChange {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    match (from, to) {
        (Some(Expired), Confirmed) if fault::planted(Fault::ExpiredKeepsStock) => StockChange::Keep,
        (None | Some(Expired), Held | Confirmed) => StockChange::Reserve,
        (Some(Held), Confirmed) => StockChange::Keep,
        (Some(Held), Released | Expired) | (Some(Confirmed), Refunded) => StockChange::Return,
        _ => StockChange::None,
    }
}

/// Units reserved on one stripe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripeAllocation {
    pub stripe: u16,
    pub units: u32,
}

/// Stripe allocations of a reservation; usually one.
pub type StripeAllocations = SmallVec<[StripeAllocation; 2]>;

/// `remaining += give - take + moved, capacity += moved, held += held, version += 1` on one stripe item.
///
/// Conditions: the item exists; if units are taken or moved, the event is open; if the remaining units decrease, there
/// are that many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripeUpdate {
    pub stripe: u16,
    /// Units to reserve.
    pub take: u64,
    /// Units to return.
    pub give: u64,
    /// Change of the units that the stripe counts as held: see [`HeldChange`].
    pub held: i64,
    /// Available units that this stripe gets from another stripe of the same transaction; negative: that it gives. The
    /// sum over a transaction is 0.
    pub moved: i64,
    /// The store of the simulation applies the update without its conditions: a planted fault.
    #[cfg(feature = "planted-faults")]
    pub is_unconditional: bool,
}

impl StripeUpdate {
    /// Change of the remaining units.
    pub fn change(&self) -> i64 {
        signed(self.give).saturating_sub(signed(self.take)).saturating_add(self.moved)
    }
}

/// `confirmed_units += units` on one confirmation counter of the event, without a condition.
///
/// The commit of a hold writes no stripe, so the stripes go on counting its units as held. The counters have the units of
/// all commits of holds: the held units of an event are the sum over its stripes less the sum over its counters. Any
/// counter is right; several exist so that lanes do not conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterUpdate {
    /// Below [`super::limits::confirmation_counters`] of the event's stripes.
    pub counter: u16,
    pub units: u64,
}

/// How a write changes the number of held units of a quantity event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldChange {
    /// Not at all: a direct commit, a refund, a tombstone, seats, or a hold that was never counted.
    None,
    /// Its stripes count the units as held.
    Add,
    /// Its stripes no longer count the units as held.
    Remove,
    /// A confirmation counter counts the units.
    Confirm,
}

/// Condition on the expiry of the hold that a write ends, as of [`Transaction::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryCondition {
    Any,
    /// The hold has expired: `expires_at <= at`.
    Expired,
    /// The hold has not expired: `expires_at > at`.
    NotExpired,
}

/// The part of a transaction that belongs to one reservation: the transition of its record, with its units and
/// seats. [`stock_change`] derives which of them move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordWrite {
    /// The operation that the write executes, whole: it is decided again if the write fails. The record
    /// takes its reservation and its payment from it, and everything else from the fields below.
    pub operation: Operation,
    pub fingerprint: Fingerprint,
    /// Required state of the record; `None`: no record may exist.
    pub from: Option<ReservationState>,
    pub due: ExpiryCondition,
    pub to: ReservationState,
    pub qty: u32,
    /// Stripes that the units come from or return to; empty for seats and for a tombstone.
    pub draws: StripeAllocations,
    pub seats: Option<Seats>,
    /// Set for a confirmed record only.
    pub order: Option<OrderId>,
    /// Hold expiry. An expired record keeps it.
    pub expires_at: Option<UnixMillis>,
    /// Time of the last transition of a confirmed record to which the write adds a payment and nothing else. Condition:
    /// the record has no payment.
    pub payment_added_to: Option<UnixMillis>,
    /// See [`RecordView::counted`].
    pub counted: bool,
}

/// One conditional, atomic write. Actions are numbered: stripes first, then records, then the seats of each record
/// that moves seats, then the confirmation counter. [`TransactionOutcome::Cancelled`] has one outcome per action in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub token: RequestToken,
    pub event: EventId,
    /// Number of partition keys for the event's seats; 0 for a quantity event.
    pub seat_keys: u16,
    /// Distinct stripes; empty if no record moves units.
    pub stripes: Vec<StripeUpdate>,
    /// Distinct reservations with distinct seats. Empty only where `stripes` move units.
    pub records: Vec<RecordWrite>,
    /// `Some` if a record confirms counted units.
    pub counter: Option<CounterUpdate>,
    /// Written into `updated_at` and `created_at`.
    pub at: UnixMillis,
}

impl Transaction {
    pub fn action_count(&self) -> usize {
        let seats: usize = self.records.iter().map(|r| r.seats_moved().len()).sum();
        self.stripes.len() + self.records.len() + seats + usize::from(self.counter.is_some())
    }
}

impl RecordWrite {
    pub fn reservation(&self) -> &ReservationId {
        &self.operation.reservation
    }

    /// The seats that the write changes: all seats of the record, none for a tombstone.
    pub fn seats_moved(&self) -> &[super::ids::SeatId] {
        match stock_change(self.from, self.to) {
            StockChange::None => &[],
            _ => self.seats.as_deref().unwrap_or_default(),
        }
    }

    /// How the write changes the number of held units.
    pub fn held_change(&self) -> HeldChange {
        use ReservationState::{Confirmed, Expired, Held, Released};
        if !(self.counted || fault::planted(Fault::UncountedHoldCounted)) || self.draws.is_empty() {
            return HeldChange::None;
        }
        match (self.from, self.to) {
            (_, Held) => HeldChange::Add,
            (Some(Held), Confirmed) if fault::planted(Fault::ConfirmUncounted) => HeldChange::None,
            (Some(Held), Confirmed) => HeldChange::Confirm,
            (Some(Held), Released | Expired) if fault::planted(Fault::HeldNotReturned) => {
                HeldChange::None
            }
            (Some(Held), Released | Expired) => HeldChange::Remove,
            _ => HeldChange::None,
        }
    }

    /// The record after the write.
    pub fn view(&self, at: UnixMillis) -> RecordView {
        RecordView {
            fingerprint: self.fingerprint,
            state: self.to,
            order: self.order,
            payment: match self.to {
                ReservationState::Confirmed => PaymentHash::of(&self.operation.payment_intent),
                _ => None,
            },
            qty: self.qty,
            draws: self.draws.clone(),
            seats: self.seats.clone(),
            expires_at: self.expires_at,
            counted: self.counted,
            at: self.payment_added_to.unwrap_or(at),
        }
    }
}

/// A stripe item as read or as returned by a failed condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripeView {
    /// Total units of the stripe.
    pub capacity: u64,
    pub remaining: u64,
    /// Units that were moved here from other stripes, less those moved away. Included in `capacity`.
    pub moved: i64,
    pub version: u64,
    /// Number of stripes of the event; `Some` on stripe 0 only.
    pub stripes: Option<u16>,
    /// Number of partition keys for the event's seats; 0 for a quantity event. Stored on stripe 0 only.
    pub seat_keys: u16,
    /// Whether the event accepts no new reservations.
    pub closed: bool,
    /// Units of the stripe that were held and not returned since; those of confirmed holds are included. Negative only
    /// if the item was edited.
    pub held: i64,
    /// Sum of the event's confirmation counters; `Some` on stripe 0 of a read that includes them.
    pub confirmed_holds: Option<i64>,
}

/// Units of a quantity event that unexpired or overdue holds have, by a read of all its stripes and counters; `None` if
/// the read did not include the counters. The items are read one after the other, so the result is limited to what is
/// possible.
pub fn held_units(stripes: &[StripeView]) -> Option<u64> {
    let confirmed = stripes.first()?.confirmed_holds?;
    let held = stripes.iter().fold(0_i64, |sum, stripe| sum.saturating_add(stripe.held));
    let taken = stripes.iter().map(|stripe| stripe.capacity.saturating_sub(stripe.remaining));
    let held = u64::try_from(held.saturating_sub(confirmed)).unwrap_or(0);
    Some(held.min(taken.sum()))
}

impl StripeView {
    /// The remaining units as if none had been moved between stripes.
    pub(crate) fn remaining_before_moves(&self) -> i64 {
        signed(self.remaining).saturating_sub(self.moved)
    }

    /// The capacity as if no units had been moved between stripes.
    pub(crate) fn capacity_before_moves(&self) -> i64 {
        signed(self.capacity).saturating_sub(self.moved)
    }
}

/// Sums over all stripes of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockTotals {
    pub capacity: u64,
    pub remaining: u64,
}

impl StockTotals {
    /// The totals of an event with these stripes, which may have been read one after the other.
    ///
    /// A move of units between two stripes changes `remaining` and `capacity` of both. A read that sees one of the
    /// stripes before the move and the other one after it would miss the units, or count them twice. So each stripe
    /// contributes what it has without moved units, a figure that no move changes. The moved units of all stripes add
    /// up to 0.
    pub fn of(stripes: &[StripeView]) -> Self {
        let sum = |of: fn(&StripeView) -> i64| {
            let sum = stripes.iter().map(of).fold(0, i64::saturating_add);
            u64::try_from(sum).unwrap_or(0)
        };
        if fault::planted(Fault::MovedUnitsCounted) {
            return Self {
                capacity: stripes.iter().map(|stripe| stripe.capacity).sum(),
                remaining: stripes.iter().map(|stripe| stripe.remaining).sum(),
            };
        }
        Self {
            capacity: sum(StripeView::capacity_before_moves),
            remaining: sum(StripeView::remaining_before_moves),
        }
    }
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// Layout of an event, as needed to route an operation; rarely changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLayout {
    /// At least 1.
    pub stripes: u16,
    /// 0 for a quantity event.
    pub seat_keys: u16,
    pub closed: bool,
}

impl EventLayout {
    /// The layout of an event with these stripes, complete and by index.
    pub(crate) fn of(stripes: &[StripeView]) -> Self {
        let first = stripes.first();
        Self {
            stripes: (stripes.len() as u16).max(1),
            seat_keys: first.map_or(0, |s| s.seat_keys),
            closed: first.is_some_and(|s| s.closed),
        }
    }

    pub(crate) fn is_seated(self) -> bool {
        self.seat_keys > 0
    }
}

/// A reservation's record as read or as returned by a failed condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView {
    pub fingerprint: Fingerprint,
    pub state: ReservationState,
    pub order: Option<OrderId>,
    /// Set for a confirmed record with a payment only.
    pub payment: Option<PaymentHash>,
    pub qty: u32,
    pub draws: StripeAllocations,
    pub seats: Option<Seats>,
    /// Hold expiry, of a current or former hold.
    pub expires_at: Option<UnixMillis>,
    /// Whether the stripes counted the units as held when the hold was written. False for a record of a version that
    /// did not count them, and for a record that was never a hold of units. Never changes.
    pub counted: bool,
    /// Time of the last transition.
    pub at: UnixMillis,
}

/// Outcome of one action of a cancelled transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The action did not fail; another action cancelled the transaction.
    Fine,
    /// The condition on a stripe failed; `None`: the item does not exist.
    Stripe(Option<StripeView>),
    /// The condition on a record failed; this is the stored record.
    Record(RecordView),
    /// The condition on a record failed, because there is no record.
    RecordMissing,
    /// The condition on a record failed, and the stored record cannot be understood.
    RecordUnreadable,
    /// The condition on a seat failed; `None`: the seat does not exist.
    Seat(Option<SeatState>),
    /// Another transaction is writing the item.
    Conflict,
    Throttled,
    /// The store rejects the action itself as invalid.
    Invalid,
}

/// Outcome of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionOutcome {
    Committed,
    /// Not applied. One [`ActionOutcome`] per action, in order.
    Cancelled(Vec<ActionOutcome>),
    /// Not applied: the whole request conflicted (or the same token is in progress).
    Conflict,
    /// Not applied: the whole request was throttled.
    Throttled,
    /// Not applied: the request was rejected as invalid, without a reason per action.
    Rejected,
    /// Not applied, and the request is valid: no connection, access denied, table missing, expired credentials, full
    /// disk. Every transaction would be refused now.
    Refused,
    /// May or may not have been applied: timeout, lost answer, 5xx.
    Unknown,
}

/// Result of a strong read of all stripes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripesRead {
    /// Every stripe, by index; at least one.
    Found(Vec<StripeView>),
    NotFound,
    /// The read failed; a retry may succeed.
    Unavailable,
    Throttled,
}

/// Result of a strong read of records, in the requested order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordsRead {
    /// `Ok(None)`: there is no record. `Err`: the record cannot be understood.
    Found(Vec<Result<Option<RecordView>, Unreadable>>),
    Unavailable,
    Throttled,
}

/// A record that this server cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Result of a strong read of the available seats of an event: those without a holder, and those whose hold has
/// expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FreeSeatsRead {
    Found(Vec<(SeatId, SeatState)>),
    Unavailable,
    Throttled,
}

/// Result of a read of all seats of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatsRead {
    Found(Vec<super::seats::SeatItem>),
    Unavailable,
    Throttled,
}
