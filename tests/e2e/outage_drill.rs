//! The outage drill: three processes, a store that is away while holds expire, and the return of all stock.
//!
//! `make outage-drill` runs it with 10,000 holds. `cargo test` runs it with few.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use inventory_proto::inventory::v1::PlaceHoldReq;
use inventory_testkit::DEADLINE;
use inventory_testkit::server::TestServer;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;
use crate::fake_store::{FakeStore, RequestAction};
use crate::overdue::{move_expiry, verify};

const EVENT: &str = "evt_drill";

/// Units that nobody holds, for buyers during the outage.
const SPARE: u64 = 1_000;

/// Calls to each process during the outage. Some of their writes have an unknown outcome when the store returns.
const CALLS_DURING: usize = 5;
const PROCESSES: usize = 3;
const STRIPES: u16 = 4;

/// The outage that the expiry of the holds stands for.
const OUTAGE: Duration = Duration::from_secs(45 * 60);

/// Longest wait for the return of the stock. The bound of the drill is DRILL_BACK_SECONDS.
const BACK_MAX: Duration = Duration::from_secs(60);

/// Calls in flight while the holds are placed.
const CALLS_IN_FLIGHT: usize = 200;

/// Repeats the call as its status asks for: a busy machine may be slower than DDB_TIMEOUT.
async fn place_hold(mut client: InventoryClient, id: String) {
    let hold = PlaceHoldReq {
        reservation_id: id,
        event_id: EVENT.to_owned(),
        qty: 1,
        hold_expires_at: Some((SystemTime::now() + Duration::from_secs(600)).into()),
        ..PlaceHoldReq::default()
    };
    let began = Instant::now();
    while let Err(status) = client.place_hold(with_deadline(hold.clone())).await {
        assert!(began.elapsed() < DEADLINE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Places the holds through all servers, a few at a time.
async fn place_holds(servers: &[TestServer], holds: u64) {
    let mut all = Vec::new();
    for server in servers {
        all.push(client(server).await);
    }
    let mut calls = JoinSet::new();
    for n in 0..holds {
        if calls.len() >= CALLS_IN_FLIGHT {
            calls.join_next().await.unwrap().unwrap();
        }
        let client = all[n as usize % all.len()].clone();
        calls.spawn(place_hold(client, format!("hold-{n}")));
    }
    while let Some(placed) = calls.join_next().await {
        placed.unwrap();
    }
}

/// Buyers during the outage.
async fn call_without_answer(servers: &[TestServer]) {
    for (n, server) in servers.iter().enumerate() {
        let client = client(server).await;
        for number in 0..CALLS_DURING {
            let call = commit(&format!("sale-{n}-{number}"), EVENT, 1);
            let call = within(call, Duration::from_millis(300));
            client.clone().commit_reservation(call).await.unwrap_err();
        }
    }
}

/// A call that meets a lane whose write is not resolved yet gets UNAVAILABLE, and is repeated as its client would do.
async fn sells_again(server: &TestServer, reservation: &str) {
    let client = client(server).await;
    let deadline = Instant::now() + BACK_MAX;
    loop {
        match client.try_commit(commit(reservation, EVENT, 1)).await {
            Ok(_) => return,
            Err(status) => {
                let may_repeat = status.code() == Code::Unavailable && Instant::now() < deadline;
                assert!(may_repeat, "{status:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn log_lines(server: &TestServer) -> usize {
    server.log.text().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_drill() {
    let holds = setting("DRILL_HOLDS", 300);
    let away = Duration::from_secs(setting("DRILL_SECONDS", 15));
    // The promise is ten seconds; the tests of this machine run beside others, and are not optimised.
    let bound = Duration::from_secs(setting("DRILL_BACK_SECONDS", 30));
    let store = FakeStore::start();
    store.create_event(EVENT, holds + SPARE, STRIPES);
    // Shorter than the tests' default, so that reads that hang end soon, and kept by an unoptimised build.
    let start = || store.server_command().env("DDB_TIMEOUT", "1s").start();
    let mut servers: Vec<TestServer> = (0..PROCESSES).map(|_| start()).collect();
    let began = Instant::now();
    place_holds(&servers, holds).await;
    let placed = began.elapsed();
    assert_eq!(store.remaining(EVENT, STRIPES), SPARE);

    let lines_before: Vec<usize> = servers.iter().map(log_lines).collect();
    store.set_rule(|_| RequestAction::Hang);
    let outage = Instant::now();
    call_without_answer(&servers).await;
    // The clock of this machine cannot be moved: the holds are, as if they had expired during the outage.
    for n in 0..holds {
        let ago = OUTAGE.mul_f64((n + 1) as f64 / holds as f64);
        move_expiry(&store, &format!("hold-{n}"), ago);
    }
    tokio::time::sleep(away.saturating_sub(outage.elapsed())).await;
    let away = outage.elapsed();
    let lines_away: Vec<usize> = servers.iter().map(log_lines).collect();

    store.clear_rule();
    let returned = Instant::now();
    let sold_most = (PROCESSES * CALLS_DURING) as u64;
    let mut held = usize::MAX;
    while held > 0 {
        let waited = returned.elapsed();
        assert!(
            waited < BACK_MAX,
            "{} of {holds} holds' units are back after {waited:?}",
            store.remaining(EVENT, STRIPES).saturating_sub(SPARE)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        // All records are read only when the stripes show that they are expired.
        if store.remaining(EVENT, STRIPES) + sold_most >= holds + SPARE {
            held = store.read_event(EVENT).held_count();
        }
    }
    let back = returned.elapsed();

    // Nothing was restarted, and every process serves and proves the same.
    let mut table = String::new();
    for (number, server) in servers.iter_mut().enumerate() {
        server.assert_running();
        let (code, out) = verify(server, EVENT);
        assert_eq!(code, Some(0), "{out}");
        sells_again(server, &format!("after-{number}")).await;
        let (before, during) = (lines_before[number], lines_away[number] - lines_before[number]);
        let after = log_lines(server) - lines_away[number];
        let _ = writeln!(
            table,
            "process {number}  {:>6}  {before:>12}  {during:>12}  {after:>11}  CLEAN",
            server.pid()
        );
        let per_minute = during as f64 / away.as_secs_f64() * 60.0;
        assert!(per_minute < 200.0, "{per_minute} log lines per minute:\n{}", server.log.text());
    }
    // Past the capture of the test harness.
    let _ = writeln!(
        std::io::stderr(),
        "\noutage drill: {PROCESSES} processes, {holds} holds placed in {placed:.1?}\n\
         store away for {away:.1?}, accelerated: the holds' expires_at lie up to {} min back when it returns\n\
         all stock back {back:.1?} after the return, without a restart\n\n\
         process       pid  lines before  lines during  lines after  verify\n{table}",
        OUTAGE.as_secs() / 60,
    );
    assert!(back <= bound, "all stock is back after {back:.1?}, not within {bound:?}");
}
