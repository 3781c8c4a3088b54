//! One shard: a pinned executor with its own listener, connections, lanes, store client, recorder.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | starting a shard's thread, its life from start to drain |
//! | `acceptor.rs`, `connection_balancer.rs` | taking connections, and which shard each goes to |
//! | `inbox.rs` | what crosses between shards |
//! | `shutdown_barrier.rs` | when a draining shard may end |
//! | `driver.rs` | carrying out the domain's effects |
//! | `reclaimer.rs` | giving back what holds have that are past their time |
//! | `observers.rs` | from the wire's and the store's hooks to the recorder |
//! | `spans.rs` | what is told of a call and of a transaction |
//!
//! Nothing is shared between shards on the way of a request.

pub mod acceptor;
pub mod connection_balancer;
pub mod driver;
pub mod inbox;
mod observers;
mod reclaimer;
pub mod shutdown_barrier;
mod spans;

use std::cell::Cell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use opentelemetry_sdk::trace::Sampler;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;

use self::acceptor::Acceptor;
use self::connection_balancer::ConnectionBalancer;
use self::driver::Driver;
use self::inbox::{ForwardedOperation, Inbox, Mailbox, ShardMessage};
use self::reclaimer::Reclaimer;
use self::shutdown_barrier::ShutdownBarrier;
use crate::limits;
use crate::telemetry::heartbeat::{Activity, HeartbeatWriter, Heartbeats};
use crate::telemetry::recorder::{Recorder, ShardGauges, ShardMetrics};
use crate::telemetry::trace::{SpanSink, Tracer};
use crate::telemetry::{log, process};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::rules::LateCommit;
use inventory_core::time::Micros;
use inventory_grpc::{Drain, GrpcContext, GrpcSettings, UnaryService};
use inventory_runtime::{AcceptedSocket, Listener, clock};
use inventory_store::{Store, StoreConnectError, StoreSettings};

/// How often a draining shard looks whether its lanes have settled.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// How long a draining shard waits for the others to close their listeners.
const CLOSING_MAX: Micros = Micros::from_millis(500);

/// Everything a shard needs; crosses into its thread.
pub struct ShardConfig {
    /// From 0.
    pub shard: usize,
    pub shards: usize,
    pub cpu: usize,
    pub spin_before_park: Duration,
    pub listener: std::net::TcpListener,
    pub inbox: Inbox,
    /// Every shard's mailbox, this one's included.
    pub peers: Vec<Mailbox>,
    pub balancer: ConnectionBalancer,
    pub shutdown_barrier: ShutdownBarrier,
    pub store: StoreSettings,
    pub grpc: GrpcSettings,
    pub bridge: inventory_grpc::tonic_bridge::TonicBridge,
    pub answers_cached: usize,
    pub answers_cached_for: Duration,
    pub late_commit: LateCommit,
    pub sold_out_latch: Duration,
    pub read_staleness: Duration,
    pub heartbeats: Heartbeats,
    /// Where spans go, and which calls are sampled; `None`: nobody wants any.
    pub tracing: Option<(Sampler, SpanSink)>,
    /// The part of all calls that is logged at info.
    pub log_calls_ratio: f64,
}

/// Why a shard could not start.
#[derive(Debug)]
pub enum ShardStartError {
    /// The executor's ring could not be made.
    Ring(io::Error),
    Store(StoreConnectError),
}

/// What a shard left behind when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnfinishedWork {
    /// Connections closed with calls on them.
    pub connections: usize,
    /// Operations whose outcome was still open.
    pub operations: usize,
}

/// A shard's thread.
pub struct ShardThread {
    pub shard: usize,
    thread: std::thread::JoinHandle<UnfinishedWork>,
}

