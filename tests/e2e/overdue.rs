//! Holds that expired long ago: their stock returns within seconds of the first read that succeeds, on any number of
//! processes, without a restart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fake_store::{FakeStore, RecordedRequest, RequestAction, n, s, store_error};
use inventory_core::expiry_search::ExpiryBucket;
use inventory_core::time::UnixMillis;
use inventory_proto::inventory::v1::{PlaceHoldReq, SeatRef};
use inventory_testkit::server::{ServerCommand, TestServer};
use serde_json::{Value, json};

use crate::client::*;
use crate::items::{row, seat_event, seat_item_key};

const EVENT: &str = "evt_overdue";
const HALL: &str = "hall_overdue";

/// As after an outage of the store, or on a machine that was suspended.
const LONG_AGO: Duration = Duration::from_secs(40 * 60);

/// "Within seconds", on a machine that runs other tests.
const SOON: Duration = Duration::from_secs(10);

fn store() -> FakeStore {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    seat_event(&store, HALL, 1, &row("A", "1", 4, 50_000));
    store
}

fn server(store: &FakeStore) -> TestServer {
    store.server_command().env("HOLD_TTL", "2s").start()
}

/// Holds 5 of 10 units and a seat, and moves the expiry of both into the past.
async fn hold_and_move(store: &FakeStore, client: &InventoryClient) {
    for (id, event, qty, seats) in [("units", EVENT, 5, &[][..]), ("seat", HALL, 0, &["A-1-2"])] {
        let seat_ids = seats.iter().map(|seat| SeatRef { seat_id: (*seat).to_owned() }).collect();
        let hold = PlaceHoldReq {
            reservation_id: id.to_owned(),
            event_id: event.to_owned(),
            qty,
            seat_ids,
            ..PlaceHoldReq::default()
        };
        client.clone().place_hold(with_deadline(hold)).await.unwrap();
        let expires_at = move_expiry(store, id, LONG_AGO);
        for seat in seats {
            let key = seat_item_key(event, seat, 1);
            store.set_attribute("inventory_seats", &key, "hold_expires_at", n(expires_at.0));
        }
    }
}

/// Moves the expiry of a hold this far into the past, as if it had been placed that much earlier.
pub(crate) fn move_expiry(store: &FakeStore, id: &str, ago: Duration) -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expires_at = UnixMillis((now - ago).as_millis() as u64);
    let bucket = ExpiryBucket::of(&id.parse().unwrap(), expires_at).to_string();
    let key = json!({ "reservation_id": s(id) });
    store.set_attribute("idempotency", &key, "expires_at", n(expires_at.0));
    store.set_attribute("idempotency", &key, "expiry_bucket", s(&bucket));
    expires_at
}

fn status(store: &FakeStore, id: &str) -> Value {
    store.item("idempotency", &json!({ "reservation_id": s(id) }))["status"]["S"].clone()
}

fn are_expired(store: &FakeStore) -> bool {
    ["units", "seat"].iter().all(|id| status(store, id) == "EXPIRED")
}

/// Waits until both holds are expired; then their stock can be sold, and `verify` proves it.
async fn assert_stock_is_back(store: &FakeStore, server: &TestServer, since: Instant) {
    while !are_expired(store) {
        assert!(since.elapsed() < SOON, "still held after {:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let client = client(server).await;
    client.order(commit("six", EVENT, 6)).await;
    let mut call = commit("same_seat", HALL, 0);
    call.seat_ids = seats(&["A-1-2"]);
    client.order(call).await;
    assert_eq!(store.read_event(EVENT).remaining(), 4);
    assert_eq!(verify(server, EVENT).0, Some(0));
    assert_eq!(verify(server, HALL).0, Some(0));
}

/// Exit code and output of `verify`.
pub(crate) fn verify(server: &TestServer, event: &str) -> (Option<i32>, String) {
    let ran = ServerCommand::new(&["verify", event, "--admin", &server.admin]).run();
    (ran.code, ran.out)
}

/// A hold of one unit that expires in a second.
async fn hold_briefly(client: &InventoryClient, id: &str, event: &str) {
    let hold = PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        qty: 1,
        hold_expires_at: Some((SystemTime::now() + Duration::from_secs(1)).into()),
        ..PlaceHoldReq::default()
    };
    client.clone().place_hold(with_deadline(hold)).await.unwrap();
}

fn part_of(id: &str) -> u16 {
    ExpiryBucket::of(&id.parse().unwrap(), UnixMillis(0)).part
}

fn reads_expiry_index(request: &RecordedRequest) -> bool {
    request.body["IndexName"] == "expiry"
}

#[tokio::test]
async fn stock_of_a_hold_that_expired_long_ago_returns_within_seconds() {
    let store = store();
    let server = server(&store);
    hold_and_move(&store, &client(&server).await).await;
    assert_stock_is_back(&store, &server, Instant::now()).await;
}

#[tokio::test]
async fn stock_returns_also_when_the_first_scans_fail() {
    let store = store();
    let failed = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&failed);
    // More than any call is repeated, from the start of the server on.
    store.set_rule(move |request| {
        let fails = request.operation == "Scan" && reads_expiry_index(request);
        match fails && counted.fetch_add(1, Ordering::SeqCst) < 40 {
            true => store_error(500, "InternalServerError"),
            false => RequestAction::Execute,
        }
    });
    let server = server(&store);
    hold_and_move(&store, &client(&server).await).await;
    until("the scans succeed", async || failed.load(Ordering::SeqCst) > 40).await;
    assert_stock_is_back(&store, &server, Instant::now()).await;
}

