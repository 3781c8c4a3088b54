//! The lines on stdout at start. Lines that tools read have a fixed form: a name, spaces, an address. A banner that
//! cannot be written never stops the server.

use std::net::SocketAddr;

use super::ServerAddresses;
use crate::build_info;
use crate::config::Config;
use crate::output::{self, OutputError};

/// `endpoint` is that of DynamoDB.
pub(super) fn serving(config: &Config, at: ServerAddresses, endpoint: &str) {
    let tables = &config.store.tables;
    print(&format!(
        "inventory-api {}\n{}\n  store     DynamoDB in {} at {endpoint}: {}, {}, {}\n  shards    {}",
        build_info::version_text(),
        addresses(config, at),
        config.store.region_text(),
        tables.inventory,
        tables.seats,
        tables.idempotency,
        cpus(&config.shard_cpus)
    ));
}

/// `sample` is the event made at the first start, and its tickets.
pub(super) fn developing(config: &Config, at: ServerAddresses, data: &str, sample: (&str, u64)) {
    let (event, tickets) = sample;
    let grpc = reachable(at.grpc);
    print(&format!(
        "inventory-api {version} (dev)
{addresses}
  data      {data}
  shards    {cpus}
  sample    event {event}, {tickets} tickets at first

Try:
  grpcurl {transport} {grpc} list
  grpcurl {transport} -d '{{\"reservation_id\": \"rsv_1\", \"event_id\": \"{event}\", \"qty\": 2}}' \\
    {grpc} inventory.v1.Inventory/CommitReservation

Stop with Ctrl-C.",
        transport = if config.grpc_tls.is_some() { "-insecure" } else { "-plaintext" },
        version = build_info::version_text(),
        addresses = addresses(config, at),
        cpus = cpus(&config.shard_cpus),
    ));
}

fn print(banner: &str) {
    match output::print(banner) {
        // The reader of stdout has gone.
        Ok(()) | Err(OutputError::Closed) => {}
        Err(error) => tracing::warn!(error = %error, "banner not printed"),
    }
}

fn addresses(config: &Config, at: ServerAddresses) -> String {
    let admin = at.admin.map_or("off".to_owned(), |admin| reachable(admin).to_string());
    format!(
        "  gRPC      {}\n  metrics   http://{}/metrics\n  admin     {admin}\n  network   {}",
        reachable(at.grpc),
        reachable(at.metrics),
        network(config, at)
    )
}

/// The interfaces on which the ports listen. The addresses in the lines above are for clients on this machine.
fn network(config: &Config, at: ServerAddresses) -> String {
    let on = |address: SocketAddr| match address.ip() {
        ip if ip.is_unspecified() => "all interfaces".to_owned(),
        ip if ip.is_loopback() => "loopback".to_owned(),
        ip => ip.to_string(),
    };
    let access = &config.admin_access;
    let tls = access.tls.as_ref();
    let who = match (tls.map(|files| files.client_authorities.is_some()), access.tokens.is_some()) {
        (Some(true), _) => "mutual TLS",
        (Some(false), true) => "TLS and a token",
        (None, true) => "a token, without TLS",
        (Some(false), false) => "TLS and no authentication",
        (None, false) => "no authentication",
    };
    let admin =
        at.admin.map_or_else(String::new, |admin| format!(", admin on {} with {who}", on(admin)));
    let tls = match &config.grpc_tls {
        None => "no TLS and no authentication",
        Some(files) if files.client_authorities.is_none() => "TLS and no authentication",
        Some(files) if files.allowed_clients.is_empty() => "mutual TLS",
        Some(_) => "mutual TLS for TLS_ALLOWED_CLIENTS",
    };
    format!(
        "gRPC on {} (GRPC_HOST) with {tls}, metrics on {} without authentication{admin}",
        on(at.grpc),
        on(at.metrics)
    )
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
