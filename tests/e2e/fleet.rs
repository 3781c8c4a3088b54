//! Several processes that sell one event under load, while processes join, leave, die and stop.
//!
//! `cargo test` runs everything at a rate that a debug build keeps. `make fleet-drill` runs the same in a release build at
//! the rate and the lengths that are promised: FLEET_RATE calls a second, FLEET_STOP_SECONDS of SIGSTOP,
//! FLEET_P95_SLACK_MS above one and a half times the P95 before a SIGKILL.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use inventory_client::{CallOutcome, FailoverClient};
use inventory_proto::inventory::v1::CommitReq;
use inventory_testkit::server::TestServer;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Status};

use crate::client::*;
use crate::fake_store::FakeStore;
use crate::overdue::verify;

const EVENT: &str = "evt_fleet";
const TOTAL: u64 = 1_000_000;
const STRIPES: u16 = 12;

/// Time limit of a call.
const PATIENCE: Duration = Duration::from_secs(5);

/// The documented retry policy (docs/clients.md): UNAVAILABLE only, three attempts.
const ATTEMPTS_MAX: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// After the death of a process the latency of the others is back to normal within this time.
const CALM_AFTER: Duration = Duration::from_secs(10);

/// Calls per second over all processes.
fn rate() -> u64 {
    setting("FLEET_RATE", 100)
}

/// Prints past the capture of the test harness.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// How a load repeats calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RetryPolicy {
    /// As docs/clients.md says: calls that were not processed go to another server, UNAVAILABLE is retried.
    Documented,
    /// One attempt on one connection.
    Never,
}

/// One call as the caller saw it.
#[derive(Clone, Debug)]
struct CallRecord {
    /// Number of the server that the caller preferred.
    server: usize,
    due: Instant,
    took: Duration,
    /// `None`: confirmed.
    failure: Option<(Code, String)>,
}

/// Constant load on several servers, until it is stopped.
struct FleetLoad {
    is_stopped: Arc<AtomicBool>,
    confirmed: Arc<AtomicUsize>,
    calls: JoinHandle<Vec<CallRecord>>,
}

impl FleetLoad {
    /// Each call prefers the next address. `name` distinguishes the reservations of several loads.
    fn start(name: &'static str, addresses: &[String], policy: RetryPolicy) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let confirmed = Arc::new(AtomicUsize::new(0));
        let clients: Vec<FailoverClient> = (0..addresses.len())
            .map(|first| match policy {
                RetryPolicy::Documented => FailoverClient::new(addresses, first).unwrap(),
                RetryPolicy::Never => FailoverClient::new(&addresses[first..=first], 0).unwrap(),
            })
            .collect();
        let (stop, count) = (is_stopped.clone(), confirmed.clone());
        let calls = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            let mut records = Vec::new();
            let began = Instant::now();
            for n in 0_u64.. {
                let due = began + Duration::from_micros(n * 1_000_000 / rate());
                tokio::time::sleep_until(due.into()).await;
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let server = (n % clients.len() as u64) as usize;
                let (client, count) = (clients[server].clone(), count.clone());
                let call = commit(&format!("{name}-{n}"), EVENT, 1);
                calls.spawn(async move {
                    let answer = call_with(&client, &call, policy).await;
                    count.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
                    let failure = answer.err().map(|s| (s.code(), s.message().to_owned()));
                    CallRecord { server, due, took: due.elapsed(), failure }
                });
                while let Some(done) = calls.try_join_next() {
                    records.push(done.unwrap());
                }
            }
            while let Some(done) = calls.join_next().await {
                records.push(done.unwrap());
            }
            records
        });
        Self { is_stopped, confirmed, calls }
    }

    /// Waits until so many more calls are confirmed.
    async fn sells(&self, more: usize) {
        let enough = self.confirmed.load(Ordering::SeqCst) + more;
        until("more sales", async || self.confirmed.load(Ordering::SeqCst) >= enough).await;
    }

    async fn stop(self) -> Vec<CallRecord> {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.calls.await.unwrap()
    }
}

