//! One history for each way to break a promise.

use ViolationKind::{
    Contradiction, HoldNotReturned, Incomplete, Lost, NotLinearizable, SoldTwice, StockDiffers,
    WronglySoldOut,
};
use inventory_history::{
    CallEffect, CallOperation, FinalSeatState, FinalState, FinalStatus, HistoryReport,
    StockSelection, ViolationKind, check,
};

use super::script::{
    CONCERT, HALL, Script, assert_kinds, commit, confirmed, held, hold, release, seat_unavailable,
    seats, units,
};

/// A hold, a late retry and a commit that all went well.
fn sale() -> Script {
    Script::new()
        .units(0, 1, "r1", hold(units(2), 60_000), held(60_000, &[]))
        .units(2, 3, "r1", commit(units(2)), confirmed("r1"))
        .units(4, 5, "r1", commit(units(2)), confirmed("r1"))
        .record("r1", FinalStatus::Confirmed, units(2), 60_000)
}

/// Two buyers of seats.
fn seat_sale() -> Script {
    Script::new()
        .seats(0, 1, "r1", commit(seats(&["A-1"])), confirmed("r1"))
        .seats(2, 3, "r2", commit(seats(&["A-2"])), confirmed("r2"))
        .record("r1", FinalStatus::Confirmed, seats(&["A-1"]), None)
        .record("r2", FinalStatus::Confirmed, seats(&["A-2"]), None)
}

#[test]
fn acknowledged_confirmation_is_lost() {
    let mut script = sale();
    script.records.clear();
    let report = script.fails(&[Lost, NotLinearizable]);
    assert_eq!(report.violations[0].key, "reservation r1");
    assert_eq!(report.violations[0].text, "was held by call #0, but has no record at the end");
    sale().record("r1", FinalStatus::Expired, units(2), 60_000).fails(&[Lost, NotLinearizable]);
}

#[test]
fn acknowledged_hold_release_or_refund_is_lost() {
    Script::new()
        .units(0, 1, "r1", hold(units(2), 60_000), held(60_000, &[]))
        .fails(&[Lost, NotLinearizable]);
    Script::new()
        .units(0, 1, "r1", release(units(2)), CallEffect::Released)
        .fails(&[Lost, NotLinearizable]);
    sale()
        .units(6, 7, "r1", CallOperation::Refund, CallEffect::Refunded)
        .fails(&[Lost, NotLinearizable]);
}

#[test]
fn reservation_has_two_orders() {
    let script = sale().units(6, 7, "r1", commit(units(2)), confirmed("r0"));
    script.fails(&[Contradiction]);
    Script::new()
        .units(0, 1, "r1", commit(units(2)), confirmed("r2"))
        .units(0, 1, "r2", commit(units(2)), confirmed("r2"))
        .record("r1", FinalStatus::Confirmed, units(2), None)
        .record("r2", FinalStatus::Confirmed, units(2), None)
        .fails(&[Contradiction, SoldTwice]);
}

#[test]
fn hold_has_two_ends_or_a_retry_extends_it() {
    Script::new()
        .units(0, 1, "r1", hold(units(2), 60_000), held(60_000, &[]))
        .units(2, 3, "r1", hold(units(2), 60_000), held(70_000, &[]))
        .record("r1", FinalStatus::Held, units(2), 60_000)
        .fails(&[Contradiction, HoldNotReturned, NotLinearizable]);
}

#[test]
fn answer_has_other_seats_than_requested() {
    Script::new()
        .seats(0, 1, "r1", hold(seats(&["A-1"]), 200_000), held(200_000, &["A-2"]))
        .record("r1", FinalStatus::Held, seats(&["A-2"]), 200_000)
        .fails(&[Contradiction, NotLinearizable]);
    Script::new()
        .seats(0, 1, "r1", hold(StockSelection::AnySeats(2), 200_000), held(200_000, &["A-2"]))
        .record("r1", FinalStatus::Held, seats(&["A-2"]), 200_000)
        .fails(&[Contradiction]);
    seat_sale()
        .seats(4, 5, "r3", commit(seats(&["A-1"])), seat_unavailable(&["A-2"]))
        .fails(&[Contradiction]);
}

