//! What one commit costs the peer: starts an engine in memory (or takes --endpoint), starts the peer on
//! it and commits in a closed loop, each reservation once. Prints commits a second and the peer's CPU
//! time for one commit; the engine and this client are not counted.
//!
//! `cargo run --release --package inventory-peers --example twin_cost -- --commits 20000 --in-flight 16`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use inventory_client::{InventoryClient, connect};
use inventory_process::CpuTime;
use inventory_process::ServerProcess;
use inventory_proto::inventory::v1::CommitReq;
use tokio::task::JoinSet;
use tonic::{Code, Request};

// Only a part of it is of use here.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/twin/engine.rs"]
mod engine;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The peer's CPU time for one commit.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    commits: u64,
    /// Commits under way at once, all on one connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=500))]
    in_flight: u64,
    /// A store without tables, such as a model. Default: an engine in this process.
    #[arg(long)]
    endpoint: Option<String>,
    /// Items that the event's stock is split over.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    stripes: u16,
    /// The peer's program. Default: beside this one.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Its further options, separated by spaces.
    #[arg(long, default_value = "--threads 1", allow_hyphen_values = true)]
    options: String,
    /// Its core. Default: wherever the system puts it.
    #[arg(long)]
    core: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cost: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> Result<(), Error> {
    let own = args.endpoint.is_none().then(engine::Engine::start);
    let endpoint = match (&args.endpoint, &own) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(engine)) => engine.endpoint(),
        (None, None) => return Err("no store".into()),
    };
    let client = engine::client(&endpoint);
    engine::create_tables(&client).await;
    let each = args.commits + args.commits / 10 + 1;
    let stock = vec![each; usize::from(args.stripes)];
    engine::create_event(&client, "evt_cost", &stock).await;

    let beside = std::env::current_exe()?;
    let beside = beside.parent().and_then(|examples| examples.parent());
    let program = match (&args.peer, beside) {
        (Some(program), _) => program.clone(),
        (None, Some(folder)) => folder.join("store-twin"),
        (None, None) => return Err("--peer is needed here".into()),
    };
    let mut options = vec!["--endpoint", &endpoint];
    options.extend(args.options.split_whitespace());
    let peer = ServerProcess::start("store-twin", &program, &options, args.core, &[]).await?;
    let inventory = connect(&peer.address).await?;

    play(&inventory, "warm", args.commits / 10, args.in_flight).await?;
    let (before, started) = (CpuTime::of(peer.pid)?, Instant::now());
    let busy = play(&inventory, "cost", args.commits, args.in_flight).await?;
    let took = started.elapsed().as_secs_f64();
    let spent = CpuTime::of(peer.pid)?.since(before);
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / args.commits as f64;
    println!(
        "{} commits, {} in flight, {} stripe(s), store-twin {}",
        args.commits, args.in_flight, args.stripes, args.options
    );
    println!("commits/s      {:>9.0}", args.commits as f64 / took);
    println!("CPU µs/commit  {:>9.1}", micros(spent.total()));
    println!("       user    {:>9.1}", micros(spent.user));
    println!("       system  {:>9.1}", micros(spent.system));
    println!("told to retry  {busy:>9}");
    Ok(())
}

/// Commits reservations 0 to `commits`; how often one was told to come again.
async fn play(
    inventory: &InventoryClient,
    name: &'static str,
    commits: u64,
    in_flight: u64,
) -> Result<u64, Error> {
    let next = Arc::new(AtomicU64::new(0));
    let mut buyers = JoinSet::new();
    for _ in 0..in_flight {
        let (mut inventory, next) = (inventory.clone(), Arc::clone(&next));
        buyers.spawn(async move {
            let mut busy = 0;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= commits {
                    return Ok(busy);
                }
                busy += buy(&mut inventory, format!("{name}-{n}")).await?;
            }
        });
    }
    let mut busy = 0;
    while let Some(ended) = buyers.join_next().await {
        let counted: Result<u64, Error> = ended?;
        busy += counted?;
    }
    Ok(busy)
}

async fn buy(inventory: &mut InventoryClient, reservation_id: String) -> Result<u64, Error> {
    const TRIES_MAX: u64 = 1_000;
    for busy in 0..TRIES_MAX {
        let mut request = Request::new(CommitReq {
            reservation_id: reservation_id.clone(),
            event_id: "evt_cost".to_owned(),
            qty: 1,
            ..CommitReq::default()
        });
        request.set_timeout(Duration::from_secs(10));
        match inventory.commit_reservation(request).await {
            Ok(_) => return Ok(busy),
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => return Err(status.into()),
        }
    }
    Err(format!("{reservation_id}: told to come again {TRIES_MAX} times").into())
}
