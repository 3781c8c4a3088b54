//! Wire cost: CPU time and latency of a repeated commit at the server and at the baseline service.
//!
//! Each server gets one commit; h2load then repeats this commit, which is answered from the cache. Servers take turns
//! within a round, so that slow periods of the machine affect all of them, and rounds are compared one by one. The
//! servers stay on one CPU, h2load on another.

mod h2load;
mod shape;

use std::path::PathBuf;
use std::time::Duration;

use inventory_client::connect;
use inventory_process::{CpuTime, PrintError, ServerProcess, allowed_cpus, print};
use inventory_proto::inventory::v1::{CommitReq, CommitRes};
use prost::Message;

use self::h2load::H2loadRun;
use self::shape::{DEFAULT_SHAPES, LoadShape, Metric, parse_for_shape};
use crate::report::{self, Bound, Requirement};
use crate::{BenchError, BenchVerdict, limits};

const METHOD: &str = "/inventory.v1.Inventory/CommitReservation";

/// CPU time of the server and of the baseline service for a repeated commit
///
/// At 50x100 and 10x10 (connections x calls in flight on each) the CPU time of the server per request is compared,
/// at 1x1 the median latency of a single request. Each round gives one ratio; the median of these ratios must meet
/// the bound for both variants of the baseline.
#[derive(clap::Args)]
pub(crate) struct WireArgs {
    /// The server to start and measure
    #[arg(long, default_value = "target/dist/inventory-api")]
    server: PathBuf,
    /// Arguments of the server, separated by spaces
    #[arg(long, default_value = "dev --memory")]
    server_args: String,
    /// Measure a running server at this address instead (host:port); needs --pid
    #[arg(long, requires = "pid")]
    address: Option<String>,
    /// Process id of the server at --address
    #[arg(long, requires = "address")]
    pid: Option<u32>,
    /// The baseline program [default: in the folder of this program]
    #[arg(long, alias = "twin")]
    baseline: Option<PathBuf>,
    /// Measure only this shape; may be repeated [default: 50x100, 10x10 and 1x1]. Other shapes have no bound unless
    /// --max-ratio gives one
    #[arg(long = "shape", value_name = "SHAPE")]
    shapes: Vec<LoadShape>,
    /// Bound of a shape; may be repeated [default: 50x100=0.5, 10x10=0.75, 1x1=1.2]
    #[arg(long = "max-ratio", value_name = "SHAPE=RATIO", value_parser = ratio)]
    max_ratios: Vec<(LoadShape, f64)>,
    /// Calls per round of a shape; may be repeated [default: 50x100=150000, 10x10=100000, 1x1=10000]. CPU time is
    /// counted in steps of 10 ms: a round should use at least half a second of it
    #[arg(long, value_name = "SHAPE=CALLS", value_parser = requests)]
    requests: Vec<(LoadShape, u64)>,
    /// Rounds per shape
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// An event with stock on every measured server
    #[arg(long, default_value = "evt_2025_1001")]
    event: String,
    /// CPU of the servers [default: the first allowed CPU]
    #[arg(long)]
    server_core: Option<usize>,
    /// CPU of h2load [default: the second allowed CPU]
    #[arg(long)]
    generator_core: Option<usize>,
}

fn ratio(text: &str) -> Result<(LoadShape, f64), String> {
    let (shape, ratio): (LoadShape, f64) = parse_for_shape(text)?;
    match ratio > 0.0 && ratio.is_finite() {
        true => Ok((shape, ratio)),
        false => Err(format!("ratio {ratio}: must be above 0, such as 0.6")),
    }
}

fn requests(text: &str) -> Result<(LoadShape, u64), String> {
    const MIN: u64 = 1_000;
    let (shape, requests) = parse_for_shape(text)?;
    match (MIN..=limits::H2LOAD_CALLS_MAX).contains(&requests) {
        true => Ok((shape, requests)),
        false => {
            let max = limits::H2LOAD_CALLS_MAX;
            Err(format!("{requests} calls: must be {MIN} to {max}"))
        }
    }
}

/// The last value given for `shape`.
fn value_for<T: Copy>(values: &[(LoadShape, T)], shape: LoadShape) -> Option<T> {
    let last = values.iter().rev().find(|(of, _)| *of == shape);
    last.map(|(_, value)| *value)
}

/// Measurement of one server in one round, per request, in microseconds.
#[derive(Clone, Copy, Debug)]
struct WireSample {
    user_us: f64,
    system_us: f64,
    /// Median latency; NaN where it is not measured.
    latency_us: f64,
    requests_per_second: f64,
}

impl WireSample {
    fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    fn metric(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Cpu => self.cpu_us(),
            Metric::Latency => self.latency_us,
        }
    }
}

/// A server and its measurements in one shape.
struct MeasuredServer {
    process: ServerProcess,
    /// Answer to the first commit.
    answer: CommitRes,
    samples: Vec<WireSample>,
}

