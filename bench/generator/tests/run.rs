//! Complete runs against a server with planted faults, over real sockets: calls sent, counts, violations, and
//! invalid runs.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{FaultyServer, ServerFaults, options, scenario};
use inventory_generator::outcome::CallMethod;
use inventory_generator::report::{MethodReport, RunReport, plot, table};
use inventory_generator::run::run;

fn method(report: &RunReport, method: CallMethod) -> &MethodReport {
    report.methods.iter().find(|of| of.method == method).unwrap()
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
fn every_planned_call_is_sent_and_counted_once() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000)]);
    let report = run(scenario(DIRECT), &options(&server)).unwrap();
    let commits = method(&report, CallMethod::DirectCommit);
    assert_eq!(commits.ok, commits.calls);
    assert_eq!(commits.calls, report.generator.sent);
    assert_eq!(server.count("CONFIRMED") as u64, commits.calls, "the server received each of them");
    assert_eq!(report.events[0].taken, commits.calls);
    assert!((300..500).contains(&commits.calls), "{}", commits.calls);
    assert!(report.promises.kept && report.valid, "{:?}", report.invalid_because);
}

#[test]
fn a_mix_with_repeats_is_consistent_on_several_workers() {
    let text = include_str!("../../scenarios/smoke.toml");
    let stock = [("evt_smoke_0", 10_000), ("evt_smoke_1", 10_000), ("evt_smoke_2", 10_000)];
    let server = FaultyServer::start(ServerFaults::default(), &stock);
    let mut options = options(&server);
    options.threads = 2;
    let report = run(scenario(text), &options).unwrap();
    assert_eq!(report.promises.broken, 0, "{:?}", report.promises.examples);
    for of in CallMethod::ALL {
        let of = method(&report, of);
        assert!(of.ok > 0 && of.errors == 0, "{of:?}");
    }
    assert!(report.generator.repeats > 10, "{}", report.generator.repeats);
    // The stock taken at the server matches the answers.
    let held: u64 = stock.iter().map(|(event, n)| n - server.remaining(event)).sum();
    let taken: u64 = report.events.iter().map(|event| event.taken).sum();
    let released = server.count("RELEASED") as u64;
    assert!(held <= taken && taken <= held + released * 4, "{held} {taken} {released}");
}

#[test]
fn a_stall_counts_for_all_calls_due_during_it() {
    let stall = (Duration::from_millis(400), Duration::from_millis(600));
    let server = FaultyServer::start(
        ServerFaults { stall: Some(stall), ..ServerFaults::default() },
        &[("evt_0", 1_000_000)],
    );
    let report = run(scenario(DIRECT), &options(&server)).unwrap();
    let latency = &method(&report, CallMethod::DirectCommit).answered;
    // A fifth of the calls were due during the stall and waited 100 ms on average. A closed loop would have
    // measured one slow call per user.
    assert!(latency.max >= 180.0, "{latency:?}");
    assert!(latency.p95 >= 120.0, "{latency:?}");
    assert!(latency.p90 >= 60.0, "{latency:?}");
    assert_eq!(report.generator.not_sent, 0, "the stall did not delay the calls");
}

#[test]
fn calls_without_a_free_stream_count_from_when_they_were_due() {
    let stall = (Duration::from_millis(400), Duration::from_millis(600));
    let faults = ServerFaults { stall: Some(stall), streams: Some(10), ..ServerFaults::default() };
    let server = FaultyServer::start(faults, &[("evt_0", 1_000_000)]);
    let mut options = options(&server);
    options.lateness_max = Duration::from_millis(50);
    let report = run(scenario(DIRECT), &options).unwrap();
    // Twenty calls fill the streams; the others are sent after the stall.
    assert_eq!(report.generator.in_flight_most, 20);
    let latency = &method(&report, CallMethod::DirectCommit).answered;
    assert!(latency.p95 >= 100.0 && latency.p90 >= 60.0, "{latency:?}");
    assert!(report.generator.lateness.p95 >= 80.0, "{:?}", report.generator);
    assert!(!report.valid, "without free streams the client was the limit");
}

#[test]
fn calls_beyond_the_in_flight_limit_are_not_sent_and_invalidate_the_run() {
    let server = FaultyServer::start(
        ServerFaults { silent: true, ..ServerFaults::default() },
        &[("evt_0", 1_000_000)],
    );
    let text = format!("in_flight = 50\ndeadline_ms = 300\n{DIRECT}");
    let report = run(scenario(&text), &options(&server)).unwrap();
    assert!(report.generator.not_sent > 100, "{}", report.generator.not_sent);
    assert_eq!(report.generator.in_flight_most, 50);
    assert!(!report.valid);
    let why = report.invalid_because.join("\n");
    assert!(why.contains("were not sent") && why.contains("50 were in flight"), "{why}");
    let commits = method(&report, CallMethod::DirectCommit);
    assert_eq!(commits.errors, commits.calls);
    assert_eq!(commits.outcomes["deadline"], commits.calls);
}

