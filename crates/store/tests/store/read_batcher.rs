//! Reads of the stripes of several events in one BatchGetItem.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::join_all;
use inventory_core::ids::EventId;
use inventory_core::limits as core_limits;
use inventory_core::transaction::StripesRead;
use inventory_store::limits;
use inventory_store::{NewEvent, Store, tables};
use inventory_testkit::store_proxy::{ProxyAction, StoreProxy};

use crate::fixture::*;

fn id(n: usize) -> EventId {
    format!("evt{n:02}").parse().unwrap()
}

fn batches(recorder: &StoreRecorder) -> usize {
    let calls = recorder.calls.borrow();
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
fn concurrent_reads_share_requests() {
    on_shard(async {
        const EVENTS: usize = 22;
        const STRIPES: u16 = 20;
        let recorder = Rc::new(StoreRecorder::default());
        let store = Store::connect(settings(engine()), recorder.clone());
        let store = store.await.unwrap();
        tables::create(&store).await.unwrap();
        for n in 0..EVENTS {
            let wanted = NewEvent::of_quantity(id(n), 1_000 + n as u64, STRIPES);
            store.create_event(&wanted).await.unwrap();
        }
        let before = batches(&recorder);
        // One event twice in a row, and one that does not exist.
        let asked = (0..4).chain(3..=EVENTS);
        let totals = join_all(asked.clone().map(|n| total(&store, n, STRIPES))).await;
        let expected = asked.map(|n| (n < EVENTS).then_some(1_000 + n as u64));
        assert_eq!(totals, expected.collect::<Vec<_>>());
        let per_request = core_limits::BATCH_GET_KEYS_MAX / usize::from(STRIPES);
        let gathered = EVENTS + 2 - limits::STRIPE_READS_BEFORE_BATCHING;
        let fewest = limits::STRIPE_READS_BEFORE_BATCHING + gathered.div_ceil(per_request);
        let requests = batches(&recorder) - before;
        // One more for the event that is read twice: a request names a key once.
        assert!(requests <= fewest + 1, "{requests} for {fewest}");
    });
}

#[test]
fn read_waits_neither_for_stalled_requests_nor_for_keys_of_other_events() {
    on_shard(async {
        let proxy = StoreProxy::start(engine(), None);
        let settings = settings(proxy.address);
        let store = connect(&settings).await;
        let table = &settings.tables.inventory;
        let stripe = |n: usize, key: &str, stripes: &str| {
            format!(
                r#"{{"event_id":{{"S":"evt{n:02}{key}"}},"remaining":{{"N":"1"}},"version":{{"N":"0"}},
                "total_seats":{{"N":"1"}}{stripes}}}"#
            )
        };
        let two = r#","stripes":{"N":"2"}"#;
        let items = [stripe(2, "", two), stripe(2, "#1", ""), stripe(3, "", two)].join(",");
        let left = r##"[{"event_id":{"S":"evt03#1"}}]"##;
        let partly = format!(
            r#"{{"Responses":{{"{table}":[{items}]}},
            "UnprocessedKeys":{{"{table}":{{"ConsistentRead":true,"Keys":{left}}}}}}}"#
        );
        for _ in 0..limits::STRIPE_READS_BEFORE_BATCHING {
            proxy.next(ProxyAction::Stall);
        }
        proxy.next(ProxyAction::Answer(200, partly));
        proxy.next(ProxyAction::Stall);

        let ask = |n: usize| {
            let store = store.clone();
            async move { store.read_event(&id(n), Some(2)).await }
        };
        let hang = [inventory_runtime::spawn(ask(0)), inventory_runtime::spawn(ask(1))];
        until("both hang", || proxy.requests() == 2).await;
        let started = Instant::now();
        let (mut third, mut fourth) = (Box::pin(ask(2)), Box::pin(ask(3)));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        let StripesRead::Found(found) = third.await else {
            panic!("the stripes were in the answer");
        };
        assert_eq!(found.len(), 2);
        assert!(started.elapsed() < settings.attempt_timeout / 2);
        until("the rest is asked for", || proxy.requests() == 4).await;
        assert!(fourth.now_or_never().is_none());
        assert!(started.elapsed() >= limits::STRIPE_READ_BATCHING_MAX / 2);
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(hang);
    });
}
