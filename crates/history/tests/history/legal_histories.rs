//! Histories that look wrong and are right.

use inventory_history::{CallEffect, FinalStatus, StockSelection};

use super::script::{
    CONCERT, HALL, Script, commit, confirmed, held, hold, release, seat_unavailable, seats, units,
};

#[test]
fn unknown_commit_may_have_taken_effect_or_not() {
    let lost = Script::new().lost(0, "r1", CONCERT, commit(units(2)));
    lost.passes();
    lost.record("r1", FinalStatus::Confirmed, units(2), None).passes();
}

#[test]
fn unknown_commit_takes_effect_after_a_read_that_found_nothing() {
    Script::new()
        .lost(0, "r1", CONCERT, commit(units(2)))
        .units(
            5000,
            5001,
            "r1",
            inventory_history::CallOperation::Read,
            CallEffect::ReservationNotFound,
        )
        .units(9000, 9001, "r1", commit(units(2)), confirmed("r1"))
        .record("r1", FinalStatus::Confirmed, units(2), None)
        .passes();
}

#[test]
fn hold_expires_before_its_commit_and_the_commit_takes_the_stock_again() {
    Script::new()
        .units(0, 1, "r1", hold(units(2), 1000), held(1000, &[]))
        .units(6000, 6001, "r1", hold(units(2), 1000), CallEffect::HoldExpired)
        .units(8000, 8001, "r1", commit(units(2)), confirmed("r1"))
        .record("r1", FinalStatus::Confirmed, units(2), 1000)
        .passes();
}

#[test]
fn commit_of_an_expired_hold_is_refused_where_late_commits_are_rejected() {
    let mut script = Script::new()
        .units(0, 1, "r1", hold(units(2), 1000), held(1000, &[]))
        .units(6000, 6001, "r1", commit(units(2)), CallEffect::HoldExpired)
        .record("r1", FinalStatus::Expired, units(2), 1000);
    script.rules.late_commits = false;
    script.passes();
}

#[test]
fn release_of_a_sold_reservation_is_refused_and_of_an_expired_one_succeeds() {
    Script::new()
        .units(0, 1, "r1", commit(units(2)), confirmed("r1"))
        .units(2, 3, "r1", release(units(2)), CallEffect::ReservationCommitted)
        .record("r1", FinalStatus::Confirmed, units(2), None)
        .units(0, 1, "r2", hold(units(1), 1000), held(1000, &[]))
        .units(5000, 5001, "r2", release(StockSelection::AsRecorded), CallEffect::Released)
        .record("r2", FinalStatus::Expired, units(1), 1000)
        .passes();
}

#[test]
fn release_that_arrives_first_refuses_every_later_call() {
    Script::new()
        .units(0, 1, "r1", release(units(2)), CallEffect::Released)
        .units(2, 3, "r1", hold(units(2), 60_000), CallEffect::ReservationReleased)
        .units(4, 5, "r1", commit(units(2)), CallEffect::ReservationReleased)
        .units(6, 7, "r1", release(units(2)), CallEffect::Released)
        .record("r1", FinalStatus::Released, units(2), None)
        .passes();
}

#[test]
fn duplicates_over_processes_have_one_outcome() {
    let mut script = Script::new().lost(0, "r1", CONCERT, commit(units(2)));
    for n in 0..30 {
        script = script.units(1 + n % 3, 100 + n, "r1", commit(units(2)), confirmed("r1"));
    }
    let report = script
        .units(200, 201, "r1", commit(units(3)), CallEffect::IdempotencyConflict)
        .record("r1", FinalStatus::Confirmed, units(2), None)
        .passes();
    assert_eq!((report.summary.longest, report.summary.unknown), (32, 1));
}

#[test]
fn seat_is_sold_released_and_sold_again() {
    Script::new()
        .seats(0, 1, "r1", hold(seats(&["A-1", "A-2"]), 60_000), held(60_000, &["A-1", "A-2"]))
        .seats(2, 3, "r2", commit(seats(&["A-2"])), seat_unavailable(&["A-2"]))
        .seats(4, 5, "r1", release(seats(&["A-1", "A-2"])), CallEffect::Released)
        .seats(6, 7, "r2", commit(seats(&["A-2"])), confirmed("r2"))
        .seats(8, 9, "r3", commit(seats(&["A-2"])), seat_unavailable(&["A-2"]))
        .seats(10, 11, "r2", inventory_history::CallOperation::Refund, CallEffect::Refunded)
        .seats(12, 13, "r3", commit(seats(&["A-2"])), confirmed("r3"))
        .record("r1", FinalStatus::Released, seats(&["A-1", "A-2"]), 60_000)
        .record("r2", FinalStatus::Refunded, seats(&["A-2"]), None)
        .record("r3", FinalStatus::Confirmed, seats(&["A-2"]), None)
        .passes();
}

