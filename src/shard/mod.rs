//! One shard: a pinned executor with its own listener, connections, lanes, store client, recorder.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | starting a shard's thread, its life from start to drain |
//! | `accept.rs`, `balance.rs` | taking connections, and which shard each goes to |
//! | `inbox.rs` | what crosses between shards |
//! | `parting.rs` | when a draining shard may end |
//! | `driver.rs` | carrying out the domain's effects |
//! | `reclaim.rs` | giving back what holds have that are past their time |
//! | `observe.rs` | from the wire's and the store's hooks to the recorder |
//! | `spans.rs` | what is told of a call and of a transaction |
//!
//! Nothing is shared between shards on the way of a request.

pub mod accept;
pub mod balance;
pub mod driver;
pub mod inbox;
mod observe;
pub mod parting;
mod reclaim;
mod spans;

use std::cell::Cell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;

use self::accept::Door;
use self::balance::Loads;
use self::driver::Driver;
use self::inbox::{Forwarded, Inbox, Mailbox, Work};
use self::parting::Presence;
use self::reclaim::Reclaimer;
use crate::limits;
use crate::telemetry::pulse::{Beat, Doing, Pulses};
use crate::telemetry::recorder::{Levels, Recorder, Snapshot};
use crate::telemetry::trace::{Sampling, SpanSink, Tracer};
use crate::telemetry::{log, process};
use inventory_core::coordinator::{self, Coordinator};
use inventory_core::rules::LateCommit;
use inventory_core::time::Micros;
use inventory_grpc::{Drain, HotService, WireContext, WireSettings};
use inventory_runtime::{Accepted, Listener, clock};
use inventory_store::{ConnectError, Store, StoreSettings};

/// How often a draining shard looks whether its lanes have settled.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// How long a draining shard waits for the others to close their listeners.
const CLOSING_MAX: Micros = Micros::from_millis(500);

/// Everything a shard needs; crosses into its thread.
pub struct Seat {
    /// From 0.
    pub shard: usize,
    pub shards: usize,
    pub cpu: usize,
    pub spin_before_park: Duration,
    pub listener: std::net::TcpListener,
    pub inbox: Inbox,
    /// Every shard's mailbox, this one's included.
    pub peers: Vec<Mailbox>,
    pub loads: Loads,
    pub presence: Presence,
    pub store: StoreSettings,
    pub wire: WireSettings,
    pub cold: inventory_grpc::cold::ColdGate,
    pub answers_cached: usize,
    pub answers_cached_for: Duration,
    pub late_commit: LateCommit,
    pub sold_out_latch: Duration,
    pub read_staleness: Duration,
    pub pulses: Pulses,
    /// Where spans go, and which calls are sampled; `None`: nobody wants any.
    pub tracing: Option<(Sampling, SpanSink)>,
    /// The part of all calls that is logged at info.
    pub log_calls_ratio: f64,
}

/// Why a shard could not start.
#[derive(Debug)]
pub enum SeatError {
    /// The executor's ring could not be made.
    Ring(io::Error),
    Store(ConnectError),
}

/// What a shard left behind when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections closed with calls on them.
    pub connections: usize,
    /// Operations whose outcome was still open.
    pub operations: usize,
}

/// A shard's thread.
pub struct ShardThread {
    pub shard: usize,
    thread: std::thread::JoinHandle<Ended>,
}

