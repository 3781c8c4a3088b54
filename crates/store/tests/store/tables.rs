//! Creation and check of the tables.

use inventory_store::{StoreConnectError, StoreSettings, TableNames, tables};

use crate::fixture::*;

#[test]
fn create_is_idempotent() {
    on_shard(async {
        let store = connect(&settings(engine())).await;
        let missing = tables::check(&store).await.unwrap();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing.iter().all(|difference| difference.fatal));
        assert!(missing[0].to_string().contains("tables create"));
        let probe = store.probe().await.unwrap_err();
        assert!(matches!(probe, StoreConnectError::TableMissing { .. }), "{probe}");

        assert_eq!(tables::create(&store).await.unwrap().len(), 3);
        assert_eq!(tables::check(&store).await.unwrap(), []);
        assert_eq!(tables::create(&store).await.unwrap(), []);
        store.probe().await.unwrap();
    });
}

#[test]
fn wrong_schema_is_reported_with_the_remedy() {
    on_shard(async {
        let right = settings(engine());
        with_tables(&right).await;
        // Each name refers to a table with another schema.
        let swapped = StoreSettings {
            tables: TableNames {
                inventory: right.tables.seats.clone(),
                seats: right.tables.idempotency.clone(),
                idempotency: right.tables.inventory.clone(),
            },
            ..right
        };
        let store = connect(&swapped).await;
        let found = tables::check(&store).await.unwrap();
        let of = |table: &str, words: &str| {
            let named = |d: &&tables::TableDifference| d.table == table && d.what.contains(words);
            let found = found.iter().find(named);
            found.unwrap_or_else(|| panic!("{table}: {words}: {found:?}"))
        };
        let names = &swapped.tables;
        let key = of(&names.inventory, "key is event_id (S), seat_id (S), want event_id (S)");
        assert!(key.fatal && key.fix.contains("DDB_TABLE"), "{key}");
        assert!(of(&names.idempotency, "no index expiry").fatal);
        assert!(!of(&names.idempotency, "time to live is off").fatal);
    });
}

#[test]
fn create_adds_missing_index_and_time_to_live() {
    on_shard(async {
        let older = settings(engine());
        with_tables(&older).await;
        // The inventory table as idempotency table: neither index nor time to live.
        let newer = StoreSettings {
            tables: TableNames {
                idempotency: older.tables.inventory.clone(),
                inventory: format!("{}_new", older.tables.inventory),
                ..older.tables.clone()
            },
            ..older
        };
        let store = connect(&newer).await;
        let made = tables::create(&store).await.unwrap();
        let table = newer.tables.idempotency.clone();
        assert!(made.contains(&tables::TableCreation::Index(table.clone())), "{made:?}");
        assert!(made.contains(&tables::TableCreation::Ttl(table.clone())), "{made:?}");
        let left = tables::check(&store).await.unwrap();
        assert_eq!(left.len(), 1, "only its key still differs: {left:?}");
    });
}
