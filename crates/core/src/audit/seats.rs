//! Agreement of seat items with the live records that name them.

use std::collections::HashMap;

use super::event_records::{AuditRecord, RecordLookup, SeatClaim, StoredItem};
use super::report::BreachKind;
use crate::ids::{ReservationId, SeatId};
use crate::seats::SeatState;

/// The reservation that a seat's item names.
pub fn holder(seat: &SeatState) -> Option<&ReservationId> {
    match seat {
        SeatState::Hold { reservation, .. } | SeatState::Sold { reservation } => Some(reservation),
        SeatState::Available | SeatState::Blocked => None,
    }
}

/// The breach of a seat, if there is one. `named` is called for the reservation in `item` unless it is one of `claims`.
pub(super) fn breach_kind(
    item: &StoredItem<SeatState>,
    claims: &[SeatClaim],
    named: impl FnOnce(&ReservationId) -> RecordLookup,
) -> Option<BreachKind> {
    if claims.len() > 1 {
        let by = claims.iter().map(|claim| claim.reservation.clone());
        return Some(BreachKind::ClaimedTwice { by: by.collect() });
    }
    let seen = match (item, claims.first()) {
        // The record is among those that cannot be read.
        (StoredItem::Unreadable(_), _) | (StoredItem::Missing, None) => return None,
        (StoredItem::Missing, Some(claim)) => {
            return Some(BreachKind::NoSuchSeat { claim: claim.clone() });
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
        (Some(claim), _) => {
            Some(BreachKind::Differs { seen: seen.clone(), named: None, claim: claim.clone() })
        }
        (None, Some(holder)) => {
            Some(BreachKind::Orphan { seen: seen.clone(), named: named(holder) })
        }
        (None, None) => None,
    }
}

/// A seat whose item and records, read at different times, disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectSeat {
    pub seat: SeatId,
    /// Every record involved.
    pub involved: Vec<ReservationId>,
    /// The breach, if the disagreement persists.
    pub kind: BreachKind,
}

/// Seats and records at a single instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstantSnapshot {
    pub seats: HashMap<SeatId, StoredItem<SeatState>>,
    pub records: HashMap<ReservationId, StoredItem<AuditRecord>>,
}

/// Result of reading a suspect again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspectCheck {
    /// The disagreement came from a sale between two reads.
    Fine,
    Wrong(BreachKind),
    /// The seat now belongs to this reservation: read again, with its record.
    With(ReservationId),
}

/// Final outcome of a suspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspectOutcome {
    Fine,
    Wrong(BreachKind),
    /// The seat changed during every check.
    Moving,
}

/// Judges `suspect` by a snapshot of its seat and all records involved.
pub fn look(suspect: &SuspectSeat, snapshot: &InstantSnapshot) -> SuspectCheck {
    let seat = &suspect.seat;
    let item = snapshot.seats.get(seat).unwrap_or(&StoredItem::Missing);
    if let Some(holder) = item.read().and_then(holder)
        && !snapshot.records.contains_key(holder)
    {
        return SuspectCheck::With(holder.clone());
    }
    // Includes records that are in the snapshot for another seat.
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
    match breach_kind(item, &claims, named) {
        None => SuspectCheck::Fine,
        Some(kind) => SuspectCheck::Wrong(kind),
    }
}
