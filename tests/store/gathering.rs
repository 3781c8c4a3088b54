//! Reads of several events' stripes in one request.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::join_all;
use inventory_api::limits;
use inventory_core::ids::EventId;
use inventory_core::transaction::StripesRead;
use inventory_store::{NewEvent, Store, tables};

use crate::relay::{Act, Relay};
use crate::stage::*;

fn id(n: usize) -> EventId {
    format!("evt{n:02}").parse().unwrap()
}

fn batches(witness: &Witness) -> usize {
    let calls = witness.calls.borrow();
    calls.iter().filter(|call| call.0 == "BatchGetItem").count()
}

async fn total(store: &Store, n: usize, stripes: u16) -> Option<u64> {
    match store.read_event(&id(n), Some(stripes)).await {
        StripesRead::Found(found) => {
            assert_eq!(found.len(), usize::from(stripes));
            Some(found.iter().map(|stripe| stripe.capacity).sum())
        }
        StripesRead::NotFound => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_that_are_asked_about_at_once_share_requests_and_get_their_own_stripes() {
    on_shard(async {
        const EVENTS: usize = 22;
        const STRIPES: u16 = 20;
        let witness = Rc::new(Witness::default());
        let store = Store::connect(settings(engine()), witness.clone());
        let store = store.await.unwrap();
        tables::create(&store).await.unwrap();
        for n in 0..EVENTS {
            let wanted = NewEvent::of_quantity(id(n), 1_000 + n as u64, STRIPES);
            store.create_event(&wanted).await.unwrap();
        }
        let before = batches(&witness);
        // One of them twice in a row, and one that does not exist.
        let asked = (0..4).chain(3..=EVENTS);
        let totals = join_all(asked.clone().map(|n| total(&store, n, STRIPES))).await;
        let expected = asked.map(|n| (n < EVENTS).then_some(1_000 + n as u64));
        assert_eq!(totals, expected.collect::<Vec<_>>());
        let per_request = limits::BATCH_GET_KEYS_MAX / usize::from(STRIPES);
        let gathered = EVENTS + 2 - limits::STRIPE_READS_BEFORE_GATHERING;
        let fewest = limits::STRIPE_READS_BEFORE_GATHERING + gathered.div_ceil(per_request);
        let requests = batches(&witness) - before;
        // One more where the event that was asked for twice stood in the way.
        assert!(requests <= fewest + 1, "{requests} for {fewest}");
    });
}

/// Others' throttled partitions and requests that hang cost an event a bounded time and no more.
#[test]
fn an_event_waits_neither_for_reads_that_hang_nor_for_keys_that_are_not_its_own() {
    on_shard(async {
        let relay = Relay::start(engine(), None);
        let settings = settings(relay.address);
        let store = connect(&settings).await;
        let table = &settings.tables.inventory;
        let stripe = |n: usize, key: &str, stripes: &str| {
            format!(
                r#"{{"event_id":{{"S":"evt{n:02}{key}"}},"remaining":{{"N":"1"}},"version":{{"N":"0"}},
                "total_seats":{{"N":"1"}}{stripes}}}"#
            )
        };
        let two = r#","stripes":{"N":"2"}"#;
        let told = [stripe(2, "", two), stripe(2, "#1", ""), stripe(3, "", two)].join(",");
        let left = r##"[{"event_id":{"S":"evt03#1"}}]"##;
        let partly = format!(
            r#"{{"Responses":{{"{table}":[{told}]}},
            "UnprocessedKeys":{{"{table}":{{"ConsistentRead":true,"Keys":{left}}}}}}}"#
        );
        for _ in 0..limits::STRIPE_READS_BEFORE_GATHERING {
            relay.next(Act::Stall);
        }
        relay.next(Act::Answer(200, partly));
        relay.next(Act::Stall);

        let ask = |n: usize| {
            let store = store.clone();
            async move { store.read_event(&id(n), Some(2)).await }
        };
        let hang = [
            inventory_runtime::spawn(ask(0)),
            inventory_runtime::spawn(ask(1)),
        ];
        until("both hang", || relay.requests() == 2).await;
        let started = Instant::now();
        let (mut third, mut fourth) = (Box::pin(ask(2)), Box::pin(ask(3)));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        let StripesRead::Found(found) = third.await else {
            panic!("its stripes were told");
        };
        assert_eq!(found.len(), 2);
        assert!(started.elapsed() < settings.attempt_timeout / 2);
        until("the rest is asked for", || relay.requests() == 4).await;
        assert!(fourth.now_or_never().is_none());
        assert!(started.elapsed() >= limits::STRIPE_READS_GATHER_MAX / 2);
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(hang);
    });
}
