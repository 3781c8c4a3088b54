//! The benchmarks: their cases, the columns of their tables, and the bounds of their figures.
//!
//! Every case runs once per round, so that slow periods of the machine affect all cases; figures are medians over
//! rounds. Capacity of the store model is what an operator would have provisioned for such a sale: two write units
//! per reservation and a reserve. Latencies count from when a call was due.
//!
//! Not here: how a case runs.

mod fleet;
mod mixed;
mod quantity;
mod seats;

use std::path::PathBuf;

use inventory_process::{PrintError, print};

use crate::case::{self, Case, Folders};
use crate::deployment::{CpuLayout, FleetMembership, Programs, Target};
use crate::measurement::Measurement;
use crate::report::{self, Bound, Requirement};
use crate::{BenchError, BenchVerdict, limits};

/// Promised bound of the 95th percentile, in milliseconds.
const P95_BOUND_MS: f64 = inventory_generator::report::P95_BOUND_MS;

#[derive(clap::Args)]
pub(crate) struct BenchmarkArgs {
    /// Folder of the programs
    #[arg(long, default_value = "target/dist")]
    programs: PathBuf,
    /// Folder of the scenarios
    #[arg(long, default_value = "bench/scenarios")]
    scenarios: PathBuf,
    /// Folder for reports and plots
    #[arg(long, default_value = "target/bench")]
    results: PathBuf,
    /// Number of rounds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::ROUNDS_MAX)))]
    rounds: Option<u32>,
    /// Duration of the main run in seconds
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=i64::from(limits::SECONDS_MAX)))]
    seconds: Option<u32>,
    /// Calls per second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Stripes of the hot event [default: chosen by the server]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    stripes: Option<u32>,
    /// How the processes of a fleet find each other
    #[arg(long, value_enum, default_value_t)]
    membership: FleetMembership,
    /// Run only the cases whose name contains this text
    #[arg(long)]
    only: Option<String>,
}

#[derive(Clone, Copy)]
pub(crate) enum BenchmarkName {
    Hot,
    Mixed,
    Seats,
    Overload,
    Scale,
    Fleet,
    Soak,
}

impl BenchmarkName {
    fn text(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Mixed => "mixed",
            Self::Seats => "seats",
            Self::Overload => "overload",
            Self::Scale => "scale",
            Self::Fleet => "fleet",
            Self::Soak => "soak",
        }
    }

    /// Default rounds, seconds and calls per second.
    fn defaults(self) -> (u32, u32, u32) {
        match self {
            Self::Hot | Self::Mixed => (3, 60, 30_000),
            Self::Seats => (3, 12, 5_000),
            Self::Overload => (1, 60, 10_000),
            Self::Scale => (3, 20, 8_000),
            Self::Fleet => (5, 15, 8_000),
            Self::Soak => (1, 1_200, 30_000),
        }
    }

    fn benchmark(self, parameters: &Parameters) -> Benchmark {
        match self {
            Self::Hot => quantity::hot(parameters),
            Self::Mixed => mixed::mixed(parameters),
            Self::Seats => seats::seats(parameters),
            Self::Overload => quantity::overload(parameters),
            Self::Scale => quantity::scale(parameters),
            Self::Fleet => fleet::fleet(parameters),
            Self::Soak => mixed::soak(parameters),
        }
    }
}

/// Parameters of a benchmark.
#[derive(Clone, Debug)]
struct Parameters {
    /// Duration of the main run; side runs are shorter.
    seconds: u32,
    /// Calls per second of the main run.
    rate: u32,
    /// Stripes of the hot event; `None`: chosen by the server.
    stripes: Option<u32>,
    membership: FleetMembership,
}

struct Benchmark {
    title: String,
    cases: Vec<Case>,
    columns: Vec<Column>,
    /// A line below the table.
    note: fn(&[CaseResult]) -> Option<String>,
    bounds: fn(&[CaseResult]) -> Vec<Bound>,
}

/// A column of the table.
#[derive(Clone, Copy)]
struct Column {
    title: &'static str,
    digits: usize,
    figure: fn(&Measurement) -> f64,
}

/// All runs of one case.
struct CaseResult {
    name: String,
    runs: Vec<Measurement>,
}

