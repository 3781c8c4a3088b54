//! Shutdown: no call is lost, readiness is off first, the grace is kept, a second signal aborts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::fake_store::{FakeStore, RequestAction};
use inventory_client::{CallOutcome, FailoverClient};
use inventory_testkit::http2::{
    COMMIT, DATA, END_HEADERS, END_STREAM, FrameConnection, HEADERS, encode, frame, header_block,
};
use inventory_testkit::server::{ServerCommand, TestServer};
use inventory_testkit::{DEADLINE, terminal};
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;

const EVENT: &str = "evt_stopping";

/// Limit for an immediate exit: far below any grace.
const IMMEDIATE_EXIT_MAX: Duration = Duration::from_secs(3);

#[tokio::test]
async fn drain_under_load_fails_no_call_of_failover_clients() {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000_000, 1);
    let (mut draining, staying) = (store.start_server(), store.start_server());
    let addresses = [draining.grpc.clone(), staying.grpc.clone()];
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut buyers = JoinSet::new();
    let mut clients = Vec::new();
    for lane in 0..4 {
        let client = FailoverClient::new(&addresses, 0).unwrap();
        clients.push(client.clone());
        for buyer in 0..10 {
            let (client, over, answered) = (client.clone(), over.clone(), answered.clone());
            buyers.spawn(async move {
                let mut sold = 0;
                while !over.load(Ordering::SeqCst) {
                    let call = commit(&format!("s{lane}-{buyer}-{sold}"), EVENT, 1);
                    let answer = client.commit(&call, DEADLINE).await;
                    answer.unwrap_or_else(|status| panic!("{call:?}: {status:?}"));
                    sold += 1;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                sold
            });
        }
    }
    let answers = |count: usize| {
        let answered = answered.clone();
        let wanted = answered.load(Ordering::SeqCst) + count;
        async move {
            until("calls are answered", async || answered.load(Ordering::SeqCst) >= wanted).await
        }
    };
    answers(300).await;
    draining.signal(libc::SIGTERM);
    let (took, status) = draining.wait_for_exit().await;
    answers(300).await;
    over.store(true, Ordering::SeqCst);
    let mut sold = 0;
    while let Some(buyer) = buyers.join_next().await {
        sold += buyer.unwrap();
    }
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let log = draining.log.text();
    assert!(!log.contains("grace period over"), "{log}");
    for stats in clients.iter().map(FailoverClient::stats) {
        assert_eq!(stats.failed, 0, "{stats:?}");
    }
    let stored = store.read_event(EVENT);
    assert_eq!(stored.remaining(), 1_000_000 - sold);
    staying.stop().await;
}

