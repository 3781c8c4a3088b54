//! The model store answers as DynamoDB does. The simulation relies on this.

use std::rc::Rc;

use inventory_core::ids::{EventId, Fingerprint, OrderId};
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::seats::{SeatFacts, SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{
    ActionOutcome, CounterUpdate, ExpiryCondition, HeldChange, RecordWrite, RequestToken,
    ReservationState, StripeAllocation, StripeAllocations, StripeUpdate, StripesRead, Transaction,
    TransactionOutcome,
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

fn write(id: &str, from: Option<ReservationState>, to: ReservationState) -> RecordWrite {
    let (id, selection) = (id.parse().unwrap(), Selection::AsRecorded);
    let operation = Operation::new(Verb::Commit, id, event(), selection, Micros(0));
    RecordWrite {
        order: (to == ReservationState::Confirmed).then(|| OrderId::of(&operation.reservation)),
        operation,
        fingerprint: Fingerprint::of_quantity(&event(), 1),
        from,
        due: ExpiryCondition::Any,
        to,
        qty: 1,
        draws: [StripeAllocation { stripe: 0, units: 1 }].into_iter().collect(),
        seats: None,
        expires_at: None,
        payment_added_to: None,
        counted: to == ReservationState::Held || from == Some(ReservationState::Held),
    }
}

fn sent(token: u128, take: u64, give: u64, records: Vec<RecordWrite>) -> Rc<Transaction> {
    let units = |change| {
        let records = records.iter().filter(|record| record.held_change() == change);
        records.map(|record| i64::from(record.qty)).sum::<i64>()
    };
    let held = units(HeldChange::Add) - units(HeldChange::Remove);
    let confirmed = units(HeldChange::Confirm) as u64;
    let update = StripeUpdate { take, give, held, ..StripeUpdate::default() };
    Rc::new(Transaction {
        token: RequestToken(token),
        event: event(),
        seat_keys: 0,
        stripes: if take + give > 0 { vec![update] } else { vec![] },
        records,
        counter: (confirmed > 0).then_some(CounterUpdate { counter: 0, units: confirmed }),
        at: UnixMillis(1_000),
    })
}

/// Commits of one unit each from stripe 0.
fn buys(token: u128, reservations: &[&str]) -> Rc<Transaction> {
    let record = |id: &&str| write(id, None, ReservationState::Confirmed);
    let records = reservations.iter().map(record).collect();
    sent(token, reservations.len() as u64, 0, records)
}

fn hold(id: &str, until: u64) -> RecordWrite {
    RecordWrite { expires_at: Some(UnixMillis(until)), ..write(id, None, ReservationState::Held) }
}

fn ends(id: &str, to: ReservationState, due: ExpiryCondition) -> RecordWrite {
    RecordWrite { due, ..write(id, Some(ReservationState::Held), to) }
}

fn apply(store: &mut Store, sent: &Rc<Transaction>, now: u64) -> TransactionOutcome {
    store.apply(sent, Micros(now), |_| None).unwrap()
}

#[test]
fn all_or_nothing_and_every_failing_condition_in_order() {
    let mut store = store(&[2]);
    assert_eq!(apply(&mut store, &buys(1, &["a"]), 1), TransactionOutcome::Committed);
    let outcome = apply(&mut store, &buys(2, &["b", "a"]), 2);
    let TransactionOutcome::Cancelled(reasons) = outcome else {
        panic!("{outcome:?}");
    };
    let [ActionOutcome::Stripe(Some(stripe)), ActionOutcome::Fine, ActionOutcome::Record(record)] =
        &reasons[..]
    else {
        panic!("{reasons:?}");
    };
    assert_eq!((stripe.remaining, stripe.version), (1, 2));
    assert_eq!(record.order, Some(OrderId::of(&"a".parse().unwrap())));
    assert!(store.record(&"b".parse().unwrap()).is_none(), "all or nothing");
    assert_eq!(store.remaining(&event()), 1);
    store.check_all_conservation().unwrap();
}

#[test]
fn token_is_valid_for_ten_minutes_and_one_body() {
    let mut store = store(&[5]);
    let sent = buys(1, &["a"]);
    assert_eq!(apply(&mut store, &sent, 0), TransactionOutcome::Committed);
    assert_eq!(apply(&mut store, &sent, TOKEN_MEMORY.0 - 1), TransactionOutcome::Committed);
    assert_eq!(store.remaining(&event()), 4, "applied once");
    let late = apply(&mut store, &sent, TOKEN_MEMORY.0);
    assert!(matches!(late, TransactionOutcome::Cancelled(_)), "{late:?}");
    assert!(store.apply(&buys(1, &["b"]), Micros(1), |_| None).is_err());
}

#[test]
fn invalid_record_rejects_the_body_and_a_conflict_cancels_it() {
    let mut store = store(&[5]);
    let poison = format!("{POISON}1");
    assert_eq!(apply(&mut store, &buys(1, &["a", &poison]), 0), TransactionOutcome::Rejected);
    let conflict = |action| (action == 1).then_some(ActionOutcome::Conflict);
    let outcome = store.apply(&buys(2, &["a"]), Micros(0), conflict).unwrap();
    assert_eq!(
        outcome,
        TransactionOutcome::Cancelled(vec![ActionOutcome::Fine, ActionOutcome::Conflict])
    );
    assert_eq!(store.remaining(&event()), 5);
}

#[test]
fn history_returns_every_state() {
    let mut store = store(&[5, 1]);
    apply(&mut store, &buys(1, &["a", "b"]), 10);
    store.restock(&event(), 1, 3, Micros(20));
    assert_eq!(store.least_during(&event(), Micros(5), Micros(30)), 4);
    let during = |from, to| -> Vec<u64> {
        let seen = store.remaining_during(&event(), Micros(from), Micros(to));
        seen.collect()
    };
    assert_eq!(during(0, 9), [6]);
    assert_eq!(during(5, 10), [6, 4]);
    assert_eq!(during(11, 19), [4]);
    assert_eq!(during(20, 30), [4, 7]);
    let StripesRead::Found(stripes) = store.read(&event(), false) else {
        panic!("it exists");
    };
    assert_eq!(stripes.iter().map(|s| s.capacity).collect::<Vec<_>>(), [5, 4]);
}

#[test]
fn invalid_transactions_are_detected() {
    let mut store = store(&[5]);
    assert!(store.check_transaction(&buys(1, &["a", "a"])).is_err(), "a key twice");
    assert!(store.check_transaction(&buys(2, &[])).is_err(), "no record");
    let mut wrong = (*buys(3, &["a"])).clone();
    wrong.stripes[0].take = 2;
    assert!(store.check_transaction(&Rc::new(wrong)).is_err(), "takes what nobody draws");
    let ids: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert!(store.check_transaction(&buys(4, &ids)).is_err(), "101 actions");
    assert!(store.check_transaction(&buys(5, &ids[..99])).is_ok());
}

#[test]
fn hold_ends_once_and_not_before_its_expiry() {
    let mut store = store(&[5]);
    let held = sent(1, 1, 0, vec![hold("a", 1_001)]);
    assert_eq!(apply(&mut store, &held, 1), TransactionOutcome::Committed);
    assert_eq!(store.remaining(&event()), 4);
    let early = sent(2, 0, 1, vec![ends("a", ReservationState::Expired, ExpiryCondition::Expired)]);
    let outcome = apply(&mut store, &early, 2);
    let TransactionOutcome::Cancelled(reasons) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(matches!(
        &reasons[..],
        [ActionOutcome::Fine, ActionOutcome::Record(view)] if view.state == ReservationState::Held
    ));
    let released = sent(3, 0, 1, vec![ends("a", ReservationState::Released, ExpiryCondition::Any)]);
    assert_eq!(apply(&mut store, &released, 3), TransactionOutcome::Committed);
    assert_eq!(store.remaining(&event()), 5);
    let again = sent(4, 0, 1, vec![ends("a", ReservationState::Released, ExpiryCondition::Any)]);
    assert!(matches!(apply(&mut store, &again, 4), TransactionOutcome::Cancelled(_)));
    let nothing = sent(5, 0, 1, vec![ends("b", ReservationState::Released, ExpiryCondition::Any)]);
    assert_eq!(
        apply(&mut store, &nothing, 5),
        TransactionOutcome::Cancelled(vec![ActionOutcome::Fine, ActionOutcome::RecordMissing])
    );
    store.check_all_conservation().unwrap();
}

#[test]
fn only_taken_units_can_be_returned() {
    let mut store = store(&[5]);
    let held = sent(1, 1, 0, vec![hold("a", 9_000)]);
    assert_eq!(apply(&mut store, &held, 1), TransactionOutcome::Committed);
    let mut more = ends("a", ReservationState::Released, ExpiryCondition::Any);
    more.qty = 2;
    more.draws[0].units = 2;
    assert!(store.apply(&sent(2, 0, 2, vec![more]), Micros(2), |_| None).is_err());
    let backwards = write("a", Some(ReservationState::Confirmed), ReservationState::Held);
    assert!(store.check_transaction(&sent(3, 0, 1, vec![backwards])).is_err());
    let unconditional_expiry = ends("a", ReservationState::Expired, ExpiryCondition::Any);
    assert!(store.check_transaction(&sent(4, 0, 1, vec![unconditional_expiry])).is_err());
}

#[test]
fn closed_event_accepts_returns_and_sells_nothing() {
    let mut store = store(&[5]);
    apply(&mut store, &sent(1, 1, 0, vec![hold("a", 9_000)]), 1);
    store.close(&event(), Micros(2));
    let sale = apply(&mut store, &buys(2, &["b"]), 3);
    let TransactionOutcome::Cancelled(reasons) = sale else {
        panic!("{sale:?}");
    };
    assert!(matches!(reasons[0], ActionOutcome::Stripe(Some(view)) if view.closed));
    let released = sent(3, 0, 1, vec![ends("a", ReservationState::Released, ExpiryCondition::Any)]);
    assert_eq!(apply(&mut store, &released, 4), TransactionOutcome::Committed);
}

#[test]
fn seat_conditions_allow_one_holder() {
    let mut store = Store::new(TOKEN_MEMORY);
    let seat = |id: &str| SeatItem {
        id: id.parse().unwrap(),
        facts: SeatFacts::default(),
        state: SeatState::Available,
    };
    store.create_seated(&event(), 2, vec![seat("A"), seat("B")]);
    let seats: inventory_core::ids::Seats = vec!["A".parse().unwrap(), "B".parse().unwrap()].into();
    let on_seats = |record: RecordWrite| RecordWrite {
        qty: 2,
        draws: StripeAllocations::new(),
        seats: Some(seats.clone()),
        counted: false,
        ..record
    };
    let of_seats = |token, record: RecordWrite| {
        let mut sent = (*sent(token, 0, 0, vec![on_seats(record)])).clone();
        sent.seat_keys = 2;
        Rc::new(sent)
    };
    assert_eq!(apply(&mut store, &of_seats(1, hold("a", 9_000)), 1), TransactionOutcome::Committed);
    let taken = apply(&mut store, &of_seats(2, hold("b", 9_000)), 2);
    let TransactionOutcome::Cancelled(reasons) = taken else {
        panic!("{taken:?}");
    };
    let held = ActionOutcome::Seat(Some(SeatState::Hold {
        reservation: "a".parse().unwrap(),
        until: UnixMillis(9_000),
    }));
    assert_eq!(reasons, [ActionOutcome::Fine, held.clone(), held]);
    let sale = of_seats(3, ends("a", ReservationState::Confirmed, ExpiryCondition::Any));
    assert_eq!(apply(&mut store, &sale, 3), TransactionOutcome::Committed);
    assert_eq!(store.free_throughout(&event(), None, Micros(3), Micros(9)), 0);
    store.check_all_conservation().unwrap();
    store.block(&event(), &"A".parse().unwrap(), Micros(4));
    store.check_all_conservation().unwrap();
}

#[test]
fn held_units_follow_holds_and_their_ends() {
    let mut store = store(&[9]);
    let held = |store: &Store| store.units_during(&event(), Micros(9_000), Micros(9_000)).last();
    apply(&mut store, &sent(1, 2, 0, vec![hold("a", 9_000), hold("b", 9_000)]), 1);
    assert_eq!(held(&store), Some((7, 2)));
    let commit = ends("a", ReservationState::Confirmed, ExpiryCondition::Any);
    let commit = RecordWrite { order: Some(OrderId::of(&"a".parse().unwrap())), ..commit };
    apply(&mut store, &sent(2, 0, 0, vec![commit.clone()]), 2);
    assert_eq!(held(&store), Some((7, 1)));
    let release = ends("b", ReservationState::Released, ExpiryCondition::Any);
    apply(&mut store, &sent(3, 0, 1, vec![release]), 3);
    assert_eq!(held(&store), Some((8, 0)));
    store.check_all_conservation().unwrap();
    // A commit without its counter, and a hold that its stripe does not count.
    let uncounted = Transaction { counter: None, ..(*sent(4, 0, 0, vec![commit])).clone() };
    assert!(store.check_transaction(&Rc::new(uncounted)).is_err());
    let mut uncounted = (*sent(5, 1, 0, vec![hold("c", 9_000)])).clone();
    uncounted.stripes[0].held = 0;
    assert!(store.check_transaction(&Rc::new(uncounted)).is_err());
}
