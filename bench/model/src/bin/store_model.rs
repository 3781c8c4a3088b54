//! The `store-model` program: the model on a port.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use inventory_process::{print, report_failure};
use inventory_store_model::{
    CapacityUnits, FaultRule, LatencyProfile, ModelServer, ModelSettings, limits,
};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A model of DynamoDB under load.
///
/// Clients use it with AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:PORT and any credentials.
#[derive(Parser)]
#[command(version)]
struct ModelArgs {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 selects a free port, which is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Latency profile.
    #[arg(long, value_enum, default_value_t = LatencyProfile::InRegion)]
    profile: LatencyProfile,
    /// Seed of all random draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Warm throughput of new on-demand tables in write units per second.
    #[arg(long, value_name = "UNITS", default_value_t = limits::ON_DEMAND_WCU,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_MAX)))]
    warm_wcu: u32,
    /// Warm throughput of new on-demand tables in read units per second.
    #[arg(long, value_name = "UNITS", default_value_t = limits::ON_DEMAND_RCU,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_MAX)))]
    warm_rcu: u32,
    /// Quota of an on-demand table in units per second, above any warm throughput.
    #[arg(long, value_name = "UNITS", default_value_t = limits::TABLE_QUOTA,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_MAX)))]
    table_quota: u32,
    /// Count capacity without throttling.
    #[arg(long)]
    unlimited: bool,
    /// Inject a fault: lost-answer, lost-request, delayed-answer, throttle, conflict or error-500. May be
    /// repeated.
    #[arg(long = "fault", value_name = "KIND:PROBABILITY[:OPERATION[:DELAY_MS]]")]
    faults: Vec<FaultRule>,
}

fn main() -> ExitCode {
    let args = match ModelArgs::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let is_help = !error.use_stderr();
            // A failure to print leaves nothing else to report to.
            let _ = error.print();
            return ExitCode::from(if is_help { 0 } else { 64 });
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_failure("store-model", &*error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: ModelArgs) -> Result<(), Box<dyn Error>> {
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let address = SocketAddr::new(args.host, args.port);
    let settings = ModelSettings {
        profile: args.profile,
        seed: args.seed,
        warm: CapacityUnits { wcu: args.warm_wcu, rcu: args.warm_rcu },
        table_quota: args.table_quota,
        is_unlimited: args.unlimited,
        faults: Vec::new(),
        epoch,
    };
    // Signals are registered before the address is printed: a supervisor may stop the program at once.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().build()?;
    runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let server = ModelServer::bind(address, settings).map_err(|error| {
            format!(
                "cannot listen on {address}: {error}; choose another address with --host or --port"
            )
        })?;
        server.set_faults(args.faults)?;
        print(format_args!("listening on {}", server.address()))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(())
    })
}
