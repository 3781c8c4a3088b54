//! Whole runs against a scripted server over real sockets: what is sent, what is counted, and what is
//! called broken or invalid.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Script, Server, options, scenario};
use inventory_generator::outcome::Method;
use inventory_generator::report::{MethodReport, Report, svg, table};
use inventory_generator::run::run;

fn method(report: &Report, method: Method) -> &MethodReport {
    report
        .methods
        .iter()
        .find(|of| of.method == method)
        .unwrap()
}

const DIRECT: &str = r#"
title = "direct"
rate = 400
duration = 1
connections = 2
events = { prefix = "evt", stock = 1000000 }
mix = { direct_commit = 100 }
"#;

#[test]
fn every_planned_call_arrives_and_is_counted_once() {
    let server = Server::start(Script::default(), &[("evt_0", 1_000_000)]);
    let report = run(scenario(DIRECT), &options(&server)).unwrap();
    let commits = method(&report, Method::DirectCommit);
    assert_eq!(commits.ok, commits.calls);
    assert_eq!(commits.calls, report.generator.sent);
    assert_eq!(
        server.count("CONFIRMED") as u64,
        commits.calls,
        "the server saw each of them"
    );
    assert_eq!(report.events[0].taken, commits.calls);
    assert!((300..500).contains(&commits.calls), "{}", commits.calls);
    assert!(
        report.promises.kept && report.valid,
        "{:?}",
        report.invalid_because
    );
}

#[test]
fn a_mix_with_repeats_keeps_its_books_on_several_workers() {
    let text = include_str!("../../scenarios/smoke.toml");
    let stock = [
        ("evt_smoke_0", 10_000),
        ("evt_smoke_1", 10_000),
        ("evt_smoke_2", 10_000),
    ];
    let server = Server::start(Script::default(), &stock);
    let mut options = options(&server);
    options.threads = 2;
    let report = run(scenario(text), &options).unwrap();
    assert_eq!(report.promises.broken, 0, "{:?}", report.promises.quoted);
    for of in Method::ALL {
        let of = method(&report, of);
        assert!(of.ok > 0 && of.errors == 0, "{of:?}");
    }
    assert!(
        report.generator.repeats > 10,
        "{}",
        report.generator.repeats
    );
    // What the server has taken is what the buyers were told.
    let held: i64 = stock
        .iter()
        .map(|(event, n)| n - server.remaining(event))
        .sum();
    let told: u64 = report.events.iter().map(|event| event.taken).sum();
    let released = server.count("RELEASED") as u64;
    assert!(
        held as u64 <= told && told <= held as u64 + released * 4,
        "{held} {told} {released}"
    );
}

#[test]
fn a_stall_shows_in_the_percentiles_of_all_calls_that_were_due_in_it() {
    let stall = (Duration::from_millis(400), Duration::from_millis(600));
    let server = Server::start(
        Script {
            stall: Some(stall),
            ..Script::default()
        },
        &[("evt_0", 1_000_000)],
    );
    let report = run(scenario(DIRECT), &options(&server)).unwrap();
    let latency = &method(&report, Method::DirectCommit).answered;
    // A fifth of the calls fell into the stall, and waited 100 ms on average: a client that waits for
    // each answer before the next call would have seen one slow call.
    assert!(latency.max >= 180.0, "{latency:?}");
    assert!(latency.p95 >= 120.0, "{latency:?}");
    assert!(latency.p90 >= 60.0, "{latency:?}");
    assert_eq!(
        report.generator.not_sent, 0,
        "the stall did not hold back the calls"
    );
}

#[test]
fn calls_that_cannot_be_written_count_from_when_they_were_due() {
    let stall = (Duration::from_millis(400), Duration::from_millis(600));
    let script = Script {
        stall: Some(stall),
        streams: Some(10),
        ..Script::default()
    };
    let server = Server::start(script, &[("evt_0", 1_000_000)]);
    let mut options = options(&server);
    options.lateness_max = Duration::from_millis(50);
    let report = run(scenario(DIRECT), &options).unwrap();
    // Twenty calls fill the streams; the others are written when the stall is over.
    assert_eq!(report.generator.in_flight_most, 20);
    let latency = &method(&report, Method::DirectCommit).answered;
    assert!(latency.p95 >= 100.0 && latency.p90 >= 60.0, "{latency:?}");
    assert!(
        report.generator.lateness.p95 >= 80.0,
        "{:?}",
        report.generator
    );
    assert!(
        !report.valid,
        "for want of streams the client was the limit"
    );
}

