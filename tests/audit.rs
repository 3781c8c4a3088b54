//! `verify` and `reconcile` against a real server on a real engine: what is sold is clean, what a hand
//! does to the items behind the server's back is named and mended, and a running sale is no breach.
#![allow(clippy::unwrap_used)]

#[path = "audit/raw.rs"]
mod raw;
#[allow(dead_code)]
#[path = "e2e/server.rs"]
mod server;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use inventory_core::audit::{RecordLookup, Repair, SeatClaim, StripeBalance};
use inventory_core::ids::{EventId, OrderId, ReservationId, SeatId, seat_key};
use inventory_core::seats::SeatState;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::ReservationState;
use inventory_proto::inventory::v1::inventory_client::InventoryClient;
use inventory_proto::inventory::v1::{CommitReq, PlaceHoldReq, ReleaseReq, SeatRef};
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::{NoObserver, RepairOutcome, Store, StoreSettings, tables};
use raw::{Raw, n, s};
use serde_json::{Value, json};
use server::{Launch, Ran, Server};
use tonic::transport::Endpoint;

/// verify's exit codes.
const CLEAN: Option<i32> = Some(0);
const BREACHED: Option<i32> = Some(1);
const MOVING: Option<i32> = Some(75);

const EVENT: &str = "evt_audit";

/// When holds of these tests end: never while they run.
const FAR: u64 = 4_000_000_000_000;

struct Stage {
    server: Server,
    raw: Raw,
    _engine: EmbeddedEngine,
}