#[test]
fn seat_has_two_confirmed_reservations() {
    let script = seat_sale().seats(4, 5, "r3", commit(seats(&["A-1"])), confirmed("r3")).record(
        "r3",
        FinalStatus::Confirmed,
        seats(&["A-1"]),
        None,
    );
    let report = script.fails(&[SoldTwice, StockDiffers, NotLinearizable]);
    assert_eq!(report.violations[0].key, "seat A-1 of hall");
    assert!(report.violations[0].text.contains("r1 and to r3"), "{report}");
}

#[test]
fn more_units_are_sold_than_there_are() {
    let mut script = Script::new();
    for n in 0..6 {
        let id = format!("r{n}");
        script = script.units(n, n + 1, &id, commit(units(2)), confirmed(&id)).record(
            &id,
            FinalStatus::Confirmed,
            units(2),
            None,
        );
    }
    script.fails(&[SoldTwice, StockDiffers]);
}

/// Checks the history of a script with a changed end.
#[track_caller]
fn fails_with(script: &Script, kinds: &[ViolationKind], change: impl FnOnce(&mut FinalState)) {
    let mut state = script.state();
    change(&mut state);
    assert_kinds(&check(&script.history, &state, &script.rules), kinds);
}

#[test]
fn stock_differs_from_the_records() {
    let units_of = |state: &mut FinalState| state.events.get_mut(CONCERT).unwrap().clone();
    fails_with(&sale(), &[StockDiffers], |state| {
        let mut event = units_of(state);
        event.available += 1;
        state.events.insert(CONCERT.to_owned(), event);
    });
    fails_with(&sale(), &[StockDiffers], |state| {
        let mut event = units_of(state);
        event.available -= 1;
        event.held += 1;
        state.events.insert(CONCERT.to_owned(), event);
    });
    fails_with(&sale(), &[StockDiffers], |state| {
        let mut event = units_of(state);
        (event.held, event.sold) = (event.held + 1, event.sold - 1);
        state.events.insert(CONCERT.to_owned(), event);
    });
    fails_with(&sale(), &[StockDiffers], |state| {
        state.events.remove(CONCERT);
    });
    fails_with(&seat_sale(), &[StockDiffers, NotLinearizable], |state| {
        let hall = state.events.get_mut(HALL).unwrap();
        let seat = hall.seats.get_mut("A-1").unwrap();
        seat.state = FinalSeatState::Available;
        (hall.available, hall.sold) = (hall.available + 1, hall.sold - 1);
    });
    fails_with(&seat_sale(), &[StockDiffers], |state| {
        let hall = state.events.get_mut(HALL).unwrap();
        "r2".clone_into(&mut hall.seats.get_mut("A-1").unwrap().reservation_id);
    });
    fails_with(&seat_sale(), &[StockDiffers], |state| {
        let hall = state.events.get_mut(HALL).unwrap();
        hall.seats.remove("A-1").unwrap();
        (hall.total, hall.sold) = (hall.total - 1, hall.sold - 1);
    });
}

#[test]
fn record_has_other_units_than_requested() {
    sale().record("r1", FinalStatus::Confirmed, units(3), 60_000).fails(&[NotLinearizable]);
}

#[test]
fn expired_hold_keeps_its_stock() {
    let report = Script::new()
        .units(0, 1, "r1", hold(units(2), 60_000), held(60_000, &[]))
        .record("r1", FinalStatus::Held, units(2), 60_000)
        .fails(&[HoldNotReturned]);
    let text = "still held 40.0 s after its end; 10.0 s are allowed";
    assert_eq!(report.violations[0].text, text);
}

