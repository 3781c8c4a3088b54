//! One planted fault per kind of violation.

use super::{RecordItem, SeatItem, StoreJudge, StripeItem};
use crate::ledger::{ReservationEntry, RunLedger, ViolationLog, WorkerLedger};
use crate::outcome::{CallAnswer, CallMethod, OrderId, OutcomeKind};

fn order_text(n: u32) -> String {
    format!("ord_{n:032x}")
}

fn ok(n: u32) -> CallAnswer {
    CallAnswer { order: OrderId::of(&order_text(n)), ..CallAnswer::of(OutcomeKind::Ok) }
}

/// A sale of 10 units on two stripes: reservation 0 confirmed (2), 1 held (3), 2 released (1), 3 refused, 4
/// without an answer, but confirmed (1).
struct StoredSale {
    ledger: WorkerLedger,
    records: Vec<RecordItem<'static>>,
    stripes: Vec<StripeItem>,
}

fn record(n: u32, status: &'static str, qty: u32, draws: &'static str) -> RecordItem<'static> {
    RecordItem {
        reservation: format!("r-{n:x}").into(),
        event: "evt".into(),
        status: status.into(),
        qty,
        draws: draws.into(),
        seats: Vec::new(),
        order: if status == "CONFIRMED" { order_text(n).into() } else { "".into() },
        counted: status == "HELD",
    }
}

fn stripe(index: u32, total: i64, remaining: i64, held: i64) -> StripeItem {
    StripeItem {
        event: 0,
        index,
        is_counter: false,
        held,
        total,
        remaining,
        version: 1,
        stripes: 2,
        seat_keys: 0,
    }
}

fn counter(index: u32, confirmed: i64) -> StripeItem {
    StripeItem { is_counter: true, stripes: 1, version: 0, ..stripe(index, 0, 0, -confirmed) }
}

fn sale() -> StoredSale {
    let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
    for qty in [2, 3, 1, 9, 1] {
        ledger.add_entry(ReservationEntry::new(0, qty, 0));
    }
    let no = CallAnswer::of;
    ledger.record(0, CallMethod::DirectCommit, &ok(0), 1);
    ledger.record(1, CallMethod::Hold, &no(OutcomeKind::Ok), 1);
    ledger.record(2, CallMethod::Hold, &no(OutcomeKind::Ok), 1);
    ledger.record(2, CallMethod::Release, &no(OutcomeKind::Ok), 1);
    ledger.record(3, CallMethod::DirectCommit, &no(OutcomeKind::SoldOut), 1);
    ledger.record(4, CallMethod::DirectCommit, &no(OutcomeKind::Deadline), 1);
    StoredSale {
        ledger,
        records: vec![
            record(0, "CONFIRMED", 2, "0:1,1:1"),
            record(1, "HELD", 3, "1:3"),
            record(2, "RELEASED", 1, "0:1"),
            record(4, "CONFIRMED", 1, "0:1"),
        ],
        // Reservation 0 was a hold before.
        stripes: vec![stripe(0, 5, 3, 1), stripe(1, 5, 1, 4), counter(3, 2)],
    }
}

fn violations_of(sale: StoredSale, seats: &[SeatItem<'_>]) -> ViolationLog {
    let events = ["evt".to_owned()];
    let mut ledger = RunLedger::new(vec![sale.ledger]);
    let mut judge = StoreJudge::new(&events, &mut ledger);
    for record in &sale.records {
        judge.record(record);
    }
    for seat in seats {
        judge.seat(seat);
    }
    judge.verdict(&sale.stripes).violations
}

/// Kinds of violations after `change` is applied to a consistent sale.
fn violations_after(change: impl FnOnce(&mut StoredSale)) -> Vec<&'static str> {
    let mut sale = sale();
    change(&mut sale);
    violations_of(sale, &[]).counts.into_keys().collect()
}

