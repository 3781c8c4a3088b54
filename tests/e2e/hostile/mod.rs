//! Hostile clients: each attack runs beside a client that makes calls. All its calls succeed, its latency stays within
//! twice that of before, and the memory of the server stays bounded. docs/testing.md has the table of attacks.
//!
//! `make hostile-clients` runs each attack for five seconds with tight bounds and HOSTILE_PINNED=1: the shard has the first CPU
//! for itself. On the second one are the measured client, the embedded engine, and the attackers, which run only while the
//! others do not (SCHED_IDLE). So the latency of the client shows what the shard does, and not who else waits for a CPU.
//! `cargo test` runs the attacks briefly, beside other tests, so its latency bound is loose: HOSTILE_SLACK_MS above twice
//! the P95.

mod attacks;

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use inventory_client::{ConnectError, InventoryClient, connect_secure};
use inventory_process::{allowed_cpus, resident_bytes};
use inventory_testkit::server::{ServerCommand, TestServer};

use self::attacks::{ATTACKS, Attack, AttackTarget, AttackTls, RunningAttack};
use crate::client::*;
use crate::tls_fixture::TlsFixture;

const EVENT: &str = "evt_hostile";

/// Pause of the measured client between two calls.
const PACE: Duration = Duration::from_millis(2);

/// Memory that one attack may cost the server: 2,000 connections, the streams of 20 connections whose windows are closed, or
/// 2,048 unfinished TLS handshakes of 36 KB, with a margin.
const MEMORY_BYTES_MAX: u64 = 96 << 20;

/// Whether the shard has a CPU for itself.
fn is_pinned() -> bool {
    setting("HOSTILE_PINNED", 0) != 0
}

/// Runs a program that changes the scheduling of a process or thread.
fn util_linux(program: &str, arguments: &[&str]) {
    let ran = std::process::Command::new(program).args(arguments).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program} (util-linux) cannot be run: {error}"));
    assert!(
        ran.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// Moves all threads of a process to one of the CPUs that this process has had since its start.
fn pin(process: u32, cpu: usize) {
    let (cpu, process) = (cpu.to_string(), process.to_string());
    util_linux("taskset", &["--all-tasks", "--pid", "--cpu-list", &cpu, &process]);
}

/// Moves the shard of a server to a CPU.
fn pin_shard(process: u32, cpu: usize) {
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let thread = thread.unwrap();
        if std::fs::read_to_string(thread.path().join("comm")).unwrap().trim() == "shard-0" {
            let id = thread.file_name().into_string().unwrap();
            util_linux("taskset", &["--pid", "--cpu-list", &cpu.to_string(), &id]);
        }
    }
}

/// Checks and commits by turns for `window`; the P95. Each call must succeed.
async fn p95_of_calls(client: &InventoryClient, round: &str, window: Duration) -> Duration {
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < window || took.len() < 20 {
        let start = Instant::now();
        if took.len() % 2 == 0 {
            client.try_check(check(EVENT, 1)).await.unwrap();
        } else {
            client.order(commit(&format!("{round}-{}", took.len()), EVENT, 1)).await;
        }
        took.push(start.elapsed());
        tokio::time::sleep(PACE).await;
    }
    took.sort_unstable();
    took[took.len() * 95 / 100]
}

/// A new connection, with TLS if the attack is on a port with TLS.
async fn try_connect(target: &AttackTarget) -> Result<InventoryClient, ConnectError> {
    match &target.tls {
        None => inventory_client::connect(&target.address).await,
        Some(tls) => connect_secure(&target.address, &tls.client).await,
    }
}

/// Time until a new client is served while the attack goes on. It tries again, as clients do: a flood of handshakes may take
/// its place.
async fn time_of_first_call(target: &AttackTarget) -> Duration {
    let start = Instant::now();
    until("a new client is served", async || match try_connect(target).await {
        Ok(client) => client.try_check(check(EVENT, 1)).await.is_ok(),
        Err(_) => false,
    })
    .await;
    start.elapsed()
}