#[tokio::test]
async fn drain_is_immediate_with_idle_connections() {
    let server = ServerCommand::dev_in_memory().start();
    let idle = clients(&server, 3).await;
    create(&server, EVENT, 10, 1).await;
    idle[0].order(commit("r1", EVENT, 1)).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc));
    let channel = channel.unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let wanted = tonic_health::pb::HealthCheckRequest::default();
    // A watch has no end of its own.
    let mut watch = health.watch(wanted).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let mut server = server;
    server.signal(libc::SIGTERM);
    let (took, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < IMMEDIATE_EXIT_MAX, "{took:?}");
    // The watch has reported the drain.
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    // Every log line is JSON.
    let log = server.log.text();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["ts", "level", "msg"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
    }
    for message in ["\"serving\"", "\"stopping\"", "\"stopped\""] {
        assert_eq!(log.matches(message).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn connections_over_their_maximum_age_lose_no_call() {
    let server = ServerCommand::dev_in_memory().env("MAX_CONNECTION_AGE", "1s").start();
    create(&server, EVENT, 1_000_000, 1).await;
    let client = FailoverClient::new(&[&server.grpc], 0).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for buyer in 0..8 {
        let (client, over) = (client.clone(), over.clone());
        buyers.spawn(async move {
            let mut sold = 0;
            while !over.load(Ordering::SeqCst) {
                let call = commit(&format!("o{buyer}-{sold}"), EVENT, 1);
                let answer = client.commit(&call, DEADLINE).await;
                answer.unwrap_or_else(|status| panic!("{call:?}: {status:?}"));
                sold += 1;
            }
            sold
        });
    }
    // The first GOAWAY allows all streams; the second follows the acknowledged PING.
    for _ in 0..2 {
        let (mut connection, _) = FrameConnection::open(&server.grpc).await;
        assert_eq!(connection.wait_for_goaway().await, u32::MAX >> 1);
        connection.acknowledge_ping().await;
        assert_eq!(connection.wait_for_goaway().await, 0);
    }
    over.store(true, Ordering::SeqCst);
    let mut sold = 0;
    while let Some(buyer) = buyers.join_next().await {
        sold += buyer.unwrap();
    }
    assert_eq!(client.stats().failed, 0);
    assert!(sold > 100, "only {sold} sold");
    assert_eq!(stock(&server, EVENT).await.confirmed, sold);
    server.stop().await;
}

/// A server with one call in flight that the store does not answer.
async fn with_call_in_flight(
    env: &[(&str, &str)],
) -> (FakeStore, TestServer, InventoryClient, Pending) {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    let mut command = store.server_command().env("DDB_TIMEOUT", "20s");
    for (name, value) in env {
        command = command.env(name, value);
    }
    let server = command.start();
    let client = client(&server).await;
    client.order(commit("warm", EVENT, 1)).await;
    let writes = store.writes().len();
    store.set_write_rule(RequestAction::HoldResponse);
    let caller = client.clone();
    let pending = tokio::spawn(async move { caller.try_commit(commit("r1", EVENT, 1)).await });
    until("the write is in flight", async || store.writes().len() > writes).await;
    (store, server, client, pending)
}

type Pending =
    tokio::task::JoinHandle<Result<inventory_proto::inventory::v1::CommitRes, tonic::Status>>;

#[tokio::test]
async fn readiness_is_off_first_and_the_call_in_flight_is_answered() {
    let (store, mut server, client, pending) = with_call_in_flight(&[]).await;
    let (code, _) = http_get(&server.metrics, "/readyz").await.unwrap();
    assert_eq!(code, 200);
    server.signal(libc::SIGTERM);
    until("readiness is off", async || {
        http_get(&server.metrics, "/readyz").await.unwrap().0 == 503
    })
    .await;
    // Liveness stays on.
    assert_eq!(http_get(&server.metrics, "/healthz").await.unwrap().0, 200);
    until("no new connections", async || {
        tokio::net::TcpStream::connect(&server.grpc).await.is_err()
    })
    .await;
    // Calls are served until the client has read the GOAWAY. A check, which needs no write, shows when.
    until("the client has read the GOAWAY", async || {
        let check = client.try_check(check(EVENT, 1)).await;
        check.is_err_and(|status| CallOutcome::of(&status) == CallOutcome::NeverProcessed)
    })
    .await;
    // From now on, calls on the old connection are not processed and can be repeated elsewhere.
    let late = client.try_commit(commit("r2", EVENT, 1)).await.unwrap_err();
    assert_eq!(CallOutcome::of(&late), CallOutcome::NeverProcessed, "{late:?}");

    assert!(!pending.is_finished());
    store.clear_rule();
    let answer = pending.await.unwrap().unwrap();
    let (took, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < IMMEDIATE_EXIT_MAX, "{took:?}");
    let stored = store.read_event(EVENT);
    assert_eq!(stored.order_of("r1"), Some(answer.order_id));
    assert_eq!(stored.record_count(), 2);
}

#[tokio::test]
async fn drain_waits_for_writes_without_a_caller() {
    let (store, mut server, client, pending) = with_call_in_flight(&[]).await;
    pending.abort();
    drop(client);
    server.signal(libc::SIGTERM);
    assert!(server.log.wait_for(|log| log.contains("\"stopping\"")));
    // There is no connection, but the outcome is unknown.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (code, _) = http_get(&server.metrics, "/readyz").await.unwrap();
    assert_eq!(code, 503);
    store.clear_rule();
    let (_, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(!server.log.text().contains("grace period over"));
}

#[tokio::test]
async fn calls_left_after_the_grace_are_logged() {
    let grace = [("SHUTDOWN_GRACE", "500ms")];
    let (_store, mut server, _client, pending) = with_call_in_flight(&grace).await;
    server.signal(libc::SIGTERM);
    let (took, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(took < Duration::from_millis(500) + IMMEDIATE_EXIT_MAX, "{took:?}");
    let log = server.log.text();
    let warning = log.lines().find(|line| line.contains("grace period over"));
    let warning = warning.unwrap_or_else(|| panic!("{log}"));
    let warning: serde_json::Value = serde_json::from_str(warning).unwrap();
    assert_eq!(warning["operations"], 1, "{warning}");
    assert_eq!(warning["connections"], 1, "{warning}");
    let lost = pending.await.unwrap().unwrap_err();
    assert_ne!(lost.code(), Code::Ok);
}

#[tokio::test]
async fn second_signal_exits_immediately() {
    let (_store, mut server, _client, _pending) = with_call_in_flight(&[]).await;
    server.signal(libc::SIGTERM);
    assert!(server.log.wait_for(|log| log.contains("\"stopping\"")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.signal(libc::SIGINT);
    let (took, status) = server.wait_for_exit().await;
    assert!(took < IMMEDIATE_EXIT_MAX, "{took:?}");
    assert!(status.code().is_some(), "{status:?}");
}

#[tokio::test]
async fn hangup_is_ignored_unless_the_terminal_was_closed_and_so_are_user_signals() {
    let mut server = ServerCommand::dev_in_memory().start();
    for (signal, name) in
        [(libc::SIGHUP, "SIGHUP"), (libc::SIGUSR1, "SIGUSR1"), (libc::SIGUSR2, "SIGUSR2")]
    {
        server.signal(signal);
        let line = |line: &str| line.contains("signal ignored") && line.contains(name);
        assert!(server.log.wait_for(|log| log.lines().any(line)), "{name}");
    }
    let (code, _) = http_get(&server.metrics, "/readyz").await.unwrap();
    assert_eq!(code, 200);
    server.signal(libc::SIGTERM);
    assert!(server.log.wait_for(|log| log.contains("\"stopping\"")));
    assert_eq!(server.wait_for_exit().await.1.code(), Some(0));

    let (_terminal, slave) = terminal::open();
    let mut on_terminal = ServerCommand::dev_in_memory();
    on_terminal.command.stdin(slave);
    let mut server = on_terminal.start();
    // A closed terminal sends the signal more than once.
    for _ in 0..2 {
        server.signal(libc::SIGHUP);
    }
    let (_, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(server.log.text().contains("\"stopped\""), "{}", server.log.text());
}

/// A client may send until it has read the second GOAWAY. Until then, idle shards serve forwarded operations as well.
#[tokio::test]
async fn idle_shard_serves_forwarded_operations_during_a_drain() {
    const EVENTS: usize = 8;
    let server = ServerCommand::dev_in_memory().start();
    for n in 0..EVENTS {
        // One stripe each: some calls are forwarded to the shard that owns the stripe.
        create(&server, &format!("evt-{n}"), 10, 1).await;
    }
    let (mut connection, _) = FrameConnection::open(&server.grpc).await;
    let mut server = server;
    server.signal(libc::SIGTERM);
    let goaway = connection.wait_for_goaway().await;
    assert_eq!(goaway, u32::MAX >> 1, "the first GOAWAY allows all streams");
    // Longer than an idle shard would need to exit.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 0..EVENTS {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        let block = header_block(COMMIT, &[("grpc-timeout", "20S")]);
        let call = commit(&format!("r{n}"), &format!("evt-{n}"), 1);
        let headers = frame(HEADERS, END_HEADERS, stream, &block);
        let data = frame(DATA, END_STREAM, stream, &encode(&call));
        connection.send(&[headers, data].concat()).await;
    }
    // Only a successful response has a message.
    let (mut ended, mut messages) = (0, 0);
    while ended < EVENTS {
        let frame = connection.frame().await.expect("a call was lost");
        match frame.kind {
            DATA => messages += 1,
            HEADERS if frame.flags & END_STREAM != 0 => ended += 1,
            _ => {}
        }
    }
    assert_eq!(messages, EVENTS);
    connection.acknowledge_ping().await;
    let (took, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < IMMEDIATE_EXIT_MAX, "{took:?}");
}