#[tokio::test]
async fn one_of_two_processes_returns_the_stock_and_both_agree() {
    let store = store();
    let servers = [server(&store), server(&store)];
    hold_and_move(&store, &client(&servers[0]).await).await;
    assert_stock_is_back(&store, &servers[1], Instant::now()).await;
    assert_eq!(stock(&servers[0], EVENT).await.remaining, 4);
    assert_eq!(verify(&servers[0], EVENT).0, Some(0));
}

/// A shard reads few parts of the expiry index at once. Each of these holds would keep one of the reads waiting.
#[tokio::test]
async fn expiries_that_the_store_never_answers_keep_no_other_hold_from_expiring() {
    let store = store();
    let server = store.server_command().env("SHARDS", "1").start();
    let client = client(&server).await;
    store.set_rule(|request| {
        let body = request.body.to_string();
        match request.is_write() && body.contains("stuck-") && body.contains("\"EXPIRED\"") {
            true => RequestAction::Hang,
            false => RequestAction::Execute,
        }
    });
    let mut parts = BTreeSet::new();
    let names = (0..).map(|number| format!("stuck-{number}"));
    let stuck: Vec<String> = names.filter(|id| parts.insert(part_of(id))).take(4).collect();
    for id in &stuck {
        let event = format!("evt_{id}");
        store.create_event(&event, 10, 1);
        hold_briefly(&client, id, &event).await;
    }
    let hangs = |id: &String| {
        let writes = store.writes();
        let of_hold = |write: &RecordedRequest| write.body.to_string().contains(&**id);
        writes.iter().filter(|write| of_hold(write)).count() > 1
    };
    until("both reads of buckets wait", async || stuck.iter().filter(|id| hangs(id)).count() > 1)
        .await;
    let free = (0..).map(|number| format!("free-{number}"));
    let free = free.into_iter().find(|id| !parts.contains(&part_of(id))).unwrap();
    hold_briefly(&client, &free, EVENT).await;
    until("the hold expires", async || status(&store, &free) == "EXPIRED").await;
    assert_eq!(store.read_event(EVENT).remaining(), 10);
    assert!(stuck.iter().all(|id| status(&store, id) == "HELD"));
    store.clear_rule();
    until("the others, too", async || stuck.iter().all(|id| status(&store, id) == "EXPIRED")).await;
}

#[tokio::test]
async fn overdue_holds_show_in_metrics_and_verify_until_they_are_expired() {
    let store = store();
    let server = server(&store);
    store.set_rule(|request| {
        match request.is_write() && request.body.to_string().contains("\"EXPIRED\"") {
            true => store_error(400, "ThrottlingException"),
            false => RequestAction::Execute,
        }
    });
    hold_and_move(&store, &client(&server).await).await;
    let overdue =
        async || MetricsSample::scrape(&server).await.get("inventory_hold_overdue_seconds");
    until("the age", async || overdue().await >= LONG_AGO.as_secs_f64()).await;
    let (code, out) = verify(&server, EVENT);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("reservation units  is HELD and expired 24"), "{out}");
    assert!(out.ends_with("BROKEN: 1 breach\n"), "{out}");
    store.clear_rule();
    assert_stock_is_back(&store, &server, Instant::now()).await;
    until("no age", async || overdue().await == 0.0).await;
}

#[tokio::test]
async fn reads_that_fail_show_in_metrics_and_in_one_log_line() {
    let store = store();
    let server = server(&store);
    store.set_rule(|request| match reads_expiry_index(request) {
        true => store_error(500, "InternalServerError"),
        false => RequestAction::Execute,
    });
    for scope in ["recent", "all"] {
        let name = format!("inventory_hold_search_age_seconds{{scope=\"{scope}\"}}");
        until("the age grows", async || MetricsSample::scrape(&server).await.get(&name) > 6.0)
            .await;
    }
    let lines = || server.log.text().matches("cannot read expired holds").count();
    let shards = inventory_testkit::server::shards();
    assert!((1..=2 * shards).contains(&lines()), "{}", server.log.text());
    store.clear_rule();
    assert!(server.log.wait_for(|log| log.contains("expired holds can be read again")));
    for scope in ["recent", "all"] {
        let name = format!("inventory_hold_search_age_seconds{{scope=\"{scope}\"}}");
        until("the age is back", async || MetricsSample::scrape(&server).await.get(&name) < 5.0)
            .await;
    }
}
