//! One shard: a pinned executor with its own listener, connections, lanes, store client and recorder.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the shard's thread and its phases: start, serve, drain |
//! | `acceptor.rs`, `connection_balancer.rs` | accepts connections; picks the shard of each |
//! | `inbox.rs` | messages between shards, and from the control plane |
//! | `shutdown_barrier.rs` | when a draining shard may end |
//! | `driver.rs` | executes the engine's effects |
//! | `reclaimer.rs`, `pending_expiries.rs` | return the stock of expired holds |
//! | `membership.rs`, `membership_log.rs` | beats of the process, and the members for its engine; log lines about them |
//! | `observers.rs` | passes events of gRPC and the store to the recorder |
//! | `store_probe.rs` | probes a store that fails |
//! | `spans.rs` | spans of calls and transactions |
//! | `tls.rs` | handshakes of TLS, bounded in time, number and CPU time |
//!
//! Shards share nothing on the path of a request.

pub(crate) mod acceptor;
pub(crate) mod connection_balancer;
pub(crate) mod driver;
pub(crate) mod inbox;
pub(crate) mod membership;
mod membership_log;
mod observers;
mod pending_expiries;
mod reclaimer;
pub(crate) mod shutdown_barrier;
mod spans;
mod store_probe;
mod tls;

use std::cell::Cell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use opentelemetry_sdk::trace::Sampler;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, mpsc, watch};

use self::acceptor::Acceptor;
use self::connection_balancer::ConnectionBalancer;
use self::driver::{Driver, ShardInbox, ShardMailbox, ShardMessage};
use self::inbox::{ForwardReply, ForwardedOperation};
use self::membership::{Beats, ShardMembership};
use self::reclaimer::Reclaimer;
use self::shutdown_barrier::ShutdownBarrier;
use self::tls::ShardTls;
use crate::limits;
use crate::telemetry::heartbeat::{Activity, HeartbeatWriter, Heartbeats};
use crate::telemetry::log_interval::LogInterval;
use crate::telemetry::recorder::{Recorder, ShardGauges, ShardMetrics};
use crate::telemetry::store_health::StoreHealth;
use crate::telemetry::trace::{SpanSink, Tracer};
use crate::telemetry::{log, process};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::rules::LateCommit;
use inventory_core::time::Micros;
use inventory_grpc::{Drain, GrpcContext, GrpcSettings, HealthState, UnaryService};
use inventory_runtime::{AcceptedSocket, Listener, clock};
use inventory_store::{Store, StoreConnectError, StoreSettings};
use inventory_tls::rustls::ServerConfig;

/// How often a draining shard checks whether it is idle.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// How long a draining shard waits for the other shards to close their listeners.
const CLOSING_MAX: Micros = Micros::from_millis(500);

/// Everything that a shard's thread starts with.
pub(crate) struct ShardConfig {
    /// Counted from 0.
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    pub(crate) cpu: usize,
    pub(crate) spin_before_park: Duration,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) inbox: ShardInbox,
    /// The mailboxes of all shards, this one included.
    pub(crate) peers: Vec<ShardMailbox>,
    pub(crate) balancer: ConnectionBalancer,
    pub(crate) shutdown_barrier: ShutdownBarrier,
    pub(crate) store: StoreSettings,
    pub(crate) grpc: GrpcSettings,
    pub(crate) bridge: inventory_grpc::tonic_bridge::TonicBridge,
    /// What health checks report.
    pub(crate) health: watch::Receiver<HealthState>,
    pub(crate) answers_cached: usize,
    pub(crate) answers_cached_for: Duration,
    pub(crate) late_commit: LateCommit,
    pub(crate) sold_out_latch: Duration,
    pub(crate) read_staleness: Duration,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) store_health: StoreHealth,
    pub(crate) membership: ShardMembership,
    /// Which calls are sampled and where their spans go; `None` disables tracing.
    pub(crate) tracing: Option<(Sampler, SpanSink)>,
    /// Fraction of calls that are logged at info level.
    pub(crate) log_calls_ratio: f64,
    /// The current TLS of GRPC_PORT; `None`: connections without TLS.
    pub(crate) tls: Option<watch::Receiver<Arc<ServerConfig>>>,
}

/// Why a shard could not start.
#[derive(Debug)]
pub(crate) enum ShardStartError {
    /// The executor's ring could not be created.
    Ring(io::Error),
    Store(StoreConnectError),
}

/// What a shard had not finished when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnfinishedWork {
    /// Open connections.
    pub(crate) connections: usize,
    /// Operations whose outcome was not known.
    pub(crate) operations: usize,
}

/// A shard's thread.
pub(crate) struct ShardThread {
    pub(crate) shard: usize,
    thread: std::thread::JoinHandle<UnfinishedWork>,
}

