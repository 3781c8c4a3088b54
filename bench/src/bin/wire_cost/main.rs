//! Compares what one repeated commit costs the server under test and the tonic-on-tokio twin.
//!
//! Each server is primed with one commit; h2load then repeats that very commit, which a server
//! answers from memory. Rounds take turns, so that a slow moment of the machine meets all, and are
//! compared one by one. The servers stay on one core, the generator on another. Exit codes: 0 every
//! bound kept, 1 one missed, 2 when it cannot be measured here or somebody answers wrongly, 64 wrong
//! usage.

mod report;
mod shape;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use inventory_bench::h2load::{self, Round};
use inventory_client::connect;
use inventory_process::{CpuTime, ServerProcess, allowed_cpus};
use inventory_proto::inventory::v1::{CommitReq, CommitRes};
use prost::Message;

use crate::{
    report::{Column, Report, Sample},
    shape::{Measure, Shape, USUAL, of_shape},
};

type Error = Box<dyn std::error::Error>;

const METHOD: &str = "/inventory.v1.Inventory/CommitReservation";

/// Calls of a round, at most: h2load's log of one takes some 25 bytes for each.
const REQUESTS_MAX: u64 = 100_000_000;

/// The name of the server under test.
const SERVER: &str = "server";

const MISSED: u8 = 1;
const NOT_MEASURED: u8 = 2;
const USAGE: u8 = 64;

/// What a repeated commit costs, against a twin on tonic and tokio, current-thread and multi-thread.
///
/// At 50x100 and 10x10 (connections x calls in flight on each) the server's CPU time for one request is
/// compared, at 1x1 the median time of a lone one. Each round is compared by itself; the median of
/// those ratios has to keep its bound against both twins.
#[derive(Parser)]
struct Args {
    /// The server to start and measure.
    #[arg(long, default_value = "target/release/inventory-api")]
    server: PathBuf,
    /// Its arguments, separated by spaces.
    #[arg(long, default_value = "dev --memory")]
    server_args: String,
    /// Measure a server that runs already instead (host:port); needs --pid.
    #[arg(long, requires = "pid")]
    address: Option<String>,
    /// Process id of the server at --address.
    #[arg(long, requires = "address")]
    pid: Option<u32>,
    /// The `baseline` program. Default: the one beside this program.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Only this shape; may be repeated. Default: 50x100, 10x10 and 1x1. Another shape is measured
    /// without a bound, unless --max-ratio gives one.
    #[arg(long = "shape", value_name = "SHAPE")]
    shapes: Vec<Shape>,
    /// The bound of a shape; may be repeated. Default: 50x100=0.5, 10x10=0.75, 1x1=1.2.
    #[arg(long = "max-ratio", value_name = "SHAPE=RATIO", value_parser = ratio)]
    max_ratios: Vec<(Shape, f64)>,
    /// Calls in one round of a shape; may be repeated. Default: 50x100=150000, 10x10=100000,
    /// 1x1=10000. CPU is counted in steps of 10 ms: let a round take half a second of it.
    #[arg(long, value_name = "SHAPE=CALLS", value_parser = requests)]
    requests: Vec<(Shape, u64)>,
    /// Rounds of each shape.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// An event with stock on every server measured.
    #[arg(long, default_value = "evt_2025_1001")]
    event: String,
    /// Core of the servers. Default: the first this program may use.
    #[arg(long)]
    server_core: Option<usize>,
    /// Core of the generator. Default: the second this program may use.
    #[arg(long)]
    generator_core: Option<usize>,
}

fn ratio(text: &str) -> Result<(Shape, f64), String> {
    let (shape, ratio): (Shape, f64) = of_shape(text)?;
    match ratio > 0.0 && ratio.is_finite() {
        true => Ok((shape, ratio)),
        false => Err(format!("the ratio is {ratio}; want one above 0, like 0.6")),
    }
}

