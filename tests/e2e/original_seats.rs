//! Each bug of the original that concerns seats, as a test of that name.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use inventory_proto::inventory::v1::{CheckReq, CommitReq, PlaceHoldReq, ReleaseReq};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::*;
use crate::items::{Place, n, row, s, seat_event, seat_item, set_seat, text};
use crate::original::assert_aliased;
use crate::server::Server;
use crate::stage::Stage;

const EVENT: &str = "evt_seats";

/// The seed's layout: all seats under the event's own key.
const KEYS: u16 = 1;

/// Two rows of four.
fn hall() -> Vec<Place> {
    [row("A", "1", 4, 9_900), row("B", "1", 4, 5_000)].concat()
}

async fn selling() -> (Stage, Server, InventoryClient) {
    let stage = Stage::new();
    seat_event(stage.engine.address(), EVENT, KEYS, &hall());
    let server = stage.server();
    let client = client(&server).await;
    (stage, server, client)
}

fn buys(id: &str, ids: &[&str]) -> CommitReq {
    CommitReq {
        seat_ids: seats(ids),
        ..commit(id, EVENT, 0)
    }
}

fn gives_up(id: &str, ids: &[&str]) -> ReleaseReq {
    ReleaseReq {
        seat_ids: seats(ids),
        ..release(id, EVENT, 0)
    }
}

fn asks(ids: &[&str]) -> CheckReq {
    CheckReq {
        seat_ids: seats(ids),
        ..check(EVENT, 0)
    }
}

async fn holds(client: &InventoryClient, id: &str, ids: &[&str]) -> Result<(), Status> {
    let call = PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: EVENT.to_owned(),
        seat_ids: seats(ids),
        hold_expires_at: Some((SystemTime::now() + Duration::from_secs(60)).into()),
        ..PlaceHoldReq::default()
    };
    let answer = client.clone().place_hold(patient(call)).await;
    answer.map(drop)
}

/// What the store has of a seat: its state, and whose it is.
#[track_caller]
fn owner(stage: &Stage, seat: &str) -> (String, String) {
    let item = seat_item(stage.engine.address(), EVENT, seat, KEYS);
    let item = item.unwrap_or_else(|| panic!("there is no seat {seat}"));
    (text(&item, "status"), text(&item, "reservation_id"))
}

fn owned(state: &str, by: &str) -> (String, String) {
    (state.to_owned(), by.to_owned())
}

#[tokio::test]
async fn every_seat_commit_failed_for_status_is_a_reserved_word() {
    let (stage, server, client) = selling().await;
    // A whole life of seats: held, sold, given up, sold at once, refused.
    holds(&client, "r1", &["A-1-1", "A-1-2"]).await.unwrap();
    let order = client.order(buys("r1", &["A-1-1", "A-1-2"])).await;
    assert_eq!(client.order(buys("r1", &["A-1-1", "A-1-2"])).await, order);
    holds(&client, "r2", &["A-1-3"]).await.unwrap();
    client.releases(gives_up("r2", &["A-1-3"])).await.unwrap();
    client.order(buys("r3", &["A-1-3"])).await;
    client.commits(buys("r4", &["A-1-1"])).await.unwrap_err();
    client.checks(asks(&["A-1-1", "A-1-4"])).await.unwrap();
    for (seat, by) in [("A-1-1", "r1"), ("A-1-2", "r1"), ("A-1-3", "r3")] {
        assert_eq!(owner(&stage, seat), owned("SOLD", by));
    }
    drop(server);
    let asked = stage.proxy.asked().into_iter();
    let bodies: Vec<Value> = asked.map(|asked| asked.body).collect();
    let about_seats = |body: &&Value| body.to_string().contains("inventory_seats");
    assert!(bodies.iter().filter(about_seats).count() > 3);
    let seen = assert_aliased(&bodies);
    let wanted = HashSet::from(["ConditionExpression", "UpdateExpression"]);
    assert!(seen.is_superset(&wanted), "looked at {seen:?} only");
}

