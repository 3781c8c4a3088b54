//! A store that throttles, hangs, loses answers or refuses: callers get the right error at once, and unknown outcomes are
//! resolved.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake_store::{FakeStore, RequestAction, STORE_ERROR_TEXT, store_error};
use inventory_client::reason;
use inventory_core::limits;
use inventory_proto::inventory::v1::{
    BlockSeatsRequest, CloseEventRequest, CreateEventRequest, GetEventRequest, ImportSeatsRequest,
    NewSeat, Price, RefundReservationRequest, SetTotalRequest, UnblockSeatsRequest,
};
use inventory_testkit::http2::{Http2Client, RELEASE};
use inventory_testkit::server::TestServer;
use tonic::{Code, Status};

use crate::client::*;

const EVENT: &str = "evt_outages";
const HALL: &str = "evt_hall";

async fn selling(total: u64) -> (FakeStore, TestServer, InventoryClient) {
    selling_at(total, "50").await
}

/// [`selling`] with this READ_STALENESS_MS.
async fn selling_at(total: u64, staleness: &str) -> (FakeStore, TestServer, InventoryClient) {
    let store = FakeStore::start();
    store.create_event(EVENT, total, 1);
    let server = store.server_command().env("READ_STALENESS_MS", staleness).start();
    let client = client(&server).await;
    // The shards have cached the event and have connections.
    assert!(client.try_check(check(EVENT, 1)).await.unwrap().available);
    client.order(commit("warm", EVENT, 1)).await;
    (store, server, client)
}

/// Errors of the store are for its operator only.
fn assert_discreet(status: &Status) {
    let text = format!("{status:?}").to_lowercase();
    for word in [STORE_ERROR_TEXT, "Exception", "dynamodb", "TransactWriteItems"] {
        assert!(!text.contains(&word.to_lowercase()), "{word} in {text}");
    }
}

/// A store that executes every request up to the first one that changes the event, and throttles all others.
fn throttle_after_the_first_change(store: &FakeStore, event: &'static str) {
    let mut is_changed = false;
    store.set_rule(move |request| {
        let changes = ["TransactWriteItems", "UpdateItem", "PutItem"];
        let is_of_event = request.body.to_string().contains(event);
        match is_changed {
            false => {
                is_changed = changes.contains(&&*request.operation) && is_of_event;
                RequestAction::Execute
            }
            true => store_error(400, "ThrottlingException"),
        }
    });
}

#[track_caller]
fn assert_unfinished(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("may be stored: repeat it"), "{status:?}");
    assert_retryable(status);
    assert_discreet(status);
}

