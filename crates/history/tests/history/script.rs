//! A history and its end, written by hand. Times are milliseconds since the start of the history.

use std::collections::BTreeMap;
use std::time::Duration;

use inventory_history::{
    AttemptId, CallEffect, CallOperation, CheckRules, FinalEvent, FinalReservation, FinalSeat,
    FinalSeatState, FinalState, FinalStatus, History, HistoryReport, RecordedCall, StockSelection,
    ViolationKind, check,
};

/// Wall-clock time of the start.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

/// The quantity event, with ten units, and the seated event, with the seats.
pub(crate) const CONCERT: &str = "concert";
pub(crate) const HALL: &str = "hall";

pub(crate) fn units(units: u32) -> StockSelection {
    StockSelection::Units(units)
}

pub(crate) fn seats(ids: &[&str]) -> StockSelection {
    StockSelection::seats(ids.iter().copied())
}

pub(crate) fn commit(selection: StockSelection) -> CallOperation {
    CallOperation::Commit { selection }
}

pub(crate) fn release(selection: StockSelection) -> CallOperation {
    CallOperation::Release { selection }
}

/// A hold until then.
pub(crate) fn hold(selection: StockSelection, until: u64) -> CallOperation {
    CallOperation::Hold { selection, expires_at_ms: Some(START_MS + until) }
}

/// The answer to a commit.
pub(crate) fn confirmed(reservation: &str) -> CallEffect {
    CallEffect::Confirmed { order_id: format!("ord_{reservation}") }
}

/// The answer to a hold.
pub(crate) fn held(until: u64, seats: &[&str]) -> CallEffect {
    let seats = seats.iter().map(|&seat| seat.to_owned()).collect();
    CallEffect::Held { expires_at_ms: START_MS + until, seats }
}

pub(crate) fn seat_unavailable(seats: &[&str]) -> CallEffect {
    CallEffect::SeatUnavailable { seats: seats.iter().map(|&seat| seat.to_owned()).collect() }
}

/// See the module head. The stock follows from the records, unless a test changes it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) history: History,
    pub(crate) records: BTreeMap<String, FinalReservation>,
    pub(crate) rules: CheckRules,
    pub(crate) read_at: u64,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self {
            history: History { started_at_ms: START_MS, ..History::default() },
            records: BTreeMap::new(),
            rules: CheckRules::default(),
            read_at: 100_000,
        }
    }

    /// A call from and to then; without an end its effect is unknown.
    pub(crate) fn call(
        mut self,
        (started, ended): (u64, Option<u64>),
        reservation: &str,
        event: &str,
        operation: CallOperation,
        effect: CallEffect,
    ) -> Self {
        let id = AttemptId(self.history.calls.len() as u32);
        self.history.calls.push(RecordedCall {
            id,
            client: id.0 % 3,
            reservation_id: reservation.to_owned(),
            event_id: event.to_owned(),
            operation,
            started: Duration::from_millis(started),
            ended: ended.map(Duration::from_millis),
            effect,
        });
        self
    }

    /// An answered call of the concert.
    pub(crate) fn units(
        self,
        from: u64,
        to: u64,
        reservation: &str,
        operation: CallOperation,
        effect: CallEffect,
    ) -> Self {
        self.call((from, Some(to)), reservation, CONCERT, operation, effect)
    }

    /// An answered call of the hall.
    pub(crate) fn seats(
        self,
        from: u64,
        to: u64,
        reservation: &str,
        operation: CallOperation,
        effect: CallEffect,
    ) -> Self {
        self.call((from, Some(to)), reservation, HALL, operation, effect)
    }

    /// A call without an answer.
    pub(crate) fn lost(
        self,
        from: u64,
        reservation: &str,
        event: &str,
        operation: CallOperation,
    ) -> Self {
        self.call((from, None), reservation, event, operation, CallEffect::Unknown)
    }

    /// A record at the end. `until` is the end of its hold.
    pub(crate) fn record(
        mut self,
        reservation: &str,
        status: FinalStatus,
        selection: StockSelection,
        until: impl Into<Option<u64>>,
    ) -> Self {
        let (event, qty, seats) = match selection {
            StockSelection::Units(units) => (CONCERT, units, Default::default()),
            StockSelection::Seats(seats) => (HALL, seats.len() as u32, seats),
            other => panic!("a record has {other}"),
        };
        let was_confirmed = matches!(status, FinalStatus::Confirmed | FinalStatus::Refunded);
        let record = FinalReservation {
            event_id: event.to_owned(),
            status,
            qty,
            seats,
            order_id: if was_confirmed { format!("ord_{reservation}") } else { String::new() },
            expires_at_ms: until.into().map(|until| START_MS + until),
        };
        self.records.insert(reservation.to_owned(), record);
        self
    }

    /// The state at the end with the stock that follows from the records.
    pub(crate) fn state(&self) -> FinalState {
        let seat = |id: &str| {
            let mut live = self.records.iter().filter(|(_, record)| record.status.has_stock());
            let owner =
                live.find(|(_, record)| record.event_id == HALL && record.seats.contains(id));
            match owner {
                None => {
                    FinalSeat { state: FinalSeatState::Available, reservation_id: String::new() }
                }
                Some((owner, record)) => FinalSeat {
                    state: match record.status {
                        FinalStatus::Held => FinalSeatState::Hold,
                        _ => FinalSeatState::Sold,
                    },
                    reservation_id: owner.clone(),
                },
            }
        };
        let ids = ["A-1", "A-2", "A-3", "A-4"];
        let seats: BTreeMap<String, FinalSeat> =
            ids.iter().map(|&id| (id.to_owned(), seat(id))).collect();
        let units = |status: FinalStatus| -> i64 {
            let of = self.records.values().filter(|r| r.event_id == CONCERT && r.status == status);
            of.map(|record| i64::from(record.qty)).sum()
        };
        let (held, sold) = (units(FinalStatus::Held), units(FinalStatus::Confirmed));
        let concert = FinalEvent {
            total: 10,
            available: 10 - held - sold,
            held,
            sold,
            ..FinalEvent::default()
        };
        let count = |state| seats.values().filter(|seat| seat.state == state).count() as i64;
        let hall = FinalEvent {
            total: 4,
            available: count(FinalSeatState::Available),
            held: count(FinalSeatState::Hold),
            sold: count(FinalSeatState::Sold),
            blocked: 0,
            seats,
        };
        FinalState {
            read_at: Duration::from_millis(self.read_at),
            reservations: self.records.clone(),
            events: [(CONCERT.to_owned(), concert), (HALL.to_owned(), hall)].into(),
        }
    }

    pub(crate) fn check(&self) -> HistoryReport {
        check(&self.history, &self.state(), &self.rules)
    }

    /// The history is right.
    #[track_caller]
    pub(crate) fn passes(&self) -> HistoryReport {
        let report = self.check();
        assert!(report.is_clean(), "{report}");
        report
    }

    /// The history breaks these promises, and no others.
    #[track_caller]
    pub(crate) fn fails(&self, kinds: &[ViolationKind]) -> HistoryReport {
        let report = self.check();
        assert_kinds(&report, kinds);
        report
    }
}

/// The report has violations of these kinds, and of no others.
#[track_caller]
pub(crate) fn assert_kinds(report: &HistoryReport, kinds: &[ViolationKind]) {
    let mut found: Vec<_> = report.violations.iter().map(|violation| violation.kind).collect();
    found.dedup();
    assert_eq!(found, kinds, "{report}");
}
