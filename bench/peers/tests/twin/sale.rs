//! The peer sells right, in both modes, on a real engine, over real sockets: what it is compared with
//! the server on is cost, so it must not be cheaper by being wrong.

use std::time::Duration;

use crate::engine::{IDEMPOTENCY, INVENTORY, Item, number, text};
use crate::stage::{EVENT, PATIENCE, commit, hold, peer, release, said, stage, timed};
use inventory_client::{InventoryClient, connect};
use inventory_peers::sale::Mode;
use inventory_proto::inventory::v1::{CheckReq, GetReservationReq, SeatRef};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

const MODES: [Mode; 2] = [Mode::Transaction, Mode::Optimistic];

fn pair(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

async fn shown(client: &mut InventoryClient, reservation: &str) -> (String, i32) {
    let reservation_id = reservation.to_owned();
    let asked = timed(GetReservationReq { reservation_id }, PATIENCE);
    let shown = client.get_reservation(asked).await.unwrap().into_inner();
    (shown.status, shown.qty)
}

#[tokio::test]
async fn a_commit_counts_once_and_its_record_is_the_servers() {
    for mode in MODES {
        let (engine, mut client) = stage(mode).await;
        engine.create_event(EVENT, &[10]).await;
        for _ in 0..2 {
            let answer = client.commit_reservation(commit("rsv_abc123", 2)).await;
            let answer = answer.unwrap().into_inner();
            assert_eq!(answer.order_id, "ord_97c42ccd0e7f05c61e74ba7eda007525");
            assert_eq!(answer.status, "CONFIRMED");
        }
        assert_eq!(engine.stripe(EVENT).await, (8, 1), "{mode:?}");

        let other = client.commit_reservation(commit("rsv_abc123", 3)).await;
        let conflict = pair(Code::AlreadyExists, "IDEMPOTENCY_CONFLICT");
        assert_eq!(said(other), conflict);
        let late = client.release_hold(release("rsv_abc123", 2)).await;
        let sold = pair(Code::FailedPrecondition, "RESERVATION_COMMITTED");
        assert_eq!(said(late), sold);
        let late = client.place_hold(hold("rsv_abc123", 2)).await;
        assert_eq!(said(late), sold);
        assert_eq!(engine.stripe(EVENT).await, (8, 1), "{mode:?}");
        let confirmed = ("CONFIRMED".to_owned(), 2);
        assert_eq!(shown(&mut client, "rsv_abc123").await, confirmed);

        let mut record = engine.record("rsv_abc123").await.unwrap();
        let created = record.remove("created_at").unwrap();
        assert_eq!(record.remove("updated_at").unwrap(), created);
        let wanted = [
            ("reservation_id", text("rsv_abc123")),
            ("event_id", text(EVENT)),
            ("qty", number(2)),
            ("request_hash", text("65fd69e9dac157469589889bc0eda924")),
            ("status", text("CONFIRMED")),
            ("order_id", text("ord_97c42ccd0e7f05c61e74ba7eda007525")),
            ("draws", text("0:2")),
            ("payment_intent_id", text("pay_1")),
        ];
        let wanted: Item = wanted.map(|(name, v)| (name.to_owned(), v)).into();
        assert_eq!(record, wanted);
    }
}

#[tokio::test]
async fn a_hold_is_paid_for_without_the_stock_or_goes_back_once() {
    for mode in MODES {
        let (engine, mut client) = stage(mode).await;
        engine.create_event(EVENT, &[10]).await;
        let first = client.place_hold(hold("paid", 3)).await.unwrap();
        let again = client.place_hold(hold("paid", 3)).await.unwrap();
        let (first, again) = (first.into_inner(), again.into_inner());
        assert_eq!(first.status, "HELD");
        // A repeat never extends.
        assert_eq!(first.hold_expires_at, again.hold_expires_at);
        assert_eq!(engine.stripe(EVENT).await, (7, 1), "{mode:?}");
        assert!(
            engine
                .record("paid")
                .await
                .unwrap()
                .contains_key("expiry_bucket")
        );
        client.commit_reservation(commit("paid", 3)).await.unwrap();
        assert_eq!(engine.stripe(EVENT).await, (7, 1), "{mode:?}");
        let record = engine.record("paid").await.unwrap();
        assert_eq!(record["status"], text("CONFIRMED"));
        assert_eq!(record["draws"], text("0:3"));
        assert!(!record.contains_key("expiry_bucket"));

        client.place_hold(hold("given", 4)).await.unwrap();
        assert_eq!(engine.stripe(EVENT).await, (3, 2), "{mode:?}");
        for _ in 0..2 {
            let answer = client.release_hold(release("given", 4)).await.unwrap();
            assert_eq!(answer.into_inner().status, "RELEASED");
        }
        assert_eq!(engine.stripe(EVENT).await, (7, 3), "{mode:?}");
        let late = client.commit_reservation(commit("given", 4)).await;
        let released = pair(Code::FailedPrecondition, "RESERVATION_RELEASED");
        assert_eq!(said(late), released);

        // A release that comes first bars what comes after it.
        client.release_hold(release("never", 1)).await.unwrap();
        let late = client.place_hold(hold("never", 1)).await;
        assert_eq!(said(late), released);
        assert!(
            engine
                .record("never")
                .await
                .unwrap()
                .contains_key("purge_at")
        );
        assert_eq!(engine.stripe(EVENT).await, (7, 3), "{mode:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_sold_says_why() {
    for mode in MODES {
        let (engine, mut client) = stage(mode).await;
        let unknown = client.commit_reservation(commit("r", 1)).await;
        assert_eq!(said(unknown), pair(Code::NotFound, "EVENT_NOT_FOUND"));
        assert!(engine.record("r").await.is_none());

        engine.create_event(EVENT, &[2]).await;
        let check = |qty| {
            let event_id = EVENT.to_owned();
            let check = CheckReq {
                event_id,
                qty,
                ..CheckReq::default()
            };
            timed(check, PATIENCE)
        };
        for (qty, available) in [(2, true), (3, false)] {
            let answer = client.check_availability(check(qty)).await.unwrap();
            assert_eq!(answer.into_inner().available, available, "{qty}");
        }
        let more = client.commit_reservation(commit("r3", 3)).await;
        let sold_out = pair(Code::Aborted, "INSUFFICIENT_INVENTORY");
        assert_eq!(said(more), sold_out);
        client.commit_reservation(commit("r2", 2)).await.unwrap();
        let more = client.place_hold(hold("r1", 1)).await;
        assert_eq!(said(more), sold_out);
        // What was sold is still known when nothing is left.
        client.commit_reservation(commit("r2", 2)).await.unwrap();
        assert_eq!(engine.stripe(EVENT).await, (0, 1), "{mode:?}");

        let bad = client.commit_reservation(commit("r", -5)).await;
        assert_eq!(said(bad), pair(Code::InvalidArgument, "INVALID_ARGUMENT"));
        let mut seats = commit("r", 1);
        let seat_id = "A-1".to_owned();
        seats.get_mut().seat_ids.push(SeatRef { seat_id });
        let seats = client.commit_reservation(seats).await;
        assert_eq!(said(seats).0, Code::Unimplemented);
    }
}

#[tokio::test]
async fn a_closed_event_pays_holds_and_sells_nothing_new() {
    for mode in MODES {
        let (engine, mut client) = stage(mode).await;
        engine.create_event(EVENT, &[5]).await;
        client.place_hold(hold("held", 2)).await.unwrap();
        let mut stripe = engine.item(INVENTORY, "event_id", EVENT).await.unwrap();
        let closed = aws_sdk_dynamodb::types::AttributeValue::Bool(true);
        stripe.insert("closed".to_owned(), closed);
        engine.put(INVENTORY, stripe).await;
        let late = client.commit_reservation(commit("late", 1)).await;
        assert_eq!(said(late), pair(Code::FailedPrecondition, "EVENT_CLOSED"));
        client.commit_reservation(commit("held", 2)).await.unwrap();
        assert_eq!(engine.stripe(EVENT).await.0, 3, "{mode:?}");
    }
}

#[tokio::test]
async fn an_expired_hold_is_bought_again_if_there_is_stock() {
    for mode in MODES {
        let (engine, mut client) = stage(mode).await;
        engine.create_event(EVENT, &[4]).await;
        for reservation in ["first", "second"] {
            client.place_hold(hold(reservation, 2)).await.unwrap();
            // As the server's reclaimer leaves it.
            let mut record = engine.record(reservation).await.unwrap();
            record.insert("status".to_owned(), text("EXPIRED"));
            record.remove("expiry_bucket");
            engine.put(IDEMPOTENCY, record).await;
        }
        engine.create_event(EVENT, &[3]).await;
        let again = client.place_hold(hold("first", 2)).await;
        let gone = pair(Code::FailedPrecondition, "HOLD_EXPIRED");
        assert_eq!(said(again), gone);
        client.commit_reservation(commit("first", 2)).await.unwrap();
        assert_eq!(engine.stripe(EVENT).await.0, 1, "{mode:?}");
        let late = client.commit_reservation(commit("second", 2)).await;
        assert_eq!(said(late), gone);
    }
}

#[tokio::test]
async fn the_last_units_of_several_stripes_go_to_one_buyer() {
    for mode in MODES {
        let (engine, mut client) = stage(mode).await;
        engine.create_event(EVENT, &[1, 2, 1]).await;
        client.commit_reservation(commit("all", 4)).await.unwrap();
        let record = engine.record("all").await.unwrap();
        let draws = record["draws"].as_s().unwrap();
        assert!(draws.starts_with("1:2,"), "{draws}");
        for key in [EVENT, "evt_2025_1001#1", "evt_2025_1001#2"] {
            assert_eq!(engine.stripe(key).await, (0, 1), "{mode:?} {key}");
        }
        let late = client.commit_reservation(commit("late", 1)).await;
        let sold_out = pair(Code::Aborted, "INSUFFICIENT_INVENTORY");
        assert_eq!(said(late), sold_out);
    }
}

/// Buys one ticket, coming back when asked to; whether it got one.
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
async fn of_50_buyers_20_get_the_20_tickets() {
    for mode in MODES {
        for stock in [&[20][..], &[5, 5, 5, 5]] {
            let (engine, client) = stage(mode).await;
            engine.create_event(EVENT, stock).await;
            let mut buyers = JoinSet::new();
            // Every buyer is there twice: the same reservation is one sale.
            for n in 0..100 {
                buyers.spawn(buy(client.clone(), format!("buyer-{}", n / 2)));
            }
            let told = buyers.join_all().await;
            let told = told.into_iter().filter(|sold| *sold).count();
            let records = engine.records().await;
            let what = format!("{mode:?} {stock:?}");
            assert_eq!(records.len(), 20, "{what}");
            assert_eq!(told, 40, "{what}");
            let mut left = 0;
            for n in 0..stock.len() {
                let key = match n {
                    0 => EVENT.to_owned(),
                    n => format!("{EVENT}#{n}"),
                };
                left += engine.stripe(&key).await.0;
            }
            assert_eq!(left, 0, "{what}");
        }
    }
}

#[tokio::test]
async fn calls_past_the_most_at_once_are_shed() {
    let address = peer("http://127.0.0.1:9", Mode::Transaction, 0, 0).await;
    let mut client = connect(&address.to_string()).await.unwrap();
    let status = client.commit_reservation(commit("r", 1)).await;
    let status = status.unwrap_err();
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(pushback.unwrap(), "100");
    assert_eq!(
        said::<()>(Err(status)),
        pair(Code::ResourceExhausted, "OVERLOADED")
    );
}
