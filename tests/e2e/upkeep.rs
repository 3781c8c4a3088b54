//! Cost of an idle server, and `demo`.

use std::time::{Duration, Instant};

use inventory_process::{CpuTime, resident_bytes, sleeps};
use inventory_testkit::server::ServerCommand;

use crate::client::*;

/// Long compared with the 10 ms resolution of CPU time.
const WATCHED: Duration = Duration::from_secs(3);

/// Share of one core, for an unoptimised build with the engine in the same process: 2 to 4 % are its reads of the store,
/// of holds to expire and of other processes; a release build needs a quarter. A loop that never sleeps needs 100 %.
const IDLE_SHARE_MAX: f64 = 0.15;

/// Of all threads: about 70 are for these reads and the watchdog. A timer of one shard with a period of 1 ms makes 1,000.
const SLEEPS_PER_SECOND_MAX: f64 = 300.0;

#[tokio::test]
async fn idle_server_uses_little_cpu_and_memory() {
    let server = ServerCommand::dev_in_memory().start();
    // With idle connections.
    let silent = clients(&server, 4).await;
    silent[0].order(commit("r1", "evt_2025_1001", 1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, slept, began) =
        (CpuTime::of(server.pid()).unwrap(), sleeps(server.pid()).unwrap(), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let spent = CpuTime::of(server.pid()).unwrap().since(before).total();
    let slept = sleeps(server.pid()).unwrap().saturating_sub(slept);
    let seconds = began.elapsed().as_secs_f64();
    let (share, slept) = (spent.as_secs_f64() / seconds, slept as f64 / seconds);
    let memory = resident_bytes(server.pid()).unwrap();
    let mib = memory as f64 / f64::from(1 << 20);
    println!(
        "idle: {:.2} % of a core, {slept:.0} sleeps per second, {mib:.1} MiB resident",
        share * 100.0
    );
    assert!(share < IDLE_SHARE_MAX, "{:.2} % of a core", share * 100.0);
    assert!(slept < SLEEPS_PER_SECOND_MAX, "{slept:.0} sleeps per second");
    assert!(mib < 64.0, "{mib:.1} MiB");
}

#[test]
fn small_demo_is_clean() {
    let args = ["demo", "--tickets", "300", "--connections", "4", "--stripes", "3"];
    let ran = ServerCommand::new(&args).run();
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    let row = |name: &str| -> u64 {
        let line = ran.out.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}:\n{}", ran.out));
        let value = line.trim_start()[name.len()..].split_whitespace().next();
        value.unwrap().parse().unwrap()
    };
    assert_eq!((row("sold"), row("oversold"), row("undersold")), (300, 0, 0));
    assert!(row("duplicates") > 0 && row("refused") > 0);
}