impl CaseResult {
    fn per_round(&self, figure: impl Fn(&Measurement) -> f64) -> Vec<f64> {
        self.runs.iter().map(figure).collect()
    }
}

/// Runs a benchmark and prints its table and bounds.
pub(crate) async fn run(
    name: BenchmarkName,
    args: &BenchmarkArgs,
) -> Result<BenchVerdict, BenchError> {
    let (rounds, seconds, rate) = name.defaults();
    let parameters = Parameters {
        seconds: args.seconds.unwrap_or(seconds),
        rate: args.rate.unwrap_or(rate),
        stripes: args.stripes,
        membership: args.membership,
    };
    let rounds = args.rounds.unwrap_or(rounds);
    let mut benchmark = name.benchmark(&parameters);
    if let Some(only) = &args.only {
        benchmark.cases.retain(|case| case.name.contains(only.as_str()));
        if benchmark.cases.is_empty() {
            return Err(format!("--only {only}: no case has this text in its name").into());
        }
    }
    let programs = programs(args)?;
    let folders = Folders { scenarios: args.scenarios.clone(), results: args.results.clone() };
    std::fs::create_dir_all(&folders.results)
        .map_err(|error| format!("{}: {error}", folders.results.display()))?;
    print(&benchmark.title)?;
    let cpus = &programs.cpus;
    print(format_args!(
        "generator on CPU {}, model on {}, servers on {:?}; {rounds} round(s)\n",
        cpus.generator, cpus.model, cpus.servers
    ))?;
    let new_result = |case: &Case| CaseResult { name: case.name.clone(), runs: Vec::new() };
    let mut results: Vec<CaseResult> = benchmark.cases.iter().map(new_result).collect();
    for round in 1..=rounds {
        for (case, result) in benchmark.cases.iter().zip(&mut results) {
            inventory_process::report(format_args!("round {round} of {rounds}: {}", case.name));
            let label = format!("{}-{}-{round}", name.text(), file_name(&case.name));
            let run = case::run(&programs, &folders, case, &label).await;
            let run = run.map_err(|error| format!("{}: {error}", case.name))?;
            result.runs.push(run);
        }
    }
    Ok(print_results(&benchmark, &results)?)
}

