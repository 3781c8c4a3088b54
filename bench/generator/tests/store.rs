//! The read-back against a store model over its socket: pages, segments, and verdicts.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use inventory_generator::ledger::{ReservationEntry, RunLedger, WorkerLedger};
use inventory_generator::outcome::{CallAnswer, CallMethod, OrderId, OutcomeKind};
use inventory_generator::store::{StoreOptions, StoreReadback, TableNames, read_back};
use inventory_store_model::{LatencyProfile, ModelServer, ModelSettings};
use serde_json::{Value, json};

/// A store model without latency, with the tables of the server.
struct StoreFixture {
    server: ModelServer,
}

impl StoreFixture {
    fn start() -> Self {
        let server = ModelServer::start(ModelSettings {
            profile: LatencyProfile::None,
            is_unlimited: true,
            ..ModelSettings::default()
        });
        let fixture = Self { server: server.unwrap() };
        for (table, keys) in [
            ("inventory", vec!["event_id"]),
            ("idempotency", vec!["reservation_id"]),
            ("inventory_seats", vec!["event_id", "seat_id"]),
        ] {
            let schema = keys.iter().zip(["HASH", "RANGE"]);
            let schema = schema.map(|(key, kind)| json!({"AttributeName": key, "KeyType": kind}));
            let types = keys.iter();
            let types = types.map(|key| json!({"AttributeName": key, "AttributeType": "S"}));
            fixture.call(
                "CreateTable",
                json!({
                    "TableName": table, "BillingMode": "PAY_PER_REQUEST",
                    "KeySchema": schema.collect::<Value>(),
                    "AttributeDefinitions": types.collect::<Value>(),
                }),
            );
        }
        fixture
    }

    fn call(&self, operation: &str, request: Value) {
        let (status, answer) = self.server.execute(operation, request);
        assert_eq!(status, 200, "{operation}: {answer}");
    }

    fn put(&self, table: &str, item: Value) {
        self.call("PutItem", json!({"TableName": table, "Item": item}));
    }

    fn read(&self, ledger: WorkerLedger) -> StoreReadback {
        let options = options(&self.server.address().to_string(), TableNames::default());
        let mut ledger = RunLedger::new(vec![ledger]);
        let events = ["evt".to_owned()];
        let reading = read_back(&options, &events, &mut ledger);
        runtime().block_on(reading).unwrap()
    }
}

