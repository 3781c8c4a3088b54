//! Simulation: several processes and shards sell from one store model that loses, delays and rejects
//! requests, in virtual time. An oracle checks the four promises at every answer and at the end.
//!
//! - `SIM_SEEDS=100000 cargo test -p inventory-core --test simulation` runs more seeds, from `SIM_FROM` on.
//! - `SIM_SEED=7 cargo test -p inventory-core --test simulation replay -- --nocapture` prints one run.
//! - `SIM_DIGEST=file cargo test -p inventory-core --test simulation digest` writes a hash of the log of each
//!   run. A refactoring that changes no behavior leaves the hashes as they are.
//!
//! | file | content |
//! |---|---|
//! | `model/` | the store: items, conditions, request tokens, and their history |
//! | `scenario.rs` | the scenario of a seed: shards, stock, faults, crashes, operators |
//! | `clients.rs` | the calls of one run, and how a client retries them |
//! | `world/` | virtual time, the processes and shards, and the messages between them |
//! | `network.rs` | the fate of a request on its way to the store and back |
//! | `oracle.rs`, `oracle/` | checks of every answer, and of the state at rest |
//! | `violation.rs` | how a check ends a run |
//! | `trace.rs` | the words of the log |
//! | `report.rs` | counts of calls, faults and reached cases |
//! | `mutations.rs` | the mutation run: plants faults in the core |
//! | `overdue.rs` | the search for overdue holds alone: outages, clocks that jump, frozen processes |
//! | `lane/`, `lane_load.rs` | lanes alone: any interleaving of inputs, and load |
//! | `fleet_load.rs` | several processes on one event: latency and conflicts |
//! | `check_error.rs` | three processes that are asked for the stock of one event: how wrong their answers may be |
//! | `hall.rs` | processes that sell the best available seats of one hall: collisions, and the quality of the choice |
//! | `slow_store.rs` | engines before a store that is slower than their time-outs |
//!
//! A run depends on its seed alone: no clock, no thread and no other randomness belongs here.

#![allow(clippy::unwrap_used)]

mod check_error;
mod clients;
mod fleet_load;
mod hall;
mod lane;
mod lane_load;
mod model;
mod model_tests;
#[cfg(feature = "planted-faults")]
mod mutations;
mod network;
mod oracle;
mod overdue;
mod report;
mod scenario;
mod slow_store;
mod trace;
mod violation;
mod world;

use std::fs::File;
use std::hash::Hasher as _;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use report::Report;
use scenario::Scenario;
use world::World;

/// Seeds of the default run.
const SEEDS: u64 = 1_000;

/// Lines of the log shown for a run that failed.
const TAIL: usize = 60;
const COLUMNS: usize = 200;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| {
        panic!("{variable}={text:?} is not a number; want one like {variable}=7")
    }))
}

/// Runs one seed. `Err` says which rule was broken; a panic of the core counts too.
fn run(seed: u64, logged: bool) -> (Result<Report, String>, String) {
    let mut world = World::new(Scenario::of(seed), logged);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = match result {
        Ok(result) => result.map_err(|violation| violation.to_string()),
        Err(panic) => Err(format!("panic: {}", words_of(panic.as_ref()))),
    };
    (result, world.log().to_owned())
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
}

/// What is needed to investigate a failed seed.
fn explain(seed: u64) -> String {
    let (result, log) = run(seed, true);
    let lines: Vec<&str> = log.lines().collect();
    let tail: String = lines[lines.len().saturating_sub(TAIL)..]
        .iter()
        .map(|line| line.chars().take(COLUMNS).chain(['\n']).collect::<String>())
        .collect();
    format!(
        "seed {seed}: {}\n{:?}\nthe last steps:\n{tail}\
         reproduce: SIM_SEED={seed} cargo test -p inventory-core --test simulation replay -- --nocapture",
        result.err().unwrap_or_else(|| "holds when run again".into()),
        Scenario::of(seed),
    )
}

