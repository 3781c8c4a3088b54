//! `verify` and `reconcile` against a real server: a sale is clean, also while it runs; manual changes of items are reported
//! and repaired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fake_store::{FakeStore, n, s};
use crate::stored_event::on_store;
use inventory_core::audit::{RecordLookup, Repair, SeatClaim, StripeBalance};
use inventory_core::ids::{EventId, OrderId, ReservationId, SeatId, seat_key};
use inventory_core::seats::SeatState;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::ReservationState;
use inventory_proto::inventory::v1::inventory_client::InventoryClient;
use inventory_proto::inventory::v1::{CommitReq, PlaceHoldReq, ReleaseReq, SeatRef};
use inventory_store::RepairOutcome;
use inventory_testkit::DEADLINE;
use inventory_testkit::server::{CommandOutput, ServerCommand, TestServer};
use serde_json::{Value, json};
use tonic::transport::Endpoint;

/// verify's exit codes.
const CLEAN: Option<i32> = Some(0);
const BREACHED: Option<i32> = Some(1);
const MOVING: Option<i32> = Some(75);

const EVENT: &str = "evt_audit";

/// Expiry of the holds of these tests, in the far future.
const FAR: u64 = 4_000_000_000_000;

/// A server and its store.
struct AuditFixture {
    server: TestServer,
    store: Arc<FakeStore>,
}

impl AuditFixture {
    fn new() -> Self {
        let store = Arc::new(FakeStore::start());
        let server = store.start_server();
        Self { server, store }
    }

    fn run(&self, args: &[&str]) -> CommandOutput {
        let at = ["--admin", &self.server.admin];
        ServerCommand::new(&[args, &at].concat()).run()
    }

    #[track_caller]
    fn create(&self, total: &str, stripes: &str) {
        let ran = self.run(&["event", "create", EVENT, "--total", total, "--stripes", stripes]);
        assert_eq!(ran.code, CLEAN, "{}", ran.err);
    }

    /// Sells one ticket to each buyer through the server.
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

