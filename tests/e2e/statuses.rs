//! Every row of the contract's status table that events of a quantity can reach: code, reason, domain, ids and violations.
//! Failures of the store are in `outages`.

use inventory_client::reason;
use inventory_proto::inventory::v1::{CheckReq, CommitReq, ReleaseReq};
use inventory_testkit::server::{ServerCommand, TestServer};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::*;

const EVENT: &str = "evt_statuses";

async fn selling(total: i64) -> (TestServer, InventoryClient) {
    let server = ServerCommand::dev_in_memory().start();
    create(&server, EVENT, total, 1).await;
    let client = client(&server).await;
    (server, client)
}

#[tokio::test]
async fn insufficient_stock_is_aborted_with_the_remaining_units() {
    let (server, client) = selling(3).await;
    let refused = client.try_commit(commit("r1", EVENT, 4)).await.unwrap_err();
    assert_rejected(&refused, Code::Aborted, "INSUFFICIENT_INVENTORY", EVENT, "r1");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["remaining"], "3");
    // A rejected reservation id can be used again.
    client.order(commit("r2", EVENT, 2)).await;
    let refused = client.try_commit(commit("r1", EVENT, 4)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    client.order(commit("r1", EVENT, 1)).await;
    let none = client.try_commit(commit("r3", EVENT, 1)).await.unwrap_err();
    assert_rejected(&none, Code::Aborted, "INSUFFICIENT_INVENTORY", EVENT, "r3");
    assert!(!client.try_check(check(EVENT, 1)).await.unwrap().available);
    assert_eq!(stock(&server, EVENT).await.confirmed, 3);
}

#[tokio::test]
async fn unknown_event_or_seat_is_not_found() {
    let (server, client) = selling(5).await;
    let nowhere = "evt_nowhere";
    let refused = [
        (client.try_commit(commit("r1", nowhere, 1)).await.map(drop), "r1"),
        (client.try_release(release("r1", nowhere, 1)).await.map(drop), "r1"),
        (client.try_check(check(nowhere, 1)).await.map(drop), ""),
    ];
    for (answer, id) in refused {
        let status = answer.unwrap_err();
        assert_rejected(&status, Code::NotFound, "EVENT_NOT_FOUND", nowhere, id);
    }
    // The rejected reservation ids are unused.
    client.order(commit("r1", EVENT, 1)).await;

    let wanted = CommitReq { seat_ids: seats(&["A-1", "B.2"]), ..commit("r2", EVENT, 1) };
    let status = client.try_commit(wanted).await.unwrap_err();
    assert_rejected(&status, Code::NotFound, "SEAT_NOT_FOUND", EVENT, "r2");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["seat_ids"], "A-1,B.2");
    // A release without a hold succeeds: it prevents a late hold.
    let given = ReleaseReq { seat_ids: seats(&["A-1"]), ..release("r2", EVENT, 1) };
    client.try_release(given).await.unwrap();
    // Seats take precedence over the quantity, and an unknown seat is never available.
    let asked = CheckReq { seat_ids: seats(&["A-1", "B.2"]), ..check(EVENT, 1) };
    let answer = client.try_check(asked).await.unwrap();
    assert!(!answer.available);
    assert_eq!(answer.unavailable_seats, ["A-1", "B.2"]);
    assert_eq!(stock(&server, EVENT).await.confirmed, 1);
}

#[tokio::test]
async fn ended_reservations_are_failed_preconditions() {
    let (server, client) = selling(5).await;
    for _ in 0..2 {
        let released = client.try_release(release("r1", EVENT, 2)).await.unwrap();
        assert_eq!(released.status, "RELEASED");
        let status = client.try_commit(commit("r1", EVENT, 2)).await.unwrap_err();
        let code = Code::FailedPrecondition;
        assert_rejected(&status, code, "RESERVATION_RELEASED", EVENT, "r1");
    }
    let order = client.order(commit("r2", EVENT, 2)).await;
    for _ in 0..2 {
        let status = client.try_release(release("r2", EVENT, 2)).await.unwrap_err();
        let code = Code::FailedPrecondition;
        assert_rejected(&status, code, "RESERVATION_COMMITTED", EVENT, "r2");
        assert_eq!(client.order(commit("r2", EVENT, 2)).await, order);
    }
    assert_eq!(stock(&server, EVENT).await.confirmed, 2);
}

