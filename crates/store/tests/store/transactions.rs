//! Events, transactions on units, and what the embedded engine keeps on disk.

use std::rc::Rc;

use inventory_core::limits;
use inventory_core::transaction::{ActionOutcome, StripeView, StripesRead, TransactionOutcome};
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::{CreateEventOutcome, NewEvent, Store, StoreError, StoreSettings, tables};

use crate::fixture::*;

#[test]
fn create_event_is_idempotent() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, StripesRead::NotFound);
        let created = create(&store, 10, 3).await;
        let CreateEventOutcome::Created(views) = created else {
            panic!("{created:?}");
        };
        let capacities: Vec<u64> = views.iter().map(|view| view.capacity).collect();
        assert_eq!(capacities, [4, 3, 3]);
        assert_eq!(stripes(&store).await, views);

        let again = create(&store, 10, 3).await;
        assert_eq!(again, CreateEventOutcome::Existing(views.clone()));
        for (total, count) in [(11, 3), (10, 1), (10, 4)] {
            let other = create(&store, total, count).await;
            assert_eq!(other, CreateEventOutcome::Conflict(views.clone()));
        }
        let nothing = NewEvent::of_quantity(event(), 0, 1);
        let invalid = store.create_event(&nothing).await.unwrap_err();
        assert!(matches!(invalid, StoreError::Invalid(_)), "{invalid}");
    });
}

#[test]
fn read_finds_all_stripes_for_any_hint() {
    on_shard(async {
        let recorder = Rc::new(StoreRecorder::default());
        let settings = settings(engine());
        let store = Store::connect(settings.clone(), recorder.clone()).await.unwrap();
        tables::create(&store).await.unwrap();
        let most = limits::STRIPES_MAX;
        create(&store, 1_000, most).await;
        for hint in [None, Some(1), Some(2), Some(most), Some(u16::MAX), Some(0)] {
            recorder.calls.borrow_mut().clear();
            let StripesRead::Found(found) = store.read_event(&event(), hint).await else {
                panic!("hint {hint:?}");
            };
            assert_eq!(found.len(), usize::from(most));
            assert_eq!(found[0].stripes, Some(most));
            assert!(found[1..].iter().all(|stripe| stripe.stripes.is_none()));
            let total: u64 = found.iter().map(|stripe| stripe.capacity).sum();
            assert_eq!(total, 1_000);
            let is_right = hint.is_some_and(|hint| hint >= most);
            let calls = recorder.calls.borrow().len();
            assert_eq!(calls, if is_right { 1 } else { 2 }, "hint {hint:?}");
        }
    });
}

#[test]
fn batch_of_ninety_nine_is_one_transaction() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 1_000, 1).await;
        let mut records: Vec<_> = (0..limits::BATCH_ENTRIES_MAX - 1)
            .map(|n| confirmed(&format!("r{n}"), &[(0, 2)]))
            .collect();
        records.push(tombstone("gone"));
        let batch = transaction(&[(0, 2 * 98)], records.clone());
        assert_eq!(batch.action_count(), limits::TRANSACTION_ACTIONS_MAX);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        let after = stripes(&store).await;
        assert_eq!((after[0].remaining, after[0].version), (1_000 - 196, 1));

        let mut found = Vec::new();
        let mut from = None;
        loop {
            let page = store.scan_reservations(&event(), from.as_ref()).await.unwrap();
            found.extend(page.items);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        found.sort_by(|a, b| a.reservation.cmp(&b.reservation));
        records.sort_by(|a, b| a.reservation().cmp(b.reservation()));
        assert_eq!(found.len(), records.len());
        for (found, written) in found.iter().zip(&records) {
            assert_eq!(found.reservation, *written.reservation());
            assert_eq!((found.qty, &found.draws), (written.qty, &written.draws));
            assert_eq!(found.event, event());
            assert_eq!(found.view, written.view(AT));
        }
        let other = "another_event".parse().unwrap();
        let page = store.scan_reservations(&other, None).await.unwrap();
        assert!(page.items.is_empty());
    });
}

#[test]
fn one_transaction_updates_several_stripes() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 3).await;
        let split = confirmed("split", &[(0, 4), (2, 1)]);
        let batch = transaction(&[(0, 4), (2, 1)], vec![split.clone()]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert_eq!(remaining(&store).await, [0, 3, 2]);
        let page = store.scan_reservations(&event(), None).await.unwrap();
        assert_eq!(page.items[0].draws, split.draws);
    });
}

