//! A store that is away, full, or slow for ever: callers get an error at once, readiness goes off and comes back by itself,
//! the log stays readable, and nothing that was acknowledged is lost.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use inventory_proto::inventory::v1::GetEventRequest;
use inventory_testkit::http2::{Http2Client, RELEASE};
use inventory_testkit::server::{ServerCommand, TestServer, report_skipped};
use inventory_testkit::small_disk::SmallDisk;
use inventory_testkit::store_proxy::StoreProxy;
use serde_json::Value;
use tonic::Code;

use crate::client::*;
use crate::fake_store::{FakeStore, RequestAction, store_error};

const EVENT: &str = "evt_away";

/// The caller's deadline, and the time within which it gets its answer all the same.
const PATIENCE: &str = "20S";
const AT_ONCE: Duration = Duration::from_secs(2);

/// A server whose store is behind a proxy, and has been used.
async fn behind_proxy() -> (FakeStore, StoreProxy, TestServer) {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000, 4);
    let proxy = StoreProxy::start(store.address(), None);
    let command = ServerCommand::with_store(proxy.address, &["serve"]);
    let server = command.env("READ_STALENESS_MS", "0").start();
    let client = client(&server).await;
    client.order(commit("warm", EVENT, 1)).await;
    (store, proxy, server)
}

async fn is_ready(server: &TestServer) -> bool {
    http_get(&server.metrics, "/readyz").await.unwrap().0 == 200
}

fn lines_since(server: &TestServer, from: usize) -> Vec<String> {
    server.log.text().lines().skip(from).map(str::to_owned).collect()
}

