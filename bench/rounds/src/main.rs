//! Plays the project's benchmarks and judges them.
//!
//! Every case of a benchmark is played once in each round, so that a slow moment of the machine meets
//! all; figures are medians of rounds. The store is the model of DynamoDB. After every run the store
//! is read back and held against every answer.
//!
//! Exit codes: 0 all that is wanted was measured, 1 a promise was broken, 2 a figure was missed, 3 the
//! generator was the limit, 4 it could not be measured, 64 wrong usage.

mod cases;
mod figures;
mod limits;
mod play;
mod sheet;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::cases::{Plan, Wish};
use crate::play::Places;
use crate::sheet::Row;
use crate::stage::{Cores, Error, Programs};

const BROKEN: u8 = 1;
const MISSED: u8 = 2;
const INVALID: u8 = 3;
const NOT_MEASURED: u8 = 4;
const USAGE: u8 = 64;

/// Plays the benchmarks of inventory-api in interleaved rounds and judges them.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// Folder of the programs.
    #[arg(long, global = true, default_value = "target/release")]
    programs: PathBuf,
    /// Folder of the scenarios.
    #[arg(long, global = true, default_value = "bench/scenarios")]
    scenarios: PathBuf,
    /// Where reports and plots go.
    #[arg(long, global = true, default_value = "target/bench")]
    results: PathBuf,
    /// How often each case is played.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::ROUNDS_MAX)))]
    rounds: Option<u32>,
    /// Seconds of the main run.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(2..=i64::from(limits::SECONDS_MAX)))]
    seconds: Option<u32>,
    /// Calls per second.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Stripes of the hot event; as the server chooses without it.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=64))]
    stripes: Option<u32>,
    /// Only the cases whose name has this.
    #[arg(long, global = true)]
    only: Option<String>,
}

#[derive(Subcommand, Clone, Copy)]
enum Benchmark {
    /// One hot event: 30,000 direct commits a second, against the twin.
    Hot,
    /// Fifty events, mostly checks.
    Mixed,
    /// 20,000 seats, by name and best available.
    Seats,
    /// Three times the measured capacity.
    Overload,
    /// More shards, more connections, more processes.
    Scale,
    /// Twenty minutes.
    Soak,
}

impl Benchmark {
    fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Mixed => "mixed",
            Self::Seats => "seats",
            Self::Overload => "overload",
            Self::Scale => "scale",
            Self::Soak => "soak",
        }
    }

    /// Rounds, seconds, and calls per second, where the command line says nothing.
    fn usual(self) -> (u32, u32, u32) {
        match self {
            Self::Hot => (3, 60, 30_000),
            Self::Mixed => (3, 60, 30_000),
            Self::Seats => (3, 12, 5_000),
            Self::Overload => (1, 60, 10_000),
            Self::Scale => (3, 20, 8_000),
            Self::Soak => (1, 1_200, 30_000),
        }
    }

    fn plan(self, wish: &Wish) -> Plan {
        match self {
            Self::Hot => cases::hot(wish),
            Self::Mixed => cases::mixed(wish),
            Self::Seats => cases::seats(wish),
            Self::Overload => cases::overload(wish),
            Self::Scale => cases::scale(wish),
            Self::Soak => cases::soak(wish),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            };
        }
    };
    match measure(&args).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("rounds: {error}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

async fn measure(args: &Args) -> Result<u8, Error> {
    let (rounds, seconds, rate) = args.benchmark.usual();
    let wish = Wish {
        seconds: args.seconds.unwrap_or(seconds),
        rate: args.rate.unwrap_or(rate),
        stripes: args.stripes,
    };
    let rounds = args.rounds.unwrap_or(rounds);
    let mut plan = args.benchmark.plan(&wish);
    if let Some(only) = &args.only {
        plan.cases.retain(|case| case.name.contains(only.as_str()));
        if plan.cases.is_empty() {
            return Err(format!("no case has {only:?} in its name").into());
        }
    }
    let programs = programs(args)?;
    let places = Places {
        scenarios: args.scenarios.clone(),
        results: args.results.clone(),
    };
    std::fs::create_dir_all(&places.results)
        .map_err(|error| format!("{}: {error}", places.results.display()))?;
    println!("{}", plan.title);
    let cores = &programs.cores;
    println!(
        "generator on CPU {}, model on {}, servers on {:?}; {rounds} round(s)\n",
        cores.generator, cores.model, cores.servers
    );
    let mut rows: Vec<Row> = plan
        .cases
        .iter()
        .map(|case| Row {
            name: case.name.clone(),
            runs: Vec::new(),
        })
        .collect();
    for round in 1..=rounds {
        for (case, row) in plan.cases.iter().zip(&mut rows) {
            eprintln!("round {round} of {rounds}: {}", case.name);
            let label = format!("{}-{}-{round}", args.benchmark.name(), plain(&case.name));
            let played = play::play(&programs, &places, case, &label).await;
            row.runs
                .push(played.map_err(|error| format!("{}: {error}", case.name))?);
        }
    }
    Ok(verdict(&plan, &rows))
}

/// Prints the table and what comes of it; the exit code.
fn verdict(plan: &Plan, rows: &[Row]) -> u8 {
    print!("{}", sheet::table(rows, &plan.columns));
    println!();
    let mut code = 0;
    for bound in (plan.judge)(rows) {
        // A case that was left out is no figure that was missed.
        if bound.values.is_empty() {
            continue;
        }
        let (holds, line) = sheet::judged(&bound);
        println!("{line}");
        if !holds {
            code = MISSED;
        }
    }
    let runs = || {
        rows.iter()
            .flat_map(|row| row.runs.iter().map(|run| (&row.name, run)))
    };
    for (name, run) in runs() {
        for why in run.invalid_because() {
            println!("invalid: {name}: {why}");
            code = INVALID;
        }
    }
    let mut checked = 0;
    for (name, run) in runs() {
        checked += 1;
        if !run.is_kept() {
            code = BROKEN;
            println!("BROKEN: {name}");
            for what in run.broken() {
                println!("  {what}");
            }
        }
    }
    if code != BROKEN {
        println!("every promise kept in {checked} run(s), by what the store holds");
    }
    code
}

fn programs(args: &Args) -> Result<Programs, Error> {
    let program = |name: &str| {
        let path = args.programs.join(name);
        match path.is_file() {
            true => Ok(path),
            false => Err(format!("{} is not there: build it first", path.display())),
        }
    };
    Ok(Programs {
        server: program("inventory-api")?,
        model: program("store-model")?,
        baseline: program("baseline")?,
        generator: program("generator")?,
        cores: Cores::of_this_machine()?,
    })
}

/// As a file is called.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}
