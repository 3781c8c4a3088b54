//! Several processes on one hot event, in virtual time: latency, conflicts and the cost of smaller batches.
//!
//! `cargo test --release -p inventory-core --test simulation fleet_load -- --ignored --nocapture` prints the tables of
//! ADR 0027.

use std::rc::Rc;

use inventory_core::counters::Counters;
use inventory_core::ids::EventId;
use inventory_core::membership::{Member, Members, ProcessId};
use inventory_core::stripe_ownership::{StripeOwnership, StripeSet};

use super::lane_load::{LATCH, LoadTest, conflicts_of, percentile};

/// CPU time of a transaction, in entries; see `callers_are_batched_while_lanes_are_free`.
const TRANSACTION_COST: f64 = 10.0;

/// The stripes of each of these processes. Every process has all of them as members.
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

fn measure(shares: &[StripeSet], stripes: u16, per_second: u64, ms: u64) -> Measured {
    let processes = shares.len() as u64;
    let mut load = LoadTest::new(shares, stripes);
    load.run(per_second / processes, ms);
    let (from, until) = (load.now - ms * 650, load.now - 250_000);
    let results = || load.results_between(from, until);
    let sold = results().filter(|result| result.sold).count() as f64 / results().count() as f64;
    let sum =
        |of: fn(&Counters) -> u64| -> f64 { load.counters.iter().map(of).sum::<u64>() as f64 };
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
        let row = measure(&shares(*count, stripes), stripes, per_second, ms);
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
    for (stripes, per_second, processes) in [(64, 30_000, [1, 4, 16]), (20, 8_000, [1, 2, 4])] {
        let (worst, rows) = table(stripes, per_second, &processes, 1_500);
        assert!(worst <= 1.4, "{worst}");
        assert!(rows.iter().all(|row| row.conflicts <= 1.0 && row.sold > 0.999));
        // Without a batching delay that follows the number of processes: 1.37 and 1.49.
        let costs: Vec<f64> = rows.iter().map(|row| row.cost() / rows[0].cost()).collect();
        assert!(costs.iter().all(|cost| *cost <= 1.25), "{costs:?}");
    }
}

/// Two processes share each stripe, and neither starves.
#[test]
fn processes_that_share_a_stripe_take_turns() {
    let (_, rows) = table(8, 8_000, &[16], 1_500);
    assert!(rows[0].sold > 0.99 && rows[0].p95 < 120.0, "{} {}", rows[0].sold, rows[0].p95);
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
    println!("\nEvery process on every stripe, 8000 calls/s");
    for (stripes, processes) in [(20, 4), (8, 16)] {
        let all = vec![StripeSet::every(0, 1); processes];
        let row = measure(&all, stripes, 8_000, 3_000);
        println!(
            "{processes} processes, {stripes} stripes: p50 {:.1} ms, p95 {:.1} ms, {:.1} conflicts per 100, {:.1} % sold",
            row.p50,
            row.p95,
            row.conflicts,
            100.0 * row.sold
        );
    }
}

/// Sells out, with `weights` as the shares of the calls of the processes.
fn sell_out(weights: &[u64], stock: &[u64], per_second: u64) -> LoadTest {
    let processes = weights.len() as u64;
    let mut load = LoadTest::new(&shares(processes, stock.len() as u16), stock.len() as u16);
    load = load.with_stock(stock);
    load.weights = weights.to_vec();
    let total: u64 = stock.iter().sum();
    let needed = 1_000 * total / per_second;
    load.run(per_second / processes, 2 * needed + 500);
    load.run(0, 1_000);
    load
}

/// To the last unit, whichever process gets the calls: no unit remains, "sold out" is true, and the number of
/// transactions and reads per unit is bounded.
#[test]
fn a_sale_ends_with_few_transactions_on_any_number_of_processes() {
    println!(
        "\n| processes | calls | stripes × units | transactions | of a full batch | moves | reads | conflicts |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let even = |count: usize| vec![1; count];
    for (weights, stripes, each) in [
        (even(1), 20, 500),
        (even(4), 20, 500),
        (even(16), 20, 500),
        (vec![8, 1, 1, 1], 20, 500),
        (vec![1, 0, 0, 0], 20, 500),
        (vec![1, 0, 0, 0], 20, 5),
        (even(8), 20, 5),
        (even(8), 4, 1),
    ] {
        let stock = vec![each; stripes];
        let total = each * stripes as u64;
        let load = sell_out(&weights, &stock, 8_000);
        let sold = load.results.iter().filter(|result| result.sold).count() as u64;
        let sum = |of: fn(&Counters) -> u64| load.counters.iter().map(of).sum::<u64>();
        let moves = sum(|counters| counters.stock_moves);
        println!(
            "| {} | {weights:?} | {stripes} × {each} | {} | {:.1} | {moves} | {} | {} |",
            weights.len(),
            load.transactions(),
            load.transactions() as f64 / (total as f64 / 99.0).ceil(),
            load.reads,
            sum(|counters| counters.conflicts),
        );
        assert_eq!((sold, load.unsold()), (total, 0));
        for result in load.results.iter().filter(|result| result.short) {
            let unsold = load.unsold_between(result.called - LATCH.0, result.at);
            assert!(unsold.contains(&0), "sold out although {unsold:?} units remained");
        }
        // Every outcome is counted: there are no unknown ones here.
        let ended = sum(|counters| {
            let (applied, conflicted) =
                (counters.stock_moves_applied, counters.stock_moves_conflicted);
            applied + conflicted + counters.stock_moves_short + counters.stock_moves_failed
        });
        assert_eq!(ended, moves);
        // Attempted moves. A move brings at least fifty units.
        assert!(moves <= 2 * total / 50 + 10 * weights.len() as u64, "{moves} moves");
        assert!(load.transactions() as u64 <= total / 3 + 30 * weights.len() as u64);
    }
}
