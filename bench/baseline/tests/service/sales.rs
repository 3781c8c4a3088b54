//! The baseline service sells correctly in both write modes: benchmarks compare costs, and an incorrect
//! baseline would be too cheap.

use std::time::Duration;

use crate::fixture::{
    EVENT, IDEMPOTENCY, INVENTORY, PATIENCE, commit, failure, hold, item, release, serve, start,
    stripe_key, with_timeout,
};
use inventory_baseline::WriteMode;
use inventory_client::{InventoryClient, connect};
use inventory_proto::inventory::v1::{CheckReq, GetReservationReq, SeatRef};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

const MODES: [WriteMode; 2] = [WriteMode::Transaction, WriteMode::Optimistic];

fn error(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

async fn status_and_qty(client: &mut InventoryClient, reservation: &str) -> (String, i32) {
    let reservation_id = reservation.to_owned();
    let request = with_timeout(GetReservationReq { reservation_id }, PATIENCE);
    let reservation = client.get_reservation(request).await.unwrap().into_inner();
    (reservation.status, reservation.qty)
}

#[tokio::test]
async fn a_commit_counts_once_and_writes_the_servers_record() {
    for mode in MODES {
        let (store, mut client) = start(mode).await;
        store.create_event(EVENT, &[10]);
        for _ in 0..2 {
            let response = client.commit_reservation(commit("rsv_abc123", 2)).await;
            let response = response.unwrap().into_inner();
            assert_eq!(response.order_id, "ord_97c42ccd0e7f05c61e74ba7eda007525");
            assert_eq!(response.status, "CONFIRMED");
        }
        assert_eq!(store.stripe(EVENT), (8, 1), "{mode:?}");

        let other = client.commit_reservation(commit("rsv_abc123", 3)).await;
        let conflict = error(Code::AlreadyExists, "IDEMPOTENCY_CONFLICT");
        assert_eq!(failure(other), conflict);
        let late = client.release_hold(release("rsv_abc123", 2)).await;
        let sold = error(Code::FailedPrecondition, "RESERVATION_COMMITTED");
        assert_eq!(failure(late), sold);
        let late = client.place_hold(hold("rsv_abc123", 2)).await;
        assert_eq!(failure(late), sold);
        assert_eq!(store.stripe(EVENT), (8, 1), "{mode:?}");
        let confirmed = ("CONFIRMED".to_owned(), 2);
        assert_eq!(status_and_qty(&mut client, "rsv_abc123").await, confirmed);

        let mut record = store.record("rsv_abc123").unwrap();
        let created = record.remove("created_at").unwrap();
        assert_eq!(record.remove("updated_at").unwrap(), created);
        let expected = item(&[
            ("reservation_id", "S", "rsv_abc123"),
            ("event_id", "S", EVENT),
            ("qty", "N", "2"),
            ("request_hash", "S", "65fd69e9dac157469589889bc0eda924"),
            ("status", "S", "CONFIRMED"),
            ("order_id", "S", "ord_97c42ccd0e7f05c61e74ba7eda007525"),
            ("draws", "S", "0:2"),
            ("payment_intent_id", "S", "pay_1"),
        ]);
        assert_eq!(record, expected);
    }
}

#[tokio::test]
async fn a_hold_is_committed_without_stock_or_released_once() {
    for mode in MODES {
        let (store, mut client) = start(mode).await;
        store.create_event(EVENT, &[10]);
        let first = client.place_hold(hold("paid", 3)).await.unwrap();
        let again = client.place_hold(hold("paid", 3)).await.unwrap();
        let (first, again) = (first.into_inner(), again.into_inner());
        assert_eq!(first.status, "HELD");
        // A retry does not extend the hold.
        assert_eq!(first.hold_expires_at, again.hold_expires_at);
        assert_eq!(store.stripe(EVENT), (7, 1), "{mode:?}");
        assert!(store.record("paid").unwrap().contains_key("expiry_bucket"));
        client.commit_reservation(commit("paid", 3)).await.unwrap();
        assert_eq!(store.stripe(EVENT), (7, 1), "{mode:?}");
        let record = store.record("paid").unwrap();
        assert_eq!(record["status"], json!({ "S": "CONFIRMED" }));
        assert_eq!(record["draws"], json!({ "S": "0:3" }));
        assert!(!record.contains_key("expiry_bucket"));

        client.place_hold(hold("given", 4)).await.unwrap();
        assert_eq!(store.stripe(EVENT), (3, 2), "{mode:?}");
        for _ in 0..2 {
            let response = client.release_hold(release("given", 4)).await.unwrap();
            assert_eq!(response.into_inner().status, "RELEASED");
        }
        assert_eq!(store.stripe(EVENT), (7, 3), "{mode:?}");
        let late = client.commit_reservation(commit("given", 4)).await;
        let released = error(Code::FailedPrecondition, "RESERVATION_RELEASED");
        assert_eq!(failure(late), released);

        // A release that arrives first rejects what arrives later.
        client.release_hold(release("never", 1)).await.unwrap();
        let late = client.place_hold(hold("never", 1)).await;
        assert_eq!(failure(late), released);
        assert!(store.record("never").unwrap().contains_key("purge_at"));
        assert_eq!(store.stripe(EVENT), (7, 3), "{mode:?}");
    }
}

#[tokio::test]
async fn sales_that_are_impossible_report_the_reason() {
    for mode in MODES {
        let (store, mut client) = start(mode).await;
        let unknown = client.commit_reservation(commit("r", 1)).await;
        assert_eq!(failure(unknown), error(Code::NotFound, "EVENT_NOT_FOUND"));
        assert!(store.record("r").is_none());

        store.create_event(EVENT, &[2]);
        let check = |qty| {
            let event_id = EVENT.to_owned();
            let check = CheckReq { event_id, qty, ..CheckReq::default() };
            with_timeout(check, PATIENCE)
        };
        for (qty, available) in [(2, true), (3, false)] {
            let response = client.check_availability(check(qty)).await.unwrap();
            assert_eq!(response.into_inner().available, available, "{qty}");
        }
        let more = client.commit_reservation(commit("r3", 3)).await;
        let sold_out = error(Code::Aborted, "INSUFFICIENT_INVENTORY");
        assert_eq!(failure(more), sold_out);
        client.commit_reservation(commit("r2", 2)).await.unwrap();
        let more = client.place_hold(hold("r1", 1)).await;
        assert_eq!(failure(more), sold_out);
        // A retry of a sale succeeds after the event is sold out.
        client.commit_reservation(commit("r2", 2)).await.unwrap();
        assert_eq!(store.stripe(EVENT), (0, 1), "{mode:?}");

        let bad = client.commit_reservation(commit("r", -5)).await;
        assert_eq!(failure(bad), error(Code::InvalidArgument, "INVALID_ARGUMENT"));
        let mut seats = commit("r", 1);
        let seat_id = "A-1".to_owned();
        seats.get_mut().seat_ids.push(SeatRef { seat_id });
        let seats = client.commit_reservation(seats).await;
        assert_eq!(failure(seats).0, Code::Unimplemented);
    }
}

#[tokio::test]
async fn a_closed_event_commits_holds_and_rejects_new_sales() {
    for mode in MODES {
        let (store, mut client) = start(mode).await;
        store.create_event(EVENT, &[5]);
        client.place_hold(hold("held", 2)).await.unwrap();
        let mut stripe = store.item(INVENTORY, "event_id", EVENT).unwrap();
        stripe.insert("closed".to_owned(), json!({ "BOOL": true }));
        store.put(INVENTORY, stripe);
        let late = client.commit_reservation(commit("late", 1)).await;
        assert_eq!(failure(late), error(Code::FailedPrecondition, "EVENT_CLOSED"));
        client.commit_reservation(commit("held", 2)).await.unwrap();
        assert_eq!(store.stripe(EVENT).0, 3, "{mode:?}");
    }
}

#[tokio::test]
async fn an_expired_hold_is_committed_only_if_stock_remains() {
    for mode in MODES {
        let (store, mut client) = start(mode).await;
        store.create_event(EVENT, &[4]);
        for reservation in ["first", "second"] {
            client.place_hold(hold(reservation, 2)).await.unwrap();
            // As the server's reclaimer writes it.
            let mut record = store.record(reservation).unwrap();
            record.insert("status".to_owned(), json!({ "S": "EXPIRED" }));
            record.remove("expiry_bucket");
            store.put(IDEMPOTENCY, record);
        }
        store.create_event(EVENT, &[3]);
        let again = client.place_hold(hold("first", 2)).await;
        let expired = error(Code::FailedPrecondition, "HOLD_EXPIRED");
        assert_eq!(failure(again), expired);
        client.commit_reservation(commit("first", 2)).await.unwrap();
        assert_eq!(store.stripe(EVENT).0, 1, "{mode:?}");
        let late = client.commit_reservation(commit("second", 2)).await;
        assert_eq!(failure(late), expired);
    }
}

#[tokio::test]
async fn the_last_units_of_several_stripes_serve_one_commit() {
    for mode in MODES {
        let (store, mut client) = start(mode).await;
        store.create_event(EVENT, &[1, 2, 1]);
        client.commit_reservation(commit("all", 4)).await.unwrap();
        let record = store.record("all").unwrap();
        let draws = record["draws"]["S"].as_str().unwrap();
        assert!(draws.starts_with("1:2,"), "{draws}");
        for key in [EVENT, "evt_2025_1001#1", "evt_2025_1001#2"] {
            assert_eq!(store.stripe(key), (0, 1), "{mode:?} {key}");
        }
        let late = client.commit_reservation(commit("late", 1)).await;
        let sold_out = error(Code::Aborted, "INSUFFICIENT_INVENTORY");
        assert_eq!(failure(late), sold_out);
    }
}

/// Buys one ticket, retrying while the service is unavailable; returns whether it was sold.
async fn buy(mut client: InventoryClient, reservation: String) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = match client.commit_reservation(commit(&reservation, 1)).await {
            Ok(_) => return true,
            Err(status) => status,
        };
        match status.code() {
            Code::Aborted => return false,
            Code::Unavailable if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            _ => panic!("{reservation}: {status:?}"),
        }
    }
}