fn options(authority: &str, tables: TableNames) -> StoreOptions {
    StoreOptions {
        authority: authority.to_owned(),
        tables,
        segments: 4,
        settle: Duration::ZERO,
        stable_for: Duration::ZERO,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn order(n: u32) -> String {
    format!("ord_{n:032x}")
}

/// A large attribute, so that every segment has several pages of one megabyte.
const PADDING: usize = 12_000;

fn record(n: u32, event: &str) -> Value {
    json!({
        "reservation_id": {"S": format!("r-{n:x}")}, "event_id": {"S": event},
        "status": {"S": "CONFIRMED"}, "qty": {"N": "1"}, "draws": {"S": format!("{}:1", n % 2)},
        "order_id": {"S": order(n)}, "payment_intent_id": {"S": "x".repeat(PADDING)},
    })
}

fn stripe(key: &str, total: u32, remaining: u32) -> Value {
    json!({
        "event_id": {"S": key}, "total_seats": {"N": total.to_string()}, "stripes": {"N": "2"},
        "remaining": {"N": remaining.to_string()}, "version": {"N": "1"},
    })
}

const SOLD: u32 = 600;

/// A sale of [`SOLD`] single units over two stripes, as the store and the buyers have it.
fn sale(store: &StoreFixture) -> WorkerLedger {
    let half = SOLD / 2;
    store.put("inventory", stripe("evt", 500, 500 - half));
    store.put("inventory", stripe("evt#1", 500, 500 - half));
    store.put("inventory", stripe("another", 5, 5));
    for n in 0..SOLD {
        store.put("idempotency", record(n, "evt"));
    }
    let mut ledger = WorkerLedger::new("r", 1, false, 0, 1);
    for n in 0..SOLD {
        let place = ledger.add_entry(ReservationEntry::new(0, 1, 0));
        let answer =
            CallAnswer { order: OrderId::of(&order(n)), ..CallAnswer::of(OutcomeKind::Ok) };
        ledger.record(place, CallMethod::DirectCommit, &answer, 1);
    }
    ledger
}

#[test]
fn every_page_of_every_segment_is_read() {
    let store = StoreFixture::start();
    let ledger = sale(&store);
    store.put(
        "idempotency",
        json!({
            "reservation_id": {"S": "foreign"}, "event_id": {"S": "another"},
            "status": {"S": "CONFIRMED"}, "qty": {"N": "1"},
        }),
    );
    let read = store.read(ledger);
    assert_eq!(read.violations.total(), 0, "{:?}", read.violations);
    assert_eq!((read.counts.confirmed, read.counts.foreign), (SOLD.into(), 0));
    assert!(read.still);
    let event = read.events[0];
    assert_eq!((event.total, event.remaining, event.live), (1_000, 400, 600));
}

#[test]
fn a_changed_item_is_found_and_named() {
    let store = StoreFixture::start();
    let ledger = sale(&store);
    let mut changed = record(17, "evt");
    changed["order_id"]["S"] = json!(order(18));
    store.put("idempotency", changed);
    let read = store.read(ledger);
    let kinds: Vec<_> = read.violations.counts.keys().copied().collect();
    assert_eq!(kinds, ["order"], "not the answered order, and not unique: {:?}", read.violations);
    assert!(
        read.violations.examples.iter().any(|text| text.contains("r-11 ")),
        "{:?}",
        read.violations
    );
    assert!(read.rounds > 1, "violations are reported after a second read");
}

#[test]
fn a_lost_record_and_a_wrong_stripe_are_found() {
    let store = StoreFixture::start();
    let ledger = sale(&store);
    store.call(
        "DeleteItem",
        json!({
            "TableName": "idempotency", "Key": {"reservation_id": {"S": "r-ff"}},
        }),
    );
    let read = store.read(ledger);
    let kinds: Vec<_> = read.violations.counts.keys().copied().collect();
    assert_eq!(kinds, ["balance", "durable"], "{:?}", read.violations);
    assert!(
        read.violations.examples.iter().any(|text| text.contains("r-ff")),
        "{:?}",
        read.violations
    );
    assert!(read.violations.examples.iter().any(|text| text.contains("stripe 1 of evt")));
}

#[test]
fn a_seat_in_two_reservations_is_found() {
    let store = StoreFixture::start();
    store.put(
        "inventory",
        json!({
            "event_id": {"S": "evt"}, "total_seats": {"N": "0"}, "remaining": {"N": "0"},
            "stripes": {"N": "1"}, "seat_keys": {"N": "4"},
        }),
    );
    let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
    for n in 0..2 {
        store.put(
            "idempotency",
            json!({
                "reservation_id": {"S": format!("r-{n}")}, "event_id": {"S": "evt"},
                "status": {"S": "HELD"}, "qty": {"N": "1"}, "seats": {"L": [{"S": "A-1"}]},
            }),
        );
        let place = ledger.add_entry(ReservationEntry::new(0, 1, 0));
        ledger.record(place, CallMethod::Hold, &CallAnswer::of(OutcomeKind::Ok), 1);
    }
    for (key, seat, status) in [("evt#3", "A-1", "HOLD"), ("evt", "A-2", "AVAILABLE")] {
        store.put(
            "inventory_seats",
            json!({
                "event_id": {"S": key}, "seat_id": {"S": seat}, "status": {"S": status},
                "reservation_id": {"S": if status == "HOLD" { "r-1" } else { "" }},
            }),
        );
    }
    let read = store.read(ledger);
    assert_eq!(read.counts.seats, 2);
    let text = read.violations.examples.join("\n");
    assert!(
        text.contains("A-1 belongs to r-") && text.contains("another live reservation"),
        "{text}"
    );
}

#[test]
fn a_missing_store_is_named() {
    let tables = TableNames { inventory: "nowhere".to_owned(), ..TableNames::default() };
    let mut ledger = RunLedger::new(vec![WorkerLedger::new("r", 1, true, 0, 1)]);
    // The delays of the retries pass at once.
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let missing = options("127.0.0.1:1", tables.clone());
    let error = paused.block_on(read_back(&missing, &[], &mut ledger));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1 does not answer"), "{error}");

    let store = StoreFixture::start();
    let missing_table = options(&store.server.address().to_string(), tables);
    let error = runtime().block_on(read_back(&missing_table, &[], &mut ledger));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}