#[test]
fn a_late_generator_invalidates_the_run() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000)]);
    let mut options = options(&server);
    // Every generator is later than this.
    options.lateness_max = Duration::from_nanos(1);
    let report = run(scenario(DIRECT), &options).unwrap();
    assert!(!report.valid);
    assert!(report.invalid_because[0].contains("late at the 99th percentile"));
    assert!(table::render(&report).contains("INVALID"));
    assert!(plot::render(&report).unwrap().contains("INVALID"));
}

#[test]
fn a_rate_beyond_the_capacity_of_the_generator_invalidates_the_run() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000_000)]);
    let text =
        DIRECT.replace("rate = 400", "rate = 500000").replace("duration = 1", "duration = 0.2");
    let mut options = options(&server);
    options.lateness_max = Duration::from_millis(5);
    let report = run(scenario(&text), &options).unwrap();
    assert!(!report.valid, "{:?}", report.generator);
    assert!(report.generator.lateness.p99 > 5.0);
}

#[test]
fn a_repeat_with_another_order_is_a_violation() {
    let server = FaultyServer::start(
        ServerFaults { other_order: Some(3), ..ServerFaults::default() },
        &[("evt_0", 1_000_000)],
    );
    let text = format!("duplicates = {{ percent = 20 }}\n{DIRECT}");
    let report = run(scenario(&text), &options(&server)).unwrap();
    assert!(!report.promises.kept);
    assert!(report.promises.by_kind["repeat"] > 3, "{:?}", report.promises);
    assert!(report.promises.examples[0].contains("t-"), "the reservation is named");
}

#[test]
fn shed_and_refused_calls_are_counted_separately() {
    let server = FaultyServer::start(
        ServerFaults { sheds: Some(4), ..ServerFaults::default() },
        &[("evt_0", 100)],
    );
    let report =
        run(scenario(&DIRECT.replace("stock = 1000000", "stock = 100")), &options(&server))
            .unwrap();
    let commits = method(&report, CallMethod::DirectCommit);
    assert_eq!(commits.ok, 100);
    assert!(commits.shed >= commits.calls / 5 && commits.refused > 0, "{commits:?}");
    assert_eq!(commits.shed_only.count, commits.shed);
    assert_eq!(commits.answered.count, commits.ok + commits.refused);
    let event = &report.events[0];
    assert_eq!((event.taken, event.refused), (100, commits.refused));
    assert!(event.sold_out_s.unwrap() <= event.first_refused_s.unwrap() + 0.05, "{event:?}");
    assert!(table::render(&report).contains("shed answers"));
}

#[test]
fn seconds_and_phases_follow_the_curve() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000)]);
    let text = DIRECT.replace(
        "duration = 1",
        "warmup = 1\ncurve = [{ seconds = 1, times = 2 }, { seconds = 1, times = 0.5 }]",
    );
    let report = run(scenario(&text), &options(&server)).unwrap();
    let due: Vec<_> = report.seconds.iter().map(|second| second.due).collect();
    assert_eq!(due.len(), 3);
    assert!((450..750).contains(&due[0]), "half a second of ramp to 800: {due:?}");
    assert!((650..950).contains(&due[1]) && (130..270).contains(&due[2]), "{due:?}");
    assert_eq!(report.phases.len(), 2);
    let calls = method(&report, CallMethod::DirectCommit).calls;
    assert_eq!(calls, due[1] + due[2], "the warm-up is not measured");
    assert!(table::render(&report).contains("calm after"));
}

#[test]
fn a_closed_loop_keeps_its_users_busy_and_ends_after_its_calls() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000)]);
    let text = DIRECT
        .replace("rate = 400", "users = 7\ncalls = 500")
        .replace("duration = 1", "duration = 60");
    let mut options = options(&server);
    options.threads = 2;
    let report = run(scenario(&text), &options).unwrap();
    let commits = method(&report, CallMethod::DirectCommit);
    assert_eq!((commits.calls, commits.ok), (500, 500));
    assert_eq!(server.count("CONFIRMED"), 500);
    assert_eq!(report.generator.in_flight_most, 7);
    assert!(report.promises.kept && report.valid, "{:?}", report.invalid_because);
    assert!(table::render(&report).contains("closed loop of 7 users"));
}

#[test]
fn a_stopped_run_ends_early_and_is_reported() {
    let server = FaultyServer::start(ServerFaults::default(), &[("evt_0", 1_000_000)]);
    let options = options(&server);
    let text = DIRECT.replace("duration = 1", "duration = 600");
    let stop = std::sync::Arc::clone(&options.stop);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(scenario(&text), &options).unwrap());
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while server.count("CONFIRMED") < 50 {
            assert!(std::time::Instant::now() < deadline, "no calls");
            std::thread::yield_now();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let report = running.join().unwrap();
        let commits = method(&report, CallMethod::DirectCommit);
        assert!(commits.calls >= 50 && commits.ok == commits.calls, "{commits:?}");
    });
}
