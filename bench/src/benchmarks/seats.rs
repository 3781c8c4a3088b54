//! Benchmark of a seated event: holds by seat id, and holds of the best available seats.

use super::{
    Benchmark, Measurement, P95_BOUND_MS, Parameters, Requirement, bound, case, column,
    failed_calls, write_units,
};

const EXACT: &str = "by seat id, front rows first";
const BEST: &str = "best available";

fn hold(run: &Measurement, path: &str) -> f64 {
    run.method_figure("hold", path)
}

fn hold_p95(run: &Measurement) -> f64 {
    hold(run, "/ok_only/p95")
}

pub(super) fn seats(parameters: &Parameters) -> Benchmark {
    let Parameters { seconds, rate, .. } = *parameters;
    let wcu = write_units(rate * 3);
    let of = |name, scenario| case(name, scenario, wcu, seconds).with("rate", rate);
    Benchmark {
        title: format!(
            "20,000 seats, {rate} holds a second. Tables of {wcu} write units a second."
        ),
        cases: vec![of(EXACT, "seats-exact"), of(BEST, "seats-best")],
        columns: vec![
            column("offered/s", 0, Measurement::calls_per_s),
            column("held", 0, |run| hold(run, "/ok")),
            column("refused", 0, |run| hold(run, "/refused")),
            column("ok p50", 1, |run| hold(run, "/ok_only/p50")),
            column("p95", 1, hold_p95),
            column("p99", 1, |run| hold(run, "/ok_only/p99")),
            column("all p95", 1, |run| hold(run, "/answered/p95")),
            column("failed", 0, failed_calls),
            column("sold out s", 1, Measurement::sold_out_s),
            column("WCU/hold", 2, units_per_hold),
            column("wasted", 2, |run| run.model("/wasted_wcu") / hold(run, "/ok")),
            column("µs/call", 1, Measurement::server_us_per_call),
            column("server", 2, |run| run.cores("server")),
            column("model", 2, |run| run.cores("store")),
        ],
        note: |_| None,
        bounds: |results| {
            let below = Requirement::Below(P95_BOUND_MS);
            let none = Requirement::AtMost(0.0);
            let of_case = |name| {
                [
                    bound(results, name, "p95 of holds, ms", below, hold_p95),
                    bound(results, name, "failed calls", none, failed_calls),
                ]
            };
            [EXACT, BEST].into_iter().flat_map(of_case).collect()
        },
    }
}

/// Write units per successful hold.
fn units_per_hold(run: &Measurement) -> f64 {
    let table = |name: &str| run.model(&format!("/tables/{name}/wcu/total"));
    (table("idempotency") + table("inventory_seats")) / hold(run, "/ok")
}