fn print_results(
    benchmark: &Benchmark,
    results: &[CaseResult],
) -> Result<BenchVerdict, PrintError> {
    let columns = &benchmark.columns;
    let titles = columns.iter().map(|column| column.title);
    let header: Vec<&str> = std::iter::once("").chain(titles).collect();
    let row = |result: &CaseResult| {
        let cells = columns.iter().map(|column| {
            let median = report::median(&result.per_round(column.figure));
            report::number(median, column.digits)
        });
        std::iter::once(result.name.clone()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = results.iter().map(row).collect();
    print(report::table(&header, &rows))?;
    if let Some(note) = (benchmark.note)(results) {
        print(note)?;
    }
    let mut verdict = report::print_bounds(&(benchmark.bounds)(results))?;
    let runs: Vec<(&str, &Measurement)> = results
        .iter()
        .flat_map(|result| result.runs.iter().map(|run| (&*result.name, run)))
        .collect();
    for (name, run) in &runs {
        for reason in run.invalid_because() {
            print(format_args!("invalid: {name}: {reason}"))?;
            verdict = BenchVerdict::Invalid;
        }
    }
    for (name, run) in runs.iter().filter(|(_, run)| !run.promises_kept()) {
        verdict = BenchVerdict::Broken;
        print(format_args!("BROKEN: {name}"))?;
        for violation in run.violations() {
            print(format_args!("  {violation}"))?;
        }
    }
    if verdict != BenchVerdict::Broken {
        let runs = runs.len();
        print(format_args!("every promise kept in {runs} run(s), checked against the store"))?;
    }
    Ok(verdict)
}

fn programs(args: &BenchmarkArgs) -> Result<Programs, BenchError> {
    let program = |name: &str| {
        let path = args.programs.join(name);
        match path.is_file() {
            true => Ok(path),
            false => Err(format!("{} does not exist: build it first", path.display())),
        }
    };
    Ok(Programs {
        server: program("inventory-api")?,
        model: program("store-model")?,
        baseline: program("baseline")?,
        generator: program("generator")?,
        cpus: CpuLayout::of_this_machine()?,
    })
}

/// `name` with every character that is not a letter or digit replaced.
fn file_name(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

// ---- Building blocks of the benchmarks ----------------------------------------------------------

/// Flags of a store model whose tables have a capacity of `wcu` write units per second from the start.
fn model(profile: &str, wcu: u32) -> Vec<String> {
    // Fifty events of twenty stripes that are checked are read 27 times a second each.
    let rcu = (3 * wcu).max(60_000);
    flags(&[
        ("profile", profile.to_owned()),
        ("warm-wcu", wcu.to_string()),
        ("warm-rcu", rcu.to_string()),
        ("table-quota", wcu.max(rcu).to_string()),
    ])
}

/// Write units for this many reservations per second: two each, and a fifth in reserve for stripes, repeats, and
/// seconds above the mean.
fn write_units(reservations_per_s: u32) -> u32 {
    (reservations_per_s * 2).saturating_mul(6) / 5
}

fn server(processes: usize, shards: usize) -> Target {
    Target::Server {
        processes,
        shards,
        // The slowest transactions of a hundred actions take 70 ms and more.
        settings: vec![("DDB_TIMEOUT", "1s".to_owned())],
        fleet: None,
    }
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    let flag = |(name, value): &(&str, String)| [format!("--{name}"), value.clone()];
    pairs.iter().flat_map(flag).collect()
}

/// A case on one server with one shard and the in-region model.
fn case(name: &str, scenario: &'static str, wcu: u32, seconds: u32) -> Case {
    Case {
        name: name.to_owned(),
        model: model("in-region", wcu),
        target: server(1, 1),
        scenario,
        flags: flags(&[("duration", seconds.to_string())]),
        seconds,
        verify: false,
    }
}

impl Case {
    /// Adds a flag of the generator.
    fn with(mut self, name: &str, value: u32) -> Self {
        self.flags.extend(flags(&[(name, value.to_string())]));
        self
    }

    fn with_stripes(self, stripes: Option<u32>) -> Self {
        match stripes {
            Some(stripes) => self.with("stripes", stripes),
            None => self,
        }
    }

    fn on(mut self, target: Target) -> Self {
        self.target = target;
        self
    }
}

fn column(title: &'static str, digits: usize, figure: fn(&Measurement) -> f64) -> Column {
    Column { title, digits, figure }
}

/// Values of a figure of one case, by round. Empty if the case is not part of this run.
fn per_round(results: &[CaseResult], case: &str, figure: impl Fn(&Measurement) -> f64) -> Vec<f64> {
    let result = results.iter().find(|result| result.name == case);
    result.map_or(Vec::new(), |result| result.per_round(figure))
}

fn bound(
    results: &[CaseResult],
    case: &str,
    figure_name: &str,
    limit: Requirement,
    figure: impl Fn(&Measurement) -> f64,
) -> Bound {
    Bound {
        name: format!("{case}: {figure_name}"),
        values: per_round(results, case, figure),
        limit,
    }
}

/// A bound on the ratio of two cases, by round.
fn ratio_bound(
    results: &[CaseResult],
    name: &str,
    (case, reference): (&str, &str),
    limit: Requirement,
    figure: fn(&Measurement) -> f64,
) -> Bound {
    let values = per_round(results, case, figure).into_iter();
    let references = per_round(results, reference, figure);
    Bound {
        name: name.to_owned(),
        values: values.zip(references).map(|(a, b)| a / b).collect(),
        limit,
    }
}

fn failed_calls(run: &Measurement) -> f64 {
    run.sum("/errors") + run.sum("/shed")
}

/// The columns at the end of most tables: CPUs in use.
fn cpu_columns() -> [Column; 3] {
    [
        column("server", 2, |run| run.cores("server")),
        column("model", 2, |run| run.cores("store")),
        column("gen", 2, |run| run.cores("generator")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_has_capacity_for_the_sale() {
        assert_eq!(write_units(30_000), 72_000);
        let flags = model("in-region", write_units(30_000));
        let quota: u32 = flags.last().and_then(|q| q.parse().ok()).unwrap_or(0);
        assert!(quota >= write_units(30_000));
    }

    #[test]
    fn case_names_become_file_names() {
        assert_eq!(file_name("in-region, one stripe"), "in-region--one-stripe");
    }
}
