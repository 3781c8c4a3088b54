//! Runs the peer as a server of its own, to be compared with the server on the same tables.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use inventory_peers::limits::{
    CONCURRENCY_DEFAULT, CONCURRENCY_MAX, RETRIES_DEFAULT, RETRIES_MAX, STOP_GRACE, THREADS_MAX,
};
use inventory_peers::sale::{Mode, Sale};
use inventory_peers::service::Peer;
use inventory_peers::store::{Place, Store};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::server::TcpIncoming;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const OK: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 64;

/// Sells tickets over contract A with one DynamoDB transaction for each commit, on tonic, tokio and
/// the AWS SDK as they come.
///
/// It sells on the tables of inventory-api and in its format: make them with `inventory-api tables
/// create` and, with a server on the same store, `inventory-api event create`; audit them with `inventory-api verify`. Quantities only.
/// It does not give back holds that expire: run inventory-api on the same tables for that.
///
/// Prints `gRPC  host:port` when it listens. Exit codes: 0 stopped, 1 failed, 64 wrong usage.
#[derive(Parser)]
#[command(name = "store-twin", version)]
struct Args {
    /// The store, http://host:port. Plain HTTP only: a model or an engine, not DynamoDB itself.
    #[arg(long, env = "AWS_ENDPOINT_URL_DYNAMODB")]
    endpoint: String,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it.
    #[arg(long, env = "GRPC_PORT", default_value_t = 0)]
    port: u16,
    /// Threads of the runtime; 1 is tokio's current-thread runtime.
    #[arg(long, default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=THREADS_MAX as u64))]
    threads: usize,
    /// The core to stay on, with all threads. Default: wherever the system puts them.
    #[arg(long, value_name = "CPU")]
    pin: Option<usize>,
    /// Read the record and the stock first and write on the condition that its version is unchanged,
    /// as the original Go server did. Without it: write at once if enough remains.
    #[arg(long)]
    optimistic: bool,
    /// How often a write that met another, or was throttled, is made again. The SDK's own retries, of
    /// lost answers and throttled requests, come on top.
    #[arg(long, env = "DDB_MAX_RETRIES", default_value_t = RETRIES_DEFAULT,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(RETRIES_MAX)))]
    retries: u32,
    /// Calls under way at once, beyond which calls are answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "GRPC_MAX_CONCURRENCY", default_value_t = CONCURRENCY_DEFAULT,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONCURRENCY_MAX as u64))]
    concurrency: usize,
    /// Signed into requests; a model does not look.
    #[arg(long, env = "AWS_REGION", default_value = "ap-northeast-2")]
    region: String,
    /// The table of stripes.
    #[arg(long, env = "DDB_TABLE_INVENTORY", default_value = "inventory")]
    table_inventory: String,
    /// The table of reservations.
    #[arg(long, env = "DDB_TABLE_IDEMPOTENCY", default_value = "idempotency")]
    table_idempotency: String,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no mistakes. Nowhere to print to is nothing to do about.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { OK });
        }
    };
    let place = Place {
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        inventory: args.table_inventory.clone(),
        idempotency: args.table_idempotency.clone(),
    };
    let store = match Store::new(place) {
        Ok(store) => store,
        Err(error) => return ended(USAGE, &format!("--endpoint: {error}")),
    };
    if let Some(cpu) = args.pin
        && let Err(error) = pin(cpu)
    {
        return ended(USAGE, &format!("--pin {cpu}: {error}"));
    }
    match run(&args, store) {
        Ok(()) => ExitCode::from(OK),
        Err(error) => ended(FAILED, &error.to_string()),
    }
}

fn ended(code: u8, why: &str) -> ExitCode {
    eprintln!("store-twin: {why}");
    ExitCode::from(code)
}

fn run(args: &Args, store: Store) -> io::Result<()> {
    let mut builder = match args.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if args.threads > 1 {
        builder.worker_threads(args.threads);
    }
    let runtime = builder.enable_all().build()?;
    runtime.block_on(serve(args, store))
}

async fn serve(args: &Args, store: Store) -> io::Result<()> {
    let mode = match args.optimistic {
        true => Mode::Optimistic,
        false => Mode::Transaction,
    };
    let peer = Peer::new(Sale::new(store, mode, args.retries), args.concurrency);
    let address = SocketAddr::new(args.host, args.port);
    let incoming = TcpIncoming::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?
        .with_nodelay(Some(true));
    println!("gRPC      {}", incoming.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The receiver waits below for as long as this runs.
        let _ = stopping.send(());
    };
    let overdue = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(STOP_GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = peer.router().serve_with_incoming_shutdown(incoming, stop) => {
            served.map_err(io::Error::other)
        }
        () = overdue => Ok(()),
    }
}

/// Keeps this thread, and all it starts, on one core.
fn pin(cpu: usize) -> io::Result<()> {
    let bits = 8 * size_of::<libc::cpu_set_t>();
    if cpu >= bits {
        let most = format!("want a core below {bits}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, most));
    }
    // SAFETY: `cpu_set_t` is a plain array of integers, for which all zeroes is a value: the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set, and `cpu` is below its number of bits.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: 0 is the calling thread; the pointer is to a live set of the length given, and is only
    // read during the call.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
