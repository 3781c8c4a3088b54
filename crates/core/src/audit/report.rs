//! Breaches found by the audit, and their texts.

use std::fmt;

use super::event_records::{RecordLookup, SeatClaim};
use crate::ids::{EventId, OrderId, ReservationId, SeatId};
use crate::limits;
use crate::seats::SeatState;
use crate::time::UnixMillis;

/// Subject of a breach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreachSubject {
    Stripe(u16),
    /// A confirmation counter.
    Counter(u16),
    /// By its stored id, valid or not.
    Reservation(String),
    /// By its stored id, valid or not.
    Seat(String),
}

impl BreachSubject {
    pub fn kind(&self) -> &'static str {
        match self {
            BreachSubject::Stripe(_) => "stripe",
            BreachSubject::Counter(_) => "counter",
            BreachSubject::Reservation(_) => "reservation",
            BreachSubject::Seat(_) => "seat",
        }
    }

    pub fn id(&self) -> String {
        match self {
            BreachSubject::Stripe(index) | BreachSubject::Counter(index) => index.to_string(),
            BreachSubject::Reservation(id) | BreachSubject::Seat(id) => id.clone(),
        }
    }
}

/// Kinds of breaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreachKind {
    /// The item exists and cannot be understood.
    Unreadable(String),
    /// The item of this stripe is missing.
    StripeMissing,
    /// capacity differs from remaining + held + confirmed.
    Remaining(StripeBalance),
    /// The stripes and counters say that more or fewer units are held than records hold. No unit is wrong: only the
    /// figures "held" and "confirmed" are.
    Held {
        balance: HeldBalance,
        /// Units of the counter that is the subject.
        counter: i64,
    },
    /// The moved units of the stripes do not add up to 0. The units of the stripes are right; the totals of the event
    /// differ from them.
    Moved {
        sum: i64,
        /// Moved units of the stripe that is the subject: the one whose item was most likely edited.
        moved: i64,
    },
    /// The allocated units of a record differ from its quantity.
    DrawsDiffer {
        qty: u32,
        drawn: u64,
    },
    /// A record has units of a stripe that the event does not have.
    StripeUnknown {
        stripe: u16,
    },
    /// The number of seats that a record names differs from its quantity.
    SeatsDiffer {
        qty: u32,
        seats: usize,
    },
    /// A record names a seat more than once.
    SeatRepeated {
        seat: SeatId,
    },
    /// A record has both units and seats.
    UnitsAndSeats,
    /// A hold without an expiry time.
    ExpiryMissing,
    /// A hold that expired more than [`limits::AUDIT_OVERDUE_MAX`] before, and has its stock.
    Overdue {
        late_ms: u64,
    },
    OrderMissing,
    /// The order id is not the one derived from the reservation.
    OrderMismatch {
        order: OrderId,
        derived: OrderId,
    },
    OrderTwice {
        order: OrderId,
        other: ReservationId,
    },
    /// Several live records name the seat.
    ClaimedTwice {
        by: Vec<ReservationId>,
    },
    /// A live record names a seat that the event does not have.
    NoSuchSeat {
        claim: SeatClaim,
    },
    /// HOLD or SOLD although no live record names the seat.
    Orphan {
        seen: SeatState,
        named: RecordLookup,
    },
    /// One live record names the seat, and the item disagrees.
    Differs {
        seen: SeatState,
        /// The state of the other record that the item names, if it names one.
        named: Option<RecordLookup>,
        claim: SeatClaim,
    },
    /// The item is under a partition key where sales do not look for it.
    Misplaced {
        lies_under: String,
        belongs_under: String,
    },
}

impl BreachKind {
    /// Stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            BreachKind::Unreadable(_) => "UNREADABLE",
            BreachKind::StripeMissing => "STRIPE_MISSING",
            BreachKind::Remaining(_) => "REMAINING_DIFFERS",
            BreachKind::Held { .. } => "HELD_DIFFERS",
            BreachKind::Moved { .. } => "MOVED_DIFFERS",
            BreachKind::DrawsDiffer { .. } => "DRAWS_DIFFER",
            BreachKind::StripeUnknown { .. } => "DRAWS_NOWHERE",
            BreachKind::SeatsDiffer { .. } => "SEATS_DIFFER",
            BreachKind::SeatRepeated { .. } => "SEAT_REPEATED",
            BreachKind::UnitsAndSeats => "UNITS_AND_SEATS",
            BreachKind::ExpiryMissing => "EXPIRY_MISSING",
            BreachKind::Overdue { .. } => "OVERDUE",
            BreachKind::OrderMissing => "ORDER_MISSING",
            BreachKind::OrderMismatch { .. } => "ORDER_FOREIGN",
            BreachKind::OrderTwice { .. } => "ORDER_TWICE",
            BreachKind::ClaimedTwice { .. } => "SEAT_CLAIMED_TWICE",
            BreachKind::NoSuchSeat { .. } => "SEAT_MISSING",
            BreachKind::Orphan { .. } => "SEAT_ORPHAN",
            BreachKind::Differs { .. } => "SEAT_DIFFERS",
            BreachKind::Misplaced { .. } => "SEAT_MISPLACED",
        }
    }
}

