//! One test for each known bug of the original system that concerns seats. The names state the correct behaviour.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::fake_store::{FakeStore, n, s};
use inventory_proto::inventory::v1::{CheckReq, CommitReq, PlaceHoldReq, ReleaseReq};
use inventory_testkit::server::TestServer;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::*;
use crate::items::{HallSeat, row, seat_event, seat_item, seat_item_key, text};
use crate::original::assert_aliased;

const EVENT: &str = "evt_seats";

/// The layout of the original system: all seats under the key of the event.
const KEYS: u16 = 1;

/// Two rows of four.
fn hall() -> Vec<HallSeat> {
    [row("A", "1", 4, 9_900), row("B", "1", 4, 5_000)].concat()
}

async fn selling() -> (FakeStore, TestServer, InventoryClient) {
    let store = FakeStore::start();
    seat_event(&store, EVENT, KEYS, &hall());
    let server = store.start_server();
    let client = client(&server).await;
    (store, server, client)
}

fn commit_seats(id: &str, ids: &[&str]) -> CommitReq {
    CommitReq { seat_ids: seats(ids), ..commit(id, EVENT, 0) }
}

fn release_seats(id: &str, ids: &[&str]) -> ReleaseReq {
    ReleaseReq { seat_ids: seats(ids), ..release(id, EVENT, 0) }
}

fn check_seats(ids: &[&str]) -> CheckReq {
    CheckReq { seat_ids: seats(ids), ..check(EVENT, 0) }
}

async fn hold_seats(client: &InventoryClient, id: &str, ids: &[&str]) -> Result<(), Status> {
    let call = PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: EVENT.to_owned(),
        seat_ids: seats(ids),
        hold_expires_at: Some((SystemTime::now() + Duration::from_secs(60)).into()),
        ..PlaceHoldReq::default()
    };
    let answer = client.clone().place_hold(with_deadline(call)).await;
    answer.map(drop)
}

/// State and reservation of a seat in the store.
#[track_caller]
fn owner(store: &FakeStore, seat: &str) -> (String, String) {
    let item = seat_item(store, EVENT, seat, KEYS);
    let item = item.unwrap_or_else(|| panic!("there is no seat {seat}"));
    (text(&item, "status"), text(&item, "reservation_id"))
}

fn owned(state: &str, by: &str) -> (String, String) {
    (state.to_owned(), by.to_owned())
}

#[tokio::test]
async fn seat_commit_works_although_status_is_a_reserved_word() {
    let (store, server, client) = selling().await;
    // Seats that are held, sold, released, sold directly, rejected.
    hold_seats(&client, "r1", &["A-1-1", "A-1-2"]).await.unwrap();
    let order = client.order(commit_seats("r1", &["A-1-1", "A-1-2"])).await;
    assert_eq!(client.order(commit_seats("r1", &["A-1-1", "A-1-2"])).await, order);
    hold_seats(&client, "r2", &["A-1-3"]).await.unwrap();
    client.try_release(release_seats("r2", &["A-1-3"])).await.unwrap();
    client.order(commit_seats("r3", &["A-1-3"])).await;
    client.try_commit(commit_seats("r4", &["A-1-1"])).await.unwrap_err();
    client.try_check(check_seats(&["A-1-1", "A-1-4"])).await.unwrap();
    for (seat, by) in [("A-1-1", "r1"), ("A-1-2", "r1"), ("A-1-3", "r3")] {
        assert_eq!(owner(&store, seat), owned("SOLD", by));
    }
    drop(server);
    let asked = store.requests().into_iter();
    let bodies: Vec<Value> = asked.map(|asked| asked.body).collect();
    let about_seats = |body: &&Value| body.to_string().contains("inventory_seats");
    assert!(bodies.iter().filter(about_seats).count() > 3);
    let seen = assert_aliased(&bodies);
    let wanted = HashSet::from(["ConditionExpression", "UpdateExpression"]);
    assert!(seen.is_superset(&wanted), "only {seen:?}");
}