#[test]
fn hold_is_released_or_expires_too_early_without_a_reason() {
    let held_only = || Script::new().units(0, 1, "r1", hold(units(2), 60_000), held(60_000, &[]));
    held_only().record("r1", FinalStatus::Released, units(2), 60_000).fails(&[NotLinearizable]);
    held_only().record("r1", FinalStatus::Confirmed, units(2), 60_000).fails(&[NotLinearizable]);
    held_only()
        .units(5000, 5001, "r1", hold(units(2), 60_000), CallEffect::HoldExpired)
        .record("r1", FinalStatus::Expired, units(2), 60_000)
        .fails(&[NotLinearizable]);
    // The same after the end.
    held_only()
        .units(60_500, 60_501, "r1", hold(units(2), 60_000), CallEffect::HoldExpired)
        .record("r1", FinalStatus::Expired, units(2), 60_000)
        .passes();
}

#[test]
fn hold_is_confirmed_to_run_long_after_its_end() {
    Script::new()
        .units(0, 1, "r1", hold(units(2), 2000), held(2000, &[]))
        .units(9000, 9001, "r1", hold(units(2), 2000), held(2000, &[]))
        .record("r1", FinalStatus::Expired, units(2), 2000)
        .fails(&[NotLinearizable]);
}

#[test]
fn sold_reservation_is_released() {
    let script = sale().units(6, 7, "r1", release(units(2)), CallEffect::Released).record(
        "r1",
        FinalStatus::Released,
        units(2),
        60_000,
    );
    let report = script.fails(&[Lost, NotLinearizable]);
    let shown = &report.violations[1];
    assert_eq!(shown.text, "no order of these calls explains answer #3");
    let last =
        "    0.006000 .. 0.007000     client 0 #3: r1 release 2 unit(s) of concert -> RELEASED";
    assert_eq!(shown.lines[3], last, "{report}");
}

#[test]
fn reservation_is_refused_after_it_was_confirmed() {
    sale()
        .units(6, 7, "r1", commit(units(2)), CallEffect::SoldOut)
        .fails(&[NotLinearizable, WronglySoldOut]);
    sale()
        .units(6, 7, "r1", commit(units(2)), CallEffect::ReservationReleased)
        .fails(&[NotLinearizable]);
    sale()
        .units(6, 7, "r1", commit(units(2)), CallEffect::IdempotencyConflict)
        .fails(&[NotLinearizable]);
    sale().units(6, 7, "r1", commit(units(3)), confirmed("r1")).fails(&[NotLinearizable]);
}

#[test]
fn strong_read_misses_what_was_acknowledged() {
    let read = |status| CallEffect::Read { status };
    sale().units(6, 7, "r1", CallOperation::Read, read(FinalStatus::Confirmed)).passes();
    sale()
        .units(6, 7, "r1", CallOperation::Read, read(FinalStatus::Held))
        .fails(&[NotLinearizable]);
    sale()
        .units(6, 7, "r1", CallOperation::Read, CallEffect::ReservationNotFound)
        .fails(&[NotLinearizable]);
    // While the commit is in flight, both are right.
    sale().units(1, 3, "r1", CallOperation::Read, read(FinalStatus::Held)).passes();
}

#[test]
fn unknown_call_is_seen_and_then_gone() {
    let read = |status| CallEffect::Read { status };
    let script = Script::new().lost(0, "r1", CONCERT, commit(units(2))).units(
        5,
        6,
        "r1",
        CallOperation::Read,
        read(FinalStatus::Confirmed),
    );
    script.clone().record("r1", FinalStatus::Confirmed, units(2), None).passes();
    let report = script
        .units(7, 8, "r1", CallOperation::Read, CallEffect::ReservationNotFound)
        .record("r1", FinalStatus::Confirmed, units(2), None)
        .fails(&[NotLinearizable]);
    assert_eq!(report.violations[0].lines.len(), 4, "{report}");
}

#[test]
fn seat_is_refused_although_nobody_has_it() {
    Script::new()
        .seats(5000, 5001, "r1", commit(seats(&["A-1"])), seat_unavailable(&["A-1"]))
        .fails(&[NotLinearizable]);
    // A call without an answer that left no record did not take the seat.
    Script::new()
        .lost(0, "r2", HALL, commit(seats(&["A-1"])))
        .seats(5000, 5001, "r1", commit(seats(&["A-1"])), seat_unavailable(&["A-1"]))
        .fails(&[NotLinearizable]);
}

