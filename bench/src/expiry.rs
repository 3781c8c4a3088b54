//! Mass expiry: many holds expire at the same time; measures the latency of commits meanwhile.
//!
//! A server on the embedded engine in memory, one event, and the load generator in this process: first the holds,
//! all with the same expiry, in a closed loop; then commits at a steady rate, before the expiry and from the expiry
//! until all holds are returned.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inventory_generator::report::{LatencySummary, RunReport};
use inventory_generator::run::RunOptions;
use inventory_generator::scenario::Scenario;
use inventory_process::{ServerProcess, print};
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{CreateEventRequest, EventStock, GetEventRequest};
use tonic::transport::{Channel, Endpoint};

use crate::deployment::free_port;
use crate::{BenchError, BenchVerdict, limits, report};

/// Prefix of the event, as the generator names existing events.
const PREFIX: &str = "evt_storm";
const EVENT: &str = "evt_storm_0";

/// Deadline of all calls: long enough that delays appear as latencies, not as errors.
const DEADLINE_MS: u32 = 20_000;

/// Interval between two reads of the stock.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Calls in flight per connection while the holds are placed.
const HOLDS_PER_CONNECTION: u32 = 100;

/// Calls in flight while the holds are placed: the bound of users in a scenario.
const USERS_MAX: u32 = 10_000;

#[derive(clap::Args)]
pub(crate) struct ExpiryArgs {
    /// The server to start and measure
    #[arg(long, default_value = "target/dist/inventory-api")]
    server: PathBuf,
    /// Number of holds
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    holds: u32,
    /// Stripes of the event
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64))]
    stripes: i32,
    /// Commits per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Seconds of commits before the holds expire
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    calm: u32,
    /// Seconds within which the holds must be placed; they expire after these and the calm seconds
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u32).range(1..=600))]
    lead: u32,
    /// Connections of the generator
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
}

pub(crate) async fn run(args: &ExpiryArgs) -> Result<BenchVerdict, BenchError> {
    let port = free_port()?.to_string();
    let variables = [("ADMIN_PORT", &*port), ("DDB_TIMEOUT", "5s")];
    let arguments = ["dev", "--memory"];
    let server = ServerProcess::start("server", &args.server, arguments, None, &variables).await?;
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?;
    let mut admin = InventoryAdminClient::new(channel);
    let total = i64::from(args.holds) + i64::from(args.rate) * 600;
    admin
        .create_event(CreateEventRequest {
            event_id: EVENT.to_owned(),
            total,
            stripes: args.stripes,
            ..Default::default()
        })
        .await?;

    let calm = Duration::from_secs(args.calm.into());
    let started = Instant::now();
    let expiry = SystemTime::now() + Duration::from_secs(args.lead.into()) + calm;
    place_holds(args, &server, expiry).await?;
    let placed = started.elapsed();
    let until_expiry = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    let Some(wait) = until_expiry.checked_sub(calm) else {
        return Err(
            format!("placing the holds took {placed:.1?}: raise --lead or lower --holds").into()
        );
    };
    tokio::time::sleep(wait).await;

    let options = options(&server, "commits");
    let stop = Arc::clone(&options.stop);
    let commits = tokio::task::spawn_blocking({
        let scenario = commit_scenario(args)?;
        move || inventory_generator::run::run(scenario, &options)
    });
    let commits_started = Instant::now();
    tokio::time::sleep(calm).await;
    let returned = wait_for_return(&mut admin, commits_started, args.rate).await;
    stop.store(true, Ordering::Relaxed);
    let commits = commits.await??;
    let returned = returned?;
    require_success(&commits, "commit")?;
    let sold = i64::try_from(commits.events.first().map_or(0, |event| event.taken))?;
    let remaining = settled_stock(&mut admin, total - sold).await?;

    let (holds, stripes) = (args.holds, args.stripes);
    print(format_args!("{holds} holds on {stripes} stripe(s), placed in {placed:.1?}"))?;
    print(format_args!("all returned {:.1} s after their expiry\n", returned.as_secs_f64()))?;
    let names = ["before the expiry", "during the return"];
    let rows: Vec<_> = names
        .into_iter()
        .zip(&commits.phases)
        .map(|(name, phase)| row(name, &phase.writes))
        .collect();
    let header = ["commits", "count", "p50 ms", "p95 ms", "p99 ms", "max ms"];
    print(report::table(&header, &rows))?;
    let (word, verdict) = match remaining == total - sold {
        true => ("correct", BenchVerdict::Ok),
        false => ("WRONG", BenchVerdict::Broken),
    };
    print(format_args!("remaining {remaining}, sold {sold}, of {total}: {word}"))?;
    Ok(verdict)
}

fn row(name: &str, latencies: &LatencySummary) -> Vec<String> {
    let LatencySummary { count, p50, p95, p99, max, .. } = latencies;
    let mut row = vec![name.to_owned(), count.to_string()];
    row.extend([p50, p95, p99, max].map(|ms| report::number(*ms, 1)));
    row
}