#[tokio::test]
async fn unreachable_store_is_reported_at_once_and_recovery_needs_no_call() {
    let (store, proxy, server) = behind_proxy().await;
    let logged = server.log.text().lines().count();
    let mut raw = Http2Client::connect(&server.grpc).await;
    // Failures of the SDK itself: a refusal makes it send the next request.
    for (code, error) in [(400, "AccessDeniedException"), (500, "InternalServerError")] {
        store.set_rule(move |_| store_error(code, error));
        let (status, _) = raw.check(EVENT, 1, &[("grpc-timeout", PATIENCE)]).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    store.clear_rule();
    proxy.go_away();
    let timeout = [("grpc-timeout", PATIENCE)];
    let away = Instant::now();
    for call in 0..200 {
        let started = Instant::now();
        let id = format!("away-{call}");
        let (status, _) = raw.commit(&commit(&id, EVENT, 1), PATIENCE).await;
        assert_rejected(&status, Code::Unavailable, "STORE_UNAVAILABLE", EVENT, &id);
        assert_retryable(&status);
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    }
    let (status, _) = raw.timed_call(RELEASE, &release("other", EVENT, 1), &timeout).await;
    assert_rejected(&status, Code::Unavailable, "STORE_UNAVAILABLE", EVENT, "other");
    let (status, _) = raw.check(EVENT, 1, &timeout).await;
    assert_rejected(&status, Code::Unavailable, "STORE_UNAVAILABLE", EVENT, "");
    assert_retryable(&status);
    let asked = GetEventRequest { event_id: EVENT.to_owned() };
    let status = admin(&server).await.get_event(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(away.elapsed() < 4 * AT_ONCE, "{:?}", away.elapsed());

    until("readiness is off", async || !is_ready(&server).await).await;
    assert!(server.log.wait_for(|log| log.contains("store unavailable; readiness is off")));
    proxy.come_back();
    until("readiness is back", async || is_ready(&server).await).await;
    assert!(server.log.wait_for(|log| log.contains("store available again")));
    let lines = lines_since(&server, logged);
    assert!(lines.len() < 30, "{} lines:\n{}", lines.len(), lines.join("\n"));
    assert!(!lines.iter().any(|line| line.contains("aws_")), "{}", lines.join("\n"));

    let client = client(&server).await;
    client.order(commit("away-0", EVENT, 1)).await;
    assert_eq!(store.read_event(EVENT).remaining(), 1_000 - 2);
}

/// The shard of each line about the store that contains `text`.
fn shards_that_logged(lines: &[String], text: &str) -> Vec<i64> {
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let about = lines.filter(|line| line["error"].as_str().is_some_and(|it| it.contains(text)));
    about.map(|line| line["shard"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn stuck_transactions_log_little_and_are_resolved() {
    let (store, _proxy, server) = behind_proxy().await;
    let logged = server.log.text().lines().count();
    store.set_write_rule(RequestAction::HoldRequest);
    let client = client(&server).await;
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..40 {
        let mut client = client.clone();
        let call = commit(&format!("stuck-{call}"), EVENT, 1);
        let request = within(call, Duration::from_millis(400));
        calls.spawn(async move { client.commit_reservation(request).await });
    }
    while let Some(answer) = calls.join_next().await {
        assert!(answer.unwrap().is_err());
    }
    // Most of the outage: time-outs and pauses grow meanwhile.
    until("readiness is off", async || !is_ready(&server).await).await;
    let sent = store.writes().len();
    let lines = lines_since(&server, logged);
    assert!(lines.len() < 20, "{} lines:\n{}", lines.len(), lines.join("\n"));
    assert!(sent < 60, "{sent} transactions were sent");
    // Equal failures are one line a minute on each shard, however often a transaction is sent again.
    let shards = shards_that_logged(&lines, "TransactWriteItems for");
    let distinct: HashSet<i64> = shards.iter().copied().collect();
    assert!(!shards.is_empty() && shards.len() == distinct.len(), "{}", lines.join("\n"));
    // The first commit, and two attempts on each shard: the equal failure was not the only one.
    assert!(sent > 2 * shards.len(), "only {sent} transactions were sent");
    store.clear_rule();
    until("readiness is back", async || is_ready(&server).await).await;
    let mut orders = HashSet::new();
    for call in 0..40 {
        orders.insert(client.order(commit(&format!("stuck-{call}"), EVENT, 1)).await);
    }
    assert_eq!(orders.len(), 40);
    assert_eq!(store.read_event(EVENT).remaining(), 1_000 - 41);
}

#[tokio::test]
async fn clock_that_differs_from_the_stores_is_reported() {
    let (_store, proxy, server) = behind_proxy().await;
    // The store's clock is ahead, so the local clock is behind.
    proxy.shift_dates(45);
    let client = client(&server).await;
    until("the skew is measured", async || {
        client.try_check(check(EVENT, 1)).await.unwrap();
        let skew = MetricsSample::scrape(&server).await.get("inventory_clock_skew_seconds");
        (-46.0..-44.0).contains(&skew)
    })
    .await;
    assert!(server.log.wait_for(|log| log.contains("clock differs from the store's")));
    let checked = ServerCommand::with_store(proxy.address, &["check"]).run();
    let line = checked.out.lines().find(|line| line.contains("behind the store's"));
    let line = line.unwrap_or_else(|| panic!("no clock in:\n{}", checked.out));
    assert!(line.contains("44.") || line.contains("45."), "{line}");
    proxy.shift_dates(0);
    until("the clock agrees", async || {
        client.try_check(check(EVENT, 1)).await.unwrap();
        server.log.text().contains("clock agrees with the store's")
    })
    .await;
}

#[tokio::test]
async fn full_disk_is_unavailable_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path(), 6 << 20) else {
        report_skipped(
            "full_disk_is_unavailable_and_loses_nothing",
            "no file system can be mounted",
        );
        return;
    };
    let data = directory.path().join("data");
    let server = ServerCommand::dev_in_directory(&data).start();
    create(&server, EVENT, 100_000, 1).await;
    let buyer = client(&server).await;
    buyer.order(commit("before", EVENT, 1)).await;
    let filler = directory.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
    drop(file);

    let mut raw = Http2Client::connect(&server.grpc).await;
    let mut orders = Vec::new();
    let status = loop {
        let id = format!("r-{}", orders.len());
        let started = Instant::now();
        match buyer.try_commit(commit(&id, EVENT, 1)).await {
            Ok(answer) => orders.push((id, answer.order_id)),
            Err(_) => {
                let (status, _) = raw.commit(&commit("refused", EVENT, 1), PATIENCE).await;
                assert!(started.elapsed() < 2 * AT_ONCE, "{:?}", started.elapsed());
                break status;
            }
        }
        assert!(orders.len() < 5_000, "the disk does not fill up");
    };
    assert_rejected(&status, Code::Unavailable, "STORE_UNAVAILABLE", EVENT, "refused");
    assert_retryable(&status);
    until("readiness is off", async || !is_ready(&server).await).await;
    std::fs::remove_file(&filler).unwrap();
    until("readiness is back", async || is_ready(&server).await).await;
    buyer.order(commit("after", EVENT, 1)).await;
    server.kill();

    let server = ServerCommand::dev_in_directory(&data).start();
    let buyer = client(&server).await;
    for (id, order) in orders {
        assert_eq!(buyer.order(commit(&id, EVENT, 1)).await, order, "{id}");
    }
    server.stop().await;
}
