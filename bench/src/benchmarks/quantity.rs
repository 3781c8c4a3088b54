//! Benchmarks of one hot event with direct commits of one unit: hot, overload, scale.

use super::{
    Benchmark, CaseResult, Column, Measurement, P95_BOUND_MS, Parameters, Requirement, Target,
    bound, case, column, cpu_columns, failed_calls, model, per_round, ratio_bound, report, server,
    write_units,
};

const HOT: &str = "in-region";
const HOT_2020: &str = "lambda-2020";
const HOT_ONE: &str = "in-region, one stripe";
const BASELINE: &str = "baseline, one stripe";
const BASELINE_STRIPED: &str = "baseline, as many stripes";

/// Rate for the baseline: several times its capacity, but not so much that only its queues are measured.
const BASELINE_RATE: u32 = 2_000;

fn commit(run: &Measurement, path: &str) -> f64 {
    run.method_figure("direct_commit", path)
}

fn commit_p95(run: &Measurement) -> f64 {
    commit(run, "/ok_only/p95")
}

fn columns() -> Vec<Column> {
    let mut columns = vec![
        column("offered/s", 0, Measurement::calls_per_s),
        column("ok/s", 0, Measurement::ok_per_s),
        column("p50 ms", 1, |run| commit(run, "/ok_only/p50")),
        column("p95 ms", 1, commit_p95),
        column("p99 ms", 1, |run| commit(run, "/ok_only/p99")),
        column("max ms", 0, |run| commit(run, "/ok_only/max")),
        column("shed/s", 0, |run| run.sum("/shed") / run.measured_s()),
        column("errors", 0, |run| run.sum("/errors")),
        column("µs/ok", 1, Measurement::server_us_per_ok),
    ];
    columns.extend(cpu_columns());
    columns.extend([
        column("late ms", 1, Measurement::lateness_ms),
        column("batch", 1, |run| {
            commit(run, "/ok") / run.model("/operations/TransactWriteItems/ok")
        }),
        column("conflicts", 0, |run| run.model("/conflicts")),
        column("hottest WCU/s", 0, |run| run.model("/hottest_partition/wcu_peak")),
    ]);
    columns
}

pub(super) fn hot(parameters: &Parameters) -> Benchmark {
    let Parameters { seconds, rate, stripes, .. } = *parameters;
    let side = seconds.div_ceil(3).max(5);
    let wcu = write_units(rate);
    let main = |name, seconds| case(name, "hot", wcu, seconds).with("rate", rate);
    let baseline =
        |name| case(name, "hot", wcu, side).with("rate", BASELINE_RATE).on(Target::Baseline);
    let mut old_profile = main(HOT_2020, side).with_stripes(stripes);
    old_profile.model = model("lambda-2020", wcu);
    Benchmark {
        title: format!(
            "One hot event, direct commits of one unit, {rate} a second, open loop. Tables of {wcu} write units a second."
        ),
        cases: vec![
            main(HOT, seconds).with_stripes(stripes),
            old_profile,
            main(HOT_ONE, side).with("stripes", 1),
            baseline(BASELINE).with("stripes", 1),
            baseline(BASELINE_STRIPED).with_stripes(stripes),
        ],
        columns: columns(),
        note: |_| None,
        bounds: hot_bounds,
    }
}

fn hot_bounds(results: &[CaseResult]) -> Vec<super::Bound> {
    let below = Requirement::Below(P95_BOUND_MS);
    let none = Requirement::AtMost(0.0);
    vec![
        bound(results, HOT, "p95 of commits, ms", below, commit_p95),
        bound(results, HOT, "calls without a ticket", none, |run| {
            failed_calls(run) + run.sum("/refused")
        }),
        bound(
            results,
            HOT,
            "server CPU per commit, µs",
            Requirement::AtMost(15.0),
            Measurement::server_us_per_ok,
        ),
        bound(
            results,
            HOT,
            "write units of the hottest partition in a second",
            Requirement::AtMost(1_000.0),
            |run| run.model("/hottest_partition/wcu_peak"),
        ),
        bound(results, HOT, "requests throttled by the model", none, |run| {
            run.model("/throttled/partition") + run.model("/throttled/table")
        }),
        ratio_bound(
            results,
            "commits a second as a multiple of the baseline on one stripe",
            (HOT, BASELINE),
            Requirement::AtLeast(50.0),
            Measurement::ok_per_s,
        ),
    ]
}

const OVERLOAD: &str = "three times the capacity";

/// Default stripes of the overloaded event: with few stripes the store is the limit, not this machine.
const OVERLOAD_STRIPES: u32 = 8;

/// Duration of the rate curve in the scenario.
const OVERLOAD_SECONDS: u32 = 80;

