//! The store throttles, hangs, loses answers, refuses: callers are told the truth at once, and what
//! was unknown is resolved.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use inventory_api::limits;
use tonic::{Code, Status};

use crate::client::*;
use crate::proxy::{Act, RAW_TEXT};
use crate::raw::Raw;
use crate::server::Server;
use crate::stage::{Stage, create_at};

const EVENT: &str = "evt_outages";

async fn selling(total: u64) -> (Stage, Server, InventoryClient) {
    selling_at(total, "50").await
}

/// As [`selling`], checks being told stock of at most so many milliseconds of age.
async fn selling_at(total: u64, staleness: &str) -> (Stage, Server, InventoryClient) {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, total, 1);
    let server = stage.launch().env("READ_STALENESS_MS", staleness).start();
    let client = client(&server).await;
    // The shards know the event and have connections from here on.
    assert!(client.checks(check(EVENT, 1)).await.unwrap().available);
    client.order(commit("warm", EVENT, 1)).await;
    (stage, server, client)
}

/// The store's words are for its operator alone.
fn assert_discreet(status: &Status) {
    let told = format!("{status:?}");
    for word in [RAW_TEXT, "Exception", "dynamodb", "TransactWriteItems"] {
        let told = told.to_lowercase();
        assert!(!told.contains(&word.to_lowercase()), "{word} in {told}");
    }
}

#[tokio::test]
async fn a_throttled_store_is_unavailable_and_asks_to_come_again() {
    let (stage, _server, client) = selling(10).await;
    stage.proxy.rule(|_| Act::Fault(400, "ThrottlingException"));
    let call = within(commit("r1", EVENT, 1), Duration::from_millis(400));
    let status = client.clone().commit_reservation(call).await.unwrap_err();
    assert_refused(&status, Code::Unavailable, "STORE_BUSY", EVENT, "r1");
    assert_comes_again(&status);
    assert_discreet(&status);
    // More than once: it is tried again within the deadline, never faster than the backoff.
    let tries = stage.proxy.writes_asked().len() - 1;
    assert!((2..60).contains(&tries), "{tries} tries in 400 ms");

    let call = within(release("r2", EVENT, 1), Duration::from_millis(400));
    let status = client.clone().release_hold(call).await.unwrap_err();
    assert_refused(&status, Code::Unavailable, "STORE_BUSY", EVENT, "r2");
    assert_comes_again(&status);
    let call = within(check(EVENT, 1), Duration::from_millis(400));
    let status = client.clone().check_availability(call).await.unwrap_err();
    assert_refused(&status, Code::Unavailable, "STORE_BUSY", EVENT, "");
    assert_comes_again(&status);

    stage.proxy.pass();
    client.order(commit("r1", EVENT, 1)).await;
    assert_eq!(stage.book(EVENT).remaining(), 8);
}

#[tokio::test]
async fn one_throttled_try_costs_a_caller_nothing() {
    let (stage, _server, client) = selling(10).await;
    let mut left = 3;
    stage.proxy.rule(move |asked| {
        left -= i32::from(asked.is_write());
        match asked.is_write() && left >= 0 {
            true => Act::Fault(400, "ProvisionedThroughputExceededException"),
            false => Act::Pass,
        }
    });
    client.order(commit("r1", EVENT, 1)).await;
    assert_eq!(stage.book(EVENT).remaining(), 8);
}

#[tokio::test]
async fn one_failed_read_costs_a_caller_nothing() {
    let (stage, _server, client) = selling(10).await;
    for fault in [(400, "ThrottlingException"), (500, "InternalServerError")] {
        let mut faults = 2;
        stage.proxy.rule(move |_| {
            faults -= 1;
            if faults >= 0 {
                Act::Fault(fault.0, fault.1)
            } else {
                Act::Pass
            }
        });
        assert!(client.checks(check(EVENT, 1)).await.unwrap().available);
    }
}

#[tokio::test]
async fn a_hanging_store_is_told_at_the_deadline_and_resolved_afterwards() {
    let (stage, server, client) = selling(10).await;
    stage.proxy.writes(Act::HoldAnswer);
    let mut raw = Raw::connect(&server.grpc).await;
    let (status, took) = raw.commit(&commit("r1", EVENT, 2), "300m").await;
    let code = Code::DeadlineExceeded;
    assert_refused(&status, code, "DEADLINE_EXCEEDED", EVENT, "r1");
    assert!(took >= Duration::from_millis(299), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_discreet(&status);

    // Who asks again while it hangs waits for the same write, and starts no other.
    let writes = stage.proxy.writes_asked().len();
    let (status, _) = raw.commit(&commit("r1", EVENT, 2), "100m").await;
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(stage.proxy.writes_asked().len(), writes);

    stage.proxy.pass();
    let order = client.order(commit("r1", EVENT, 2)).await;
    let book = stage.book(EVENT);
    assert_eq!(book.order("r1"), Some(order));
    assert_eq!(book.remaining(), 7);
    server.stops().await;
}

#[tokio::test]
async fn a_write_that_never_arrived_is_sent_again_under_its_token() {
    let (stage, server, client) = selling(10).await;
    // Tries end after DDB_TIMEOUT; the caller waits longer.
    drop(server);
    let server = stage.launch().env("DDB_TIMEOUT", "150ms").start();
    let client_of_new = crate::client::client(&server).await;
    drop(client);
    let hung = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hung);
    stage.proxy.rule(move |asked| {
        match asked.is_write() && counted.fetch_add(1, Ordering::SeqCst) < 2 {
            true => Act::Hang,
            false => Act::Pass,
        }
    });
    client_of_new.order(commit("r1", EVENT, 2)).await;
    let writes = stage.proxy.writes_asked();
    let own: Vec<_> = writes
        .iter()
        .filter(|w| w.body.to_string().contains("\"r1\""))
        .collect();
    assert!(own.len() >= 3, "{}", own.len());
    assert!(!own[0].token().is_empty());
    assert!(own.iter().all(|w| w.body == own[0].body));
    assert_eq!(stage.book(EVENT).remaining(), 7);
}

