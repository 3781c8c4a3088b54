//! What a server says of itself while it serves: a shard that stands still, a collector that is away, a
//! log level that is changed, a hall's status that is kept.

use std::io;
use std::path::Path;
use std::time::Duration;

use inventory_proto::inventory::v1 as pb;

use crate::client::*;
use crate::items::put_units;
use crate::server::{Launch, Server};
use crate::stage::{Stage, create_at};

const EVENT: &str = "evt_watched";

/// A thread of another process that stands still, as a debugger holds it: the rest of it runs on.
struct Held(libc::pid_t);

impl Held {
    /// Holds the thread of `server` that has this name. From the thread that lets it go again.
    fn thread(server: &Server, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", server.pid());
        let is_named = |task: &Path| {
            let comm = std::fs::read_to_string(task.join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        };
        let tasks = std::fs::read_dir(tasks).unwrap();
        let task = tasks.map(|task| task.unwrap().path()).find(|t| is_named(t));
        let task = task.unwrap();
        let held = Self(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        held.ask(libc::PTRACE_SEIZE);
        held.ask(libc::PTRACE_INTERRUPT);
        held.wait();
        held
    }

    fn ask(&self, request: libc::c_uint) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: of these requests none reads or writes memory; the thread is a child process's.
        let done = unsafe { libc::ptrace(request, self.0, nothing, nothing) };
        assert_eq!(done, 0, "ptrace {request}: {}", io::Error::last_os_error());
    }

    /// Until it is held, or has ended.
    fn wait(&self) {
        let nothing = std::ptr::null_mut();
        // SAFETY: takes integers, and a null pointer where nothing is to be told.
        let waited = unsafe { libc::waitpid(self.0, nothing, libc::__WALL) };
        assert_eq!(waited, self.0, "{}", io::Error::last_os_error());
    }
}

async fn is_ready(server: &Server) -> (u16, String) {
    http_get(&server.metrics, "/readyz").await.unwrap()
}

#[tokio::test]
async fn a_shard_that_stands_still_is_named_and_the_process_recovers_or_ends() {
    let launch = Launch::memory()
        .env("SHARDS", "1")
        .env("SHARD_STALL_LIMIT", "1s")
        .env("SHARD_STALL_EXIT", "3s");
    let mut server = launch.start();
    let mut client = client(&server).await;
    create(&server, EVENT, 100, 1).await;
    client
        .commit_reservation(patient(commit("w1", EVENT, 1)))
        .await
        .unwrap();
    assert_eq!(is_ready(&server).await.0, 200);

    let held = Held::thread(&server, "shard-0");
    until("it is not ready", async || is_ready(&server).await.0 == 503).await;
    let (_, why) = is_ready(&server).await;
    assert!(why.contains("shard 0 stands still"), "{why}");
    assert!(
        server
            .log
            .wait(|log| log.contains("a shard stands still: not ready"))
    );
    held.ask(libc::PTRACE_DETACH);
    until("it is ready again", async || {
        is_ready(&server).await.0 == 200
    })
    .await;
    // It serves as before.
    client
        .commit_reservation(patient(commit("w2", EVENT, 1)))
        .await
        .unwrap();
    let figures = Figures::of(&server).await;
    assert_eq!(
        figures.get(r#"inventory_shard_stalls_total{shard="0"}"#),
        1.0
    );

    let held = Held::thread(&server, "shard-0");
    assert!(
        server
            .log
            .wait(|log| log.contains("a shard does not come back"))
    );
    // Whoever holds a thread buries it.
    held.wait();
    let (_, status) = server.ends().await;
    assert_eq!(status.code(), Some(70), "{}", server.log.all());
    let log = server.log.all();
    for told in ["\"thread_state\":\"t\"", "\"began_last\":", "\"still_ms\":"] {
        assert!(log.contains(told), "no {told} in {log}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_call() {
    let launch = Launch::memory()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_TRACES_SAMPLER", "always_on");
    let server = launch.start();
    let mut client = client(&server).await;
    create(&server, EVENT, 100, 1).await;
    for n in 0..20 {
        let call = commit(&format!("c{n}"), EVENT, 1);
        client.commit_reservation(patient(call)).await.unwrap();
    }
    let dropped = async || {
        let figures = Figures::of(&server).await;
        figures.get(r#"inventory_trace_spans_dropped_total{reason="collector"}"#)
    };
    // A span for each call, and one for the transaction that it went into.
    until("the drops are counted", async || dropped().await >= 40.0).await;
    let figures = Figures::of(&server).await;
    assert_eq!(figures.get("inventory_trace_spans_exported_total"), 0.0);
    assert!(server.log.wait(|log| log.contains("spans were dropped")));
    assert_eq!(server.log.all().matches("spans were dropped").count(), 1);
    server.stops().await;
}

#[tokio::test]
async fn every_call_is_logged_once_the_level_is_debug() {
    let server = Launch::memory().start();
    let mut client = client(&server).await;
    create(&server, EVENT, 1, 1).await;
    client
        .commit_reservation(patient(commit("l1", EVENT, 1)))
        .await
        .unwrap();
    let mut admin = admin(&server).await;
    let mut set = async |level: &str| {
        let level = level.to_owned();
        let told = admin.set_log_level(pb::SetLogLevelRequest { level }).await;
        told.map(tonic::Response::into_inner)
    };
    let told = set("debug").await.unwrap();
    assert_eq!(
        (told.level.as_str(), told.before.as_str()),
        ("debug", "info")
    );
    let refused = client
        .commit_reservation(patient(commit("l2", EVENT, 1)))
        .await;
    assert_eq!(reason(&refused.unwrap_err()), "INSUFFICIENT_INVENTORY");
    client
        .commit_reservation(patient(commit("l1", EVENT, 1)))
        .await
        .unwrap();
    let line = |log: &str, reservation: &str| {
        let named = format!("\"reservation_id\":\"{reservation}\"");
        let found = log
            .lines()
            .find(|l| l.contains(&named) && l.contains("\"msg\":\"call\""));
        found.map(ToOwned::to_owned)
    };
    assert!(server.log.wait(|log| line(log, "l1").is_some()));
    let log = server.log.all();
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
    assert!(
        short.contains("\"outcome\":\"INSUFFICIENT_INVENTORY\""),
        "{short}"
    );
    // Answered from memory.
    assert!(repeat.contains("\"ddb_wcu\":0.0"), "{repeat}");
    assert!(repeat.contains("\"outcome\":\"CONFIRMED\""), "{repeat}");
    let refused = set("loud").await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("want debug, info, warn or error"),
        "{refused:?}"
    );
    assert_eq!(set("").await.unwrap().level, "debug");
    assert_eq!(set("error").await.unwrap().before, "debug");
    client
        .commit_reservation(patient(commit("l1", EVENT, 1)))
        .await
        .unwrap();
    server.stops().await;
}

#[tokio::test]
async fn a_part_of_the_calls_is_logged_where_that_is_asked_for() {
    let server = Launch::memory().env("LOG_CALLS_RATIO", "1").start();
    let mut client = client(&server).await;
    create(&server, EVENT, 9, 1).await;
    client
        .commit_reservation(patient(commit("p1", EVENT, 3)))
        .await
        .unwrap();
    let told = |log: &str| {
        log.lines().any(|line| {
            let is_it = line.contains("\"reservation_id\":\"p1\"");
            // Two for the stripe's item, two for the record.
            is_it && line.contains("\"level\":\"info\"") && line.contains("\"ddb_wcu\":4.0")
        })
    };
    assert!(server.log.wait(told), "{}", server.log.all());
    server.stops().await;
}

#[tokio::test]
async fn the_figures_tell_what_a_sale_did() {
    let server = Launch::memory().start();
    let mut client = client(&server).await;
    create(&server, EVENT, 100, 1).await;
    for n in 0..5 {
        let call = commit(&format!("f{n}"), EVENT, 2);
        client.commit_reservation(patient(call)).await.unwrap();
    }
    client
        .check_availability(patient(check(EVENT, 1)))
        .await
        .unwrap();
    // How the event stands is read after one scrape and shown by the next.
    let remaining = async || {
        let figures = Figures::of(&server).await;
        figures.get(r#"inventory_event_units{event_id="evt_watched",state="remaining"}"#)
    };
    until("the event's units are shown", async || {
        remaining().await == 90.0
    })
    .await;
    let figures = Figures::of(&server).await;
    for (name, want) in [
        (
            r#"inventory_event_units{event_id="evt_watched",state="taken"}"#,
            10.0,
        ),
        (
            r#"inventory_event_reservations_total{event_id="evt_watched"}"#,
            5.0,
        ),
        ("inventory_lane_batch_entries_count", 5.0),
        ("inventory_queue_wait_seconds_count", 5.0),
        (
            r#"dynamodb_consumed_units_total{table="idempotency",kind="write"}"#,
            10.0,
        ),
        // Two of them for the event itself.
        (
            r#"dynamodb_consumed_units_total{table="inventory",kind="write"}"#,
            12.0,
        ),
        (
            r#"inventory_invariant_breaches_total{kind="damaged_stripe"}"#,
            0.0,
        ),
        ("inventory_ready", 1.0),
    ] {
        assert_eq!(figures.get(name), want, "{name}");
    }
    assert!(figures.sum("inventory_shard_requests_total") >= 6.0);
    assert!(figures.sum("inventory_shard_cpu_seconds_total") > 0.0);
    // What a scrape costs a shard: far under what a call may take.
    let most = Duration::from_millis(50).as_secs_f64();
    assert!(figures.sum("inventory_shard_scrape_seconds") < most);
    server.stops().await;
}

#[tokio::test]
async fn stock_that_cannot_be_is_counted_and_told() {
    let stage = Stage::new();
    let engine = stage.engine.address();
    create_at(engine, EVENT, 10, 1);
    put_units(engine, EVENT, 10, 11);
    let server = stage.server();
    let mut client = client(&server).await;
    let breaches = async || {
        let name = r#"inventory_invariant_breaches_total{kind="damaged_stripe"}"#;
        Figures::of(&server).await.get(name)
    };
    assert_eq!(breaches().await, 0.0);
    let refused = client.check_availability(patient(check(EVENT, 1))).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
    let over = breaches().await;
    assert!(over >= 1.0);
    assert!(
        server
            .log
            .wait(|log| log.contains("remaining 11 is over total_seats 10"))
    );
    put_units(engine, EVENT, 10, -1);
    let _ = client.check_availability(patient(check(EVENT, 1))).await;
    assert!(breaches().await > over);
    // Put right, it is sold.
    put_units(engine, EVENT, 10, 10);
    client
        .commit_reservation(patient(commit("d1", EVENT, 1)))
        .await
        .unwrap();
    server.stops().await;
}