    /// `reconcile` plans these repairs, applies them, and plans none afterwards.
    #[track_caller]
    fn assert_repairs(&self, repairs: &[(&str, &str)]) {
        let same =
            |plan: &Value| assert_eq!(codes_and_ids(&plan["repairs"]), sorted(repairs), "{plan:#}");
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

/// Code and id of each breach or repair, sorted.
fn codes_and_ids(list: &Value) -> Vec<(String, String)> {
    let word = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let list = list.as_array().unwrap().iter();
    let mut found: Vec<_> = list.map(|item| (word(item, "code"), word(item, "id"))).collect();
    found.sort();
    found
}

fn sorted(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(code, id): &(&str, &str)| ((*code).to_owned(), (*id).to_owned());
    let mut wanted: Vec<_> = wanted.iter().map(owned).collect();
    wanted.sort();
    wanted
}

// ---- Items ------------------------------------------------------------------------------

fn order(reservation: &str) -> String {
    OrderId::of(&reservation.parse::<ReservationId>().unwrap()).to_text()
}

fn key_of(seat: &str, keys: u16) -> Value {
    let event: EventId = EVENT.parse().unwrap();
    let seat: SeatId = seat.parse().unwrap();
    json!({"event_id": s(&seat_key(&event, &seat, keys)), "seat_id": s(seat.as_str())})
}

/// The record of a reservation.
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
fn hall(fixture: &AuditFixture) {
    fixture.store.put_item(
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
        fixture.store.put_item("inventory_seats", item);
    }
    fixture.store.put_item("idempotency", record("sold", "CONFIRMED", &["s0", "s1"], FAR));
    fixture.store.put_item("idempotency", record("held", "HELD", &["s2"], FAR));
    fixture.store.put_item("idempotency", record("gone", "RELEASED", &["s4"], FAR));
}

// ---- Units --------------------------------------------------------------------------------------

#[test]
fn unit_drift_is_reported_and_repaired() {
    let fixture = AuditFixture::new();
    fixture.create("100", "3");
    fixture.sell(0..20);
    let report = fixture.verify(CLEAN);
    assert_eq!(report["reservations"]["confirmed"], 20);
    assert_eq!(report["orders"], 20);
    assert_eq!(report["seated"], false);

    // One stripe has too many units, another a negative number.
    fixture.store.add_to_attribute("inventory", &json!({"event_id": s(EVENT)}), "remaining", 7);
    let other = json!({"event_id": s(&format!("{EVENT}#1"))});
    fixture.store.add_to_attribute("inventory", &other, "remaining", -50);
    let report = fixture.verify(BREACHED);
    let both = [("REMAINING_DIFFERS", "0"), ("REMAINING_DIFFERS", "1")];
    assert_eq!(codes_and_ids(&report["breaches"]), sorted(&both));
    assert_eq!(report["stripes"][0]["difference"], -7);
    assert_eq!(report["stripes"][1]["difference"], 50);
    assert_eq!(report["stripes"][2]["difference"], 0);
    fixture.assert_repairs(&[("SET_REMAINING", "0"), ("SET_REMAINING", "1")]);

    // After a record is deleted and the stripe repaired, the ticket can be sold.
    fixture.store.delete_item("idempotency", &json!({"reservation_id": s("r3")}));
    let report = fixture.verify(BREACHED);
    assert_eq!(report["breach_count"], 1);
    let stripe = report["breaches"][0]["id"].as_str().unwrap().to_owned();
    fixture.assert_repairs(&[("SET_REMAINING", &stripe)]);
    fixture.sell(20..101);
    let report = fixture.verify(CLEAN);
    let left = report["stripes"].as_array().unwrap().iter();
    assert_eq!(left.map(|stripe| stripe["remaining"].as_i64().unwrap()).sum::<i64>(), 0);
}

#[test]
fn moved_units_that_do_not_add_up_are_reported_and_repaired() {
    let fixture = AuditFixture::new();
    fixture.create("100", "2");
    fixture.sell(0..20);
    let report = fixture.verify(CLEAN);
    assert_eq!((&report["moved"], &report["moving_moved"]), (&0.into(), &false.into()));
    let keys = [json!({"event_id": s(EVENT)}), json!({"event_id": s(&format!("{EVENT}#1"))})];
    let remaining = |of: &Value| -> i64 { of["remaining"]["N"].as_str().unwrap().parse().unwrap() };
    let left = || keys.iter().map(|key| remaining(&fixture.store.item("inventory", key)));
    assert_eq!(left().sum::<i64>(), 80);

    // The item counts 30 units as moved away that no other stripe got.
    fixture.store.set_attribute("inventory", &keys[1], "moved", n(-30));
    let report = fixture.verify(BREACHED);
    assert_eq!(codes_and_ids(&report["breaches"]), sorted(&[("MOVED_DIFFERS", "1")]));
    assert_eq!((&report["moved"], &report["stripes"][1]["moved"]), (&(-30).into(), &(-30).into()));
    assert_eq!(report["stripes"][1]["difference"], 0);
    let ran = fixture.run(&["verify", EVENT]);
    assert!(ran.out.contains("stripe 1  has moved -30, and the moved units"), "{}", ran.out);
    assert!(ran.out.contains("are 30 too high"), "{}", ran.out);
    fixture.assert_repairs(&[("SET_MOVED", "1")]);
    assert_eq!(left().sum::<i64>(), 80, "no unit has changed");

    // The same with a unit too few in all totals, and the sale goes on to the last unit.
    fixture.store.add_to_attribute("inventory", &keys[0], "moved", 1);
    fixture.verify(BREACHED);
    fixture.assert_repairs(&[("SET_MOVED", "0")]);
    fixture.sell(20..100);
    fixture.verify(CLEAN);
    assert_eq!(left().sum::<i64>(), 0);

    // Each repair is applied once, and not to an item that has changed.
    let repair = |seen, to| Repair::Moved { stripe: 1, seen, to };
    fixture.store.set_attribute("inventory", &keys[1], "moved", n(4));
    let repairs = vec![repair(3, 0), repair(4, 0), repair(4, 0), repair(0, 5)];
    let (done, stale) = (RepairOutcome::Done, RepairOutcome::Stale);
    assert_eq!(apply_repairs(&fixture, repairs), [stale, done, done, done]);
    let missing = Repair::Moved { stripe: 7, seen: 0, to: 1 };
    assert_eq!(apply_repairs(&fixture, vec![missing]), [stale], "no item is created");
}

#[test]
fn damaged_records_are_reported_and_block_repairs() {
    let fixture = AuditFixture::new();
    fixture.create("50", "1");
    fixture.sell(0..5);
    let id = |id: &str| json!({"reservation_id": s(id)});
    fixture.store.set_attribute("idempotency", &id("r0"), "status", s("PENDING"));
    fixture.store.set_attribute("idempotency", &id("r1"), "order_id", s(&order("r2")));
    fixture.store.set_attribute("idempotency", &id("r3"), "draws", s("0:1,7:1"));
    let report = fixture.verify(BREACHED);
    let wanted = [
        ("DRAWS_DIFFER", "r3"),
        ("DRAWS_NOWHERE", "r3"),
        ("ORDER_FOREIGN", "r1"),
        ("ORDER_TWICE", "r2"),
        ("REMAINING_DIFFERS", "0"),
        ("UNREADABLE", "r0"),
    ];
    assert_eq!(codes_and_ids(&report["breaches"]), sorted(&wanted));
    let reconciled = fixture.reconcile(&["--apply"], BREACHED);
    assert_eq!(reconciled["plan"]["repairs"], json!([]));
    assert_eq!(reconciled["plan"]["left_count"], 6);
    assert_eq!(reconciled["done"], Value::Null, "nothing was written");

    let ran = fixture.run(&["verify", EVENT]);
    assert_eq!(ran.code, BREACHED);
    assert!(ran.out.contains("reservation r0  cannot be read: status is"), "{}", ran.out);
    assert!(ran.out.trim_end().ends_with("BROKEN: 6 breaches"), "{}", ran.out);
}

#[test]
fn unknown_event_and_missing_stripe_are_reported() {
    let fixture = AuditFixture::new();
    for command in ["verify", "reconcile"] {
        let ran = fixture.run(&[command, "nowhere"]);
        assert_eq!(ran.code, BREACHED);
        ran.assert_error_names(&["there is no event nowhere"]);
    }
    // A missing stripe is reported, never created.
    fixture.create("9", "3");
    let gone = json!({"event_id": s(&format!("{EVENT}#2"))});
    fixture.store.delete_item("inventory", &gone);
    let report = fixture.verify(BREACHED);
    assert_eq!(codes_and_ids(&report["breaches"]), sorted(&[("STRIPE_MISSING", "2")]));
}

// ---- Seats --------------------------------------------------------------------------------------

#[test]
fn seat_drift_is_reported_and_repaired() {
    let fixture = AuditFixture::new();
    hall(&fixture);
    let report = fixture.verify(CLEAN);
    assert_eq!(report["seated"], true);
    assert_eq!(report["seats"]["available"], 8);
    assert_eq!(report["seats"]["held"], 1);
    assert_eq!(report["seats"]["difference"], 0);

    let at = |id: &str| key_of(id, 3);
    let store = &fixture.store;
    // A sold seat that is available; a held seat with another expiry; available seats that are sold to, or held by,
    // reservations without a claim.
    store.set_attribute("inventory_seats", &at("s0"), "status", s("AVAILABLE"));
    store.set_attribute("inventory_seats", &at("s2"), "hold_expires_at", n(5));
    store.put_item("inventory_seats", seat("s5", 3, "SOLD", Some("nobody")));
    store.put_item("inventory_seats", seat("s4", 3, "HOLD", Some("gone")));
    let report = fixture.verify(BREACHED);
    let wanted = [
        ("SEAT_DIFFERS", "s0"),
        ("SEAT_DIFFERS", "s2"),
        ("SEAT_ORPHAN", "s4"),
        ("SEAT_ORPHAN", "s5"),
    ];
    assert_eq!(codes_and_ids(&report["breaches"]), sorted(&wanted));
    let text = report["breaches"].to_string();
    assert!(text.contains("that reservation is RELEASED"), "{text}");
    assert!(text.contains("there is no such reservation"), "{text}");
    fixture.assert_repairs(&[
        ("GIVE_SEAT", "s0"),
        ("GIVE_SEAT", "s2"),
        ("FREE_SEAT", "s4"),
        ("FREE_SEAT", "s5"),
    ]);
    // The repaired items are as a sale writes them, with unchanged facts.
    let repaired = store.item("inventory_seats", &at("s0"));
    assert_eq!(repaired["reservation_id"], s("sold"));
    assert_eq!(repaired["order_id"], s(&order("sold")));
    assert_eq!(repaired["section"], s("A"));
    let repaired = store.item("inventory_seats", &at("s2"));
    assert_eq!(repaired["hold_expires_at"], n(FAR));
    let repaired = store.item("inventory_seats", &at("s4"));
    assert_eq!(repaired["status"], s("AVAILABLE"));
    for gone in ["reservation_id", "hold_expires_at", "order_id"] {
        assert_eq!(repaired[gone], Value::Null, "{gone}");
    }
}

#[test]
fn seat_claimed_by_two_reservations_is_not_repaired() {
    let fixture = AuditFixture::new();
    hall(&fixture);
    fixture.store.put_item("idempotency", record("second", "CONFIRMED", &["s0"], FAR));
    let wanted = [("SEAT_CLAIMED_TWICE", "s0")];
    assert_eq!(codes_and_ids(&fixture.verify(BREACHED)["breaches"]), sorted(&wanted));
    let reconciled = fixture.reconcile(&["--apply"], BREACHED);
    assert_eq!(reconciled["plan"]["repairs"], json!([]));
    let text = reconciled["plan"]["left"].to_string();
    assert!(text.contains("sold") && text.contains("second"), "{text}");
    let untouched = fixture.store.item("inventory_seats", &key_of("s0", 3));
    assert_eq!(untouched["reservation_id"], s("sold"));
}

#[test]
fn misplaced_missing_and_long_overdue_seats_are_breaches() {
    let fixture = AuditFixture::new();
    hall(&fixture);
    let store = &fixture.store;
    // Without a bucket no reclaimer finds them.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let hold = |id: &str, seat_id: &str, expires_at: u64| {
        store.put_item("idempotency", record(id, "HELD", &[seat_id], expires_at));
        let mut item = seat(seat_id, 3, "HOLD", Some(id));
        item["hold_expires_at"] = n(expires_at);
        store.put_item("inventory_seats", item);
    };
    hold("late", "s6", now - 1_000);
    let report = fixture.verify(CLEAN);
    assert_eq!(report["overdue_count"], 1);
    assert_eq!(report["overdue"][0]["reservation_id"], "late");
    hold("late", "s6", 1_000);
    let report = fixture.verify(BREACHED);
    assert_eq!(report["overdue_count"], 1);
    assert_eq!(codes_and_ids(&report["breaches"]), sorted(&[("OVERDUE", "late")]));
    let text = report["breaches"][0]["text"].as_str().unwrap();
    assert!(text.contains("expired stock returns within 60 s"), "{text}");
    hold("late", "s6", FAR);

    let mut misplaced = seat("x1", 3, "AVAILABLE", None);
    let right = misplaced["event_id"]["S"].as_str().unwrap().to_owned();
    let keys = ["", "#1", "#2"].map(|tail| format!("{EVENT}{tail}"));
    let wrong = keys.iter().find(|key| **key != right).unwrap();
    misplaced["event_id"] = s(wrong);
    store.put_item("inventory_seats", misplaced);
    store.set_attribute("inventory_seats", &key_of("s7", 3), "status", s("GONE"));
    store.delete_item("inventory_seats", &key_of("s1", 3));
    let wanted = [("SEAT_MISPLACED", "x1"), ("SEAT_MISSING", "s1"), ("UNREADABLE", "s7")];
    assert_eq!(codes_and_ids(&fixture.verify(BREACHED)["breaches"]), sorted(&wanted));
}

/// Applies repairs in order, as a reconciliation does.
fn apply_repairs(fixture: &AuditFixture, repairs: Vec<Repair>) -> Vec<RepairOutcome> {
    on_store(fixture.store.address(), async move |store| {
        let event = EVENT.parse().unwrap();
        let mut results = Vec::new();
        for repair in repairs {
            results.push(store.repair(&event, 3, &repair).await.unwrap());
        }
        results
    })
}

fn free(seat: &str, holder: &str, named: RecordLookup) -> Repair {
    let seen = SeatState::Sold { reservation: holder.parse().unwrap() };
    Repair::Free { seat: seat.parse().unwrap(), seen, named }
}

fn give(seat: &str, seen: SeatState, confirmed: bool, until: u64) -> Repair {
    let reservation = if confirmed { "sold" } else { "held" };
    let reservation = reservation.parse().unwrap();
    let claim = SeatClaim { reservation, confirmed, until: Some(UnixMillis(until)) };
    Repair::Give { seat: seat.parse().unwrap(), seen, claim }
}

#[test]
fn repair_of_seats_is_conditional_and_idempotent() {
    let fixture = AuditFixture::new();
    hall(&fixture);
    let store = &fixture.store;
    let (done, stale) = (RepairOutcome::Done, RepairOutcome::Stale);
    let released = RecordLookup::Ended(ReservationState::Released);
    store.put_item("inventory_seats", seat("s5", 3, "SOLD", Some("nobody")));
    store.put_item("inventory_seats", seat("s6", 3, "SOLD", Some("gone")));
    store.set_attribute("inventory_seats", &key_of("s1", 3), "status", s("AVAILABLE"));
    let (repairs, expected): (Vec<_>, Vec<_>) = [
        (free("s5", "gone", released), stale),
        // The seat is as the repair would leave it.
        (free("s4", "nobody", RecordLookup::NoRecord), done),
        (give("s0", SeatState::Available, true, FAR), done),
        // The record exists, is missing, is in another state, has another expiry.
        (free("s6", "gone", RecordLookup::NoRecord), stale),
        (free("s5", "nobody", released), stale),
        (free("s6", "gone", RecordLookup::Ended(ReservationState::Expired)), stale),
        (give("s7", SeatState::Available, false, FAR + 1), stale),
        // The record was not read.
        (free("s5", "nobody", RecordLookup::NotLive), stale),
    ]
    .into_iter()
    .unzip();
    let seats =
        || ["s0", "s4", "s5", "s6", "s7"].map(|id| store.item("inventory_seats", &key_of(id, 3)));
    let before = seats();
    assert_eq!(apply_repairs(&fixture, repairs), expected);
    assert_eq!(seats(), before, "nothing was written");

    // Repeated after a lost answer.
    let twice = |repair: Repair| vec![repair.clone(), repair];
    for repair in [
        free("s5", "nobody", RecordLookup::NoRecord),
        free("s6", "gone", released),
        give("s1", SeatState::Available, true, FAR),
    ] {
        assert_eq!(apply_repairs(&fixture, twice(repair)), [done, done]);
    }
    let sold = store.item("inventory_seats", &key_of("s1", 3));
    assert_eq!((&sold["status"], &sold["reservation_id"]), (&s("SOLD"), &s("sold")));
}

#[test]
fn repair_of_remaining_units_is_conditional_and_idempotent() {
    let fixture = AuditFixture::new();
    hall(&fixture);
    let line = |remaining, version| Repair::Remaining {
        seen: StripeBalance {
            index: 0,
            capacity: 9,
            remaining,
            moved: 0,
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
    fixture.store.put_item("inventory", item);
    let results =
        apply_repairs(&fixture, vec![line(8, 3), line(6, 4), line(8, 4), line(8, 4), line(7, 5)]);
    let (done, stale) = (RepairOutcome::Done, RepairOutcome::Stale);
    assert_eq!(results, [stale, stale, done, done, done]);
    let again = apply_repairs(&fixture, vec![line(8, 4)]);
    assert_eq!(again, [stale], "the version has changed");
}

// ---- While the sale runs ------------------------------------------------------------------------

/// Pause between the sales of a thread: the fake store executes sales faster than a verification reads them.
const SALE_PAUSE: Duration = Duration::from_millis(5);

/// Runs `verify` while three threads repeat `sale`, which returns whether it succeeded, until more than three sales
/// succeeded during each of `times` runs.
#[track_caller]
fn verify_during(
    fixture: &AuditFixture,
    times: usize,
    sale: impl Fn(u64) -> bool + Send + Sync + 'static,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let attempts = Arc::new(AtomicU64::new(0));
    let sales = Arc::new(AtomicU64::new(0));
    let sale = Arc::new(sale);
    let sellers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, sale) = (stop.clone(), sale.clone());
            let (attempts, sales) = (attempts.clone(), sales.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let is_sold = sale(attempts.fetch_add(1, Ordering::Relaxed));
                    sales.fetch_add(u64::from(is_sold), Ordering::Relaxed);
                    std::thread::sleep(SALE_PAUSE);
                }
            })
        })
        .collect();
    let mut outputs = Vec::new();
    let mut busy_runs = 0;
    let deadline = Instant::now() + DEADLINE;
    while busy_runs < times {
        assert!(Instant::now() < deadline, "the sale is too slow: {sales:?}");
        let before = sales.load(Ordering::Relaxed);
        outputs.push(fixture.run(&["verify", EVENT]));
        busy_runs += usize::from(sales.load(Ordering::Relaxed) - before > 3);
    }
    stop.store(true, Ordering::Relaxed);
    for seller in sellers {
        seller.join().unwrap();
    }
    for CommandOutput { code, out, err } in outputs {
        assert!([CLEAN, MOVING].contains(&code), "{code:?}\n{out}\n{err}");
    }
    fixture.verify(CLEAN);
}

