//! Runs the model on a port.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use inventory_store_model::{Fault, ModelServer, Profile, Settings, Units, limits};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A store that answers like DynamoDB under load.
///
/// Point a client at it with AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:PORT and any credentials.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one. Either way it is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Latencies: in-region, lambda-2020, or none.
    #[arg(long, default_value = "in-region", value_parser = profile)]
    profile: Profile,
    /// Of all that is drawn by chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write units a second that a new on-demand table takes.
    #[arg(long, value_name = "UNITS", default_value_t = limits::ON_DEMAND_WCU,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_MAX)))]
    warm_wcu: u32,
    /// Read units a second that a new on-demand table takes.
    #[arg(long, value_name = "UNITS", default_value_t = limits::ON_DEMAND_RCU,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_MAX)))]
    warm_rcu: u32,
    /// The most that an on-demand table takes, units a second, whatever it was warmed to.
    #[arg(long, value_name = "UNITS", default_value_t = limits::TABLE_QUOTA,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CAPACITY_MAX)))]
    table_quota: u32,
    /// Count capacity, but throttle nobody.
    #[arg(long)]
    unlimited: bool,
    /// Put in a fault: lost-answer, lost-request, delayed-answer, throttle, conflict or error-500. May be
    /// repeated.
    #[arg(long = "fault", value_name = "KIND:PROBABILITY[:OPERATION[:DELAY_MS]]")]
    faults: Vec<Fault>,
}

fn profile(name: &str) -> Result<Profile, String> {
    let found = Profile::ALL.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, profile)| *profile)
        .ok_or_else(|| "want in-region, lambda-2020 or none".to_owned())
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let is_help = !error.use_stderr();
            // Nowhere to tell it if this fails.
            let _ = error.print();
            return ExitCode::from(if is_help { 0 } else { 64 });
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store-model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let address = SocketAddr::new(args.host, args.port);
    let settings = Settings {
        profile: args.profile,
        seed: args.seed,
        warm: Units {
            wcu: args.warm_wcu,
            rcu: args.warm_rcu,
        },
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
        println!("listening on {}", server.address());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(())
    })
}
