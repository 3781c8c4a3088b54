//! Business outcomes are OK responses, so that circuit breakers stay closed; invalid arguments are gRPC errors.

use inventory_proto::common::v1::ErrorCode;
use inventory_proto::reservation::v1::*;

use super::*;
use crate::client::{MetricsSample, stock};

#[tokio::test]
async fn business_outcomes_are_ok_responses() {
    let (_store, server, api) = selling().await;
    let seat = ["A-2-1".to_owned(), "A-2-2".to_owned()];
    api.hold(hold("held", HALL, 2, &seat)).await;
    let error = |of: ReserveSeatResponse| {
        assert_eq!(of.status(), HoldStatus::Unspecified, "{of:?}");
        assert!(of.hold_id.is_empty() && of.reserved_seats.is_empty());
        let error = of.error.unwrap();
        let values: Vec<String> = error.details.iter().map(|d| d.value.clone()).collect();
        (error.code(), values)
    };
    // Sold out: the error has the remaining units.
    api.hold(hold("most", EVENT, 9, &[])).await;
    let few = error(api.hold(hold("r1", EVENT, 2, &[])).await);
    assert_eq!(few, (ErrorCode::InsufficientInventory, vec!["1".to_owned()]));
    // An unavailable seat is named; the other seat stays available.
    let mixed = ["A-2-3".to_owned(), "A-2-2".to_owned()];
    let taken = error(api.hold(hold("r2", HALL, 2, &mixed)).await);
    assert_eq!(taken, (ErrorCode::InventoryConflict, vec!["A-2-2".to_owned()]));
    let free = ["A-2-3".to_owned()];
    let held = api.hold(hold("r3", HALL, 1, &free)).await;
    assert_eq!(held.status(), HoldStatus::Active);
    // An unknown seat and an unknown event.
    let nowhere = ["Z-1".to_owned()];
    let unknown = error(api.hold(hold("r4", HALL, 1, &nowhere)).await);
    assert_eq!(unknown, (ErrorCode::NotFound, vec!["Z-1".to_owned()]));
    let unknown = error(api.hold(hold("r5", "evt_nowhere", 1, &[])).await);
    assert_eq!(unknown.0, ErrorCode::NotFound);
    let unknown = api.check(check("evt_nowhere", 1)).await;
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    let unknown = api.status("evt_nowhere", "").await;
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    let unknown = api.commit(sell("r5", "evt_nowhere", 1, &[])).await;
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    let unknown = api.release(give_up("r5", "evt_nowhere")).await;
    assert_eq!(unknown.status(), ReleaseStatus::NotFound);
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    // Another payload with the same id.
    let other = error(api.hold(hold("most", EVENT, 3, &[])).await);
    assert_eq!(other.0, ErrorCode::IdempotencyConflict);
    let other = api.commit(sell("held", HALL, 1, &free)).await;
    assert_eq!(other.status(), CommitStatus::FailedConflict);
    assert_eq!(other.error.unwrap().code(), ErrorCode::IdempotencyConflict);
    // All calls have status OK.
    let metrics = MetricsSample::scrape(&server).await;
    for method in [
        "CheckAvailability",
        "ReserveSeat",
        "CommitReservation",
        "ReleaseHold",
        "GetInventoryStatus",
    ] {
        let path = format!("/reservation.v1.InventoryService/{method}");
        let ok = format!(r#"grpc_requests_total{{method="{path}",status="OK"}}"#);
        let all = format!(r#"grpc_request_duration_seconds_count{{method="{path}"}}"#);
        assert!(metrics.get(&ok) > 0.0, "{method}");
        assert_eq!(metrics.get(&ok), metrics.get(&all), "{method}");
    }
    for (sample, wanted) in [
        (r#"{inventory_type="quantity",status="HELD"}"#, 1.0),
        (r#"{inventory_type="seat",status="HELD"}"#, 2.0),
        (r#"{inventory_type="seat",status="SEAT_UNAVAILABLE"}"#, 1.0),
        (r#"{inventory_type="quantity",status="INSUFFICIENT_INVENTORY"}"#, 1.0),
    ] {
        let name = format!("inventory_place_holds_total{sample}");
        assert_eq!(metrics.get(&name), wanted, "{name}");
    }
}

#[tokio::test]
async fn error_has_the_trace_id_of_its_call() {
    let (_store, _server, api) = selling().await;
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut call = with_deadline(give_up("r1", "evt_nowhere"));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    call.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let answer = ok(api.0.clone().release_hold(call).await);
    assert_eq!(answer.error.unwrap().trace_id, TRACE);
}

#[tokio::test]
async fn every_invalid_argument_names_its_field() {
    let (_store, server, api) = selling().await;
    let long = || "x".repeat(257);
    let many: Vec<String> = (0..11).map(|n| format!("A-{n}")).collect();
    let twice = ["A-1".to_owned(), "A-1".to_owned()];
    let good = || hold("r1", EVENT, 1, &[]);
    let holds: Vec<(ReserveSeatRequest, &[&str])> = vec![
        (hold("", EVENT, 1, &[]), &["reservation_id"]),
        (hold("r1", "a b", 1, &[]), &["event_id"]),
        (hold("r1", EVENT, 0, &[]), &["quantity"]),
        (hold("r1", EVENT, -5, &[]), &["quantity"]),
        (hold("r1", EVENT, 11, &[]), &["quantity"]),
        (hold("r1", EVENT, 1, &many), &["seat_ids"]),
        (hold("r1", EVENT, 1, &twice), &["seat_ids"]),
        (hold("r1", EVENT, 1, &["".to_owned()]), &["seat_ids"]),
        (ReserveSeatRequest { user_id: long(), ..good() }, &["user_id"]),
        (ReserveSeatRequest { idempotency_key: long(), ..good() }, &["idempotency_key"]),
        (
            ReserveSeatRequest {
                hold_expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: -1 }),
                ..good()
            },
            &["hold_expires_at"],
        ),
        (hold("", "", 0, &[]), &["quantity", "event_id", "reservation_id"]),
    ];
    for (call, wanted) in holds {
        let status = api.try_hold(call.clone()).await.unwrap_err();
        assert_eq!(fields(&status), wanted, "{call:?}");
    }
    let mut raw = api.0.clone();
    for (call, wanted) in [
        (sell("r1", EVENT, -1, &[]), "quantity"),
        (sell("r1", EVENT, 11, &[]), "quantity"),
        (
            CommitReservationRequest { payment_intent_id: long(), ..sell("r1", EVENT, 1, &[]) },
            "payment_intent_id",
        ),
    ] {
        let status = raw.commit_reservation(with_deadline(call)).await.unwrap_err();
        assert_eq!(fields(&status), [wanted]);
    }
    for (call, wanted) in [
        (ReleaseHoldRequest { quantity: -1, ..give_up("r1", EVENT) }, "quantity"),
        (ReleaseHoldRequest { reason: long(), ..give_up("r1", EVENT) }, "reason"),
    ] {
        let status = raw.release_hold(with_deadline(call)).await.unwrap_err();
        assert_eq!(fields(&status), [wanted]);
    }
    for (call, wanted) in [
        (check(EVENT, 0), "quantity"),
        (check("", 1), "event_id"),
        (CheckAvailabilityRequest { section: long(), ..check(EVENT, 1) }, "section"),
    ] {
        let status = raw.check_availability(with_deadline(call)).await.unwrap_err();
        assert_eq!(fields(&status), [wanted]);
    }
    let status = raw
        .get_inventory_status(with_deadline(GetInventoryStatusRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(fields(&status), ["event_id"]);
    assert_eq!(stock(&server, EVENT).await.stripes[0].version, 0);
}

#[tokio::test]
async fn another_idempotency_key_is_accepted_for_the_same_reservation() {
    let (_store, server, api) = selling().await;
    let keyed = |key: &str| ReserveSeatRequest {
        idempotency_key: key.to_owned(),
        ..hold("r1", EVENT, 2, &[])
    };
    let first = api.hold(keyed("key-1")).await;
    assert_eq!(first.status(), HoldStatus::Active);
    assert_eq!(api.hold(keyed("key-2")).await, first);
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
}
