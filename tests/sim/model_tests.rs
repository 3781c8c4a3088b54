//! The model store says what DynamoDB would: the simulation is worth no more than this.

use std::rc::Rc;

use inventory_api::domain::ids::{EventId, Fingerprint, OrderId};
use inventory_api::domain::time::{Micros, UnixMillis};
use inventory_api::domain::transaction::{
    Draw, EventRead, NewRecord, Outcome, Reason, ReservationState, StripeUpdate, Token, Transaction,
};

use super::model::{POISON, Store, TOKEN_MEMORY};

fn event() -> EventId {
    "evt".parse().unwrap()
}

fn store(stock: &[u64]) -> Store {
    let mut store = Store::new(TOKEN_MEMORY);
    store.create(&event(), stock);
    store
}

/// Commits of one unit each from stripe 0.
fn buys(token: u128, reservations: &[&str]) -> Rc<Transaction> {
    let record = |id: &&str| {
        let reservation = id.parse().unwrap();
        NewRecord {
            order: Some(OrderId::of(&reservation)),
            reservation,
            fingerprint: Fingerprint::of_quantity(&event(), 1),
            state: ReservationState::Confirmed,
            qty: 1,
            draws: vec![Draw {
                stripe: 0,
                units: 1,
            }],
            payment_intent: String::new(),
        }
    };
    Rc::new(Transaction {
        token: Token(token),
        event: event(),
        stripes: vec![StripeUpdate {
            stripe: 0,
            take: reservations.len() as u64,
        }],
        records: reservations.iter().map(record).collect(),
        at: UnixMillis(0),
    })
}

fn apply(store: &mut Store, sent: &Rc<Transaction>, now: u64) -> Outcome {
    store.apply(sent, Micros(now), |_| None).unwrap()
}

#[test]
fn all_or_nothing_and_every_failing_condition_in_order() {
    let mut store = store(&[2]);
    assert_eq!(apply(&mut store, &buys(1, &["a"]), 1), Outcome::Committed);
    let outcome = apply(&mut store, &buys(2, &["b", "a"]), 2);
    let Outcome::Cancelled(reasons) = outcome else {
        panic!("{outcome:?}");
    };
    let [
        Reason::Stripe(Some(stripe)),
        Reason::Fine,
        Reason::Record(record),
    ] = reasons[..]
    else {
        panic!("{reasons:?}");
    };
    assert_eq!((stripe.remaining, stripe.version), (1, 2));
    assert_eq!(record.order, Some(OrderId::of(&"a".parse().unwrap())));
    assert!(
        store.record(&"b".parse().unwrap()).is_none(),
        "all or nothing"
    );
    assert_eq!(store.remaining(&event()), 1);
    store.conserved_in_full().unwrap();
}

#[test]
fn a_token_is_remembered_for_ten_minutes_and_for_one_body() {
    let mut store = store(&[5]);
    let sent = buys(1, &["a"]);
    assert_eq!(apply(&mut store, &sent, 0), Outcome::Committed);
    assert_eq!(
        apply(&mut store, &sent, TOKEN_MEMORY.0 - 1),
        Outcome::Committed
    );
    assert_eq!(store.remaining(&event()), 4, "applied once");
    let late = apply(&mut store, &sent, TOKEN_MEMORY.0);
    assert!(matches!(late, Outcome::Cancelled(_)), "{late:?}");
    assert!(store.apply(&buys(1, &["b"]), Micros(1), |_| None).is_err());
}

#[test]
fn a_poisonous_record_refuses_the_body_and_meddling_cancels_it() {
    let mut store = store(&[5]);
    let poison = format!("{POISON}1");
    assert_eq!(
        apply(&mut store, &buys(1, &["a", &poison]), 0),
        Outcome::Rejected
    );
    let conflict = |action| (action == 1).then_some(Reason::Conflict);
    let outcome = store.apply(&buys(2, &["a"]), Micros(0), conflict).unwrap();
    assert_eq!(
        outcome,
        Outcome::Cancelled(vec![Reason::Fine, Reason::Conflict])
    );
    assert_eq!(store.remaining(&event()), 5);
}

#[test]
fn the_history_knows_what_was_there_at_every_instant() {
    let mut store = store(&[5, 1]);
    apply(&mut store, &buys(1, &["a", "b"]), 10);
    store.restock(&event(), 1, 3, Micros(20));
    let during = |from, to| -> Vec<u64> {
        let seen = store.remaining_during(&event(), Micros(from), Micros(to));
        seen.collect()
    };
    assert_eq!(during(0, 9), [6]);
    assert_eq!(during(5, 10), [6, 4]);
    assert_eq!(during(11, 19), [4]);
    assert_eq!(during(20, 30), [4, 7]);
    let EventRead::Found(stripes) = store.read(&event()) else {
        panic!("it exists");
    };
    assert_eq!(
        stripes.iter().map(|s| s.capacity).collect::<Vec<_>>(),
        [5, 4]
    );
}

#[test]
fn illegal_transactions_are_found_out() {
    let mut store = store(&[5]);
    assert!(store.inspect(&buys(1, &["a", "a"])).is_err(), "a key twice");
    assert!(store.inspect(&buys(2, &[])).is_err(), "no record");
    let mut wrong = (*buys(3, &["a"])).clone();
    wrong.stripes[0].take = 2;
    assert!(
        store.inspect(&Rc::new(wrong)).is_err(),
        "takes what nobody draws"
    );
    let ids: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert!(store.inspect(&buys(4, &ids)).is_err(), "101 actions");
    assert!(store.inspect(&buys(5, &ids[..99])).is_ok());
}
