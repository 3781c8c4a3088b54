//! What an operator does to events: creating, listing, restocking, shrinking, closing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use inventory_api::limits;
use inventory_core::ids::EventId;
use inventory_core::seats::SeatFacts;
use inventory_core::transaction::{
    ActionOutcome, ReservationState, SeatsRead, StripeUpdate, StripeView,
};
use inventory_store::{
    CreateEventOutcome, EventAbout, NewEvent, SeatOutcome, SetTotalOutcome, Store, StoreCall,
    StoreError, StoreObserver, tables,
};

use crate::life::{applied, refused};
use crate::network::fault;
use crate::relay::Act;
use crate::stage::*;

fn id(id: &str) -> EventId {
    id.parse().unwrap()
}

async fn capacities(store: &Store) -> Vec<u64> {
    let stripes = stripes(store).await;
    stripes.iter().map(|stripe| stripe.capacity).collect()
}

#[test]
fn a_seated_event_is_created_once_and_tells_what_it_is() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        assert_eq!(store.describe_event(&event()).await.unwrap(), None);
        let wanted = NewEvent {
            name: "An evening".to_owned(),
            venue: "The hall".to_owned(),
            ..NewEvent::of_seats(event(), 8)
        };
        let created = store.create_event(&wanted).await.unwrap();
        let view = StripeView {
            capacity: 0,
            remaining: 0,
            version: 0,
            stripes: Some(1),
            seat_keys: 8,
            closed: false,
        };
        assert_eq!(created, CreateEventOutcome::Created(vec![view]));
        let again = store.create_event(&wanted).await.unwrap();
        assert_eq!(again, CreateEventOutcome::Existing(vec![view]));
        for other in [
            NewEvent::of_seats(event(), 4),
            NewEvent::of_quantity(event(), 5, 1),
        ] {
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
fn every_event_is_listed_once_and_no_stripe_is_taken_for_one() {
    on_shard(async {
        let settings = settings(engine());
        let witness = Rc::new(Witness::default());
        let store = Store::connect(settings.clone(), witness.clone());
        let store = store.await.unwrap();
        tables::create(&store).await.unwrap();
        let mut expected = Vec::new();
        // More items than one page examines.
        let stripes = limits::STRIPES_MAX;
        for n in 0..limits::STORE_SCAN_PAGE_MAX as usize / usize::from(stripes) + 3 {
            let wanted = NewEvent::of_quantity(id(&format!("evt{n:02}")), 1_000, stripes);
            store.create_event(&wanted).await.unwrap();
            expected.push(wanted.event);
        }
        // As another program leaves one, and one that is no event.
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
        // Only what is no event is told of.
        let lines = witness.lines.borrow();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("not an event"), "{lines:?}");
    });
}

#[test]
fn a_total_goes_up_and_down_and_a_repeat_changes_nothing() {
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
        // What is sold stays, and a refusal changes nothing.
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

/// Sales and changes of the total at the same time: every stripe keeps its balance all along.
#[test]
fn a_total_that_changes_during_the_sale_loses_and_makes_no_unit() {
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
                // Somebody else's sale may be in between; another round ends it.
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
fn a_closed_event_takes_nothing_and_still_takes_back() {
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
        // Not even what another gives back in the same write.
        let swap = StripeUpdate {
            stripe: 0,
            take: 1,
            give: 2,
        };
        let release = step(&hold, ReservationState::Released);
        let both = vec![release.clone(), confirmed("r2", &[(0, 1)])];
        let reasons = refused(&store, moving(vec![swap], both)).await;
        assert!(matches!(&reasons[0], ActionOutcome::Stripe(Some(view)) if view.closed));
        applied(&store, giving(&[(0, 2)], vec![release])).await;
        // What was held before can still be bought.
        let bought = step(&kept, ReservationState::Confirmed);
        applied(&store, transaction(&[], vec![bought])).await;
        assert_eq!(remaining(&store).await, [4, 2, 3]);
    });
}

#[test]
fn what_an_interrupted_close_left_open_is_closed_by_the_next() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        create(&store, 10, 2).await;
        let closed = vec![
            ("event_id", text("evt_2025_1001#1")),
            ("total_seats", number(5)),
            ("remaining", number(5)),
            (
                "closed",
                aws_sdk_dynamodb::types::AttributeValue::Bool(true),
            ),
        ];
        raw_put(&settings, &settings.tables.inventory, closed).await;
        assert!(
            !store
                .describe_event(&event())
                .await
                .unwrap()
                .unwrap()
                .closed
        );
        assert!(store.close_event(&event()).await.unwrap());
        assert!(stripes(&store).await.iter().all(|stripe| stripe.closed));
    });
}

