//! What a person sees at start, on stdout. Lines that tools read keep their form: a name, spaces,
//! an address.

use std::net::SocketAddr;

use super::ServerAddresses;
use crate::config::Config;

pub(super) fn serving(config: &Config, at: ServerAddresses) {
    println!("inventory-api {}", env!("CARGO_PKG_VERSION"));
    addresses(at);
    let tables = &config.store.tables;
    println!(
        "  store     DynamoDB in {}: {}, {}, {}",
        config.store.region, tables.inventory, tables.seats, tables.idempotency
    );
    println!("  shards    {}", cpus(&config.shard_cpus));
}

/// `sample` is the event made at the first start, and its tickets.
pub(super) fn developing(config: &Config, at: ServerAddresses, data: &str, sample: (&str, u64)) {
    let (event, tickets) = sample;
    println!("inventory-api {} (dev)", env!("CARGO_PKG_VERSION"));
    addresses(at);
    println!("  data      {data}");
    println!("  shards    {}", cpus(&config.shard_cpus));
    println!("  sample    event {event}, {tickets} tickets at first");
    let grpc = reachable(at.grpc);
    println!("\nTry:");
    println!("  grpcurl -plaintext {grpc} list");
    println!(
        "  grpcurl -plaintext -d '{{\"reservation_id\": \"rsv_1\", \"event_id\": \"{event}\", \"qty\": 2}}' \\\n    \
         {grpc} inventory.v1.Inventory/CommitReservation"
    );
    println!("\nStop with Ctrl-C.");
}

fn addresses(at: ServerAddresses) {
    println!("  gRPC      {}", reachable(at.grpc));
    println!("  metrics   http://{}/metrics", reachable(at.metrics));
    match at.admin {
        Some(admin) => println!("  admin     {}", reachable(admin)),
        None => println!("  admin     off"),
    }
}

/// An address that can be pasted: the unspecified one is reached by loopback.
fn reachable(at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() {
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, at.port()))
    } else {
        at
    }
}

fn cpus(cpus: &[usize]) -> String {
    let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    format!("{} (CPU {})", cpus.len(), list.join(", "))
}