impl fmt::Display for BreachKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BreachKind::Unreadable(why) => write!(f, "cannot be read: {why}"),
            BreachKind::StripeMissing => f.write_str("the item does not exist"),
            BreachKind::Remaining(line) => remaining(line, f),
            BreachKind::Held { balance, .. } => {
                let HeldBalance { stripes, confirmed, records, .. } = balance;
                write!(
                    f,
                    "counts held units wrongly: held {stripes} on the stripes - confirmed {confirmed} is {}, \
                     and reservations hold {records}; no stock is wrong, only status figures are",
                    balance.shown()
                )
            }
            BreachKind::Moved { sum, moved } => moved_units(*sum, *moved, f),
            BreachKind::DrawsDiffer { qty, drawn } => {
                write!(f, "allocates {drawn} units; qty is {qty}")
            }
            BreachKind::StripeUnknown { stripe } => {
                write!(f, "allocates units of stripe {stripe}, which the event does not have")
            }
            BreachKind::SeatsDiffer { qty, seats } => {
                write!(f, "names {seats} seats; qty is {qty}")
            }
            BreachKind::SeatRepeated { seat } => write!(f, "names seat {seat} more than once"),
            BreachKind::UnitsAndSeats => f.write_str("has both units and seats"),
            BreachKind::ExpiryMissing => {
                f.write_str("is HELD without expires_at and would never expire")
            }
            BreachKind::Overdue { late_ms } => write!(
                f,
                "is HELD and expired {} s ago; expired stock returns within {} s",
                late_ms / 1_000,
                limits::AUDIT_OVERDUE_MAX.as_secs()
            ),
            BreachKind::OrderMissing => f.write_str("is CONFIRMED without an order_id"),
            BreachKind::OrderMismatch { order, derived } => {
                write!(f, "has order {order}; repeated calls are answered with {derived}")
            }
            BreachKind::OrderTwice { order, other } => {
                write!(f, "has order {order}, and so has reservation {other}")
            }
            BreachKind::ClaimedTwice { by } => {
                f.write_str("is in several live reservations:")?;
                by.iter().try_for_each(|id| write!(f, " {id}"))
            }
            BreachKind::NoSuchSeat { claim } => {
                write!(f, "does not exist, and {claim} names it")
            }
            BreachKind::Orphan { seen, named } => {
                write!(f, "is {}, and {}", shown(seen), fate(*named))
            }
            BreachKind::Differs { seen, named, claim } => {
                write!(f, "is {}, and {claim} names it", shown(seen))?;
                named.map_or(Ok(()), |named| write!(f, "; {}", fate(named)))
            }
            BreachKind::Misplaced { lies_under, belongs_under } => {
                write!(
                    f,
                    "is stored under partition key {lies_under}; the server reads {belongs_under}"
                )
            }
        }
    }
}

fn remaining(line: &StripeBalance, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let StripeBalance { capacity, remaining, held, confirmed, .. } = line;
    let difference = line.difference();
    let (by, how) = (difference.abs(), if difference < 0 { "more" } else { "fewer" });
    write!(
        f,
        "{by} {how} than there can be: capacity {capacity}, and remaining {remaining} + held {held} \
         + confirmed {confirmed} is {}",
        i128::from(*capacity) - difference
    )?;
    if held + confirmed > *capacity {
        write!(f, "; oversold by {}", held + confirmed - capacity)?;
    }
    Ok(())
}

fn moved_units(sum: i64, moved: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (by, how) = (sum.unsigned_abs(), if sum < 0 { "high" } else { "low" });
    write!(
        f,
        "has moved {moved}, and the moved units of all stripes add up to {sum} instead of 0: the totals of the event \
         are {by} too {how}, and "
    )?;
    match sum < 0 {
        true => f.write_str("checks show units that no stripe has"),
        false => write!(f, "\"sold out\" is answered while up to {by} units remain"),
    }
}

impl fmt::Display for SeatClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.confirmed, self.until) {
            (true, _) => write!(f, "the confirmed reservation {}", self.reservation),
            (false, Some(UnixMillis(until))) => {
                write!(f, "reservation {}, held until {until},", self.reservation)
            }
            (false, None) => write!(f, "the held reservation {}", self.reservation),
        }
    }
}

/// A seat's state with the reservation that it names.
pub(super) fn shown(state: &SeatState) -> String {
    match state {
        SeatState::Available => "AVAILABLE".to_owned(),
        SeatState::Blocked => "BLOCKED".to_owned(),
        SeatState::Sold { reservation } => format!("SOLD to {reservation}"),
        SeatState::Hold { reservation, until } => {
            format!("in HOLD of {reservation} until {}", until.0)
        }
    }
}

