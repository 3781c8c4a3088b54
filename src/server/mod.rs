//! The process: wires its parts, starts and stops them in order.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | start, serve, stop |
//! | `ports.rs` | binds the ports, so that a port in use ends the start |
//! | `port_security.rs` | TLS of both ports, and admin tokens |
//! | `shard_start.rs`, `control_plane_start.rs` | start the shards and the control plane |
//! | `shard_pool.rs`, `shard_gateway.rs`, `audit_backend.rs` | access of the control plane to the shards |
//! | `watchdog.rs` | detects stalled shards and outages of the store |
//! | `store_watch.rs` | outages of the store and clock skew: when to report them |
//! | `membership.rs` | how the processes of a store find each other |
//! | `dev.rs` | embedded store, tables and sample event of `dev` |
//! | `banner.rs` | the lines on stdout at start |
//!
//! Start: ports, store, shards, control plane, readiness. Stop: readiness off, shards drain, control plane. A start
//! that fails returns an explanation with cause and remedy, and leaves nothing running.

mod audit_backend;
mod banner;
mod control_plane_start;
pub(crate) mod dev;
mod membership;
mod port_security;
pub(crate) mod ports;
mod shard_gateway;
mod shard_pool;
mod shard_start;
mod store_watch;
mod watchdog;

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::Either;
use opentelemetry_sdk::trace::Sampler;
use tokio::sync::Notify;

use self::control_plane_start::ControlPlaneParts;
pub(crate) use self::dev::run_dev;
use self::port_security::{PortSecurity, transport};
use self::shard_start::{ShardLinks, shard_configs, start_shards};
use self::watchdog::{Watchdog, WatchdogThresholds};
use crate::build_info;
use crate::config::{Config, SERVICE_NAME_KEY, cpus};
use crate::control_plane::{ControlPlane, Readiness, ShutdownSignal, SpanExportConfig};
use crate::limits;
use crate::preflight::{Explanation, explain_listen_error, require_store, resolve_store};
use crate::shard::driver::{ShardInbox, ShardMailbox, ShardMessage};
use crate::shard::inbox::inbox;
use crate::shard::{ShardThread, UnfinishedWork};
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::log;
use crate::telemetry::store_health::StoreHealth;
use crate::telemetry::trace::{self, SpanSink};
use crate::tls::PortTls;
use inventory_core::counters::Counters;
use inventory_grpc::tonic_bridge;
use inventory_store::{AwsAccess, StoreSettings};

/// Addresses of a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerAddresses {
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
}

/// Result of a shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShutdownReport {
    pub(crate) took: Duration,
    /// Work unfinished at the end of the grace period.
    pub(crate) unfinished: UnfinishedWork,
    /// A shard's thread panicked or did not end.
    pub(crate) shard_failed: bool,
}

impl ShutdownReport {
    /// Result of the process. Unfinished work was logged and is not an error.
    ///
    /// # Errors
    /// A shard has failed.
    pub(crate) fn outcome(self) -> Result<(), Explanation> {
        match self.shard_failed {
            false => Ok(()),
            true => Err(explanation("a shard has failed; see the log".to_owned())),
        }
    }
}

/// A running server.
pub(crate) struct Server {
    shards: Vec<ShardThread>,
    /// Notified when the first shard ends.
    ended: Arc<Notify>,
    mailboxes: Vec<ShardMailbox>,
    control_plane: ControlPlane,
    readiness: Readiness,
    addresses: ServerAddresses,
    grace: Duration,
    watchdog: Option<Watchdog>,
}

/// Sums the engine counters of all shards; usable from any thread.
#[derive(Clone)]
pub(crate) struct CounterReader(Vec<ShardMailbox>);

