//! Lets very many holds end in the same second and measures what that does to commits.
//!
//! A server of its own on the embedded engine in memory, one event. Commits come at a steady rate,
//! scheduled ahead: a late one counts from when it was due. They are measured for a while before
//! anything ends, and again from the second of the end until every hold is given back. Exit codes: 0
//! every unit is where it belongs, 1 it is not, 2 when it cannot be measured here.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use hdrhistogram::Histogram;
use inventory_bench::limits::LATENCY_MAX_US;
use inventory_client::{InventoryClient, connect};
use inventory_process::ServerProcess;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{
    CommitReq, CreateEventRequest, GetEventRequest, PlaceHoldReq,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

type Error = Box<dyn std::error::Error + Send + Sync>;

const EVENT: &str = "evt_storm";

/// What a call may take: a storm is to show in the figures, not in errors.
const PATIENCE: Duration = Duration::from_secs(20);

/// Commits that may be under way when the stock is looked at: less than a thousandth of the holds.
const UNDER_WAY: i64 = 32;

/// How long the holds may take to come back.
const STORM_MAX: Duration = Duration::from_secs(120);

/// What a hundred thousand holds that end at once do to commits.
#[derive(Parser)]
struct Args {
    /// The server to start and measure.
    #[arg(long, default_value = "target/release/inventory-api")]
    server: PathBuf,
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    holds: u64,
    /// Stripes of the event.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64))]
    stripes: i32,
    /// Commits per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// Seconds of commits before the holds end.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    calm: u64,
    /// Seconds in which the holds must be placed; they end after that and the calm.
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=600))]
    lead: u64,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("expiry_storm: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<bool, Error> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let variables = [
        ("ADMIN_PORT", port.to_string()),
        ("DDB_TIMEOUT", "5s".to_owned()),
    ];
    let variables = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let program = &args.server;
    let peer =
        ServerProcess::start("server", program, &["dev", "--memory"], None, &variables).await?;
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .connect()
        .await?;
    let mut admin = InventoryAdminClient::new(channel);
    let total = i64::try_from(args.holds)? + i64::try_from(args.rate * 600)?;
    admin
        .create_event(CreateEventRequest {
            event_id: EVENT.to_owned(),
            total,
            stripes: args.stripes,
            ..Default::default()
        })
        .await?;
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(connect(&peer.address).await?);
    }

    let ends = SystemTime::now() + Duration::from_secs(args.lead + args.calm);
    let placed = place(&args, &clients, ends).await?;
    let wait = ends.duration_since(SystemTime::now()).unwrap_or_default();
    let calm = Duration::from_secs(args.calm);
    if wait < calm {
        return Err(format!("placing took {placed:.1?}: raise --lead or lower --holds").into());
    }
    tokio::time::sleep(wait - calm).await;

    let sold = Arc::new(AtomicU64::new(0));
    let calm_until = Instant::now() + calm;
    let before = commits(&args, &clients, "calm", &sold, async |_| {
        tokio::time::sleep_until(calm_until.into()).await;
        Ok(())
    });
    let before = before.await?;
    let mut back = Duration::ZERO;
    let during = commits(&args, &clients, "storm", &sold, async |began: Instant| {
        back = all_back(&mut admin, total, &sold, began).await?;
        Ok(())
    });
    let during = during.await?;

    let sold = i64::try_from(sold.load(Ordering::SeqCst))?;
    let stock = settled(&mut admin, total - sold).await?;
    println!(
        "{} holds over {} stripe(s), placed in {placed:.1?}",
        args.holds, args.stripes
    );
    println!(
        "all of them given back {:.1} s after their end",
        back.as_secs_f64()
    );
    println!(
        "\n{:>22}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
        "commits", "count", "p50 ms", "p95 ms", "p99 ms", "max ms"
    );
    row("before", &before);
    row("while they end", &during);
    let is_right = stock == total - sold;
    println!(
        "\nremaining {stock}, sold {sold}, of {total}: {}",
        if is_right { "right" } else { "WRONG" }
    );
    Ok(is_right)
}

