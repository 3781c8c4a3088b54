//! Refusals that name their cause, the same on both contracts: unknown sections, closed events, other payments, more seats
//! than fit into one reservation.

use std::time::Instant;

use inventory_proto::common::v1::{Error, ErrorCode};
use inventory_proto::inventory::v1::{
    CheckReq, CloseEventRequest, CommitReq, CreateEventRequest, ImportSeatsRequest, NewSeat,
    PlaceHoldReq, Price,
};
use inventory_proto::reservation::v1::*;

use super::*;
use crate::client::{
    InventoryCalls, InventoryClient, MetricsSample, admin, assert_rejected, client, commit,
    seats as refs, until,
};

/// Checks code, reason and field of an error within a response.
#[track_caller]
fn assert_error(error: Option<Error>, code: ErrorCode, reason: &str, field: &str) {
    let error = error.unwrap_or_else(|| panic!("no error, {reason} expected"));
    assert_eq!(error.code(), code, "{error:?}");
    assert_ne!(error.message, "");
    let detail = &error.details[0];
    assert_eq!((&detail.reason[..], &detail.field[..]), (reason, field), "{error:?}");
}

async fn hold_units(
    client: &InventoryClient,
    id: &str,
    event: &str,
    qty: i32,
    section: &str,
) -> Result<(), Status> {
    let call = PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        qty,
        section: section.to_owned(),
        ..PlaceHoldReq::default()
    };
    client.clone().place_hold(with_deadline(call)).await.map(drop)
}

fn section_check(event: &str, section: &str) -> CheckAvailabilityRequest {
    CheckAvailabilityRequest { section: section.to_owned(), ..check(event, 2) }
}

#[tokio::test]
async fn unknown_section_is_not_found_on_every_call() {
    let (_store, server, api) = selling().await;
    let client = client(&server).await;
    for section in ["a", "Stalls"] {
        let found = api.check(section_check(HALL, section)).await;
        assert!(!found.available);
        assert_error(found.error, ErrorCode::NotFound, "SECTION_NOT_FOUND", "section");
        let status = api.status(HALL, section).await;
        assert_error(status.error, ErrorCode::NotFound, "SECTION_NOT_FOUND", "section");
        let refused = hold_units(&client, "r1", HALL, 2, section).await.unwrap_err();
        assert_rejected(&refused, Code::NotFound, "SECTION_NOT_FOUND", HALL, "r1");
        let info = refused.get_details_error_info().unwrap().metadata;
        assert_eq!((&info["section"][..], &info["sections"][..]), (section, "A,B"));
        let nearest = (section == "a").then_some("A");
        assert_eq!(info.get("nearest").map(String::as_str), nearest);
    }
    // The rejected reservation is unused, and a section that exists is sold out as before.
    let refused = hold_units(&client, "r1", HALL, 5, "B").await.unwrap_err();
    assert_rejected(&refused, Code::Aborted, "INSUFFICIENT_INVENTORY", HALL, "r1");
    hold_units(&client, "r1", HALL, 4, "B").await.unwrap();
}

/// A repeat is answered by its record: the section may have been renamed since.
#[tokio::test]
async fn repeat_of_a_hold_is_answered_whatever_its_section_is() {
    let (_store, server, api) = selling().await;
    api.hold(hold("r1", HALL, 2, &[])).await;
    hold_units(&client(&server).await, "r1", HALL, 2, "renamed").await.unwrap();
}

#[tokio::test]
async fn section_is_ignored_in_a_quantity_event() {
    let (_store, server, api) = selling().await;
    let found = api.check(section_check(EVENT, "Stalls")).await;
    assert!(found.available && found.error.is_none());
    hold_units(&client(&server).await, "r1", EVENT, 2, "Stalls").await.unwrap();
    let status = api.status(EVENT, "Stalls").await;
    assert_eq!(status.error, None);
    assert_eq!(status.stats.unwrap().available_seats, 8);
}

async fn close(server: &TestServer, event: &str) {
    let call = CloseEventRequest { event_id: event.to_owned() };
    admin(server).await.close_event(call).await.unwrap();
}

