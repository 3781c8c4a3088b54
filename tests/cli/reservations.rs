//! Reservations: show, refund, export.

use inventory_client::connect;
use inventory_proto::inventory::v1::{CommitReq, PlaceHoldReq, ReleaseReq, SeatRef};
use serde_json::Value;
use tonic_types::StatusExt as _;

use crate::live::LiveServer;
use inventory_testkit::DEADLINE;

use crate::{FAILED, OK, assert_has};

fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

fn seat_refs(seats: &[&str]) -> Vec<SeatRef> {
    let seat = |id: &&str| SeatRef { seat_id: (*id).to_owned() };
    seats.iter().map(seat).collect()
}

/// Commits through the gRPC port; the order id.
#[track_caller]
pub(crate) fn commit(live: &LiveServer, event: &str, id: &str, qty: i32, seats: &[&str]) -> String {
    try_commit(live, event, id, qty, seats).unwrap()
}

/// [`commit`] that may be rejected.
pub(crate) fn try_commit(
    live: &LiveServer,
    event: &str,
    id: &str,
    qty: i32,
    seats: &[&str],
) -> Result<String, tonic::Status> {
    send_commit(
        live,
        CommitReq {
            reservation_id: id.to_owned(),
            event_id: event.to_owned(),
            qty,
            seat_ids: seat_refs(seats),
            payment_intent_id: "pi_1".to_owned(),
        },
    )
}

/// Commits one ticket with this payment; `false` if it was refused as an invalid argument.
pub(crate) fn commit_paid(live: &LiveServer, event: &str, id: &str, payment: &str) -> bool {
    let request = CommitReq {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        qty: 1,
        seat_ids: Vec::new(),
        payment_intent_id: payment.to_owned(),
    };
    match send_commit(live, request) {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
            assert_has(status.message(), &["payment_intent_id"]);
            false
        }
    }
}

/// Holds seats through the gRPC port.
#[track_caller]
pub(crate) fn hold(live: &LiveServer, event: &str, id: &str, seats: &[&str]) {
    try_hold(live, event, id, seats).unwrap();
}

fn try_hold(live: &LiveServer, event: &str, id: &str, seats: &[&str]) -> Result<(), tonic::Status> {
    let request = PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        seat_ids: seat_refs(seats),
        ..PlaceHoldReq::default()
    };
    block_on(async {
        let mut inventory = connect(&live.server.grpc).await.unwrap();
        inventory.place_hold(patient(request)).await.map(drop)
    })
}

fn send_commit(live: &LiveServer, request: CommitReq) -> Result<String, tonic::Status> {
    block_on(async {
        let mut inventory = connect(&live.server.grpc).await.unwrap();
        let answer = inventory.commit_reservation(patient(request)).await;
        Ok(answer?.into_inner().order_id)
    })
}

fn release(live: &LiveServer, event: &str, id: &str) {
    block_on(async {
        let mut inventory = connect(&live.server.grpc).await.unwrap();
        let request = ReleaseReq {
            reservation_id: id.to_owned(),
            event_id: event.to_owned(),
            qty: 1,
            seat_ids: Vec::new(),
        };
        inventory.release_hold(patient(request)).await.unwrap();
    });
}

#[test]
fn reservation_is_shown_and_refunded_once() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "evt_1", "--total", "20", "--stripes", "2"]);
    let order = commit(&live, "evt_1", "res_1", 3, &[]);
    let shown = live.ok(&["reservation", "show", "res_1"]);
    assert_has(&shown, &["status       CONFIRMED", "quantity     3", &order, "pi_1"]);
    assert_eq!(live.json(&["event", "show", "evt_1"])["remaining"], 17);
    for first in [true, false] {
        let refunded = live.json(&["reservation", "refund", "res_1"]);
        assert_eq!(
            (&refunded["status"], &refunded["refunded"]),
            (&"REFUNDED".into(), &first.into())
        );
        assert_eq!(live.json(&["event", "show", "evt_1"])["remaining"], 20);
    }
    assert_eq!(live.json(&["reservation", "show", "res_1"])["status"], "REFUNDED");

    let again = live.ok(&["reservation", "refund", "res_1"]);
    assert!(again.starts_with("refunded before; nothing was changed\n"), "{again}");
    commit(&live, "evt_1", "res_4", 2, &[]);
    let done = live.ok(&["reservation", "refund", "res_4"]);
    assert!(done.starts_with("refunded: 2 units back on sale\n"), "{done}");

    release(&live, "evt_1", "res_2");
    let refused = live.run(&["reservation", "refund", "res_2"]);
    assert_eq!(refused.code, FAILED);
    assert_has(&refused.err, &["res_2 is not confirmed"]);
    for verb in ["show", "refund"] {
        let none = live.run(&["reservation", verb, "res_3"]);
        assert_eq!(none.code, FAILED);
        assert_has(&none.err, &["there is no reservation res_3"]);
    }
}

