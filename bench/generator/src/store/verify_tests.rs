//! Every kind of broken promise, made on purpose.

use super::*;
use crate::ledger::Ledger;
use crate::outcome::{Answer, Method, Outcome};

fn order_text(n: u32) -> String {
    format!("ord_{n:032x}")
}

fn ok(n: u32) -> Answer {
    Answer {
        order: Order::of(&order_text(n)),
        ..Answer::of(Outcome::Ok)
    }
}

/// What a sale of 10 units on two stripes left behind: reservation 0 confirmed (2), 1 held (3), 2
/// released (1), 3 refused, 4 unknown and confirmed after all (1).
struct Sale {
    ledger: Ledger,
    records: Vec<Record<'static>>,
    stripes: Vec<Stripe>,
}

fn record(n: u32, status: &'static str, qty: u32, draws: &'static str) -> Record<'static> {
    Record {
        reservation: format!("r-{n:x}").into(),
        event: "evt".into(),
        status: status.into(),
        qty,
        draws: draws.into(),
        seats: Vec::new(),
        order: if status == "CONFIRMED" {
            order_text(n).into()
        } else {
            "".into()
        },
    }
}

fn stripe(index: u32, total: i64, remaining: i64) -> Stripe {
    Stripe {
        event: 0,
        index,
        total,
        remaining,
        version: 1,
        stripes: 2,
        seat_keys: 0,
    }
}

fn sale() -> Sale {
    let mut ledger = Ledger::new("r", 1, true, 0, 1);
    for qty in [2, 3, 1, 9, 1] {
        ledger.open(Entry::new(0, qty, 0));
    }
    let no = Answer::of;
    ledger.enter(0, Method::DirectCommit, &ok(0), 1);
    ledger.enter(1, Method::Hold, &no(Outcome::Ok), 1);
    ledger.enter(2, Method::Hold, &no(Outcome::Ok), 1);
    ledger.enter(2, Method::Release, &no(Outcome::Ok), 1);
    ledger.enter(3, Method::DirectCommit, &no(Outcome::SoldOut), 1);
    ledger.enter(4, Method::DirectCommit, &no(Outcome::Deadline), 1);
    Sale {
        ledger,
        records: vec![
            record(0, "CONFIRMED", 2, "0:1,1:1"),
            record(1, "HELD", 3, "1:3"),
            record(2, "RELEASED", 1, "0:1"),
            record(4, "CONFIRMED", 1, "0:1"),
        ],
        stripes: vec![stripe(0, 5, 3), stripe(1, 5, 1)],
    }
}

fn judged(sale: Sale, seats: &[Seat<'_>]) -> Broken {
    let events = ["evt".to_owned()];
    let mut books = Books::new(vec![sale.ledger]);
    let mut judge = Judge::new(&events, &mut books);
    for record in &sale.records {
        judge.record(record);
    }
    for seat in seats {
        judge.seat(seat);
    }
    judge.verdict(&sale.stripes).broken
}

/// The kinds broken once `change` has been done to an honest sale.
fn after(change: impl FnOnce(&mut Sale)) -> Vec<&'static str> {
    let mut sale = sale();
    change(&mut sale);
    judged(sale, &[]).counts.into_keys().collect()
}

