//! What a check found: violations with the calls that show them, and figures of the history.

use std::fmt;

use super::call::RecordedCall;
use super::final_state::{FinalReservation, FinalSeat, FinalSeatState};

/// Most lines of calls that one violation shows.
const LINES_MAX: usize = 60;

/// Most violations that a report prints in full.
const SHOWN_MAX: usize = 20;

/// Kind of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationKind {
    /// An acknowledged confirmation, hold, release or refund that the store does not have.
    Lost,
    /// Two answers for one reservation that exclude each other, or an answer that is not what was requested.
    Contradiction,
    /// A seat, a unit or an order that belongs to two reservations.
    SoldTwice,
    /// Stock and records that do not add up.
    StockDiffers,
    /// An expired hold that still has its stock.
    HoldNotReturned,
    /// Calls of one reservation or about one seat that no order explains.
    NotLinearizable,
    /// "Sold out" while enough stock was free during the whole call.
    WronglySoldOut,
    /// The history is not complete, so that the check proves nothing.
    Incomplete,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryViolation {
    pub kind: ViolationKind,
    /// The reservation, seat or event, for example `reservation r1`.
    pub key: String,
    pub text: String,
    /// The calls that show the violation, one per line, and what is stored.
    pub lines: Vec<String>,
}

/// Figures of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySummary {
    /// Histories of single reservations and of single seats.
    pub reservations: usize,
    pub seats: usize,
    pub calls: usize,
    /// Calls that may have taken effect, or not.
    pub unknown: usize,
    /// Calls that were certainly not executed.
    pub refused: usize,
    /// Most calls of one reservation or about one seat.
    pub longest: usize,
    /// Histories whose search was longer than allowed: neither right nor wrong.
    pub not_decided: usize,
    /// "Sold out" answers whose stock was compared.
    pub sold_out_answers: usize,
}

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryReport {
    /// In the order of their kinds.
    pub violations: Vec<HistoryViolation>,
    pub summary: HistorySummary,
    /// Reservations whose record no call of the history can have written: none names them, or all that do were answered
    /// as not executed. A violation where the history has every client of the store.
    pub foreign_records: Vec<String>,
}

impl HistoryReport {
    pub(crate) fn add(
        &mut self,
        kind: ViolationKind,
        key: impl Into<String>,
        text: impl Into<String>,
        lines: Vec<String>,
    ) {
        let (key, text) = (key.into(), text.into());
        self.violations.push(HistoryViolation { kind, key, text, lines });
    }

    /// Whether the history was decided as a whole and breaks no promise.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.summary.not_decided == 0
    }
}

impl ViolationKind {
    fn name(self) -> &'static str {
        match self {
            Self::Lost => "acknowledged and lost",
            Self::Contradiction => "contradicting answers",
            Self::SoldTwice => "sold twice",
            Self::StockDiffers => "stock differs from the records",
            Self::HoldNotReturned => "expired hold not returned",
            Self::NotLinearizable => "not linearizable",
            Self::WronglySoldOut => "wrongly sold out",
            Self::Incomplete => "incomplete history",
        }
    }
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for HistoryViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.key, self.text)?;
        let hidden = self.lines.len().saturating_sub(LINES_MAX);
        if hidden > 0 {
            write!(f, "\n    ({hidden} earlier lines)")?;
        }
        self.lines[hidden..].iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl fmt::Display for HistorySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls ({} with unknown effect, {} refused) in histories of {} reservations and {} seats, the longest \
             with {} calls, {} not decided; {} sold-out answers compared with the stock",
            self.calls,
            self.unknown,
            self.refused,
            self.reservations,
            self.seats,
            self.longest,
            self.not_decided,
            self.sold_out_answers
        )
    }
}

impl fmt::Display for HistoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary)?;
        writeln!(f, "{} violations", self.violations.len())?;
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "{violation}")?;
        }
        match self.violations.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

/// One attempt in one line: times since the start of the history, client, request, observation.
pub(crate) fn line_of(call: &RecordedCall) -> String {
    let seconds = |at: std::time::Duration| format!("{:.6}", at.as_secs_f64());
    let ended = call.ended.map_or_else(|| "never".to_owned(), seconds);
    let RecordedCall { id, client, reservation_id, event_id, operation, effect, .. } = call;
    let event = if event_id.is_empty() { "" } else { " of " };
    format!(
        "{:>12} .. {ended:<12} client {client} #{}: {reservation_id} {operation}{event}{event_id} -> {effect}",
        seconds(call.started),
        id.0
    )
}

/// A stored record in one line.
pub(crate) fn record_line(reservation: &str, record: Option<&FinalReservation>) -> String {
    let Some(record) = record else { return format!("at the end: {reservation} has no record") };
    let seats: Vec<&str> = record.seats.iter().map(String::as_str).collect();
    let until = record.expires_at_ms.map_or_else(String::new, |end| format!(" hold until {end}"));
    let FinalReservation { event_id, status, qty, order_id, .. } = record;
    format!(
        "at the end: {reservation} is {status}, {qty} {} of {event_id}{until} {order_id}",
        seats.join(",")
    )
    .trim_end()
    .to_owned()
}

/// A stored seat in one line.
pub(crate) fn seat_line(seat: &str, stored: Option<&FinalSeat>) -> String {
    match stored {
        None => format!("at the end: {seat} does not exist"),
        Some(FinalSeat { state, reservation_id }) => {
            let state = match state {
                FinalSeatState::Available => "AVAILABLE",
                FinalSeatState::Hold => "HOLD",
                FinalSeatState::Sold => "SOLD",
                FinalSeatState::Blocked => "BLOCKED",
            };
            format!("at the end: {seat} is {state} {reservation_id}").trim_end().to_owned()
        }
    }
}
