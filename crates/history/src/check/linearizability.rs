//! One order of the calls of a reservation, and one of the calls about a seat, explains all their answers.
//!
//! A hold's end is a step without an answer that may happen at any time after it; so is a call whose effect is
//! unknown. The stored state is a read after all calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{HistoryIndex, selection};
use crate::call::{CallEffect, CallOperation, RecordedCall, StockSelection};
use crate::final_state::FinalStatus;
use crate::report::{HistoryReport, ViolationKind, line_of, record_line, seat_line};
use crate::reservation_model::{HoldTiming, ReservationModel, ReservationOp};
use crate::search::{SearchVerdict, SequentialModel, TimedOp, linearize, shortest_prefix};
use crate::seat_model::{SeatModel, SeatOp};

pub(super) fn check(index: &HistoryIndex<'_>, report: &mut HistoryReport) {
    for reservation in index.calls.keys() {
        report.summary.reservations += 1;
        check_reservation(index, reservation, report);
    }
    for ((event, seat), reservations) in &reservations_by_seat(index) {
        report.summary.seats += 1;
        check_seat(index, (event, seat), reservations, report);
    }
}

/// Calls in the form of a model, each with the call that it stands for.
struct KeyHistory<'a, O> {
    ops: Vec<TimedOp<O>>,
    calls: Vec<Option<&'a RecordedCall>>,
}

impl<'a, O: Eq + Clone> KeyHistory<'a, O> {
    fn new() -> Self {
        Self { ops: Vec::new(), calls: Vec::new() }
    }

    fn push(
        &mut self,
        started: Duration,
        ended: Option<Duration>,
        op: O,
        call: Option<&'a RecordedCall>,
    ) {
        self.ops.push(TimedOp { started, ended, op });
        self.calls.push(call);
    }

    /// Decides the history and reports it if no order explains it.
    fn judge<M: SequentialModel<Op = O>>(
        &self,
        model: &M,
        key: String,
        final_line: String,
        steps_max: u64,
        report: &mut HistoryReport,
    ) {
        let count = self.calls.iter().flatten().count();
        report.summary.longest = report.summary.longest.max(count);
        match linearize(model, &self.ops, steps_max) {
            SearchVerdict::Linearizable => {}
            SearchVerdict::NotDecided => report.summary.not_decided += 1,
            SearchVerdict::NotLinearizable => {
                let (shown, last) = shortest_prefix(model, &self.ops, steps_max);
                let last_call = self.calls[last];
                let text = match last_call {
                    Some(call) => format!("no order of these calls explains answer #{}", call.id.0),
                    None => "no order of these calls explains the state at the end".to_owned(),
                };
                let shown = shown.into_iter().filter_map(|at| self.calls[at]);
                let mut lines: Vec<String> = shown.map(line_of).collect();
                lines.push(final_line);
                report.add(ViolationKind::NotLinearizable, key, text, lines);
            }
        }
    }
}

/// When the last step of every history is made: after all calls.
fn end_of(index: &HistoryIndex<'_>) -> Duration {
    let ends = index.history.calls.iter().filter_map(|call| call.ended);
    index.state.read_at.max(ends.max().unwrap_or_default()) + Duration::from_nanos(1)
}

fn check_reservation(index: &HistoryIndex<'_>, reservation: &str, report: &mut HistoryReport) {
    let calls = &index.calls[reservation];
    let record = index.record(reservation);
    let held_seats = calls.iter().find_map(|call| match &call.effect {
        CallEffect::Held { seats, .. } if !seats.is_empty() => Some(seats.clone()),
        _ => None,
    });
    let stored_seats =
        record.filter(|record| !record.seats.is_empty()).map(|record| record.seats.clone());
    let hold_end = index.hold_end(reservation);
    let model = ReservationModel {
        late_commits: index.rules.late_commits,
        hold_end,
        seats: held_seats.or(stored_seats),
    };
    let mut history = KeyHistory::new();
    for call in calls {
        let ended = call.ended.filter(|_| !call.is_unknown());
        let op = ReservationOp::Call {
            event: call.event_id.clone(),
            operation: call.operation.clone(),
            effect: call.effect.clone(),
            hold: timing(index, hold_end, call),
        };
        history.push(call.started, ended, op, Some(call));
    }
    if let Some(from) = earliest_expiry(index, reservation) {
        history.push(from, None, ReservationOp::Reclaim, None);
    }
    let at = end_of(index);
    history.push(at, Some(at), ReservationOp::Final(record.cloned()), None);
    let key = format!("reservation {reservation}");
    let line = record_line(reservation, record);
    history.judge(&model, key, line, index.rules.search_steps, report);
}

/// What a server may have found during a call about a hold until `end`.
fn timing(index: &HistoryIndex<'_>, end: Option<u64>, call: &RecordedCall) -> HoldTiming {
    let Some(end) = end else { return HoldTiming { may_be_running: true, may_be_over: true } };
    let (end, difference) = (index.history.since_start(end), index.rules.clock_difference);
    HoldTiming {
        may_be_running: call.started < end + difference,
        may_be_over: call.ended.is_none_or(|ended| ended + difference >= end),
    }
}

/// When the hold of a reservation can have expired at the earliest, by any server's clock; `None` without a hold.
fn earliest_expiry(index: &HistoryIndex<'_>, reservation: &str) -> Option<Duration> {
    let is_hold = |call: &&&RecordedCall| matches!(call.operation, CallOperation::Hold { .. });
    let first = index.calls[reservation].iter().find(is_hold)?;
    Some(match index.hold_end(reservation) {
        Some(end) => index.history.since_start(end).saturating_sub(index.rules.clock_difference),
        // The server chose the end, and nothing shows it.
        None => first.started,
    })
}

