//! The process: wires its parts, starts and stops them in order.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | start, serve, stop |
//! | `ports.rs` | binds the ports, so that a port in use ends the start |
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
pub(crate) mod dev;
mod membership;
pub(crate) mod ports;
mod shard_gateway;
mod shard_pool;
mod store_watch;
mod watchdog;

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::Either;
use opentelemetry_sdk::trace::Sampler;
use tokio::sync::{Notify, watch};

use self::audit_backend::ShardAuditBackend;
pub(crate) use self::dev::run_dev;
use self::shard_gateway::ShardGateway;
use self::shard_pool::ShardPool;
use self::watchdog::{Watchdog, WatchdogThresholds};
use crate::api::inventory_v1::InventoryHandlers;
use crate::api::reservation_service::{RequestLimits, ReservationService};
use crate::api::reservation_v1::ReservationHandlers;
use crate::build_info;
use crate::config::{AdminAccessFiles, Config, SERVICE_NAME_KEY, cpus};
use crate::control_plane::{
    AdminAccess, AdminTokens, ControlPlane, ControlPlaneConfig, ControlPlaneTask, Readiness,
    ShutdownSignal, SpanExportConfig,
};
use crate::limits;
use crate::preflight::{
    Explanation, HostFacts, connections_per_shard, explain_connect_error, explain_listen_error,
    explain_ring_error, explain_topology_error, require_store, resolve_store,
};
use crate::shard::connection_balancer::ConnectionBalancer;
use crate::shard::driver::{ShardInbox, ShardMailbox, ShardMessage};
use crate::shard::inbox::inbox;
use crate::shard::membership::ShardMembership;
use crate::shard::shutdown_barrier::barriers;
use crate::shard::{self, ShardConfig, ShardStartError, ShardThread, UnfinishedWork};
use crate::telemetry::aggregate::BuildInfo;
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::log;
use crate::telemetry::store_health::StoreHealth;
use crate::telemetry::trace::{self, SpanSink};
use crate::tls::PortTls;
use inventory_core::counters::Counters;
use inventory_grpc::tonic_bridge::{self, TonicBridge};
use inventory_grpc::{GrpcSettings, HealthState, InventoryServer, InventoryServiceServer};
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
        let tls = config.grpc_tls.clone().map(|files| PortTls::load("grpc", files)).transpose()?;
        let (admin_tls, admin_tokens) = load_admin_access(config)?;
        if let Some(warning) = cpus::quota_warning(count, cpus::quota()) {
            tracing::warn!(shards = count, "{warning}");
        }
        let Listeners { grpc, metrics, admin } = Listeners::bind(config)?;
        check_store(&store, config)?;
        let grpc_address = local_address(&grpc[0])?;
        let (shard_memberships, membership_report) = membership::membership(config, grpc_address);
        let (mailboxes, inboxes): (Vec<ShardMailbox>, Vec<ShardInbox>) =
            (0..count).map(|_| inbox()).unzip();
        let readiness = Readiness::new();
        let (bridge, bridge_receiver) = tonic_bridge::channel();
        let heartbeats = Heartbeats::new(count);
        let store_health = StoreHealth::new(count);
        let (tracing, export) = tracing_settings(config);
        let counts = export.as_ref().map(|export| Arc::clone(&export.spans.counts));
        let pool = Arc::new(ShardPool::new(mailboxes.clone()));
        let gateway = ShardGateway::new(
            Arc::clone(&pool),
            heartbeats.clone(),
            store_health.clone(),
            readiness.clone(),
            counts,
            store.aws().cloned(),
            membership_report,
        );
        let secured = tls.iter().chain(&admin_tls).cloned().collect();
        let gateway = Arc::new(gateway.with_tls(secured));
        let routes = crate::control_plane::reflection_routes();
        let reload = Arc::new(Notify::new());
        let mut tasks: Vec<ControlPlaneTask> =
            vec![Box::pin(tonic_bridge::serve(bridge_receiver, routes))];
        for tls in tls.iter().chain(&admin_tls) {
            tasks.push(Box::pin(tls.clone().follow_files(Arc::clone(&reload))));
        }
        if let Some(tokens) = &admin_tokens {
            tasks.push(Box::pin(tokens.clone().follow_file(Arc::clone(&reload))));
        }
        let is_reloadable = tasks.len() > 1;
        let admin_access = AdminAccess::new(admin_tls, admin_tokens, gateway.admin_refusals());
        let control_plane = ControlPlane::start(ControlPlaneConfig {
            metrics,
            admin: admin.map(|listener| (listener, gateway.clone() as _)),
            admin_access,
            audit: Some(Arc::new(ShardAuditBackend::new(pool))),
            scrape: gateway,
            readiness: readiness.clone(),
            build: BuildInfo {
                service: config.service_name.clone(),
                version: build_info::service_version(config),
                revision: build_info::revision().to_owned(),
            },
            export,
            signals,
            reload: is_reloadable.then_some(reload),
            tasks,
        })
        .map_err(|error| explanation(error.to_string()))?;

        let links = ShardLinks {
            mailboxes: mailboxes.clone(),
            bridge,
            health: readiness.health(),
            heartbeats: heartbeats.clone(),
            store_health: store_health.clone(),
            tracing,
            tls: tls.clone(),
        };
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
        let watchdog = start_watchdog(config, heartbeats, store_health, readiness.clone())?;
        log_start(addresses, count, tls.as_ref());
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

/// What connects the shards with each other and with the control plane.
struct ShardLinks {
    mailboxes: Vec<ShardMailbox>,
    bridge: TonicBridge,
    health: watch::Receiver<HealthState>,
    heartbeats: Heartbeats,
    store_health: StoreHealth,
    tracing: Option<(Sampler, SpanSink)>,
    tls: Option<PortTls>,
}

fn shard_configs(
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

fn start_shards(
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

fn grpc_settings(config: &Config) -> GrpcSettings {
    GrpcSettings {
        call_timeout: config.call_timeout,
        streams_per_connection: config.streams_per_connection,
        keep_alive_period: Some(config.keep_alive_period),
        connection_age: config.connection_age,
        ..GrpcSettings::default()
    }
}

/// TLS and tokens of the admin port.
fn load_admin_access(
    config: &Config,
) -> Result<(Option<PortTls>, Option<AdminTokens>), Explanation> {
    // Files of a port that is off are not looked at.
    let Some(address) = config.admin else {
        return Ok((None, None));
    };
    let AdminAccessFiles { tls, tokens } = config.admin_access.clone();
    if !address.ip().is_loopback() && tls.is_none() {
        tracing::warn!(%address, "admin tokens are sent without TLS");
    }
    let tls = tls.map(|files| PortTls::load("admin", files)).transpose()?;
    let tokens = tokens.map(AdminTokens::load).transpose();
    Ok((tls, tokens.map_err(|error| explanation(error.to_string()))?))
}

/// How clients reach the port, for the log.
fn transport(tls: Option<&PortTls>) -> &'static str {
    match tls {
        None => "plaintext",
        Some(tls) if tls.requires_certificates() => "mutual TLS",
        Some(_) => "TLS",
    }
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
