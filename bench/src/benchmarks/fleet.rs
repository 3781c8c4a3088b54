//! Benchmark of several processes that sell one event: direct commits, holds with commits, best available seats.
//!
//! All processes share one CPU. What a figure costs with 4 processes is compared with 1 process of the same round.

use super::{
    Benchmark, Bound, Case, CaseResult, FleetMembership, Measurement, Parameters, Requirement,
    Target, bound, case, column, cpu_columns, failed_calls, ratio_bound, server, write_units,
};

/// Names of the cases of one sale, by number of processes.
struct FleetSale {
    name: &'static str,
    one: &'static str,
    two: &'static str,
    four: &'static str,
}

const COMMITS: FleetSale = FleetSale {
    name: "commits",
    one: "commits, 1 process",
    two: "commits, 2 processes",
    four: "commits, 4 processes",
};
const HOLDS: FleetSale = FleetSale {
    name: "holds and commits",
    one: "holds and commits, 1 process",
    two: "holds and commits, 2 processes",
    four: "holds and commits, 4 processes",
};
const SEATS: FleetSale = FleetSale {
    name: "best available",
    one: "best available, 1 process",
    two: "best available, 2 processes",
    four: "best available, 4 processes",
};

/// Holds of seats per second: 20,000 seats sell out within four seconds.
const SEAT_RATE: u32 = 5_000;
/// Duration of the sale of seats: two thirds of the calls come after the last seat is sold.
const SEAT_SECONDS: u32 = 12;

pub(super) fn fleet(parameters: &Parameters) -> Benchmark {
    let Parameters { seconds, rate, stripes, membership } = *parameters;
    let units = |scenario, name| {
        let case = case(name, scenario, write_units(rate), seconds);
        case.with("rate", rate).with_stripes(stripes)
    };
    // A hold writes a record and an index entry, and its commit both again.
    let held = |name| case(name, "fleet-holds", write_units(rate * 2), seconds).with("rate", rate);
    let seats = |name| {
        case(name, "seats-best", write_units(SEAT_RATE * 3), SEAT_SECONDS).with("rate", SEAT_RATE)
    };
    let processes = |sale: &FleetSale, case: &dyn Fn(&'static str) -> Case| {
        [(sale.one, 1), (sale.two, 2), (sale.four, 4)]
            .map(|(name, processes)| case(name).on(fleet_of(processes, membership)))
    };
    let mut cases = Vec::new();
    cases.extend(processes(&COMMITS, &|name| units("hot", name)));
    cases.extend(processes(&HOLDS, &|name| held(name).with_stripes(stripes)));
    cases.extend(processes(&SEATS, &seats));
    let mut columns = vec![
        column("offered/s", 0, Measurement::calls_per_s),
        column("ok/s", 0, Measurement::ok_per_s),
        column("p50 ms", 1, |run| slowest(run, "/ok_only/p50")),
        column("p95 ms", 1, p95),
        column("p99 ms", 1, |run| slowest(run, "/ok_only/p99")),
        column("failed", 0, failed_calls),
        column("refused", 0, |run| run.sum("/refused")),
        column("µs/ok", 1, Measurement::server_us_per_ok),
        column("batch", 1, |run| run.sum("/ok") / run.model("/operations/TransactWriteItems/ok")),
        column("conflicts %", 2, conflict_percent),
        column("wasted %", 2, wasted_percent),
        column("late ms", 1, Measurement::lateness_ms),
    ];
    columns.extend(cpu_columns());
    Benchmark {
        title: format!(
            "One event over 1, 2 and 4 processes on one CPU: {rate} direct commits a second; {rate} holds and commits a \
             second; {SEAT_RATE} holds of best available seats a second, 20,000 seats."
        ),
        cases,
        columns,
        note: |_| None,
        bounds: fleet_bounds,
    }
}

fn fleet_of(processes: usize, membership: FleetMembership) -> Target {
    match server(processes, 1) {
        Target::Server { processes, shards, settings, .. } => {
            Target::Server { processes, shards, settings, fleet: Some(membership) }
        }
        Target::Baseline => Target::Baseline,
    }
}

fn fleet_bounds(results: &[CaseResult]) -> Vec<Bound> {
    let mut bounds = Vec::new();
    for (sale, wasted_max) in [(&COMMITS, 1.0), (&HOLDS, 1.0), (&SEATS, 2.0)] {
        let named = |text: &str| format!("{}: {text}", sale.name);
        let both = (sale.four, sale.one);
        bounds.extend([
            ratio_bound(
                results,
                &named("p95 with 4 processes, as a multiple of 1"),
                both,
                Requirement::AtMost(1.25),
                p95,
            ),
            ratio_bound(
                results,
                &named("CPU per reservation with 4 processes, as a multiple of 1"),
                both,
                Requirement::AtMost(1.5),
                Measurement::server_us_per_ok,
            ),
        ]);
        for name in [sale.two, sale.four] {
            bounds.extend([
                bound(
                    results,
                    name,
                    "conflicts per 100 transactions",
                    Requirement::AtMost(1.0),
                    conflict_percent,
                ),
                bound(
                    results,
                    name,
                    "wasted write units, %",
                    Requirement::Below(wasted_max),
                    wasted_percent,
                ),
                bound(results, name, "failed calls", Requirement::AtMost(0.0), failed_calls),
            ]);
        }
    }
    bounds
}

/// A latency of the slowest method that the sale has.
fn slowest(run: &Measurement, path: &str) -> f64 {
    let methods = ["direct_commit", "hold", "commit"];
    methods.iter().map(|method| run.method_figure(method, path)).fold(f64::NAN, f64::max)
}

fn p95(run: &Measurement) -> f64 {
    slowest(run, "/ok_only/p95")
}

/// Cancelled for a conflict, of 100 transactions that were sent.
fn conflict_percent(run: &Measurement) -> f64 {
    let sent = run.model_sum("/operations/TransactWriteItems");
    100.0 * run.model("/conflicted_transactions") / sent
}

/// Write units of cancelled writes, of 100 consumed ones.
fn wasted_percent(run: &Measurement) -> f64 {
    let tables = ["inventory", "inventory_seats", "idempotency"];
    let consumed: f64 =
        tables.iter().map(|table| run.model(&format!("/tables/{table}/wcu/total"))).sum();
    100.0 * run.model("/wasted_wcu") / consumed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_are_of_everything_that_was_sent_and_consumed() {
        let units = |total: f64| json!({"wcu": {"total": total}});
        let model = json!({
            "operations": {"TransactWriteItems": {"ok": 190, "TransactionCanceledException": 10}},
            "conflicts": 9,
            "conflicted_transactions": 5,
            "wasted_wcu": 30.0,
            "tables": {
                "inventory": units(500.0), "inventory_seats": units(0.0), "idempotency": units(1_000.0),
            },
        });
        let report = json!({"methods": [
            {"method": "hold", "ok_only": {"p95": 30.0}}, {"method": "commit", "ok_only": {"p95": 20.0}},
        ]});
        let run = Measurement::new(report, model);
        assert_eq!(conflict_percent(&run), 2.5);
        assert_eq!(wasted_percent(&run), 2.0);
        assert_eq!(p95(&run), 30.0);
    }
}