impl ShardThread {
    /// Waits for the shard to end. `None` if its thread panicked.
    pub(crate) fn join(self) -> Option<UnfinishedWork> {
        self.thread.join().ok()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Notifies when a shard's thread ends, by return or by panic.
struct EndNotifier(Arc<Notify>);

impl Drop for EndNotifier {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Starts a shard's thread. `service` makes the service of its connections, once, on the shard. `started`
/// receives one message: whether the shard serves. `ended` is notified when the thread ends.
///
/// # Errors
/// If the operating system refuses a thread.
pub(crate) fn start<S: UnaryService + 'static>(
    config: ShardConfig,
    service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S + Send + 'static,
    started: std::sync::mpsc::Sender<(usize, Result<(), ShardStartError>)>,
    ended: Arc<Notify>,
) -> io::Result<ShardThread> {
    let shard = config.shard;
    let thread = std::thread::Builder::new().name(format!("shard-{shard}")).spawn(move || {
        let _notifier = EndNotifier(ended);
        let start_report = started.clone();
        let run = inventory_runtime::run_pinned(
            config.cpu,
            config.spin_before_park,
            run(config, service, started),
        );
        run.unwrap_or_else(|error| {
            let _ = start_report.send((shard, Err(ShardStartError::Ring(error))));
            UnfinishedWork::default()
        })
    })?;
    Ok(ShardThread { shard, thread })
}

/// Runs a shard from start to end.
async fn run<S: UnaryService + 'static>(
    config: ShardConfig,
    service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S,
    started: std::sync::mpsc::Sender<(usize, Result<(), ShardStartError>)>,
) -> UnfinishedWork {
    let shard = config.shard;
    log::set_shard(shard);
    let heartbeat = config.heartbeats.writer_for_current_thread(shard);
    let recorder = Rc::new(Recorder::new(shard));
    let health = config.store_health.writer(shard);
    let observer = Rc::new(observers::ShardStoreObserver::new(
        Rc::clone(&recorder),
        health.clone(),
        &config.store.tables,
    ));
    let store = match Store::connect(config.store.clone(), observer).await {
        Ok(store) => Rc::new(store),
        Err(error) => {
            let _ = started.send((shard, Err(ShardStartError::Store(error))));
            return UnfinishedWork::default();
        }
    };
    let context = Rc::new(ShardContext::new(&config, service, store, recorder, heartbeat));
    let ShardMembership { mut members, beats } = config.membership;
    // Before the first call: the engine would assign stripes twice.
    membership::pass_on(&context.driver, &mut members);
    let serve: Rc<dyn Fn(AcceptedSocket)> = {
        let context = Rc::clone(&context);
        Rc::new(move |accepted| context.serve(accepted))
    };
    let acceptor = Rc::new(Acceptor {
        listener: Listener::adopt(config.listener),
        shard,
        balancer: config.balancer,
        peers: config.peers,
        serve: Rc::clone(&serve),
        open: Rc::clone(&context.grpc.drain),
        failures: LogInterval::default(),
        evictions: LogInterval::default(),
    });
    let accepting = inventory_runtime::spawn(Rc::clone(&acceptor).accept());
    let replies = handle_replies(Rc::clone(&context.driver), config.inbox.replies);
    let replying = inventory_runtime::spawn(replies);
    let (driver, recorder) = (Rc::clone(&context.driver), Rc::clone(&context.recorder));
    let reclaiming = inventory_runtime::spawn(reclaim(driver, recorder, shard, config.shards));
    let probing = inventory_runtime::spawn(store_probe::run(Rc::clone(&context.driver), health));
    let heartbeat_task = inventory_runtime::spawn(write_heartbeats(context.heartbeat.clone()));
    let following =
        inventory_runtime::spawn(membership::follow(Rc::clone(&context.driver), members));
    let beats = beats.map(|beats| Beats::start(Rc::clone(&context.driver), beats));
    let _ = started.send((shard, Ok(())));

    let mut inbox = config.inbox.messages;
    let mode = context.serve_until_shutdown(&mut inbox, &serve).await;
    // Before all else: other processes take over the stripes while this process finishes its calls.
    beats.as_ref().inspect(|beats| beats.leave());
    reclaiming.cancel().await;
    // No new connections. The task must be cancelled: a detached accept loop outlives its executor.
    accepting.cancel().await;
    acceptor.close();
    let unfinished = match mode {
        ShutdownMode::Drain => context.drain(&mut inbox, &serve, &config.shutdown_barrier).await,
        ShutdownMode::Abort => context.abort(),
    };
    if let Some(beats) = beats {
        if mode == ShutdownMode::Drain {
            beats.wait_until_left().await;
        }
        beats.cancel().await;
    }
    following.cancel().await;
    replying.cancel().await;
    probing.cancel().await;
    heartbeat_task.cancel().await;
    unfinished
}

async fn handle_replies(driver: Rc<Driver>, mut replies: mpsc::UnboundedReceiver<ForwardReply>) {
    while let Some(reply) = replies.recv().await {
        driver.handle_reply(reply);
    }
}

/// Expires overdue holds until the future is dropped; starts again after a panic.
async fn reclaim(driver: Rc<Driver>, recorder: Rc<Recorder>, shard: usize, shards: usize) {
    loop {
        let (driver, recorder) = (Rc::clone(&driver), Rc::clone(&recorder));
        let reclaimer = Reclaimer::new(driver, recorder, shard, shards);
        if AssertUnwindSafe(reclaimer.run()).catch_unwind().await.is_err() {
            tracing::error!("hold reclaimer panicked");
        }
        inventory_runtime::sleep(limits::RECLAIM_EVERY).await;
    }
}

async fn write_heartbeats(heartbeat: HeartbeatWriter) {
    loop {
        heartbeat.beat(clock::monotonic());
        inventory_runtime::sleep(limits::HEARTBEAT_INTERVAL).await;
    }
}

/// How serving ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShutdownMode {
    Drain,
    Abort,
}

