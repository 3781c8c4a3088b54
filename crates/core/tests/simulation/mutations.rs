//! The mutation run: plants each fault of the core and finds the test that catches it.
//!
//! `make mutations` prints the table that `docs/testing.md` holds. A fault that no seed below `SIM_SEEDS`
//! catches is given to the lane tests, to the tests of the search, and then to the unit tests of the core; a fault that nothing
//! catches fails the run. `PLANTED_FAULT=SeatLockKept make mutations` tries one fault.

use std::process::Command;

use inventory_core::fault::{self, Fault};

use super::{number, run, sweep};

/// Seeds tried for each fault, by default.
const SEEDS: u64 = 1_000;

/// Seeds tried at a time: few, so that the first that fails is found soon.
const BLOCK: u64 = 16;

#[test]
fn mutations() {
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let named = std::env::var("PLANTED_FAULT").ok();
    let is_named = |fault: &&Fault| named.as_ref().is_none_or(|name| name == fault.name());
    println!("\n| planted fault | seed | what the test reports |\n|---|---|---|");
    let mut uncaught = Vec::new();
    for fault in Fault::ALL.iter().filter(is_named) {
        let (place, report) = caught_by(*fault, seeds).unwrap_or_else(|| {
            uncaught.push(fault.name());
            ("–".to_owned(), "nothing".to_owned())
        });
        let (text, name) = (fault.text(), fault.name());
        println!("| {text} (`{name}`) | {place} | {report} |");
    }
    println!();
    let _ = std::panic::take_hook();
    assert!(uncaught.is_empty(), "not caught: {uncaught:?}");
}

/// The first seed that catches the fault, or `–`, and what is reported.
fn caught_by(fault: Fault, seeds: u64) -> Option<(String, String)> {
    fault::plant(Some(fault));
    let violation = first_violation(seeds);
    fault::plant(None);
    if let Some((seed, violation)) = violation {
        return Some((seed.to_string(), rule_of(&violation)));
    }
    let program = std::env::current_exe().ok()?;
    let found_by = |what: &str| Some(("–".to_owned(), format!("found by {what}")));
    if fails(program.to_str()?, &["lane::", "slow_store::"], fault) {
        return found_by("the lane tests");
    }
    if fails(program.to_str()?, &["hall::"], fault) {
        return found_by("the tests of several processes in one hall");
    }
    if fails(program.to_str()?, &["overdue::"], fault) {
        return found_by("the tests of the search for overdue holds");
    }
    let unit_tests = ["test", "-q", "-p", "inventory-core", "--lib"];
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let unit_tests = [&unit_tests[..], &["--features", "planted-faults"], profile].concat();
    match fails(env!("CARGO"), &unit_tests, fault) {
        true => found_by("the unit tests of the core"),
        false => None,
    }
}

fn first_violation(seeds: u64) -> Option<(u64, String)> {
    (0..seeds).step_by(BLOCK as usize).find_map(|from| {
        let (_, failed) = sweep(from..(from + BLOCK).min(seeds));
        let last = *failed.first()?;
        // Parallel runs may skip an earlier failing seed.
        let seed = (from..=last).find(|seed| run(*seed, false).0.is_err())?;
        Some((seed, run(seed, false).0.err()?))
    })
}

/// Whether a test program fails with the fault planted.
fn fails(program: &str, args: &[&str], fault: Fault) -> bool {
    let mut command = Command::new(program);
    command.args(args).env("PLANTED_FAULT", fault.name());
    // No regression file for an expected failure.
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    let output = command.output().expect("the test program starts");
    !output.status.success()
}

/// The violated rule, with which a report starts.
fn rule_of(violation: &str) -> String {
    let rule = violation.split(": ").next().unwrap_or(violation);
    rule.replace('|', "/")
}