#[tokio::test]
async fn twenty_of_fifty_buyers_get_the_twenty_tickets() {
    for mode in MODES {
        for stock in [&[20][..], &[5, 5, 5, 5]] {
            let (store, client) = start(mode).await;
            store.create_event(EVENT, stock);
            let mut buyers = JoinSet::new();
            // Every buyer calls twice: the same reservation is one sale.
            for n in 0..100 {
                buyers.spawn(buy(client.clone(), format!("buyer-{}", n / 2)));
            }
            let sold = buyers.join_all().await;
            let sold = sold.into_iter().filter(|sold| *sold).count();
            let case = format!("{mode:?} {stock:?}");
            assert_eq!((store.record_count(), sold), (20, 40), "{case}");
            let keys = (0..stock.len()).map(|stripe| stripe_key(EVENT, stripe));
            let remaining: u64 = keys.map(|key| store.stripe(&key).0).sum();
            assert_eq!(remaining, 0, "{case}");
        }
    }
}

#[tokio::test]
async fn calls_beyond_the_concurrency_limit_are_rejected() {
    let address = serve("http://127.0.0.1:9", WriteMode::Transaction, 0, 0).await;
    let mut client = connect(&address.to_string()).await.unwrap();
    let status = client.commit_reservation(commit("r", 1)).await;
    let status = status.unwrap_err();
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(pushback.unwrap(), "100");
    assert_eq!(failure::<()>(Err(status)), error(Code::ResourceExhausted, "OVERLOADED"));
}
