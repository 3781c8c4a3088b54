//! Compares what one repeated commit costs the server under test and the tonic-on-tokio twin.
//!
//! Each server is primed with one commit; h2load then repeats that very commit, which a server
//! answers from memory. Rounds take turns, so that a slow moment of the machine meets all. The
//! servers stay on one core, the generator on another. Exit codes: 0 within the wanted ratio,
//! 1 past it, 2 when it cannot be measured here or somebody answers wrongly.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use inventory_bench::{
    client::connect,
    cpu::{CpuTime, allowed_cores},
    h2load::{self, Outcome, Round},
    peer::Peer,
};
use inventory_proto::inventory::v1::{CommitReq, CommitRes};
use prost::Message;

type Error = Box<dyn std::error::Error>;

const METHOD: &str = "/inventory.v1.Inventory/CommitReservation";

/// Server CPU per request of a repeated commit, against a twin on tonic and tokio.
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
    /// The twin's binary. Default: the one beside this program.
    #[arg(long)]
    twin: Option<PathBuf>,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Calls in flight on each connection.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    streams: u32,
    /// Calls in one round. CPU is counted in steps of 10 ms: let a round take half a second.
    #[arg(long, default_value_t = 150_000, value_parser = clap::value_parser!(u64).range(5_000..=100_000_000))]
    requests: u64,
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// An event with stock on every server measured.
    #[arg(long, default_value = "evt_2025_1001")]
    event: String,
    /// Fail if the server costs more than this times the cheapest twin.
    #[arg(long)]
    max_ratio: Option<f64>,
    /// Core of the servers. Default: the first this program may use.
    #[arg(long)]
    server_core: Option<usize>,
    /// Core of the generator. Default: the second this program may use.
    #[arg(long)]
    generator_core: Option<usize>,
}

/// One server and what was measured of it.
struct Measured {
    peer: Peer,
    /// What it answered to the priming commit.
    answer: CommitRes,
    rounds: Vec<Sample>,
}

/// Costs per request of one round, in microseconds.
#[derive(Clone, Copy)]
struct Sample {
    user_us: f64,
    system_us: f64,
    requests_per_second: f64,
}

impl Sample {
    fn total_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = h2load::find().await {
        eprintln!("wire_cost: {error}");
        return ExitCode::from(2);
    }
    match measure(&args).await {
        Ok(peers) => report(&args, &peers),
        Err(error) => {
            eprintln!("wire_cost: {error}");
            ExitCode::from(2)
        }
    }
}

async fn measure(args: &Args) -> Result<Vec<Measured>, Error> {
    let (server_core, generator_core) = cores(args)?;
    let commit = CommitReq {
        // Fresh on a server that keeps its data; the same on every repeat of this run.
        reservation_id: format!("wire-cost-{}", std::process::id()),
        event_id: args.event.clone(),
        qty: 1,
        payment_intent_id: "pi-wire-cost".to_owned(),
        ..CommitReq::default()
    };
    let body = BodyFile::new(&commit)?;
    let mut peers = start_all(args, server_core, &commit).await?;
    for _ in 0..args.rounds {
        for peer in &mut peers {
            let round = Round {
                address: &peer.peer.address,
                path: METHOD,
                body: &body.0,
                connections: args.connections,
                streams: args.streams,
                requests: args.requests,
                core: generator_core,
            };
            let sample = play(&round, peer.peer.pid, &peer.answer)
                .await
                .map_err(|e| format!("{}: {e}", peer.peer.name))?;
            peer.rounds.push(sample);
            verify(peer, &commit).await?;
        }
        // The next round meets the machine in another order.
        peers.rotate_left(1);
    }
    Ok(peers)
}

