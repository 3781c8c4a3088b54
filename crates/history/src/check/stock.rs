//! Nothing is sold twice, stock is conserved, and expired holds are returned: the state at the end against itself.

use std::collections::{BTreeMap, BTreeSet};

use super::HistoryIndex;
use crate::final_state::{FinalEvent, FinalReservation, FinalSeatState, FinalStatus};
use crate::report::{HistoryReport, ViolationKind, record_line, seat_line};

/// Units or seats of live records.
#[derive(Clone, Copy, Default)]
struct LiveStock {
    held: i64,
    confirmed: i64,
}

pub(super) fn check(index: &HistoryIndex<'_>, report: &mut HistoryReport) {
    let mut live: BTreeMap<&str, LiveStock> = BTreeMap::new();
    let mut owners: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (id, record) in &index.state.reservations {
        check_hold(index, id, record, report);
        if !record.status.has_stock() {
            continue;
        }
        let stock = live.entry(&record.event_id).or_default();
        match record.status {
            FinalStatus::Held => stock.held += i64::from(record.qty),
            _ => stock.confirmed += i64::from(record.qty),
        }
        if !record.seats.is_empty() && record.seats.len() != record.qty as usize {
            let text = format!("{} seats for a quantity of {}", record.seats.len(), record.qty);
            report.add(
                ViolationKind::StockDiffers,
                format!("reservation {id}"),
                text,
                index.lines(id),
            );
        }
        for seat in &record.seats {
            if let Some(other) = owners.insert((&record.event_id, seat), id) {
                let mut lines = index.lines(other);
                lines.extend(index.lines(id));
                let text = format!("belongs to {other} and to {id}");
                let key = format!("seat {seat} of {}", record.event_id);
                report.add(ViolationKind::SoldTwice, key, text, lines);
            }
        }
    }
    for (event, stored) in &index.state.events {
        let live = live.remove(event.as_str()).unwrap_or_default();
        check_sums(event, stored, live, report);
        check_seats(index, event, stored, &owners, report);
    }
    for event in live.keys() {
        let text = "has reservations with stock, but does not exist";
        report.add(ViolationKind::StockDiffers, format!("event {event}"), text, Vec::new());
    }
}

/// A hold that ended long before the store was read has returned its stock.
fn check_hold(
    index: &HistoryIndex<'_>,
    id: &str,
    record: &FinalReservation,
    report: &mut HistoryReport,
) {
    let Some(end) = record.expires_at_ms.filter(|_| record.status == FinalStatus::Held) else {
        return;
    };
    let ended = index.history.since_start(end);
    let late = index.state.read_at.saturating_sub(ended);
    if late > index.rules.hold_return {
        let (late, allowed) = (late.as_secs_f64(), index.rules.hold_return.as_secs_f64());
        let text = format!("still held {late:.1} s after its end; {allowed:.1} s are allowed");
        let key = format!("reservation {id}");
        report.add(ViolationKind::HoldNotReturned, key, text, index.lines(id));
    }
}

fn check_sums(event: &str, stored: &FinalEvent, live: LiveStock, report: &mut HistoryReport) {
    let mut add = |kind, text| report.add(kind, format!("event {event}"), text, Vec::new());
    let FinalEvent { total, available, held, sold, blocked, .. } = stored;
    let taken = live.held + live.confirmed;
    if taken > total - blocked {
        let text = format!("{taken} of {total} are held or sold by records, {blocked} blocked");
        add(ViolationKind::SoldTwice, text);
    }
    if available + held + sold + blocked != *total || *available < 0 {
        let text = format!(
            "total {total}, but available {available}, held {held}, sold {sold}, blocked {blocked}"
        );
        add(ViolationKind::StockDiffers, text);
    }
    if (live.held, live.confirmed) != (*held, *sold) {
        let text = format!(
            "the stock has {held} held and {sold} sold, the records have {} and {}",
            live.held, live.confirmed
        );
        add(ViolationKind::StockDiffers, text);
    }
}

/// Each held or sold seat has the record that it names, and the reverse.
fn check_seats(
    index: &HistoryIndex<'_>,
    event: &str,
    stored: &FinalEvent,
    owners: &BTreeMap<(&str, &str), &str>,
    report: &mut HistoryReport,
) {
    let mut add = |seat: &str, text: String, ids: BTreeSet<&str>| {
        let mut lines: Vec<String> = vec![seat_line(seat, stored.seats.get(seat))];
        lines.extend(ids.iter().map(|id| record_line(id, index.record(id))));
        let key = format!("seat {seat} of {event}");
        report.add(ViolationKind::StockDiffers, key, text, lines);
    };
    for (seat, found) in &stored.seats {
        let owner = owners.get(&(event, seat.as_str())).copied();
        let is_confirmed = |id: &str| {
            index.record(id).is_some_and(|record| record.status == FinalStatus::Confirmed)
        };
        let agrees = match (found.state, owner) {
            (FinalSeatState::Available | FinalSeatState::Blocked, None) => true,
            (FinalSeatState::Hold, Some(id)) => id == found.reservation_id && !is_confirmed(id),
            (FinalSeatState::Sold, Some(id)) => id == found.reservation_id && is_confirmed(id),
            _ => false,
        };
        if !agrees {
            let named = Some(found.reservation_id.as_str()).filter(|id| !id.is_empty());
            let ids = owner.into_iter().chain(named).collect();
            add(seat, "differs from the records".to_owned(), ids);
        }
    }
    let of_event = owners.iter().filter(|((of, _), _)| *of == event);
    for ((_, seat), id) in of_event.filter(|((_, seat), _)| !stored.seats.contains_key(*seat)) {
        add(seat, format!("belongs to {id}, but does not exist"), BTreeSet::from([*id]));
    }
}
