//! Each transition of a reservation of units: what it writes, and which states its condition rejects.

use inventory_core::operation::Operation;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{
    self, ActionOutcome, CounterUpdate, ExpiryCondition, RecordWrite, ReservationState,
    StripeAllocation, StripeUpdate, StripeView, StripesRead, Transaction, TransactionOutcome,
};
use inventory_store::limits;
use inventory_store::{Store, StoredRecord};

use crate::fixture::*;

/// The sequences of states that lead to each state.
const SEQUENCES: [&[ReservationState]; 5] = [
    &[ReservationState::Held],
    &[ReservationState::Confirmed],
    &[ReservationState::Held, ReservationState::Released],
    &[ReservationState::Held, ReservationState::Expired],
    &[ReservationState::Confirmed, ReservationState::Refunded],
];

/// All transitions.
const TRANSITIONS: [(ReservationState, ReservationState); 5] = [
    (ReservationState::Held, ReservationState::Confirmed),
    (ReservationState::Held, ReservationState::Released),
    (ReservationState::Held, ReservationState::Expired),
    (ReservationState::Expired, ReservationState::Confirmed),
    (ReservationState::Confirmed, ReservationState::Refunded),
];

pub(crate) async fn stored(store: &Store) -> Vec<StoredRecord> {
    let (event, mut from, mut found) = (event(), None, Vec::new());
    loop {
        let page = store.scan_reservations(&event, from.as_ref());
        let page = page.await.unwrap();
        found.extend(page.items);
        from = page.next;
        if from.is_none() {
            found.sort_by(|a, b| a.reservation.cmp(&b.reservation));
            return found;
        }
    }
}

pub(crate) async fn applied(store: &Store, transaction: Transaction) {
    let outcome = store.transact(&transaction).await;
    assert_eq!(outcome, TransactionOutcome::Committed, "{transaction:?}");
}

pub(crate) async fn refused(store: &Store, transaction: Transaction) -> Vec<ActionOutcome> {
    match store.transact(&transaction).await {
        TransactionOutcome::Cancelled(reasons) => reasons,
        other => panic!("{other:?}: {transaction:?}"),
    }
}

/// Leads a reservation of two units of stripe 0 through `sequence`; returns the last write.
async fn lead_through(store: &Store, id: &str, sequence: &[ReservationState]) -> RecordWrite {
    let mut record = first(id, sequence[0], &[(0, 2)]);
    applied(store, transaction(&[(0, 2)], vec![record.clone()])).await;
    for to in &sequence[1..] {
        record = transition(&record, *to);
        applied(store, returning(&[(0, 2)], vec![record.clone()])).await;
    }
    record
}

#[test]
fn each_transition_is_read_back_as_written() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 100, 1).await;
        for (number, (from, to)) in TRANSITIONS.into_iter().enumerate() {
            let sequence =
                SEQUENCES.iter().find(|sequence| sequence.last() == Some(&from)).unwrap();
            let id = format!("r{number}");
            let before = lead_through(&store, &id, sequence).await;
            let mut next = transition(&before, to);
            // A late commit may take other stripes.
            if from == ReservationState::Expired {
                next.draws[0] = StripeAllocation { stripe: 3, units: 2 };
            }
            let mut batch = transaction(&[], vec![next.clone()]);
            batch.at = UnixMillis(AT.0 + 5_000);
            applied(&store, batch.clone()).await;
            let found = stored(&store).await;
            let found = found.iter().find(|r| r.reservation == *before.reservation());
            let found = found.unwrap();
            assert_eq!(found.view, next.view(batch.at), "{from:?} to {to:?}");
            assert_eq!(found.created_at, AT);
            let paid = to == ReservationState::Confirmed || from == ReservationState::Confirmed;
            let payment = if paid { "pi_123" } else { "" };
            assert_eq!(found.payment_intent, payment, "{from:?} to {to:?}");
        }
    });
}

#[test]
fn transition_is_rejected_in_every_other_state() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 1_000, 1).await;
        for (number, sequence) in SEQUENCES.into_iter().enumerate() {
            let id = format!("r{number}");
            let there = lead_through(&store, &id, sequence).await;
            let left = remaining(&store).await;
            for (from, to) in TRANSITIONS {
                if from == there.to {
                    continue;
                }
                let wrong = RecordWrite { from: Some(from), ..transition(&there, to) };
                let reasons = refused(&store, returning(&[(0, 2)], vec![wrong])).await;
                let expected = [ActionOutcome::Fine, ActionOutcome::Record(there.view(AT))];
                assert_eq!(reasons, expected, "{from:?} to {to:?}");
            }
            // The first write is rejected as well.
            let again = transaction(&[(0, 2)], vec![held(&id, &[(0, 2)])]);
            let reasons = refused(&store, again).await;
            assert_eq!(reasons[1], ActionOutcome::Record(there.view(AT)));
            assert_eq!(remaining(&store).await, left);
        }
    });
}