#[test]
fn running_sale_of_units_is_not_a_breach_and_not_repaired() {
    let fixture = AuditFixture::new();
    fixture.create("1000000", "2");
    let store = Arc::clone(&fixture.store);
    // One transaction per sale, as lanes write it.
    let sale = move |number: u64| {
        let reservation = format!("r{number}");
        let stripe = if number.is_multiple_of(2) { EVENT.to_owned() } else { format!("{EVENT}#1") };
        let mut item = record(&reservation, "CONFIRMED", &[], FAR);
        let fields = item.as_object_mut().unwrap();
        fields.remove("seats");
        fields.insert("qty".to_owned(), n(2));
        fields.insert("draws".to_owned(), s(&format!("{}:2", number % 2)));
        store.call(
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
    verify_during(&fixture, 3, sale.clone());

    // During a sale no repair is applied, whatever the drift.
    let stop = Arc::new(AtomicBool::new(false));
    let selling = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut number = 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                sale(number);
                number += 1;
                std::thread::sleep(SALE_PAUSE);
            }
        })
    };
    // On a busy machine, no sale may happen during one of the readings.
    let held_back = (0..5).any(|_| {
        let drift = json!({"event_id": s(EVENT)});
        fixture.store.add_to_attribute("inventory", &drift, "remaining", 1);
        let ran = fixture.run(&["reconcile", EVENT, "--apply", "--json"]);
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        let moving = report["plan"]["moving"] == true;
        assert_eq!(moving, report["done"].is_null(), "{report:#}");
        moving
    });
    stop.store(true, Ordering::Relaxed);
    selling.join().unwrap();
    assert!(held_back);
    fixture.assert_repairs(&[("SET_REMAINING", "0")]);
}

