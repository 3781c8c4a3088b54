//! Every view distinguishes held from confirmed units of a quantity event, exactly. `verify` proves the figures, and
//! `reconcile` repairs what a process of an earlier version did not count.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use inventory_proto::inventory::v1::{PlaceHoldReq, RefundReservationRequest};
use inventory_proto::reservation::v1::GetInventoryStatusRequest;
use inventory_proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use inventory_testkit::server::{ServerCommand, TestServer};
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use crate::client::*;
use crate::fake_store::{FakeStore, n, s};
use crate::overdue::move_expiry;

const EVENT: &str = "evt_held";
const TOTAL: i64 = 100;

/// Held and confirmed units.
type Figures = (i64, i64);

async fn hold(server: &TestServer, id: &str, qty: i32) {
    let hold = PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        ..PlaceHoldReq::default()
    };
    client(server).await.place_hold(with_deadline(hold)).await.unwrap();
}

/// Confirms a hold, or sells directly.
async fn buy(server: &TestServer, id: &str, qty: i32) {
    client(server).await.order(commit(id, EVENT, qty)).await;
}

/// The figures of GetInventoryStatus.
async fn status(server: &TestServer) -> Figures {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let mut api = InventoryServiceClient::new(endpoint.connect().await.unwrap());
    let call = GetInventoryStatusRequest { event_id: EVENT.to_owned(), section: String::new() };
    let status = api.get_inventory_status(with_deadline(call)).await.unwrap().into_inner();
    let stats = status.stats.unwrap();
    let sum = stats.available_seats + stats.reserved_seats + stats.sold_seats;
    assert_eq!(sum, stats.total_seats);
    (stats.reserved_seats.into(), stats.sold_seats.into())
}

fn run(server: &TestServer, args: &[&str]) -> (Option<i32>, Value) {
    let ran = ServerCommand::new(&[args, &["--json", "--admin", &server.admin]].concat()).run();
    let value = serde_json::from_str(&ran.out);
    (ran.code, value.unwrap_or_else(|_| panic!("{}\n{}", ran.out, ran.err)))
}

/// Every view shows these figures at rest. The status may be as old as a snapshot.
async fn assert_figures(server: &TestServer, (held, confirmed): Figures) {
    until("the status has the figures", async || status(server).await == (held, confirmed)).await;
    let stock = stock(server, EVENT).await;
    assert_eq!((stock.held, stock.confirmed), (held, confirmed));
    assert_eq!(stock.remaining, TOTAL - held - confirmed);
    let (_, shown) = run(server, &["event", "show", EVENT]);
    assert_eq!((&shown["held"], &shown["confirmed"]), (&held.into(), &confirmed.into()));
}

/// And `verify` proves them.
async fn assert_proven(server: &TestServer, figures: Figures) {
    assert_figures(server, figures).await;
    let (code, report) = run(server, &["verify", EVENT]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"CLEAN".into()), "{report:#}");
    assert_eq!(report["held"]["reservations"], figures.0, "{report:#}");
    assert_eq!(report["held"]["difference"], 0);
    assert_eq!(report["held"]["uncounted"], 0);
}

