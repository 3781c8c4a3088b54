//! Reading records by their ids.

use inventory_core::limits;
use inventory_core::transaction::{RecordsRead, Unreadable};
use inventory_store::StoreError;

use crate::fixture::*;
use crate::transitions::applied;

#[test]
fn records_are_returned_in_the_requested_order() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let records: Vec<_> = (0..limits::TRANSACTION_ACTIONS_MAX)
            .map(|n| confirmed(&format!("r{n}"), &[(0, 1)]))
            .collect();
        applied(&store, transaction(&[], records.clone())).await;
        applied(&store, transaction(&[], vec![tombstone("gone")])).await;

        // More than one request takes, a duplicate, and a reservation without a record.
        let mut ids: Vec<_> = records.iter().rev().map(|r| r.reservation().clone()).collect();
        ids.insert(3, reservation("never"));
        ids.insert(7, reservation("gone"));
        ids.push(reservation("r5"));
        let RecordsRead::Found(found) = store.read_records(&ids).await else {
            panic!("not read");
        };
        assert_eq!(found.len(), ids.len());
        for (id, found) in ids.iter().zip(found) {
            let written = records.iter().find(|record| record.reservation() == id);
            let expected = match id.as_str() {
                "gone" => Some(tombstone("gone").view(AT)),
                _ => written.map(|record| record.view(AT)),
            };
            assert_eq!(found, Ok(expected), "{id}");
        }
        let none = store.read_records(&[]).await;
        assert_eq!(none, RecordsRead::Found(Vec::new()));
    });
}

#[test]
fn duplicate_id_is_returned_twice() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let record = confirmed("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![record.clone()])).await;
        let ids = ["r1", "never", "r1", "never"].map(reservation);
        let read = store.read_records(&ids).await;
        let is = Ok(Some(record.view(AT)));
        let expected = vec![is.clone(), Ok(None), is, Ok(None)];
        assert_eq!(read, RecordsRead::Found(expected));
    });
}

#[test]
fn record_is_read_with_all_attributes() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let record = confirmed("r1", &[(0, 2), (3, 1)]);
        applied(&store, transaction(&[], vec![record.clone()])).await;
        let found = store.read_reservation(record.reservation()).await.unwrap();
        let found = found.unwrap();
        assert_eq!(found.view, record.view(AT));
        assert_eq!((found.qty, &found.draws), (3, &record.draws));
        assert_eq!((found.event, found.created_at), (event(), AT));
        assert_eq!(found.payment_intent, "pi_123");
        let never = store.read_reservation(&reservation("never")).await;
        assert_eq!(never.unwrap(), None);
    });
}

#[test]
fn foreign_record_is_unreadable_and_hides_no_other() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        let record = confirmed("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![record.clone()])).await;
        let odd = vec![("reservation_id", text("odd")), ("status", text("DONE"))];
        raw_put(&settings, &settings.tables.idempotency, odd).await;
        let read = store.read_records(&["odd", "r1"].map(reservation)).await;
        let expected = vec![Err(Unreadable), Ok(Some(record.view(AT)))];
        assert_eq!(read, RecordsRead::Found(expected));
        let error = store.read_reservation(&reservation("odd")).await;
        let error = error.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, StoreError::Corrupt(_)), "{message}");
        assert!(message.contains("odd") && message.contains("DONE"), "{message}");
    });
}

#[test]
fn failed_reads_are_not_missing_records() {
    on_shard(async {
        let store = connect(&settings(engine())).await;
        let read = store.read_records(&[reservation("r1")]).await;
        assert_eq!(read, RecordsRead::Unavailable);
    });
}
