//! Admin operations on events: create, list, set the total, close.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use inventory_core::ids::EventId;
use inventory_core::limits as core_limits;
use inventory_core::seats::SeatFacts;
use inventory_core::transaction::{
    ActionOutcome, ReservationState, SeatsRead, StockTotals, StripeUpdate, StripeView,
};
use inventory_store::limits;
use inventory_store::{
    CreateEventOutcome, EventAbout, NewEvent, SeatOutcome, SetTotalOutcome, Store, StoreCall,
    StoreError, StoreObserver, tables,
};
use inventory_testkit::store_proxy::ProxyAction;

use crate::fixture::store_fault;
use crate::fixture::*;
use crate::transitions::{applied, refused};

fn id(id: &str) -> EventId {
    id.parse().unwrap()
}

async fn capacities(store: &Store) -> Vec<u64> {
    let stripes = stripes(store).await;
    stripes.iter().map(|stripe| stripe.capacity).collect()
}

#[test]
fn seated_event_is_created_once_and_described() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        assert_eq!(store.describe_event(&event()).await.unwrap(), None);
        let new_event = NewEvent {
            name: "An evening".to_owned(),
            venue: "The hall".to_owned(),
            ..NewEvent::of_seats(event(), 8)
        };
        let created = store.create_event(&new_event).await.unwrap();
        let view = StripeView { stripes: Some(1), seat_keys: 8, ..StripeView::default() };
        assert_eq!(created, CreateEventOutcome::Created(vec![view]));
        let again = store.create_event(&new_event).await.unwrap();
        assert_eq!(again, CreateEventOutcome::Existing(vec![view]));
        for other in [NewEvent::of_seats(event(), 4), NewEvent::of_quantity(event(), 5, 1)] {
            let conflict = store.create_event(&other).await.unwrap();
            assert_eq!(conflict, CreateEventOutcome::Conflict(vec![view]));
        }
        let about = store.describe_event(&event()).await.unwrap().unwrap();
        let expected = EventAbout {
            event: event(),
            stripes: 1,
            seat_keys: 8,
            closed: false,
            name: "An evening".to_owned(),
            venue: "The hall".to_owned(),
        };
        assert_eq!(about, expected);
        assert!(about.is_seated());
        let set = store.set_total(&event(), 5).await.unwrap();
        assert_eq!(set, SetTotalOutcome::Seated);
    });
}

#[test]
fn listing_returns_each_event_once_and_no_stripes() {
    on_shard(async {
        let settings = settings(engine());
        let recorder = Rc::new(StoreRecorder::default());
        let store = Store::connect(settings.clone(), recorder.clone());
        let store = store.await.unwrap();
        tables::create(&store).await.unwrap();
        let mut expected = Vec::new();
        // More items than one page examines.
        let stripes = core_limits::STRIPES_MAX;
        for n in 0..limits::STORE_SCAN_PAGE_MAX as usize / usize::from(stripes) + 3 {
            let new_event = NewEvent::of_quantity(id(&format!("evt{n:02}")), 1_000, stripes);
            store.create_event(&new_event).await.unwrap();
            expected.push(new_event.event);
        }
        // An event of another program, and an item that is not an event.
        for odd in ["bare", "not an event"] {
            let item = vec![("event_id", text(odd))];
            raw_put(&settings, &settings.tables.inventory, item).await;
        }
        expected.push(id("bare"));
        let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.list_events(from.as_ref()).await.unwrap();
            found.extend(page.items);
            pages += 1;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert!(pages > 1);
        let mut found: Vec<_> = found.into_iter().map(|about| about.event).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        // Only the item that is not an event is logged.
        let lines = recorder.lines.borrow();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("not an event"), "{lines:?}");
    });
}

#[test]
fn set_total_is_idempotent_in_both_directions() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 3).await;
        let sold = confirmed("r1", &[(0, 4), (1, 1)]);
        applied(&store, transaction(&[(0, 4), (1, 1)], vec![sold])).await;
        assert_eq!(remaining(&store).await, [0, 2, 3]);

        for _ in 0..2 {
            let set = store.set_total(&event(), 15).await.unwrap();
            assert_eq!(set, SetTotalOutcome::Set(stripes(&store).await));
            assert_eq!(capacities(&store).await, [6, 5, 4]);
            assert_eq!(remaining(&store).await, [2, 4, 4]);
        }
        for _ in 0..2 {
            let set = store.set_total(&event(), 6).await.unwrap();
            assert_eq!(set, SetTotalOutcome::Set(stripes(&store).await));
            assert_eq!(capacities(&store).await.iter().sum::<u64>(), 6);
            assert_eq!(remaining(&store).await.iter().sum::<u64>(), 1);
        }
        // Sold units stay, and a rejected call changes nothing.
        let before = stripes(&store).await;
        let set = store.set_total(&event(), 4).await.unwrap();
        assert_eq!(set, SetTotalOutcome::Refused { total: 6, taken: 5 });
        assert_eq!(stripes(&store).await, before);
        let set = store.set_total(&event(), 5).await.unwrap();
        assert!(matches!(set, SetTotalOutcome::Set(_)));
        assert_eq!(remaining(&store).await, [0, 0, 0]);

        let set = store.set_total(&id("other"), 5).await.unwrap();
        assert_eq!(set, SetTotalOutcome::NotFound);
        let error = store.set_total(&event(), 0).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    });
}

