//! inventory.v1 and reservation.v1 act on the same reservations; PlaceHold and GetReservation of inventory.v1.

use inventory_proto::inventory::v1::{GetReservationReq, GetReservationRes, PlaceHoldReq};
use inventory_proto::reservation::v1::*;
use tonic::{Code, Response, Status};

use super::*;
use crate::client::{InventoryCalls, assert_rejected, client, commit, release, seats as refs};

async fn shown(server: &TestServer, id: &str) -> Result<GetReservationRes, Status> {
    let call = GetReservationReq { reservation_id: id.to_owned() };
    let answer = client(server).await.get_reservation(with_deadline(call)).await;
    answer.map(Response::into_inner)
}

fn place(id: &str, event: &str, qty: i32, seats: &[&str]) -> PlaceHoldReq {
    PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        qty,
        seat_ids: refs(seats),
        section: String::new(),
        hold_expires_at: None,
    }
}

#[tokio::test]
async fn hold_of_one_contract_is_confirmed_by_the_other() {
    let (_store, server, api) = selling().await;
    let mut inventory = client(&server).await;
    let held = inventory
        .place_hold(with_deadline(place("r1", HALL, 0, &["A-1-1", "A-1-2"])))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(held.status, "HELD");
    assert_eq!(held.seat_ids, refs(&["A-1-1", "A-1-2"]));
    let left = seconds_ahead(held.hold_expires_at);
    assert!((55..=60).contains(&left), "{left}");
    let seen = shown(&server, "r1").await.unwrap();
    assert_eq!((&seen.status[..], seen.qty), ("HELD", 2));
    assert_eq!((&seen.event_id[..], &seen.order_id[..]), (HALL, ""));
    assert_eq!(seen.seat_ids, held.seat_ids);
    assert_eq!(seen.hold_expires_at, held.hold_expires_at);
    // Without seats and quantity, a commit in reservation.v1 confirms the held seats.
    let sold = api.commit(sell("r1", HALL, 0, &[])).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    assert_eq!(ids(&sold.sold_seats), ["A-1-1", "A-1-2"]);
    let seen = shown(&server, "r1").await.unwrap();
    assert_eq!((&seen.status[..], seen.order_id), ("CONFIRMED", sold.order_id));
    assert!(seconds_ahead(seen.updated_at).abs() < 60);

    // In the other direction.
    api.hold(hold("r2", EVENT, 2, &[])).await;
    let order = client(&server).await.order(commit("r2", EVENT, 2)).await;
    assert_eq!(shown(&server, "r2").await.unwrap().order_id, order);
    let status = client(&server).await.try_release(release("r2", EVENT, 2)).await;
    let code = Code::FailedPrecondition;
    assert_rejected(&status.unwrap_err(), code, "RESERVATION_COMMITTED", EVENT, "r2");
}

#[tokio::test]
async fn reservation_is_shown_in_every_state() {
    let (_store, server, api) = selling().await;
    let status = shown(&server, "nobody").await.unwrap_err();
    assert_rejected(&status, Code::NotFound, "RESERVATION_NOT_FOUND", "", "nobody");
    let status = shown(&server, "a b").await.unwrap_err();
    assert_eq!(fields(&status), ["reservation_id"]);
    api.hold(hold("held", EVENT, 2, &[])).await;
    api.commit(sell("sold", EVENT, 1, &[])).await;
    api.hold(hold("given", EVENT, 1, &[])).await;
    api.release(give_up("given", EVENT)).await;
    api.release(give_up("never", EVENT)).await;
    hold_and_outlive(&api, hold("over", EVENT, 1, &[])).await;
    for (id, state) in [
        ("held", "HELD"),
        ("sold", "CONFIRMED"),
        ("given", "RELEASED"),
        ("never", "RELEASED"),
        ("over", "EXPIRED"),
    ] {
        let seen = shown(&server, id).await.unwrap();
        assert_eq!((&seen.status[..], &seen.reservation_id[..]), (state, id));
        assert_eq!(seen.event_id, EVENT);
    }
}

#[tokio::test]
async fn rejected_hold_has_a_status_and_names_the_seats() {
    let (_store, server, _api) = selling().await;
    let mut inventory = client(&server).await;
    let held = place("r1", HALL, 0, &["A-1-1"]);
    inventory.place_hold(with_deadline(held)).await.unwrap();
    for (call, code, reason, seats) in [
        (place("r2", HALL, 0, &["A-1-2", "A-1-1"]), Code::Aborted, "SEAT_UNAVAILABLE", "A-1-1"),
        (place("r3", HALL, 0, &["Z-9"]), Code::NotFound, "SEAT_NOT_FOUND", "Z-9"),
    ] {
        let id = call.reservation_id.clone();
        let status = inventory.place_hold(with_deadline(call)).await.unwrap_err();
        assert_rejected(&status, code, reason, HALL, &id);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["seat_ids"], seats);
    }
    let bad = PlaceHoldReq {
        hold_expires_at: Some((SystemTime::now() - Duration::from_secs(1)).into()),
        ..place("", "", 0, &[])
    };
    let status = inventory.place_hold(with_deadline(bad)).await.unwrap_err();
    let wanted = ["hold_expires_at", "event_id", "reservation_id", "qty"];
    assert_eq!(fields(&status), wanted);
}