/// Runs one attack against a new server; returns the row of the report. `cpus` are those of the shard, and of the
/// clients and the embedded engine.
async fn withstand(attack: &'static Attack, cpus: Option<[usize; 2]>) -> String {
    let window = Duration::from_millis(setting("HOSTILE_MS", 300));
    let fixture = attack.is_on_tls().then(TlsFixture::new);
    let mut command =
        fixture.as_ref().map_or_else(ServerCommand::dev_in_memory, TlsFixture::command);
    if is_pinned() {
        command = command.env("SHARDS", "1");
    }
    let mut server = command.start();
    if let Some([of_shard, of_clients]) = cpus {
        pin(server.pid(), of_clients);
        pin_shard(server.pid(), of_shard);
        pin(std::process::id(), of_clients);
    }
    let tls = |fixture: &TlsFixture| AttackTls {
        client: fixture.trusting(),
        hello: fixture.client_hello(),
    };
    let target = AttackTarget { address: server.grpc.clone(), tls: fixture.as_ref().map(tls) };
    create(&server, EVENT, 1_000_000, 1).await;
    let client = try_connect(&target).await.unwrap();
    p95_of_calls(&client, "warm", window / 2).await;
    let before = p95_of_calls(&client, "before", window).await;
    let memory = resident(&server);
    let running = RunningAttack::start(attack, target.clone());
    until("all connections of the attack are open", async || {
        running.stats.opened.load(Ordering::Relaxed) >= attack.connections
    })
    .await;
    let during = p95_of_calls(&client, "during", window).await;
    let first_call = time_of_first_call(&target).await;
    let grown = resident(&server).saturating_sub(memory);
    if attack.is_ended == Some(true) {
        until("the server ends a connection of the attack", async || {
            running.stats.ended.load(Ordering::Relaxed) > 0
        })
        .await;
    }
    let stats = tokio::task::spawn_blocking(|| running.stop()).await.unwrap();
    let (opened, ended) =
        (stats.opened.load(Ordering::Relaxed), stats.ended.load(Ordering::Relaxed));
    let sent = stats.bytes.load(Ordering::Relaxed);
    server.assert_running();
    try_connect(&target).await.unwrap().order(commit("after", EVENT, 1)).await;
    let row = format!(
        "| {} | {opened} | {ended} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
        attack.name,
        sent as f64 / 1e6,
        before.as_secs_f64() * 1e3,
        during.as_secs_f64() * 1e3,
        first_call.as_secs_f64() * 1e3,
        grown as f64 / 1e6,
    );
    let slack = Duration::from_millis(setting("HOSTILE_SLACK_MS", 10_000));
    assert!(during <= 2 * before + slack, "latency: {row}");
    assert!(grown <= MEMORY_BYTES_MAX, "memory: {row}");
    assert!(sent > 0 && (attack.is_ended != Some(false) || ended == 0), "{row}");
    server.stop().await;
    row
}

fn resident(server: &TestServer) -> u64 {
    resident_bytes(server.pid()).unwrap()
}

#[tokio::test]
async fn hostile_clients_cost_other_clients_nothing() {
    let mut report = "\n| attack | connections | ended by the server | MB sent | p95 ms before | during | new connection ms | MB of memory |\n\
         |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let cpus = is_pinned().then(|| {
        let allowed = allowed_cpus().unwrap();
        assert!(allowed.len() >= 2, "HOSTILE_PINNED=1 needs two CPUs, there is {allowed:?}");
        [allowed[0], allowed[1]]
    });
    // One after the other: together they would measure the machine.
    for attack in &ATTACKS {
        report.push_str(&withstand(attack, cpus).await);
        report.push('\n');
    }
    let _ = std::io::stderr().write_all(report.as_bytes());
}