#[test]
fn a_seated_event_can_be_closed() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let wanted = NewEvent::of_seats(event(), 2);
        store.create_event(&wanted).await.unwrap();
        assert!(store.close_event(&event()).await.unwrap());
        let [view] = stripes(&store).await[..] else {
            panic!("one stripe");
        };
        assert!(view.closed && view.seat_keys == 2);
    });
}

// ---- What others do at the same time, and what the network does -----------------------------------

/// Has somebody else do something right after the first strong read of stripes.
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
async fn meddled<F>(deed: impl FnOnce(Store) -> F + Send + 'static) -> Store
where
    F: Future<Output = ()>,
{
    let settings = settings(engine());
    create(&with_tables(&settings).await, 10, 1).await;
    let others = settings.clone();
    let deed = move || on_shard(async { deed(connect(&others).await).await });
    let meddler = Rc::new(Meddler(RefCell::new(Some(Box::new(deed)))));
    Store::connect(settings, meddler).await.unwrap()
}

#[test]
fn what_is_sold_in_between_is_not_taken_out() {
    on_shard(async {
        let store = meddled(async |store| {
            let record = confirmed("r1", &[(0, 8)]);
            applied(&store, transaction(&[(0, 8)], vec![record])).await;
        });
        let store = store.await;
        let set = store.set_total(&event(), 4).await.unwrap();
        assert_eq!(
            set,
            SetTotalOutcome::Refused {
                total: 10,
                taken: 8
            }
        );
        assert_eq!(remaining(&store).await, [2]);
    });
}

#[test]
fn what_somebody_else_adds_in_between_is_not_added_twice() {
    on_shard(async {
        let store = meddled(async |store| {
            store.set_total(&event(), 12).await.unwrap();
        });
        let store = store.await;
        let set = store.set_total(&event(), 15).await.unwrap();
        assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
        assert_eq!(
            (capacities(&store).await, remaining(&store).await),
            (vec![15], vec![15])
        );
    });
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        create(&store, 10, 1).await;
        for (total, left) in [(15, 15), (7, 7)] {
            relay.next(Act::Pass);
            relay.next(Act::LoseAnswer);
            let set = store.set_total(&event(), total).await.unwrap();
            assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
            assert_eq!(remaining(&store).await, [left]);
        }
        relay.next(Act::LoseAnswer);
        let seats = ["A-1", "A-2"].map(|id| (seat_id(id), SeatFacts::default()));
        store.put_seats(&event(), 1, &seats).await.unwrap();
        relay.next(Act::LoseAnswer);
        let blocked = store.block_seats(&event(), 1, &[seat_id("A-1")]).await;
        assert_eq!(blocked.unwrap()[0].1, SeatOutcome::Unchanged);
        relay.next(Act::Pass);
        relay.next(Act::LoseAnswer);
        assert!(store.close_event(&event()).await.unwrap());
    });
}

#[test]
fn sales_in_the_way_are_waited_out() {
    on_shard(async {
        let (store, relay) = behind_relay().await;
        create(&store, 10, 1).await;
        let conflict = fault(400, "TransactionConflictException");
        relay.next(Act::Pass);
        // More often than one call is repeated by itself.
        for _ in 0..limits::STORE_ADMIN_TRIES_MAX + 2 {
            relay.next(conflict.clone());
        }
        let before = relay.requests();
        let set = store.set_total(&event(), 11).await.unwrap();
        assert!(matches!(set, SetTotalOutcome::Set(_)), "{set:?}");
        // Two looks, the conflicts, the change.
        let sent = relay.requests() - before;
        assert_eq!(sent, 2 + limits::STORE_ADMIN_TRIES_MAX as usize + 2 + 1);

        let cancelled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "CancellationReasons":[{"Code":"TransactionConflict"}]}"#;
        relay.next(Act::Answer(400, cancelled.to_owned()));
        let seats = [(seat_id("A-1"), SeatFacts::default())];
        store.put_seats(&event(), 1, &seats).await.unwrap();
        let SeatsRead::Found(found) = store.read_seats(&event(), 1).await else {
            panic!("not read");
        };
        assert_eq!(found.len(), 1);
    });
}