#[test]
fn set_total_during_sales_conserves_the_stock_of_every_stripe() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 90, 2).await;
        let (sold, selling) = (Cell::new(0_u64), Cell::new(true));
        let sale = async {
            for n in 0..60 {
                let stripe = n % 2;
                let record = confirmed(&format!("r{n}"), &[(stripe, 1)]);
                applied(&store, transaction(&[(stripe, 1)], vec![record])).await;
                sold.set(sold.get() + 1);
            }
            selling.set(false);
        };
        let change = async {
            let mut totals = [70, 120, 80, 95].into_iter().cycle();
            while selling.get() {
                let total = totals.next().unwrap();
                // A concurrent sale may interfere; the next round completes.
                match store.set_total(&event(), total).await {
                    Ok(SetTotalOutcome::Set(_)) | Err(StoreError::Unavailable(_)) => {}
                    other => panic!("{other:?}"),
                }
                inventory_runtime::yield_now().await;
            }
        };
        futures::future::join(sale, change).await;
        let set = store.set_total(&event(), 95).await.unwrap();
        assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
        let stripes = stripes(&store).await;
        for stripe in &stripes {
            assert_eq!(stripe.capacity - stripe.remaining, sold.get() / 2);
        }
        assert_eq!(stripes.iter().map(|s| s.capacity).sum::<u64>(), 95);
    });
}

#[test]
fn closed_event_rejects_sales_and_accepts_returns() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        assert!(!store.close_event(&event()).await.unwrap());
        create(&store, 10, 3).await;
        let (hold, kept) = (held("r1", &[(0, 2)]), held("kept", &[(1, 1)]));
        let both = vec![hold.clone(), kept.clone()];
        applied(&store, transaction(&[(0, 2), (1, 1)], both)).await;
        for _ in 0..2 {
            assert!(store.close_event(&event()).await.unwrap());
            assert!(stripes(&store).await.iter().all(|stripe| stripe.closed));
        }
        let about = store.describe_event(&event()).await.unwrap().unwrap();
        assert!(about.closed);

        for stripe in 0..3 {
            let late = transaction(&[(stripe, 1)], vec![confirmed("r2", &[(stripe, 1)])]);
            let ActionOutcome::Stripe(Some(view)) = refused(&store, late).await[0] else {
                panic!("sold");
            };
            assert!(view.closed && view.remaining > 0);
        }
        // Not even units that the same transaction returns.
        let swap = StripeUpdate { take: 1, give: 2, ..StripeUpdate::default() };
        let release = transition(&hold, ReservationState::Released);
        let both = vec![release.clone(), confirmed("r2", &[(0, 1)])];
        let reasons = refused(&store, transaction_of(vec![swap], both)).await;
        assert!(matches!(&reasons[0], ActionOutcome::Stripe(Some(view)) if view.closed));
        applied(&store, returning(&[(0, 2)], vec![release])).await;
        // Holds from before can still be confirmed.
        let bought = transition(&kept, ReservationState::Confirmed);
        applied(&store, transaction(&[], vec![bought])).await;
        assert_eq!(remaining(&store).await, [4, 2, 3]);
    });
}

#[test]
fn close_completes_an_interrupted_close() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        create(&store, 10, 2).await;
        let closed = vec![
            ("event_id", text("evt_2025_1001#1")),
            ("total_seats", number(5)),
            ("remaining", number(5)),
            ("closed", aws_sdk_dynamodb::types::AttributeValue::Bool(true)),
        ];
        raw_put(&settings, &settings.tables.inventory, closed).await;
        assert!(!store.describe_event(&event()).await.unwrap().unwrap().closed);
        assert!(store.close_event(&event()).await.unwrap());
        assert!(stripes(&store).await.iter().all(|stripe| stripe.closed));
    });
}

#[test]
fn seated_event_can_be_closed() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let new_event = NewEvent::of_seats(event(), 2);
        store.create_event(&new_event).await.unwrap();
        assert!(store.close_event(&event()).await.unwrap());
        let [view] = stripes(&store).await[..] else {
            panic!("one stripe");
        };
        assert!(view.closed && view.seat_keys == 2);
    });
}

// ---- Concurrent changes and lost answers -----------------------------------

/// Runs a concurrent change right after the first strong read of stripes.
struct Meddler(RefCell<Option<Box<dyn FnOnce() + Send>>>);

impl StoreObserver for Meddler {
    fn called(&self, call: StoreCall<'_>) {
        if !call.operation.contains("Get") {
            return;
        }
        if let Some(deed) = self.0.borrow_mut().take() {
            std::thread::spawn(deed).join().unwrap();
        }
    }

