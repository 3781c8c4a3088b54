//! Hold duration, and commits after the expiry.

use std::time::{Duration, Instant, SystemTime};

use inventory_proto::common::v1::ErrorCode;
use inventory_proto::reservation::v1::*;
use inventory_testkit::DEADLINE;

use super::*;
use crate::client::stock;

#[tokio::test]
async fn late_commit_succeeds_while_its_stock_is_available() {
    let (_store, server, api) = selling().await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let again = api.hold(hold(id, event, qty, seats)).await;
        assert_eq!(again.status(), HoldStatus::Expired, "{again:?}");
        let error = again.error.unwrap();
        assert_eq!(error.code(), ErrorCode::ReservationExpired);
        let sold = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 7);
}

#[tokio::test]
async fn late_commit_fails_after_its_stock_is_sold() {
    let (_store, _server, api) = selling().await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    // An expired hold blocks no sale, reclaimed or not.
    let deadline = Instant::now() + DEADLINE;
    let mut taken = 0;
    while taken < 10 {
        let id = format!("other-{taken}");
        let sold = api.commit(sell(&id, EVENT, 1, &[])).await;
        match sold.status() {
            CommitStatus::Success => taken += 1,
            _ => assert!(Instant::now() < deadline, "stock is not available: {sold:?}"),
        }
    }
    let sold = api.commit(sell("other", HALL, 1, &seat)).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let late = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(late.status(), CommitStatus::FailedExpired, "{late:?}");
        assert_eq!(late.error.unwrap().code(), ErrorCode::ReservationExpired);
    }
}

#[tokio::test]
async fn late_commits_are_rejected_if_configured() {
    let (_store, _server, api) = selling_as(|command| command.env("LATE_COMMIT", "reject")).await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let late = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(late.status(), CommitStatus::FailedExpired, "{late:?}");
    }
}

#[tokio::test]
async fn hold_duration_is_as_requested_or_the_default_up_to_the_maximum() {
    let (_store, _server, api) =
        selling_as(|command| command.env("HOLD_TTL", "100s").env("HOLD_TTL_MAX", "200s")).await;
    let wish = |id: &str, ahead: Option<u64>| ReserveSeatRequest {
        hold_expires_at: ahead.map(|s| (SystemTime::now() + Duration::from_secs(s)).into()),
        ..hold(id, EVENT, 1, &[])
    };
    for (id, ahead, wanted) in
        [("r1", None, 100), ("r2", Some(150), 150), ("r3", Some(100_000), 200)]
    {
        let held = api.hold(wish(id, ahead)).await;
        let got = seconds_ahead(held.hold_expires_at);
        assert!((wanted - 5..=wanted).contains(&got), "{id}: {got}");
        // A repeat never extends a hold.
        let again = api.hold(wish(id, Some(190))).await;
        assert_eq!(again, held);
    }
    let past = ReserveSeatRequest {
        hold_expires_at: Some((SystemTime::now() - Duration::from_secs(1)).into()),
        ..hold("r4", EVENT, 1, &[])
    };
    let status = api.try_hold(past).await.unwrap_err();
    assert_eq!(fields(&status), ["hold_expires_at"]);
}