impl ShardThread {
    /// Waits for the shard to end. `None` if its thread panicked.
    pub fn join(self) -> Option<Ended> {
        self.thread.join().ok()
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Tells when a shard's thread ends, however it ends.
struct Ends(Arc<Notify>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Starts a shard's thread. `service` makes what its connections call, once, on the shard; `started`
/// hears once whether it serves, `ended` that it does no more.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start<S: HotService + 'static>(
    seat: Seat,
    service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S + Send + 'static,
    started: std::sync::mpsc::Sender<(usize, Result<(), SeatError>)>,
    ended: Arc<Notify>,
) -> io::Result<ShardThread> {
    let shard = seat.shard;
    let thread = std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || {
            let _ends = Ends(ended);
            let said = started.clone();
            let run = inventory_runtime::run_pinned(
                seat.cpu,
                seat.spin_before_park,
                live(seat, service, started),
            );
            run.unwrap_or_else(|error| {
                let _ = said.send((shard, Err(SeatError::Ring(error))));
                Ended::default()
            })
        })?;
    Ok(ShardThread { shard, thread })
}

/// A shard's life.
async fn live<S: HotService + 'static>(
    seat: Seat,
    service: impl FnOnce(Rc<Driver>, Rc<Recorder>) -> S,
    started: std::sync::mpsc::Sender<(usize, Result<(), SeatError>)>,
) -> Ended {
    let shard = seat.shard;
    log::set_shard(shard);
    let beat = seat.pulses.of_this_thread(shard);
    let recorder = Rc::new(Recorder::new(shard));
    let observer = Rc::new(observe::StoreCalls::new(
        Rc::clone(&recorder),
        &seat.store.tables,
    ));
    let store = match Store::connect(seat.store, observer).await {
        Ok(store) => Rc::new(store),
        Err(error) => {
            let _ = started.send((shard, Err(SeatError::Store(error))));
            return Ended::default();
        }
    };
    let settings = coordinator::Settings {
        shard,
        shards: seat.shards,
        cache_capacity: seat.answers_cached,
        cache_for: Micros(seat.answers_cached_for.as_micros() as u64),
        late_commit: seat.late_commit,
        sold_out_latch: Micros(seat.sold_out_latch.as_micros() as u64),
        read_staleness: Micros(seat.read_staleness.as_micros() as u64),
    };
    let core = Coordinator::new(settings, SmallRng::from_os_rng());
    let tracer = seat
        .tracing
        .map(|(sampling, sink)| Rc::new(Tracer::new(sampling, sink)));
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
    let calls = Rc::new(observe::Calls::new(
        Rc::clone(&recorder),
        beat.clone(),
        tracer,
        seat.log_calls_ratio,
    ));
    let desk = Rc::new(Desk {
        shard,
        loads: seat.loads.clone(),
        service,
        context: Rc::new(WireContext::new(
            seat.wire,
            Drain::new(),
            calls,
            Some(seat.cold),
        )),
        driver,
        recorder,
        beat: beat.clone(),
        counted: Cell::default(),
        open: Cell::new(0),
    });

    let serve: Rc<dyn Fn(Accepted)> = {
        let desk = Rc::clone(&desk);
        Rc::new(move |accepted| desk.serve(accepted))
    };
    let door = Rc::new(Door {
        listener: Listener::adopt(seat.listener),
        shard,
        loads: seat.loads,
        peers: seat.peers,
        serve: Rc::clone(&serve),
    });
    let accepting = inventory_runtime::spawn(Rc::clone(&door).accept());
    let mut replies = seat.inbox.replies;
    let answered = Rc::clone(&desk.driver);
    let replying = inventory_runtime::spawn(async move {
        while let Some(reply) = replies.recv().await {
            answered.replied(reply);
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
            beat.tick(clock::monotonic());
            inventory_runtime::sleep(limits::TICK_EVERY).await;
        }
    });
    let _ = started.send((shard, Ok(())));

    let mut work = seat.inbox.work;
    let told = desk.until_told(&mut work, &serve).await;
    reclaiming.cancel().await;
    // No new connections. The task must be gone, not only forgotten: an accept loop would go on.
    accepting.cancel().await;
    door.close();
    let ended = match told {
        Told::Drain => desk.drain(&mut work, &serve, &seat.presence).await,
        Told::Abort => desk.abort(),
    };
    replying.cancel().await;
    ticking.cancel().await;
    ended
}

/// What ends a shard's serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Drain,
    Abort,
}

/// What the tasks of a shard share.
struct Desk<S> {
    shard: usize,
    loads: Loads,
    service: Rc<S>,
    context: Rc<WireContext>,
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    beat: Beat,
    /// The domain's totals at the last scrape.
    counted: Cell<inventory_core::counters::Counters>,
    open: Cell<usize>,
}