fn fate(named: RecordLookup) -> String {
    match named {
        RecordLookup::NoRecord => "there is no such reservation".to_owned(),
        RecordLookup::Ended(state) => format!("that reservation is {}", state.name()),
        RecordLookup::NotLive => "that reservation is not live".to_owned(),
        RecordLookup::Elsewhere(state) => {
            format!("that reservation is {} and does not name the seat", state.name())
        }
        RecordLookup::Unreadable => "the record of that reservation cannot be read".to_owned(),
    }
}

/// One breach: subject and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub subject: BreachSubject,
    pub kind: BreachKind,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.subject.kind(), self.subject.id(), self.kind)
    }
}

/// Balance of a stripe, in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeBalance {
    pub index: u16,
    pub capacity: u64,
    pub remaining: i64,
    /// Units moved here from other stripes, less those moved away.
    pub moved: i64,
    pub version: u64,
    /// Allocated by HELD records.
    pub held: u64,
    /// Allocated by CONFIRMED records.
    pub confirmed: u64,
    /// Whether the stripe was the same before and after the records were read.
    pub still: bool,
}

impl StripeBalance {
    /// capacity − remaining − held − confirmed. Negative: more units are sold or on sale than exist. Positive: units
    /// without a holder are not on sale.
    pub fn difference(&self) -> i128 {
        let claimed = i128::from(self.held) + i128::from(self.confirmed);
        i128::from(self.capacity) - i128::from(self.remaining) - claimed
    }
}

/// Held units of a quantity event, as status figures show them and as records have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBalance {
    /// Sum over the stripes; includes the units of confirmed holds.
    pub stripes: i64,
    /// Sum over the confirmation counters.
    pub confirmed: i64,
    /// Units of HELD records that the stripes count.
    pub records: u64,
    /// Units of HELD records of an earlier version, which the stripes do not count.
    pub uncounted: u64,
}

impl HeldBalance {
    /// Held units by stripes and counters.
    pub fn shown(&self) -> i128 {
        i128::from(self.stripes) - i128::from(self.confirmed)
    }

    /// Held units that are shown and that no record has; negative: the reverse.
    pub fn difference(&self) -> i128 {
        self.shown() - i128::from(self.records)
    }
}

/// Seat counts by items, and by records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeatCounts {
    /// Items, including unreadable ones.
    pub total: u64,
    pub available: u64,
    pub hold: u64,
    pub sold: u64,
    pub blocked: u64,
    pub unreadable: u64,
    /// Seats that HELD records name.
    pub held: u64,
    /// Seats that CONFIRMED records name.
    pub confirmed: u64,
}

impl SeatCounts {
    /// total − available − held − confirmed − blocked. Meaningful only if nothing changes during the read.
    pub fn difference(&self) -> i128 {
        let sum = [self.available, self.held, self.confirmed, self.blocked];
        i128::from(self.total) - sum.into_iter().map(i128::from).sum::<i128>()
    }
}

/// Records by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservationCounts {
    pub held: u64,
    pub confirmed: u64,
    pub released: u64,
    pub expired: u64,
    pub refunded: u64,
    pub unreadable: u64,
}

/// Overdue holds that are not reclaimed yet; a breach from [`limits::AUDIT_OVERDUE_MAX`] on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverdueHolds {
    pub count: u64,
    /// The latest ones, at most [`limits::AUDIT_ITEMS_SHOWN_MAX`], with their delay in milliseconds.
    pub latest: Vec<(ReservationId, u64)>,
}

/// Result of the audit in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditVerdict {
    /// Everything was proven.
    Clean,
    /// No breach in the unchanged part; something changed during the read.
    Moving,
    Breached,
}

/// Result of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    pub event: EventId,
    pub closed: bool,
    pub seated: bool,
    /// The stripes that could be read, by index.
    pub stripes: Vec<StripeBalance>,
    /// `None` if it changed during every round, or cannot be read, or for a seated event.
    pub held: Option<HeldBalance>,
    /// Sum of the moved units of all stripes; 0 unless an item was edited. `None` if it changed during every round, or
    /// cannot be read, or for a seated event.
    pub moved: Option<i64>,
    pub seats: SeatCounts,
    pub reservations: ReservationCounts,
    /// Distinct order ids of confirmed records.
    pub orders: u64,
    pub overdue: OverdueHolds,
    pub breaches: Vec<Breach>,
    /// Stripes that changed during every round.
    pub moving_stripes: Vec<u16>,
    /// The held units changed during every round.
    pub moving_held: bool,
    /// The moved units changed during every round.
    pub moving_moved: bool,
    /// Seats that changed during every check, or exceeded the number of checks.
    pub moving_seats: u64,
    /// Whether something changed during the read, even if everything was proven.
    pub restless: bool,
}

impl AuditReport {
    pub fn verdict(&self) -> AuditVerdict {
        if !self.breaches.is_empty() {
            AuditVerdict::Breached
        } else if !self.moving_stripes.is_empty()
            || self.moving_held
            || self.moving_moved
            || self.moving_seats > 0
        {
            AuditVerdict::Moving
        } else {
            AuditVerdict::Clean
        }
    }
}