/// The invalid fields, in order.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(reason(status), "INVALID_ARGUMENT");
    let bad = status.get_details_bad_request().unwrap();
    let field = |v: tonic_types::FieldViolation| {
        assert!(v.description.len() > 3, "{v:?}");
        assert!(status.message().contains(&v.field), "{status:?}");
        v.field
    };
    bad.field_violations.into_iter().map(field).collect()
}

#[tokio::test]
async fn every_invalid_argument_names_its_field() {
    let (server, client) = selling(5).await;
    let good = || commit("r1", EVENT, 1);
    let long = "x".repeat(129);
    let eleven: Vec<String> = (0..11).map(|n| format!("A-{n}")).collect();
    let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
    let commits: Vec<(CommitReq, &[&str])> = vec![
        (commit("", EVENT, 1), &["reservation_id"]),
        (commit("a b", EVENT, 1), &["reservation_id"]),
        (commit(&long, EVENT, 1), &["reservation_id"]),
        (commit("r1", "", 1), &["event_id"]),
        (commit("r1", "evt#1", 1), &["event_id"]),
        (commit("r1", "좌석", 1), &["event_id"]),
        (commit("r1", EVENT, 0), &["qty"]),
        (commit("r1", EVENT, -5), &["qty"]),
        (commit("r1", EVENT, 11), &["qty"]),
        (commit("r1", EVENT, i32::MIN), &["qty"]),
        (commit("", "", 0), &["event_id", "reservation_id", "qty"]),
        (CommitReq { payment_intent_id: "p".repeat(257), ..good() }, &["payment_intent_id"]),
        (CommitReq { seat_ids: seats(&["A-1", "A-1"]), ..good() }, &["seat_ids"]),
        (CommitReq { seat_ids: seats(&eleven), ..good() }, &["seat_ids"]),
        (CommitReq { seat_ids: seats(&[""]), ..good() }, &["seat_ids"]),
    ];
    for (call, wanted) in commits {
        let status = client.try_commit(call.clone()).await.unwrap_err();
        assert_eq!(fields(&status), wanted, "{call:?}");
        // A release has the same violations, except for the field that it does not have.
        if wanted != ["payment_intent_id"] {
            let call = ReleaseReq {
                reservation_id: call.reservation_id,
                event_id: call.event_id,
                qty: call.qty,
                seat_ids: call.seat_ids,
            };
            let status = client.try_release(call.clone()).await.unwrap_err();
            assert_eq!(fields(&status), wanted, "{call:?}");
        }
    }
    for (call, wanted) in [
        (check("", 1), "event_id"),
        (check(EVENT, 0), "qty"),
        (check(EVENT, -1), "qty"),
        (check(EVENT, 11), "qty"),
    ] {
        let status = client.try_check(call.clone()).await.unwrap_err();
        assert_eq!(fields(&status), [wanted], "{call:?}");
    }
    // The error has the ids of the call.
    let status = client.try_commit(commit("r1", EVENT, 0)).await.unwrap_err();
    let code = Code::InvalidArgument;
    assert_rejected(&status, code, "INVALID_ARGUMENT", EVENT, "r1");
    let status = client.try_check(check(EVENT, 0)).await.unwrap_err();
    assert_rejected(&status, code, "INVALID_ARGUMENT", EVENT, "");
    assert_eq!(stock(&server, EVENT).await.stripes[0].version, 0);
}

#[tokio::test]
async fn largest_valid_arguments_are_accepted() {
    let server = ServerCommand::dev_in_memory().start();
    let (event, id) = ("e".repeat(128), "r".repeat(128));
    create(&server, &event, 10, 1).await;
    let call = CommitReq { payment_intent_id: "p".repeat(256), ..commit(&id, &event, 10) };
    let client = client(&server).await;
    assert!(client.try_check(check(&event, 10)).await.unwrap().available);
    let order = client.order(call.clone()).await;
    assert_eq!(client.order(call).await, order);
    assert_eq!(stock(&server, &event).await.remaining, 0);
}
