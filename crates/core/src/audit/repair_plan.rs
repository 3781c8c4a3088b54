//! Decides which repairs are safe and which breaches need a person.
//!
//! A repair restores what the records contain, because the records are what callers were answered. Records are never
//! changed. Each repair carries the audited state as the condition of its write.

use std::fmt;

use super::event_records::{RecordLookup, SeatClaim};
use super::report::{
    AuditReport, Breach, BreachKind, BreachSubject, HeldBalance, StripeBalance, shown,
};

use crate::ids::SeatId;
use crate::seats::SeatState;
use crate::transaction::ReservationState;

/// One repair of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Sets the remaining units of a stripe to what the records leave. Condition: capacity, remaining and version are as
    /// audited.
    Remaining { seen: StripeBalance, to: u64 },
    /// Changes a confirmation counter by what the held units differ from the records. Every later write keeps that
    /// difference, so the repair is right even if units have moved since. Condition: the counter has the units that it
    /// had when it was audited, so the repair is applied once.
    Counter { counter: u16, seen: i64, to: i64 },
    /// Sets the moved units of a stripe so that those of all stripes add up to 0. No unit of a stripe changes, and every
    /// later move keeps the sum, so the repair is right even if units have moved since. Condition: the stripe has the
    /// moved units that it had when it was audited, so the repair is applied once.
    Moved { stripe: u16, seen: i64, to: i64 },
    /// Makes a seat available that no live record names. Condition: the item is as audited, and the record that the item
    /// names is still in its state.
    Free { seat: SeatId, seen: SeatState, named: RecordLookup },
    /// Assigns a seat to the one live record that names it. Condition: the item is as audited, and the record still names
    /// the seat.
    Give { seat: SeatId, seen: SeatState, claim: SeatClaim },
}

impl Repair {
    pub fn subject(&self) -> BreachSubject {
        match self {
            Repair::Remaining { seen, .. } => BreachSubject::Stripe(seen.index),
            Repair::Counter { counter, .. } => BreachSubject::Counter(*counter),
            Repair::Moved { stripe, .. } => BreachSubject::Stripe(*stripe),
            Repair::Free { seat, .. } | Repair::Give { seat, .. } => {
                BreachSubject::Seat(seat.as_str().to_owned())
            }
        }
    }

    /// Stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Repair::Remaining { .. } => "SET_REMAINING",
            Repair::Counter { .. } => "SET_COUNTER",
            Repair::Moved { .. } => "SET_MOVED",
            Repair::Free { .. } => "FREE_SEAT",
            Repair::Give { .. } => "GIVE_SEAT",
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::Remaining { seen, to } => {
                write!(f, "remaining {} → {to}", seen.remaining)
            }
            Repair::Counter { seen, to, .. } => write!(f, "confirmed units {seen} → {to}"),
            Repair::Moved { seen, to, .. } => write!(f, "moved units {seen} → {to}"),
            Repair::Free { seen, .. } => write!(f, "{} → AVAILABLE", shown(seen)),
            Repair::Give { seen, claim, .. } => {
                let to = match claim.confirmed {
                    true => "SOLD to",
                    false => "in HOLD of",
                };
                write!(f, "{} → {to} {}", shown(seen), claim.reservation)
            }
        }
    }
}

/// A breach without a repair, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnrepairedBreach {
    pub breach: Breach,
    pub why: &'static str,
}

/// Repairs of an event, and the breaches without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairPlan {
    pub repairs: Vec<Repair>,
    pub left: Vec<UnrepairedBreach>,
}

/// The event changed during the read, so its breaches are not certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventChanged;

/// Plans the repair of every breach in `report` that needs no judgement of a person.
///
/// # Errors
/// [`EventChanged`] if anything changed during the read.
pub fn plan(report: &AuditReport) -> Result<RepairPlan, EventChanged> {
    if report.restless {
        return Err(EventChanged);
    }
    let claims_known = !report.breaches.iter().any(hides_claims);
    let mut plan = RepairPlan::default();
    for breach in &report.breaches {
        match repair(breach, claims_known) {
            Ok(repair) => plan.repairs.push(repair),
            Err(why) => plan.left.push(UnrepairedBreach { breach: breach.clone(), why }),
        }
    }
    Ok(plan)
}

/// Whether this breach leaves the units that records hold per stripe unknown.
fn hides_claims(breach: &Breach) -> bool {
    match (&breach.subject, &breach.kind) {
        (BreachSubject::Reservation(_), BreachKind::Unreadable(_)) => true,
        (_, kind) => matches!(
            kind,
            BreachKind::DrawsDiffer { .. }
                | BreachKind::StripeUnknown { .. }
                | BreachKind::UnitsAndSeats
        ),
    }
}