#[test]
fn calls_that_find_the_limit_full_are_not_sent_and_make_the_run_invalid() {
    let server = Server::start(
        Script {
            mute: true,
            ..Script::default()
        },
        &[("evt_0", 1_000_000)],
    );
    let text = format!("in_flight = 50\ndeadline_ms = 300\n{DIRECT}");
    let report = run(scenario(&text), &options(&server)).unwrap();
    assert!(
        report.generator.not_sent > 100,
        "{}",
        report.generator.not_sent
    );
    assert_eq!(report.generator.in_flight_most, 50);
    assert!(!report.valid);
    let why = report.invalid_because.join("\n");
    assert!(
        why.contains("were not sent") && why.contains("50 were in flight"),
        "{why}"
    );
    let commits = method(&report, Method::DirectCommit);
    assert_eq!(commits.errors, commits.calls);
    assert_eq!(commits.outcomes["deadline"], commits.calls);
}

#[test]
fn a_generator_that_is_late_says_so_and_the_run_is_invalid() {
    let server = Server::start(Script::default(), &[("evt_0", 1_000_000)]);
    let mut options = options(&server);
    // Any generator is later than that.
    options.lateness_max = Duration::from_nanos(1);
    let report = run(scenario(DIRECT), &options).unwrap();
    assert!(!report.valid);
    assert!(report.invalid_because[0].contains("late at the 99th percentile"));
    assert!(table::draw(&report).contains("INVALID"));
    assert!(svg::draw(&report).contains("INVALID"));
}

#[test]
fn more_than_one_thread_can_send_is_too_late_to_count() {
    let server = Server::start(Script::default(), &[("evt_0", 1_000_000_000)]);
    let text = DIRECT
        .replace("rate = 400", "rate = 500000")
        .replace("duration = 1", "duration = 0.2");
    let mut options = options(&server);
    options.lateness_max = Duration::from_millis(5);
    let report = run(scenario(&text), &options).unwrap();
    assert!(!report.valid, "{:?}", report.generator);
    assert!(report.generator.lateness.p99 > 5.0);
}

#[test]
fn a_repeat_with_another_order_is_a_broken_promise() {
    let server = Server::start(
        Script {
            forgetful: Some(3),
            ..Script::default()
        },
        &[("evt_0", 1_000_000)],
    );
    let text = format!("duplicates = {{ percent = 20 }}\n{DIRECT}");
    let report = run(scenario(&text), &options(&server)).unwrap();
    assert!(!report.promises.kept);
    assert!(
        report.promises.by_kind["repeat"] > 3,
        "{:?}",
        report.promises
    );
    assert!(
        report.promises.quoted[0].contains("t-"),
        "names the reservation"
    );
}

#[test]
fn what_is_shed_is_told_apart_from_what_is_refused() {
    let server = Server::start(
        Script {
            sheds: Some(4),
            ..Script::default()
        },
        &[("evt_0", 100)],
    );
    let report = run(
        scenario(&DIRECT.replace("stock = 1000000", "stock = 100")),
        &options(&server),
    )
    .unwrap();
    let commits = method(&report, Method::DirectCommit);
    assert_eq!(commits.ok, 100);
    assert!(
        commits.shed >= commits.calls / 5 && commits.refused > 0,
        "{commits:?}"
    );
    assert_eq!(commits.shed_only.count, commits.shed);
    assert_eq!(commits.answered.count, commits.ok + commits.refused);
    let event = &report.events[0];
    assert_eq!((event.taken, event.refused), (100, commits.refused));
    assert!(
        event.sold_out_s.unwrap() <= event.first_refused_s.unwrap() + 0.05,
        "{event:?}"
    );
    assert!(table::draw(&report).contains("shed answers"));
}

#[test]
fn seconds_and_phases_follow_the_curve() {
    let server = Server::start(Script::default(), &[("evt_0", 1_000_000)]);
    let text = DIRECT.replace(
        "duration = 1",
        "warmup = 1\ncurve = [{ seconds = 1, times = 2 }, { seconds = 1, times = 0.5 }]",
    );
    let report = run(scenario(&text), &options(&server)).unwrap();
    let due: Vec<_> = report.seconds.iter().map(|second| second.due).collect();
    assert_eq!(due.len(), 3);
    assert!(
        (450..750).contains(&due[0]),
        "half a second of ramp to 800: {due:?}"
    );
    assert!(
        (650..950).contains(&due[1]) && (130..270).contains(&due[2]),
        "{due:?}"
    );
    assert_eq!(report.phases.len(), 2);
    let calls = method(&report, Method::DirectCommit).calls;
    assert_eq!(calls, due[1] + due[2], "the warm-up is not measured");
    assert!(table::draw(&report).contains("calm after"));
}
