//! The checks of a history against the state at its end.
//!
//! | file | promise |
//! |---|---|
//! | `answers.rs` | acknowledged is stored; answers do not contradict each other, and are what was requested |
//! | `stock.rs` | nothing is sold twice, stock is conserved, expired holds are returned |
//! | `availability.rs` | "sold out" only if stock was short |
//! | `linearizability.rs` | all answers of a reservation, and all about a seat, follow from one order of the calls |

mod answers;
mod availability;
mod linearizability;
mod stock;

use std::collections::BTreeMap;

use super::call::{CallEffect, CallOperation, RecordedCall, StockSelection};
use super::final_state::{FinalReservation, FinalState};
use super::recorder::History;
use super::report::{HistoryReport, ViolationKind, line_of, record_line};
use super::rules::CheckRules;

/// Checks a history. `state` must have been read while no call was in flight, and all reservations of the history must
/// be there: none may have been purged.
pub fn check(history: &History, state: &FinalState, rules: &CheckRules) -> HistoryReport {
    let index = HistoryIndex::new(history, state, rules);
    let mut report = HistoryReport::default();
    let summary = &mut report.summary;
    summary.calls = history.calls.len();
    summary.unknown = history.calls.iter().filter(|call| call.is_unknown()).count();
    summary.refused = history.calls.len() - index.calls.values().map(Vec::len).sum::<usize>();
    let is_foreign = |id: &&String| !index.calls.contains_key(id.as_str());
    report.foreign_records = state.reservations.keys().filter(is_foreign).cloned().collect();
    if history.unrecorded > 0 {
        let text = format!("{} calls were not recorded: raise CALLS_MAX", history.unrecorded);
        report.add(ViolationKind::Incomplete, "history", text, Vec::new());
    }
    answers::check(&index, &mut report);
    stock::check(&index, &mut report);
    availability::check(&index, &mut report);
    linearizability::check(&index, &mut report);
    report.violations.sort_by_key(|violation| violation.kind);
    report
}

/// The history by reservation.
struct HistoryIndex<'a> {
    history: &'a History,
    state: &'a FinalState,
    rules: &'a CheckRules,
    /// Calls of each reservation in the order of their starts, without those that were certainly not executed.
    calls: BTreeMap<&'a str, Vec<&'a RecordedCall>>,
}

impl<'a> HistoryIndex<'a> {
    fn new(history: &'a History, state: &'a FinalState, rules: &'a CheckRules) -> Self {
        let mut calls: BTreeMap<&str, Vec<&RecordedCall>> = BTreeMap::new();
        for call in history.calls.iter().filter(|call| call.effect != CallEffect::Refused) {
            calls.entry(&call.reservation_id).or_default().push(call);
        }
        for calls in calls.values_mut() {
            calls.sort_by_key(|call| call.started);
        }
        Self { history, state, rules, calls }
    }

    fn record(&self, reservation: &str) -> Option<&'a FinalReservation> {
        self.state.reservations.get(reservation)
    }

    /// End of the hold of a reservation in milliseconds since the Unix epoch, by the record, by an answer or, if there is
    /// neither, by a request.
    fn hold_end(&self, reservation: &str) -> Option<u64> {
        let calls = || self.calls.get(reservation).into_iter().flatten();
        let answered = || {
            calls().find_map(|call| match call.effect {
                CallEffect::Held { expires_at_ms, .. } => Some(expires_at_ms),
                _ => None,
            })
        };
        let requested = || {
            calls().find_map(|call| match call.operation {
                CallOperation::Hold { expires_at_ms, .. } => expires_at_ms,
                _ => None,
            })
        };
        let stored = self.record(reservation).and_then(|record| record.expires_at_ms);
        stored.or_else(answered).or_else(requested)
    }

    /// All lines about a reservation.
    fn lines(&self, reservation: &str) -> Vec<String> {
        let calls = self.calls.get(reservation).into_iter().flatten();
        let mut lines: Vec<String> = calls.map(|call| line_of(call)).collect();
        lines.push(record_line(reservation, self.record(reservation)));
        lines
    }
}

/// What a call names.
fn selection(operation: &CallOperation) -> Option<&StockSelection> {
    match operation {
        CallOperation::Hold { selection, .. }
        | CallOperation::Commit { selection }
        | CallOperation::Release { selection } => Some(selection),
        CallOperation::Refund | CallOperation::Read => None,
    }
}

/// Whether a call can give the reservation stock.
fn takes_stock(call: &RecordedCall) -> bool {
    matches!(call.operation, CallOperation::Hold { .. } | CallOperation::Commit { .. })
}