impl<S: HotService + 'static> Desk<S> {
    /// Takes a connection whose place in the loads is reserved.
    fn serve(self: &Rc<Self>, accepted: Accepted) {
        let stream = match accepted.settle_here() {
            Ok(stream) => stream,
            Err(_gone_already) => {
                self.loads.close(self.shard);
                return;
            }
        };
        let desk = Rc::clone(self);
        desk.open.set(desk.open.get() + 1);
        inventory_runtime::spawn(async move {
            let service = Rc::clone(&desk.service);
            let context = Rc::clone(&desk.context);
            let connection = inventory_grpc::serve_connection(stream, service, context);
            if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
                tracing::error!("a connection's task panicked");
            }
            desk.open.set(desk.open.get() - 1);
            desk.loads.close(desk.shard);
        })
        .detach();
    }

    /// Works until it is told to end, or everybody who could tell has gone.
    async fn until_told(
        self: &Rc<Self>,
        work: &mut tokio::sync::mpsc::Receiver<Work>,
        serve: &Rc<dyn Fn(Accepted)>,
    ) -> Told {
        while let Some(item) = work.recv().await {
            match item {
                Work::Drain => return Told::Drain,
                Work::Abort => return Told::Abort,
                other => self.handle(other, serve),
            }
        }
        Told::Drain
    }

    /// Asks the connections to leave, and works until all has settled, here and on the shards whose
    /// calls may still come here, or the grace is over.
    async fn drain(
        self: &Rc<Self>,
        work: &mut tokio::sync::mpsc::Receiver<Work>,
        serve: &Rc<dyn Fn(Accepted)>,
        presence: &Presence,
    ) -> Ended {
        presence.closed();
        self.beat.begins(Doing::Drain);
        let began = clock::monotonic();
        let mut asked = false;
        loop {
            // Not before every listener is closed: who is asked to leave comes back at once, and
            // would be reset with the queue of a listener that closes.
            let late = clock::monotonic().since(began) > CLOSING_MAX;
            if !asked && (presence.all_closed() || late) {
                asked = true;
                self.context.drain.start();
            }
            // Looked at before the inbox: what was sent until then is in it.
            let all_settled = presence.all_settled();
            while let Ok(item) = work.try_recv() {
                match item {
                    Work::Drain => {}
                    Work::Abort => return self.abort(),
                    other => self.handle(other, serve),
                }
            }
            // The place of a connection on its way here is reserved: it counts.
            let mine = self.loads.of(self.shard) > 0 || !self.driver.is_idle();
            if !mine && all_settled {
                return Ended::default();
            }
            if !mine && presence.all_closed() {
                presence.settled();
            }
            inventory_runtime::sleep(DRAIN_POLL).await;
        }
    }

    /// Ends as it is.
    fn abort(&self) -> Ended {
        self.context.drain.abort();
        Ended {
            connections: self.open.get(),
            operations: self.driver.unsettled(),
        }
    }

    fn handle(self: &Rc<Self>, work: Work, serve: &Rc<dyn Fn(Accepted)>) {
        self.beat.begins(match work {
            Work::Scrape(_) | Work::Totals(_) => Doing::Scrape,
            Work::Job(_) => Doing::Job,
            _ => Doing::Inbox,
        });
        match work {
            Work::Forward(forwarded) => {
                let Forwarded {
                    from,
                    route,
                    operation,
                    known,
                    span,
                } = *forwarded;
                self.driver.forwarded(from, route, operation, known, span);
            }
            Work::Question {
                event,
                shape,
                question,
                told,
            } => self.driver.asked(&event, shape, question, told),
            Work::Connection(accepted) => serve(accepted),
            Work::Scrape(reply) => {
                let _ = reply.send(self.measure());
            }
            Work::Totals(reply) => {
                let _ = reply.send(self.driver.counters());
            }
            Work::Job(job) => {
                // Made inside: what builds the future may panic as well as what polls it.
                let driver = Rc::clone(&self.driver);
                guarded(async move { job(driver).await });
            }
            Work::Drain | Work::Abort => {}
        }
    }

    fn measure(&self) -> Snapshot {
        let began = clock::monotonic();
        let now = self.driver.counters();
        self.recorder.domain(&self.counted.replace(now), &now);
        let snapshot = self.recorder.take(Levels {
            line_depth: self.driver.in_line(),
            in_flight: self.driver.in_flight(),
            cpu: process::thread_cpu(),
        });
        snapshot.having_taken(clock::monotonic().since(began))
    }
}

/// Runs a task of the side thread; a panic in it is logged and ends nothing else. The asker sees
/// its channel closed.
fn guarded(task: impl std::future::Future<Output = ()> + 'static) {
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