/// For each event and seat: the reservations whose calls name it.
fn reservations_by_seat<'a>(
    index: &HistoryIndex<'a>,
) -> BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>> {
    let mut by_seat: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for (reservation, calls) in &index.calls {
        let mut add = |event: &'a str, seats: &'a BTreeSet<String>| {
            for seat in seats {
                by_seat.entry((event, seat.as_str())).or_default().insert(*reservation);
            }
        };
        for call in calls {
            let event = call.event_id.as_str();
            if let Some(StockSelection::Seats(seats)) = selection(&call.operation) {
                add(event, seats);
            }
            if let CallEffect::Held { seats, .. } = &call.effect {
                add(event, seats);
            }
        }
        if let Some(record) = index.record(reservation) {
            add(&record.event_id, &record.seats);
        }
    }
    by_seat
}

fn check_seat<'a>(
    index: &HistoryIndex<'a>,
    (event, seat): (&'a str, &'a str),
    reservations: &BTreeSet<&'a str>,
    report: &mut HistoryReport,
) {
    let Some(stored) = index.state.events.get(event).and_then(|event| event.seats.get(seat)) else {
        return;
    };
    let mut history = KeyHistory::new();
    let mut owner = None;
    for (number, reservation) in (0_u32..).zip(reservations) {
        if stored.reservation_id == *reservation {
            owner = Some(number);
        }
        add_reservation(index, (event, seat), reservation, number, &mut history);
    }
    let at = end_of(index);
    if let Some(last) = SeatOp::of_final(stored.state, owner) {
        history.push(at, Some(at), last, None);
    }
    let model =
        SeatModel { is_blocked: stored.state == crate::final_state::FinalSeatState::Blocked };
    let key = format!("seat {seat} of {event}");
    let line = seat_line(seat, Some(stored));
    history.judge(&model, key, line, index.rules.search_steps, report);
}

/// What the calls of a reservation mean for one of its seats.
///
/// A call with an unknown effect that has left no trace in the record had none, so that only few of them remain
/// possible. If the store has lost the record, that makes the history stricter, not weaker.
fn add_reservation<'a>(
    index: &HistoryIndex<'a>,
    (event, seat): (&str, &str),
    reservation: &'a str,
    number: u32,
    history: &mut KeyHistory<'a, SeatOp>,
) {
    let calls = &index.calls[reservation];
    let record = index.record(reservation).filter(|record| record.event_id == event);
    let has_seat = record.is_some_and(|record| record.seats.contains(seat));
    let status = record.map(|record| record.status);
    let first_refund = calls
        .iter()
        .filter(|call| call.operation == CallOperation::Refund)
        .map(|call| call.started)
        .min();
    // After a refund a process may still answer from its cache that the reservation has the seat.
    let may_be_cached = |call: &RecordedCall| {
        let is_refunded = status == Some(FinalStatus::Refunded);
        is_refunded && first_refund.is_some_and(|at| call.ended.is_none_or(|end| end >= at))
    };
    for call in calls {
        if call.event_id != event && call.operation != CallOperation::Refund {
            continue;
        }
        let mut ended = call.ended.filter(|_| !call.is_unknown());
        let mut started = call.started;
        let op = match (&call.operation, &call.effect) {
            (CallOperation::Hold { .. }, CallEffect::Held { seats, .. })
                if seats.contains(seat) =>
            {
                SeatOp::Hold(number)
            }
            (CallOperation::Commit { .. }, CallEffect::Confirmed { .. }) if has_seat => {
                // From a cache, the call has no effect.
                ended = ended.filter(|_| !may_be_cached(call));
                SeatOp::Commit(number)
            }
            (CallOperation::Release { .. }, CallEffect::Released) => SeatOp::Release(number),
            (CallOperation::Refund, CallEffect::Refunded) => SeatOp::Refund(number),
            (CallOperation::Release { .. }, CallEffect::ReservationCommitted)
                if has_seat && !may_be_cached(call) =>
            {
                SeatOp::Bought(number)
            }
            (
                CallOperation::Hold { .. } | CallOperation::Commit { .. },
                CallEffect::SeatUnavailable { seats },
            ) if seats.contains(seat) => {
                started = started.saturating_sub(index.rules.seat_age);
                SeatOp::Unavailable(number)
            }
            _ if ended.is_some() || !has_seat => continue,
            (CallOperation::Hold { .. }, _)
                if record.is_some_and(|record| record.expires_at_ms.is_some()) =>
            {
                SeatOp::Hold(number)
            }
            (CallOperation::Commit { .. }, _)
                if matches!(status, Some(FinalStatus::Confirmed | FinalStatus::Refunded)) =>
            {
                SeatOp::Commit(number)
            }
            (CallOperation::Release { .. }, _) if status == Some(FinalStatus::Released) => {
                SeatOp::Release(number)
            }
            (CallOperation::Refund, _) if status == Some(FinalStatus::Refunded) => {
                SeatOp::Refund(number)
            }
            _ => continue,
        };
        history.push(started, ended, op, Some(call));
    }
    if let Some(from) = earliest_expiry(index, reservation) {
        history.push(from, None, SeatOp::Expire(number), None);
    }
}