#[test]
fn expired_seat_goes_to_another_buyer_before_it_is_reclaimed() {
    Script::new()
        .seats(0, 1, "r1", hold(seats(&["A-1"]), 2000), held(2000, &["A-1"]))
        .seats(2100, 2101, "r2", commit(seats(&["A-1"])), confirmed("r2"))
        .seats(2200, 2201, "r1", commit(seats(&["A-1"])), CallEffect::HoldExpired)
        .record("r1", FinalStatus::Expired, seats(&["A-1"]), 2000)
        .record("r2", FinalStatus::Confirmed, seats(&["A-1"]), None)
        .passes();
}

#[test]
fn seat_is_unavailable_because_of_a_call_without_an_answer() {
    Script::new()
        .lost(0, "r1", HALL, commit(seats(&["A-1"])))
        .seats(5, 6, "r2", commit(seats(&["A-1"])), seat_unavailable(&["A-1"]))
        .record("r1", FinalStatus::Confirmed, seats(&["A-1"]), None)
        .passes();
}

#[test]
fn seats_that_the_server_chose_are_those_of_the_answer_and_the_record() {
    let any = || StockSelection::AnySeats(2);
    Script::new()
        .seats(0, 1, "r1", hold(any(), 60_000), held(60_000, &["A-3", "A-4"]))
        .seats(2, 3, "r1", commit(StockSelection::AsRecorded), confirmed("r1"))
        .record("r1", FinalStatus::Confirmed, seats(&["A-3", "A-4"]), 60_000)
        .lost(0, "r2", HALL, commit(any()))
        .record("r2", FinalStatus::Confirmed, seats(&["A-1", "A-2"]), None)
        .seats(7, 9, "r3", commit(any()), CallEffect::SoldOut)
        .passes();
}

#[test]
fn sold_out_is_right_while_a_call_without_an_answer_may_have_the_units() {
    let report = Script::new()
        .units(0, 1, "r1", commit(units(6)), confirmed("r1"))
        .lost(2, "r2", CONCERT, commit(units(3)))
        .units(4, 5, "r3", commit(units(2)), CallEffect::SoldOut)
        .record("r1", FinalStatus::Confirmed, units(6), None)
        .record("r2", FinalStatus::Confirmed, units(3), None)
        .passes();
    assert_eq!(report.summary.sold_out_answers, 1);
}

#[test]
fn sold_out_is_right_until_a_release_is_answered() {
    Script::new()
        .units(0, 1, "r1", hold(units(9), 60_000), held(60_000, &[]))
        .units(10, 20, "r1", release(units(9)), CallEffect::Released)
        .units(15, 30, "r2", commit(units(2)), CallEffect::SoldOut)
        .record("r1", FinalStatus::Released, units(9), 60_000)
        .passes();
}

#[test]
fn order_may_be_answered_from_a_cache_after_a_refund() {
    Script::new()
        .units(0, 1, "r1", commit(units(2)), confirmed("r1"))
        .units(2, 3, "r1", inventory_history::CallOperation::Refund, CallEffect::Refunded)
        .units(4, 5, "r1", commit(units(2)), confirmed("r1"))
        .units(6, 7, "r1", release(units(2)), CallEffect::ReservationCommitted)
        .record("r1", FinalStatus::Refunded, units(2), None)
        .passes();
    Script::new()
        .seats(0, 1, "r1", commit(seats(&["A-1"])), confirmed("r1"))
        .seats(2, 3, "r1", inventory_history::CallOperation::Refund, CallEffect::Refunded)
        .seats(4, 5, "r2", commit(seats(&["A-1"])), confirmed("r2"))
        .seats(6, 7, "r1", commit(seats(&["A-1"])), confirmed("r1"))
        .record("r1", FinalStatus::Refunded, seats(&["A-1"]), None)
        .record("r2", FinalStatus::Confirmed, seats(&["A-1"]), None)
        .passes();
}

#[test]
fn call_that_was_not_executed_proves_nothing() {
    let report = Script::new()
        .units(0, 1, "r1", commit(units(2)), CallEffect::Refused)
        .units(2, 3, "r1", commit(units(2)), CallEffect::EventClosed)
        .passes();
    assert_eq!((report.summary.refused, report.summary.reservations), (1, 1));
}

#[test]
fn records_without_a_call_that_may_have_written_them_are_named() {
    let report = Script::new()
        .units(0, 1, "refused", commit(units(1)), CallEffect::Refused)
        .record("refused", FinalStatus::Confirmed, units(1), None)
        .record("uncalled", FinalStatus::Confirmed, units(1), None)
        .units(2, 3, "retried", commit(units(1)), CallEffect::Refused)
        .lost(4, "retried", CONCERT, commit(units(1)))
        .record("retried", FinalStatus::Confirmed, units(1), None)
        .check();
    assert_eq!(report.foreign_records, ["refused", "uncalled"]);
}

#[test]
fn hold_that_ended_a_moment_ago_may_still_be_stored() {
    let mut script = Script::new().units(0, 1, "r1", hold(units(2), 1000), held(1000, &[])).record(
        "r1",
        FinalStatus::Held,
        units(2),
        1000,
    );
    script.read_at = 5000;
    script.passes();
}
