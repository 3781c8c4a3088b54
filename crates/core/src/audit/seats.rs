//! Whose a seat is: what its item says against what the live records say.

use std::collections::HashMap;

use super::event_records::{AuditRecord, StoredItem};
use super::report::BreachKind;
use crate::ids::{ReservationId, SeatId};
use crate::seats::SeatState;
use crate::time::UnixMillis;
use crate::transaction::ReservationState;

/// What a live record that names a seat wants its item to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatClaim {
    pub reservation: ReservationId,
    /// CONFIRMED, so the seat is SOLD; else HELD, so it is in HOLD.
    pub confirmed: bool,
    /// When the hold ends; a damaged record may not say.
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
pub enum RecordLookup {
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
    item: &StoredItem<SeatState>,
    claims: &[SeatClaim],
    named: impl FnOnce(&ReservationId) -> RecordLookup,
) -> Option<BreachKind> {
    if claims.len() > 1 {
        let by = claims.iter().map(|claim| claim.reservation.clone());
        return Some(BreachKind::ClaimedTwice { by: by.collect() });
    }
    let seen = match (item, claims.first()) {
        // Named among what cannot be read.
        (StoredItem::Unreadable(_), _) | (StoredItem::Missing, None) => return None,
        (StoredItem::Missing, Some(claim)) => {
            return Some(BreachKind::NoSuchSeat {
                claim: claim.clone(),
            });
        }
        (StoredItem::Read(seen), _) => seen,
    };
    match (claims.first(), holder(seen)) {
        (Some(claim), _) if claim.agrees(seen) => None,
        (Some(claim), Some(holder)) if *holder != claim.reservation => Some(BreachKind::Differs {
            seen: seen.clone(),
            named: Some(named(holder)),
            claim: claim.clone(),
        }),
        (Some(claim), _) => Some(BreachKind::Differs {
            seen: seen.clone(),
            named: None,
            claim: claim.clone(),
        }),
        (None, Some(holder)) => Some(BreachKind::Orphan {
            seen: seen.clone(),
            named: named(holder),
        }),
        (None, None) => None,
    }
}

/// A seat whose item and records disagree as read, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectSeat {
    pub seat: SeatId,
    /// Every record that has to do with it.
    pub involved: Vec<ReservationId>,
    /// What it is if the disagreement lasts.
    pub fault: BreachKind,
}

/// Seats and records as they were at one and the same instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstantSnapshot {
    pub seats: HashMap<SeatId, StoredItem<SeatState>>,
    pub records: HashMap<ReservationId, StoredItem<AuditRecord>>,
}

/// What a second look at a suspect shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspectCheck {
    /// The sale had moved on between two reads: nothing is wrong.
    Fine,
    Wrong(BreachKind),
    /// The seat has gone to this reservation: look again, with its record.
    With(ReservationId),
}

/// What became of a suspect in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspectOutcome {
    Fine,
    Wrong(BreachKind),
    /// It changed hands at every look.
    Moving,
}

/// Judges `suspect` by a snapshot that has its seat and all that is involved.
pub fn look(suspect: &SuspectSeat, snapshot: &InstantSnapshot) -> SuspectCheck {
    let seat = &suspect.seat;
    let item = snapshot.seats.get(seat).unwrap_or(&StoredItem::Missing);
    if let Some(holder) = item.read().and_then(holder)
        && !snapshot.records.contains_key(holder)
    {
        return SuspectCheck::With(holder.clone());
    }
    // Also by a record that is there for another seat: what it says is as true of this one.
    let mut claims: Vec<SeatClaim> = snapshot
        .records
        .values()
        .filter_map(StoredItem::read)
        .filter(|record| record.is_live() && record.names(seat))
        .map(SeatClaim::of)
        .collect();
    claims.sort_unstable_by(|one, other| one.reservation.cmp(&other.reservation));
    let named = |id: &ReservationId| match snapshot.records.get(id) {
        None | Some(StoredItem::Missing) => RecordLookup::NoRecord,
        Some(StoredItem::Unreadable(_)) => RecordLookup::Unreadable,
        Some(StoredItem::Read(record)) if record.is_live() => RecordLookup::Elsewhere(record.state),
        Some(StoredItem::Read(record)) => RecordLookup::Ended(record.state),
    };
    match fault(item, &claims, named) {
        None => SuspectCheck::Fine,
        Some(fault) => SuspectCheck::Wrong(fault),
    }
}