/// What the tasks of one shard share.
struct ShardContext<S> {
    shard: usize,
    balancer: ConnectionBalancer,
    service: Rc<S>,
    grpc: Rc<GrpcContext>,
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    heartbeat: HeartbeatWriter,
    open_connections: Cell<usize>,
    tls: Option<ShardTls>,
}

impl<S: UnaryService + 'static> ShardContext<S> {
    fn new(
        config: &ShardConfig,
        service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S,
        store: Rc<Store>,
        recorder: Rc<Recorder>,
        heartbeat: HeartbeatWriter,
    ) -> Self {
        let shard = config.shard;
        let settings = EngineSettings {
            shard,
            shards: config.shards,
            cache_capacity: config.answers_cached,
            cache_for: Micros(config.answers_cached_for.as_micros() as u64),
            late_commit: config.late_commit,
            sold_out_latch: Micros(config.sold_out_latch.as_micros() as u64),
            read_staleness: Micros(config.read_staleness.as_micros() as u64),
            attempt_timeout: Micros(config.store.attempt_timeout.as_micros() as u64),
        };
        let tracing = config.tracing.clone();
        let tracer = tracing.map(|(sampler, sink)| Rc::new(Tracer::new(sampler, sink)));
        let driver = Driver::new(
            shard,
            Engine::new(settings, SmallRng::from_os_rng()),
            store,
            config.peers.clone(),
            Rc::clone(&recorder),
            heartbeat.clone(),
            tracer.clone(),
        );
        let calls = Rc::new(observers::ShardCallObserver::new(
            Rc::clone(&recorder),
            heartbeat.clone(),
            tracer,
            config.log_calls_ratio,
        ));
        let (bridge, health) = (Some(config.bridge.clone()), Some(config.health.clone()));
        let settings = config.grpc.clone();
        let tls = config.tls.clone().map(|tls| ShardTls::new(tls, Rc::clone(&recorder)));
        Self {
            shard,
            balancer: config.balancer.clone(),
            service: Rc::new(service(Rc::clone(&driver), Rc::clone(&recorder))),
            grpc: Rc::new(GrpcContext::new(settings, Drain::new(), calls, bridge, health)),
            driver,
            recorder,
            heartbeat,
            open_connections: Cell::new(0),
            tls,
        }
    }

    /// Serves a connection that the balancer has counted on this shard.
    fn serve(self: &Rc<Self>, accepted: AcceptedSocket) {
        let stream = match accepted.bind_to_shard() {
            Ok(stream) => stream,
            Err(_disconnected) => {
                self.balancer.release(self.shard);
                return;
            }
        };
        let context = Rc::clone(self);
        context.open_connections.set(context.open_connections.get() + 1);
        inventory_runtime::spawn(async move {
            let service = Rc::clone(&context.service);
            let grpc = Rc::clone(&context.grpc);
            let ended = match &context.tls {
                None => {
                    let connection = inventory_grpc::serve_connection(stream, service, grpc);
                    AssertUnwindSafe(connection).catch_unwind().await
                }
                Some(tls) => {
                    let handshake = tls.accept(stream);
                    let connection =
                        inventory_grpc::serve_after_handshake(handshake, service, grpc);
                    // Boxed, so that the tasks of connections without TLS stay as small as they are.
                    AssertUnwindSafe(Box::pin(connection)).catch_unwind().await
                }
            };
            if ended.is_err() {
                tracing::error!("connection task panicked");
            }
            context.open_connections.set(context.open_connections.get() - 1);
            context.balancer.release(context.shard);
        })
        .detach();
    }

    /// Handles messages until a shutdown is requested or no sender is left.
    async fn serve_until_shutdown(
        self: &Rc<Self>,
        inbox: &mut mpsc::Receiver<ShardMessage>,
        serve: &Rc<dyn Fn(AcceptedSocket)>,
    ) -> ShutdownMode {
        while let Some(message) = inbox.recv().await {
            match message {
                ShardMessage::Drain => return ShutdownMode::Drain,
                ShardMessage::Abort => return ShutdownMode::Abort,
                other => self.handle_message(other, serve),
            }
        }
        ShutdownMode::Drain
    }

    /// Drains the connections, and handles messages until this shard and every shard that may still forward
    /// operations to this one are idle, or until an abort.
    ///
    /// 1. Listeners close on all shards, then GOAWAY is sent: a client that reconnects earlier would be reset
    ///    with the backlog of a listener that closes.
    /// 2. `all_idle` is read before the inbox: everything sent until then is in the inbox.
    /// 3. The shard ends if it is not busy and all shards were idle at step 2.
    async fn drain(
        self: &Rc<Self>,
        inbox: &mut mpsc::Receiver<ShardMessage>,
        serve: &Rc<dyn Fn(AcceptedSocket)>,
        barrier: &ShutdownBarrier,
    ) -> UnfinishedWork {
        barrier.listener_closed();
        self.heartbeat.set_activity(Activity::Drain);
        let start = clock::monotonic();
        let mut goaway_sent = false;
        loop {
            let late = clock::monotonic().since(start) > CLOSING_MAX;
            if !goaway_sent && (barrier.all_listeners_closed() || late) {
                goaway_sent = true;
                self.grpc.drain.start();
            }
            let all_idle = barrier.all_idle();
            while let Ok(message) = inbox.try_recv() {
                match message {
                    ShardMessage::Drain => {}
                    ShardMessage::Abort => return self.abort(),
                    other => self.handle_message(other, serve),
                }
            }
            // A connection on its way to this shard is already counted.
            let busy = self.balancer.open_connections(self.shard) > 0 || !self.driver.is_idle();
            if !busy && all_idle {
                return UnfinishedWork::default();
            }
            if !busy && barrier.all_listeners_closed() {
                barrier.idle();
            }
            inventory_runtime::sleep(DRAIN_POLL).await;
        }
    }

    /// Closes all connections at once.
    fn abort(&self) -> UnfinishedWork {
        self.grpc.drain.abort();
        UnfinishedWork {
            connections: self.open_connections.get(),
            operations: self.driver.operations_in_pools(),
        }
    }

    fn handle_message(self: &Rc<Self>, message: ShardMessage, serve: &Rc<dyn Fn(AcceptedSocket)>) {
        self.heartbeat.set_activity(match message {
            ShardMessage::Scrape(_) | ShardMessage::Counters(_) => Activity::Scrape,
            ShardMessage::Job(_) => Activity::Job,
            _ => Activity::Inbox,
        });
        match message {
            ShardMessage::Forward(forwarded) => {
                let ForwardedOperation { from, layout, operation, hint, span } = *forwarded;
                self.driver.handle_forwarded(from, layout, operation, hint, span);
            }
            ShardMessage::Query { event, layout, query, reply } => {
                self.driver.handle_forwarded_query(&event, layout, query, reply)
            }
            ShardMessage::Connection(accepted) => serve(accepted),
            ShardMessage::Scrape(reply) => {
                let _ = reply.send(self.measure());
            }
            ShardMessage::Counters(reply) => {
                let _ = reply.send(self.driver.counters());
            }
            ShardMessage::Job(job) => {
                // Called inside the guard: `job` itself may panic, not only the future it returns.
                let driver = Rc::clone(&self.driver);
                spawn_guarded(async move { job(driver).await });
            }
            ShardMessage::Drain | ShardMessage::Abort => {}
        }
    }

    fn measure(&self) -> ShardMetrics {
        let start = clock::monotonic();
        let metrics = self.recorder.take(ShardGauges {
            queue_depth: self.driver.queue_depth(),
            in_flight: self.driver.in_flight(),
            cpu: process::thread_cpu(),
            counters: self.driver.counters(),
            search: self.recorder.search_ages(clock::now()),
        });
        metrics.with_scrape_time(clock::monotonic().since(start))
    }
}

/// Runs a job of the control plane. A panic in the job is logged and ends only the job; its caller sees a
/// closed channel.
fn spawn_guarded(task: impl std::future::Future<Output = ()> + 'static) {
    inventory_runtime::spawn(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!("shard job panicked");
        }
    })
    .detach();
}