#[tokio::test]
async fn closed_event_says_so_in_every_answer() {
    let (_store, server, api) = selling().await;
    let client = client(&server).await;
    api.hold(hold("held", HALL, 2, &[])).await;
    for (event, remaining) in [(EVENT, 10), (HALL, 12)] {
        // The status is cached while the event is open.
        assert_eq!(api.status(event, "").await.error, None);
        close(&server, event).await;
        let closed = (ErrorCode::FailedPrecondition, "EVENT_CLOSED", "event_id");
        let seats = ["A-2-5".to_owned()];
        let named = CheckAvailabilityRequest { seat_ids: seats.to_vec(), ..check(event, 0) };
        for (call, unavailable) in [(check(event, 1), &[][..]), (named, &seats[..])] {
            let found = api.check(call).await;
            assert!(!found.available && found.available_seats.is_empty());
            assert_eq!(found.unavailable_seat_ids, unavailable);
            assert_error(found.error, closed.0, closed.1, closed.2);
        }
        for seat_ids in [Vec::new(), refs(&["A-2-5"])] {
            let call = CheckReq { event_id: event.to_owned(), qty: 1, seat_ids };
            let refused = client.try_check(call).await.unwrap_err();
            assert_rejected(&refused, Code::FailedPrecondition, "EVENT_CLOSED", event, "");
        }
        // The figures stay, beside the reason why nobody can have them.
        for _ in 0..2 {
            let status = api.status(event, "").await;
            assert_eq!(status.stats.unwrap().available_seats, remaining);
            assert_error(status.error, closed.0, closed.1, closed.2);
        }
        let refused = hold_units(&client, "new", event, 1, "").await.unwrap_err();
        assert_rejected(&refused, Code::FailedPrecondition, "EVENT_CLOSED", event, "new");
    }
    let sold = api.commit(sell("held", HALL, 0, &[])).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
}

fn paid(payment: &str, call: CommitReq) -> CommitReq {
    CommitReq { payment_intent_id: payment.to_owned(), ..call }
}

fn pay(payment: &str, call: CommitReservationRequest) -> CommitReservationRequest {
    CommitReservationRequest { payment_intent_id: payment.to_owned(), ..call }
}

const CONFLICTS: &str = r#"inventory_conflicts_total{conflict_type="PAYMENT_CONFLICT"}"#;

