//! What a server costs that has nothing to do, and that `demo` ends well.

use std::time::{Duration, Instant};

use inventory_process::CpuTime;

use crate::client::*;
use crate::server::{Launch, Server};

/// Long enough for the ten milliseconds that CPU time is counted in.
const WATCHED: Duration = Duration::from_secs(3);

/// Of one core, for this unoptimised build and the engine in the same process. Looking for expired
/// holds takes 0.7 % of it, and twice that in the first quarter of a minute, when the minute before is
/// looked at too. A release takes a quarter of that. What this is to catch is a loop that never
/// sleeps, or a timer that ticks every millisecond: that is 5 % and more.
const IDLE_SHARE_MAX: f64 = 0.03;

/// Resident memory of a process, in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn an_idle_server_costs_next_to_nothing() {
    let server = Launch::memory().start();
    // With clients that are connected and silent, as most are most of the time.
    let silent = clients(&server, 4).await;
    silent[0].order(commit("r1", "evt_2025_1001", 1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, began) = (CpuTime::of(server.pid()).unwrap(), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let spent = CpuTime::of(server.pid()).unwrap().since(before).total();
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64();
    let memory = resident(&server);
    let mib = memory as f64 / f64::from(1 << 20);
    println!(
        "idle: {:.2} % of a core, {mib:.1} MiB resident",
        share * 100.0
    );
    assert!(share < IDLE_SHARE_MAX, "{:.2} % of a core", share * 100.0);
    assert!(mib < 64.0, "{mib:.1} MiB");
}

#[test]
fn a_small_demo_ends_well() {
    let args = [
        "demo",
        "--tickets",
        "300",
        "--connections",
        "4",
        "--stripes",
        "3",
    ];
    let ran = Launch::of(&args).run();
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    let row = |name: &str| -> u64 {
        let line = ran
            .out
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}:\n{}", ran.out));
        let value = line.trim_start()[name.len()..].split_whitespace().next();
        value.unwrap().parse().unwrap()
    };
    assert_eq!(
        (row("sold"), row("oversold"), row("undersold")),
        (300, 0, 0)
    );
    assert!(row("duplicates") > 0 && row("refused") > 0);
}
