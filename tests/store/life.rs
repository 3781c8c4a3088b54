//! Every step of a reservation's life, with units: what it writes, and what its condition refuses.

use inventory_api::limits;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{
    ActionOutcome, ExpiryCondition, RecordWrite, ReservationState, StripeAllocation, StripeUpdate,
    Transaction, TransactionOutcome,
};
use inventory_store::{Store, StoredRecord};

use crate::stage::*;

/// The states a record can be brought into, and by which steps.
const WAYS: [&[ReservationState]; 5] = [
    &[ReservationState::Held],
    &[ReservationState::Confirmed],
    &[ReservationState::Held, ReservationState::Released],
    &[ReservationState::Held, ReservationState::Expired],
    &[ReservationState::Confirmed, ReservationState::Refunded],
];

/// Steps that the state table knows.
const STEPS: [(ReservationState, ReservationState); 5] = [
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

/// Brings a reservation of two units of stripe 0 into a state; the last write.
async fn brought(store: &Store, id: &str, way: &[ReservationState]) -> RecordWrite {
    let mut record = first(id, way[0], &[(0, 2)]);
    applied(store, transaction(&[(0, 2)], vec![record.clone()])).await;
    for to in &way[1..] {
        record = step(&record, *to);
        applied(store, giving(&[(0, 2)], vec![record.clone()])).await;
    }
    record
}

#[test]
fn every_step_is_written_as_the_record_then_reads() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 100, 1).await;
        for (number, (from, to)) in STEPS.into_iter().enumerate() {
            let way = WAYS.iter().find(|way| way.last() == Some(&from)).unwrap();
            let id = format!("r{number}");
            let before = brought(&store, &id, way).await;
            let mut next = step(&before, to);
            // What is taken anew may come from elsewhere.
            if from == ReservationState::Expired {
                next.draws[0] = StripeAllocation {
                    stripe: 3,
                    units: 2,
                };
            }
            let mut batch = transaction(&[], vec![next.clone()]);
            batch.at = UnixMillis(AT.0 + 5_000);
            applied(&store, batch.clone()).await;
            let found = stored(&store).await;
            let found = found.iter().find(|r| r.reservation == before.reservation);
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
fn a_step_is_refused_in_every_state_but_its_own() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 1_000, 1).await;
        for (number, way) in WAYS.into_iter().enumerate() {
            let id = format!("r{number}");
            let there = brought(&store, &id, way).await;
            let left = remaining(&store).await;
            for (from, to) in STEPS {
                if from == there.to {
                    continue;
                }
                let wrong = RecordWrite {
                    from: Some(from),
                    ..step(&there, to)
                };
                let reasons = refused(&store, giving(&[(0, 2)], vec![wrong])).await;
                let expected = [ActionOutcome::Fine, ActionOutcome::Record(there.view(AT))];
                assert_eq!(reasons, expected, "{from:?} to {to:?}");
            }
            // Nor can it begin again.
            let again = transaction(&[(0, 2)], vec![held(&id, &[(0, 2)])]);
            let reasons = refused(&store, again).await;
            assert_eq!(reasons[1], ActionOutcome::Record(there.view(AT)));
            assert_eq!(remaining(&store).await, left);
        }
    });
}

#[test]
fn a_step_of_what_never_was_says_so() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let never = held("never", &[(0, 1)]);
        for (from, to) in STEPS {
            let write = RecordWrite {
                from: Some(from),
                ..step(&never, to)
            };
            let reasons = refused(&store, transaction(&[], vec![write])).await;
            assert_eq!(
                reasons,
                [ActionOutcome::RecordMissing],
                "{from:?} to {to:?}"
            );
        }
        assert_eq!(stored(&store).await, []);
    });
}