#[tokio::test]
async fn second_payment_is_refused_and_counted() {
    let (store, server, api) = selling_as(|command| command.env("SHARDS", "1")).await;
    let other = store.server_command().start();
    let (inventory, elsewhere) = (client(&server).await, client(&other).await);
    let mut refusals = 0.0;
    // A direct commit, a commit of held units, and one of held seats.
    api.hold(hold("held", EVENT, 2, &[])).await;
    api.hold(hold("seats", HALL, 2, &[])).await;
    for (id, event, qty) in [("direct", EVENT, 1), ("held", EVENT, 2), ("seats", HALL, 2)] {
        let order = inventory.order(paid("pay_first", commit(id, event, qty))).await;
        // From the record cache, and from the store.
        for client in [&inventory, &elsewhere, &inventory] {
            let call = paid("pay_second", commit(id, event, qty));
            let refused = client.try_commit(call).await.unwrap_err();
            assert_rejected(&refused, Code::AlreadyExists, "IDEMPOTENCY_CONFLICT", event, id);
            let info = refused.get_details_error_info().unwrap().metadata;
            assert_eq!(info["order_id"], order);
            assert_eq!(info["field"], "payment_intent_id");
        }
        let answer = api.commit(pay("pay_second", sell(id, event, 0, &[]))).await;
        assert_eq!(answer.status(), CommitStatus::FailedConflict);
        assert_eq!(answer.order_id, order);
        let code = ErrorCode::IdempotencyConflict;
        assert_error(answer.error, code, "IDEMPOTENCY_CONFLICT", "payment_intent_id");
        refusals += 3.0;
        // The recorded payment, and none, which means the recorded one.
        for payment in ["pay_first", ""] {
            let again = inventory.order(paid(payment, commit(id, event, qty))).await;
            assert_eq!(again, order);
            let again = api.commit(pay(payment, sell(id, event, 0, &[]))).await;
            assert_eq!((again.status(), again.order_id), (CommitStatus::Success, order.clone()));
        }
    }
    assert_eq!(MetricsSample::scrape(&server).await.get(CONFLICTS), refusals);
    let is_line = |line: &&str| {
        line.contains(r#""msg":"payment conflict""#) && line.contains(r#""level":"warn""#)
    };
    assert!(server.log.wait_for(|text| text.lines().any(|line| is_line(&line))));
    let text = server.log.text();
    let lines: Vec<&str> = text.lines().filter(is_line).collect();
    // At most one per second, and the first at once.
    assert!(lines.len() < 9 && lines[0].contains(r#""reservation_id":"direct""#), "{lines:?}");
}

#[tokio::test]
async fn first_payment_of_an_order_without_one_is_recorded() {
    let (store, server, api) = selling_as(|command| command.env("SHARDS", "2")).await;
    let other = store.server_command().start();
    let (inventory, elsewhere) = (client(&server).await, client(&other).await);
    for (id, event, qty) in [("direct", EVENT, 1), ("seats", HALL, 2)] {
        let order = inventory.order(paid("", commit(id, event, qty))).await;
        let first = api.commit(pay("", sell(id, event, 0, &[]))).await;
        let again = api.commit(pay("pay_first", sell(id, event, 0, &[]))).await;
        assert_eq!((again.status(), &again.order_id), (CommitStatus::Success, &order));
        assert_eq!(again.committed_at, first.committed_at, "a payment is no transition");
        assert_eq!(elsewhere.order(paid("pay_first", commit(id, event, qty))).await, order);
        for client in [&inventory, &elsewhere] {
            let call = paid("pay_second", commit(id, event, qty));
            let refused = client.try_commit(call).await.unwrap_err();
            assert_rejected(&refused, Code::AlreadyExists, "IDEMPOTENCY_CONFLICT", event, id);
        }
        // A payment takes nothing away from the order.
        assert_eq!(inventory.order(paid("", commit(id, event, qty))).await, order);
    }
    // Of two payments at once one is recorded.
    for round in 0..8 {
        let id = format!("late{round}");
        let order = inventory.order(paid("", commit(&id, EVENT, 1))).await;
        let calls = [(&inventory, "pay_first"), (&elsewhere, "pay_second")];
        let calls = calls.map(async |(client, payment)| {
            let answer = client.try_commit(paid(payment, commit(&id, EVENT, 1))).await;
            answer.map(|answer| answer.order_id).map_err(|status| status.code())
        });
        let [one, two] = calls;
        let mut answers = <[_; 2]>::from(tokio::join!(one, two));
        answers.sort_by_key(Result::is_err);
        assert_eq!(answers, [Ok(order), Err(Code::AlreadyExists)]);
    }
}

#[tokio::test]
async fn two_payments_at_once_do_not_both_get_an_order() {
    let (store, server, _api) = selling_as(|command| command.env("SHARDS", "2")).await;
    let other = store.server_command().start();
    let clients = [client(&server).await, client(&other).await];
    for round in 0..20 {
        let id = format!("r{round}");
        // The third call may join the first, which has another payment.
        let calls =
            [("pay_first", 0), ("pay_second", 1), ("pay_third", 0)].map(async |(payment, at)| {
                let answer = clients[at].try_commit(paid(payment, commit(&id, HALL, 1))).await;
                answer.map_err(|status| status.code())
            });
        let [first, second, third] = calls;
        let answers = tokio::join!(first, second, third);
        let answers = [answers.0, answers.1, answers.2];
        if round >= 14 {
            assert!(answers.iter().all(|answer| answer == &Err(Code::Aborted)), "{answers:?}");
            continue;
        }
        let orders = answers.iter().filter(|answer| answer.is_ok()).count();
        let refused = answers.iter().filter(|a| **a == Err(Code::AlreadyExists)).count();
        assert_eq!((orders, refused), (1, 2), "{answers:?}");
    }
}

/// A hall of `seats` seats in one row per fifty.
fn large_hall(seats: u32) -> Vec<HallSeat> {
    let rows = (0..seats.div_ceil(50)).map(|n| row("A", ROWS[n as usize], 50, 9_900));
    rows.flatten().collect()
}

const ROWS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];

#[tokio::test]
async fn more_seats_than_fit_into_a_transaction_are_refused_at_once() {
    let store = FakeStore::start();
    seat_event(&store, HALL, 3, &large_hall(400));
    let server = store.server_command().env("MAX_QTY", "500").env("SHARDS", "1").start();
    create(&server, EVENT, 1_000, 1).await;
    let (api, client) = (ReservationApi::of(&server).await, client(&server).await);
    let began = Instant::now();
    for qty in [100, 500] {
        let refused = hold_units(&client, "r1", HALL, qty, "").await.unwrap_err();
        assert_rejected(&refused, Code::InvalidArgument, "INVALID_ARGUMENT", HALL, "r1");
        assert_eq!(field_of(&refused), ("qty".to_owned(), true), "{refused:?}");
        let refused = client.try_commit(commit("r1", HALL, qty)).await.unwrap_err();
        assert_eq!(field_of(&refused), ("qty".to_owned(), true), "{refused:?}");
        let call = CheckReq { event_id: HALL.to_owned(), qty, ..CheckReq::default() };
        let refused = client.try_check(call).await.unwrap_err();
        assert_eq!(field_of(&refused), ("qty".to_owned(), true), "{refused:?}");
        let refused = api.try_hold(hold("r1", HALL, qty, &[])).await.unwrap_err();
        assert_eq!(field_of(&refused), ("quantity".to_owned(), true), "{refused:?}");
        let call = with_deadline(check(HALL, qty));
        let refused = api.0.clone().check_availability(call).await.unwrap_err();
        assert_eq!(field_of(&refused), ("quantity".to_owned(), true), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The most that fit, held as offered, sold by name, and repeated.
    let found = api.check(check(HALL, 99)).await;
    assert_eq!(found.available_seats.len(), 99);
    let seats = ids(&found.available_seats);
    let held = api.hold(hold("r1", HALL, 99, &seats)).await;
    assert_eq!(held.status(), HoldStatus::Active, "{held:?}");
    let order = api.commit(sell("r1", HALL, 99, &seats)).await.order_id;
    assert_eq!(api.commit(sell("r1", HALL, 99, &seats)).await.order_id, order);
    // Units are not bounded by the transaction.
    hold_units(&client, "r2", EVENT, 500, "").await.unwrap();
    // A hall with fewer seats than that.
    api.hold(hold("r3", HALL, 99, &[])).await;
    api.hold(hold("r4", HALL, 99, &[])).await;
    api.hold(hold("r5", HALL, 99, &[])).await;
    let refused = hold_units(&client, "r6", HALL, 99, "").await.unwrap_err();
    assert_rejected(&refused, Code::Aborted, "INSUFFICIENT_INVENTORY", HALL, "r6");
    until("all holds are answered", async || {
        MetricsSample::scrape(&server).await.sum("grpc_active_requests") == 0.0
    })
    .await;
}

/// The first invalid field, and whether its description names the bound.
#[track_caller]
fn field_of(status: &Status) -> (String, bool) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violation = status.get_details_bad_request().unwrap().field_violations.remove(0);
    (violation.field, violation.description.contains("1 to 99"))
}

async fn import(server: &TestServer, amount: i64) {
    let seat = |number: i32| NewSeat {
        seat_id: format!("A-1-{number}"),
        section: "A".to_owned(),
        row: "1".to_owned(),
        number: number.to_string(),
        price: Some(Price { amount, currency: "KRW".to_owned() }),
    };
    let seats = (1..=4).map(seat).collect();
    let chunk = ImportSeatsRequest { event_id: "evt_priced".to_owned(), seats };
    admin(server).await.import_seats(futures::stream::iter([chunk])).await.unwrap();
}

#[track_caller]
fn assert_prices(seats: &[Seat], amount: i64) {
    let prices: Vec<_> = seats.iter().map(|seat| seat.price.as_ref().unwrap().amount).collect();
    assert_eq!(prices, [amount, amount]);
}

/// Each step finds a seat map that was dropped by the import.
#[tokio::test]
async fn price_of_a_reservation_stays_as_it_was_recorded() {
    const PRICED: &str = "evt_priced";
    let server = ServerCommand::dev_in_memory().start();
    let event = CreateEventRequest {
        event_id: PRICED.to_owned(),
        seat_keys: 1,
        ..CreateEventRequest::default()
    };
    admin(&server).await.create_event(event).await.unwrap();
    import(&server, 90_000).await;
    let api = ReservationApi::of(&server).await;
    let named = ["A-1-1".to_owned(), "A-1-2".to_owned()];
    assert_prices(&api.hold(hold("named", PRICED, 0, &named)).await.reserved_seats, 90_000);
    import(&server, 120_000).await;
    assert_prices(&api.hold(hold("named", PRICED, 0, &named)).await.reserved_seats, 90_000);
    assert_prices(&api.commit(sell("named", PRICED, 0, &[])).await.sold_seats, 90_000);
    import(&server, 50_000).await;
    assert_prices(&api.commit(sell("named", PRICED, 0, &[])).await.sold_seats, 90_000);
    // A direct commit of chosen seats has the price of its own time.
    assert_prices(&api.commit(sell("direct", PRICED, 2, &[])).await.sold_seats, 50_000);
    import(&server, 70_000).await;
    assert_prices(&api.commit(sell("direct", PRICED, 2, &[])).await.sold_seats, 50_000);
}
