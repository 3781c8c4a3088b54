//! Runs the tonic-on-tokio twin as a server of its own, for wire cost comparisons.

use std::{error::Error, net::SocketAddr};

use clap::{Parser, ValueEnum};
use inventory_bench::twin::{Twin, bind, router};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The reservation contract on tonic and tokio, in memory.
#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// Port to listen on; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The tokio runtime.
    #[arg(long, value_enum, default_value_t = Runtime::CurrentThread)]
    runtime: Runtime,
    /// Threads of the multi-thread runtime. Default: one for each core this process may use.
    #[arg(long)]
    threads: Option<usize>,
    /// An event and its tickets; may be repeated.
    #[arg(long = "event", value_name = "ID=TOTAL", value_parser = event,
          default_value = "evt_2025_1001=10000")]
    events: Vec<(String, i64)>,
    /// Also serve health and reflection. Left out by default, so that only the contract is measured.
    #[arg(long)]
    cold_services: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Runtime {
    CurrentThread,
    MultiThread,
}

fn event(text: &str) -> Result<(String, i64), String> {
    let (id, total) = text.split_once('=').ok_or("want ID=TOTAL")?;
    let total = total.parse().map_err(|e| format!("TOTAL: {e}"))?;
    Ok((id.to_owned(), total))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut builder = match args.runtime {
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread(),
        Runtime::MultiThread => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.max(1));
    }
    builder.enable_all().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    let mut router = router(Twin::new(args.events));
    if args.cold_services {
        let (health, health_service) = tonic_health::server::health_reporter();
        health
            .set_service_status(
                "inventory.v1.Inventory",
                tonic_health::ServingStatus::Serving,
            )
            .await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(inventory_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("inventory.v1.Inventory")
                .with_service_name("grpc.health.v1.Health")
        };
        router = router
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
    }
    let incoming = bind(SocketAddr::new(args.host, args.port))?;
    println!("gRPC      {}", incoming.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    router.serve_with_incoming_shutdown(incoming, stop).await?;
    Ok(())
}