pub(crate) async fn run(args: &WireArgs) -> Result<BenchVerdict, BenchError> {
    h2load::find().await?;
    let (server_cpu, generator_cpu) = cpus(args)?;
    let commit = CommitReq {
        // New to a server that keeps its data; the same for all repeats of this run.
        reservation_id: format!("wire-cost-{}", std::process::id()),
        event_id: args.event.clone(),
        qty: 1,
        payment_intent_id: "pi-wire-cost".to_owned(),
        ..CommitReq::default()
    };
    let files = CallFiles::create(&commit)?;
    let mut servers = start_servers(args, server_cpu, &commit).await?;
    let shapes = match args.shapes.is_empty() {
        true => &DEFAULT_SHAPES[..],
        false => &args.shapes,
    };
    let mut bounds = Vec::new();
    for &shape in shapes {
        let requests = value_for(&args.requests, shape).unwrap_or_else(|| shape.requests());
        servers.iter_mut().for_each(|server| server.samples.clear());
        for round in 0..args.rounds as usize {
            // Each round starts with another server.
            for n in 0..servers.len() {
                let at = (round + n) % servers.len();
                let server = &mut servers[at];
                let run = H2loadRun {
                    address: &server.process.address,
                    path: METHOD,
                    body: &files.body,
                    connections: shape.connections,
                    streams: shape.streams,
                    requests,
                    cpu: generator_cpu,
                };
                let sample = measure(&run, shape.metric(), &files, server)
                    .await
                    .map_err(|error| format!("{}: {error}", server.process.name))?;
                server.samples.push(sample);
                check_answer(server, &commit).await?;
            }
        }
        let max = value_for(&args.max_ratios, shape).or_else(|| shape.max_ratio());
        bounds.extend(print_shape(shape, requests, &servers, max)?);
    }
    Ok(report::print_bounds(&bounds)?)
}

/// Prints the table of one shape and returns its bounds. The first server is the server under measurement.
fn print_shape(
    shape: LoadShape,
    requests: u64,
    servers: &[MeasuredServer],
    max_ratio: Option<f64>,
) -> Result<Vec<Bound>, PrintError> {
    let metric = shape.metric();
    let (metric_name, metric_column) = match metric {
        Metric::Cpu => ("server CPU per request", "CPU µs"),
        Metric::Latency => ("median latency of a single request", "p50 µs"),
    };
    print(format_args!(
        "{} connections × {} streams: {metric_name}; {requests} requests a round, {} rounds",
        shape.connections,
        shape.streams,
        servers[0].samples.len()
    ))?;
    let mut header = vec![""];
    header.extend(["user µs", "sys µs", "CPU µs", "p50 µs", "requests/s"]);
    header.push("server / baseline by round");
    let mut rows = Vec::new();
    let mut bounds = Vec::new();
    for server in servers {
        let median = |figure: fn(&WireSample) -> f64, digits| {
            let values: Vec<f64> = server.samples.iter().map(figure).collect();
            report::number(report::median(&values), digits)
        };
        let mut row = vec![
            server.process.name.to_owned(),
            median(|sample| sample.user_us, 2),
            median(|sample| sample.system_us, 2),
            median(WireSample::cpu_us, 2),
            median(|sample| sample.latency_us, 0),
            median(|sample| sample.requests_per_second, 0),
        ];
        if server.process.pid != servers[0].process.pid {
            let ratios = ratios(&servers[0].samples, &server.samples, metric);
            row.push(report::median_and_range(&ratios));
            bounds.extend(max_ratio.map(|max| Bound {
                name: format!("{shape}: {metric_column}, server / {}", server.process.name),
                values: ratios,
                limit: Requirement::AtMost(max),
            }));
        }
        rows.push(row);
    }
    print(report::table(&header, &rows))?;
    Ok(bounds)
}

/// The ratio of each round: in one round all servers run under the same conditions.
fn ratios(server: &[WireSample], baseline: &[WireSample], metric: Metric) -> Vec<f64> {
    let rounds = server.iter().zip(baseline);
    rounds.map(|(server, baseline)| server.metric(metric) / baseline.metric(metric)).collect()
}

/// CPUs of the servers and of h2load.
fn cpus(args: &WireArgs) -> Result<(Option<usize>, Option<usize>), BenchError> {
    let allowed = allowed_cpus()?;
    let server = args.server_core.or(allowed.first().copied());
    let generator = args.generator_core.or(allowed.get(1).copied());
    if server == generator || generator.is_none() {
        inventory_process::report(
            "wire: servers and h2load share a CPU: requests/s are not meaningful",
        );
    }
    Ok((server, generator.or(server)))
}

