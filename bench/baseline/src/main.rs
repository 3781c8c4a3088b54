//! The `baseline` program: the baseline service with a store, or the stub server without one.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use inventory_baseline::limits::{
    CONCURRENCY_DEFAULT, CONCURRENCY_MAX, RETRIES_DEFAULT, RETRIES_MAX, SHUTDOWN_GRACE, THREADS_MAX,
};
use inventory_baseline::{
    BaselineService, MemoryBackend, StoreBackend, TableClient, TableConfig, WriteMode, bind, router,
};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::server::Router;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
const USAGE: u8 = 64;

/// The inventory.v1 contract on tonic, tokio and the AWS SDK: the reference for benchmarks of inventory-api.
///
/// With a store it writes one DynamoDB transaction per commit to the tables of inventory-api, in the same
/// format: create them with `inventory-api tables create`, create events with `inventory-api event create`
/// while a server uses the same store, and audit with `inventory-api verify`. Quantities only. Expired holds
/// are not reclaimed; run inventory-api on the same tables for that. With --no-store all state is in memory.
///
/// Prints `gRPC  host:port` once it listens. Exit codes: 0 stopped, 1 failure, 64 usage error.
#[derive(Parser)]
#[command(name = "baseline", version)]
struct BaselineArgs {
    /// Store endpoint, http://host:port. Plain HTTP only: a model or an embedded engine, not DynamoDB itself.
    #[arg(
        long,
        value_name = "URL",
        env = "AWS_ENDPOINT_URL_DYNAMODB",
        required_unless_present = "no_store"
    )]
    store: Option<String>,
    /// Keep all state in memory instead of a store.
    #[arg(long)]
    no_store: bool,
    /// An event and its units; may be repeated. Requires --no-store.
    #[arg(long = "event", value_name = "ID=TOTAL", value_parser = event, requires = "no_store",
          default_values = ["evt_2025_1001=10000"])]
    events: Vec<(String, u64)>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 selects a free port.
    #[arg(long, env = "GRPC_PORT", default_value_t = 0)]
    port: u16,
    /// The tokio runtime.
    #[arg(long, value_enum, default_value_t = RuntimeKind::CurrentThread)]
    runtime: RuntimeKind,
    /// Worker threads of the multi-thread runtime. Default: one per available CPU.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=THREADS_MAX as u64))]
    threads: Option<usize>,
    /// Read record and stock first and write conditional on the stock's version, as the original Go server
    /// did. Default: write at once, conditional on the remaining units.
    #[arg(long)]
    optimistic: bool,
    /// Retries of a conflicting or throttled write, on top of the SDK's own retries.
    #[arg(long, env = "DDB_MAX_RETRIES", default_value_t = RETRIES_DEFAULT,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(RETRIES_MAX)))]
    retries: u32,
    /// Calls in flight; calls beyond this limit are answered RESOURCE_EXHAUSTED.
    #[arg(long, env = "GRPC_MAX_CONCURRENCY", default_value_t = CONCURRENCY_DEFAULT,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONCURRENCY_MAX as u64))]
    concurrency: usize,
    /// Region in request signatures; a model does not verify them.
    #[arg(long, env = "AWS_REGION", default_value = "ap-northeast-2")]
    region: String,
    /// Table of stripes.
    #[arg(long, env = "DDB_TABLE_INVENTORY", default_value = "inventory")]
    table_inventory: String,
    /// Table of reservations.
    #[arg(long, env = "DDB_TABLE_IDEMPOTENCY", default_value = "idempotency")]
    table_idempotency: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum RuntimeKind {
    CurrentThread,
    MultiThread,
}

fn event(text: &str) -> Result<(String, u64), String> {
    let (id, total) = text.split_once('=').ok_or("must be ID=TOTAL")?;
    let total = total.parse().map_err(|error| format!("TOTAL: {error}"))?;
    Ok((id.to_owned(), total))
}

fn main() -> ExitCode {
    let args = match BaselineArgs::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A failure to print leaves nothing else to report to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { SUCCESS });
        }
    };
    let router = match build_router(&args) {
        Ok(router) => router,
        Err(error) => {
            inventory_process::report(format_args!("baseline: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    match run(&args, router) {
        Ok(()) => ExitCode::from(SUCCESS),
        Err(error) => {
            inventory_process::report_failure("baseline", &*error);
            ExitCode::from(FAILURE)
        }
    }
}

fn build_router(args: &BaselineArgs) -> Result<Router, String> {
    let endpoint = match &args.store {
        Some(endpoint) if !args.no_store => endpoint.clone(),
        _ => {
            let backend = MemoryBackend::new(args.events.clone());
            return Ok(router(BaselineService::new(backend, args.concurrency)));
        }
    };
    let tables = TableClient::new(TableConfig {
        endpoint,
        region: args.region.clone(),
        inventory: args.table_inventory.clone(),
        idempotency: args.table_idempotency.clone(),
    })
    .map_err(|error| format!("--store: {error}"))?;
    let mode = match args.optimistic {
        true => WriteMode::Optimistic,
        false => WriteMode::Transaction,
    };
    let backend = StoreBackend::new(tables, mode, args.retries);
    Ok(router(BaselineService::new(backend, args.concurrency)))
}

fn run(args: &BaselineArgs, router: Router) -> Result<(), Box<dyn Error>> {
    let mut builder = match args.runtime {
        RuntimeKind::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        RuntimeKind::MultiThread => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = args.threads {
        builder.worker_threads(threads);
    }
    let address = SocketAddr::new(args.host, args.port);
    builder.enable_all().build()?.block_on(serve(router, address))
}

async fn serve(router: Router, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let incoming = bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    inventory_process::print(format_args!("gRPC      {}", incoming.local_addr()?))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (shutdown, shutting_down) = tokio::sync::oneshot::channel();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The receiver lives as long as this future.
        let _ = shutdown.send(());
    };
    let grace = async {
        match shutting_down.await {
            Ok(()) => tokio::time::sleep(SHUTDOWN_GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, stop) => {
            Ok(served?)
        }
        () = grace => Ok(()),
    }
}