    fn log(&self, line: &str) {
        panic!("{line}");
    }
}

/// An event of ten units, and a store to whose first read `deed` happens.
async fn meddled<F>(stripes: u16, deed: impl FnOnce(Store) -> F + Send + 'static) -> Store
where
    F: Future<Output = ()>,
{
    let settings = settings(engine());
    create(&with_tables(&settings).await, 10, stripes).await;
    let others = settings.clone();
    let deed = move || on_shard(async { deed(connect(&others).await).await });
    let meddler = Rc::new(Meddler(RefCell::new(Some(Box::new(deed)))));
    Store::connect(settings, meddler).await.unwrap()
}

#[test]
fn set_total_keeps_units_sold_after_its_read() {
    on_shard(async {
        let store = meddled(1, async |store| {
            let record = confirmed("r1", &[(0, 8)]);
            applied(&store, transaction(&[(0, 8)], vec![record])).await;
        });
        let store = store.await;
        let set = store.set_total(&event(), 4).await.unwrap();
        assert_eq!(set, SetTotalOutcome::Refused { total: 10, taken: 8 });
        assert_eq!(remaining(&store).await, [2]);
    });
}

#[test]
fn concurrent_set_total_is_not_added_twice() {
    on_shard(async {
        let store = meddled(1, async |store| {
            store.set_total(&event(), 12).await.unwrap();
        });
        let store = store.await;
        let set = store.set_total(&event(), 15).await.unwrap();
        assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
        assert_eq!((capacities(&store).await, remaining(&store).await), (vec![15], vec![15]));
    });
}

/// A move changes the capacity of both stripes after they were read.
#[test]
fn set_total_is_exact_despite_a_concurrent_move() {
    for total in [14, 6] {
        on_shard(async {
            let store =
                meddled(2, async |store| {
                    let record = confirmed("r1", &[(0, 1)]);
                    let updates = [(0, 1, 3), (1, 0, -3)].map(|(stripe, take, moved)| {
                        StripeUpdate { stripe, take, moved, ..StripeUpdate::default() }
                    });
                    applied(&store, transaction_of(updates.to_vec(), vec![record])).await;
                });
            let store = store.await;
            let SetTotalOutcome::Set(stripes) = store.set_total(&event(), total).await.unwrap()
            else {
                panic!("{total}");
            };
            let totals = StockTotals { capacity: total, remaining: total - 1 };
            assert_eq!(StockTotals::of(&stripes), totals);
            assert_eq!(stripes.iter().map(|stripe| stripe.capacity).sum::<u64>(), total);
        });
    }
}

#[test]
fn set_total_with_a_lost_answer_is_applied_once() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        create(&store, 10, 1).await;
        for (total, left) in [(15, 15), (7, 7)] {
            proxy.next(ProxyAction::Pass);
            proxy.next(ProxyAction::LoseAnswer);
            let set = store.set_total(&event(), total).await.unwrap();
            assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
            assert_eq!(remaining(&store).await, [left]);
        }
        proxy.next(ProxyAction::LoseAnswer);
        let seats = ["A-1", "A-2"].map(|id| (seat_id(id), SeatFacts::default()));
        store.put_seats(&event(), 1, &seats).await.unwrap();
        proxy.next(ProxyAction::LoseAnswer);
        let blocked = store.block_seats(&event(), 1, &[seat_id("A-1")]).await;
        assert_eq!(blocked.unwrap()[0].1, SeatOutcome::Unchanged);
        proxy.next(ProxyAction::Pass);
        proxy.next(ProxyAction::LoseAnswer);
        assert!(store.close_event(&event()).await.unwrap());
    });
}

#[test]
fn set_total_retries_transaction_conflicts() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        create(&store, 10, 1).await;
        let conflict = store_fault(400, "TransactionConflictException");
        proxy.next(ProxyAction::Pass);
        // More conflicts than the retries of one call.
        for _ in 0..limits::STORE_ADMIN_ATTEMPTS_MAX + 2 {
            proxy.next(conflict.clone());
        }
        let before = proxy.requests();
        let set = store.set_total(&event(), 11).await.unwrap();
        assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
        // Two reads, the conflicts, the change.
        let sent = proxy.requests() - before;
        assert_eq!(sent, 2 + limits::STORE_ADMIN_ATTEMPTS_MAX as usize + 2 + 1);

        let cancelled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "CancellationReasons":[{"Code":"TransactionConflict"}]}"#;
        proxy.next(ProxyAction::Answer(400, cancelled.to_owned()));
        let seats = [(seat_id("A-1"), SeatFacts::default())];
        store.put_seats(&event(), 1, &seats).await.unwrap();
        let SeatsRead::Found(found) = store.read_seats(&event(), 1).await else {
            panic!("not read");
        };
        assert_eq!(found.len(), 1);
    });
}
