//! How long a hold lasts, and what becomes of who comes after it.

use std::time::{Duration, Instant, SystemTime};

use inventory_proto::common::v1::ErrorCode;
use inventory_proto::reservation::v1::*;

use super::*;
use crate::client::stock;
use crate::server::PATIENCE;

/#[tokio::test]
async fn a_late_commit_is_sold_while_its_stock_is_there() {
    let (_stage, server, api) = selling().await;
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
async fn a_late_commit_fails_as_expired_once_others_have_its_stock() {
    let (_stage, _server, api) = selling().await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    // From its end on a hold counts for nothing, whether or not it has been cleared away.
    let deadline = Instant::now() + PATIENCE;
    let mut taken = 0;
    while taken < 10 {
        let id = format!("other-{taken}");
        let sold = api.commit(sell(&id, EVENT, 1, &[])).await;
        match sold.status() {
            CommitStatus::Success => taken += 1,
            _ => assert!(Instant::now() < deadline, "never free: {sold:?}"),
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
async fn an_operator_can_have_late_commits_rejected() {
    let (_stage, _server, api) = selling_as(|launch| launch.env("LATE_COMMIT", "reject")).await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let late = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(late.status(), CommitStatus::FailedExpired, "{late:?}");
    }
}

#[tokio::test]
async fn a_hold_lasts_as_long_as_wished_for_or_usual_and_no_longer_than_allowed() {
    let (_stage, _server, api) =
        selling_as(|launch| launch.env("HOLD_TTL", "100s").env("HOLD_TTL_MAX", "200s")).await;
    let wish = |id: &str, ahead: Option<u64>| ReserveSeatRequest {
        hold_expires_at: ahead.map(|s| (SystemTime::now() + Duration::from_secs(s)).into()),
        ..hold(id, EVENT, 1, &[])
    };
    for (id, ahead, wanted) in [
        ("r1", None, 100),
        ("r2", Some(150), 150),
        ("r3", Some(100_000), 200),
    ] {
        let held = api.hold(wish(id, ahead)).await;
        let got = seconds_ahead(held.hold_expires_at);
        assert!((wanted - 5..=wanted).contains(&got), "{id}: {got}");
        // A repeat never extends, whatever it wishes for.
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