#[test]
fn a_consistent_sale_has_no_violations() {
    let violations = violations_of(sale(), &[]);
    assert_eq!(violations.total(), 0, "{violations:?}");
    // A call with an unknown outcome may have had no effect.
    let kinds = violations_after(|sale| {
        sale.records.pop();
        sale.stripes[0].remaining += 1;
    });
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn an_acknowledged_commit_must_be_stored_with_its_order() {
    assert_eq!(violations_after(|sale| sale.records[0].order = order_text(9).into()), ["order"]);
    assert_eq!(violations_after(|sale| sale.records[0].order = "".into()), ["record"]);
    let kinds = violations_after(|sale| {
        sale.records.remove(0);
        sale.stripes[0].remaining += 1;
        sale.stripes[1].remaining += 1;
    });
    assert_eq!(kinds, ["durable"]);
    for status in ["HELD", "RELEASED", "EXPIRED", "REFUNDED"] {
        let kinds = violations_after(|sale| sale.records[0].status = status.into());
        assert!(kinds.contains(&"durable"), "{status}: {kinds:?}");
    }
}

#[test]
fn acknowledged_holds_and_releases_must_be_stored() {
    let kinds = violations_after(|sale| {
        sale.records.remove(1);
        sale.stripes[1].remaining += 3;
        sale.stripes[1].held -= 3;
    });
    assert_eq!(kinds, ["durable"]);
    assert_eq!(violations_after(|sale| drop(sale.records.remove(2))), ["durable"]);
    let kinds = violations_after(|sale| {
        sale.records[2].status = "HELD".into();
        sale.stripes[0].remaining -= 1;
    });
    assert_eq!(kinds, ["durable"]);
    let kinds = violations_after(|sale| {
        sale.records[1].status = "RELEASED".into();
        sale.stripes[1].remaining += 3;
        sale.stripes[1].held -= 3;
    });
    assert_eq!(kinds, ["record"], "never released");
}

#[test]
fn refused_calls_must_not_take_effect() {
    let kinds = violations_after(|sale| {
        sale.records.push(record(3, "CONFIRMED", 9, "0:9"));
        sale.stripes[0].total += 9;
    });
    assert_eq!(kinds, ["refused"]);
    let kinds = violations_after(|sale| {
        sale.records.push(record(3, "HELD", 9, "0:9"));
        sale.stripes[0].total += 9;
        sale.stripes[0].held += 9;
    });
    assert_eq!(kinds, ["refused"]);
    let kinds = violations_after(|sale| {
        sale.ledger.record(3, CallMethod::DirectCommit, &CallAnswer::of(OutcomeKind::Broken), 2);
        sale.records.push(record(3, "CONFIRMED", 9, "0:9"));
        sale.stripes[0].total += 9;
    });
    assert!(kinds.is_empty(), "one of its calls has an unknown outcome: {kinds:?}");
}

#[test]
fn an_order_must_be_unique() {
    let kinds = violations_after(|sale| sale.records[3].order = order_text(0).into());
    assert_eq!(kinds, ["order"]);
    let kinds = violations_after(|sale| {
        let mut foreign = record(0, "CONFIRMED", 1, "1:1");
        foreign.reservation = "other-client".into();
        sale.records.push(foreign);
        sale.stripes[1].remaining -= 1;
    });
    assert_eq!(kinds, ["order"]);
}

#[test]
fn every_stripe_must_balance() {
    assert_eq!(violations_after(|sale| sale.stripes[0].remaining -= 1), ["balance"]);
    assert_eq!(violations_after(|sale| sale.records[1].draws = "0:3".into()), ["balance"]);
    assert_eq!(
        violations_after(|sale| sale.records[1].draws = "1:2".into()),
        ["balance", "record"]
    );
    assert!(violations_after(|sale| sale.stripes.truncate(1)).contains(&"balance"));
    let strangers = violations_after(|sale| {
        let mut release_record = record(0, "HELD", 4, "0:3,1:1");
        release_record.reservation = "~release_record".into();
        release_record.counted = false;
        sale.records.push(release_record);
        sale.stripes[0].remaining -= 3;
        sale.stripes[1].remaining -= 1;
    });
    assert!(strangers.is_empty(), "records of other clients count: {strangers:?}");
}

#[test]
fn held_units_must_be_those_of_held_records() {
    assert_eq!(violations_after(|sale| sale.stripes[0].held += 1), ["held"]);
    assert_eq!(violations_after(|sale| sale.stripes[2].held -= 1), ["held"]);
    assert_eq!(violations_after(|sale| sale.records[1].counted = false), ["held"]);
}

#[test]
fn oversold_is_found_even_when_a_stripe_went_below_zero() {
    let kinds = violations_after(|sale| {
        sale.records.push(record(3, "CONFIRMED", 9, "0:9"));
        sale.ledger.record(3, CallMethod::DirectCommit, &ok(3), 2);
        sale.stripes[0].remaining -= 9;
    });
    assert_eq!(kinds, ["balance", "oversold"]);
}

#[test]
fn units_that_were_refused_but_never_sold_are_undersold() {
    // Nine units were refused; four remain, one of them was returned.
    let kinds = violations_after(|sale| {
        sale.ledger.add_entry(ReservationEntry::new(0, 3, 0));
        sale.ledger.record(5, CallMethod::DirectCommit, &CallAnswer::of(OutcomeKind::SoldOut), 2);
    });
    assert_eq!(kinds, ["undersold"], "3 units were available");
    let kinds = violations_after(|sale| {
        sale.ledger.add_entry(ReservationEntry::new(0, 4, 0));
        sale.ledger.record(5, CallMethod::DirectCommit, &CallAnswer::of(OutcomeKind::SoldOut), 2);
    });
    assert!(kinds.is_empty(), "one of the four may have been returned later: {kinds:?}");
}

#[test]
fn a_record_must_match_the_request() {
    assert_eq!(violations_after(|sale| sale.records[2].qty = 2), ["record"]);
    let kinds = violations_after(|sale| {
        sale.records.push(record(77, "RELEASED", 1, ""));
    });
    assert_eq!(kinds, ["record"], "never requested");
    assert_eq!(
        violations_after(|sale| sale.records[2].event = "other".into()),
        ["durable", "record"]
    );
}

/// Two seats sold, one held, one available.
fn seated_sale() -> (StoredSale, Vec<SeatItem<'static>>) {
    let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
    ledger.add_entry(ReservationEntry::new(0, 2, 0));
    ledger.add_entry(ReservationEntry::new(0, 1, 2));
    ledger.record(0, CallMethod::DirectCommit, &ok(0), 1);
    ledger.record(1, CallMethod::Hold, &CallAnswer::of(OutcomeKind::Ok), 1);
    let seats = |of: &[&'static str]| of.iter().map(|seat| (*seat).into()).collect();
    let records = vec![
        RecordItem { seats: seats(&["A-1", "A-2"]), ..record(0, "CONFIRMED", 2, "") },
        RecordItem { seats: seats(&["A-3"]), ..record(1, "HELD", 1, "") },
    ];
    let seat = |id: &'static str, status: &'static str, of: &'static str, order: String| SeatItem {
        event: "evt".into(),
        seat: id.into(),
        status: status.into(),
        reservation: of.into(),
        order: order.into(),
    };
    let items = vec![
        seat("A-1", "SOLD", "r-0", order_text(0)),
        seat("A-2", "SOLD", "r-0", order_text(0)),
        seat("A-3", "HOLD", "r-1", String::new()),
        seat("A-4", "AVAILABLE", "", String::new()),
    ];
    let stripes = vec![StripeItem { stripes: 1, seat_keys: 4, ..stripe(0, 0, 0, 0) }];
    (StoredSale { ledger, records, stripes }, items)
}

fn violations_after_seated(
    change: impl FnOnce(&mut StoredSale, &mut Vec<SeatItem<'static>>),
) -> Vec<&'static str> {
    let (mut sale, mut seats) = seated_sale();
    change(&mut sale, &mut seats);
    violations_of(sale, &seats).counts.into_keys().collect()
}

#[test]
fn seats_and_records_must_match() {
    assert!(violations_after_seated(|_, _| {}).is_empty());
    assert_eq!(violations_after_seated(|_, seats| seats[0].reservation = "r-1".into()), ["seat"]);
    assert_eq!(violations_after_seated(|_, seats| seats[0].status = "AVAILABLE".into()), ["seat"]);
    assert_eq!(violations_after_seated(|_, seats| seats[0].status = "HOLD".into()), ["seat"]);
    assert_eq!(violations_after_seated(|_, seats| seats[0].order = order_text(7).into()), ["seat"]);
    assert_eq!(violations_after_seated(|_, seats| seats[3].status = "SOLD".into()), ["seat"]);
    assert_eq!(violations_after_seated(|_, seats| drop(seats.remove(2))), ["seat"]);
    let twice = violations_after_seated(|sale, _| sale.records[1].seats[0] = "A-1".into());
    assert_eq!(twice, ["seat"], "A-1 belongs to two reservations");
    let fewer = violations_after_seated(|sale, seats| {
        drop(sale.records[0].seats.pop());
        seats[1].status = "AVAILABLE".into();
    });
    assert_eq!(fewer, ["record"]);
}

#[test]
fn a_refused_call_with_an_available_seat_is_undersold() {
    let kinds = violations_after_seated(|sale, _| {
        sale.ledger.add_entry(ReservationEntry::new(0, 1, 0));
        sale.ledger.record(2, CallMethod::Hold, &CallAnswer::of(OutcomeKind::SoldOut), 2);
    });
    assert_eq!(kinds, ["undersold"]);
}
