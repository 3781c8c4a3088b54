//! Sequences of calls: create, confirm, cancel, also out of order.

use inventory_proto::common::v1::{ErrorCode, SeatStatus};
use inventory_proto::reservation::v1::*;

use super::*;
use crate::client::stock;

#[tokio::test]
async fn create_and_confirm_an_event_of_a_quantity() {
    let (_store, server, api) = selling().await;
    let found = api.check(check(EVENT, 2)).await;
    assert!(found.available && found.available_seats.is_empty());
    assert_eq!(found.remaining_in_section, 10);
    let call = hold("r1", EVENT, 2, &[]);
    let held = api.hold(call.clone()).await;
    assert_eq!((held.status(), held.hold_id.as_str()), (HoldStatus::Active, "r1"));
    assert!(held.reserved_seats.is_empty() && held.error.is_none());
    let wished = call.hold_expires_at.unwrap();
    let got = held.hold_expires_at.unwrap();
    assert_eq!(got.seconds, wished.seconds);
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
    let sold = api.commit(sell("r1", EVENT, 2, &[])).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    assert!(sold.order_id.starts_with("ord_") && sold.committed_at.is_some());
    // A repeat returns the same order and changes no stock.
    assert_eq!(api.commit(sell("r1", EVENT, 2, &[])).await, sold);
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
}

#[tokio::test]
async fn create_and_confirm_the_offered_seats() {
    let (_store, _server, api) = selling().await;
    let found = api.check(check(HALL, 3)).await;
    assert!(found.available, "{found:?}");
    assert_eq!(found.available_seats.len(), 3);
    assert_eq!(found.remaining_in_section, 14);
    assert_described(&found.available_seats, SeatStatus::Available);
    let offered = ids(&found.available_seats);
    let held = api.hold(hold("r1", HALL, 3, &offered)).await;
    assert_eq!(held.status(), HoldStatus::Active, "{held:?}");
    assert_eq!(ids(&held.reserved_seats), offered);
    assert_described(&held.reserved_seats, SeatStatus::Reserved);
    // The seats are offered to no other call.
    for _ in 0..20 {
        let other = api.check(check(HALL, 3)).await;
        let other = ids(&other.available_seats);
        assert!(other.iter().all(|id| !offered.contains(id)), "{other:?}");
    }
    let sold = api.commit(sell("r1", HALL, 3, &offered)).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    assert_eq!(ids(&sold.sold_seats), offered);
    assert_described(&sold.sold_seats, SeatStatus::Sold);
}

#[tokio::test]
async fn cancel_returns_the_stock_once() {
    let (_store, server, api) = selling().await;
    api.hold(hold("r1", EVENT, 4, &[])).await;
    let seats = ["A-1-1".to_owned(), "A-1-2".to_owned()];
    api.hold(hold("r2", HALL, 2, &seats)).await;
    for (id, event, had) in [("r1", EVENT, 0), ("r2", HALL, 2)] {
        let cancel = ReleaseHoldRequest { reason: "CANCELLED".to_owned(), ..give_up(id, event) };
        let first = api.release(cancel.clone()).await;
        assert_eq!(first.status(), ReleaseStatus::Success, "{first:?}");
        assert_eq!(first.released_seats.len(), had);
        assert_described(&first.released_seats, SeatStatus::Available);
        assert!(first.released_at.is_some());
        // Five repeats.
        for _ in 0..5 {
            let again = api.release(cancel.clone()).await;
            assert_eq!(again.status(), ReleaseStatus::AlreadyReleased);
            assert!(again.released_seats.is_empty() && again.error.is_none());
            assert_eq!(again.released_at, first.released_at);
        }
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 10);
    let stats = api.status(HALL, "").await.stats.unwrap();
    assert_eq!((stats.available_seats, stats.reserved_seats), (14, 0));
}

#[tokio::test]
async fn cancel_after_confirm_is_rejected_in_the_response() {
    let (_store, server, api) = selling().await;
    let seat = ["B-1-1".to_owned()];
    api.commit(sell("r1", EVENT, 2, &[])).await;
    api.commit(sell("r2", HALL, 1, &seat)).await;
    for (id, event) in [("r1", EVENT), ("r2", HALL)] {
        let refused = api.release(give_up(id, event)).await;
        assert_eq!(refused.status(), ReleaseStatus::Failed);
        let error = refused.error.unwrap();
        assert_eq!(error.code(), ErrorCode::FailedPrecondition);
        assert_eq!(error.details[0].reason, "RESERVATION_COMMITTED");
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
    let asked = CheckAvailabilityRequest { seat_ids: seat.to_vec(), ..check(HALL, 0) };
    let found = api.check(asked).await;
    assert!(!found.available);
    assert_eq!(found.unavailable_seat_ids, ["B-1-1"]);
}

#[tokio::test]
async fn release_before_its_hold_prevents_the_hold() {
    let (_store, server, api) = selling().await;
    for (id, event, seats) in [("r1", EVENT, Vec::new()), ("r2", HALL, vec!["A-1-1".to_owned()])] {
        let nothing = api.release(give_up(id, event)).await;
        assert_eq!(nothing.status(), ReleaseStatus::NotFound, "{nothing:?}");
        assert_eq!(nothing.error, None);
        let late = api.hold(hold(id, event, 1, &seats)).await;
        assert_eq!(late.status(), HoldStatus::Released, "{late:?}");
        assert_eq!(late.error.unwrap().code(), ErrorCode::FailedPrecondition);
        let later = api.commit(sell(id, event, 1, &seats)).await;
        assert_eq!(later.status(), CommitStatus::FailedConflict);
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 10);
    let stats = api.status(HALL, "").await.stats.unwrap();
    assert_eq!(stats.available_seats, 14);
}