#[tokio::test]
async fn seat_release_has_a_condition_and_succeeds() {
    let (store, _server, client) = selling().await;
    hold_seats(&client, "r1", &["A-1-1", "A-1-2"]).await.unwrap();
    assert_eq!(owner(&store, "A-1-1"), owned("HOLD", "r1"));
    let given = client.try_release(release_seats("r1", &["A-1-1", "A-1-2"])).await;
    assert_eq!(given.unwrap().status, "RELEASED");
    for seat in ["A-1-1", "A-1-2"] {
        assert_eq!(owner(&store, seat), owned("AVAILABLE", ""));
    }
    // They can be sold again, but not to the released reservation.
    client.order(commit_seats("r2", &["A-1-1", "A-1-2"])).await;
    let again = client.try_commit(commit_seats("r1", &["A-1-1", "A-1-2"])).await;
    let code = Code::FailedPrecondition;
    assert_rejected(&again.unwrap_err(), code, "RESERVATION_RELEASED", EVENT, "r1");
}

#[tokio::test]
async fn missing_seat_is_not_available() {
    let (_store, _server, client) = selling().await;
    let found = client.try_check(check_seats(&["A-1-1", "Z-9"])).await.unwrap();
    assert!(!found.available);
    assert_eq!(found.unavailable_seats, ["Z-9"]);
    assert!(client.try_check(check_seats(&["A-1-1"])).await.unwrap().available);
}

#[tokio::test]
async fn commit_creates_no_missing_seat() {
    let (store, _server, client) = selling().await;
    for ids in [&["Z-9"][..], &["A-1-1", "Z-9"]] {
        let refused = client.try_commit(commit_seats("r1", ids)).await.unwrap_err();
        assert_rejected(&refused, Code::NotFound, "SEAT_NOT_FOUND", EVENT, "r1");
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.metadata["seat_ids"], "Z-9");
        let refused = hold_seats(&client, "r2", ids).await.unwrap_err();
        assert_rejected(&refused, Code::NotFound, "SEAT_NOT_FOUND", EVENT, "r2");
    }
    assert_eq!(seat_item(&store, EVENT, "Z-9", KEYS), None);
    // The other seat is unchanged, and the reservation ids are unused.
    assert_eq!(owner(&store, "A-1-1"), owned("AVAILABLE", ""));
    client.order(commit_seats("r1", &["A-1-1"])).await;
}

#[tokio::test]
async fn commit_keeps_section_row_number_and_price_of_a_seat() {
    let (store, _server, client) = selling().await;
    let facts = |seat: &str| {
        let mut item = seat_item(&store, EVENT, seat, KEYS).unwrap();
        for own in ["status", "reservation_id", "order_id", "hold_expires_at"] {
            item.remove(own);
        }
        item.remove("updated_at");
        item
    };
    let before = facts("A-1-1");
    assert_eq!(before.len(), 8, "{before:?}");
    hold_seats(&client, "r1", &["A-1-1"]).await.unwrap();
    assert_eq!(owner(&store, "A-1-1"), owned("HOLD", "r1"));
    assert_eq!(facts("A-1-1"), before);
    client.try_release(release_seats("r1", &["A-1-1"])).await.unwrap();
    assert_eq!(facts("A-1-1"), before);
    hold_seats(&client, "r2", &["A-1-1"]).await.unwrap();
    client.order(commit_seats("r2", &["A-1-1"])).await;
    assert_eq!(owner(&store, "A-1-1"), owned("SOLD", "r2"));
    assert_eq!(facts("A-1-1"), before);
    client.order(commit_seats("r3", &["A-1-2"])).await;
    assert_eq!(text(&facts("A-1-2"), "note"), "behind a pillar");
}

#[tokio::test]
async fn more_than_a_hundred_seats_are_read() {
    let store = FakeStore::start();
    // Several partition keys, each with more seats than one BatchGetItem may name.
    let many: Vec<HallSeat> =
        ["A", "B", "C"].iter().flat_map(|section| row(section, "1", 120, 1_000)).collect();
    seat_event(&store, EVENT, 2, &many);
    let server = store.start_server();
    let client = client(&server).await;
    // Seats of every part of each section.
    for section in ["A", "B", "C"] {
        let ids: Vec<String> = (0..10).map(|n| format!("{section}-1-{}", 12 * n + 12)).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = client.try_check(check_seats(&ids)).await.unwrap();
        assert!(found.available, "{:?}", found.unavailable_seats);
    }
    // Queries by page, and bounded batches.
    let reads = store.requests().into_iter();
    let reads: Vec<_> =
        reads.filter(|asked| asked.body.to_string().contains("inventory_seats")).collect();
    assert!(reads.iter().any(|asked| asked.operation == "Query"), "{reads:?}");
    for asked in reads.iter().filter(|a| a.operation == "BatchGetItem") {
        let keys = &asked.body["RequestItems"]["inventory_seats"]["Keys"];
        assert!(keys.as_array().unwrap().len() <= 100);
    }
}

