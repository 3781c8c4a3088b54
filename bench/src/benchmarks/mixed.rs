//! Benchmarks of many events with all methods: mixed, and soak, the same for longer.

use super::{
    Benchmark, Bound, CaseResult, Column, Measurement, P95_BOUND_MS, Parameters, Requirement,
    bound, case, column, cpu_columns, failed_calls, write_units,
};

const MIXED: &str = "mixed";
const SOAK: &str = "soak";
const METHODS: [&str; 4] = ["check", "hold", "commit", "release"];

/// A quarter of the calls at most are reservations.
fn mixed_write_units(rate: u32) -> u32 {
    write_units(rate / 4)
}

pub(super) fn mixed(parameters: &Parameters) -> Benchmark {
    let Parameters { seconds, rate, .. } = *parameters;
    let wcu = mixed_write_units(rate);
    Benchmark {
        title: format!(
            "{rate} calls a second on 50 events (Zipf 1.1): 85 % checks, 8 % holds, 5 % commits, 2 % releases, 1 % sent twice. Tables of {wcu} write units a second."
        ),
        cases: vec![case(MIXED, "mixed", wcu, seconds).with("rate", rate)],
        columns: columns(),
        note: |_| None,
        bounds: |results| bounds(results, MIXED),
    }
}

pub(super) fn soak(parameters: &Parameters) -> Benchmark {
    let Parameters { seconds, rate, .. } = *parameters;
    let mut soak = case(SOAK, "soak", mixed_write_units(rate), seconds).with("rate", rate);
    soak.verify = true;
    let mut columns = columns();
    columns.push(column("RSS growth", 3, rss_growth));
    columns.push(column("p95 drift", 3, p95_drift));
    Benchmark {
        title: format!("{seconds} seconds of the mixed calls, {rate} a second"),
        cases: vec![soak],
        columns,
        note: |_| None,
        bounds: |results| {
            let mut bounds = bounds(results, SOAK);
            bounds.push(bound(
                results,
                SOAK,
                "memory, last quarter to second",
                Requirement::AtMost(1.05),
                rss_growth,
            ));
            bounds.push(bound(
                results,
                SOAK,
                "p95 of writes, last quarter to second",
                Requirement::AtMost(1.2),
                p95_drift,
            ));
            bounds
        },
    }
}

fn columns() -> Vec<Column> {
    let mut columns = vec![
        column("calls/s", 0, Measurement::calls_per_s),
        column("check p50", 1, |run| run.method_figure("check", "/answered/p50")),
        column("p95", 1, |run| run.method_figure("check", "/answered/p95")),
        column("p99", 1, |run| run.method_figure("check", "/answered/p99")),
        column("hold p95", 1, |run| run.method_figure("hold", "/answered/p95")),
        column("p99", 1, |run| run.method_figure("hold", "/answered/p99")),
        column("commit p95", 1, |run| run.method_figure("commit", "/answered/p95")),
        column("p99", 1, |run| run.method_figure("commit", "/answered/p99")),
        column("release p95", 1, |run| run.method_figure("release", "/answered/p95")),
        column("p99", 1, |run| run.method_figure("release", "/answered/p99")),
        column("failed", 0, failed_calls),
        column("µs/call", 1, Measurement::server_us_per_call),
    ];
    columns.extend(cpu_columns());
    columns.push(column("late ms", 1, Measurement::lateness_ms));
    columns.push(column("MiB", 0, Measurement::server_mib));
    columns
}

fn bounds(results: &[CaseResult], case: &str) -> Vec<Bound> {
    let p95 = |method: &'static str, limit| {
        let name = format!("p95 of {method} calls, ms");
        let figure = move |run: &Measurement| run.method_figure(method, "/answered/p95");
        bound(results, case, &name, limit, figure)
    };
    let all = METHODS.map(|method| p95(method, Requirement::Below(P95_BOUND_MS)));
    let mut bounds = Vec::from(all);
    bounds.push(p95("check", Requirement::Below(5.0)));
    let none = Requirement::AtMost(0.0);
    bounds.push(bound(results, case, "failed calls", none, failed_calls));
    bounds
}

/// Mean of the last quarter divided by the mean of the second. The first quarter is warm-up.
fn last_to_second_quarter(values: &[f64]) -> f64 {
    let quarter = values.len() / 4;
    if quarter == 0 {
        return f64::NAN;
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    mean(&values[values.len() - quarter..]) / mean(&values[quarter..2 * quarter])
}

fn rss_growth(run: &Measurement) -> f64 {
    let samples = run.server_rss();
    let measured = samples.iter().filter(|(at, _)| *at >= run.warmup_s());
    last_to_second_quarter(&measured.map(|(_, mib)| *mib).collect::<Vec<_>>())
}

fn p95_drift(run: &Measurement) -> f64 {
    last_to_second_quarter(&run.by_second("write_p95"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_ignores_the_warm_up() {
        let flat = [9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(last_to_second_quarter(&flat), 1.0);
        let growing: Vec<f64> = (1..=8).map(f64::from).collect();
        assert!(last_to_second_quarter(&growing) > 2.0);
        assert!(last_to_second_quarter(&[]).is_nan());
    }
}