#[tokio::test]
async fn admin_calls_that_may_be_stored_do_not_say_that_they_were_not_executed() {
    let (store, server, client) = selling(10).await;
    client.order(commit("r1", EVENT, 1)).await;
    let mut admin = admin(&server).await;
    throttle_after_the_first_change(&store, EVENT);
    let refund = RefundReservationRequest { reservation_id: "r1".to_owned() };
    assert_unfinished(&admin.refund_reservation(refund.clone()).await.unwrap_err());
    store.clear_rule();
    assert_eq!(store.read_event(EVENT).remaining(), 9, "it was executed");
    throttle_after_the_first_change(&store, EVENT);
    let call = SetTotalRequest { event_id: EVENT.to_owned(), total: 12 };
    assert_unfinished(&admin.set_total(call.clone()).await.unwrap_err());
    throttle_after_the_first_change(&store, EVENT);
    let close = CloseEventRequest { event_id: EVENT.to_owned() };
    assert_unfinished(&admin.close_event(close.clone()).await.unwrap_err());
    // The caches are invalidated also by a call that failed.
    store.clear_rule();
    until("the event is closed", async || {
        let sale = client.try_commit(commit("r2", EVENT, 1)).await;
        sale.is_err_and(|status| reason(&status) == "EVENT_CLOSED")
    })
    .await;

    // Nothing is changed twice.
    assert!(!admin.refund_reservation(refund).await.unwrap().into_inner().refunded);
    admin.set_total(call).await.unwrap();
    admin.close_event(close).await.unwrap();
    assert_eq!(store.read_event(EVENT).remaining(), 11);

    // Nothing was begun: as before.
    store.set_rule(|_| store_error(400, "ThrottlingException"));
    let read = GetEventRequest { event_id: EVENT.to_owned() };
    let status = admin.get_event(read).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

/// An import in messages of one seat each.
fn hall_import(price: i64) -> Vec<ImportSeatsRequest> {
    let message = |number: u32| ImportSeatsRequest {
        event_id: HALL.to_owned(),
        seats: vec![NewSeat {
            seat_id: format!("A-1-{number}"),
            section: "A".to_owned(),
            row: "1".to_owned(),
            number: number.to_string(),
            price: Some(Price { amount: price, currency: "KRW".to_owned() }),
        }],
    };
    (1..=9).map(message).collect()
}

#[tokio::test]
async fn seats_that_may_be_stored_are_not_said_to_be_unchanged() {
    let (store, server, _) = selling(10).await;
    let mut admin = admin(&server).await;
    let hall = CreateEventRequest {
        event_id: HALL.to_owned(),
        seat_keys: 1,
        ..CreateEventRequest::default()
    };
    throttle_after_the_first_change(&store, HALL);
    assert_unfinished(&admin.create_event(hall.clone()).await.unwrap_err());
    store.clear_rule();
    assert!(!admin.create_event(hall).await.unwrap().into_inner().created, "it was executed");

    let new = futures::stream::iter(hall_import(1_000));
    throttle_after_the_first_change(&store, HALL);
    assert_unfinished(&admin.import_seats(new.clone()).await.unwrap_err());
    store.clear_rule();
    admin.import_seats(new).await.unwrap();

    // Seats that exist are read before they are written: also the read of a later message must not deny the first write.
    let changed = futures::stream::iter(hall_import(2_000));
    throttle_after_the_first_change(&store, HALL);
    assert_unfinished(&admin.import_seats(changed.clone()).await.unwrap_err());
    store.clear_rule();
    let done = admin.import_seats(changed).await.unwrap().into_inner();
    assert_eq!((done.unchanged, done.changed), (1, 8));

    let seats = || ["A-1-1", "A-1-2"].map(str::to_owned).to_vec();
    let block = BlockSeatsRequest { event_id: HALL.to_owned(), seat_ids: seats() };
    throttle_after_the_first_change(&store, HALL);
    assert_unfinished(&admin.block_seats(block.clone()).await.unwrap_err());
    store.clear_rule();
    admin.block_seats(block).await.unwrap();
    let unblock = UnblockSeatsRequest { event_id: HALL.to_owned(), seat_ids: seats() };
    throttle_after_the_first_change(&store, HALL);
    assert_unfinished(&admin.unblock_seats(unblock.clone()).await.unwrap_err());
    store.clear_rule();
    admin.unblock_seats(unblock).await.unwrap();

    // Nothing was begun: as before.
    store.set_rule(|_| store_error(400, "ThrottlingException"));
    let import = futures::stream::iter(hall_import(3_000));
    let status = admin.import_seats(import).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test]
async fn throttled_store_is_unavailable_with_a_retry_delay() {
    let (store, server, client) = selling(10).await;
    // Without a timer of the client: the server answers shortly before the deadline.
    let mut raw = Http2Client::connect(&server.grpc).await;
    let timeout = [("grpc-timeout", "400m")];
    store.set_rule(|_| store_error(400, "ThrottlingException"));
    let (status, _) = raw.commit(&commit("r1", EVENT, 1), "400m").await;
    assert_rejected(&status, Code::Unavailable, "STORE_BUSY", EVENT, "r1");
    assert_retryable(&status);
    assert_discreet(&status);
    // Retries within the deadline, with backoff.
    let tries = store.writes().len() - 1;
    assert!((2..60).contains(&tries), "{tries} tries in 400 ms");

    let call = release("r2", EVENT, 1);
    let (status, _) = raw.timed_call(RELEASE, &call, &timeout).await;
    assert_rejected(&status, Code::Unavailable, "STORE_BUSY", EVENT, "r2");
    assert_retryable(&status);
    let (status, _) = raw.check(EVENT, 1, &timeout).await;
    assert_rejected(&status, Code::Unavailable, "STORE_BUSY", EVENT, "");
    assert_retryable(&status);

    store.clear_rule();
    client.order(commit("r1", EVENT, 1)).await;
    assert_eq!(store.read_event(EVENT).remaining(), 8);
}

#[tokio::test]
async fn throttled_attempts_are_retried() {
    let (store, _server, client) = selling(10).await;
    let mut left = 3;
    store.set_rule(move |asked| {
        left -= i32::from(asked.is_write());
        match asked.is_write() && left >= 0 {
            true => store_error(400, "ProvisionedThroughputExceededException"),
            false => RequestAction::Execute,
        }
    });
    client.order(commit("r1", EVENT, 1)).await;
    assert_eq!(store.read_event(EVENT).remaining(), 8);
}

#[tokio::test]
async fn failed_reads_are_retried() {
    let (store, _server, client) = selling(10).await;
    for fault in [(400, "ThrottlingException"), (500, "InternalServerError")] {
        let mut faults = 2;
        store.set_rule(move |_| {
            faults -= 1;
            if faults >= 0 { store_error(fault.0, fault.1) } else { RequestAction::Execute }
        });
        assert!(client.try_check(check(EVENT, 1)).await.unwrap().available);
    }
}

#[tokio::test]
async fn hanging_write_exceeds_the_deadline_and_is_resolved_later() {
    let (store, server, client) = selling(10).await;
    store.set_write_rule(RequestAction::HoldResponse);
    let mut raw = Http2Client::connect(&server.grpc).await;
    let (status, took) = raw.commit(&commit("r1", EVENT, 2), "300m").await;
    let code = Code::DeadlineExceeded;
    assert_rejected(&status, code, "DEADLINE_EXCEEDED", EVENT, "r1");
    assert!(took >= Duration::from_millis(299), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_discreet(&status);

    // A repeated call joins the write in flight and starts no other.
    let writes = store.writes().len();
    let (status, _) = raw.commit(&commit("r1", EVENT, 2), "100m").await;
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(store.writes().len(), writes);

    store.clear_rule();
    let order = client.order(commit("r1", EVENT, 2)).await;
    let stored = store.read_event(EVENT);
    assert_eq!(stored.order_of("r1"), Some(order));
    assert_eq!(stored.remaining(), 7);
    server.stop().await;
}

#[tokio::test]
async fn write_that_never_arrived_is_repeated_with_its_token() {
    let (store, server, client) = selling(10).await;
    // Attempts end after DDB_TIMEOUT; the caller waits longer.
    drop(server);
    let server = store.server_command().env("DDB_TIMEOUT", "150ms").start();
    let client_of_new = crate::client::client(&server).await;
    drop(client);
    let hung = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hung);
    store.set_rule(move |asked| {
        match asked.is_write() && counted.fetch_add(1, Ordering::SeqCst) < 2 {
            true => RequestAction::Hang,
            false => RequestAction::Execute,
        }
    });
    client_of_new.order(commit("r1", EVENT, 2)).await;
    let writes = store.writes();
    let own: Vec<_> = writes.iter().filter(|w| w.body.to_string().contains("\"r1\"")).collect();
    assert!(own.len() >= 3, "{}", own.len());
    assert!(!own[0].token().is_empty());
    assert!(own.iter().all(|w| w.body == own[0].body));
    assert_eq!(store.read_event(EVENT).remaining(), 7);
}

#[tokio::test]
async fn lost_answer_is_resolved_and_sells_once() {
    let (store, _server, client) = selling(10).await;
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    store.set_rule(move |asked| {
        match asked.is_write() && counted.fetch_add(1, Ordering::SeqCst) < 3 {
            true => RequestAction::DropResponse,
            false => RequestAction::Execute,
        }
    });
    let order = client.order(commit("r1", EVENT, 2)).await;
    assert!(lost.load(Ordering::SeqCst) >= 4);
    let stored = store.read_event(EVENT);
    assert_eq!(stored.order_of("r1"), Some(order));
    assert_eq!(stored.remaining(), 7);
    // With the same token: the store recognises the repeat.
    let writes = store.writes();
    let own: Vec<_> = writes.iter().filter(|w| w.body.to_string().contains("\"r1\"")).collect();
    assert!(own.iter().all(|w| w.token() == own[0].token()));
}

#[tokio::test]
async fn disconnected_caller_interrupts_no_write() {
    let (store, server, client) = selling(10).await;
    let writes = store.writes().len();
    store.set_write_rule(RequestAction::HoldResponse);
    let caller = crate::client::client(&server).await;
    let call = tokio::spawn(async move { caller.try_commit(commit("r1", EVENT, 2)).await });
    until("the write is in flight", async || store.writes().len() > writes).await;
    // Ends call and connection.
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    until("the closed connection", async || {
        MetricsSample::scrape(&server).await.sum("inventory_shard_connections") == 1.0
    })
    .await;
    store.clear_rule();
    let order = client.order(commit("r1", EVENT, 2)).await;
    let stored = store.read_event(EVENT);
    assert_eq!(stored.order_of("r1"), Some(order));
    assert_eq!(stored.remaining(), 7);
    assert_eq!(MetricsSample::scrape(&server).await.get("grpc_active_requests"), 0.0);
}

#[tokio::test]
async fn too_many_calls_for_one_reservation_are_resource_exhausted() {
    let (store, _server, client) = selling(10).await;
    store.set_write_rule(RequestAction::HoldResponse);
    let most = limits::CALLS_PER_RESERVATION_MAX;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..most + 40 {
        let client = client.clone();
        calls.spawn(async move { client.try_commit(commit("r1", EVENT, 2)).await });
    }
    // Rejected calls are answered while the others wait.
    let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
    let code = Code::ResourceExhausted;
    assert_rejected(&refused, code, "OVERLOADED", EVENT, "r1");
    assert_retryable(&refused);
    while calls.len() > most + 1 {
        let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(refused.code(), code);
    }
    store.clear_rule();
    let mut orders = std::collections::HashSet::new();
    while let Some(answer) = calls.join_next().await {
        orders.insert(answer.unwrap().unwrap().order_id);
    }
    assert_eq!(orders.len(), 1);
    assert_eq!(store.read_event(EVENT).remaining(), 7);
}

#[tokio::test]
async fn error_text_of_the_store_is_logged_and_not_sent() {
    // Every check reads the store.
    let (store, server, client) = selling_at(10, "0").await;
    for (status, fault, code, reason) in [
        (400, "ValidationException", Code::Internal, "INTERNAL"),
        (400, "AccessDeniedException", Code::Unavailable, "STORE_UNAVAILABLE"),
        (400, "ResourceNotFoundException", Code::Unavailable, "STORE_UNAVAILABLE"),
    ] {
        store.set_rule(move |_| store_error(status, fault));
        let refused = client.try_commit(commit("r1", EVENT, 1)).await.unwrap_err();
        assert_rejected(&refused, code, reason, EVENT, "r1");
        assert_discreet(&refused);
        let refused = client.try_check(check(EVENT, 1)).await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok);
        assert_discreet(&refused);
        // The log has the whole error.
        assert!(server.log.wait_for(|log| log.contains(fault) && log.contains(STORE_ERROR_TEXT)));
    }
    store.clear_rule();
    client.order(commit("r1", EVENT, 1)).await;
    assert_eq!(store.read_event(EVENT).remaining(), 8);
}

#[tokio::test]
async fn invalid_reservation_fails_alone_in_its_batch() {
    let (store, server, client) = selling(500).await;
    // The store rejects the whole transaction that contains the invalid reservation.
    store.set_rule(|asked| match asked.is_write() && asked.body.to_string().contains("invalid") {
        true => store_error(400, "ValidationException"),
        false => RequestAction::ExecuteAfter(Duration::from_millis(20)),
    });
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..60 {
        let client = client.clone();
        let id = if n == 30 { "invalid".to_owned() } else { format!("r{n}") };
        calls.spawn(async move { (id.clone(), client.try_commit(commit(&id, EVENT, 1)).await) });
    }
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            (id, Ok(_)) => assert_ne!(id, "invalid"),
            (id, Err(status)) => {
                assert_eq!(id, "invalid", "{status:?}");
                assert_eq!(status.code(), Code::Internal);
            }
        }
    }
    assert_eq!(store.read_event(EVENT).remaining(), 500 - 1 - 59);
    server.stop().await;
}
