//! The benchmarks: what is played, what is shown, and what is wanted of it.
//!
//! Capacity in the model is what an operator would have raised it to before such a sale, two write
//! units per reservation and some to spare; it is printed with the table. Latencies count from when
//! a call was due.
//!
//! Must not live here: how a case is played.

use crate::figures::Figures;
use crate::play::Case;
use crate::sheet::{Bound, Column, Row, Wanted};
use crate::stage::Serving;

/// The bar for the 95th percentile, milliseconds: the seed's promise.
const BAR_MS: f64 = 40.0;

/// What the options say.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Seconds of the main run; side runs are shorter.
    pub(crate) seconds: u32,
    /// Calls per second of the main run.
    pub(crate) rate: u32,
    /// Stripes of the hot event; `None`: as the server chooses.
    pub(crate) stripes: Option<u32>,
}

/// A benchmark.
pub(crate) struct Plan {
    pub(crate) title: String,
    pub(crate) cases: Vec<Case>,
    pub(crate) columns: Vec<Column>,
    pub(crate) judge: fn(&[Row]) -> Vec<Bound>,
}

// ---- Pieces -------------------------------------------------------------------------------------

/// A model whose tables take `wcu` write units a second from the start.
fn model(profile: &str, wcu: u32) -> Vec<String> {
    // Fifty events of twenty stripes that are asked about are read 27 times a second each.
    let rcu = (3 * wcu).max(60_000);
    let quota = wcu.max(rcu);
    [
        "--profile",
        profile,
        "--warm-wcu",
        &wcu.to_string(),
        "--warm-rcu",
        &rcu.to_string(),
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(["--table-quota".to_owned(), quota.to_string()])
    .collect()
}

/// Write units for so many reservations a second: two each, and a fifth to spare for the stripes,
/// repeats, and seconds that are fuller than others.
fn units(reservations_per_s: u32) -> u32 {
    (reservations_per_s * 2).saturating_mul(6) / 5
}

fn ours(shards: usize, settings: &[(&'static str, &str)]) -> Serving {
    some_of_ours(1, shards, settings)
}

fn some_of_ours(processes: usize, shards: usize, settings: &[(&'static str, &str)]) -> Serving {
    // Transactions of a hundred actions take 70 ms and more at their slowest.
    let mut all = vec![("DDB_TIMEOUT", "1s".to_owned())];
    all.extend(
        settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    Serving::Ours {
        processes,
        shards,
        settings: all,
    }
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs
        .iter()
        .flat_map(|(flag, value)| [format!("--{flag}"), value.clone()])
        .collect()
}

fn case(
    name: &str,
    model: Vec<String>,
    serving: Serving,
    scenario: &'static str,
    seconds: u32,
) -> Case {
    Case {
        name: name.to_owned(),
        model,
        serving,
        scenario,
        flags: flags(&[("duration", seconds.to_string())]),
        seconds,
        verify: false,
    }
}

impl Case {
    fn with(mut self, pairs: &[(&str, String)]) -> Self {
        self.flags.extend(flags(pairs));
        self
    }
}

fn column(title: &'static str, digits: usize, of: fn(&Figures) -> f64) -> Column {
    Column { title, digits, of }
}

/// The first case with this name.
fn row<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name)
}

fn bound(rows: &[Row], name: &str, what: &str, wanted: Wanted, of: fn(&Figures) -> f64) -> Bound {
    Bound {
        what: format!("{name}: {what}"),
        values: row(rows, name).map(|row| row.each(of)).unwrap_or_default(),
        wanted,
    }
}

/// The ratio of two cases, round by round.
fn ratio(
    rows: &[Row],
    what: &str,
    (of, to): (&str, &str),
    wanted: Wanted,
    figure: fn(&Figures) -> f64,
) -> Bound {
    let each = |name| {
        row(rows, name)
            .map(|row| row.each(figure))
            .unwrap_or_default()
    };
    Bound {
        what: what.to_owned(),
        values: each(of)
            .iter()
            .zip(each(to))
            .map(|(of, to)| of / to)
            .collect(),
        wanted,
    }
}

fn commits(run: &Figures, path: &str) -> f64 {
    run.of("direct_commit", path)
}

fn failed(run: &Figures) -> f64 {
    run.sum("/errors") + run.sum("/shed")
}

fn batch(run: &Figures) -> f64 {
    run.of("direct_commit", "/ok") / run.model("/operations/TransactWriteItems/ok")
}

fn common() -> Vec<Column> {
    vec![
        column("offered/s", 0, Figures::calls_per_s),
        column("ok/s", 0, Figures::ok_per_s),
        column("p50 ms", 1, |run| commits(run, "/ok_only/p50")),
        column("p95 ms", 1, |run| commits(run, "/ok_only/p95")),
        column("p99 ms", 1, |run| commits(run, "/ok_only/p99")),
        column("max ms", 0, |run| commits(run, "/ok_only/max")),
        column("shed/s", 0, |run| run.sum("/shed") / run.measured_s()),
        column("errors", 0, |run| run.sum("/errors")),
        column("µs/ok", 1, Figures::server_us_per_ok),
        column("server", 2, |run| run.cores("server")),
        column("model", 2, |run| run.cores("store")),
        column("gen", 2, |run| run.cores("generator")),
        column("late ms", 1, Figures::lateness_ms),
        column("batch", 1, batch),
        column("conflicts", 0, |run| run.model("/conflicts")),
        column("hottest WCU/s", 0, |run| {
            run.model("/hottest_partition/wcu_peak")
        }),
    ]
}

// ---- One hot event ------------------------------------------------------------------------------

const HOT: &str = "in-region";
const HOT_2020: &str = "lambda-2020";
const HOT_ONE: &str = "in-region, one stripe";
const TWIN: &str = "twin, one stripe";
const TWIN_STRIPED: &str = "twin, as many stripes";

/// What is offered to the twin: several times what it can take, and not so much that its own queues
/// are all that is measured.
const TWIN_RATE: u32 = 2_000;

pub(crate) fn hot(wish: &Wish) -> Plan {
    let side = wish.seconds.div_ceil(3).max(5);
    let wcu = units(wish.rate);
    let rate = |rate: u32| ("rate", rate.to_string());
    let one = ("stripes", "1".to_owned());
    let many = wish.stripes.map(|n| ("stripes", n.to_string()));
    let many: Vec<_> = many.into_iter().collect();
    let twin = || Serving::Twin {
        arguments: vec!["--port", "0"],
    };
    let main = case(
        HOT,
        model("in-region", wcu),
        ours(1, &[]),
        "hot",
        wish.seconds,
    );
    let old = case(
        HOT_2020,
        model("lambda-2020", wcu),
        ours(1, &[]),
        "hot",
        side,
    );
    Plan {
        title: format!(
            "One hot event, direct commits of one unit, {} a second, open loop. Tables of {wcu} write units a second.",
            wish.rate
        ),
        cases: vec![
            main.with(&[rate(wish.rate)]).with(&many),
            old.with(&[rate(wish.rate)]).with(&many),
            case(HOT_ONE, model("in-region", wcu), ours(1, &[]), "hot", side)
                .with(&[rate(wish.rate), one.clone()]),
            case(TWIN, model("in-region", wcu), twin(), "hot", side).with(&[rate(TWIN_RATE), one]),
            case(TWIN_STRIPED, model("in-region", wcu), twin(), "hot", side)
                .with(&[rate(TWIN_RATE)])
                .with(&many),
        ],
        columns: common(),
        judge: |rows| {
            vec![
                bound(
                    rows,
                    HOT,
                    "p95 of commits, ms",
                    Wanted::Below(BAR_MS),
                    |run| commits(run, "/ok_only/p95"),
                ),
                bound(
                    rows,
                    HOT,
                    "calls without their ticket",
                    Wanted::AtMost(0.0),
                    |run| failed(run) + run.sum("/refused"),
                ),
                bound(
                    rows,
                    HOT,
                    "server CPU per commit, µs",
                    Wanted::AtMost(15.0),
                    Figures::server_us_per_ok,
                ),
                bound(
                    rows,
                    HOT,
                    "write units of the hottest partition in a second",
                    Wanted::AtMost(1_000.0),
                    |run| run.model("/hottest_partition/wcu_peak"),
                ),
                bound(
                    rows,
                    HOT,
                    "requests that the model throttled",
                    Wanted::AtMost(0.0),
                    |run| run.model("/throttled/partition") + run.model("/throttled/table"),
                ),
                ratio(
                    rows,
                    "commits a second against the twin's on one stripe, times",
                    (HOT, TWIN),
                    Wanted::AtLeast(50.0),
                    Figures::ok_per_s,
                ),
            ]
        },
    }
}

// ---- Many events --------------------------------------------------------------------------------

const MIXED: &str = "mixed";
const METHODS: [&str; 4] = ["check", "hold", "commit", "release"];

pub(crate) fn mixed(wish: &Wish) -> Plan {
    let wcu = units(wish.rate / 4);
    Plan {
        title: format!(
            "{} calls a second on 50 events (Zipf 1.1): 85 % checks, 8 % holds, 5 % commits, 2 % releases, 1 % sent twice. Tables of {wcu} write units a second.",
            wish.rate
        ),
        cases: vec![
            case(
                MIXED,
                model("in-region", wcu),
                ours(1, &[]),
                "mixed",
                wish.seconds,
            )
            .with(&[("rate", wish.rate.to_string())]),
        ],
        columns: mixed_columns(),
        judge: mixed_bounds,
    }
}

fn mixed_columns() -> Vec<Column> {
    vec![
        column("calls/s", 0, Figures::calls_per_s),
        column("check p50", 1, |run| run.of("check", "/answered/p50")),
        column("p95", 1, |run| run.of("check", "/answered/p95")),
        column("p99", 1, |run| run.of("check", "/answered/p99")),
        column("hold p95", 1, |run| run.of("hold", "/answered/p95")),
        column("p99", 1, |run| run.of("hold", "/answered/p99")),
        column("commit p95", 1, |run| run.of("commit", "/answered/p95")),
        column("p99", 1, |run| run.of("commit", "/answered/p99")),
        column("release p95", 1, |run| run.of("release", "/answered/p95")),
        column("p99", 1, |run| run.of("release", "/answered/p99")),
        column("failed", 0, failed),
        column("µs/call", 1, Figures::server_us_per_call),
        column("server", 2, |run| run.cores("server")),
        column("model", 2, |run| run.cores("store")),
        column("gen", 2, |run| run.cores("generator")),
        column("late ms", 1, Figures::lateness_ms),
        column("MiB", 0, Figures::server_mib),
    ]
}

fn mixed_bounds(rows: &[Row]) -> Vec<Bound> {
    let name = rows.first().map_or("", |row| &*row.name);
    let mut bounds: Vec<Bound> = METHODS
        .iter()
        .map(|method| Bound {
            what: format!("{name}: p95 of {method}, ms"),
            values: row(rows, name)
                .map(|row| row.each(|run| run.of(method, "/answered/p95")))
                .unwrap_or_default(),
            wanted: Wanted::Below(BAR_MS),
        })
        .collect();
    bounds.push(bound(
        rows,
        name,
        "p95 of checks, ms",
        Wanted::Below(5.0),
        |run| run.of("check", "/answered/p95"),
    ));
    bounds.push(bound(
        rows,
        name,
        "calls that failed",
        Wanted::AtMost(0.0),
        failed,
    ));
    bounds
}

// ---- Seats --------------------------------------------------------------------------------------

const EXACT: &str = "by name, front rows first";
const BEST: &str = "best available";

pub(crate) fn seats(wish: &Wish) -> Plan {
    let wcu = units(wish.rate * 3);
    let play = |name, scenario| {
        case(
            name,
            model("in-region", wcu),
            ours(1, &[]),
            scenario,
            wish.seconds,
        )
        .with(&[("rate", wish.rate.to_string())])
    };
    Plan {
        title: format!(
            "20,000 seats, {} holds a second. Tables of {wcu} write units a second.",
            wish.rate
        ),
        cases: vec![play(EXACT, "seats-exact"), play(BEST, "seats-best")],
        columns: vec![
            column("offered/s", 0, Figures::calls_per_s),
            column("held", 0, |run| run.of("hold", "/ok")),
            column("refused", 0, |run| run.of("hold", "/refused")),
            column("ok p50", 1, |run| run.of("hold", "/ok_only/p50")),
            column("p95", 1, |run| run.of("hold", "/ok_only/p95")),
            column("p99", 1, |run| run.of("hold", "/ok_only/p99")),
            column("all p95", 1, |run| run.of("hold", "/answered/p95")),
            column("failed", 0, failed),
            column("sold out s", 1, Figures::sold_out_s),
            column("WCU/hold", 2, units_per_success),
            column("wasted", 2, wasted_units),
            column("µs/call", 1, Figures::server_us_per_call),
            column("server", 2, |run| run.cores("server")),
            column("model", 2, |run| run.cores("store")),
        ],
        judge: |rows| {
            [EXACT, BEST]
                .into_iter()
                .flat_map(|name| {
                    [
                        bound(
                            rows,
                            name,
                            "p95 of holds, ms",
                            Wanted::Below(BAR_MS),
                            |run| run.of("hold", "/ok_only/p95"),
                        ),
                        bound(rows, name, "calls that failed", Wanted::AtMost(0.0), failed),
                    ]
                })
                .collect()
        },
    }
}

fn units_per_success(run: &Figures) -> f64 {
    let table = |name: &str| run.model(&format!("/tables/{name}/wcu/total"));
    (table("idempotency") + table("inventory_seats")) / run.of("hold", "/ok")
}

/// Write units of writes that failed, per hold that succeeded.
fn wasted_units(run: &Figures) -> f64 {
    run.model("/wasted_wcu") / run.of("hold", "/ok")
}

// ---- Too much -----------------------------------------------------------------------------------

const OVERLOAD: &str = "three times the capacity";

/// Stripes of the overloaded event: with few of them the store is the limit, not this machine.
const OVERLOAD_STRIPES: u32 = 8;

/// `--rate` is the capacity: what runs of [`hot`] on as many stripes kept the bar at.
pub(crate) fn overload(wish: &Wish) -> Plan {
    let wcu = units(wish.rate * 3);
    let stripes = wish.stripes.unwrap_or(OVERLOAD_STRIPES);
    let mut played = case(
        OVERLOAD,
        model("in-region", wcu),
        ours(1, &[]),
        "overload",
        80,
    );
    // The length is the curve's.
    played.flags.clear();
    Plan {
        title: format!(
            "{0} commits a second for ten seconds, three times that for a minute, {0} for ten seconds, on {stripes} stripe(s).",
            wish.rate
        ),
        cases: vec![played.with(&[
            ("rate", wish.rate.to_string()),
            ("stripes", stripes.to_string()),
        ])],
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
            column("µs/call", 1, Figures::server_us_per_call),
            column("server", 2, |run| run.cores("server")),
            column("gen", 2, |run| run.cores("generator")),
            column("MiB", 0, Figures::server_mib),
        ],
        judge: overload_bounds,
    }
}

fn overload_bounds(rows: &[Row]) -> Vec<Bound> {
    vec![
        bound(
            rows,
            OVERLOAD,
            "goodput, part of the capacity",
            Wanted::AtLeast(0.9),
            |run| run.phase(1, "/ok_per_s") / run.phase(2, "/planned_per_s"),
        ),
        bound(
            rows,
            OVERLOAD,
            "p95 of admitted calls, ms",
            Wanted::Below(BAR_MS),
            |run| run.phase(1, "/writes/p95"),
        ),
        bound(
            rows,
            OVERLOAD,
            "p95 of shed answers, ms",
            Wanted::Below(5.0),
            |run| run.phase(1, "/sheds/p95"),
        ),
        bound(
            rows,
            OVERLOAD,
            "seconds until calm",
            Wanted::AtMost(2.0),
            |run| run.phase(2, "/calm_after_s"),
        ),
        bound(
            rows,
            OVERLOAD,
            "largest resident memory, MiB",
            Wanted::AtMost(512.0),
            Figures::server_mib,
        ),
    ]
}

// ---- More of it ---------------------------------------------------------------------------------

const ONE_SHARD: &str = "1 shard";
const TWO_SHARDS: &str = "2 shards";
const FEW: &str = "10 connections";
const MANY: &str = "5,000 connections";
const PROCESSES: [(usize, &str); 3] = [(1, "1 process"), (2, "2 processes"), (4, "4 processes")];

/// Calls per second of each shard: both fit on two cores beside generator and model.
const PER_SHARD: u32 = 4_000;
/// Calls per second that few and many connections carry.
const CONNECTED_RATE: u32 = 10_000;
/// Commits per second that processes share.
const SHARED_RATE: u32 = 8_000;

pub(crate) fn scale(wish: &Wish) -> Plan {
    let seconds = wish.seconds;
    let play = |name, shards: u32| {
        let wcu = units(PER_SHARD * shards);
        case(
            name,
            model("in-region", wcu),
            ours(shards as usize, &[]),
            "hot",
            seconds,
        )
        .with(&[("rate", (PER_SHARD * shards).to_string())])
    };
    let connected = |name, connections: u32| {
        case(
            name,
            model("in-region", units(CONNECTED_RATE)),
            ours(1, &[]),
            "hot",
            seconds,
        )
        .with(&[
            ("rate", CONNECTED_RATE.to_string()),
            ("connections", connections.to_string()),
        ])
    };
    let mut cases = vec![
        play(ONE_SHARD, 1),
        play(TWO_SHARDS, 2),
        connected(FEW, 10),
        connected(MANY, 5_000),
    ];
    for (processes, name) in PROCESSES {
        let serving = some_of_ours(processes, 1, &[]);
        cases.push(
            case(
                name,
                model("in-region", units(SHARED_RATE)),
                serving,
                "hot",
                seconds,
            )
            .with(&[("rate", SHARED_RATE.to_string())]),
        );
    }
    Plan {
        title: format!(
            "Direct commits on one hot event: {PER_SHARD} a second on each shard; {CONNECTED_RATE} a second over few and many connections; {SHARED_RATE} a second shared by processes."
        ),
        cases,
        columns: {
            let mut columns = common();
            columns.push(column("MiB", 0, Figures::server_mib));
            columns
        },
        judge: |rows| {
            let memory =
                |name| row(rows, name).map_or(f64::NAN, |row| row.median(Figures::server_mib));
            let kib = (memory(MANY) - memory(FEW)) * 1024.0 / 4_990.0;
            println!("memory of one connection: {kib:.1} KiB");
            vec![
                ratio(
                    rows,
                    "CPU per commit, two shards to one",
                    (TWO_SHARDS, ONE_SHARD),
                    Wanted::AtMost(1.1),
                    Figures::server_us_per_ok,
                ),
                ratio(
                    rows,
                    "CPU per call, 5,000 connections to 10",
                    (MANY, FEW),
                    Wanted::AtMost(1.3),
                    Figures::server_us_per_call,
                ),
                bound(
                    rows,
                    PROCESSES[2].1,
                    "calls that failed",
                    Wanted::AtMost(0.0),
                    failed,
                ),
                bound(
                    rows,
                    PROCESSES[2].1,
                    "p95 of commits, ms",
                    Wanted::Below(BAR_MS),
                    |run| commits(run, "/ok_only/p95"),
                ),
            ]
        },
    }
}

// ---- For long -----------------------------------------------------------------------------------

const SOAK: &str = "soak";

pub(crate) fn soak(wish: &Wish) -> Plan {
    let wcu = units(wish.rate / 4);
    let mut played = case(
        SOAK,
        model("in-region", wcu),
        ours(1, &[]),
        "soak",
        wish.seconds,
    )
    .with(&[("rate", wish.rate.to_string())]);
    played.verify = true;
    let mut columns = mixed_columns();
    columns.push(column("RSS grows", 3, rss_growth));
    columns.push(column("p95 drifts", 3, drift));
    Plan {
        title: format!(
            "{} seconds of the mixed calls, {} a second",
            wish.seconds, wish.rate
        ),
        cases: vec![played],
        columns,
        judge: |rows| {
            let mut bounds = mixed_bounds(rows);
            bounds.push(bound(
                rows,
                SOAK,
                "memory, last quarter to second",
                Wanted::AtMost(1.05),
                rss_growth,
            ));
            bounds.push(bound(
                rows,
                SOAK,
                "p95 of writes, last quarter to second",
                Wanted::AtMost(1.2),
                drift,
            ));
            bounds
        },
    }
}

/// Mean of the last quarter over that of the second: the first is warm-up.
fn later(values: &[f64]) -> f64 {
    let quarter = values.len() / 4;
    if quarter == 0 {
        return f64::NAN;
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    mean(&values[values.len() - quarter..]) / mean(&values[quarter..2 * quarter])
}

fn rss_growth(run: &Figures) -> f64 {
    let all = run.server_rss();
    let warm = all.iter().filter(|(at, _)| *at >= run.warmup_s());
    later(&warm.map(|(_, mib)| *mib).collect::<Vec<_>>())
}

fn drift(run: &Figures) -> f64 {
    later(&run.by_second("write_p95"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_and_warm_up_is_not() {
        let flat = [9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(later(&flat), 1.0);
        let grows: Vec<f64> = (1..=8).map(f64::from).collect();
        assert!(later(&grows) > 2.0);
        assert!(later(&[]).is_nan());
    }

    #[test]
    fn a_model_takes_what_the_sale_needs() {
        assert_eq!(units(30_000), 72_000);
        let flags = model("in-region", units(30_000));
        let quota: u32 = flags.last().and_then(|q| q.parse().ok()).unwrap_or(0);
        assert!(quota >= units(30_000));
    }
}
