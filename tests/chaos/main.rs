//! Chaos on real processes: three servers, one store, faults drawn by seed, and a history that is checked against the
//! store.
//!
//! | file | content |
//! |---|---|
//! | `settings.rs` | rounds, seeds and the length of the outage, from the environment |
//! | `schedule.rs` | the faults of a seed |
//! | `faults.rs` | how each fault is done |
//! | `round.rs` | one round, its measurements and its checks |
//! | `load.rs`, `clients.rs` | workers and probers; calls that are recorded |
//! | `moved_holds.rs` | holds that expired long before the end of an outage |
//! | `server.rs`, `memory_group.rs`, `clock_step.rs` | a server process, its memory limit and its clock |
//! | `store.rs`, `store_front.rs`, `http.rs` | the two stores, and what stands between them and the servers |
//! | `stored_state.rs` | events, written before a round and read after it |
//! | `report.rs` | the tables that a run prints |
//!
//! `make chaos ROUNDS=20` runs twenty full rounds in a release build. `CHAOS_SEED=n CHAOS_ROUNDS=1` repeats the faults of
//! one round. The checks of histories are those of `crates/history`.

#![allow(clippy::unwrap_used)]

mod clients;
mod clock_step;
mod faults;
mod http;
mod load;
mod memory_group;
mod moved_holds;
mod report;
mod round;
mod schedule;
mod server;
mod settings;
mod store;
mod store_front;
mod stored_state;

use futures::StreamExt as _;
use report::{RoundReport, report, summary};
use settings::ChaosSettings;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos() {
    let settings = ChaosSettings::from_env();
    let seeds = futures::stream::iter(settings.first_seed..settings.first_seed + settings.rounds);
    // On this thread, which lives as long as the servers must: the kernel ends them together with it.
    let rounds = seeds.map(async |seed| {
        let round = round::run_round(&settings, seed).await;
        report(&format!("\n{}", round.line()));
        round
    });
    let rounds: Vec<RoundReport> = rounds.buffered(settings.at_once).collect().await;
    report(&format!("\n{}", summary(&rounds)));
    let failed: Vec<u64> = rounds
        .iter()
        .filter(|round| !round.violations.is_empty())
        .map(|round| round.seed)
        .collect();
    assert!(failed.is_empty(), "rounds with violations, by seed: {failed:?}");
}

/// Not a test: the process of the store on disk, which [`store`] starts.
#[tokio::test]
#[ignore = "the store process of the test chaos"]
async fn store_process() {
    store::serve_engine().await;
}