/// Starts the server and both variants of the baseline, and sends the first commit to each.
async fn start_servers(
    args: &WireArgs,
    cpu: Option<usize>,
    commit: &CommitReq,
) -> Result<Vec<MeasuredServer>, BenchError> {
    let baseline = match &args.baseline {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("baseline"),
    };
    let server = match (&args.address, args.pid) {
        (Some(address), Some(pid)) => ServerProcess::running("server", address, pid)?,
        _ => {
            let arguments = args.server_args.split_whitespace();
            ServerProcess::start("server", &args.server, arguments, cpu, &[]).await?
        }
    };
    let mut processes = vec![server];
    let event = format!("--event={}=10000", args.event);
    for (name, runtime) in [
        ("baseline, current-thread", "--runtime=current-thread"),
        ("baseline, multi-thread", "--runtime=multi-thread"),
    ] {
        // All calls of a shape may be in flight at the same time.
        let arguments = ["--no-store", "--concurrency=100000", runtime, &event];
        processes.push(ServerProcess::start(name, &baseline, arguments, cpu, &[]).await?);
    }
    let mut servers = Vec::new();
    for process in processes {
        let answer = send_commit(&process.address, commit)
            .await
            .map_err(|error| format!("{}: the first commit failed: {error}", process.name))?;
        servers.push(MeasuredServer { process, answer, samples: Vec::new() });
    }
    Ok(servers)
}

/// Sends one commit over a new connection and checks the answer.
async fn send_commit(address: &str, commit: &CommitReq) -> Result<CommitRes, BenchError> {
    let mut client = connect(address).await?;
    let mut request = tonic::Request::new(commit.clone());
    request.set_timeout(Duration::from_secs(10));
    let answer = client.commit_reservation(request).await?.into_inner();
    if answer.status != "CONFIRMED" || !answer.order_id.starts_with("ord_") {
        return Err(format!("unexpected answer {answer:?}").into());
    }
    Ok(answer)
}

/// Checks that the server still gives the same answer.
async fn check_answer(server: &MeasuredServer, commit: &CommitReq) -> Result<(), BenchError> {
    let answer = send_commit(&server.process.address, commit).await?;
    if answer == server.answer {
        return Ok(());
    }
    Err(format!(
        "{}: answered {answer:?} after a round, {:?} before",
        server.process.name, server.answer
    )
    .into())
}

async fn measure(
    run: &H2loadRun<'_>,
    metric: Metric,
    files: &CallFiles,
    server: &MeasuredServer,
) -> Result<WireSample, BenchError> {
    // Warm-up: the first requests of the connections, and the first pages of the allocator.
    let warm_up = H2loadRun { requests: run.requests / 10, ..run.clone() };
    h2load::run(&warm_up).await?;
    let pid = server.process.pid;
    let before = CpuTime::of(pid)?;
    let (counts, latency_us) = match metric {
        Metric::Cpu => (h2load::run(run).await?, f64::NAN),
        Metric::Latency => h2load::run_with_log(run, &files.log).await?,
    };
    let used = CpuTime::of(pid)?.since(before);
    counts.check(run.requests, server.answer.encoded_len())?;
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / run.requests as f64;
    Ok(WireSample {
        user_us: per_request(used.user),
        system_us: per_request(used.system),
        latency_us,
        requests_per_second: counts.requests_per_second,
    })
}

/// Files that h2load reads and writes. Removed when dropped.
struct CallFiles {
    /// The commit as one gRPC message.
    body: PathBuf,
    /// Latencies of the calls; exists only during a round.
    log: PathBuf,
}

impl CallFiles {
    fn create(commit: &CommitReq) -> Result<Self, BenchError> {
        let message = commit.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let path = |extension: &str| {
            let name = format!("wire-cost-{}.{extension}", std::process::id());
            std::env::temp_dir().join(name)
        };
        let files = Self { body: path("grpc"), log: path("log") };
        std::fs::write(&files.body, body).map_err(|e| format!("{}: {e}", files.body.display()))?;
        Ok(files)
    }
}

impl Drop for CallFiles {
    fn drop(&mut self) {
        for file in [&self.body, &self.log] {
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(cpu: &[f64]) -> Vec<WireSample> {
        let sample = |user_us: &f64| WireSample {
            user_us: *user_us,
            system_us: 0.0,
            latency_us: f64::NAN,
            requests_per_second: 1.0,
        };
        cpu.iter().map(sample).collect()
    }

    #[test]
    fn ratios_are_taken_per_round() {
        // The machine slows down from round to round: the ratio of the medians would be 6 / 12.
        let server = samples(&[2.0, 6.0, 30.0]);
        let baseline = samples(&[4.0, 10.0, 40.0]);
        assert_eq!(ratios(&server, &baseline, Metric::Cpu), [0.5, 0.6, 0.75]);
        let latencies = ratios(&server, &baseline, Metric::Latency);
        assert!(latencies.iter().all(|ratio| ratio.is_nan()), "not measured");
    }

    #[test]
    fn options_for_a_shape_are_checked() {
        assert!(ratio("1x1=0").is_err() && ratio("1x1=1.5").is_ok());
        assert!(requests("1x1=10").is_err() && requests("1x1=1000").is_ok());
        let values = [ratio("1x1=1").unwrap(), ratio("1x1=2").unwrap()];
        assert_eq!(value_for(&values, values[0].0), Some(2.0));
    }
}