/// `rate` is the capacity: the rate at which [`hot`] with as many stripes meets the p95 bound.
pub(super) fn overload(parameters: &Parameters) -> Benchmark {
    let rate = parameters.rate;
    let stripes = parameters.stripes.unwrap_or(OVERLOAD_STRIPES);
    let mut overloaded = case(OVERLOAD, "overload", write_units(rate * 3), OVERLOAD_SECONDS);
    // The duration is that of the rate curve.
    overloaded.flags.clear();
    Benchmark {
        title: format!(
            "{rate} commits a second for ten seconds, three times that for a minute, {rate} for ten seconds, on {stripes} stripe(s)."
        ),
        cases: vec![overloaded.with("rate", rate).with("stripes", stripes)],
        columns: vec![
            column("usual p95", 1, |run| run.phase(0, "/writes/p95")),
            column("offered/s", 0, |run| run.phase(1, "/due_per_s")),
            column("ok/s", 0, |run| run.phase(1, "/ok_per_s")),
            column("shed/s", 0, |run| run.phase(1, "/shed_per_s")),
            column("errors/s", 1, |run| run.phase(1, "/errors_per_s")),
            column("ok p50", 1, |run| run.phase(1, "/writes/p50")),
            column("p95", 1, |run| run.phase(1, "/writes/p95")),
            column("p99", 1, |run| run.phase(1, "/writes/p99")),
            column("shed p50", 1, |run| run.phase(1, "/sheds/p50")),
            column("p95", 1, |run| run.phase(1, "/sheds/p95")),
            column("calm after s", 0, |run| run.phase(2, "/calm_after_s")),
            column("µs/call", 1, Measurement::server_us_per_call),
            column("server", 2, |run| run.cores("server")),
            column("gen", 2, |run| run.cores("generator")),
            column("MiB", 0, Measurement::server_mib),
        ],
        note: |_| None,
        bounds: overload_bounds,
    }
}

fn overload_bounds(results: &[CaseResult]) -> Vec<super::Bound> {
    let of = |name, limit, figure: fn(&Measurement) -> f64| {
        bound(results, OVERLOAD, name, limit, figure)
    };
    vec![
        of("goodput as a share of the capacity", Requirement::AtLeast(0.9), |run| {
            run.phase(1, "/ok_per_s") / run.phase(2, "/planned_per_s")
        }),
        of("p95 of admitted calls, ms", Requirement::Below(P95_BOUND_MS), |run| {
            run.phase(1, "/writes/p95")
        }),
        of("p95 of shed calls, ms", Requirement::Below(5.0), |run| run.phase(1, "/sheds/p95")),
        of("seconds until calm", Requirement::AtMost(2.0), |run| run.phase(2, "/calm_after_s")),
        of("maximum resident memory, MiB", Requirement::AtMost(512.0), Measurement::server_mib),
    ]
}

const ONE_SHARD: &str = "1 shard";
const TWO_SHARDS: &str = "2 shards";
const FEW: &str = "10 connections";
const MANY: &str = "5,000 connections";
const ONE_PROCESS: &str = "1 process";
const TWO_PROCESSES: &str = "2 processes";
const FOUR_PROCESSES: &str = "4 processes";

/// Calls per second and shard: two CPUs have capacity for two shards, the generator and the model.
const SHARD_RATE: u32 = 4_000;
/// Calls per second over few and many connections.
const CONNECTION_RATE: u32 = 10_000;
/// Commits per second over all processes.
const PROCESS_RATE: u32 = 8_000;

pub(super) fn scale(parameters: &Parameters) -> Benchmark {
    let at_rate =
        |name, rate| case(name, "hot", write_units(rate), parameters.seconds).with("rate", rate);
    let mut columns = columns();
    columns.push(column("MiB", 0, Measurement::server_mib));
    Benchmark {
        title: format!(
            "Direct commits on one hot event: {SHARD_RATE} a second on each shard; {CONNECTION_RATE} a second over few and many connections; {PROCESS_RATE} a second shared by processes."
        ),
        cases: vec![
            at_rate(ONE_SHARD, SHARD_RATE),
            at_rate(TWO_SHARDS, 2 * SHARD_RATE).on(server(1, 2)),
            at_rate(FEW, CONNECTION_RATE).with("connections", 10),
            at_rate(MANY, CONNECTION_RATE).with("connections", 5_000),
            at_rate(ONE_PROCESS, PROCESS_RATE),
            at_rate(TWO_PROCESSES, PROCESS_RATE).on(server(2, 1)),
            at_rate(FOUR_PROCESSES, PROCESS_RATE).on(server(4, 1)),
        ],
        columns,
        note: scale_note,
        bounds: scale_bounds,
    }
}

fn scale_note(results: &[CaseResult]) -> Option<String> {
    let memory = |case| report::median(&per_round(results, case, Measurement::server_mib));
    let kib = (memory(MANY) - memory(FEW)) * 1024.0 / 4_990.0;
    (!kib.is_nan()).then(|| format!("memory of one connection: {kib:.1} KiB"))
}

fn scale_bounds(results: &[CaseResult]) -> Vec<super::Bound> {
    vec![
        ratio_bound(
            results,
            "CPU per commit, two shards to one",
            (TWO_SHARDS, ONE_SHARD),
            Requirement::AtMost(1.1),
            Measurement::server_us_per_ok,
        ),
        ratio_bound(
            results,
            "CPU per call, 5,000 connections to 10",
            (MANY, FEW),
            Requirement::AtMost(1.3),
            Measurement::server_us_per_call,
        ),
        bound(results, FOUR_PROCESSES, "failed calls", Requirement::AtMost(0.0), failed_calls),
        bound(
            results,
            FOUR_PROCESSES,
            "p95 of commits, ms",
            Requirement::Below(P95_BOUND_MS),
            commit_p95,
        ),
    ]
}