impl CounterReader {
    /// The sum since the start, without shards that have ended.
    pub(crate) fn read(&self) -> Counters {
        let request = |mailbox: &ShardMailbox| {
            let (reply, answer) = oneshot::channel();
            mailbox.send(ShardMessage::Counters(reply)).ok().map(|()| answer)
        };
        let answers: Vec<_> = self.0.iter().filter_map(request).collect();
        let mut sum = Counters::default();
        for answer in answers {
            if let Ok(of_shard) = futures::executor::block_on(answer) {
                sum.add(&of_shard);
            }
        }
        sum
    }
}

/// Runs `serve`: the server on DynamoDB.
///
/// # Errors
/// An explanation with cause and remedy, if the server cannot start.
pub(crate) fn run_serve(mut config: Config) -> Result<(), Explanation> {
    start_log(&config)?;
    let store = resolve_store(&mut config.store)?;
    let endpoint = store.aws().map_or_else(String::new, AwsAccess::endpoint);
    let server = Server::start(&config, store, true)?;
    banner::serving(&config, server.addresses(), &endpoint);
    let stopped = server.run_until_signal();
    log::close();
    stopped.outcome()
}

/// Starts the process's log on stderr.
fn start_log(config: &Config) -> Result<(), Explanation> {
    log::init(config.log_level, std::io::stderr())
        .map_err(|error| explanation(error.to_string()))?;
    log::log_panics();
    for warning in &config.warnings {
        tracing::warn!(variable = warning.variable, reason = warning.reason, "setting ignored");
    }
    Ok(())
}

fn log_start(addresses: ServerAddresses, shards: usize, tls: Option<&PortTls>) {
    tracing::info!(
        grpc = %addresses.grpc,
        grpc_tls = transport(tls),
        metrics = %addresses.metrics,
        shards,
        version = build_info::VERSION,
        revision = build_info::revision(),
        "serving"
    );
}

impl Server {
    /// Starts everything; the server serves and is ready when this returns.
    ///
    /// # Errors
    /// An explanation with cause and remedy. Nothing is left running.
    pub(crate) fn start(
        config: &Config,
        store: StoreSettings,
        signals: bool,
    ) -> Result<Self, Explanation> {
        let count = config.shard_cpus.len();
        let security = PortSecurity::load(config)?;
        if let Some(warning) = cpus::quota_warning(count, cpus::quota()) {
            tracing::warn!(shards = count, "{warning}");
        }
        let listeners = Listeners::bind(config)?;
        check_store(&store, config)?;
        let grpc_address = local_address(&listeners.grpc[0])?;
        let (shard_memberships, membership_report) = membership::membership(config, grpc_address);
        let (mailboxes, inboxes): (Vec<ShardMailbox>, Vec<ShardInbox>) =
            (0..count).map(|_| inbox()).unzip();
        let readiness = Readiness::new();
        let (bridge, reflection) = tonic_bridge::channel();
        let (tracing, export) = tracing_settings(config);
        let links = ShardLinks {
            mailboxes: mailboxes.clone(),
            bridge,
            health: readiness.health(),
            heartbeats: Heartbeats::new(count),
            store_health: StoreHealth::new(count),
            tracing,
            tls: security.grpc.clone(),
        };
        let Listeners { grpc, metrics, admin } = listeners;
        let control_plane = ControlPlaneParts {
            metrics,
            admin,
            reflection,
            readiness: readiness.clone(),
            export,
            store: store.aws().cloned(),
            membership_report,
            signals,
        }
        .start(config, &links, &security)?;
        let ends = grpc.into_iter().zip(inboxes).zip(shard_memberships);
        let configs = shard_configs(config, &store, ends, &links);
        let addresses = ServerAddresses {
            grpc: grpc_address,
            metrics: control_plane.metrics_address(),
            admin: control_plane.admin_address(),
        };
        let ended = Arc::new(Notify::new());
        let shards = start_shards(configs, config, &ended, &mailboxes)?;
        readiness.set_ready();
        let ShardLinks { heartbeats, store_health, .. } = links;
        let watchdog = start_watchdog(config, heartbeats, store_health, readiness.clone())?;
        log_start(addresses, count, security.grpc.as_ref());
        Ok(Self {
            shards,
            ended,
            mailboxes,
            control_plane,
            readiness,
            addresses,
            grace: config.shutdown_grace,
            watchdog: Some(watchdog),
        })
    }