/// Options of a run against `server` with the existing event.
fn options(server: &ServerProcess, run: &str) -> RunOptions {
    RunOptions {
        targets: vec![server.address.clone()],
        run: Some(run.to_owned()),
        ..RunOptions::default()
    }
}

fn scenario(text: &str) -> Result<Scenario, BenchError> {
    let scenario = Scenario::parse(text)?;
    scenario.check()?;
    Ok(scenario)
}

/// Places all holds with the same expiry.
async fn place_holds(
    args: &ExpiryArgs,
    server: &ServerProcess,
    expiry: SystemTime,
) -> Result<(), BenchError> {
    let expiry_ms = expiry.duration_since(UNIX_EPOCH)?.as_millis();
    let (holds, connections) = (args.holds, args.connections);
    let users = (connections * HOLDS_PER_CONNECTION).min(USERS_MAX);
    let scenario = scenario(&format!(
        "title = \"holds\"\nusers = {users}\ncalls = {holds}\nduration = {}\n\
         connections = {connections}\ndeadline_ms = {DEADLINE_MS}\nhold_until_ms = {expiry_ms}\n\
         events = {{ prefix = \"{PREFIX}\", stock = {holds} }}\nmix = {{ hold = 100 }}",
        args.lead
    ))?;
    let options = options(server, "holds");
    let run = move || inventory_generator::run::run(scenario, &options);
    let report = tokio::task::spawn_blocking(run).await??;
    require_success(&report, "hold")?;
    let placed: u64 = report.methods.iter().map(|method| method.ok).sum();
    match placed == u64::from(holds) {
        true => Ok(()),
        false => {
            let lead = args.lead;
            Err(format!("{placed} of {holds} holds were placed within {lead} s: raise --lead")
                .into())
        }
    }
}

/// Commits before the expiry and, until the run is stopped, after it.
fn commit_scenario(args: &ExpiryArgs) -> Result<Scenario, BenchError> {
    let (rate, calm) = (args.rate, args.calm);
    let storm = limits::EXPIRY_MAX.as_secs();
    let stock = i64::from(rate) * 600;
    scenario(&format!(
        "title = \"commits\"\nrate = {rate}\nspacing = \"uniform\"\nconnections = {}\n\
         deadline_ms = {DEADLINE_MS}\n\
         curve = [{{ seconds = {calm}, times = 1 }}, {{ seconds = {storm}, times = 1 }}]\n\
         events = {{ prefix = \"{PREFIX}\", stock = {stock} }}\nmix = {{ direct_commit = 100 }}",
        args.connections
    ))
}

/// Fails if a call was not successful.
fn require_success(report: &RunReport, call: &str) -> Result<(), BenchError> {
    if let Some(violation) = report.promises.examples.first() {
        return Err(violation.clone().into());
    }
    let failed = report.methods.iter().find(|method| method.ok < method.calls);
    match failed {
        Some(method) => Err(format!("{call} calls failed: {:?}", method.outcomes).into()),
        None => Ok(()),
    }
}

/// Waits until the holds are returned, and returns the time since the call.
///
/// Stock does not distinguish held from sold units. Sold units are at most the commits due so far, so that at least
/// `taken - due` units are held. The difference is the number of commits in flight: with 100 commits per second and
/// a latency of one second a thousandth of the default number of holds.
async fn wait_for_return(
    admin: &mut InventoryAdminClient<Channel>,
    commits_started: Instant,
    rate: u32,
) -> Result<Duration, BenchError> {
    let started = Instant::now();
    loop {
        let stock = stock(admin).await?;
        let due = (commits_started.elapsed().as_secs_f64() * f64::from(rate)).ceil() as i64;
        let held = stock.total - stock.remaining - due;
        if held <= 0 {
            return Ok(started.elapsed());
        }
        if started.elapsed() > limits::EXPIRY_MAX {
            let max = limits::EXPIRY_MAX;
            return Err(format!("{held} units are still held after {max:?}").into());
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// The remaining units: `expected`, or what remains after the deadline of a call.
async fn settled_stock(
    admin: &mut InventoryAdminClient<Channel>,
    expected: i64,
) -> Result<i64, BenchError> {
    let started = Instant::now();
    loop {
        let remaining = stock(admin).await?.remaining;
        let timed_out = started.elapsed() > Duration::from_millis(DEADLINE_MS.into());
        if remaining == expected || timed_out {
            return Ok(remaining);
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

async fn stock(admin: &mut InventoryAdminClient<Channel>) -> Result<EventStock, BenchError> {
    let event_id = EVENT.to_owned();
    let response = admin.get_event(GetEventRequest { event_id }).await?;
    let event = response.into_inner().event;
    Ok(event.ok_or("the server returned no event")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_valid_for_all_options() {
        for (rate, calm, connections) in [(1, 1, 1), (10_000, 600, 256)] {
            let args = ExpiryArgs {
                server: PathBuf::new(),
                holds: 1,
                stripes: 1,
                rate,
                calm,
                lead: 1,
                connections,
            };
            assert_eq!(commit_scenario(&args).unwrap().measured().segments().len(), 2);
        }
    }
}