/// Places the holds, all with the same end.
async fn place(
    args: &Args,
    clients: &[InventoryClient],
    ends: SystemTime,
) -> Result<Duration, Error> {
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(100 * clients.len()));
    let mut calls = JoinSet::new();
    for n in 0..args.holds {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let mut client = clients[n as usize % clients.len()].clone();
        calls.spawn(async move {
            let _permit = permit;
            let hold = PlaceHoldReq {
                reservation_id: format!("storm-{n}"),
                event_id: EVENT.to_owned(),
                qty: 1,
                hold_expires_at: Some(ends.into()),
                ..Default::default()
            };
            client.place_hold(patient(hold)).await.map(drop)
        });
        while let Some(done) = calls.try_join_next() {
            done??;
        }
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

/// Commits at the wanted rate until `until` has ended; latencies in microseconds.
async fn commits(
    args: &Args,
    clients: &[InventoryClient],
    name: &str,
    sold: &Arc<AtomicU64>,
    until: impl AsyncFnOnce(Instant) -> Result<(), Error>,
) -> Result<Histogram<u64>, Error> {
    let began = Instant::now();
    let every = Duration::from_secs(1) / u32::try_from(args.rate)?;
    let mut latencies = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_US, 3)?;
    let mut calls = JoinSet::new();
    let mut until = Box::pin(until(began));
    let mut n = 0_u32;
    loop {
        let due = began + every * n;
        tokio::select! {
            ended = &mut until => { ended?; break; }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let mut client = clients[n as usize % clients.len()].clone();
        let commit = CommitReq {
            reservation_id: format!("{name}-{n}"),
            event_id: EVENT.to_owned(),
            qty: 1,
            ..Default::default()
        };
        let sold = Arc::clone(sold);
        calls.spawn(async move {
            let answer = client.commit_reservation(patient(commit)).await;
            sold.fetch_add(u64::from(answer.is_ok()), Ordering::SeqCst);
            answer.map(|_| due.elapsed())
        });
        n += 1;
    }
    while let Some(done) = calls.join_next().await {
        latencies.saturating_record(done??.as_micros() as u64);
    }
    Ok(latencies)
}

/// What remains, once that is what it should be, or after a while.
async fn settled(admin: &mut InventoryAdminClient<Channel>, wanted: i64) -> Result<i64, Error> {
    let began = Instant::now();
    loop {
        let found = stock(admin).await?;
        if found == wanted || began.elapsed() > PATIENCE {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until nothing is held any more, but for what commits under way may have taken.
async fn all_back(
    admin: &mut InventoryAdminClient<Channel>,
    total: i64,
    sold: &AtomicU64,
    began: Instant,
) -> Result<Duration, Error> {
    loop {
        let gone = total - stock(admin).await? - i64::try_from(sold.load(Ordering::SeqCst))?;
        if gone <= UNDER_WAY {
            return Ok(began.elapsed());
        }
        if began.elapsed() > STORM_MAX {
            return Err(format!("{gone} units are not back after {STORM_MAX:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn stock(admin: &mut InventoryAdminClient<Channel>) -> Result<i64, Error> {
    let event_id = EVENT.to_owned();
    let found = admin.get_event(GetEventRequest { event_id }).await?;
    let event = found
        .into_inner()
        .event
        .ok_or("the server shows no event")?;
    Ok(event.remaining)
}

fn row(name: &str, latencies: &Histogram<u64>) {
    let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
    println!(
        "{name:>22}  {:>8}  {:>8.1}  {:>8.1}  {:>8.1}  {:>8.1}",
        latencies.len(),
        ms(0.5),
        ms(0.95),
        ms(0.99),
        latencies.max() as f64 / 1_000.0
    );
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}