impl Stage {
    fn new() -> Self {
        let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
        let address = engine.address();
        on_store(address, async |store| {
            tables::create(&store).await.unwrap();
        });
        Self {
            server: Launch::serve(address).start(),
            raw: Raw(address),
            _engine: engine,
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let at = ["--admin", &self.server.admin];
        Launch::of(&[args, &at].concat()).run()
    }

    #[track_caller]
    fn create(&self, total: &str, stripes: &str) {
        let ran = self.run(&[
            "event",
            "create",
            EVENT,
            "--total",
            total,
            "--stripes",
            stripes,
        ]);
        assert_eq!(ran.code, CLEAN, "{}", ran.err);
    }

    /// Sells one ticket to each, through the server.
    fn sell(&self, buyers: std::ops::Range<usize>) {
        let url = format!("http://{}", self.server.grpc);
        tokio(async {
            let channel = Endpoint::from_shared(url).unwrap().connect().await;
            let mut client = InventoryClient::new(channel.unwrap());
            for number in buyers {
                client.commit_reservation(commit(number)).await.unwrap();
            }
        });
    }

    #[track_caller]
    fn verify(&self, wanted: Option<i32>) -> Value {
        let ran = self.run(&["verify", EVENT, "--json"]);
        assert_eq!(ran.code, wanted, "{}\n{}", ran.out, ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }

    #[track_caller]
    fn reconcile(&self, apply: &[&str], wanted: Option<i32>) -> Value {
        let ran = self.run(&[&["reconcile", EVENT, "--json"], apply].concat());
        assert_eq!(ran.code, wanted, "{}\n{}", ran.out, ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Says first, changes nothing; then repairs; then has nothing left to do.
    #[track_caller]
    fn mends(&self, repairs: &[(&str, &str)]) {
        let same = |plan: &Value| assert_eq!(told(&plan["repairs"]), sorted(repairs), "{plan:#}");
        let planned = self.reconcile(&[], BREACHED);
        same(&planned["plan"]);
        assert_eq!(planned["done"], Value::Null);
        self.verify(BREACHED);

        let applied = self.reconcile(&["--apply"], CLEAN);
        same(&applied["plan"]);
        assert_eq!(applied["done"]["done"], repairs.len());
        assert_eq!(applied["after"]["verdict"], "CLEAN");
        self.verify(CLEAN);
        let again = self.reconcile(&["--apply"], CLEAN);
        assert_eq!(again["plan"]["repairs"], json!([]));
    }
}

/// Runs `work` with a store on an executor and a thread of its own.
fn on_store<T: Send + 'static>(
    engine: SocketAddr,
    work: impl AsyncFnOnce(Store) -> T + Send + 'static,
) -> T {
    let settings = StoreSettings::local(engine);
    let thread = std::thread::spawn(move || {
        inventory_runtime::run_unpinned(async {
            let store = Store::connect(settings, Rc::new(NoObserver)).await;
            work(store.unwrap()).await
        })
    });
    thread.join().unwrap().unwrap()
}

fn tokio<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = ::tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

fn commit(number: usize) -> CommitReq {
    CommitReq {
        reservation_id: format!("r{number}"),
        event_id: EVENT.to_owned(),
        qty: 1,
        ..CommitReq::default()
    }
}

/// Code and id of breaches or repairs, in order.
fn told(list: &Value) -> Vec<(String, String)> {
    let word = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let list = list.as_array().unwrap().iter();
    let mut told: Vec<_> = list
        .map(|item| (word(item, "code"), word(item, "id")))
        .collect();
    told.sort();
    told
}

fn sorted(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(code, id): &(&str, &str)| ((*code).to_owned(), (*id).to_owned());
    let mut wanted: Vec<_> = wanted.iter().map(owned).collect();
    wanted.sort();
    wanted
}

// ---- Items by hand ------------------------------------------------------------------------------

fn order(reservation: &str) -> String {
    OrderId::of(&reservation.parse::<ReservationId>().unwrap()).to_text()
}

fn key_of(seat: &str, keys: u16) -> Value {
    let event: EventId = EVENT.parse().unwrap();
    let seat: SeatId = seat.parse().unwrap();
    json!({"event_id": s(&seat_key(&event, &seat, keys)), "seat_id": s(seat.as_str())})
}

/// A record as a sale leaves it.
fn record(reservation: &str, status: &str, seats: &[&str], expires_at: u64) -> Value {
    let mut item = json!({
        "reservation_id": s(reservation),
        "event_id": s(EVENT),
        "qty": n(seats.len()),
        "status": s(status),
        "request_hash": s(&"0".repeat(32)),
        "created_at": s("2026-01-01T00:00:00Z"),
        "updated_at": s("2026-01-01T00:00:00Z"),
        "seats": {"L": seats.iter().map(|seat| s(seat)).collect::<Vec<_>>()},
        "expires_at": n(expires_at),
    });
    if status == "CONFIRMED" {
        item["order_id"] = s(&order(reservation));
    }
    item
}

fn seat(id: &str, keys: u16, state: &str, holder: Option<&str>) -> Value {
    let mut item = key_of(id, keys);
    item["status"] = s(state);
    item["section"] = s("A");
    if let Some(holder) = holder {
        item["reservation_id"] = s(holder);
        match state {
            "HOLD" => item["hold_expires_at"] = n(FAR),
            _ => item["order_id"] = s(&order(holder)),
        }
    }
    item
}

/// Twelve seats over three keys: s0 and s1 sold to `sold`, s2 held by `held`, s3 blocked.
fn hall(stage: &Stage) {
    stage.raw.put(
        "inventory",
        json!({
            "event_id": s(EVENT), "remaining": n(0), "total_seats": n(0), "version": n(0),
            "stripes": n(1), "seat_keys": n(3),
        }),
    );
    for number in 0..12 {
        let (state, holder) = match number {
            0 | 1 => ("SOLD", Some("sold")),
            2 => ("HOLD", Some("held")),
            3 => ("BLOCKED", None),
            _ => ("AVAILABLE", None),
        };
        let item = seat(&format!("s{number}"), 3, state, holder);
        stage.raw.put("inventory_seats", item);
    }
    stage.raw.put(
        "idempotency",
        record("sold", "CONFIRMED", &["s0", "s1"], FAR),
    );
    stage
        .raw
        .put("idempotency", record("held", "HELD", &["s2"], FAR));
    stage
        .raw
        .put("idempotency", record("gone", "RELEASED", &["s4"], FAR));
}

// ---- Units --------------------------------------------------------------------------------------

#[test]
fn drift_of_units_is_named_shown_and_mended() {
    let stage = Stage::new();
    stage.create("100", "3");
    stage.sell(0..20);
    let report = stage.verify(CLEAN);
    assert_eq!(report["reservations"]["confirmed"], 20);
    assert_eq!(report["orders"], 20);
    assert_eq!(report["seated"], false);

    // A hand adds to one stripe and takes from another until it is below zero.
    stage
        .raw
        .add("inventory", json!({"event_id": s(EVENT)}), "remaining", 7);
    let other = json!({"event_id": s(&format!("{EVENT}#1"))});
    stage.raw.add("inventory", other, "remaining", -50);
    let report = stage.verify(BREACHED);
    let both = [("REMAINING_DIFFERS", "0"), ("REMAINING_DIFFERS", "1")];
    assert_eq!(told(&report["breaches"]), sorted(&both));
    assert_eq!(report["stripes"][0]["difference"], -7);
    assert_eq!(report["stripes"][1]["difference"], 50);
    assert_eq!(report["stripes"][2]["difference"], 0);
    stage.mends(&[("SET_REMAINING", "0"), ("SET_REMAINING", "1")]);

    // A record that is deleted gives its ticket back, and that ticket can be sold.
    stage
        .raw
        .delete("idempotency", json!({"reservation_id": s("r3")}));
    let report = stage.verify(BREACHED);
    assert_eq!(report["breach_count"], 1);
    let stripe = report["breaches"][0]["id"].as_str().unwrap().to_owned();
    stage.mends(&[("SET_REMAINING", &stripe)]);
    stage.sell(20..101);
    let report = stage.verify(CLEAN);
    let left = report["stripes"].as_array().unwrap().iter();
    assert_eq!(
        left.map(|stripe| stripe["remaining"].as_i64().unwrap())
            .sum::<i64>(),
        0
    );
}

#[test]
fn damaged_records_are_named_and_hold_repairs_back() {
    let stage = Stage::new();
    stage.create("50", "1");
    stage.sell(0..5);
    let id = |id: &str| json!({"reservation_id": s(id)});
    stage
        .raw
        .set("idempotency", id("r0"), "status", s("PENDING"));
    stage
        .raw
        .set("idempotency", id("r1"), "order_id", s(&order("r2")));
    stage
        .raw
        .set("idempotency", id("r3"), "draws", s("0:1,7:1"));
    let report = stage.verify(BREACHED);
    let wanted = [
        ("DRAWS_DIFFER", "r3"),
        ("DRAWS_NOWHERE", "r3"),
        ("ORDER_FOREIGN", "r1"),
        ("ORDER_TWICE", "r2"),
        ("REMAINING_DIFFERS", "0"),
        ("UNREADABLE", "r0"),
    ];
    assert_eq!(told(&report["breaches"]), sorted(&wanted));
    let reconciled = stage.reconcile(&["--apply"], BREACHED);
    assert_eq!(reconciled["plan"]["repairs"], json!([]));
    assert_eq!(reconciled["plan"]["left_count"], 6);
    assert_eq!(reconciled["done"], Value::Null, "nothing was written");

    let ran = stage.run(&["verify", EVENT]);
    assert_eq!(ran.code, BREACHED);
    assert!(
        ran.out
            .contains("reservation r0  cannot be understood: status is"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.trim_end().ends_with("BROKEN: 6 breaches"),
        "{}",
        ran.out
    );
}

#[test]
fn what_cannot_be_audited_says_so() {
    let stage = Stage::new();
    for command in ["verify", "reconcile"] {
        let ran = stage.run(&[command, "nowhere"]);
        assert_eq!(ran.code, BREACHED);
        ran.says(&["there is no event nowhere"]);
    }
    // A stripe is gone: named, never guessed anew.
    stage.create("9", "3");
    let gone = json!({"event_id": s(&format!("{EVENT}#2"))});
    stage.raw.delete("inventory", gone);
    let report = stage.verify(BREACHED);
    assert_eq!(
        told(&report["breaches"]),
        sorted(&[("STRIPE_MISSING", "2")])
    );
}

// ---- Seats --------------------------------------------------------------------------------------

#[test]
fn drift_of_seats_is_named_shown_and_mended() {
    let stage = Stage::new();
    hall(&stage);
    let report = stage.verify(CLEAN);
    assert_eq!(report["seated"], true);
    assert_eq!(report["seats"]["available"], 8);
    assert_eq!(report["seats"]["held"], 1);
    assert_eq!(report["seats"]["difference"], 0);

    let at = |id: &str| key_of(id, 3);
    let raw = &stage.raw;
    // Sold, and says it is free; held, and says it ends another time; free, and says it is sold to
    // nobody, or held by who let it go.
    raw.set("inventory_seats", at("s0"), "status", s("AVAILABLE"));
    raw.set("inventory_seats", at("s2"), "hold_expires_at", n(5));
    raw.put("inventory_seats", seat("s5", 3, "SOLD", Some("nobody")));
    raw.put("inventory_seats", seat("s4", 3, "HOLD", Some("gone")));
    let report = stage.verify(BREACHED);
    let wanted = [
        ("SEAT_DIFFERS", "s0"),
        ("SEAT_DIFFERS", "s2"),
        ("SEAT_ORPHAN", "s4"),
        ("SEAT_ORPHAN", "s5"),
    ];
    assert_eq!(told(&report["breaches"]), sorted(&wanted));
    let text = report["breaches"].to_string();
    assert!(text.contains("that reservation is RELEASED"), "{text}");
    assert!(text.contains("there is no such reservation"), "{text}");
    stage.mends(&[
        ("GIVE_SEAT", "s0"),
        ("GIVE_SEAT", "s2"),
        ("FREE_SEAT", "s4"),
        ("FREE_SEAT", "s5"),
    ]);
    // As sales would have written them, and with what they are untouched.
    let mended = raw.get("inventory_seats", at("s0"));
    assert_eq!(mended["reservation_id"], s("sold"));
    assert_eq!(mended["order_id"], s(&order("sold")));
    assert_eq!(mended["section"], s("A"));
    let mended = raw.get("inventory_seats", at("s2"));
    assert_eq!(mended["hold_expires_at"], n(FAR));
    let mended = raw.get("inventory_seats", at("s4"));
    assert_eq!(mended["status"], s("AVAILABLE"));
    for gone in ["reservation_id", "hold_expires_at", "order_id"] {
        assert_eq!(mended[gone], Value::Null, "{gone}");
    }
}

#[test]
fn a_seat_in_two_reservations_is_left_to_a_person() {
    let stage = Stage::new();
    hall(&stage);
    stage
        .raw
        .put("idempotency", record("second", "CONFIRMED", &["s0"], FAR));
    let wanted = [("SEAT_CLAIMED_TWICE", "s0")];
    assert_eq!(told(&stage.verify(BREACHED)["breaches"]), sorted(&wanted));
    let reconciled = stage.reconcile(&["--apply"], BREACHED);
    assert_eq!(reconciled["plan"]["repairs"], json!([]));
    let text = reconciled["plan"]["left"].to_string();
    assert!(text.contains("sold") && text.contains("second"), "{text}");
    let untouched = stage.raw.get("inventory_seats", key_of("s0", 3));
    assert_eq!(untouched["reservation_id"], s("sold"));
}

#[test]
fn seats_that_no_sale_would_find_are_named_and_late_holds_are_no_breach() {
    let stage = Stage::new();
    hall(&stage);
    let raw = &stage.raw;
    raw.put("idempotency", record("late", "HELD", &["s6"], 1_000));
    let mut item = seat("s6", 3, "HOLD", Some("late"));
    item["hold_expires_at"] = n(1_000);
    raw.put("inventory_seats", item);
    let report = stage.verify(CLEAN);
    assert_eq!(report["overdue_count"], 1);
    assert_eq!(report["overdue"][0]["reservation_id"], "late");

    let mut misplaced = seat("x1", 3, "AVAILABLE", None);
    let right = misplaced["event_id"]["S"].as_str().unwrap().to_owned();
    let keys = ["", "#1", "#2"].map(|tail| format!("{EVENT}{tail}"));
    let wrong = keys.iter().find(|key| **key != right).unwrap();
    misplaced["event_id"] = s(wrong);
    raw.put("inventory_seats", misplaced);
    raw.set("inventory_seats", key_of("s7", 3), "status", s("GONE"));
    raw.delete("inventory_seats", key_of("s1", 3));
    let wanted = [
        ("SEAT_MISPLACED", "x1"),
        ("SEAT_MISSING", "s1"),
        ("UNREADABLE", "s7"),
    ];
    assert_eq!(told(&stage.verify(BREACHED)["breaches"]), sorted(&wanted));
}

/// What repairs come to, one after the other, carried out as a reconciliation does.
fn repaired(stage: &Stage, repairs: Vec<Repair>) -> Vec<RepairOutcome> {
    on_store(stage.raw.0, async move |store| {
        let event = EVENT.parse().unwrap();
        let mut results = Vec::new();
        for repair in repairs {
            results.push(store.repair(&event, 3, &repair).await.unwrap());
        }
        results
    })
}

#[test]
fn a_repair_is_of_what_was_seen_and_harmless_to_repeat() {
    let stage = Stage::new();
    hall(&stage);
    let raw = &stage.raw;
    let reservation = |id: &str| id.parse::<ReservationId>().unwrap();
    let sold = |to: &str| SeatState::Sold {
        reservation: reservation(to),
    };
    let free = |id: &str, holder: &str, named| Repair::Free {
        seat: id.parse().unwrap(),
        seen: sold(holder),
        named,
    };
    let give = |id: &str, seen, confirmed, until| Repair::Give {
        seat: id.parse().unwrap(),
        seen,
        claim: SeatClaim {
            reservation: reservation(if confirmed { "sold" } else { "held" }),
            confirmed,
            until: Some(UnixMillis(until)),
        },
    };
    let released = RecordLookup::Ended(ReservationState::Released);
    raw.put("inventory_seats", seat("s5", 3, "SOLD", Some("nobody")));
    raw.put("inventory_seats", seat("s6", 3, "SOLD", Some("gone")));
    raw.set("inventory_seats", key_of("s1", 3), "status", s("AVAILABLE"));
    let stale = vec![
        // The seat is another's, is free already and was not before, is in another state.
        free("s5", "gone", released),
        free("s4", "nobody", RecordLookup::NoRecord),
        give("s0", SeatState::Available, true, FAR),
        // The record is there, is not, is in another state, its hold ends at another time.
        free("s6", "gone", RecordLookup::NoRecord),
        free("s5", "nobody", released),
        free("s6", "gone", RecordLookup::Ended(ReservationState::Expired)),
        give("s7", SeatState::Available, false, FAR + 1),
        // It was never looked up.
        free("s5", "nobody", RecordLookup::NotLive),
    ];
    let seats =
        || ["s0", "s4", "s5", "s6", "s7"].map(|id| raw.get("inventory_seats", key_of(id, 3)));
    let before = seats();
    let results = repaired(&stage, stale);
    let wanted = [
        RepairOutcome::Stale,
        // What it wants is so.
        RepairOutcome::Done,
        RepairOutcome::Done,
        RepairOutcome::Stale,
        RepairOutcome::Stale,
        RepairOutcome::Stale,
        RepairOutcome::Stale,
        RepairOutcome::Stale,
    ];
    assert_eq!(results, wanted);
    assert_eq!(seats(), before, "nothing was written");

    let line = |remaining, version| Repair::Remaining {
        seen: StripeBalance {
            index: 0,
            capacity: 9,
            remaining,
            version,
            held: 0,
            confirmed: 2,
            still: true,
        },
        to: 7,
    };
    let item = json!({
        "event_id": s(EVENT), "remaining": n(8), "total_seats": n(9), "version": n(4),
        "stripes": n(1), "seat_keys": n(3),
    });
    raw.put("inventory", item);
    let results = repaired(
        &stage,
        vec![line(8, 3), line(6, 4), line(8, 4), line(8, 4), line(7, 5)],
    );
    let (done, stale) = (RepairOutcome::Done, RepairOutcome::Stale);
    assert_eq!(results, [stale, stale, done, done, done]);
    let again = repaired(&stage, vec![line(8, 4)]);
    assert_eq!(again, [stale], "units have moved since");

    // An answer that was lost: the same once more.
    let twice = |repair: Repair| vec![repair.clone(), repair];
    for repair in [
        free("s5", "nobody", RecordLookup::NoRecord),
        free("s6", "gone", released),
        give("s1", SeatState::Available, true, FAR),
    ] {
        assert_eq!(repaired(&stage, twice(repair)), [done, done]);
    }
    let sold = raw.get("inventory_seats", key_of("s1", 3));
    assert_eq!(
        (&sold["status"], &sold["reservation_id"]),
        (&s("SOLD"), &s("sold"))
    );
}

// ---- While the sale runs ------------------------------------------------------------------------

/// Verifies `times` while `sell` runs again and again on threads of its own. `sell` gets a new number each
/// time and returns whether something was sold or held.
#[track_caller]
fn verify_during(stage: &Stage, times: usize, sell: impl Fn(u64) -> bool + Send + Sync + 'static) {
    let stop = Arc::new(AtomicBool::new(false));
    let attempts = Arc::new(AtomicU64::new(0));
    let sales = Arc::new(AtomicU64::new(0));
    let sell = Arc::new(sell);
    let sellers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, sell) = (stop.clone(), sell.clone());
            let (attempts, sales) = (attempts.clone(), sales.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let sold = sell(attempts.fetch_add(1, Ordering::Relaxed));
                    sales.fetch_add(u64::from(sold), Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut verified = Vec::new();
    for _ in 0..times {
        let before = sales.load(Ordering::Relaxed);
        verified.push(stage.run(&["verify", EVENT]));
        let sold = sales.load(Ordering::Relaxed) - before;
        assert!(sold > 3, "only {sold} sales during a verification");
    }
    stop.store(true, Ordering::Relaxed);
    sellers
        .into_iter()
        .for_each(|seller| seller.join().unwrap());
    for ran in verified {
        let fine = ran.code == CLEAN || ran.code == MOVING;
        assert!(fine, "{:?}\n{}\n{}", ran.code, ran.out, ran.err);
    }
    stage.verify(CLEAN);
}

#[test]
fn a_running_sale_of_units_is_no_breach_and_is_not_repaired() {
    let stage = Stage::new();
    stage.create("1000000", "2");
    let raw = stage.raw;
    // One transaction per sale, as lanes write them.
    let sale = move |number: u64| {
        let reservation = format!("r{number}");
        let stripe = if number.is_multiple_of(2) {
            EVENT.to_owned()
        } else {
            format!("{EVENT}#1")
        };
        let mut item = record(&reservation, "CONFIRMED", &[], FAR);
        let fields = item.as_object_mut().unwrap();
        fields.remove("seats");
        fields.insert("qty".to_owned(), n(2));
        fields.insert("draws".to_owned(), s(&format!("{}:2", number % 2)));
        raw.call(
            "TransactWriteItems",
            json!({"TransactItems": [
                {"Put": {"TableName": "idempotency", "Item": item}},
                {"Update": {
                    "TableName": "inventory",
                    "Key": {"event_id": s(&stripe)},
                    "UpdateExpression": "SET remaining = remaining - :n ADD version :o",
                    "ExpressionAttributeValues": {":n": n(2), ":o": n(1)},
                }},
            ]}),
        );
        true
    };
    verify_during(&stage, 3, sale);

    // While it moves nothing is planned, however wrong it is.
    let stop = Arc::new(AtomicBool::new(false));
    let selling = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut number = 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                sale(number);
                number += 1;
            }
        })
    };
    // On a machine that is busy enough the sale may happen to stand still for one reading.
    let held_back = (0..5).any(|_| {
        let drift = json!({"event_id": s(EVENT)});
        stage.raw.add("inventory", drift, "remaining", 1);
        let ran = stage.run(&["reconcile", EVENT, "--apply", "--json"]);
        let told: Value = serde_json::from_str(&ran.out).unwrap();
        let moving = told["plan"]["moving"] == true;
        assert_eq!(moving, told["done"].is_null(), "{told:#}");
        moving
    });
    stop.store(true, Ordering::Relaxed);
    selling.join().unwrap();
    assert!(held_back);
    stage.mends(&[("SET_REMAINING", "0")]);
}

#[test]
fn a_running_sale_of_seats_is_no_breach() {
    let stage = Stage::new();
    hall(&stage);
    let raw = stage.raw;
    // Seats change hands in transactions, seat and record together: held, sold, refunded.
    verify_during(&stage, 6, move |number| {
        let id = format!("s{}", 4 + number % 8);
        let buyer = format!("buyer{number}");
        let seat_to = |from: &str, to: &str| {
            let mut item = seat(&id, 3, to, Some(&buyer));
            if to == "AVAILABLE" {
                item = seat(&id, 3, to, None);
            }
            let mut put = json!({
                "TableName": "inventory_seats", "Item": item,
                "ConditionExpression": "#s = :f",
                "ExpressionAttributeNames": {"#s": "status"},
                "ExpressionAttributeValues": {":f": s(from)},
            });
            if from != "AVAILABLE" {
                put["ConditionExpression"] = json!("#s = :f AND #r = :b");
                put["ExpressionAttributeNames"]["#r"] = json!("reservation_id");
                put["ExpressionAttributeValues"][":b"] = s(&buyer);
            }
            json!({"Put": put})
        };
        let record_to = |to: &str| json!({"Put": {"TableName": "idempotency", "Item": record(&buyer, to, &[&id], FAR)}});
        let life = [
            ("AVAILABLE", "HOLD", "HELD"),
            ("HOLD", "SOLD", "CONFIRMED"),
            ("SOLD", "AVAILABLE", "REFUNDED"),
        ];
        for (from, to, state) in life {
            let write = json!({"TransactItems": [seat_to(from, to), record_to(state)]});
            // Another buyer may have it.
            if !raw.tries("TransactWriteItems", write) {
                return false;
            }
        }
        true
    });
}

/// What the server itself writes: holds, their commits and releases, direct sales.
fn lives(stage: &Stage, seats: bool) -> impl Fn(u64) -> bool + Send + Sync + 'static {
    let url = format!("http://{}", stage.server.grpc);
    let channel = Endpoint::from_shared(url).unwrap();
    move |number| {
        let reservation_id = format!("life{number}");
        let event_id = EVENT.to_owned();
        let of = |number: u64| SeatRef {
            seat_id: format!("s{}", 4 + number % 8),
        };
        let seat_ids = match seats {
            true => vec![of(number), of(number + 1)],
            false => Vec::new(),
        };
        let hold = PlaceHoldReq {
            reservation_id: reservation_id.clone(),
            event_id: event_id.clone(),
            qty: 2,
            seat_ids: seat_ids.clone(),
            ..PlaceHoldReq::default()
        };
        let commit = CommitReq {
            reservation_id: reservation_id.clone(),
            event_id: event_id.clone(),
            qty: 2,
            seat_ids: seat_ids.clone(),
            ..CommitReq::default()
        };
        let release = ReleaseReq {
            reservation_id,
            event_id,
            qty: 2,
            seat_ids,
        };
        tokio(async {
            let mut client = InventoryClient::new(channel.connect().await.unwrap());
            let mut sold = false;
            // Fails where another reservation has the seats.
            if !number.is_multiple_of(4) {
                sold |= client.place_hold(hold).await.is_ok();
            }
            // Few are sold, so that stock remains to the end.
            if number % 50 < 2 {
                sold |= client.commit_reservation(commit).await.is_ok();
            }
            // Fails where the reservation was sold.
            let _ = client.release_hold(release).await;
            sold
        })
    }
}

#[test]
fn what_the_server_sells_is_clean_at_every_moment() {
    let units = Stage::new();
    units.create("1000000", "2");
    verify_during(&units, 3, lives(&units, false));
    let report = units.verify(CLEAN);
    assert_ne!(report["reservations"]["released"], 0);
    assert_ne!(report["reservations"]["confirmed"], 0);

    let seats = Stage::new();
    hall(&seats);
    verify_during(&seats, 5, lives(&seats, true));
    let report = seats.verify(CLEAN);
    assert_ne!(report["reservations"]["released"], 1);
    assert_ne!(report["seats"]["sold"], 2);
}