/// On the embedded engine, with several shards and stripes.
#[tokio::test]
async fn every_transition_moves_held_and_confirmed_units() {
    let command = ServerCommand::dev_in_memory().env("SHARDS", "2").env("HOLD_TTL", "60s");
    let server = command.start();
    create(&server, EVENT, TOTAL, 3).await;
    assert_proven(&server, (0, 0)).await;
    hold(&server, "five", 5).await;
    assert_proven(&server, (5, 0)).await;
    hold(&server, "three", 3).await;
    hold(&server, "two", 2).await;
    assert_proven(&server, (10, 0)).await;
    buy(&server, "five", 5).await;
    assert_proven(&server, (5, 5)).await;
    // A repeated call changes nothing.
    buy(&server, "five", 5).await;
    client(&server).await.release_hold(with_deadline(release("three", EVENT, 3))).await.unwrap();
    assert_proven(&server, (2, 5)).await;
    buy(&server, "direct", 4).await;
    assert_proven(&server, (2, 9)).await;
    for id in ["five", "direct"] {
        let call = RefundReservationRequest { reservation_id: id.to_owned() };
        admin(&server).await.refund_reservation(call).await.unwrap();
    }
    assert_proven(&server, (2, 0)).await;
    // Many holds and their commits at once share counters.
    let holds = (0..60).map(|n| format!("crowd{n}"));
    for id in holds.clone() {
        hold(&server, &id, 1).await;
    }
    assert_proven(&server, (62, 0)).await;
    futures::future::join_all(holds.map(|id| {
        let server = &server;
        async move { buy(server, &id, 1).await }
    }))
    .await;
    assert_proven(&server, (2, 60)).await;
    let units = |state: &str| {
        let name = format!(r#"inventory_event_units{{event_id="{EVENT}",state="{state}"}}"#);
        let server = &server;
        async move { MetricsSample::scrape(server).await.get(&name) }
    };
    until("the metrics have the figures", async || {
        units("held").await == 2.0 && units("sold").await == 60.0
    })
    .await;
}

#[tokio::test]
async fn expired_holds_are_no_longer_held() {
    let command = ServerCommand::dev_in_memory().env("HOLD_TTL", "1s");
    let server = command.start();
    create(&server, EVENT, TOTAL, 2).await;
    buy(&server, "sold", 7).await;
    for n in 0..60 {
        hold(&server, &format!("h{n}"), 1).await;
    }
    until("all holds are expired", async || status(&server).await == (0, 7)).await;
    assert_proven(&server, (0, 7)).await;
    // A late commit acquires again, without a hold.
    buy(&server, "h0", 1).await;
    assert_proven(&server, (0, 8)).await;
}

#[tokio::test]
async fn records_that_expired_holds_share_are_not_listed_as_reservations() {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000, 1);
    let server = store.start_server();
    // At once many more than are expired one by one.
    let ids: Vec<String> = (0..600).map(|n| format!("h{n}")).collect();
    let ends = SystemTime::now() + Duration::from_secs(5);
    let client = client(&server).await;
    futures::future::join_all(ids.iter().map(async |id| {
        let hold = PlaceHoldReq {
            reservation_id: id.clone(),
            event_id: EVENT.to_owned(),
            qty: 1,
            hold_expires_at: Some(ends.into()),
            ..PlaceHoldReq::default()
        };
        client.clone().place_hold(with_deadline(hold)).await.unwrap();
    }))
    .await;
    until("all holds are expired", async || stock(&server, EVENT).await.remaining == 1_000).await;
    let records = store.call("Scan", json!({ "TableName": "idempotency" }))["Items"].to_string();
    assert!(records.contains("slip#"), "no holds have shared a record");
    let exported = ServerCommand::new(&["export", EVENT, "--admin", &server.admin]).run();
    let listed = exported.out.lines().map(|line| {
        let reservation: Value = serde_json::from_str(line).unwrap();
        reservation["reservation_id"].as_str().unwrap().to_owned()
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), ids.into_iter().collect());
}

/// What a process of an earlier version writes.
struct EarlierVersion<'a>(&'a FakeStore);