impl ShardThread {
    /// Waits for the shard to end. `None` if its thread panicked.
    pub fn join(self) -> Option<UnfinishedWork> {
        self.thread.join().ok()
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Tells when a shard's thread ends, however it ends.
struct EndNotifier(Arc<Notify>);

impl Drop for EndNotifier {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Starts a shard's thread. `service` makes what its connections call, once, on the shard; `started`
/// hears once whether it serves, `ended` that it does no more.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start<S: UnaryService + 'static>(
    seat: ShardConfig,
    service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S + Send + 'static,
    started: std::sync::mpsc::Sender<(usize, Result<(), ShardStartError>)>,
    ended: Arc<Notify>,
) -> io::Result<ShardThread> {
    let shard = seat.shard;
    let thread = std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || {
            let _ends = EndNotifier(ended);
            let said = started.clone();
            let run = inventory_runtime::run_pinned(
                seat.cpu,
                seat.spin_before_park,
                run(seat, service, started),
            );
            run.unwrap_or_else(|error| {
                let _ = said.send((shard, Err(ShardStartError::Ring(error))));
                UnfinishedWork::default()
            })
        })?;
    Ok(ShardThread { shard, thread })
}

/// A shard's life.
async fn run<S: UnaryService + 'static>(
    seat: ShardConfig,
    service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S,
    started: std::sync::mpsc::Sender<(usize, Result<(), ShardStartError>)>,
) -> UnfinishedWork {
    let shard = seat.shard;
    log::set_shard(shard);
    let beat = seat.heartbeats.writer_for_current_thread(shard);
    let recorder = Rc::new(Recorder::new(shard));
    let observer = Rc::new(observers::ShardStoreObserver::new(
        Rc::clone(&recorder),
        &seat.store.tables,
    ));
    let store = match Store::connect(seat.store, observer).await {
        Ok(store) => Rc::new(store),
        Err(error) => {
            let _ = started.send((shard, Err(ShardStartError::Store(error))));
            return UnfinishedWork::default();
        }
    };
    let settings = EngineSettings {
        shard,
        shards: seat.shards,
        cache_capacity: seat.answers_cached,
        cache_for: Micros(seat.answers_cached_for.as_micros() as u64),
        late_commit: seat.late_commit,
        sold_out_latch: Micros(seat.sold_out_latch.as_micros() as u64),
        read_staleness: Micros(seat.read_staleness.as_micros() as u64),
    };
    let core = Engine::new(settings, SmallRng::from_os_rng());
    let tracer = seat
        .tracing
        .map(|(sampler, sink)| Rc::new(Tracer::new(sampler, sink)));
    let driver = Driver::new(
        shard,
        core,
        store,
        seat.peers.clone(),
        Rc::clone(&recorder),
        beat.clone(),
        tracer.clone(),
    );
    let service = Rc::new(service(Rc::clone(&driver), Rc::clone(&recorder)));
    let calls = Rc::new(observers::ShardCallObserver::new(
        Rc::clone(&recorder),
        beat.clone(),
        tracer,
        seat.log_calls_ratio,
    ));
    let desk = Rc::new(ShardContext {
        shard,
        balancer: seat.balancer.clone(),
        service,
        grpc: Rc::new(GrpcContext::new(
            seat.grpc,
            Drain::new(),
            calls,
            Some(seat.bridge),
        )),
        driver,
        recorder,
        heartbeat: beat.clone(),
        open_connections: Cell::new(0),
    });

    let serve: Rc<dyn Fn(AcceptedSocket)> = {
        let desk = Rc::clone(&desk);
        Rc::new(move |accepted| desk.serve(accepted))
    };
    let door = Rc::new(Acceptor {
        listener: Listener::adopt(seat.listener),
        shard,
        balancer: seat.balancer,
        peers: seat.peers,
        serve: Rc::clone(&serve),
    });
    let accepting = inventory_runtime::spawn(Rc::clone(&door).accept());
    let mut replies = seat.inbox.replies;
    let answered = Rc::clone(&desk.driver);
    let replying = inventory_runtime::spawn(async move {
        while let Some(reply) = replies.recv().await {
            answered.handle_reply(reply);
        }
    });
    let reclaimer = Reclaimer::new(
        Rc::clone(&desk.driver),
        Rc::clone(&desk.recorder),
        shard,
        seat.shards,
    );
    let reclaiming = inventory_runtime::spawn(async move {
        if AssertUnwindSafe(reclaimer.run())
            .catch_unwind()
            .await
            .is_err()
        {
            tracing::error!("the reclaimer of expired holds panicked");
        }
    });
    let ticking = inventory_runtime::spawn(async move {
        loop {
            beat.beat(clock::monotonic());
            inventory_runtime::sleep(limits::HEARTBEAT_INTERVAL).await;
        }
    });
    let _ = started.send((shard, Ok(())));

    let mut work = seat.inbox.messages;
    let told = desk.serve_until_shutdown(&mut work, &serve).await;
    reclaiming.cancel().await;
    // No new connections. The task must be gone, not only forgotten: an accept loop would go on.
    accepting.cancel().await;
    door.close();
    let ended = match told {
        ShutdownMode::Drain => desk.drain(&mut work, &serve, &seat.shutdown_barrier).await,
        ShutdownMode::Abort => desk.abort(),
    };
    replying.cancel().await;
    ticking.cancel().await;
    ended
}

/// What ends a shard's serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShutdownMode {
    Drain,
    Abort,
}

/// What the tasks of a shard share.
struct ShardContext<S> {
    shard: usize,
    balancer: ConnectionBalancer,
    service: Rc<S>,
    grpc: Rc<GrpcContext>,
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    heartbeat: HeartbeatWriter,
    open_connections: Cell<usize>,
}