#[tokio::test]
async fn every_seat_release_failed_for_its_condition_was_empty() {
    let (stage, _server, client) = selling().await;
    holds(&client, "r1", &["A-1-1", "A-1-2"]).await.unwrap();
    assert_eq!(owner(&stage, "A-1-1"), owned("HOLD", "r1"));
    let given = client.releases(gives_up("r1", &["A-1-1", "A-1-2"])).await;
    assert_eq!(given.unwrap().status, "RELEASED");
    for seat in ["A-1-1", "A-1-2"] {
        assert_eq!(owner(&stage, seat), owned("AVAILABLE", ""));
    }
    // They are on sale again, to anybody but the one that gave them up.
    client.order(buys("r2", &["A-1-1", "A-1-2"])).await;
    let again = client.commits(buys("r1", &["A-1-1", "A-1-2"])).await;
    let code = Code::FailedPrecondition;
    assert_refused(
        &again.unwrap_err(),
        code,
        "RESERVATION_RELEASED",
        EVENT,
        "r1",
    );
}

#[tokio::test]
async fn a_missing_seat_counted_as_available() {
    let (_stage, _server, client) = selling().await;
    let found = client.checks(asks(&["A-1-1", "Z-9"])).await.unwrap();
    assert!(!found.available);
    assert_eq!(found.unavailable_seats, ["Z-9"]);
    assert!(client.checks(asks(&["A-1-1"])).await.unwrap().available);
}

#[tokio::test]
async fn a_missing_seat_was_created_by_a_commit() {
    let (stage, _server, client) = selling().await;
    for ids in [&["Z-9"][..], &["A-1-1", "Z-9"]] {
        let refused = client.commits(buys("r1", ids)).await.unwrap_err();
        assert_refused(&refused, Code::NotFound, "SEAT_NOT_FOUND", EVENT, "r1");
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.metadata["seat_ids"], "Z-9");
        let refused = holds(&client, "r2", ids).await.unwrap_err();
        assert_refused(&refused, Code::NotFound, "SEAT_NOT_FOUND", EVENT, "r2");
    }
    let engine = stage.engine.address();
    assert_eq!(seat_item(engine, EVENT, "Z-9", KEYS), None);
    // The seat beside it went nowhere, and the ids are as fresh as before.
    assert_eq!(owner(&stage, "A-1-1"), owned("AVAILABLE", ""));
    client.order(buys("r1", &["A-1-1"])).await;
}

#[tokio::test]
async fn a_put_of_the_whole_seat_erased_section_row_number_and_price() {
    let (stage, _server, client) = selling().await;
    let engine = stage.engine.address();
    let facts = |seat: &str| {
        let mut item = seat_item(engine, EVENT, seat, KEYS).unwrap();
        for own in ["status", "reservation_id", "order_id", "hold_expires_at"] {
            item.remove(own);
        }
        item.remove("updated_at");
        item
    };
    let before = facts("A-1-1");
    assert_eq!(before.len(), 8, "{before:?}");
    holds(&client, "r1", &["A-1-1"]).await.unwrap();
    assert_eq!(owner(&stage, "A-1-1"), owned("HOLD", "r1"));
    assert_eq!(facts("A-1-1"), before);
    client.releases(gives_up("r1", &["A-1-1"])).await.unwrap();
    assert_eq!(facts("A-1-1"), before);
    holds(&client, "r2", &["A-1-1"]).await.unwrap();
    client.order(buys("r2", &["A-1-1"])).await;
    assert_eq!(owner(&stage, "A-1-1"), owned("SOLD", "r2"));
    assert_eq!(facts("A-1-1"), before);
    client.order(buys("r3", &["A-1-2"])).await;
    assert_eq!(text(&facts("A-1-2"), "note"), "behind a pillar");
}

#[tokio::test]
async fn more_than_a_hundred_seats_could_not_be_read() {
    let stage = Stage::new();
    // Over several partition keys, more under each than one read of keys may name.
    let many: Vec<Place> = ["A", "B", "C"]
        .iter()
        .flat_map(|section| row(section, "1", 120, 1_000))
        .collect();
    seat_event(stage.engine.address(), EVENT, 2, &many);
    let server = stage.server();
    let client = client(&server).await;
    // The last of each is as known as the first.
    for section in ["A", "B", "C"] {
        let ids: Vec<String> = (0..10)
            .map(|n| format!("{section}-1-{}", 12 * n + 12))
            .collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = client.checks(asks(&ids)).await.unwrap();
        assert!(found.available, "{:?}", found.unavailable_seats);
    }
    // A page at a time, and none of them unbounded.
    let reads = stage.proxy.asked().into_iter();
    let reads: Vec<_> = reads
        .filter(|asked| asked.body.to_string().contains("inventory_seats"))
        .collect();
    assert!(
        reads.iter().any(|asked| asked.operation == "Query"),
        "{reads:?}"
    );
    for asked in reads.iter().filter(|a| a.operation == "BatchGetItem") {
        let keys = &asked.body["RequestItems"]["inventory_seats"]["Keys"];
        assert!(keys.as_array().unwrap().len() <= 100);
    }
}

