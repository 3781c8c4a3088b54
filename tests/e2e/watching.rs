//! Observability of a running server: a stalled shard, a collector that is away, the log level, the call log, metrics.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::fake_store::{FakeStore, n, s};
use inventory_proto::inventory::v1 as pb;
use inventory_testkit::server::{ServerCommand, TestServer};

use crate::client::*;
use serde_json::json;

const EVENT: &str = "evt_watched";

/// A thread of another process, stopped by ptrace; the other threads run.
struct StoppedThread(libc::pid_t);

impl StoppedThread {
    /// Stops the thread of `server` with this name. Only the calling thread can detach it.
    fn thread(server: &TestServer, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", server.pid());
        let is_named = |task: &Path| {
            let comm = std::fs::read_to_string(task.join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        };
        let tasks = std::fs::read_dir(tasks).unwrap();
        let task = tasks.map(|task| task.unwrap().path()).find(|t| is_named(t));
        let task = task.unwrap();
        let thread = Self(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        thread.request(libc::PTRACE_SEIZE);
        thread.request(libc::PTRACE_INTERRUPT);
        thread.wait();
        thread
    }

    fn request(&self, request: libc::c_uint) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: none of these requests reads or writes memory; the thread belongs to a child process.
        let done = unsafe { libc::ptrace(request, self.0, nothing, nothing) };
        assert_eq!(done, 0, "ptrace {request}: {}", io::Error::last_os_error());
    }

    /// Waits until the thread is stopped or has ended.
    fn wait(&self) {
        let nothing = std::ptr::null_mut();
        // SAFETY: takes integers, and a null pointer for the status that is not needed.
        let waited = unsafe { libc::waitpid(self.0, nothing, libc::__WALL) };
        assert_eq!(waited, self.0, "{}", io::Error::last_os_error());
    }
}

async fn is_ready(server: &TestServer) -> (u16, String) {
    http_get(&server.metrics, "/readyz").await.unwrap()
}

#[tokio::test]
async fn stalled_shard_turns_readiness_off_and_ends_the_process_if_it_stays_stalled() {
    let command = ServerCommand::dev_in_memory()
        .env("SHARDS", "1")
        .env("SHARD_STALL_LIMIT", "1s")
        .env("SHARD_STALL_EXIT", "3s");
    let mut server = command.start();
    let mut client = client(&server).await;
    create(&server, EVENT, 100, 1).await;
    client.commit_reservation(with_deadline(commit("w1", EVENT, 1))).await.unwrap();
    assert_eq!(is_ready(&server).await.0, 200);

    let stopped = StoppedThread::thread(&server, "shard-0");
    until("readiness is off", async || is_ready(&server).await.0 == 503).await;
    let (_, why) = is_ready(&server).await;
    assert!(why.contains("shard 0 stalled"), "{why}");
    assert!(server.log.wait_for(|log| log.contains("shard stalled; readiness is off")));
    stopped.request(libc::PTRACE_DETACH);
    until("readiness is on", async || is_ready(&server).await.0 == 200).await;
    // The shard serves again.
    client.commit_reservation(with_deadline(commit("w2", EVENT, 1))).await.unwrap();
    let metrics = MetricsSample::scrape(&server).await;
    assert_eq!(metrics.get(r#"inventory_shard_stalls_total{shard="0"}"#), 1.0);

    let stopped = StoppedThread::thread(&server, "shard-0");
    assert!(server.log.wait_for(|log| log.contains("shard did not recover")));
    // The tracer must reap the thread.
    stopped.wait();
    let (_, status) = server.wait_for_exit().await;
    assert_eq!(status.code(), Some(70), "{}", server.log.text());
    let log = server.log.text();
    for field in ["\"thread_state\":\"t\"", "\"last_activity\":", "\"stalled_ms\":"] {
        assert!(log.contains(field), "no {field} in {log}");
    }
}

#[tokio::test]
async fn unreachable_collector_drops_spans_and_fails_no_call() {
    let command = ServerCommand::dev_in_memory()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_TRACES_SAMPLER", "always_on");
    let server = command.start();
    let mut client = client(&server).await;
    create(&server, EVENT, 100, 1).await;
    for n in 0..20 {
        let call = commit(&format!("c{n}"), EVENT, 1);
        client.commit_reservation(with_deadline(call)).await.unwrap();
    }
    let dropped = async || {
        let metrics = MetricsSample::scrape(&server).await;
        metrics.get(r#"inventory_trace_spans_dropped_total{reason="collector"}"#)
    };
    // A span per call, and a span per transaction.
    until("the drops are counted", async || dropped().await >= 40.0).await;
    let metrics = MetricsSample::scrape(&server).await;
    assert_eq!(metrics.get("inventory_trace_spans_exported_total"), 0.0);
    assert!(server.log.wait_for(|log| log.contains("spans dropped: collector unavailable")));
    assert_eq!(server.log.text().matches("spans dropped: collector unavailable").count(), 1);
    server.stop().await;
}

#[tokio::test]
async fn every_call_is_logged_at_level_debug() {
    let server = ServerCommand::dev_in_memory().start();
    let mut client = client(&server).await;
    create(&server, EVENT, 1, 1).await;
    client.commit_reservation(with_deadline(commit("l1", EVENT, 1))).await.unwrap();
    let mut admin = admin(&server).await;
    let mut set = async |level: &str| {
        let level = level.to_owned();
        let answer = admin.set_log_level(pb::SetLogLevelRequest { level }).await;
        answer.map(tonic::Response::into_inner)
    };
    let answer = set("debug").await.unwrap();
    assert_eq!((answer.level.as_str(), answer.before.as_str()), ("debug", "info"));
    let refused = client.commit_reservation(with_deadline(commit("l2", EVENT, 1))).await;
    assert_eq!(reason(&refused.unwrap_err()), "INSUFFICIENT_INVENTORY");
    client.commit_reservation(with_deadline(commit("l1", EVENT, 1))).await.unwrap();
    let line = |log: &str, reservation: &str| {
        let named = format!("\"reservation_id\":\"{reservation}\"");
        let found = log.lines().find(|l| l.contains(&named) && l.contains("\"msg\":\"call\""));
        found.map(ToOwned::to_owned)
    };
    assert!(server.log.wait_for(|log| line(log, "l1").is_some()));
    let log = server.log.text();
    let (repeat, short) = (line(&log, "l1").unwrap(), line(&log, "l2").unwrap());
    let fields = [
        "\"ts\":",
        "\"level\":\"debug\"",
        "\"method\":\"inventory.v1.Inventory/CommitReservation\"",
        "\"event_id\":\"evt_watched\"",
        "\"latency_ms\":",
        "\"ddb_rcu\":",
        "\"ddb_wcu\":",
    ];
    for field in fields {
        assert!(short.contains(field), "no {field} in {short}");
    }
    assert!(short.contains("\"outcome\":\"INSUFFICIENT_INVENTORY\""), "{short}");
    // Answered from the cache.
    assert!(repeat.contains("\"ddb_wcu\":0.0"), "{repeat}");
    assert!(repeat.contains("\"outcome\":\"CONFIRMED\""), "{repeat}");
    let refused = set("loud").await.unwrap_err();
    assert!(refused.message().contains("must be debug, info, warn or error"), "{refused:?}");
    assert_eq!(set("").await.unwrap().level, "debug");
    assert_eq!(set("error").await.unwrap().before, "debug");
    client.commit_reservation(with_deadline(commit("l1", EVENT, 1))).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn calls_are_logged_at_the_configured_ratio() {
    let server = ServerCommand::dev_in_memory().env("LOG_CALLS_RATIO", "1").start();
    let mut client = client(&server).await;
    create(&server, EVENT, 9, 1).await;
    client.commit_reservation(with_deadline(commit("p1", EVENT, 3))).await.unwrap();
    let is_logged = |log: &str| {
        log.lines().any(|line| {
            let is_call = line.contains("\"reservation_id\":\"p1\"");
            // Two for the stripe's item, two for the record.
            is_call && line.contains("\"level\":\"info\"") && line.contains("\"ddb_wcu\":4.0")
        })
    };
    assert!(server.log.wait_for(is_logged), "{}", server.log.text());
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_a_sale() {
    // Beats consume units too.
    let server = ServerCommand::dev_in_memory().env("MEMBERSHIP", "off").start();
    let mut client = client(&server).await;
    create(&server, EVENT, 100, 1).await;
    for n in 0..5 {
        let call = commit(&format!("f{n}"), EVENT, 2);
        client.commit_reservation(with_deadline(call)).await.unwrap();
    }
    client.check_availability(with_deadline(check(EVENT, 1))).await.unwrap();
    // Event stock is read after one scrape and shown by the next.
    let remaining = async || {
        let metrics = MetricsSample::scrape(&server).await;
        metrics.get(r#"inventory_event_units{event_id="evt_watched",state="remaining"}"#)
    };
    until("the event's units are shown", async || remaining().await == 90.0).await;
    let metrics = MetricsSample::scrape(&server).await;
    for (name, want) in [
        (r#"inventory_event_units{event_id="evt_watched",state="held"}"#, 0.0),
        (r#"inventory_event_units{event_id="evt_watched",state="sold"}"#, 10.0),
        (r#"inventory_event_reservations_total{event_id="evt_watched"}"#, 5.0),
        ("inventory_lane_batch_entries_count", 5.0),
        ("inventory_queue_wait_seconds_count", 5.0),
        (r#"dynamodb_consumed_units_total{table="idempotency",kind="write"}"#, 10.0),
        // Two of them for the event itself.
        (r#"dynamodb_consumed_units_total{table="inventory",kind="write"}"#, 12.0),
        (r#"inventory_invariant_breaches_total{kind="damaged_stripe"}"#, 0.0),
        ("inventory_ready", 1.0),
    ] {
        assert_eq!(metrics.get(name), want, "{name}");
    }
    assert!(metrics.sum("inventory_shard_requests_total") >= 6.0);
    assert!(metrics.sum("inventory_shard_cpu_seconds_total") > 0.0);
    // The cost of a scrape is far below the deadline of a call.
    let most = Duration::from_millis(50).as_secs_f64();
    assert!(metrics.sum("inventory_shard_scrape_seconds") < most);
    server.stop().await;
}

#[tokio::test]
async fn inconsistent_stock_is_counted_and_logged() {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    let set_remaining = |units: i64| {
        let key = json!({ "event_id": s(EVENT) });
        store.set_attribute("inventory", &key, "remaining", n(units));
    };
    set_remaining(11);
    let server = store.start_server();
    let mut client = client(&server).await;
    let breaches = async || {
        let name = r#"inventory_invariant_breaches_total{kind="damaged_stripe"}"#;
        MetricsSample::scrape(&server).await.get(name)
    };
    assert_eq!(breaches().await, 0.0);
    let refused = client.check_availability(with_deadline(check(EVENT, 1))).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
    let over = breaches().await;
    assert!(over >= 1.0);
    assert!(server.log.wait_for(|log| log.contains("remaining 11 is over total_seats 10")));
    set_remaining(-1);
    let _ = client.check_availability(with_deadline(check(EVENT, 1))).await;
    assert!(breaches().await > over);
    // Consistent again, units are sold.
    set_remaining(10);
    client.commit_reservation(with_deadline(commit("d1", EVENT, 1))).await.unwrap();
    server.stop().await;
}