#[test]
fn rejections_say_what_is_wrong() {
    let live = LiveServer::start();
    live.ok(&["event", "create", "units", "--total", "20"]);
    let import = ["seats", "import", "hall", "-", "--create"];
    assert_eq!(live.run_with_input(&import, "seat_id\nA-1\nA-2\n").code, OK);
    commit(&live, "hall", "res_1", 0, &["A-1"]);
    let reason = |status: &tonic::Status| status.get_details_error_info().unwrap().reason;
    let expect = |status: tonic::Status, expected: &str, texts: &[&str]| {
        assert_eq!(reason(&status), expected, "{status}");
        assert_has(status.message(), texts);
    };
    let held_again = try_hold(&live, "hall", "res_1", &["A-1"]).unwrap_err();
    expect(held_again, "RESERVATION_COMMITTED", &["confirmed; it can be neither held again"]);
    live.ok(&["reservation", "refund", "res_1"]);
    let refunded = try_commit(&live, "hall", "res_1", 0, &["A-1"]).unwrap_err();
    expect(refunded, "RESERVATION_RELEASED", &["was released or refunded"]);
    let nothing = try_commit(&live, "hall", "res_2", 0, &[]).unwrap_err();
    expect(nothing, "INVALID_ARGUMENT", &["qty is 0", "no seat_ids", "the seats of the hold"]);
    let no_seats = try_commit(&live, "units", "res_3", 0, &["A-1"]).unwrap_err();
    expect(no_seats, "SEAT_NOT_FOUND", &["the event has no seats; request qty"]);
    // An unknown seat is reported also if another seat is taken.
    commit(&live, "hall", "res_4", 0, &["A-1"]);
    for _ in 0..2 {
        let unknown = try_hold(&live, "hall", "res_5", &["ZZ-1", "A-1"]).unwrap_err();
        expect(unknown, "SEAT_NOT_FOUND", &["seats not found: ZZ-1"]);
    }
}

#[test]
fn refunded_seats_can_be_sold_again() {
    let live = LiveServer::start();
    let file = "seat_id,section\nA-1,A\nA-2,A\n";
    let ran = live.run_with_input(&["seats", "import", "evt_1", "-", "--create"], file);
    assert_eq!(ran.code, OK, "{}", ran.err);
    commit(&live, "evt_1", "res_1", 0, &["A-1"]);
    let shown = live.json(&["event", "show", "evt_1"]);
    assert_eq!((&shown["remaining"], &shown["confirmed"]), (&1.into(), &1.into()));
    let blocked = live.run(&["seats", "block", "evt_1", "A-1", "A-2"]);
    assert_eq!(blocked.code, FAILED);
    assert_has(&blocked.out, &["A-1   sold", "A-2   changed"]);
    assert_has(&blocked.err, &["1 of 2 seats not blocked"]);
    let refunded = live.json(&["reservation", "refund", "res_1"]);
    assert_eq!(refunded["seat_ids"], serde_json::json!(["A-1"]));
    let order = commit(&live, "evt_1", "res_2", 0, &["A-1"]);
    assert_eq!(live.json(&["reservation", "show", "res_2"])["order_id"], order);
}

#[test]
fn reservations_of_one_event_are_exported() {
    let live = LiveServer::start();
    for event in ["evt_1", "evt_2"] {
        live.ok(&["event", "create", event, "--total", "100"]);
        commit(&live, event, &format!("{event}:a"), 2, &[]);
        commit(&live, event, &format!("{event}:b"), 1, &[]);
        release(&live, event, &format!("{event}:c"));
    }
    let lines = |out: &str| {
        let mut lines: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(|one| one["reservation_id"].to_string());
        lines
    };
    let ids = |lines: &[Value]| {
        let id = |one: &Value| one["reservation_id"].as_str().unwrap().to_owned();
        lines.iter().map(id).collect::<Vec<_>>()
    };
    let all = lines(&live.ok(&["export", "evt_1"]));
    assert_eq!(ids(&all), ["evt_1:a", "evt_1:b", "evt_1:c"]);
    assert_eq!((&all[0]["status"], &all[0]["quantity"]), (&"CONFIRMED".into(), &2.into()));
    assert!(all[0]["order_id"].as_str().unwrap().starts_with("ord_"));
    assert_eq!(all[2]["order_id"], Value::Null);
    let sold = lines(&live.ok(&["export", "evt_1", "--status", "released"]));
    assert_eq!(ids(&sold), ["evt_1:c"]);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.csv");
    let out = ["--format", "csv", "--out", file.to_str().unwrap()];
    assert_eq!(live.ok(&[&["export", "evt_1"], &out[..]].concat()), "");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("\u{feff}reservation_id,event_id,status,quantity,"), "{text}");
    assert_eq!(text.lines().count(), 4);
    assert_has(&text, &["evt_1:a,evt_1,CONFIRMED,2,,ord_"]);
    // A failed export leaves no new file and keeps the old one.
    let none = live.run(&[&["export", "evt_9"], &out[..]].concat());
    assert_eq!(none.code, FAILED);
    assert_has(&none.err, &["no event evt_9"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
