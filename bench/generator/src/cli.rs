//! The command line: what it means, and which exit code says what.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::limits;
use crate::report::{Report, svg, table};
use crate::run::{self, Options};
use crate::scenario::{Overrides, Scenario};
use crate::store::{StoreOptions, Tables};

/// Promises kept, and the run counts.
const KEPT: u8 = 0;
/// A promise was broken, or the run could not be made.
const BROKEN: u8 = 1;
/// The generator was the limit: the figures mean nothing.
const INVALID: u8 = 3;
/// Wrong usage, or a scenario that cannot be played.
const USAGE: u8 = 64;

/// Offers a load to a server of the reservation contracts, open loop, and checks its promises.
///
/// Exit codes: 0 every promise kept, 1 a promise broken or no run possible, 3 the generator itself was
/// the limit, 64 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "generator", version)]
struct Args {
    /// The scenario, a TOML file.
    scenario: PathBuf,
    /// Where the server listens; several, separated by commas, share the connections.
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT", value_parser = address)]
    target: Vec<String>,
    /// Create the events through the server's admin port.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, conflicts_with = "events_from_existing")]
    admin: Option<String>,
    /// The events are there, named PREFIX_0, PREFIX_1, and so on.
    #[arg(long, required_unless_present = "admin")]
    events_from_existing: bool,
    /// Calls per second, instead of the scenario's.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds of the measured part, instead of the scenario's; a curve is stretched to it.
    #[arg(long)]
    duration: Option<f64>,
    /// Seconds of warm-up, instead of the scenario's.
    #[arg(long)]
    warmup: Option<f64>,
    /// Connections, instead of the scenario's.
    #[arg(long)]
    connections: Option<usize>,
    /// Most calls in flight, instead of the scenario's.
    #[arg(long)]
    in_flight: Option<usize>,
    /// The seed, instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// Stripes of each event that is created, instead of the scenario's.
    #[arg(long)]
    stripes: Option<u32>,
    /// What event ids begin with, instead of the scenario's.
    #[arg(long)]
    event_prefix: Option<String>,
    /// What reservation ids begin with; must be new to the store. From the clock if not given.
    #[arg(long, value_parser = run_id)]
    run: Option<String>,
    /// Worker threads, each with its part of the calls and of the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=limits::THREADS_MAX as i64))]
    threads: u32,
    /// CPUs to keep the workers on, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    pin: Vec<usize>,
    /// Lateness in milliseconds, at the 99th percentile, above which the run is invalid.
    #[arg(long, default_value_t = limits::LATENESS_P99_MAX.as_millis() as u64, value_name = "MS")]
    lateness_max: u64,
    /// Processes of the server, whose CPU and memory are reported.
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    server_pid: Vec<u32>,
    /// Processes of the store.
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    store_pid: Vec<u32>,
    /// Read the store back over its HTTP API and check it against what was answered.
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    store: Option<String>,
    /// Its table of stripes.
    #[arg(long, default_value = "inventory")]
    table_inventory: String,
    /// Its table of seats.
    #[arg(long, default_value = "inventory_seats")]
    table_seats: String,
    /// Its table of reservations.
    #[arg(long, default_value = "idempotency")]
    table_idempotency: String,
    /// Parallel scans of the store.
    #[arg(long, default_value_t = limits::SEGMENTS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=limits::SEGMENTS_MAX as i64))]
    segments: u32,
    /// Seconds to wait for the store to become still before it is read back.
    #[arg(long, default_value_t = limits::SETTLE_DEFAULT_S)]
    settle: u64,
    /// Write everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the percentiles into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// No progress lines.
    #[arg(long)]
    quiet: bool,
}

fn address(text: &str) -> Result<String, String> {
    let parsed = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parsed.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(text.to_owned()),
        _ => Err("want host:port, like 127.0.0.1:8080".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'));
    match rest.map(address) {
        Some(Ok(authority)) => Ok(authority),
        _ => Err("want http://host:port".to_owned()),
    }
}

fn run_id(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match (1..=32).contains(&text.len()) && text.bytes().all(legal) {
        true => Ok(text.to_owned()),
        false => Err("want 1 to 32 of A-Z a-z 0-9 _".to_owned()),
    }
}

/// Reads the command line, runs, prints.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no mistakes.
            let _ = error.print();
            return ExitCode::from(match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => KEPT,
                _ => USAGE,
            });
        }
    };
    ExitCode::from(play(args))
}

fn play(args: Args) -> u8 {
    let overrides = Overrides {
        rate: args.rate,
        duration: args.duration,
        warmup: args.warmup,
        connections: args.connections,
        seed: args.seed,
        event_prefix: args.event_prefix.clone(),
        stripes: args.stripes,
        in_flight: args.in_flight,
    };
    let scenario = match Scenario::load(&args.scenario, &overrides) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("generator: {error}");
            return USAGE;
        }
    };
    let options = Options {
        targets: args.target,
        admin: args.admin,
        store: args.store.map(|authority| StoreOptions {
            authority,
            tables: Tables {
                inventory: args.table_inventory,
                seats: args.table_seats,
                idempotency: args.table_idempotency,
            },
            segments: args.segments,
            settle: Duration::from_secs(args.settle),
            still_for: match scenario.mix.gives_back() {
                true => limits::STILL_WITH_HOLDS,
                false => limits::STILL_WITHOUT,
            },
        }),
        server_pids: args.server_pid,
        store_pids: args.store_pid,
        threads: args.threads,
        run: args.run,
        lateness_max: Duration::from_millis(args.lateness_max),
        pin: args.pin,
        progress: !args.quiet,
    };
    let report = match run::run(scenario, &options) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("generator: {error}");
            return BROKEN;
        }
    };
    print!("{}", table::draw(&report));
    if let Err(error) = write(&report, args.json, args.svg) {
        eprintln!("generator: {error}");
        return BROKEN;
    }
    exit_code(&report)
}

/// A broken promise counts more than an invalid run: it is true however slow the generator was.
fn exit_code(report: &Report) -> u8 {
    if !report.promises.kept {
        BROKEN
    } else if !report.valid {
        INVALID
    } else {
        KEPT
    }
}

fn write(report: &Report, json: Option<PathBuf>, svg: Option<PathBuf>) -> Result<(), String> {
    let save = |path: PathBuf, text: String| {
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = json {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        save(path, text)?;
    }
    if let Some(path) = svg {
        save(path, svg::draw(report))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn addresses_are_checked() {
        assert!(address("127.0.0.1:80").is_ok() && address("[::1]:80").is_ok());
        for bad in ["", "host", ":80", "host:", "host:0", "host:70000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(endpoint("http://h:1/").unwrap(), "h:1");
        assert!(endpoint("h:1").is_err() && endpoint("https://h:1").is_err());
    }
}