#[test]
fn a_hold_ends_on_one_side_of_its_instant_only() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let hold = held("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let ends = hold.expires_at.unwrap();
        let at = |due, to, at| {
            let write = RecordWrite {
                due,
                ..step(&hold, to)
            };
            let mut transaction = transaction(&[], vec![write]);
            transaction.at = UnixMillis(at);
            transaction
        };
        let (expired, confirmed) = (ReservationState::Expired, ReservationState::Confirmed);
        let is_hold = [ActionOutcome::Record(hold.view(AT))];
        let early = at(ExpiryCondition::Over, expired, ends.0 - 1);
        assert_eq!(refused(&store, early).await, is_hold);
        let late = at(ExpiryCondition::Ahead, confirmed, ends.0);
        assert_eq!(refused(&store, late).await, is_hold);
        applied(&store, at(ExpiryCondition::Over, expired, ends.0)).await;

        let hold = held("r2", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let mut in_time = transaction(&[], vec![step(&hold, confirmed)]);
        in_time.records[0].due = ExpiryCondition::Ahead;
        in_time.at = UnixMillis(ends.0 - 1);
        applied(&store, in_time).await;
    });
}

#[test]
fn of_commit_release_and_expiry_of_one_hold_one_wins() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 1).await;
        let ends = [
            ReservationState::Confirmed,
            ReservationState::Released,
            ReservationState::Expired,
        ];
        for (number, winner) in ends.into_iter().enumerate() {
            let hold = held(&format!("r{number}"), &[(0, 2)]);
            applied(&store, transaction(&[(0, 2)], vec![hold.clone()])).await;
            let give = |to| match to {
                ReservationState::Confirmed => transaction(&[], vec![step(&hold, to)]),
                _ => giving(&[(0, 2)], vec![step(&hold, to)]),
            };
            applied(&store, give(winner)).await;
            for to in ends {
                let reasons = refused(&store, give(to)).await;
                let won = step(&hold, winner).view(AT);
                assert_eq!(reasons.last(), Some(&ActionOutcome::Record(won)));
            }
        }
        // One is confirmed, the others gave back what they had.
        assert_eq!(remaining(&store).await, [8]);
    });
}

#[test]
fn what_is_given_back_can_be_taken_in_the_same_write() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 4, 1).await;
        let hold = held("old", &[(0, 4)]);
        applied(&store, transaction(&[(0, 4)], vec![hold.clone()])).await;
        let both = |take, give| {
            let stripe = StripeUpdate {
                stripe: 0,
                take,
                give,
            };
            let sold = confirmed(&format!("new{take}"), &[(0, take as u32)]);
            let released = step(&hold, ReservationState::Released);
            moving(vec![stripe], vec![released, sold])
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

/// What the store itself acts on: the keys of the expiry index and the time of the purge.
#[test]
fn only_a_hold_is_in_the_index_and_only_what_ended_is_purged() {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    let ways: [&[ReservationState]; 5] = [
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
        for (number, way) in ways.into_iter().enumerate() {
            let id = format!("r{number}");
            let mut record = first(&id, way[0], &[(0, 1)]);
            for (at, to) in way.iter().enumerate() {
                if at > 0 {
                    record = step(&record, *to);
                }
                applied(&store, transaction(&[], vec![record.clone()])).await;
                let table = &settings.tables.idempotency;
                let item = raw_item(&settings, table, &[("reservation_id", &id)]).await;
                let bucket = item.contains_key("expiry_bucket");
                assert_eq!(bucket, *to == Held, "{way:?} {to:?}");
                let ended = [Released, Expired].contains(to);
                let expected = ended.then(|| crate::stage::number(purge));
                assert_eq!(item.get("purge_at"), expected.as_ref(), "{way:?} {to:?}");
            }
        }
    });
}

#[test]
fn a_stripe_that_is_not_there_takes_nothing_back() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let hold = held("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let release = giving(&[(7, 1)], vec![step(&hold, ReservationState::Released)]);
        let reasons = refused(&store, release).await;
        assert_eq!(reasons, [ActionOutcome::Stripe(None), ActionOutcome::Fine]);
    });
}
