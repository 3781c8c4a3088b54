//! The command line and the exit codes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use inventory_client::ClientTls;
use inventory_tls::client::ClientFiles;
use inventory_tls::{FileSetting, TlsFileError};

use crate::limits;
use crate::report::{RunReport, plot, table};
use crate::run::{self, RunOptions};
use crate::scenario::{Scenario, ScenarioOverrides};
use crate::store::{StoreOptions, TableNames};

/// All promises kept, valid run.
const OK: u8 = 0;
/// A promise was broken, or the run failed.
const BROKEN: u8 = 1;
/// The generator was the limit of the measurement.
const INVALID: u8 = 3;
/// Usage error, or an invalid scenario.
const USAGE: u8 = 64;

/// Load generator for servers of the reservation contracts; checks every answer and the store.
///
/// Exit codes: 0 all promises kept, 1 a promise broken or the run failed, 3 the generator was the limit,
/// 64 usage error.
#[derive(Parser, Debug)]
#[command(name = "generator", version)]
struct GeneratorArgs {
    /// Scenario file (TOML).
    scenario: PathBuf,
    /// Address of the server; connections are distributed over several comma-separated addresses.
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT", value_parser = address)]
    target: Vec<String>,
    /// Authorities of the servers, PEM; connects with TLS.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate of the client, PEM, for mutual TLS.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Create the events through the admin port of the server.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, conflicts_with = "events_from_existing")]
    admin: Option<String>,
    /// File with the token of the admin port.
    #[arg(long, value_name = "FILE", env = "ADMIN_TOKEN_FILE", hide_env_values = true)]
    admin_token_file: Option<PathBuf>,
    /// Use existing events, named PREFIX_0, PREFIX_1, and so on.
    #[arg(long, required_unless_present = "admin")]
    events_from_existing: bool,
    /// Calls per second (replaces the value of the scenario).
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds of the measured part (replaces the value of the scenario; a curve is scaled).
    #[arg(long)]
    duration: Option<f64>,
    /// Seconds of warm-up (replaces the value of the scenario).
    #[arg(long)]
    warmup: Option<f64>,
    /// Number of connections (replaces the value of the scenario).
    #[arg(long)]
    connections: Option<usize>,
    /// Maximum number of calls in flight (replaces the value of the scenario).
    #[arg(long)]
    in_flight: Option<usize>,
    /// Seed (replaces the value of the scenario).
    #[arg(long)]
    seed: Option<u64>,
    /// Stripes of each created event (replaces the value of the scenario).
    #[arg(long)]
    stripes: Option<u32>,
    /// Prefix of event ids (replaces the value of the scenario).
    #[arg(long)]
    event_prefix: Option<String>,
    /// Prefix of reservation ids; must be new to the store. Default: derived from the clock.
    #[arg(long, value_parser = run_id)]
    run: Option<String>,
    /// Worker threads, each with a share of the calls and connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=limits::THREADS_MAX as i64))]
    threads: u32,
    /// CPUs to pin the workers to, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    pin: Vec<usize>,
    /// Lateness in milliseconds at the 99th percentile above which the run is invalid.
    #[arg(long, default_value_t = limits::LATENESS_P99_MAX.as_millis() as u64, value_name = "MS")]
    lateness_max: u64,
    /// Processes of the server; their CPU time and memory are reported.
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    server_pid: Vec<u32>,
    /// Processes of the store; their CPU time and memory are reported.
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    store_pid: Vec<u32>,
    /// Read the store back over its HTTP API and compare it with the answers.
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    store: Option<String>,
    /// Table of stripes.
    #[arg(long, default_value = "inventory")]
    table_inventory: String,
    /// Table of seats.
    #[arg(long, default_value = "inventory_seats")]
    table_seats: String,
    /// Table of reservations.
    #[arg(long, default_value = "idempotency")]
    table_idempotency: String,
    /// Number of parallel scans of the store.
    #[arg(long, default_value_t = limits::SEGMENTS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=limits::SEGMENTS_MAX as i64))]
    segments: u32,
    /// Maximum time to wait for a stable store before the read-back, in seconds.
    #[arg(long, default_value_t = limits::SETTLE_DEFAULT_S)]
    settle: u64,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the percentile plot as SVG to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Do not print progress.
    #[arg(long)]
    quiet: bool,
}