#[tokio::test]
async fn the_release_of_a_sold_seat_made_it_available() {
    let (stage, _server, client) = selling().await;
    holds(&client, "r1", &["A-1-1"]).await.unwrap();
    client.order(buys("r1", &["A-1-1"])).await;
    client.order(buys("r2", &["A-1-2"])).await;
    for (id, seat) in [("r1", "A-1-1"), ("r2", "A-1-2")] {
        for _ in 0..2 {
            let refused = client.releases(gives_up(id, &[seat])).await.unwrap_err();
            let code = Code::FailedPrecondition;
            assert_refused(&refused, code, "RESERVATION_COMMITTED", EVENT, id);
        }
        assert_eq!(owner(&stage, seat), owned("SOLD", id));
        let found = client.checks(asks(&[seat])).await.unwrap();
        assert!(!found.available);
    }
}

#[tokio::test]
async fn a_release_gave_back_what_another_reservation_had() {
    let (stage, _server, client) = selling().await;
    holds(&client, "r1", &["A-1-1"]).await.unwrap();
    client.order(buys("r2", &["A-1-2"])).await;
    // Without a reservation of its own: nothing to give back, and nothing is.
    let none = client.releases(gives_up("r9", &["A-1-1", "A-1-2"])).await;
    assert_eq!(none.unwrap().status, "RELEASED");
    // Of another payload: not this reservation's.
    let other = client.releases(gives_up("r1", &["A-1-1", "A-1-2"])).await;
    let code = Code::AlreadyExists;
    assert_refused(
        &other.unwrap_err(),
        code,
        "IDEMPOTENCY_CONFLICT",
        EVENT,
        "r1",
    );
    assert_eq!(owner(&stage, "A-1-1"), owned("HOLD", "r1"));
    assert_eq!(owner(&stage, "A-1-2"), owned("SOLD", "r2"));
}

#[tokio::test]
async fn a_seat_taken_by_hand_is_not_sold_from_an_old_memory() {
    let (stage, _server, client) = selling().await;
    let engine = stage.engine.address();
    // The server has read the hall, then another program takes a seat out of the sale.
    assert!(client.checks(asks(&["B-1-1"])).await.unwrap().available);
    set_seat(engine, EVENT, "B-1-1", "status", &s("BLOCKED"));
    set_seat(engine, EVENT, "B-1-2", "price_amount", &n(7_777));
    let refused = client.commits(buys("r1", &["B-1-1"])).await.unwrap_err();
    assert_refused(&refused, Code::Aborted, "SEAT_UNAVAILABLE", EVENT, "r1");
    assert_eq!(owner(&stage, "B-1-1"), owned("BLOCKED", ""));
    // What was changed by hand beside the state is not written back.
    client.order(buys("r2", &["B-1-2"])).await;
    let item = seat_item(engine, EVENT, "B-1-2", KEYS).unwrap();
    assert_eq!(item["price_amount"]["N"], "7777");
}

#[tokio::test]
async fn the_same_id_with_other_seats_replayed_the_old_answer() {
    let (stage, _server, client) = selling().await;
    let order = client.order(buys("r1", &["A-1-1", "A-1-2"])).await;
    for other in [&["A-1-1"][..], &["A-1-3", "A-1-4"]] {
        let refused = client.commits(buys("r1", other)).await.unwrap_err();
        let code = Code::AlreadyExists;
        assert_refused(&refused, code, "IDEMPOTENCY_CONFLICT", EVENT, "r1");
    }
    // In another order they are the same seats.
    assert_eq!(client.order(buys("r1", &["A-1-2", "A-1-1"])).await, order);
    assert_eq!(owner(&stage, "A-1-3"), owned("AVAILABLE", ""));
}