#[test]
fn seat_of_a_running_hold_goes_to_another_buyer() {
    let script = Script::new()
        .seats(0, 1, "r1", hold(seats(&["A-1"]), 60_000), held(60_000, &["A-1"]))
        .seats(10, 11, "r2", commit(seats(&["A-1"])), confirmed("r2"))
        .record("r1", FinalStatus::Expired, seats(&["A-1"]), 60_000)
        .record("r2", FinalStatus::Confirmed, seats(&["A-1"]), None);
    let report = script.fails(&[NotLinearizable]);
    assert_eq!(report.violations[0].key, "seat A-1 of hall");
    assert_eq!(report.violations[0].lines.len(), 3, "{report}");
}

#[test]
fn seat_has_two_running_holds() {
    let hold_of = |until| hold(seats(&["A-1"]), until);
    let script = Script::new()
        .seats(0, 1, "r1", hold_of(60_000), held(60_000, &["A-1"]))
        .seats(10, 11, "r2", hold_of(200_000), held(200_000, &["A-1"]))
        .record("r1", FinalStatus::Expired, seats(&["A-1"]), 60_000)
        .record("r2", FinalStatus::Held, seats(&["A-1"]), 200_000);
    let report = script.fails(&[NotLinearizable]);
    assert_eq!(report.violations[0].key, "seat A-1 of hall");
}

#[test]
fn sold_seat_is_released() {
    let script = Script::new().seats(0, 1, "r1", commit(seats(&["A-1"])), confirmed("r1")).seats(
        2,
        3,
        "r1",
        release(seats(&["A-1"])),
        CallEffect::Released,
    );
    let keys = |report: HistoryReport| {
        let violations = report.violations.into_iter();
        violations.filter(|v| v.kind == NotLinearizable).map(|v| v.key).collect::<Vec<_>>()
    };
    let released = script.clone().record("r1", FinalStatus::Released, seats(&["A-1"]), None);
    let report = released.fails(&[Lost, NotLinearizable]);
    assert_eq!(keys(report), ["reservation r1", "seat A-1 of hall"]);
    // Not even if the answer was wrong and the seat is still sold.
    let sold = script.record("r1", FinalStatus::Confirmed, seats(&["A-1"]), None);
    assert_eq!(keys(sold.fails(&[NotLinearizable])), ["reservation r1", "seat A-1 of hall"]);
}

#[test]
fn sold_out_while_enough_was_free() {
    let script = Script::new()
        .units(0, 1, "r1", commit(units(6)), confirmed("r1"))
        .units(4, 5, "r3", commit(units(4)), CallEffect::SoldOut)
        .record("r1", FinalStatus::Confirmed, units(6), None);
    let report = script.fails(&[WronglySoldOut]);
    let text = "4 requested, but at least 4 of 10 were free during the whole call";
    assert_eq!(report.violations[0].text, text);
    // Long after a release was answered, its units count as free.
    Script::new()
        .units(0, 1, "r1", hold(units(9), 60_000), held(60_000, &[]))
        .units(10, 20, "r1", release(units(9)), CallEffect::Released)
        .units(120, 130, "r2", commit(units(2)), CallEffect::SoldOut)
        .record("r1", FinalStatus::Released, units(9), 60_000)
        .fails(&[WronglySoldOut]);
}

#[test]
fn late_commit_is_refused_while_enough_was_free() {
    Script::new()
        .units(0, 1, "r1", hold(units(2), 1000), held(1000, &[]))
        .units(6000, 6001, "r1", commit(units(2)), CallEffect::HoldExpired)
        .record("r1", FinalStatus::Expired, units(2), 1000)
        .fails(&[WronglySoldOut]);
}

#[test]
fn history_without_some_calls_proves_nothing() {
    let mut script = sale();
    script.history.unrecorded = 1;
    script.fails(&[Incomplete]);
}

#[test]
fn history_that_is_not_decided_is_not_clean() {
    let mut script = sale();
    script.rules.search_steps = 3;
    let report = script.check();
    assert!(report.violations.is_empty() && !report.is_clean(), "{report}");
    assert_eq!(report.summary.not_decided, 1);
}
