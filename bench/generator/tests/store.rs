//! The read-back against a real engine over its socket: pages, segments, and verdicts.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use inventory_generator::ledger::{ReservationEntry, RunLedger, WorkerLedger};
use inventory_generator::outcome::{CallAnswer, CallMethod, OrderId, OutcomeKind};
use inventory_generator::store::{StoreOptions, StoreReadback, TableNames, read_back};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// An engine in memory. Stops when dropped.
struct TestEngine {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestEngine {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let database = dynoxide::Database::memory().unwrap();
                let stopped = async { drop(stopped.await) };
                let _ = dynoxide::server::serve_with_shutdown(listener, database, stopped).await;
            });
        });
        let engine = Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        };
        for (table, keys) in [
            ("inventory", vec!["event_id"]),
            ("idempotency", vec!["reservation_id"]),
            ("inventory_seats", vec!["event_id", "seat_id"]),
        ] {
            let schema: Vec<_> = keys
                .iter()
                .zip(["HASH", "RANGE"])
                .map(|(key, kind)| json!({"AttributeName": key, "KeyType": kind}))
                .collect();
            let types: Vec<_> = keys
                .iter()
                .map(|key| json!({"AttributeName": key, "AttributeType": "S"}))
                .collect();
            engine.call(
                "CreateTable",
                &json!({
                    "TableName": table, "KeySchema": schema, "AttributeDefinitions": types,
                    "BillingMode": "PAY_PER_REQUEST",
                }),
            );
        }
        engine
    }

    fn call(&self, operation: &str, request: &Value) -> Value {
        let body = request.to_string();
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(
            socket,
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\nx-amz-date: 20200101T000000Z\r\nconnection: close\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=l/20200101/local/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    fn put(&self, table: &str, item: Value) {
        self.call("PutItem", &json!({"TableName": table, "Item": item}));
    }

    fn put_all(&self, table: &str, items: &[Value]) {
        for chunk in items.chunks(25) {
            let puts: Vec<_> = chunk
                .iter()
                .map(|item| json!({"PutRequest": {"Item": item}}))
                .collect();
            self.call("BatchWriteItem", &json!({"RequestItems": {table: puts}}));
        }
    }

    fn read(&self, books: WorkerLedger) -> StoreReadback {
        let options = StoreOptions {
            authority: self.address.to_string(),
            tables: TableNames::default(),
            segments: 4,
            settle: Duration::ZERO,
            stable_for: Duration::ZERO,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let events = ["evt".to_owned()];
        let mut books = RunLedger::new(vec![books]);
        runtime
            .block_on(read_back(&options, &events, &mut books))
            .unwrap()
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
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
fn sale(engine: &TestEngine) -> WorkerLedger {
    let half = SOLD / 2;
    engine.put("inventory", stripe("evt", 500, 500 - half));
    engine.put("inventory", stripe("evt#1", 500, 500 - half));
    engine.put("inventory", stripe("another", 5, 5));
    let items: Vec<_> = (0..SOLD).map(|n| record(n, "evt")).collect();
    engine.put_all("idempotency", &items);
    let mut ledger = WorkerLedger::new("r", 1, false, 0, 1);
    for n in 0..SOLD {
        let place = ledger.add_entry(ReservationEntry::new(0, 1, 0));
        let answer = CallAnswer {
            order: OrderId::of(&order(n)),
            ..CallAnswer::of(OutcomeKind::Ok)
        };
        ledger.record(place, CallMethod::DirectCommit, &answer, 1);
    }
    ledger
}

#[test]
fn every_page_of_every_segment_is_read() {
    let engine = TestEngine::start();
    let ledger = sale(&engine);
    engine.put(
        "idempotency",
        json!({
            "reservation_id": {"S": "stranger"}, "event_id": {"S": "another"},
            "status": {"S": "CONFIRMED"}, "qty": {"N": "1"},
        }),
    );
    let read = engine.read(ledger);
    assert_eq!(read.violations.total(), 0, "{:?}", read.violations);
    assert_eq!(
        (read.counts.confirmed, read.counts.foreign),
        (SOLD.into(), 0)
    );
    assert!(read.still);
    let event = read.events[0];
    assert_eq!(
        (event.total, event.remaining, event.live),
        (1_000, 400, 600)
    );
}

#[test]
fn a_changed_item_is_found_and_named() {
    let engine = TestEngine::start();
    let ledger = sale(&engine);
    let mut changed = record(17, "evt");
    changed["order_id"]["S"] = json!(order(18));
    engine.put("idempotency", changed);
    let read = engine.read(ledger);
    let kinds: Vec<_> = read.violations.counts.keys().copied().collect();
    assert_eq!(
        kinds,
        ["order"],
        "not the answered order, and not unique: {:?}",
        read.violations
    );
    assert!(
        read.violations
            .quoted
            .iter()
            .any(|text| text.contains("r-11 ")),
        "{:?}",
        read.violations
    );
    assert!(
        read.rounds > 1,
        "violations are reported after a second read"
    );
}

#[test]
fn a_lost_record_and_a_wrong_stripe_are_found() {
    let engine = TestEngine::start();
    let ledger = sale(&engine);
    engine.call(
        "DeleteItem",
        &json!({
            "TableName": "idempotency", "Key": {"reservation_id": {"S": "r-ff"}},
        }),
    );
    let read = engine.read(ledger);
    let kinds: Vec<_> = read.violations.counts.keys().copied().collect();
    assert_eq!(kinds, ["balance", "durable"], "{:?}", read.violations);
    assert!(
        read.violations
            .quoted
            .iter()
            .any(|text| text.contains("r-ff")),
        "{:?}",
        read.violations
    );
    assert!(
        read.violations
            .quoted
            .iter()
            .any(|text| text.contains("stripe 1 of evt"))
    );
}

#[test]
fn a_seat_in_two_reservations_is_found() {
    let engine = TestEngine::start();
    engine.put(
        "inventory",
        json!({
            "event_id": {"S": "evt"}, "total_seats": {"N": "0"}, "remaining": {"N": "0"},
            "stripes": {"N": "1"}, "seat_keys": {"N": "4"},
        }),
    );
    let mut ledger = WorkerLedger::new("r", 1, true, 0, 1);
    for n in 0..2 {
        engine.put(
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
        engine.put(
            "inventory_seats",
            json!({
                "event_id": {"S": key}, "seat_id": {"S": seat}, "status": {"S": status},
                "reservation_id": {"S": if status == "HOLD" { "r-1" } else { "" }},
            }),
        );
    }
    let read = engine.read(ledger);
    assert_eq!(read.counts.seats, 2);
    let text = read.violations.quoted.join("\n");
    assert!(
        text.contains("A-1 belongs to r-") && text.contains("another live reservation"),
        "{text}"
    );
}

#[test]
fn a_missing_store_is_named() {
    let options = StoreOptions {
        authority: "127.0.0.1:1".to_owned(),
        tables: TableNames {
            inventory: "nowhere".to_owned(),
            ..TableNames::default()
        },
        segments: 1,
        settle: Duration::ZERO,
        stable_for: Duration::ZERO,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let mut books = RunLedger::new(vec![WorkerLedger::new("r", 1, true, 0, 1)]);
    let error = runtime
        .block_on(read_back(&options, &[], &mut books))
        .unwrap_err();
    assert!(
        error.to_string().contains("127.0.0.1:1 does not answer"),
        "{error}"
    );
    let engine = TestEngine::start();
    let options = StoreOptions {
        authority: engine.address.to_string(),
        ..options
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime
        .block_on(read_back(&options, &[], &mut books))
        .unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
