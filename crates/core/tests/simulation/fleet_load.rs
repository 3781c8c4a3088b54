//! Several processes on one hot event, in virtual time: latency, conflicts and the cost of smaller batches.
//!
//! `cargo test --release -p inventory-core --test simulation fleet_load -- --ignored --nocapture` prints the tables of
//! ADR 0027.

use std::rc::Rc;

use inventory_core::ids::EventId;
use inventory_core::membership::{Member, Members, ProcessId};
use inventory_core::stripe_ownership::{StripeOwnership, StripeSet};

use super::lane_load::{LoadTest, conflicts_of, percentile};

/// CPU time of a transaction, in entries; see `callers_are_batched_while_lanes_are_free`.
const TRANSACTION_COST: f64 = 10.0;

/// The stripes of each of these processes, all of which know each other.
pub(crate) fn shares(processes: u64, stripes: u16) -> Vec<StripeSet> {
    let event: EventId = "evt".parse().unwrap();
    let member = |n: u64| Member { id: ProcessId(n * 0x9e37_79b9 + 1), shards: 1 };
    let share = |n: u64| {
        let mut ownership = StripeOwnership::new(1);
        ownership.set_members(Rc::new(Members::new(member(n), (0..processes).map(member))));
        ownership.stripes_of_shard(&event, stripes, 0)
    };
    (0..processes).map(share).collect()
}

struct Measured {
    p50: f64,
    p95: f64,
    /// Per hundred transactions.
    conflicts: f64,
    entries: f64,
    sold: f64,
}

impl Measured {
    /// CPU time of a commit, in entries.
    fn cost(&self) -> f64 {
        1.0 + TRANSACTION_COST / self.entries
    }
}

fn measure(processes: u64, stripes: u16, per_second: u64, ms: u64) -> Measured {
    let mut load = LoadTest::new(&shares(processes, stripes), stripes);
    load.run(per_second / processes, ms);
    let (from, until) = (load.now - ms * 650, load.now - 250_000);
    let results = || load.results_between(from, until);
    let sold = results().filter(|result| result.sold).count() as f64 / results().count() as f64;
    let sum = |of: fn(&inventory_core::counters::Counters) -> u64| -> f64 {
        load.counters.iter().map(of).sum::<u64>() as f64
    };
    Measured {
        p50: percentile(results(), 0.5),
        p95: percentile(results(), 0.95),
        conflicts: conflicts_of(&load, from, until),
        entries: sum(|counters| counters.entries) / sum(|counters| counters.transactions),
        sold,
    }
}

/// Prints a row per number of processes, and returns the worst ratio of the 95th percentiles.
fn table(stripes: u16, per_second: u64, processes: &[u64], ms: u64) -> (f64, Vec<Measured>) {
    println!("\n{per_second} calls/s on {stripes} stripes");
    println!(
        "| processes | p50 ms | p95 ms | p95 ratio | conflicts per 100 | entries | cost ratio | sold % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut rows: Vec<Measured> = Vec::new();
    let mut worst: f64 = 0.0;
    for count in processes {
        let row = measure(*count, stripes, per_second, ms);
        let first = rows.first().unwrap_or(&row);
        let ratio = row.p95 / first.p95;
        println!(
            "| {count} | {:.1} | {:.1} | {ratio:.2} | {:.1} | {:.1} | {:.2} | {:.1} |",
            row.p50,
            row.p95,
            row.conflicts,
            row.entries,
            row.cost() / first.cost(),
            100.0 * row.sold
        );
        worst = worst.max(ratio);
        rows.push(row);
    }
    (worst, rows)
}

#[test]
fn processes_with_stripes_of_their_own_are_as_fast_as_one() {
    let (worst, rows) = table(64, 30_000, &[1, 4, 16], 1_500);
    assert!(worst <= 1.6, "{worst}");
    assert!(rows.iter().all(|row| row.conflicts <= 1.0 && row.sold > 0.999));
    let (_, rows) = table(20, 8_000, &[1, 4], 1_500);
    assert!(rows.iter().all(|row| row.conflicts <= 1.0 && row.sold > 0.999));
}

/// The tables of ADR 0027.
#[test]
#[ignore = "prints figures; takes a minute"]
fn tables_of_processes() {
    let counts = [1, 2, 4, 8, 16];
    for (stripes, per_second) in [(64, 30_000), (20, 30_000), (20, 8_000), (8, 8_000)] {
        table(stripes, per_second, &counts, 3_000);
    }
    table(64, 100_000, &[1, 16], 3_000);
}
