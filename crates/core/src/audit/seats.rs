//! Whose a seat is: what its item says against what the live records say.

use std::collections::HashMap;

use super::books::{AuditRecord, Item};
use super::report::Fault;
use crate::ids::{ReservationId, SeatId};
use crate::seats::SeatState;
use crate::time::UnixMillis;
use crate::transaction::ReservationState;

/// What a live record that names a seat wants its item to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub reservation: ReservationId,
    /// CONFIRMED, so the seat is SOLD; else HELD, so it is in HOLD.
    pub confirmed: bool,
    /// When the hold ends; a damaged record may not say.
    pub until: Option<UnixMillis>,
}

impl Claim {
    pub(super) fn of(record: &AuditRecord) -> Self {
        Self {
            reservation: record.reservation.clone(),
            confirmed: record.state == ReservationState::Confirmed,
            until: record.expires_at,
        }
    }

    /// Whether `seat` is as this record needs it.
    fn agrees(&self, seat: &SeatState) -> bool {
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

/// What became of the record that a seat's item names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// There is no such record.
    NoRecord,
    /// It has ended in this state.
    Ended(ReservationState),
    /// One of the two: records that have ended are not kept.
    NotLive,
    /// It is live and does not name the seat.
    Elsewhere(ReservationState),
    /// It cannot be understood, so it may well be live.
    Unreadable,
}

/// The reservation that a seat's item names.
pub fn holder(seat: &SeatState) -> Option<&ReservationId> {
    match seat {
        SeatState::Hold { reservation, .. } | SeatState::Sold { reservation } => Some(reservation),
        SeatState::Available | SeatState::Blocked => None,
    }
}

/// What is wrong with a seat, if anything is. `named` is asked for at most the reservation in
/// `item` that is none of `claims`.
pub(super) fn fault(
    item: &Item<SeatState>,
    claims: &[Claim],
    named: impl FnOnce(&ReservationId) -> Named,
) -> Option<Fault> {
    if claims.len() > 1 {
        let by = claims.iter().map(|claim| claim.reservation.clone());
        return Some(Fault::ClaimedTwice { by: by.collect() });
    }
    let seen = match (item, claims.first()) {
        // Named among what cannot be read.
        (Item::Unreadable(_), _) | (Item::Missing, None) => return None,
        (Item::Missing, Some(claim)) => {
            return Some(Fault::NoSuchSeat {
                claim: claim.clone(),
            });
        }
        (Item::Read(seen), _) => seen,
    };
    match (claims.first(), holder(seen)) {
        (Some(claim), _) if claim.agrees(seen) => None,
        (Some(claim), Some(holder)) if *holder != claim.reservation => Some(Fault::Differs {
            seen: seen.clone(),
            named: Some(named(holder)),
            claim: claim.clone(),
        }),
        (Some(claim), _) => Some(Fault::Differs {
            seen: seen.clone(),
            named: None,
            claim: claim.clone(),
        }),
        (None, Some(holder)) => Some(Fault::Orphan {
            seen: seen.clone(),
            named: named(holder),
        }),
        (None, None) => None,
    }
}

/// A seat whose item and records disagree as read, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub seat: SeatId,
    /// Every record that has to do with it.
    pub involved: Vec<ReservationId>,
    /// What it is if the disagreement lasts.
    pub fault: Fault,
}

/// Seats and records as they were at one and the same instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub seats: HashMap<SeatId, Item<SeatState>>,
    pub records: HashMap<ReservationId, Item<AuditRecord>>,
}

/// What a second look at a suspect shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The sale had moved on between two reads: nothing is wrong.
    Fine,
    Wrong(Fault),
    /// The seat has gone to this reservation: look again, with its record.
    With(ReservationId),
}

/// What became of a suspect in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    Fine,
    Wrong(Fault),
    /// It changed hands at every look.
    Moving,
}

/// Judges `suspect` by a snapshot that has its seat and all that is involved.
pub fn look(suspect: &Suspect, snapshot: &Snapshot) -> Look {
    let seat = &suspect.seat;
    let item = snapshot.seats.get(seat).unwrap_or(&Item::Missing);
    if let Some(holder) = item.read().and_then(holder)
        && !snapshot.records.contains_key(holder)
    {
        return Look::With(holder.clone());
    }
    // Also by a record that is there for another seat: what it says is as true of this one.
    let mut claims: Vec<Claim> = snapshot
        .records
        .values()
        .filter_map(Item::read)
        .filter(|record| record.is_live() && record.names(seat))
        .map(Claim::of)
        .collect();
    claims.sort_unstable_by(|one, other| one.reservation.cmp(&other.reservation));
    let named = |id: &ReservationId| match snapshot.records.get(id) {
        None | Some(Item::Missing) => Named::NoRecord,
        Some(Item::Unreadable(_)) => Named::Unreadable,
        Some(Item::Read(record)) if record.is_live() => Named::Elsewhere(record.state),
        Some(Item::Read(record)) => Named::Ended(record.state),
    };
    match fault(item, &claims, named) {
        None => Look::Fine,
        Some(fault) => Look::Wrong(fault),
    }
}
