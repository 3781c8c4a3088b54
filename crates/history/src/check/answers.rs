//! Acknowledged is stored, and the answers of one reservation do not contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use super::HistoryIndex;
use super::selection;
use crate::call::{CallEffect, RecordedCall, StockSelection};
use crate::final_state::{FinalReservation, FinalStatus};
use crate::report::{HistoryReport, ViolationKind};

pub(super) fn check(index: &HistoryIndex<'_>, report: &mut HistoryReport) {
    let mut orders = BTreeMap::new();
    for (reservation, calls) in &index.calls {
        let mut add = |kind, text| {
            let key = format!("reservation {reservation}");
            report.add(kind, key, text, index.lines(reservation));
        };
        let record = index.record(reservation);
        if let Some(text) = calls.iter().find_map(|call| loss(call, record)) {
            add(ViolationKind::Lost, text);
        }
        if let Some(text) = calls.iter().find_map(|call| difference(call)) {
            add(ViolationKind::Contradiction, text);
        }
        let confirmed = calls.iter().filter_map(|call| match &call.effect {
            CallEffect::Confirmed { order_id } => Some(order_id.as_str()),
            _ => None,
        });
        let mut given: BTreeSet<&str> = confirmed.collect();
        if given.contains("") {
            add(ViolationKind::Contradiction, "confirmed without an order id".to_owned());
        }
        given.extend(record.map(|record| record.order_id.as_str()).filter(|id| !id.is_empty()));
        if given.len() > 1 {
            add(ViolationKind::Contradiction, format!("several order ids: {given:?}"));
        }
        let ends = calls.iter().filter_map(|call| match call.effect {
            CallEffect::Held { expires_at_ms, .. } => Some(expires_at_ms),
            _ => None,
        });
        let mut ends: BTreeSet<u64> = ends.collect();
        ends.extend(record.filter(|_| !ends.is_empty()).and_then(|record| record.expires_at_ms));
        if ends.len() > 1 {
            add(ViolationKind::Contradiction, format!("several ends of one hold: {ends:?}"));
        }
        for order in given {
            if let Some(other) = orders.insert(order, *reservation) {
                let text = format!("{order} is the order of {other} as well");
                add(ViolationKind::SoldTwice, text);
            }
        }
    }
}

/// What was acknowledged and is not stored.
fn loss(call: &RecordedCall, record: Option<&FinalReservation>) -> Option<String> {
    let (name, is_stored) = match call.effect {
        CallEffect::Confirmed { .. } => (
            "confirmed",
            record.is_some_and(|record| {
                matches!(record.status, FinalStatus::Confirmed | FinalStatus::Refunded)
            }),
        ),
        // What followed the hold or the release is checked with the order of the calls.
        CallEffect::Held { .. } => ("held", record.is_some()),
        CallEffect::Released => ("released", record.is_some()),
        CallEffect::Refunded => {
            ("refunded", record.is_some_and(|record| record.status == FinalStatus::Refunded))
        }
        _ => return None,
    };
    if is_stored {
        return None;
    }
    let found = record.map_or("has no record".to_owned(), |record| format!("is {}", record.status));
    Some(format!("was {name} by call #{}, but {found} at the end", call.id.0))
}

/// How an answer differs from its request.
fn difference(call: &RecordedCall) -> Option<String> {
    let given = match &call.effect {
        CallEffect::Held { seats, .. } => seats,
        CallEffect::SeatUnavailable { seats } => {
            return match selection(&call.operation)? {
                StockSelection::Seats(wanted) if !seats.is_subset(wanted) || seats.is_empty() => {
                    Some(format!("call #{} was refused for seats that it does not name", call.id.0))
                }
                _ => None,
            };
        }
        _ => return None,
    };
    let is_right = match selection(&call.operation)? {
        StockSelection::Units(_) => given.is_empty(),
        StockSelection::Seats(wanted) => given == wanted,
        StockSelection::AnySeats(count) => given.len() == *count as usize,
        StockSelection::AsRecorded => true,
    };
    (!is_right).then(|| format!("call #{} was answered with other seats than requested", call.id.0))
}