fn repair(breach: &Breach, claims_known: bool) -> Result<Repair, &'static str> {
    match &breach.kind {
        BreachKind::Remaining(line) => remaining(line, claims_known),
        BreachKind::Held { balance, counter } => held(breach, balance, *counter, claims_known),
        BreachKind::Moved { sum, moved } => moved_units(breach, *sum, *moved),
        BreachKind::Orphan { seen, named } => match named {
            RecordLookup::Unreadable => {
                Err("the record of this seat may be live: repair or delete the record first")
            }
            named => Ok(Repair::Free { seat: seat(breach)?, seen: seen.clone(), named: *named }),
        },
        BreachKind::Differs { seen, named, claim } => {
            if *seen == SeatState::Blocked {
                return Err(
                    "an operator blocked the seat: unblock the seat or refund the reservation",
                );
            }
            if *named == Some(RecordLookup::Unreadable) {
                return Err(
                    "the record that the seat names may be live: repair or delete that record first",
                );
            }
            if !claim.confirmed && claim.until.is_none() {
                return Err("the hold has no expiry time: release the reservation");
            }
            Ok(Repair::Give { seat: seat(breach)?, seen: seen.clone(), claim: claim.clone() })
        }
        BreachKind::ClaimedTwice { .. } => {
            Err("several reservations name the seat: refund or release all but one")
        }
        BreachKind::NoSuchSeat { .. } => {
            Err("the event has no such seat: import the seat, then run reconcile again")
        }
        BreachKind::Misplaced { .. } => {
            Err("the seat is stored under another key: import the seat, and delete this item")
        }
        BreachKind::Unreadable(_) => Err("written by another program, whose format is unknown"),
        BreachKind::StripeMissing => {
            Err("a stripe cannot be recreated, because its capacity is unknown")
        }
        BreachKind::OrderMissing
        | BreachKind::OrderMismatch { .. }
        | BreachKind::OrderTwice { .. } => {
            Err("a buyer may have received this order id, which is never changed")
        }
        BreachKind::ExpiryMissing => Err("release the reservation"),
        BreachKind::Overdue { .. } => Err(
            "a running server expires the hold: run verify again in ten seconds; if the hold stays, \
             read the log of the server and release the reservation",
        ),
        BreachKind::DrawsDiffer { .. }
        | BreachKind::StripeUnknown { .. }
        | BreachKind::SeatsDiffer { .. }
        | BreachKind::SeatRepeated { .. }
        | BreachKind::UnitsAndSeats => {
            Err("a repair never changes a record: refund or release the reservation")
        }
    }
}

fn remaining(line: &StripeBalance, claims_known: bool) -> Result<Repair, &'static str> {
    if !claims_known {
        return Err("a damaged record may hold units of this stripe: repair that record first");
    }
    let to = line.capacity.checked_sub(line.held + line.confirmed);
    let to = to.ok_or("the stripe is oversold: refund reservations or restock the event")?;
    Ok(Repair::Remaining { seen: *line, to })
}

fn held(
    breach: &Breach,
    balance: &HeldBalance,
    seen: i64,
    claims_known: bool,
) -> Result<Repair, &'static str> {
    if !claims_known {
        return Err("a damaged record may be held: repair that record first");
    }
    let out_of_range = "the counter would be out of its range";
    let BreachSubject::Counter(counter) = breach.subject else {
        return Err(out_of_range);
    };
    let to = i64::try_from(i128::from(seen) + balance.difference());
    Ok(Repair::Counter { counter, seen, to: to.map_err(|_| out_of_range)? })
}

fn moved_units(breach: &Breach, sum: i64, seen: i64) -> Result<Repair, &'static str> {
    let out_of_range = "the moved units would be out of their range";
    let BreachSubject::Stripe(stripe) = breach.subject else {
        return Err(out_of_range);
    };
    Ok(Repair::Moved { stripe, seen, to: seen.checked_sub(sum).ok_or(out_of_range)? })
}

/// The seat of a breach; read from the store, so its id is valid.
fn seat(breach: &Breach) -> Result<SeatId, &'static str> {
    let invalid = "the seat id is invalid";
    match &breach.subject {
        BreachSubject::Seat(id) => id.parse().map_err(|_| invalid),
        BreachSubject::Stripe(_) | BreachSubject::Counter(_) | BreachSubject::Reservation(_) => {
            Err(invalid)
        }
    }
}

impl RecordLookup {
    /// The state that the record must still have for the repair; `None`: there must be no record.
    pub fn state(self) -> Option<Option<ReservationState>> {
        match self {
            RecordLookup::NoRecord => Some(None),
            RecordLookup::Ended(state) | RecordLookup::Elsewhere(state) => Some(Some(state)),
            RecordLookup::NotLive | RecordLookup::Unreadable => None,
        }
    }
}

impl SeatClaim {
    /// The state that the record must still have for the repair.
    pub fn state(&self) -> ReservationState {
        match self.confirmed {
            true => ReservationState::Confirmed,
            false => ReservationState::Held,
        }
    }

    /// The seat's item after it is assigned to this record. `None` for a hold without an expiry time.
    pub fn seat_state(&self) -> Option<SeatState> {
        let reservation = self.reservation.clone();
        match (self.confirmed, self.until) {
            (true, _) => Some(SeatState::Sold { reservation }),
            (false, Some(until)) => Some(SeatState::Hold { reservation, until }),
            (false, None) => None,
        }
    }
}