#[test]
fn an_honest_sale_breaks_nothing() {
    let broken = judged(sale(), &[]);
    assert_eq!(broken.total(), 0, "{broken:?}");
    // An unknown outcome may also be nothing.
    let kinds = after(|sale| {
        sale.records.pop();
        sale.stripes[0].remaining += 1;
    });
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn an_acknowledged_commit_must_be_there_under_its_order() {
    assert_eq!(
        after(|sale| sale.records[0].order = order_text(9).into()),
        ["order"]
    );
    assert_eq!(after(|sale| sale.records[0].order = "".into()), ["record"]);
    let kinds = after(|sale| {
        sale.records.remove(0);
        sale.stripes[0].remaining += 1;
        sale.stripes[1].remaining += 1;
    });
    assert_eq!(kinds, ["durable"]);
    for status in ["HELD", "RELEASED", "EXPIRED", "REFUNDED"] {
        let kinds = after(|sale| sale.records[0].status = status.into());
        assert!(kinds.contains(&"durable"), "{status}: {kinds:?}");
    }
}

#[test]
fn acknowledged_holds_and_releases_must_be_there() {
    let kinds = after(|sale| {
        sale.records.remove(1);
        sale.stripes[1].remaining += 3;
    });
    assert_eq!(kinds, ["durable"]);
    assert_eq!(after(|sale| drop(sale.records.remove(2))), ["durable"]);
    let kinds = after(|sale| {
        sale.records[2].status = "HELD".into();
        sale.stripes[0].remaining -= 1;
    });
    assert_eq!(kinds, ["durable"]);
    let kinds = after(|sale| {
        sale.records[1].status = "RELEASED".into();
        sale.stripes[1].remaining += 3;
    });
    assert_eq!(kinds, ["record"], "nobody released it");
}

#[test]
fn what_was_refused_must_not_be_sold() {
    let kinds = after(|sale| {
        sale.records.push(record(3, "CONFIRMED", 9, "0:9"));
        sale.stripes[0].total += 9;
    });
    assert_eq!(kinds, ["refused"]);
    let kinds = after(|sale| {
        sale.records.push(record(3, "HELD", 9, "0:9"));
        sale.stripes[0].total += 9;
    });
    assert_eq!(kinds, ["refused"]);
    let kinds = after(|sale| {
        sale.ledger
            .enter(3, Method::DirectCommit, &Answer::of(Outcome::Broken), 2);
        sale.records.push(record(3, "CONFIRMED", 9, "0:9"));
        sale.stripes[0].total += 9;
    });
    assert!(
        kinds.is_empty(),
        "one of its calls has an unknown outcome: {kinds:?}"
    );
}

#[test]
fn no_order_is_there_twice() {
    let kinds = after(|sale| sale.records[3].order = order_text(0).into());
    assert_eq!(kinds, ["order"]);
    let kinds = after(|sale| {
        let mut strange = record(0, "CONFIRMED", 1, "1:1");
        strange.reservation = "somebody".into();
        sale.records.push(strange);
        sale.stripes[1].remaining -= 1;
    });
    assert_eq!(kinds, ["order"]);
}

#[test]
fn every_stripe_must_balance() {
    assert_eq!(after(|sale| sale.stripes[0].remaining -= 1), ["balance"]);
    assert_eq!(
        after(|sale| sale.records[1].draws = "0:3".into()),
        ["balance"]
    );
    assert_eq!(
        after(|sale| sale.records[1].draws = "1:2".into()),
        ["balance", "record"]
    );
    assert!(after(|sale| sale.stripes.truncate(1)).contains(&"balance"));
    let strangers = after(|sale| {
        let mut slip = record(0, "HELD", 4, "0:3,1:1");
        slip.reservation = "~slip".into();
        sale.records.push(slip);
        sale.stripes[0].remaining -= 3;
        sale.stripes[1].remaining -= 1;
    });
    assert!(
        strangers.is_empty(),
        "what others hold counts: {strangers:?}"
    );
}

#[test]
fn oversold_is_found_even_when_a_stripe_went_below_zero() {
    let kinds = after(|sale| {
        sale.records.push(record(3, "CONFIRMED", 9, "0:9"));
        sale.ledger.enter(3, Method::DirectCommit, &ok(3), 2);
        sale.stripes[0].remaining -= 9;
    });
    assert_eq!(kinds, ["balance", "oversold"]);
}

#[test]
fn undersold_is_what_was_refused_and_never_taken() {
    // Nine were refused; four are left, of which one came back.
    let kinds = after(|sale| {
        sale.ledger.open(Entry::new(0, 3, 0));
        sale.ledger
            .enter(5, Method::DirectCommit, &Answer::of(Outcome::SoldOut), 2);
    });
    assert_eq!(kinds, ["undersold"], "3 would have fitted");
    let kinds = after(|sale| {
        sale.ledger.open(Entry::new(0, 4, 0));
        sale.ledger
            .enter(5, Method::DirectCommit, &Answer::of(Outcome::SoldOut), 2);
    });
    assert!(
        kinds.is_empty(),
        "one of the four may have come back later: {kinds:?}"
    );
}

#[test]
fn a_record_is_what_was_asked_for() {
    assert_eq!(after(|sale| sale.records[2].qty = 2), ["record"]);
    let kinds = after(|sale| {
        sale.records.push(record(77, "RELEASED", 1, ""));
    });
    assert_eq!(kinds, ["record"], "never asked for");
    assert_eq!(
        after(|sale| sale.records[2].event = "other".into()),
        ["durable", "record"]
    );
}

/// Two seats sold, one held, one free.
fn hall() -> (Sale, Vec<Seat<'static>>) {
    let mut ledger = Ledger::new("r", 1, true, 0, 1);
    ledger.open(Entry::new(0, 2, 0));
    ledger.open(Entry::new(0, 1, 2));
    ledger.enter(0, Method::DirectCommit, &ok(0), 1);
    ledger.enter(1, Method::Hold, &Answer::of(Outcome::Ok), 1);
    let seats = |of: &[&'static str]| of.iter().map(|seat| (*seat).into()).collect();
    let records = vec![
        Record {
            seats: seats(&["A-1", "A-2"]),
            ..record(0, "CONFIRMED", 2, "")
        },
        Record {
            seats: seats(&["A-3"]),
            ..record(1, "HELD", 1, "")
        },
    ];
    let seat = |id: &'static str, status: &'static str, of: &'static str, order: String| Seat {
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
    let stripes = vec![Stripe {
        stripes: 1,
        seat_keys: 4,
        ..stripe(0, 0, 0)
    }];
    (
        Sale {
            ledger,
            records,
            stripes,
        },
        items,
    )
}

fn after_hall(change: impl FnOnce(&mut Sale, &mut Vec<Seat<'static>>)) -> Vec<&'static str> {
    let (mut sale, mut seats) = hall();
    change(&mut sale, &mut seats);
    judged(sale, &seats).counts.into_keys().collect()
}

#[test]
fn seats_and_records_must_know_each_other() {
    assert!(after_hall(|_, _| {}).is_empty());
    assert_eq!(
        after_hall(|_, seats| seats[0].reservation = "r-1".into()),
        ["seat"]
    );
    assert_eq!(
        after_hall(|_, seats| seats[0].status = "AVAILABLE".into()),
        ["seat"]
    );
    assert_eq!(
        after_hall(|_, seats| seats[0].status = "HOLD".into()),
        ["seat"]
    );
    assert_eq!(
        after_hall(|_, seats| seats[0].order = order_text(7).into()),
        ["seat"]
    );
    assert_eq!(
        after_hall(|_, seats| seats[3].status = "SOLD".into()),
        ["seat"]
    );
    assert_eq!(after_hall(|_, seats| drop(seats.remove(2))), ["seat"]);
    let twice = after_hall(|sale, _| sale.records[1].seats[0] = "A-1".into());
    assert_eq!(twice, ["seat"], "A-1 is in two reservations");
    let fewer = after_hall(|sale, seats| {
        drop(sale.records[0].seats.pop());
        seats[1].status = "AVAILABLE".into();
    });
    assert_eq!(fewer, ["record"]);
}

#[test]
fn a_hall_is_undersold_when_a_free_seat_was_refused() {
    let kinds = after_hall(|sale, _| {
        sale.ledger.open(Entry::new(0, 1, 0));
        sale.ledger
            .enter(2, Method::Hold, &Answer::of(Outcome::SoldOut), 2);
    });
    assert_eq!(kinds, ["undersold"]);
}