#[test]
fn transition_of_a_missing_record_is_reported() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let never = held("never", &[(0, 1)]);
        for (from, to) in TRANSITIONS {
            let write = RecordWrite { from: Some(from), ..transition(&never, to) };
            let reasons = refused(&store, transaction(&[], vec![write])).await;
            assert_eq!(reasons, [ActionOutcome::RecordMissing], "{from:?} to {to:?}");
        }
        assert_eq!(stored(&store).await, []);
    });
}

#[test]
fn hold_is_confirmed_before_and_expired_from_its_expiry_on() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let hold = held("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let ends = hold.expires_at.unwrap();
        let at = |due, to, at| {
            let write = RecordWrite { due, ..transition(&hold, to) };
            let mut transaction = transaction(&[], vec![write]);
            transaction.at = UnixMillis(at);
            transaction
        };
        let (expired, confirmed) = (ReservationState::Expired, ReservationState::Confirmed);
        let is_hold = [ActionOutcome::Record(hold.view(AT))];
        let early = at(ExpiryCondition::Expired, expired, ends.0 - 1);
        assert_eq!(refused(&store, early).await, is_hold);
        let late = at(ExpiryCondition::NotExpired, confirmed, ends.0);
        assert_eq!(refused(&store, late).await, is_hold);
        applied(&store, at(ExpiryCondition::Expired, expired, ends.0)).await;

        let hold = held("r2", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let mut in_time = transaction(&[], vec![transition(&hold, confirmed)]);
        in_time.records[0].due = ExpiryCondition::NotExpired;
        in_time.at = UnixMillis(ends.0 - 1);
        applied(&store, in_time).await;
    });
}

#[test]
fn one_of_commit_release_and_expiry_wins() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 1).await;
        let ends =
            [ReservationState::Confirmed, ReservationState::Released, ReservationState::Expired];
        for (number, winner) in ends.into_iter().enumerate() {
            let hold = held(&format!("r{number}"), &[(0, 2)]);
            applied(&store, transaction(&[(0, 2)], vec![hold.clone()])).await;
            let give = |to| match to {
                ReservationState::Confirmed => transaction(&[], vec![transition(&hold, to)]),
                _ => returning(&[(0, 2)], vec![transition(&hold, to)]),
            };
            applied(&store, give(winner)).await;
            for to in ends {
                let reasons = refused(&store, give(to)).await;
                let won = transition(&hold, winner).view(AT);
                assert_eq!(reasons.last(), Some(&ActionOutcome::Record(won)));
            }
        }
        // One is confirmed, the others returned their units.
        assert_eq!(remaining(&store).await, [8]);
    });
}

#[test]
fn returned_units_can_be_taken_in_the_same_transaction() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 4, 1).await;
        let hold = held("old", &[(0, 4)]);
        applied(&store, transaction(&[(0, 4)], vec![hold.clone()])).await;
        let both = |take, give| {
            let stripe = StripeUpdate { take, give, ..StripeUpdate::default() };
            let sold = confirmed(&format!("new{take}"), &[(0, take as u32)]);
            let released = transition(&hold, ReservationState::Released);
            transaction_of(vec![stripe], vec![released, sold])
        };
        let ActionOutcome::Stripe(Some(stripe)) = refused(&store, both(5, 4)).await[0] else {
            panic!("oversold");
        };
        assert_eq!(stripe.remaining, 0);
        applied(&store, both(3, 4)).await;
        assert_eq!(remaining(&store).await, [1]);
        assert_eq!(stripes(&store).await[0].version, 2);
    });
}

#[test]
fn only_holds_are_indexed_and_only_ended_records_are_purged() {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    let sequences: [&[ReservationState]; 5] = [
        &[Held, Confirmed, Refunded],
        &[Held, Released],
        &[Held, Expired, Confirmed],
        &[Confirmed, Refunded],
        &[Released],
    ];
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        let purge = AT.0 / 1_000 + limits::TOMBSTONE_RETENTION.as_secs();
        for (number, sequence) in sequences.into_iter().enumerate() {
            let id = format!("r{number}");
            let mut record = first(&id, sequence[0], &[(0, 1)]);
            for (at, to) in sequence.iter().enumerate() {
                if at > 0 {
                    record = transition(&record, *to);
                }
                applied(&store, transaction(&[], vec![record.clone()])).await;
                let table = &settings.tables.idempotency;
                let item = raw_item(&settings, table, &[("reservation_id", &id)]).await;
                let bucket = item.contains_key("expiry_bucket");
                assert_eq!(bucket, *to == Held, "{sequence:?} {to:?}");
                let ended = [Released, Expired].contains(to);
                let expected = ended.then(|| crate::fixture::number(purge));
                assert_eq!(item.get("purge_at"), expected.as_ref(), "{sequence:?} {to:?}");
            }
        }
    });
}

#[test]
fn return_to_a_missing_stripe_is_rejected() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let hold = held("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let release = returning(&[(7, 1)], vec![transition(&hold, ReservationState::Released)]);
        let reasons = refused(&store, release).await;
        assert_eq!(reasons, [ActionOutcome::Stripe(None), ActionOutcome::Fine]);
    });
}