/// Runs the seeds on every CPU, until one fails.
fn sweep(seeds: Range<u64>) -> (Report, Vec<u64>) {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Report::default());
    let work = || {
        let mut mine = Report::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match run(seed, false).0 {
                Ok(report) => mine.merge(&report),
                Err(_) => {
                    failed.lock().unwrap().push(seed);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        total.lock().unwrap().merge(&mine);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    (total.into_inner().unwrap(), failed)
}

#[test]
fn the_promises_hold_under_all_faults() {
    let from = number("SIM_FROM").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let (report, failed) = sweep(from..from + seeds);
    // Written directly to stderr, so that the figures appear without --nocapture.
    let _ = writeln!(std::io::stderr(), "simulation: {report}");
    if let Some(seed) = failed.first() {
        panic!("{}", explain(*seed));
    }
    // Skipped for few seeds, which do not reach every case.
    for what in REACHED.iter().filter(|_| seeds >= SEEDS) {
        assert!(report.of(what) > 0, "no run reached {what:?}: {report}");
    }
}

/// Cases that the sweep must reach.
const REACHED: &[&str] = &[
    "Confirmed",
    "DeadlineExceeded",
    "EventClosed",
    "EventNotFound",
    "Held",
    "HoldExpired",
    "IdempotencyConflict",
    "InsufficientInventory",
    "Internal",
    "Overloaded",
    "OutcomeUnknown",
    "PaymentConflict",
    "Refunded",
    "Released before",
    "Released now",
    "Released, and never was",
    "ReservationCommitted",
    "ReservationNotConfirmed",
    "ReservationNotFound",
    "ReservationReleased",
    "SeatsNotFound",
    "SectionNotFound",
    "SeatsUnavailable",
    "StoreBusy",
    "StoreUnavailable",
    "cache hits",
    "calls lost in a crash",
    "closed events",
    "conflicts",
    "crashes",
    "direct sales",
    "duplicates",
    "late commits after expiry",
    "expired entries",
    "forwarded calls",
    "holds",
    "expiries by the reclaimer",
    "holds expired",
    "holds released",
    "coalesced calls",
    "late requests",
    "seat verifications that differ",
    "seat verifications",
    "record reads",
    "orders refunded",
    "outages",
    "resends",
    "restocks",
    "seat reads",
    "seats blocked or put back",
    "seats found taken",
    "commits of held seats",
    "short entries",
    "release records",
    "sold out after a read",
    "snapshot refreshes",
    "splits",
    "throttles",
    "status answers",
    "offers of seats",
    "seat answers",
    "answers from a snapshot",
    "unit answers",
    "tombstones",
    "transactions over several stripes",
    "rejected for the queue",
    "commits of held units",
    "unknown outcomes",
    "views of the members",
    "members overlooked",
    "members that have gone",
    "zombies",
    "stock moves",
];

#[test]
fn the_same_seed_gives_the_same_run_to_the_byte() {
    for seed in 0..40 {
        let (first, first_log) = run(seed, true);
        let (second, second_log) = run(seed, true);
        assert!(first_log.lines().count() > 20, "seed {seed} did nothing");
        assert_eq!(first_log, second_log, "seed {seed}");
        assert_eq!(first.is_ok(), second.is_ok(), "seed {seed}");
    }
    assert_ne!(run(1, true).1, run(2, true).1);
}

/// Writes one line per seed: the seed, the hash of its log, and whether the promises held.
#[test]
fn digest() {
    let Ok(path) = std::env::var("SIM_DIGEST") else {
        return;
    };
    let from = number("SIM_FROM").unwrap_or(0);
    let seeds = from..from + number("SIM_SEEDS").unwrap_or(1_000);
    let next = AtomicU64::new(seeds.start);
    let lines = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let (result, log) = run(seed, true);
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write(log.as_bytes());
            let holds = if result.is_ok() { "holds" } else { "broken" };
            let line = format!("{seed} {:016x} {holds}", hasher.finish());
            lines.lock().unwrap().push((seed, line));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut lines = lines.into_inner().unwrap();
    lines.sort_unstable();
    let mut file = BufWriter::new(File::create(path).unwrap());
    for (_, line) in lines {
        writeln!(file, "{line}").unwrap();
    }
}

#[test]
fn replay() {
    let seed = number("SIM_SEED").unwrap_or(0);
    let (result, log) = run(seed, true);
    if number("SIM_SEED").is_some() {
        println!("{:?}\n{log}", Scenario::of(seed));
    }
    match result {
        Ok(report) => println!("seed {seed} holds: {report}"),
        Err(_) => panic!("{}", explain(seed)),
    }
}
