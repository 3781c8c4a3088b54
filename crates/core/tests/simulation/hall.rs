//! Several processes that sell the best available seats of one hall, in virtual time: how often their writes collide, what
//! that costs, and which seats are sold.
//!
//! Each process has an engine of one shard and a view of the members; all share one CPU. The store locks the items of a
//! transaction from a tenth of its latency until it is applied, as the store model of the benchmarks does.

mod sale;
mod server;

use sale::{Hall, HallPlan, HallReport};
use server::{BENCHMARK, ReadPlan};

/// Each of `processes` processes knows all of them.
fn all_know_all(processes: u64) -> Vec<Vec<u64>> {
    (0..processes).map(|_| (1..=processes).collect()).collect()
}

/// Each of `processes` processes believes to be alone.
fn nobody_knows_others(processes: u64) -> Vec<Vec<u64>> {
    (1..=processes).map(|id| vec![id]).collect()
}

fn print(what: &str, report: &HallReport) {
    println!(
        "{what:>34}: {:>6} sold in {:.2} s, {:>5} refused, cancelled {:>6.2} %, wasted {:>6.2} %, {:>3}+{} reads, p95 {:>6.1} \
         ms, first {:.1}, last {:.1}, refused {:.1}, {:.0} µs, {} tx, apart {} of {}, front {:.3}, singles {:.2} %, wasted by {:?}",
        report.sold,
        report.sale_s,
        report.refused,
        report.cancelled_percent(),
        report.wasted_percent(),
        report.seat_reads,
        report.free_reads,
        report.p95_ms,
        report.first_p95_ms,
        report.last_p95_ms,
        report.refused_p95_ms,
        report.cpu_us,
        report.transactions,
        report.parties_apart,
        report.parties,
        report.front,
        report.singles,
        report.wasted_by,
    );
}

/// The hall of the benchmark, which only the process that has imported the seats knows when the sale begins.
const LARGE: HallPlan = HallPlan {
    sections: 20,
    rows: 40,
    seats: 25,
    rate: 5_000,
    qty_max: 1,
    reads: ReadPlan { keys: 50, parallel: 8, page: 500 },
    cpu: BENCHMARK,
    is_cold: true,
    first_gets: None,
};

/// A tenth of the hall of the benchmark.
const SMALL: HallPlan = HallPlan {
    sections: 4,
    rows: 20,
    rate: 1_000,
    reads: ReadPlan { keys: 10, ..LARGE.reads },
    is_cold: false,
    ..LARGE
};

/// Calls that sell the hall out, and a fifth more.
fn calls(plan: HallPlan) -> u64 {
    let mean = 1.0 + f64::from(plan.qty_max - 1) / 2.0;
    (plan.total() as f64 / mean * 1.2) as u64
}

/// One process, and four that know each other or not. Prints all three; returns the last two.
fn compare(name: &str, plan: HallPlan) -> (HallReport, HallReport) {
    println!("{name}");
    let calls = calls(plan);
    let one = Hall::new(plan, 1, &all_know_all(1)).sell(calls);
    print("1 process", &one);
    let before = Hall::new(plan, 1, &nobody_knows_others(4)).sell(calls);
    print("4 processes, unknown to each other", &before);
    let after = Hall::new(plan, 1, &all_know_all(4)).sell(calls);
    print("4 processes", &after);
    assert_eq!((one.sold, one.failed), (plan.total(), 0));
    assert_eq!((after.sold, after.failed), (plan.total(), 0));
    (before, after)
}

#[test]
fn processes_that_know_each_other_rarely_choose_the_same_seats() {
    let (before, after) = compare("2,000 seats, one each", SMALL);
    assert!(
        after.wasted_percent() < 10.0 && before.wasted_percent() > 20.0,
        "{before:?} {after:?}"
    );
    // Until the last seats nothing collides, and the choice is as good as that of one process.
    assert!(after.wasted_by[0] + after.wasted_by[1] == 0, "{after:?}");
    assert!(after.front < 0.5 && after.singles < 0.1, "{after:?}");
}

#[test]
fn parties_sit_side_by_side_however_many_processes_choose() {
    let plan = HallPlan { qty_max: 4, rate: 500, ..SMALL };
    let (_, after) = compare("2,000 seats, up to 4", plan);
    assert!(after.parties_apart * 50 <= after.parties, "{after:?}");
}

/// Members that do not exist prefer half of the hall, and the calls reach one process only: every seat is sold.
#[test]
fn seats_that_other_members_prefer_are_sold_by_any_process() {
    let plan = HallPlan { sections: 2, rows: 10, qty_max: 4, rate: 500, ..SMALL };
    for views in
        [vec![vec![1, 2, 100, 101]], vec![vec![2, 3], vec![1, 100], vec![3, 4, 5, 6, 7, 8]]]
    {
        let report = Hall::new(plan, 3, &views).sell(400);
        print("members that do not exist", &report);
        assert_eq!((report.sold, report.failed), (plan.total(), 0));
    }
}

/// One process gets most of the calls, and sells what the others prefer, too.
#[test]
fn a_process_that_gets_most_calls_sells_the_seats_of_the_others() {
    let plan = HallPlan { rows: 40, rate: 2_500, first_gets: Some(11), ..SMALL };
    let report = Hall::new(plan, 1, &all_know_all(4)).sell(calls(plan));
    print("4,000 seats, uneven", &report);
    assert_eq!((report.sold, report.failed), (plan.total(), 0));
    assert!(report.sale_s < 2.0 && report.p95_ms < 150.0, "{report:?}");
}

/// Prints the figures of ADR 0013 for some numbers of processes.
fn table(name: &str, plan: HallPlan, processes: &[u64]) {
    println!("{name}");
    for count in processes {
        let report = Hall::new(plan, 1, &all_know_all(*count)).sell(calls(plan));
        print(&format!("{count} process(es)"), &report);
        assert_eq!((report.sold, report.failed), (plan.total(), 0));
    }
}

#[test]
#[ignore = "takes a minute in release builds"]
fn large_hall() {
    table("20,000 seats, one each", LARGE, &[1, 2, 4]);
    table("the same, all processes are warm", HallPlan { is_cold: false, ..LARGE }, &[4]);
}

#[test]
#[ignore = "takes a minute in release builds"]
fn large_hall_of_parties() {
    let plan = HallPlan { qty_max: 4, rate: 2_500, ..LARGE };
    table("20,000 seats, up to 4", plan, &[1, 2, 4]);
}

#[test]
#[ignore = "takes a minute in release builds"]
fn large_hall_with_uneven_calls() {
    let plan = HallPlan { first_gets: Some(11), ..LARGE };
    table("20,000 seats, one each, uneven", plan, &[2, 4]);
}

#[test]
#[ignore = "takes a minute in release builds"]
fn large_hall_of_processes_that_do_not_know_each_other() {
    compare("20,000 seats, one each", LARGE);
}