#[test]
fn payment_is_added_once_and_changes_nothing_else() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 100, 1).await;
        let unpaid = |record: RecordWrite| RecordWrite {
            operation: Operation { payment_intent: String::new(), ..record.operation },
            ..record
        };
        let order = unpaid(confirmed("r1", &[(0, 2)]));
        applied(&store, transaction(&[(0, 2)], vec![order.clone()])).await;
        let before = stored(&store).await;
        let paid = |payment: &str| RecordWrite {
            operation: Operation { payment_intent: payment.to_owned(), ..order.operation.clone() },
            from: Some(ReservationState::Confirmed),
            payment_added_to: Some(AT),
            ..order.clone()
        };
        let later = |write: RecordWrite| Transaction {
            at: UnixMillis(AT.0 + 5_000),
            ..transaction(&[], vec![write])
        };
        applied(&store, later(paid("pi_first"))).await;
        let after = stored(&store).await;
        assert_eq!(after[0].payment_intent, "pi_first");
        let mut expected = before[0].clone();
        expected.payment_intent = "pi_first".to_owned();
        expected.view.payment = after[0].view.payment;
        assert_eq!(after[0], expected);
        // Another payment, and a repeat after a lost answer, get the record.
        for payment in ["pi_second", "pi_first"] {
            let reasons = refused(&store, later(paid(payment))).await;
            assert_eq!(reasons, [ActionOutcome::Record(expected.view.clone())], "{payment}");
        }
        // A refund does not get a payment.
        let unpaid_refund = unpaid(transition(&order, ReservationState::Refunded));
        applied(&store, returning(&[(0, 2)], vec![unpaid_refund])).await;
        let reasons = refused(&store, later(paid("pi_late"))).await;
        assert!(matches!(&reasons[..], [ActionOutcome::Record(_)]), "{reasons:?}");
    });
}

#[test]
fn held_units_move_on_stripes_and_counters() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        create(&store, 10, 2).await;
        let held_units = async || {
            let read = store.read_event_with_counters(&event(), Some(2)).await;
            let StripesRead::Found(stripes) = read else { panic!("{read:?}") };
            let without = store.read_event(&event(), Some(2)).await;
            let StripesRead::Found(without) = without else { panic!("{without:?}") };
            assert_eq!(without[0], StripeView { confirmed_holds: None, ..stripes[0] });
            let held: Vec<i64> = stripes.iter().map(|stripe| stripe.held).collect();
            (held, stripes[0].confirmed_holds, transaction::held_units(&stripes))
        };
        // The items of a new event have no held units.
        assert_eq!(held_units().await, (vec![0, 0], Some(0), Some(0)));
        let update = |stripe, take, give, held| StripeUpdate {
            stripe,
            take,
            give,
            held,
            ..StripeUpdate::default()
        };
        let first = held("first", &[(0, 2), (1, 1)]);
        let second = held("second", &[(0, 1)]);
        let stripes = vec![update(0, 3, 0, 3), update(1, 1, 0, 1)];
        applied(&store, transaction_of(stripes, vec![first.clone(), second.clone()])).await;
        assert_eq!(held_units().await, (vec![3, 1], Some(0), Some(4)));

        let commit = transition(&first, ReservationState::Confirmed);
        let confirm = |counter| Transaction {
            counter: Some(CounterUpdate { counter, units: 3 }),
            ..transaction_of(vec![], vec![commit.clone()])
        };
        let confirmed_once = confirm(3);
        applied(&store, confirmed_once.clone()).await;
        applied(&store, confirmed_once).await;
        assert_eq!(held_units().await, (vec![3, 1], Some(3), Some(1)), "one token");
        let reasons = refused(&store, confirm(0)).await;
        assert!(matches!(reasons[..], [ActionOutcome::Record(_), ActionOutcome::Fine]));
        assert_eq!(held_units().await, (vec![3, 1], Some(3), Some(1)), "cancelled");

        let release = transition(&second, ReservationState::Released);
        applied(&store, transaction_of(vec![update(0, 0, 1, -1)], vec![release])).await;
        // Units that are taken, returned and held in one update.
        let third = held("third", &[(0, 1)]);
        applied(&store, transaction_of(vec![update(0, 1, 1, 1)], vec![third])).await;
        assert_eq!(held_units().await, (vec![3, 1], Some(3), Some(1)));
        let record = store.read_reservation(&reservation("third")).await.unwrap().unwrap();
        assert!(record.view.counted);
        // A record without the attribute was written by an earlier version.
        let table = &settings.tables.idempotency;
        let item = raw_item(&settings, table, &[("reservation_id", "third")]).await;
        assert!(item.contains_key("counted_as_held"));
        let sale = confirmed("sale", &[(1, 1)]);
        applied(&store, transaction_of(vec![update(1, 1, 0, 0)], vec![sale])).await;
        let item = raw_item(&settings, table, &[("reservation_id", "sale")]).await;
        assert!(!item.contains_key("counted_as_held"));
        // Counters are no events.
        let events = store.list_events(None).await.unwrap().items;
        assert_eq!(events.len(), 1);
    });
}