    pub(crate) fn addresses(&self) -> ServerAddresses {
        self.addresses
    }

    /// For reading what the lanes count while the server runs.
    pub(crate) fn counter_reader(&self) -> CounterReader {
        CounterReader(self.mailboxes.clone())
    }

    /// Serves until SIGTERM or SIGINT, then stops. A second signal ends the grace at once. Stops
    /// too when a shard has failed: the events it owned could not be sold until the next start.
    pub(crate) fn run_until_signal(mut self) -> ShutdownReport {
        let mut shutdown = self.control_plane.shutdown();
        let ended = Arc::clone(&self.ended);
        let requested = pin!(shutdown.wait_for(|state| *state != ShutdownSignal::None));
        let failed = pin!(ended.notified());
        match futures::executor::block_on(futures::future::select(requested, failed)) {
            Either::Left((Ok(_), _)) => {}
            Either::Left((Err(_), _)) => {
                tracing::error!("control plane ended unexpectedly; stopping")
            }
            Either::Right(_) => {
                tracing::error!("a shard has failed; stopping");
                self.grace = self.grace.min(limits::FAILED_GRACE);
            }
        }
        self.stop()
    }

    /// Stops in order: readiness off, no new connections, GOAWAY, calls and lanes settle. What has
    /// not settled when the grace is over is counted and left.
    pub(crate) fn stop(mut self) -> ShutdownReport {
        let start = Instant::now();
        tracing::info!(grace_ms = self.grace.as_millis() as u64, "stopping");
        // During the shutdown the grace period replaces the watchdog.
        self.watchdog = None;
        self.readiness.set_draining("the server is stopping");
        self.wait_for_shards(start + self.grace);
        let mut stopped = ShutdownReport::default();
        for shard in self.shards {
            let number = shard.shard;
            if !shard.is_finished() {
                tracing::error!(shard = number, "shard does not end");
                stopped.shard_failed = true;
                continue;
            }
            match shard.join() {
                Some(ended) => {
                    stopped.unfinished.connections += ended.connections;
                    stopped.unfinished.operations += ended.operations;
                }
                None => {
                    tracing::error!(shard = number, "shard panicked");
                    stopped.shard_failed = true;
                }
            }
        }
        if let Err(overdue) = self.control_plane.stop(limits::CONTROL_PLANE_STOP_GRACE * 2) {
            tracing::warn!(error = %overdue, "control plane did not stop");
        }
        stopped.took = start.elapsed();
        if stopped.unfinished != UnfinishedWork::default() {
            tracing::warn!(
                connections = stopped.unfinished.connections,
                operations = stopped.unfinished.operations,
                "grace period over, work unfinished"
            );
        }
        tracing::info!(took_ms = stopped.took.as_millis() as u64, "stopped");
        stopped
    }

    /// Drains every shard, aborts at `deadline` or a second signal, and waits
    /// for them all, but not for one that hangs.
    fn wait_for_shards(&self, deadline: Instant) {
        let shutdown = self.control_plane.shutdown();
        let mut gives_up_at = None;
        // A full inbox accepts no message now: these shards are notified in the next round.
        let mut pending: Vec<&ShardMailbox> = self.mailboxes.iter().collect();
        while !self.shards.iter().all(ShardThread::is_finished) {
            let now = Instant::now();
            let immediate = matches!(*shutdown.borrow(), ShutdownSignal::Abort { .. });
            match gives_up_at {
                None if immediate || now >= deadline => {
                    gives_up_at = Some(now + limits::ABORT_GRACE);
                    pending = self.mailboxes.iter().collect();
                }
                Some(at) if now >= at => return,
                _ => {}
            }
            let aborting = gives_up_at.is_some();
            pending.retain(|mailbox| {
                let message = if aborting { ShardMessage::Abort } else { ShardMessage::Drain };
                mailbox.send(message).is_err()
            });
            std::thread::sleep(STOP_POLL);
        }
    }
}

