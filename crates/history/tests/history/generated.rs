//! Histories generated from a sequential sale with overlapping calls, lost answers and late effects. Each must pass as it
//! is, and fail with one planted fault.
//!
//! The sale is written for this test alone: a map of reservations and a stock of units and seats. A call takes effect at
//! a random moment between its start and its end; the order of these moments is the order of the sale.

use std::collections::{BTreeMap, BTreeSet};

use inventory_history::{
    CallEffect, CallOperation, FinalStatus, RecordedCall, StockSelection, ViolationKind, check,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::script::{CONCERT, HALL, START_MS, Script, commit, hold, release, seats, units};

const SEATS: [&str; 4] = ["A-1", "A-2", "A-3", "A-4"];

/// What a reservation requests in all its calls.
fn payload(reservation: u8) -> (&'static str, StockSelection) {
    match reservation % 4 {
        0 => (CONCERT, units(1 + u32::from(reservation) % 5)),
        1 => (CONCERT, units(3)),
        2 => (HALL, seats(&[SEATS[usize::from(reservation / 4) % 4]])),
        _ => {
            let first = usize::from(reservation / 4) % 3;
            (HALL, seats(&SEATS[first..first + 2]))
        }
    }
}

/// One attempt before the sale decides it.
#[derive(Clone, Debug)]
struct Attempt {
    reservation: u8,
    verb: u8,
    started: u64,
    /// From start to effect, and from effect to end.
    delays: (u64, u64),
    /// Neither answered nor executed, or executed and not answered.
    loss: Option<bool>,
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let loss = prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let one = (0..10_u8, 0..12_u8, 0..20_000_u64, (1..900_u64, 1..900_u64), loss);
    let one = one.prop_map(|(reservation, verb, started, delays, loss)| Attempt {
        reservation,
        verb,
        started,
        delays,
        loss,
    });
    prop::collection::vec(one, 1..80)
}

#[derive(Clone, Debug)]
struct Reservation {
    status: FinalStatus,
    until: Option<u64>,
    /// A release that arrived first took no stock.
    is_tombstone: bool,
}

/// The sale: see the module head.
#[derive(Debug)]
struct Sale {
    reservations: BTreeMap<u8, Reservation>,
    units: u32,
    seats: BTreeMap<String, u8>,
}

impl Sale {
    fn new() -> Self {
        Self { reservations: BTreeMap::new(), units: 10, seats: BTreeMap::new() }
    }

    fn take(&mut self, reservation: u8) -> Result<(), CallEffect> {
        match payload(reservation).1 {
            StockSelection::Units(count) if count > self.units => Err(CallEffect::SoldOut),
            StockSelection::Units(count) => {
                self.units -= count;
                Ok(())
            }
            StockSelection::Seats(wanted) => {
                let has = |seat: &&String| self.seats.contains_key(*seat);
                let taken: BTreeSet<String> = wanted.iter().filter(has).cloned().collect();
                if !taken.is_empty() {
                    return Err(CallEffect::SeatUnavailable { seats: taken });
                }
                self.seats.extend(wanted.into_iter().map(|seat| (seat, reservation)));
                Ok(())
            }
            _ => unreachable!("no reservation names nothing"),
        }
    }

    fn put_back(&mut self, reservation: u8) {
        if let StockSelection::Units(count) = payload(reservation).1 {
            self.units += count;
        }
        self.seats.retain(|_, owner| *owner != reservation);
    }

    /// Returns the stock of holds that have ended.
    fn expire(&mut self, now: u64) {
        let is_over = |r: &Reservation| {
            r.status == FinalStatus::Held && r.until.is_some_and(|until| until <= now)
        };
        let over: Vec<u8> =
            self.reservations.iter().filter(|(_, r)| is_over(r)).map(|(id, _)| *id).collect();
        for id in over {
            self.put_back(id);
            self.reservations.get_mut(&id).unwrap().status = FinalStatus::Expired;
        }
    }

    fn execute(&mut self, reservation: u8, operation: &CallOperation, now: u64) -> CallEffect {
        self.expire(now);
        let before = self.reservations.get(&reservation).cloned();
        let status = before.as_ref().map(|of| of.status);
        let until = before.as_ref().and_then(|of| of.until);
        let mut set = |status, until, is_tombstone| {
            self.reservations.insert(reservation, Reservation { status, until, is_tombstone });
        };
        use FinalStatus::{Confirmed, Expired, Held, Refunded, Released};
        match (operation, status) {
            (CallOperation::Hold { expires_at_ms, .. }, None) => {
                let end = expires_at_ms.unwrap() - START_MS;
                if let Err(refusal) = self.take(reservation) {
                    return refusal;
                }
                let held = Reservation { status: Held, until: Some(end), is_tombstone: false };
                self.reservations.insert(reservation, held);
                held_answer(reservation, end)
            }
            (CallOperation::Hold { .. }, Some(Held)) => held_answer(reservation, until.unwrap()),
            (CallOperation::Hold { .. }, Some(Expired)) => CallEffect::HoldExpired,
            (CallOperation::Hold { .. } | CallOperation::Release { .. }, Some(Confirmed)) => {
                CallEffect::ReservationCommitted
            }
            (
                CallOperation::Hold { .. } | CallOperation::Commit { .. },
                Some(Released | Refunded),
            ) => CallEffect::ReservationReleased,
            (CallOperation::Commit { .. }, Some(Held | Confirmed)) => {
                set(Confirmed, until, false);
                super::script::confirmed(&id_of(reservation))
            }
            (CallOperation::Commit { .. }, None | Some(Expired)) => {
                if let Err(refusal) = self.take(reservation) {
                    let was_held = status == Some(Expired);
                    return if was_held { CallEffect::HoldExpired } else { refusal };
                }
                let sold = Reservation { status: Confirmed, until, is_tombstone: false };
                self.reservations.insert(reservation, sold);
                super::script::confirmed(&id_of(reservation))
            }
            (CallOperation::Release { .. }, None) => {
                set(Released, None, true);
                CallEffect::Released
            }
            (CallOperation::Release { .. }, Some(Held)) => {
                set(Released, until, false);
                self.put_back(reservation);
                CallEffect::Released
            }
            (CallOperation::Release { .. }, Some(_)) => CallEffect::Released,
            (CallOperation::Refund, None) => CallEffect::ReservationNotFound,
            (CallOperation::Refund, Some(Confirmed)) => {
                set(Refunded, until, false);
                self.put_back(reservation);
                CallEffect::Refunded
            }
            (CallOperation::Refund, Some(Refunded)) => CallEffect::Refunded,
            (CallOperation::Refund, Some(_)) => CallEffect::ReservationNotConfirmed,
            (CallOperation::Read, None) => CallEffect::ReservationNotFound,
            (CallOperation::Read, Some(status)) => CallEffect::Read { status },
        }
    }
}

fn held_answer(reservation: u8, end: u64) -> CallEffect {
    let seats = match payload(reservation).1 {
        StockSelection::Seats(seats) => seats,
        _ => BTreeSet::new(),
    };
    CallEffect::Held { expires_at_ms: START_MS + end, seats }
}

fn id_of(reservation: u8) -> String {
    format!("r{reservation}")
}

fn operation_of(attempt: &Attempt) -> CallOperation {
    let (_, selection) = payload(attempt.reservation);
    match attempt.verb {
        // Half of the holds expire during the history.
        0..4 => {
            hold(selection, if attempt.reservation.is_multiple_of(2) { 9_000 } else { 500_000 })
        }
        4..8 => commit(selection),
        8 | 9 => release(selection),
        10 => CallOperation::Refund,
        _ => CallOperation::Read,
    }
}

/// Executes the attempts in the order in which they take effect, and returns the history and its end.
fn sell(attempts: &[Attempt]) -> Script {
    let mut order: Vec<&Attempt> = attempts.iter().collect();
    order.sort_by_key(|attempt| attempt.started + attempt.delays.0);
    let mut sale = Sale::new();
    let mut script = Script::new();
    for attempt in order {
        let operation = operation_of(attempt);
        let at = attempt.started + attempt.delays.0;
        let effect = match attempt.loss {
            Some(false) => CallEffect::Unknown,
            _ => sale.execute(attempt.reservation, &operation, at),
        };
        let times = match attempt.loss {
            None => (attempt.started, Some(at + attempt.delays.1)),
            Some(_) => (attempt.started, None),
        };
        let effect = if attempt.loss.is_some() { CallEffect::Unknown } else { effect };
        let event = payload(attempt.reservation).0;
        script = script.call(times, &id_of(attempt.reservation), event, operation, effect);
    }
    sale.expire(script.read_at);
    for (id, reservation) in &sale.reservations {
        let (_, selection) = payload(*id);
        script = script.record(&id_of(*id), reservation.status, selection, reservation.until);
        if reservation.is_tombstone {
            let record = script.records.get_mut(&id_of(*id)).unwrap();
            record.seats.clear();
        }
    }
    // No answer is older than its call in this sale.
    script.rules.seat_age = std::time::Duration::ZERO;
    script.rules.sold_out_age = std::time::Duration::ZERO;
    script.rules.clock_difference = std::time::Duration::ZERO;
    script
}

/// The calls that acknowledged something.
fn acknowledged(script: &Script) -> Vec<usize> {
    let is_acknowledged = |call: &RecordedCall| {
        matches!(
            call.effect,
            CallEffect::Confirmed { .. } | CallEffect::Held { .. } | CallEffect::Released
        )
    };
    let calls = script.history.calls.iter().enumerate();
    calls.filter(|(_, call)| is_acknowledged(call)).map(|(at, _)| at).collect()
}

fn confirmed_records(script: &Script) -> Vec<String> {
    let records = script.records.iter();
    records
        .filter(|(_, record)| record.status == FinalStatus::Confirmed)
        .map(|(id, _)| id.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequential_sale_with_overlapping_calls_passes(attempts in attempts()) {
        let report = sell(&attempts).check();
        prop_assert!(report.is_clean(), "{}", report);
    }

    #[test]
    fn lost_record_is_found(attempts in attempts(), which: Index) {
        let mut script = sell(&attempts);
        let acknowledged = acknowledged(&script);
        prop_assume!(!acknowledged.is_empty());
        let call = &script.history.calls[acknowledged[which.index(acknowledged.len())]];
        let id = call.reservation_id.clone();
        script.records.remove(&id);
        let report = script.check();
        let key = format!("reservation {id}");
        let is_found = |kind| report.violations.iter().any(|v| v.kind == kind && v.key == key);
        prop_assert!(is_found(ViolationKind::Lost) && is_found(ViolationKind::NotLinearizable), "{}", report);
    }

    #[test]
    fn acknowledged_confirmation_that_was_undone_is_found(attempts in attempts(), which: Index) {
        let mut script = sell(&attempts);
        let calls = script.history.calls.iter();
        let sold: Vec<_> = calls.filter(|c| matches!(c.effect, CallEffect::Confirmed { .. })).collect();
        prop_assume!(!sold.is_empty());
        let id = sold[which.index(sold.len())].reservation_id.clone();
        script.records.get_mut(&id).unwrap().status = FinalStatus::Released;
        let report = script.check();
        prop_assert!(report.violations.iter().any(|v| v.kind == ViolationKind::Lost), "{}", report);
    }

    #[test]
    fn second_confirmation_of_a_seat_is_found(attempts in attempts(), which: Index) {
        let mut script = sell(&attempts);
        let sold = confirmed_records(&script);
        let sold: Vec<&String> = sold.iter().filter(|id| !script.records[*id].seats.is_empty()).collect();
        prop_assume!(!sold.is_empty());
        let first = sold[which.index(sold.len())].clone();
        let seats_sold = script.records[&first].seats.clone();
        let is_answered = script.history.calls.iter().any(|call| {
            call.reservation_id == first && matches!(call.effect, CallEffect::Confirmed { .. })
        });
        let last = script.history.calls.iter().filter_map(|c| c.ended).max().unwrap_or_default();
        let at = last.as_millis() as u64 + 1;
        let selection = StockSelection::Seats(seats_sold);
        script = script
            .seats(at, at + 1, "late", commit(selection.clone()), super::script::confirmed("late"))
            .record("late", FinalStatus::Confirmed, selection, None);
        let report = script.check();
        let kinds: Vec<_> = report.violations.iter().map(|v| v.kind).collect();
        prop_assert!(kinds.contains(&ViolationKind::SoldTwice), "{}", report);
        // If the first buyer got no answer, the order of the calls has no mistake; the records have.
        prop_assert!(kinds.contains(&ViolationKind::NotLinearizable) || !is_answered, "{}", report);
    }

    #[test]
    fn unit_that_is_missing_is_found(attempts in attempts(), is_more: bool) {
        let script = sell(&attempts);
        let mut state = script.state();
        let event = state.events.get_mut(CONCERT).unwrap();
        event.available += if is_more { 1 } else { -1 };
        let report = check(&script.history, &state, &script.rules);
        let kinds: Vec<_> = report.violations.iter().map(|v| v.kind).collect();
        prop_assert!(kinds.contains(&ViolationKind::StockDiffers), "{}", report);
    }

    #[test]
    fn answer_that_contradicts_a_confirmation_is_found(attempts in attempts(), which: Index, kind in 0..4_usize) {
        let mut script = sell(&attempts);
        let sold = confirmed_records(&script);
        prop_assume!(!sold.is_empty());
        let id = sold[which.index(sold.len())].clone();
        // A call without an answer may have confirmed it at any time: only what follows an answer contradicts one.
        let answered = script.history.calls.iter().filter(|call| call.reservation_id == id);
        let is_sold = answered.clone().any(|c| matches!(c.effect, CallEffect::Confirmed { .. }));
        prop_assume!(is_sold);
        let last = script.history.calls.iter().filter_map(|c| c.ended).max().unwrap_or_default();
        let at = last.as_millis() as u64 + 1;
        let event = script.records[&id].event_id.clone();
        let effect = [
            CallEffect::SoldOut,
            CallEffect::ReservationReleased,
            CallEffect::IdempotencyConflict,
            CallEffect::StockNotFound,
        ][kind].clone();
        let selection = answered.clone().find_map(|call| match &call.operation {
            CallOperation::Commit { selection } => Some(selection.clone()),
            _ => None,
        });
        let operation = commit(selection.unwrap());
        script = script.call((at, Some(at + 1)), &id, &event, operation, effect);
        let report = script.check();
        let key = format!("reservation {id}");
        let wrong = |v: &&inventory_history::HistoryViolation| {
            v.kind == ViolationKind::NotLinearizable && v.key == key
        };
        prop_assert!(report.violations.iter().any(|v| wrong(&v)), "{}", report);
    }
}