#[tokio::test]
async fn release_of_a_sold_seat_is_rejected() {
    let (store, _server, client) = selling().await;
    hold_seats(&client, "r1", &["A-1-1"]).await.unwrap();
    client.order(commit_seats("r1", &["A-1-1"])).await;
    client.order(commit_seats("r2", &["A-1-2"])).await;
    for (id, seat) in [("r1", "A-1-1"), ("r2", "A-1-2")] {
        for _ in 0..2 {
            let refused = client.try_release(release_seats(id, &[seat])).await.unwrap_err();
            let code = Code::FailedPrecondition;
            assert_rejected(&refused, code, "RESERVATION_COMMITTED", EVENT, id);
        }
        assert_eq!(owner(&store, seat), owned("SOLD", id));
        let found = client.try_check(check_seats(&[seat])).await.unwrap();
        assert!(!found.available);
    }
}

#[tokio::test]
async fn release_returns_no_seat_of_another_reservation() {
    let (store, _server, client) = selling().await;
    hold_seats(&client, "r1", &["A-1-1"]).await.unwrap();
    client.order(commit_seats("r2", &["A-1-2"])).await;
    // Without a hold there is nothing to return.
    let none = client.try_release(release_seats("r9", &["A-1-1", "A-1-2"])).await;
    assert_eq!(none.unwrap().status, "RELEASED");
    // With another payload the release is rejected.
    let other = client.try_release(release_seats("r1", &["A-1-1", "A-1-2"])).await;
    let code = Code::AlreadyExists;
    assert_rejected(&other.unwrap_err(), code, "IDEMPOTENCY_CONFLICT", EVENT, "r1");
    assert_eq!(owner(&store, "A-1-1"), owned("HOLD", "r1"));
    assert_eq!(owner(&store, "A-1-2"), owned("SOLD", "r2"));
}

#[tokio::test]
async fn seat_changed_by_another_program_is_not_sold_from_the_cache() {
    let (store, _server, client) = selling().await;
    // The server has read the seats; then another program blocks one.
    assert!(client.try_check(check_seats(&["B-1-1"])).await.unwrap().available);
    let set_seat = |seat: &str, name: &str, value: Value| {
        store.set_attribute("inventory_seats", &seat_item_key(EVENT, seat, KEYS), name, value);
    };
    set_seat("B-1-1", "status", s("BLOCKED"));
    set_seat("B-1-2", "price_amount", n(7_777));
    let refused = client.try_commit(commit_seats("r1", &["B-1-1"])).await.unwrap_err();
    assert_rejected(&refused, Code::Aborted, "SEAT_UNAVAILABLE", EVENT, "r1");
    assert_eq!(owner(&store, "B-1-1"), owned("BLOCKED", ""));
    // Other attributes changed by that program are kept.
    client.order(commit_seats("r2", &["B-1-2"])).await;
    let item = seat_item(&store, EVENT, "B-1-2", KEYS).unwrap();
    assert_eq!(item["price_amount"]["N"], "7777");
}

#[tokio::test]
async fn same_id_with_other_seats_is_rejected() {
    let (store, _server, client) = selling().await;
    let order = client.order(commit_seats("r1", &["A-1-1", "A-1-2"])).await;
    for other in [&["A-1-1"][..], &["A-1-3", "A-1-4"]] {
        let refused = client.try_commit(commit_seats("r1", other)).await.unwrap_err();
        let code = Code::AlreadyExists;
        assert_rejected(&refused, code, "IDEMPOTENCY_CONFLICT", EVENT, "r1");
    }
    // The order of the seats does not matter.
    assert_eq!(client.order(commit_seats("r1", &["A-1-2", "A-1-1"])).await, order);
    assert_eq!(owner(&store, "A-1-3"), owned("AVAILABLE", ""));
}
