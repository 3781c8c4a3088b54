//! Starts the threads of the shards, and waits until each of them serves.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;

use opentelemetry_sdk::trace::Sampler;
use tokio::sync::{Notify, watch};

use super::explanation;
use crate::api::inventory_v1::InventoryHandlers;
use crate::api::reservation_service::{RequestLimits, ReservationService};
use crate::api::reservation_v1::ReservationHandlers;
use crate::config::Config;
use crate::preflight::{
    Explanation, HostFacts, connections_per_shard, explain_connect_error, explain_ring_error,
    explain_topology_error,
};
use crate::shard::connection_balancer::ConnectionBalancer;
use crate::shard::driver::{ShardInbox, ShardMailbox, ShardMessage};
use crate::shard::membership::ShardMembership;
use crate::shard::shutdown_barrier::barriers;
use crate::shard::{self, ShardConfig, ShardStartError, ShardThread};
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::store_health::StoreHealth;
use crate::telemetry::trace::SpanSink;
use crate::tls::PortTls;
use inventory_grpc::tonic_bridge::TonicBridge;
use inventory_grpc::{GrpcSettings, HealthState, InventoryServer, InventoryServiceServer};
use inventory_store::StoreSettings;

/// What connects the shards with each other and with the control plane.
pub(super) struct ShardLinks {
    pub(super) mailboxes: Vec<ShardMailbox>,
    pub(super) bridge: TonicBridge,
    pub(super) health: watch::Receiver<HealthState>,
    pub(super) heartbeats: Heartbeats,
    pub(super) store_health: StoreHealth,
    pub(super) tracing: Option<(Sampler, SpanSink)>,
    pub(super) tls: Option<PortTls>,
}

pub(super) fn shard_configs(
    config: &Config,
    store: &StoreSettings,
    ends: impl Iterator<Item = ((TcpListener, ShardInbox), ShardMembership)>,
    links: &ShardLinks,
) -> Vec<ShardConfig> {
    let shards = config.shard_cpus.len();
    let balancer =
        ConnectionBalancer::new(shards, connections_per_shard(&HostFacts::read(), shards));
    let parts = ends.zip(barriers(shards)).enumerate();
    let of_shard = |(shard, (((listener, inbox), membership), shutdown_barrier))| ShardConfig {
        shard,
        shards,
        cpu: config.shard_cpus[shard],
        spin_before_park: config.spin_before_park,
        listener,
        inbox,
        peers: links.mailboxes.clone(),
        balancer: balancer.clone(),
        shutdown_barrier,
        store: store.clone(),
        grpc: grpc_settings(config),
        bridge: links.bridge.clone(),
        health: links.health.clone(),
        answers_cached: config.answers_cached,
        answers_cached_for: config.answers_cached_for,
        late_commit: config.late_commit,
        sold_out_latch: config.sold_out_latch,
        read_staleness: config.read_staleness,
        heartbeats: links.heartbeats.clone(),
        store_health: links.store_health.clone(),
        membership,
        tracing: links.tracing.clone(),
        log_calls_ratio: config.log_calls_ratio,
        tls: links.tls.as_ref().map(PortTls::current),
    };
    parts.map(of_shard).collect()
}

pub(super) fn start_shards(
    configs: Vec<ShardConfig>,
    config: &Config,
    ended: &Arc<Notify>,
    mailboxes: &[ShardMailbox],
) -> Result<Vec<ShardThread>, Explanation> {
    inventory_runtime::check_topology().map_err(|error| explain_topology_error(&error))?;
    let count = configs.len();
    let (started, starts) = mpsc::channel();
    let mut shards = Vec::with_capacity(count);
    for config_of_shard in configs {
        let limits = RequestLimits {
            qty_max: config.max_qty,
            hold_ttl: config.hold_ttl,
            hold_ttl_max: config.hold_ttl_max,
        };
        // Two contracts on one port and the same reservations.
        let service = move |driver, recorder| {
            let core = ReservationService::new(driver, recorder, limits);
            let inventory = InventoryHandlers::new(Rc::clone(&core));
            let reservation = ReservationHandlers::new(core);
            (InventoryServer::new(inventory), InventoryServiceServer::new(reservation))
        };
        let shard = shard::start(config_of_shard, service, started.clone(), Arc::clone(ended))
            .map_err(|error| explanation(format!("a shard's thread cannot be started: {error}")))?;
        shards.push(shard);
    }
    drop(started);
    let mut failure = None;
    // The loop ends because each shard sends one message or drops its sender.
    for (_, start) in starts.iter().take(count) {
        match start {
            Ok(()) => {}
            Err(ShardStartError::Ring(error)) => {
                failure = Some(explain_ring_error(&error, &HostFacts::read(), count));
            }
            Err(ShardStartError::Store(error)) => {
                failure = Some(explain_connect_error(&error, &config.store))
            }
        }
    }
    match failure {
        None => Ok(shards),
        Some(explanation) => {
            for mailbox in mailboxes {
                let _ = mailbox.send(ShardMessage::Abort);
            }
            for shard in shards {
                shard.join();
            }
            Err(explanation)
        }
    }
}

fn grpc_settings(config: &Config) -> GrpcSettings {
    GrpcSettings {
        call_timeout: config.call_timeout,
        streams_per_connection: config.streams_per_connection,
        keep_alive_period: Some(config.keep_alive_period),
        connection_age: config.connection_age,
        ..GrpcSettings::default()
    }
}
