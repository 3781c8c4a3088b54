//! Cost of an idle server, and `demo`.

use std::time::{Duration, Instant};

use inventory_process::{CpuTime, resident_bytes};
use inventory_testkit::server::ServerCommand;

use crate::client::*;

/// Long compared with the 10 ms resolution of CPU time.
const WATCHED: Duration = Duration::from_secs(3);

/// Share of one core, for an unoptimised build with the engine in the same process. The reclaimer needs 0.7 %, and twice
/// as much in the first 15 s, when it also reads the last minute; a release build a quarter. A loop that never sleeps or a
/// timer with a period of 1 ms needs over 5 %.
const IDLE_SHARE_MAX: f64 = 0.03;

#[tokio::test]
async fn idle_server_uses_little_cpu_and_memory() {
    let server = ServerCommand::dev_in_memory().start();
    // With idle connections.
    let silent = clients(&server, 4).await;
    silent[0].order(commit("r1", "evt_2025_1001", 1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, began) = (CpuTime::of(server.pid()).unwrap(), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let spent = CpuTime::of(server.pid()).unwrap().since(before).total();
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64();
    let memory = resident_bytes(server.pid()).unwrap();
    let mib = memory as f64 / f64::from(1 << 20);
    println!("idle: {:.2} % of a core, {mib:.1} MiB resident", share * 100.0);
    assert!(share < IDLE_SHARE_MAX, "{:.2} % of a core", share * 100.0);
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