impl EarlierVersion<'_> {
    /// Makes a hold one that was never counted.
    fn hold_was_written_by_it(&self, id: &str, qty: i64) {
        let key = json!({ "reservation_id": s(id) });
        let body = json!({
            "TableName": "idempotency", "Key": key, "UpdateExpression": "REMOVE #c",
            "ExpressionAttributeNames": { "#c": "counted_as_held" },
        });
        self.0.call("UpdateItem", body);
        self.0.add_to_attribute("inventory", &json!({ "event_id": s(EVENT) }), "held_units", -qty);
    }

    /// Confirms a hold without a counter.
    fn confirms(&self, id: &str) {
        let key = json!({ "reservation_id": s(id) });
        let order = inventory_core::ids::OrderId::of(&id.parse().unwrap()).to_text();
        let set = |name, value| self.0.set_attribute("idempotency", &key, name, value);
        set("order_id", s(&order));
        set("status", s("CONFIRMED"));
        let body = json!({
            "TableName": "idempotency", "Key": key, "UpdateExpression": "REMOVE #b",
            "ExpressionAttributeNames": { "#b": "expiry_bucket" },
        });
        self.0.call("UpdateItem", body);
    }
}

#[tokio::test]
async fn holds_of_an_earlier_version_count_as_confirmed_until_they_end() {
    let store = FakeStore::start();
    store.create_event(EVENT, 100, 1);
    let server = store.start_server();
    for (id, qty) in [("kept", 5), ("released", 4), ("overdue", 3), ("counted", 2)] {
        hold(&server, id, qty).await;
    }
    assert_proven(&server, (14, 0)).await;
    drop(server);
    let earlier = EarlierVersion(&store);
    for (id, qty) in [("kept", 5), ("released", 4), ("overdue", 3)] {
        earlier.hold_was_written_by_it(id, qty);
    }
    let server = store.start_server();
    assert_figures(&server, (2, 12)).await;
    let (code, report) = run(&server, &["verify", EVENT]);
    assert_eq!((code, &report["held"]["uncounted"]), (Some(0), &12.into()), "{report:#}");
    buy(&server, "kept", 5).await;
    client(&server).await.release_hold(with_deadline(release("released", EVENT, 4))).await.unwrap();
    move_expiry(&store, "overdue", Duration::from_secs(1));
    until("the hold is expired", async || stock(&server, EVENT).await.remaining == 93).await;
    assert_proven(&server, (2, 5)).await;
    buy(&server, "counted", 2).await;
    assert_proven(&server, (0, 7)).await;
}

#[tokio::test]
async fn holds_that_an_earlier_version_ended_are_found_and_repaired() {
    let store = FakeStore::start();
    store.create_event(EVENT, 100, 1);
    let server = store.start_server();
    hold(&server, "lost", 5).await;
    hold(&server, "kept", 2).await;
    EarlierVersion(&store).confirms("lost");
    // Five units are shown as held, and no hold has them.
    assert_figures(&server, (7, 0)).await;
    let (code, report) = run(&server, &["verify", EVENT]);
    assert_eq!((code, &report["breach_count"]), (Some(1), &1.into()), "{report:#}");
    assert_eq!(report["breaches"][0]["code"], "HELD_DIFFERS");
    assert_eq!(report["breaches"][0]["kind"], "counter");
    assert_eq!(report["held"]["difference"], 5);
    assert_eq!(report["stripes"][0]["difference"], 0, "no stock is wrong");
    let ran = ServerCommand::new(&["verify", EVENT, "--admin", &server.admin]).run();
    assert!(ran.out.contains("no stock is wrong") && !ran.out.contains("oversold"), "{}", ran.out);
    let (code, planned) = run(&server, &["reconcile", EVENT]);
    assert_eq!((code, &planned["plan"]["repairs"][0]["code"]), (Some(1), &"SET_COUNTER".into()));
    let (code, applied) = run(&server, &["reconcile", EVENT, "--apply"]);
    assert_eq!((code, &applied["after"]["verdict"]), (Some(0), &"CLEAN".into()), "{applied:#}");
    assert_proven(&server, (2, 5)).await;
    let counter = store.item("inventory", &json!({ "event_id": s(&format!("{EVENT}#c0")) }));
    assert_eq!(counter["confirmed_units"], n(5));
    // The sale goes on from there.
    buy(&server, "kept", 2).await;
    assert_proven(&server, (0, 7)).await;
}