#[tokio::test]
async fn a_lost_answer_is_resolved_and_sells_once() {
    let (stage, _server, client) = selling(10).await;
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    stage.proxy.rule(move |asked| {
        match asked.is_write() && counted.fetch_add(1, Ordering::SeqCst) < 3 {
            true => Act::LoseAnswer,
            false => Act::Pass,
        }
    });
    let order = client.order(commit("r1", EVENT, 2)).await;
    assert!(lost.load(Ordering::SeqCst) >= 4);
    let book = stage.book(EVENT);
    assert_eq!(book.order("r1"), Some(order));
    assert_eq!(book.remaining(), 7);
    // With the same token, so that the store can tell the repeat from a second sale.
    let writes = stage.proxy.writes_asked();
    let own: Vec<_> = writes
        .iter()
        .filter(|w| w.body.to_string().contains("\"r1\""))
        .collect();
    assert!(own.iter().all(|w| w.token() == own[0].token()));
}

#[tokio::test]
async fn a_caller_that_goes_away_tears_no_write() {
    let (stage, server, client) = selling(10).await;
    let writes = stage.proxy.writes_asked().len();
    stage.proxy.writes(Act::HoldAnswer);
    let caller = crate::client::client(&server).await;
    let call = tokio::spawn(async move { caller.commits(commit("r1", EVENT, 2)).await });
    until("the write is under way", async || {
        stage.proxy.writes_asked().len() > writes
    })
    .await;
    // Call and connection end at once.
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    until("the server has seen it", async || {
        Figures::of(&server)
            .await
            .sum("inventory_shard_connections")
            == 1.0
    })
    .await;
    stage.proxy.pass();
    let order = client.order(commit("r1", EVENT, 2)).await;
    let book = stage.book(EVENT);
    assert_eq!(book.order("r1"), Some(order));
    assert_eq!(book.remaining(), 7);
    assert_eq!(Figures::of(&server).await.get("grpc_active_requests"), 0.0);
}

#[tokio::test]
async fn too_many_calls_for_one_reservation_are_resource_exhausted() {
    let (stage, _server, client) = selling(10).await;
    stage.proxy.writes(Act::HoldAnswer);
    let most = limits::CALLS_PER_RESERVATION_MAX;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..most + 40 {
        let client = client.clone();
        calls.spawn(async move { client.commits(commit("r1", EVENT, 2)).await });
    }
    // The refused ones are answered while the others still wait.
    let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
    let code = Code::ResourceExhausted;
    assert_refused(&refused, code, "OVERLOADED", EVENT, "r1");
    assert_comes_again(&refused);
    while calls.len() > most + 1 {
        let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(refused.code(), code);
    }
    stage.proxy.pass();
    let mut orders = std::collections::HashSet::new();
    while let Some(answer) = calls.join_next().await {
        orders.insert(answer.unwrap().unwrap().order_id);
    }
    assert_eq!(orders.len(), 1);
    assert_eq!(stage.book(EVENT).remaining(), 7);
}

#[tokio::test]
async fn a_refusing_store_is_never_quoted() {
    // Every check asks the store.
    let (stage, server, client) = selling_at(10, "0").await;
    for (status, fault, code, reason) in [
        (400, "ValidationException", Code::Internal, "INTERNAL"),
        (
            400,
            "AccessDeniedException",
            Code::Unavailable,
            "STORE_UNAVAILABLE",
        ),
        (
            400,
            "ResourceNotFoundException",
            Code::Unavailable,
            "STORE_UNAVAILABLE",
        ),
    ] {
        stage.proxy.rule(move |_| Act::Fault(status, fault));
        let refused = client.commits(commit("r1", EVENT, 1)).await.unwrap_err();
        assert_refused(&refused, code, reason, EVENT, "r1");
        assert_discreet(&refused);
        let refused = client.checks(check(EVENT, 1)).await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok);
        assert_discreet(&refused);
        // The operator reads all of it.
        assert!(
            server
                .log
                .wait(|log| log.contains(fault) && log.contains(RAW_TEXT))
        );
    }
    stage.proxy.pass();
    client.order(commit("r1", EVENT, 1)).await;
    assert_eq!(stage.book(EVENT).remaining(), 8);
}

#[tokio::test]
async fn one_poisonous_neighbour_harms_nobody_else() {
    let (stage, server, client) = selling(500).await;
    // What the store holds against one reservation, it holds against the whole transaction.
    stage.proxy.rule(
        |asked| match asked.is_write() && asked.body.to_string().contains("poison") {
            true => Act::Fault(400, "ValidationException"),
            false => Act::PassAfter(Duration::from_millis(20)),
        },
    );
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..60 {
        let client = client.clone();
        let id = if n == 30 {
            "poison".to_owned()
        } else {
            format!("r{n}")
        };
        calls.spawn(async move { (id.clone(), client.commits(commit(&id, EVENT, 1)).await) });
    }
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            (id, Ok(_)) => assert_ne!(id, "poison"),
            (id, Err(status)) => {
                assert_eq!(id, "poison", "{status:?}");
                assert_eq!(status.code(), Code::Internal);
            }
        }
    }
    assert_eq!(stage.book(EVENT).remaining(), 500 - 1 - 59);
    server.stops().await;
}