fn requests(text: &str) -> Result<(Shape, u64), String> {
    const LEAST: u64 = 1_000;
    let (shape, requests) = of_shape(text)?;
    match (LEAST..=REQUESTS_MAX).contains(&requests) {
        true => Ok((shape, requests)),
        false => Err(format!("{requests} calls; want {LEAST} to {REQUESTS_MAX}")),
    }
}

/// The last that was said of `shape`.
fn said<T: Copy>(of: &[(Shape, T)], shape: Shape) -> Option<T> {
    let mut said = of.iter().rev();
    said.find(|(named, _)| *named == shape)
        .map(|(_, value)| *value)
}

impl Args {
    fn shapes(&self) -> &[Shape] {
        match self.shapes.is_empty() {
            true => &USUAL,
            false => &self.shapes,
        }
    }

    fn requests(&self, shape: Shape) -> u64 {
        said(&self.requests, shape).unwrap_or_else(|| shape.requests())
    }
}

/// One server and what was measured of it in one shape.
struct Measured {
    peer: ServerProcess,
    /// What it answered to the priming commit.
    answer: CommitRes,
    column: Column,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help is no mistake. Nowhere to print to is nothing to do about.
            let _ = error.print();
            return match error.use_stderr() {
                true => ExitCode::from(USAGE),
                false => ExitCode::SUCCESS,
            };
        }
    };
    let measured = async {
        h2load::find().await?;
        measure(&args).await
    };
    match measured.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(MISSED),
        Err(error) => {
            eprintln!("wire_cost: {error}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

/// Whether every bound was kept.
async fn measure(args: &Args) -> Result<bool, Error> {
    let (server_core, generator_core) = cores(args)?;
    let commit = CommitReq {
        // Fresh on a server that keeps its data; the same on every repeat of this run.
        reservation_id: format!("wire-cost-{}", std::process::id()),
        event_id: args.event.clone(),
        qty: 1,
        payment_intent_id: "pi-wire-cost".to_owned(),
        ..CommitReq::default()
    };
    let files = Files::new(&commit)?;
    let mut peers = start_all(args, server_core, &commit).await?;
    let mut kept = true;
    for &shape in args.shapes() {
        for peer in &mut peers {
            peer.column.rounds.clear();
        }
        for _ in 0..args.rounds {
            for peer in &mut peers {
                let round = Round {
                    address: &peer.peer.address,
                    path: METHOD,
                    body: &files.body,
                    connections: shape.connections,
                    streams: shape.streams,
                    requests: args.requests(shape),
                    core: generator_core,
                };
                let sample = play(&round, shape, &files, peer.peer.pid, &peer.answer)
                    .await
                    .map_err(|e| format!("{}: {e}", peer.peer.name))?;
                peer.column.rounds.push(sample);
                verify(peer, &commit).await?;
            }
            // The next round meets the machine in another order.
            peers.rotate_left(1);
        }
        kept &= report(args, shape, &peers)?;
    }
    Ok(kept)
}

/// Prints the table of one shape; whether its bound was kept.
fn report(args: &Args, shape: Shape, peers: &[Measured]) -> Result<bool, Error> {
    let (server, mut twins): (Vec<&Column>, Vec<&Column>) = peers
        .iter()
        .map(|peer| &peer.column)
        .partition(|column| column.name == SERVER);
    twins.sort_by_key(|column| column.name);
    let report = Report {
        shape,
        requests: args.requests(shape),
        server: server.first().ok_or("no server was measured")?,
        twins,
        max_ratio: said(&args.max_ratios, shape).or_else(|| shape.max_ratio()),
    };
    println!("{}", report.text());
    Ok(report.is_kept())
}

/// The cores of servers and generator.
fn cores(args: &Args) -> Result<(Option<usize>, Option<usize>), Error> {
    let allowed = allowed_cpus()?;
    let server = args.server_core.or(allowed.first().copied());
    let generator = args.generator_core.or(allowed.get(1).copied());
    if server == generator || generator.is_none() {
        eprintln!("wire_cost: one core for servers and generator: requests/s mean little here");
    }
    Ok((server, generator.or(server)))
}

async fn start_all(
    args: &Args,
    core: Option<usize>,
    commit: &CommitReq,
) -> Result<Vec<Measured>, Error> {
    let baseline = match &args.baseline {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("baseline"),
    };
    let server = match (&args.address, args.pid) {
        (Some(address), Some(pid)) => ServerProcess::running(SERVER, address, pid)?,
        _ => {
            let arguments: Vec<&str> = args.server_args.split_whitespace().collect();
            ServerProcess::start(SERVER, &args.server, &arguments, core, &[]).await?
        }
    };
    let event = format!("--event={}=10000", args.event);
    let mut peers = vec![server];
    for (name, runtime) in [
        ("twin, current-thread", "--runtime=current-thread"),
        ("twin, multi-thread", "--runtime=multi-thread"),
    ] {
        peers.push(ServerProcess::start(name, &baseline, &["--no-store", runtime, &event], core, &[]).await?);
    }
    let mut primed = Vec::new();
    for peer in peers {
        let answer = ask(&peer.address, commit)
            .await
            .map_err(|e| format!("{}: the priming commit: {e}", peer.name))?;
        let (name, rounds) = (peer.name, Vec::new());
        primed.push(Measured {
            peer,
            answer,
            column: Column { name, rounds },
        });
    }
    Ok(primed)
}

/// One commit through an ordinary client, right in every field.
async fn ask(address: &str, commit: &CommitReq) -> Result<CommitRes, Error> {
    let mut client = connect(address).await?;
    let mut request = tonic::Request::new(commit.clone());
    request.set_timeout(Duration::from_secs(10));
    let answer = client.commit_reservation(request).await?.into_inner();
    if answer.status != "CONFIRMED" || !answer.order_id.starts_with("ord_") {
        return Err(format!("answered {answer:?}").into());
    }
    Ok(answer)
}

async fn verify(peer: &Measured, commit: &CommitReq) -> Result<(), Error> {
    let answer = ask(&peer.peer.address, commit).await?;
    if answer == peer.answer {
        return Ok(());
    }
    Err(format!(
        "{}: answered {answer:?} after a round, {:?} before",
        peer.peer.name, peer.answer
    )
    .into())
}

async fn play(
    round: &Round<'_>,
    shape: Shape,
    files: &Files,
    pid: u32,
    answer: &CommitRes,
) -> Result<Sample, Error> {
    // Past the connections' first requests and the allocator's first pages.
    let warm = Round {
        requests: round.requests / 10,
        ..round.clone()
    };
    h2load::run(&warm).await?;
    let before = CpuTime::of(pid)?;
    let (outcome, latency_us) = match shape.measure() {
        Measure::Cpu => (h2load::run(round).await?, None),
        Measure::Latency => {
            let (outcome, median) = h2load::run_timed(round, &files.log).await?;
            (outcome, Some(median))
        }
    };
    let spent = CpuTime::of(pid)?.since(before);
    outcome.check(round.requests, answer.encoded_len())?;
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / round.requests as f64;
    Ok(Sample {
        user_us: per_request(spent.user),
        system_us: per_request(spent.system),
        latency_us,
        requests_per_second: outcome.requests_per_second,
    })
}

/// Files that h2load reads and writes. Removed when dropped.
struct Files {
    /// The commit as one gRPC message.
    body: PathBuf,
    /// Times of calls; there only during a round.
    log: PathBuf,
}

impl Files {
    fn new(commit: &CommitReq) -> Result<Self, Error> {
        let message = commit.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let path = |ending: &str| {
            let name = format!("wire-cost-{}.{ending}", std::process::id());
            std::env::temp_dir().join(name)
        };
        let files = Self {
            body: path("grpc"),
            log: path("log"),
        };
        fs::write(&files.body, body).map_err(|e| format!("{}: {e}", files.body.display()))?;
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.body, &self.log] {
            let _ = fs::remove_file(file);
        }
    }
}