#[test]
fn duplicate_reservation_reports_the_stored_record() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 1).await;
        let (first, gone) = (confirmed("r1", &[(0, 2)]), tombstone("r2"));
        let batch = transaction(&[(0, 2)], vec![first.clone(), gone.clone()]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);

        let repeats = vec![
            confirmed("r1", &[(0, 3)]),
            confirmed("r2", &[(0, 1)]),
            confirmed("r3", &[(0, 1)]),
        ];
        let outcome = store.transact(&transaction(&[(0, 5)], repeats)).await;
        let expected = vec![
            ActionOutcome::Fine,
            ActionOutcome::Record(first.view(AT)),
            ActionOutcome::Record(gone.view(AT)),
            ActionOutcome::Fine,
        ];
        assert_eq!(outcome, TransactionOutcome::Cancelled(expected));
        assert_eq!(remaining(&store).await, [8]);
    });
}

#[test]
fn all_failed_conditions_are_reported_together() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 5, 2).await;
        let first = confirmed("r1", &[(0, 1)]);
        let batch = transaction(&[(0, 1)], vec![first.clone()]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);

        let records = vec![confirmed("r1", &[(0, 3)]), confirmed("r2", &[(7, 1)])];
        let batch = transaction(&[(0, 3), (1, 1), (7, 1)], records);
        let short = StripeView {
            capacity: 3,
            remaining: 2,
            version: 1,
            stripes: Some(2),
            ..StripeView::default()
        };
        let expected = vec![
            ActionOutcome::Stripe(Some(short)),
            ActionOutcome::Fine,
            ActionOutcome::Stripe(None),
            ActionOutcome::Record(first.view(AT)),
            ActionOutcome::Fine,
        ];
        let outcome = store.transact(&batch).await;
        assert_eq!(outcome, TransactionOutcome::Cancelled(expected));
        assert_eq!(remaining(&store).await, [2, 2]);
    });
}

#[test]
fn last_unit_is_sold_once() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 2, 1).await;
        let all = transaction(&[(0, 2)], vec![confirmed("r1", &[(0, 2)])]);
        assert_eq!(store.transact(&all).await, TransactionOutcome::Committed);
        let more = transaction(&[(0, 1)], vec![confirmed("r2", &[(0, 1)])]);
        let TransactionOutcome::Cancelled(reasons) = store.transact(&more).await else {
            panic!("oversold");
        };
        let ActionOutcome::Stripe(Some(stripe)) = &reasons[0] else {
            panic!("{reasons:?}");
        };
        assert_eq!(stripe.remaining, 0);
    });
}

#[test]
fn same_token_is_applied_once() {
    on_shard(async {
        let recorder = Rc::new(StoreRecorder::default());
        let settings = settings(engine());
        let store = Store::connect(settings.clone(), recorder.clone()).await.unwrap();
        tables::create(&store).await.unwrap();
        create(&store, 10, 1).await;
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        for _ in 0..3 {
            assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        }
        assert_eq!(remaining(&store).await, [9]);
        // Another body with the same token is rejected and logged as a bug.
        let mut other = transaction(&[(0, 2)], vec![confirmed("r2", &[(0, 2)])]);
        other.token = batch.token;
        assert_eq!(store.transact(&other).await, TransactionOutcome::Rejected);
        assert_eq!(remaining(&store).await, [9]);
        let lines = recorder.lines.borrow();
        assert!(lines.iter().any(|line| line.contains("BUG")), "{lines:?}");
        let inventory = settings.tables.inventory.clone();
        let rejected = ("TransactWriteItems", inventory, "rejected");
        assert!(recorder.calls.borrow().contains(&rejected));
    });
}

#[test]
fn missing_table_is_refused() {
    on_shard(async {
        let store = connect(&settings(engine())).await;
        let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Refused);
        let read = store.read_event(&event(), None).await;
        assert_eq!(read, StripesRead::Unavailable);
    });
}

#[test]
fn acknowledged_writes_survive_a_restart_of_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let data = EngineStorage::Dir(dir.path().to_owned());
    let names = settings(engine()).tables;
    let open = || {
        let engine = EmbeddedEngine::start(data.clone()).unwrap();
        let settings = StoreSettings { tables: names.clone(), ..settings(engine.address()) };
        (engine, settings)
    };
    let batch = transaction(&[(0, 1)], vec![confirmed("r1", &[(0, 1)])]);
    let (engine, first) = open();
    on_shard(async {
        let store = with_tables(&first).await;
        create(&store, 10, 1).await;
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
    });
    engine.stop();
    let (_engine, second) = open();
    on_shard(async {
        let store = connect(&second).await;
        assert_eq!(tables::check(&store).await.unwrap(), []);
        assert_eq!(remaining(&store).await, [9]);
        // The token is lost with the engine; the record still prevents a second sale.
        let outcome = store.transact(&batch).await;
        assert!(matches!(outcome, TransactionOutcome::Cancelled(_)), "{outcome:?}");
        assert_eq!(remaining(&store).await, [9]);
    });
}