/// Poll interval while shards stop.
const STOP_POLL: Duration = Duration::from_millis(2);

/// The sockets of a server, all bound before anything starts.
struct Listeners {
    /// One per shard.
    grpc: Vec<TcpListener>,
    metrics: TcpListener,
    admin: Option<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, Explanation> {
        let address = config.grpc_address();
        let grpc = ports::bind_shared(address, config.shard_cpus.len())
            .map_err(|e| explain_listen_error(&e, "GRPC_PORT", address))?;
        let metrics = ports::bind_any(config.metrics_port)
            .map_err(|e| explain_listen_error(&e, "METRICS_PORT", port_of(config.metrics_port)))?;
        let admin = config.admin.map(|address| {
            ports::bind(address).map_err(|e| explain_listen_error(&e, "ADMIN_PORT", address))
        });
        Ok(Self { grpc, metrics, admin: admin.transpose()? })
    }
}

/// Checks that the store is there, and warns about tables that are not as the server would create them.
fn check_store(store: &StoreSettings, config: &Config) -> Result<(), Explanation> {
    for difference in require_store(store, &config.store)? {
        tracing::warn!(table = difference.table, difference = %difference, "tables");
    }
    Ok(())
}

fn start_watchdog(
    config: &Config,
    heartbeats: Heartbeats,
    store_health: StoreHealth,
    readiness: Readiness,
) -> Result<Watchdog, Explanation> {
    let (not_ready, exit) = (config.shard_stall_limit, config.shard_stall_exit);
    let thresholds = WatchdogThresholds { not_ready, exit };
    watchdog::start(heartbeats, store_health, readiness, thresholds)
        .map_err(|error| explanation(format!("the watchdog's thread cannot be started: {error}")))
}

/// What is sampled, and where its spans go; `None` without a collector or with ratio 0.
fn tracing_settings(config: &Config) -> (Option<(Sampler, SpanSink)>, Option<SpanExportConfig>) {
    let otel = &config.otel;
    let root = Sampler::TraceIdRatioBased(otel.ratio);
    let sampler = match otel.parent_based {
        true => Sampler::ParentBased(Box::new(root)),
        false => root,
    };
    let never = !otel.parent_based && otel.ratio <= 0.0;
    let Some(exporter) = otel.exporter.clone().filter(|_| !never) else {
        return (None, None);
    };
    let (sink, spans) = trace::span_queue();
    match SpanExportConfig::new(spans, exporter, span_resource(config)) {
        Ok(export) => (Some((sampler, sink)), Some(export)),
        Err(error) => {
            tracing::warn!(error, "spans are not exported");
            (None, None)
        }
    }
}

/// Attributes of all spans: those that the variables of OpenTelemetry name, and those of this server.
fn span_resource(config: &Config) -> Vec<(String, String)> {
    let own = [
        (SERVICE_NAME_KEY, config.service_name.clone()),
        ("service.version", build_info::service_version(config)),
        ("vcs.ref.head.revision", build_info::revision().to_owned()),
    ];
    let mut resource = config.otel.resource.clone();
    for (key, value) in own {
        if !resource.iter().any(|(named, _)| named == key) {
            resource.push((key.to_owned(), value));
        }
    }
    resource
}

fn port_of(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

fn local_address(listener: &std::net::TcpListener) -> Result<SocketAddr, Explanation> {
    listener
        .local_addr()
        .map_err(|error| explanation(format!("the gRPC port has no address: {error}")))
}

fn explanation(wrong: String) -> Explanation {
    Explanation { wrong, facts: None, fixes: Vec::new() }
}