fn address(text: &str) -> Result<String, String> {
    let parsed = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parsed.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(1..) => Ok(text.to_owned()),
        _ => Err("must be host:port, such as 127.0.0.1:8080".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match rest.map(address) {
        Some(Ok(authority)) => Ok(authority),
        _ => Err("must be http://host:port".to_owned()),
    }
}

fn run_id(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match (1..=32).contains(&text.len()) && text.bytes().all(legal) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 32 of A-Z a-z 0-9 _".to_owned()),
    }
}

/// Parses the command line, runs, and prints the report.
pub fn main() -> ExitCode {
    let args = match GeneratorArgs::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are not usage errors.
            let _ = error.print();
            return ExitCode::from(match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => OK,
                _ => USAGE,
            });
        }
    };
    ExitCode::from(run_scenario(args))
}

fn run_scenario(args: GeneratorArgs) -> u8 {
    let overrides = ScenarioOverrides {
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
            inventory_process::report(format_args!("generator: {error}"));
            return USAGE;
        }
    };
    let tls = match tls(&args) {
        Ok(tls) => tls,
        Err(error) => {
            inventory_process::report(format_args!("generator: {error}"));
            return USAGE;
        }
    };
    let options = RunOptions {
        targets: args.target,
        tls,
        admin: args.admin,
        admin_token: args.admin_token_file,
        store: args.store.map(|authority| StoreOptions {
            authority,
            tables: TableNames {
                inventory: args.table_inventory,
                seats: args.table_seats,
                idempotency: args.table_idempotency,
            },
            segments: args.segments,
            settle: Duration::from_secs(args.settle),
            stable_for: match scenario.mix.returns_stock() {
                true => limits::STABLE_WITH_HOLDS,
                false => limits::STABLE_WITHOUT_HOLDS,
            },
        }),
        server_pids: args.server_pid,
        store_pids: args.store_pid,
        threads: args.threads,
        run: args.run,
        lateness_max: Duration::from_millis(args.lateness_max),
        pin: args.pin,
        progress: !args.quiet,
        ..RunOptions::default()
    };
    let report = match run::run(scenario, &options) {
        Ok(report) => report,
        Err(error) => {
            inventory_process::report(format_args!("generator: {error}"));
            return BROKEN;
        }
    };
    // The files are written even if nobody reads the table.
    let printed = inventory_process::print(table::render(&report).trim_end_matches('\n'));
    if let Err(error) = write(&report, args.json, args.svg) {
        inventory_process::report(format_args!("generator: {error}"));
        return BROKEN;
    }
    if let Err(error) = printed {
        inventory_process::report_failure("generator", &error);
        return BROKEN;
    }
    exit_code(&report)
}

/// A broken promise takes precedence: it is valid even if the generator was too slow.
fn exit_code(report: &RunReport) -> u8 {
    if !report.promises.kept {
        BROKEN
    } else if !report.valid {
        INVALID
    } else {
        OK
    }
}

fn write(report: &RunReport, json: Option<PathBuf>, svg: Option<PathBuf>) -> Result<(), String> {
    let save = |path: PathBuf, text: String| {
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = json {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        save(path, text)?;
    }
    if let Some(path) = svg {
        save(path, plot::render(report)?)?;
    }
    Ok(())
}

/// TLS of the connections; `None` without authorities.
fn tls(args: &GeneratorArgs) -> Result<Option<ClientTls>, TlsFileError> {
    let file =
        |setting, path: &Option<PathBuf>| path.clone().map(|path| FileSetting { setting, path });
    let Some(authorities) = file("--tls-ca", &args.tls_ca) else {
        return Ok(None);
    };
    let pair = file("--tls-cert", &args.tls_cert).zip(file("--tls-key", &args.tls_key));
    ClientTls::load(&ClientFiles { authorities: Some(authorities), pair }).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        GeneratorArgs::command().debug_assert();
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
