//! Data of an event that the audit reads, in compact form.

use crate::ids::{EventId, OrderId, ReservationId, SeatId, Seats};
use crate::seats::SeatState;
use crate::time::UnixMillis;
use crate::transaction::{ReservationState, StripeAllocations};

/// An item, as one strong read returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredItem<T> {
    Read(T),
    Missing,
    /// Written by another program; the reason why it cannot be understood.
    Unreadable(String),
}

impl<T> StoredItem<T> {
    pub fn read(&self) -> Option<&T> {
        match self {
            StoredItem::Read(item) => Some(item),
            StoredItem::Missing | StoredItem::Unreadable(_) => None,
        }
    }
}

/// A stripe's item. Numbers that no sale can produce are read as they are, because items may have been edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeAmounts {
    /// Total units of the stripe.
    pub capacity: u64,
    pub remaining: i64,
    pub version: u64,
    pub closed: bool,
    /// Units that the stripe counts as held, those of confirmed holds included.
    pub held: i64,
    /// See [`crate::transaction::StripeView::moved`].
    pub moved: i64,
}

/// A stripe, read before and after the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeReads {
    /// The later read.
    pub item: StoredItem<StripeAmounts>,
    /// Whether both reads returned the same.
    pub still: bool,
    /// Whether both reads returned the same moved units.
    pub(crate) moved_still: bool,
}

impl StripeReads {
    /// Pairs two reads of an event's stripes by index.
    pub fn pair(
        before: &[StoredItem<StripeAmounts>],
        after: Vec<StoredItem<StripeAmounts>>,
    ) -> Vec<Self> {
        let same_shape = before.len() == after.len();
        let moved = |item: &StoredItem<StripeAmounts>| item.read().map(|item| item.moved);
        let sight = |(index, item): (usize, StoredItem<StripeAmounts>)| {
            let earlier = before.get(index).filter(|_| same_shape);
            Self {
                still: earlier == Some(&item),
                moved_still: earlier.is_some_and(|earlier| moved(earlier) == moved(&item)),
                item,
            }
        };
        after.into_iter().enumerate().map(sight).collect()
    }
}

/// The confirmation counters, read before and after the records. Each has the units of confirmed holds; a missing item
/// counts as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterReads {
    /// By index, of the later read.
    pub items: Vec<StoredItem<i64>>,
    /// Whether both reads returned the same.
    pub still: bool,
}

impl CounterReads {
    pub fn pair(before: &[StoredItem<i64>], after: Vec<StoredItem<i64>>) -> Self {
        Self { still: before == after, items: after }
    }

    /// The units of all counters; `None` if an item cannot be understood.
    pub(super) fn sum(&self) -> Option<i64> {
        self.items.iter().try_fold(0_i64, |sum, item| match item {
            StoredItem::Read(units) => Some(sum.saturating_add(*units)),
            StoredItem::Missing => Some(sum),
            StoredItem::Unreadable(_) => None,
        })
    }
}

/// The fields of a reservation's record that the audit needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    pub reservation: ReservationId,
    pub state: ReservationState,
    pub qty: u32,
    pub draws: StripeAllocations,
    pub seats: Option<Seats>,
    pub order: Option<OrderId>,
    pub expires_at: Option<UnixMillis>,
    /// See [`crate::transaction::RecordView::counted`].
    pub counted: bool,
}

impl AuditRecord {
    pub(super) fn units(&self) -> u64 {
        self.draws.iter().map(|draw| u64::from(draw.units)).sum()
    }

    /// Whether the record holds stock: released, expired and refunded records hold none.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, ReservationState::Held | ReservationState::Confirmed)
    }

    pub(crate) fn names(&self, seat: &SeatId) -> bool {
        self.seats.as_deref().unwrap_or_default().contains(seat)
    }
}

/// A seat's item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSeat {
    pub id: SeatId,
    pub state: SeatState,
}

/// An item of the event that cannot be understood. Its id is as stored, valid or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableItem {
    pub id: String,
    pub why: String,
}

/// A seat's item under a partition key where sales do not look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisplacedSeat {
    pub seat: SeatId,
    pub lies_under: String,
    pub belongs_under: String,
}

/// All data read of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecords {
    pub event: EventId,
    /// By index.
    pub stripes: Vec<StripeReads>,
    pub counters: CounterReads,
    /// Number of partition keys for the seats; 0 for a quantity event.
    pub seat_keys: u16,
    /// Records that hold stock; of the others only the number is kept.
    pub(super) live: Vec<AuditRecord>,
    pub(super) released: u64,
    pub(super) expired: u64,
    pub(super) refunded: u64,
    pub unreadable_records: Vec<UnreadableItem>,
    /// Seats under their own partition keys, distinct.
    pub seats: Vec<AuditSeat>,
    pub unreadable_seats: Vec<UnreadableItem>,
    pub misplaced: Vec<MisplacedSeat>,
}

impl EventRecords {
    pub fn new(event: EventId, stripes: Vec<StripeReads>, seat_keys: u16) -> Self {
        Self {
            event,
            stripes,
            counters: CounterReads { items: Vec::new(), still: true },
            seat_keys,
            live: Vec::new(),
            released: 0,
            expired: 0,
            refunded: 0,
            unreadable_records: Vec::new(),
            seats: Vec::new(),
            unreadable_seats: Vec::new(),
            misplaced: Vec::new(),
        }
    }

    /// Adds a record.
    pub fn record(&mut self, record: AuditRecord) {
        match record.state {
            ReservationState::Held | ReservationState::Confirmed => self.live.push(record),
            ReservationState::Released => self.released += 1,
            ReservationState::Expired => self.expired += 1,
            ReservationState::Refunded => self.refunded += 1,
        }
    }

    pub(crate) fn is_seated(&self) -> bool {
        self.seat_keys > 0
    }

    /// Records kept in memory.
    pub fn records_kept(&self) -> usize {
        self.live.len() + self.unreadable_records.len()
    }

    /// All records of the event so far.
    pub fn records_seen(&self) -> u64 {
        self.records_kept() as u64 + self.released + self.expired + self.refunded
    }

    /// Seats kept in memory.
    pub fn seats_kept(&self) -> usize {
        self.seats.len() + self.unreadable_seats.len() + self.misplaced.len()
    }
}

/// The state that a live record requires of a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatClaim {
    pub reservation: ReservationId,
    /// CONFIRMED, so the seat must be SOLD; otherwise HELD, so it must be in HOLD.
    pub confirmed: bool,
    /// Hold expiry; a damaged record may have none.
    pub until: Option<UnixMillis>,
}

impl SeatClaim {
    pub(super) fn of(record: &AuditRecord) -> Self {
        Self {
            reservation: record.reservation.clone(),
            confirmed: record.state == ReservationState::Confirmed,
            until: record.expires_at,
        }
    }

    /// Whether `seat` is in the state that the record requires.
    pub(super) fn agrees(&self, seat: &SeatState) -> bool {
        match seat {
            SeatState::Sold { reservation } => self.confirmed && *reservation == self.reservation,
            SeatState::Hold { reservation, until } => {
                !self.confirmed
                    && *reservation == self.reservation
                    && self.until.is_none_or(|mine| mine == *until)
            }
            SeatState::Available | SeatState::Blocked => false,
        }
    }
}

/// Result of looking up the record that a seat's item names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLookup {
    /// The record does not exist.
    NoRecord,
    /// The record has ended, in this state.
    Ended(ReservationState),
    /// Missing or ended: ended records are not kept.
    NotLive,
    /// The record is live and does not name the seat.
    Elsewhere(ReservationState),
    /// The record cannot be understood and may be live.
    Unreadable,
}