#[test]
fn running_sale_of_seats_is_not_a_breach() {
    let fixture = AuditFixture::new();
    hall(&fixture);
    let store = Arc::clone(&fixture.store);
    // One transaction per transition, seat and record together: held, sold, refunded.
    verify_during(&fixture, 6, move |number| {
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
        let transitions = [
            ("AVAILABLE", "HOLD", "HELD"),
            ("HOLD", "SOLD", "CONFIRMED"),
            ("SOLD", "AVAILABLE", "REFUNDED"),
        ];
        for (from, to, state) in transitions {
            // Another buyer may have the seat.
            let items = json!([seat_to(from, to), record_to(state)]);
            if !store.try_transaction(items) {
                return false;
            }
        }
        true
    });
}

/// Holds, commits, releases and direct sales through the server. Returns whether a hold or a commit succeeded.
fn server_sale(
    fixture: &AuditFixture,
    seats: bool,
) -> impl Fn(u64) -> bool + Send + Sync + 'static {
    let url = format!("http://{}", fixture.server.grpc);
    let channel = Endpoint::from_shared(url).unwrap();
    move |number| {
        let reservation_id = format!("sale{number}");
        let event_id = EVENT.to_owned();
        let of = |number: u64| SeatRef { seat_id: format!("s{}", 4 + number % 8) };
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
        let release = ReleaseReq { reservation_id, event_id, qty: 2, seat_ids };
        tokio(async {
            let mut client = InventoryClient::new(channel.connect().await.unwrap());
            let mut is_sold = false;
            // Rejected if another reservation has the seats.
            if !number.is_multiple_of(4) {
                is_sold |= client.place_hold(hold).await.is_ok();
            }
            // Few commits: two pairs of seats at most, so that holds succeed to the end.
            let is_committed = if seats { number < 2 } else { number % 50 < 2 };
            if is_committed {
                is_sold |= client.commit_reservation(commit).await.is_ok();
            }
            // Rejected after a commit.
            let _ = client.release_hold(release).await;
            is_sold
        })
    }
}

#[test]
fn sale_through_the_server_is_clean_at_any_time() {
    let units = AuditFixture::new();
    units.create("1000000", "2");
    verify_during(&units, 3, server_sale(&units, false));
    let report = units.verify(CLEAN);
    assert_ne!(report["reservations"]["released"], 0);
    assert_ne!(report["reservations"]["confirmed"], 0);

    let seats = AuditFixture::new();
    hall(&seats);
    verify_during(&seats, 5, server_sale(&seats, true));
    let report = seats.verify(CLEAN);
    assert_ne!(report["reservations"]["released"], 1);
    assert_ne!(report["seats"]["sold"], 2);
}