/// The cores of servers and generator.
fn cores(args: &Args) -> Result<(Option<usize>, Option<usize>), Error> {
    let allowed = allowed_cores()?;
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
    let twin = match &args.twin {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("twin"),
    };
    let server = match (&args.address, args.pid) {
        (Some(address), Some(pid)) => Peer::running("server", address, pid)?,
        _ => {
            let arguments: Vec<&str> = args.server_args.split_whitespace().collect();
            Peer::start("server", &args.server, &arguments, core).await?
        }
    };
    let event = format!("--event={}=10000", args.event);
    let mut peers = vec![server];
    for (name, runtime) in [
        ("twin, current-thread", "--runtime=current-thread"),
        ("twin, multi-thread", "--runtime=multi-thread"),
    ] {
        peers.push(Peer::start(name, &twin, &[runtime, &event], core).await?);
    }
    let mut primed = Vec::new();
    for peer in peers {
        let answer = ask(&peer.address, commit)
            .await
            .map_err(|e| format!("{}: the priming commit: {e}", peer.name))?;
        primed.push(Measured {
            peer,
            answer,
            rounds: Vec::new(),
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

async fn play(round: &Round<'_>, pid: u32, answer: &CommitRes) -> Result<Sample, Error> {
    // Past the connections' first requests and the allocator's first pages.
    let warm = Round {
        requests: round.requests / 10,
        ..round.clone()
    };
    h2load::run(&warm).await?;
    let before = CpuTime::of(pid)?;
    let outcome: Outcome = h2load::run(round).await?;
    let spent = CpuTime::of(pid)?.since(before);
    outcome.check(round.requests, answer.encoded_len())?;
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / round.requests as f64;
    Ok(Sample {
        user_us: per_request(spent.user),
        system_us: per_request(spent.system),
        requests_per_second: outcome.requests_per_second,
    })
}

/// Prints the table of medians; the ratio is to the cheapest twin.
fn report(args: &Args, peers: &[Measured]) -> ExitCode {
    let cheapest = peers
        .iter()
        .filter(|peer| peer.peer.name != "server")
        .map(|peer| median(peer, Sample::total_us))
        .fold(f64::INFINITY, f64::min);
    println!(
        "{} connections × {} streams, {} requests a round, medians of {} rounds",
        args.connections, args.streams, args.requests, args.rounds
    );
    println!(
        "{:<22}{:>9}{:>9}{:>9}{:>17}{:>12}{:>8}",
        "", "user µs", "sys µs", "CPU µs", "lowest–highest", "requests/s", "ratio"
    );
    let mut ratio = f64::NAN;
    let mut sorted: Vec<&Measured> = peers.iter().collect();
    sorted.sort_by_key(|peer| peer.peer.name);
    for peer in sorted {
        let total = median(peer, Sample::total_us);
        let totals = || peer.rounds.iter().map(Sample::total_us);
        let range = format!(
            "{:.2}–{:.2}",
            totals().fold(f64::INFINITY, f64::min),
            totals().fold(0.0, f64::max)
        );
        println!(
            "{:<22}{:>9.2}{:>9.2}{total:>9.2}{range:>17}{:>12.0}{:>8.2}",
            peer.peer.name,
            median(peer, |s| s.user_us),
            median(peer, |s| s.system_us),
            median(peer, |s| s.requests_per_second),
            total / cheapest,
        );
        if peer.peer.name == "server" {
            ratio = total / cheapest;
        }
    }
    match args.max_ratio {
        Some(max) if ratio.is_nan() || ratio > max => {
            println!("ratio {ratio:.3} is above {max}");
            ExitCode::from(1)
        }
        Some(max) => {
            println!("ratio {ratio:.3} is within {max}");
            ExitCode::SUCCESS
        }
        None => ExitCode::SUCCESS,
    }
}

fn median(peer: &Measured, of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = peer.rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The commit as one gRPC message in a file, for h2load. Removed when dropped.
struct BodyFile(PathBuf);

impl BodyFile {
    fn new(commit: &CommitReq) -> Result<Self, Error> {
        let message = commit.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let path = std::env::temp_dir().join(format!("wire-cost-{}.grpc", std::process::id()));
        fs::write(&path, body).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