async fn call_with(
    client: &FailoverClient,
    call: &CommitReq,
    policy: RetryPolicy,
) -> Result<(), Status> {
    let mut backoff = BACKOFF_FIRST;
    for attempt in 1.. {
        let Err(status) = client.commit(call, PATIENCE).await else { return Ok(()) };
        let is_final = attempt >= ATTEMPTS_MAX || policy == RetryPolicy::Never;
        if is_final || status.code() != Code::Unavailable {
            return Err(status);
        }
        let asked = match CallOutcome::of(&status) {
            CallOutcome::Busy { retry_after } => retry_after,
            _ => None,
        };
        tokio::time::sleep(asked.unwrap_or(backoff)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
    Ok(())
}

fn failures(records: &[CallRecord]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (code, message) in records.iter().filter_map(|record| record.failure.as_ref()) {
        *counts.entry(format!("{code:?}: {message}")).or_default() += 1;
    }
    counts
}

/// P95 of the confirmed calls among `records`.
fn p95<'a>(records: impl Iterator<Item = &'a CallRecord>) -> Duration {
    let confirmed = records.filter(|record| record.failure.is_none());
    let mut took: Vec<Duration> = confirmed.map(|record| record.took).collect();
    took.sort_unstable();
    took.get(took.len() * 95 / 100).copied().unwrap_or_default()
}

/// Servers on one store, each on an address that it keeps when it is restarted.
struct ServerFleet {
    store: FakeStore,
    addresses: Vec<String>,
    servers: Vec<Option<TestServer>>,
}

impl ServerFleet {
    async fn start(processes: usize) -> Self {
        let store = FakeStore::start();
        store.create_event(EVENT, TOTAL, STRIPES);
        let addresses = (0..processes).map(|_| free_address()).collect();
        let mut fleet = Self { store, addresses, servers: Vec::new() };
        for n in 0..processes {
            fleet.servers.push(None);
            fleet.start_server(n);
        }
        fleet.all_see(processes).await;
        fleet
    }

    fn start_server(&mut self, n: usize) {
        let port = self.addresses[n].rsplit(':').next().unwrap();
        let command = self.store.server_command().env("GRPC_PORT", port).env("SHARDS", "1");
        self.servers[n] = Some(command.start());
    }

    fn server(&self, n: usize) -> &TestServer {
        self.servers[n].as_ref().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = &TestServer> {
        self.servers.iter().flatten()
    }

    /// Waits until every running server counts so many members.
    async fn all_see(&self, count: usize) {
        until(&format!("{count} members"), async || {
            for server in self.running() {
                let metrics = MetricsSample::scrape(server).await;
                if metrics.get("inventory_members") != count as f64 {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Every confirmed call is sold once, and the stock adds up by the view of every server.
    fn check(&self, records: &[CallRecord]) {
        let confirmed = records.iter().filter(|record| record.failure.is_none()).count();
        let sold = self.store.read_event(EVENT).confirmed_count();
        let unknown = records.len() - confirmed;
        assert!((confirmed..=confirmed + unknown).contains(&sold), "{confirmed} {sold} {unknown}");
        for server in self.running() {
            let (code, out) = verify(server, EVENT);
            assert_eq!(code, Some(0), "{out}");
        }
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Drains and restarts one server after the other. Returns the calls.
async fn rolling_restart(name: &'static str, policy: RetryPolicy) -> Vec<CallRecord> {
    let mut fleet = ServerFleet::start(3).await;
    let load = FleetLoad::start(name, &fleet.addresses, policy);
    load.sells(50).await;
    for n in 0..3 {
        fleet.servers[n].take().unwrap().stop().await;
        load.sells(20).await;
        fleet.start_server(n);
        fleet.all_see(3).await;
        load.sells(50).await;
    }
    let records = load.stop().await;
    fleet.check(&records);
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_fails_no_call_of_a_client_that_retries_as_documented() {
    let records = rolling_restart("rolling", RetryPolicy::Documented).await;
    let failed = failures(&records);
    report(&format!(
        "rolling restart of 3 processes, {} calls/s, documented client policy: {} calls, {} failed, p95 {:.1?}",
        rate(),
        records.len(),
        failed.values().sum::<usize>(),
        p95(records.iter()),
    ));
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_without_retries_fails_calls_only_while_their_server_is_away() {
    let records = rolling_restart("once", RetryPolicy::Never).await;
    let failed = failures(&records);
    report(&format!(
        "rolling restart of 3 processes, {} calls/s, no retry: {} calls, {} failed: {failed:#?}",
        rate(),
        records.len(),
        failed.values().sum::<usize>(),
    ));
    let is_unavailable = |record: &CallRecord| {
        record.failure.as_ref().is_none_or(|(code, _)| *code == Code::Unavailable)
    };
    assert!(records.iter().all(is_unavailable), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_joins_and_leaves_under_load_fails_no_call() {
    let mut fleet = ServerFleet::start(2).await;
    fleet.addresses.push(free_address());
    fleet.servers.push(None);
    let load = FleetLoad::start("join", &fleet.addresses[..2], RetryPolicy::Documented);
    load.sells(50).await;
    fleet.start_server(2);
    fleet.all_see(3).await;
    let joined = FleetLoad::start("joined", &fleet.addresses[2..], RetryPolicy::Documented);
    joined.sells(50).await;
    let mut records = joined.stop().await;
    fleet.servers[2].take().unwrap().stop().await;
    fleet.all_see(2).await;
    load.sells(50).await;
    records.extend(load.stop().await);
    fleet.check(&records);
    assert!(failures(&records).is_empty(), "{:#?}", failures(&records));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_of_one_of_three_fails_only_calls_on_its_connections() {
    let mut fleet = ServerFleet::start(3).await;
    let load = FleetLoad::start("kill", &fleet.addresses, RetryPolicy::Never);
    load.sells(100).await;
    let before = Instant::now();
    fleet.servers[1].take().unwrap().kill();
    let killed = Instant::now();
    fleet.all_see(2).await;
    let forgotten = killed.elapsed();
    let calm = killed + CALM_AFTER;
    // The load measures until then, and for two seconds more.
    tokio::time::sleep_until(calm.into()).await;
    load.sells(2 * rate() as usize).await;
    let records = load.stop().await;
    fleet.check(&records);
    let others = || records.iter().filter(|record| record.server != 1);
    let earlier = others().filter(|record| record.due + record.took < before);
    let during = others().filter(|record| record.due >= killed && record.due < calm);
    let after = others().filter(|record| record.due >= calm);
    let (earlier, during, after) = (p95(earlier), p95(during), p95(after));
    report(&format!(
        "kill -9 of one of 3 processes, {} calls/s, no retry: {} calls, failed on its connections: {:?}; forgotten after \
         {forgotten:.1?}; p95 of the others {earlier:.1?} before, {during:.1?} in ten seconds after, {after:.1?} later",
        rate(),
        records.len(),
        failures(&records),
    ));
    let failed: Vec<_> = others().filter(|record| record.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // A machine that runs other tests meanwhile is slow at any time.
    let slack = Duration::from_millis(setting("FLEET_P95_SLACK_MS", 3_000));
    assert!(after <= earlier * 3 / 2 + slack, "{after:?} {earlier:?}");
}

/// The stripes of the stopped process are sold by the others, and it does not sell them again when it continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_of_a_stopped_process_is_sold_by_the_others() {
    let length = Duration::from_secs(setting("FLEET_STOP_SECONDS", 12));
    let store = FakeStore::start();
    // Little enough to be sold out meanwhile.
    let total = rate() * length.as_secs() / 3;
    store.create_event(EVENT, total, STRIPES);
    let addresses: Vec<String> = (0..3).map(|_| free_address()).collect();
    let mut fleet = ServerFleet { store, addresses, servers: vec![None, None, None] };
    for n in 0..3 {
        fleet.start_server(n);
    }
    fleet.all_see(3).await;
    let stopped_load = FleetLoad::start("stopped", &fleet.addresses[..1], RetryPolicy::Never);
    let load = FleetLoad::start("others", &fleet.addresses[1..], RetryPolicy::Never);
    stopped_load.sells(10).await;
    fleet.server(0).signal(libc::SIGSTOP);
    let stopped = Instant::now();
    until("sold out", async || fleet.store.remaining(EVENT, STRIPES) == 0).await;
    let sold_out = stopped.elapsed();
    tokio::time::sleep(length.saturating_sub(stopped.elapsed())).await;
    fleet.server(0).signal(libc::SIGCONT);
    let mut records = load.stop().await;
    let others_sold = records.iter().filter(|record| record.failure.is_none()).count();
    records.extend(stopped_load.stop().await);
    fleet.all_see(3).await;
    for server in fleet.running() {
        let (code, out) = verify(server, EVENT);
        assert_eq!(code, Some(0), "{out}");
    }
    let sold = fleet.store.read_event(EVENT).confirmed_count() as u64;
    report(&format!(
        "SIGSTOP of one of 3 processes for {length:?}: {total} units sold out {sold_out:.1?} after it stopped, \
         {others_sold} of them by the others; verify clean; calls by status: {:?}",
        failures(&records),
    ));
    assert_eq!(sold, total, "nothing is sold twice, and nothing is left");
    assert!(sold_out < length, "sold out only after the process continued: {sold_out:?}");
}