impl<S: UnaryService + 'static> ShardContext<S> {
    /// Takes a connection whose place in the loads is reserved.
    fn serve(self: &Rc<Self>, accepted: AcceptedSocket) {
        let stream = match accepted.bind_to_shard() {
            Ok(stream) => stream,
            Err(_gone_already) => {
                self.balancer.release(self.shard);
                return;
            }
        };
        let desk = Rc::clone(self);
        desk.open_connections.set(desk.open_connections.get() + 1);
        inventory_runtime::spawn(async move {
            let service = Rc::clone(&desk.service);
            let context = Rc::clone(&desk.grpc);
            let connection = inventory_grpc::serve_connection(stream, service, context);
            if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
                tracing::error!("a connection's task panicked");
            }
            desk.open_connections.set(desk.open_connections.get() - 1);
            desk.balancer.release(desk.shard);
        })
        .detach();
    }

    /// Works until it is told to end, or everybody who could tell has gone.
    async fn serve_until_shutdown(
        self: &Rc<Self>,
        work: &mut tokio::sync::mpsc::Receiver<ShardMessage>,
        serve: &Rc<dyn Fn(AcceptedSocket)>,
    ) -> ShutdownMode {
        while let Some(item) = work.recv().await {
            match item {
                ShardMessage::Drain => return ShutdownMode::Drain,
                ShardMessage::Abort => return ShutdownMode::Abort,
                other => self.handle_message(other, serve),
            }
        }
        ShutdownMode::Drain
    }

    /// Asks the connections to leave, and works until all has settled, here and on the shards whose
    /// calls may still come here, or the grace is over.
    async fn drain(
        self: &Rc<Self>,
        work: &mut tokio::sync::mpsc::Receiver<ShardMessage>,
        serve: &Rc<dyn Fn(AcceptedSocket)>,
        presence: &ShutdownBarrier,
    ) -> UnfinishedWork {
        presence.listener_closed();
        self.heartbeat.set_activity(Activity::Drain);
        let began = clock::monotonic();
        let mut asked = false;
        loop {
            // Not before every listener is closed: who is asked to leave comes back at once, and
            // would be reset with the queue of a listener that closes.
            let late = clock::monotonic().since(began) > CLOSING_MAX;
            if !asked && (presence.all_listeners_closed() || late) {
                asked = true;
                self.grpc.drain.start();
            }
            // Looked at before the inbox: what was sent until then is in it.
            let all_settled = presence.all_idle();
            while let Ok(item) = work.try_recv() {
                match item {
                    ShardMessage::Drain => {}
                    ShardMessage::Abort => return self.abort(),
                    other => self.handle_message(other, serve),
                }
            }
            // The place of a connection on its way here is reserved: it counts.
            let mine = self.balancer.open_connections(self.shard) > 0 || !self.driver.is_idle();
            if !mine && all_settled {
                return UnfinishedWork::default();
            }
            if !mine && presence.all_listeners_closed() {
                presence.idle();
            }
            inventory_runtime::sleep(DRAIN_POLL).await;
        }
    }

    /// Ends as it is.
    fn abort(&self) -> UnfinishedWork {
        self.grpc.drain.abort();
        UnfinishedWork {
            connections: self.open_connections.get(),
            operations: self.driver.unsettled(),
        }
    }

    fn handle_message(self: &Rc<Self>, work: ShardMessage, serve: &Rc<dyn Fn(AcceptedSocket)>) {
        self.heartbeat.set_activity(match work {
            ShardMessage::Scrape(_) | ShardMessage::Counters(_) => Activity::Scrape,
            ShardMessage::Job(_) => Activity::Job,
            _ => Activity::Inbox,
        });
        match work {
            ShardMessage::Forward(forwarded) => {
                let ForwardedOperation {
                    from,
                    layout,
                    operation,
                    hint,
                    span,
                } = *forwarded;
                self.driver
                    .handle_forwarded(from, layout, operation, hint, span);
            }
            ShardMessage::Query {
                event,
                layout,
                query,
                told,
            } => self
                .driver
                .handle_forwarded_query(&event, layout, query, told),
            ShardMessage::Connection(accepted) => serve(accepted),
            ShardMessage::Scrape(reply) => {
                let _ = reply.send(self.measure());
            }
            ShardMessage::Counters(reply) => {
                let _ = reply.send(self.driver.counters());
            }
            ShardMessage::Job(job) => {
                // Made inside: what builds the future may panic as well as what polls it.
                let driver = Rc::clone(&self.driver);
                spawn_guarded(async move { job(driver).await });
            }
            ShardMessage::Drain | ShardMessage::Abort => {}
        }
    }

    fn measure(&self) -> ShardMetrics {
        let began = clock::monotonic();
        let metrics = self.recorder.take(ShardGauges {
            queue_depth: self.driver.in_line(),
            in_flight: self.driver.in_flight(),
            cpu: process::thread_cpu(),
            counters: self.driver.counters(),
        });
        metrics.with_scrape_time(clock::monotonic().since(began))
    }
}

/// Runs a task of the side thread; a panic in it is logged and ends nothing else. The asker sees
/// its channel closed.
fn spawn_guarded(task: impl std::future::Future<Output = ()> + 'static) {
    inventory_runtime::spawn(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!("a task panicked");
        }
    })
    .detach();
}

/// A reply channel's two ends, for those who ask a shard.
pub fn ask<T>() -> (oneshot::Sender<T>, oneshot::Receiver<T>) {
    oneshot::channel()
}
