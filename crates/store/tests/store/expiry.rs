//! Queries for overdue holds.

use std::rc::Rc;

use inventory_core::expiry_search::ExpiryBucket;
use inventory_core::limits as core_limits;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{RecordWrite, ReservationState};
use inventory_store::limits;
use inventory_store::{Page, Store, StoredRecord, tables};

use crate::fixture::*;
use crate::transitions::applied;

fn ends(hold: &RecordWrite) -> UnixMillis {
    hold.expires_at.unwrap()
}

fn bucket_of(hold: &RecordWrite) -> ExpiryBucket {
    ExpiryBucket::of(hold.reservation(), ends(hold))
}

/// One page of the overdue holds in the bucket of `hold`.
async fn due(store: &Store, hold: &RecordWrite, now: UnixMillis) -> Page<StoredRecord> {
    store.due_holds(bucket_of(hold), now, 100, None).await.unwrap()
}

fn ids(page: &Page<StoredRecord>) -> Vec<&str> {
    let ids = page.items.iter().map(|record| record.reservation.as_str());
    ids.collect()
}

async fn scanned(store: &Store, now: UnixMillis) -> Vec<String> {
    scanned_in(store, core_limits::EXPIRY_SEGMENTS, now).await
}

/// Overdue holds of the whole index, read in this many segments.
async fn scanned_in(store: &Store, segments: u16, now: UnixMillis) -> Vec<String> {
    let mut found = Vec::new();
    for segment in 0..segments {
        let mut from = None;
        loop {
            let page = store.scan_due_holds(segment, segments, now, from.as_ref()).await.unwrap();
            found.extend(ids(&page).into_iter().map(str::to_owned));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    found.sort();
    found
}

#[test]
fn hold_is_overdue_from_its_expiry_on_in_its_bucket_only() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let hold = held("r1", &[(0, 2)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let before = UnixMillis(ends(&hold).0 - 1);
        assert_eq!(due(&store, &hold, before).await.items, []);
        assert_eq!(scanned(&store, before).await, [""; 0]);
        let page = due(&store, &hold, ends(&hold)).await;
        assert_eq!(page.next, None);
        let [found] = &page.items[..] else {
            panic!("{page:?}");
        };
        assert_eq!(found.view, hold.view(AT));
        assert_eq!((&found.event, found.created_at), (&event(), AT));
        assert_eq!(scanned(&store, ends(&hold)).await, ["r1"]);

        let ExpiryBucket { minute, part } = bucket_of(&hold);
        for (minute, part) in [(minute + 1, part), (minute - 1, part), (minute, part ^ 1)] {
            let bucket = ExpiryBucket { minute, part };
            let other = store.due_holds(bucket, UnixMillis(u64::MAX), 100, None);
            assert_eq!(other.await.unwrap().items, []);
        }
    });
}

#[test]
fn ended_reservations_are_not_overdue() {
    use ReservationState::{Confirmed, Expired, Held, Released};
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        for to in [Confirmed, Released, Expired] {
            let hold = held(&format!("{to:?}"), &[(0, 1)]);
            applied(&store, transaction(&[], vec![hold.clone()])).await;
            assert_eq!(due(&store, &hold, ends(&hold)).await.items.len(), 1);
            let ended = transition(&hold, to);
            applied(&store, transaction(&[], vec![ended.clone()])).await;
            assert_eq!(due(&store, &hold, ends(&hold)).await.items, []);
            // The record keeps its expiry.
            let record = store.read_reservation(hold.reservation()).await.unwrap();
            assert_eq!(record.unwrap().view.expires_at, hold.expires_at);
        }
        assert_eq!(scanned(&store, UnixMillis(u64::MAX)).await, [""; 0]);
        // Held again, overdue again.
        let expired = first("Expired", Expired, &[(0, 1)]);
        let again = RecordWrite {
            expires_at: Some(UnixMillis(AT.0 + 200_000)),
            ..transition(&expired, Held)
        };
        applied(&store, transaction(&[], vec![again.clone()])).await;
        assert_eq!(ids(&due(&store, &again, ends(&again)).await), ["Expired"]);
    });
}

#[test]
fn large_bucket_is_paged_oldest_first() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        // All in one bucket, and one that is not overdue yet.
        let bucket = |id: &String| ExpiryBucket::of(&reservation(id), AT).part == 3;
        let mut names = (0..).map(|n| format!("r{n}")).filter(bucket);
        let hold = |id: String, after| RecordWrite {
            expires_at: Some(UnixMillis(AT.0 / 60_000 * 60_000 + after)),
            ..held(&id, &[(0, 1)])
        };
        let ends = (0..25).map(|n| 1_000 - 40 * n).chain([1_001]);
        let holds: Vec<_> = ends.map(|end| hold(names.next().unwrap(), end)).collect();
        applied(&store, transaction(&[], holds.clone())).await;
        let (bucket, now) = (bucket_of(&holds[0]), holds[0].expires_at.unwrap());
        let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.due_holds(bucket, now, 10, from.as_ref()).await;
            let page = page.unwrap();
            assert!(page.items.len() <= 10);
            found.extend(page.items);
            pages += 1;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(pages, 3);
        let mut expected: Vec<_> = holds[..25].iter().map(|h| h.view(AT)).collect();
        expected.reverse();
        let found: Vec<_> = found.into_iter().map(|record| record.view).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn scan_finds_overdue_holds_of_any_age() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let many = limits::STORE_SCAN_PAGE_MAX as u64 + 90;
        let hold = |n: u64| RecordWrite {
            // Over some days; every third expires in the future.
            expires_at: Some(match n % 3 {
                0 => UnixMillis(AT.0 + 1 + n),
                _ => UnixMillis(AT.0 - n * 600_000),
            }),
            ..held(&format!("r{n:04}"), &[(0, 1)])
        };
        let holds: Vec<_> = (0..many).map(hold).collect();
        for holds in holds.chunks(core_limits::TRANSACTION_ACTIONS_MAX) {
            applied(&store, transaction(&[], holds.to_vec())).await;
        }
        let due = (0..many).filter(|n| n % 3 != 0);
        let due: Vec<_> = due.map(|n| format!("r{n:04}")).collect();
        // In pages, and in segments that together contain each hold once.
        assert_eq!(scanned_in(&store, 1, AT).await, due);
        assert_eq!(scanned(&store, AT).await, due);
    });
}

#[test]
fn unreadable_hold_hides_no_other() {
    on_shard(async {
        let recorder = Rc::new(StoreRecorder::default());
        let settings = settings(engine());
        let store = Store::connect(settings.clone(), recorder.clone());
        let store = store.await.unwrap();
        tables::create(&store).await.unwrap();
        let hold = held("r1", &[(0, 1)]);
        applied(&store, transaction(&[], vec![hold.clone()])).await;
        let bucket = bucket_of(&hold).to_string();
        let odd = vec![
            ("reservation_id", text("odd")),
            ("expiry_bucket", text(&bucket)),
            ("expires_at", number(ends(&hold).0 - 5)),
            ("status", text("HELD")),
        ];
        raw_put(&settings, &settings.tables.idempotency, odd).await;
        assert_eq!(ids(&due(&store, &hold, ends(&hold)).await), ["r1"]);
        assert_eq!(scanned(&store, ends(&hold)).await, ["r1"]);
        let lines = recorder.lines.borrow();
        assert!(lines.iter().any(|line| line.contains("hold odd")), "{lines:?}");
    });
}
