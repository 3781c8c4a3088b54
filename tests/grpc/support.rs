//! A test server: one executor on its own thread, with a service whose behaviour the request's event_id selects.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inventory_core::time::Micros;
use inventory_grpc::tonic_bridge::TonicBridge;
use inventory_grpc::{
    CallContext, CallObserver, Code, ConnectionEnd, Drain, GrpcContext, GrpcSettings, Inventory,
    InventoryServer, Status, serve_connection,
};
use inventory_proto::inventory::v1::inventory_client::InventoryClient;
use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes,
};
use inventory_runtime::Listener;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};

/// The longest wait of any test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The defaults with a deadline that a busy machine does not miss.
pub(crate) fn settings() -> GrpcSettings {
    GrpcSettings {
        call_timeout: PATIENCE,
        ..GrpcSettings::default()
    }
}

/// What the server observed, readable from the test's thread.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ended: Vec<ConnectionEnd>,
    pub(crate) opened: usize,
    pub(crate) started: Vec<&'static str>,
    pub(crate) finished: Vec<(&'static str, Code, Micros)>,
    /// Handlers that were dropped before they completed.
    pub(crate) dropped: usize,
}

type Shared = Arc<Mutex<Seen>>;

struct Observer(Shared);

impl CallObserver for Observer {
    fn call_started(&self, method: &'static str) {
        self.0.lock().unwrap().started.push(method);
    }

    fn call_finished(&self, method: &'static str, code: Code, latency: Micros) {
        self.0
            .lock()
            .unwrap()
            .finished
            .push((method, code, latency));
    }

    fn connection_opened(&self) {
        self.0.lock().unwrap().opened += 1;
    }

    fn connection_closed(&self, ended: ConnectionEnd) {
        self.0.lock().unwrap().ended.push(ended);
    }
}

struct Service {
    seen: Shared,
    /// Calls of "together" that have arrived.
    arrived: Cell<u64>,
}

/// Counts a handler that is dropped before it completes.
struct DropCounter<'a> {
    seen: &'a Shared,
    done: Cell<bool>,
}

impl Drop for DropCounter<'_> {
    fn drop(&mut self) {
        if !self.done.get() {
            self.seen.lock().unwrap().dropped += 1;
        }
    }
}

impl Inventory for Service {
    /// `event_id` is `what` or `what:number`.
    async fn check_availability(
        &self,
        call: &CallContext,
        request: CheckReq,
    ) -> Result<CheckRes, Status> {
        let guard = DropCounter {
            seen: &self.seen,
            done: Cell::new(false),
        };
        let (what, number) = request
            .event_id
            .split_once(':')
            .unwrap_or((&request.event_id, "0"));
        let number: u64 = number.parse().unwrap();
        let mut text = Vec::new();
        match what {
            "now" => {}
            "wait" => inventory_runtime::sleep(Duration::from_millis(number)).await,
            "yield" => {
                for _ in 0..number {
                    inventory_runtime::yield_now().await;
                }
            }
            "never" => pending().await,
            "together" => {
                self.arrived.set(self.arrived.get() + 1);
                while self.arrived.get() < number {
                    inventory_runtime::sleep(Duration::from_millis(1)).await;
                }
            }
            "spin" => {
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    Poll::<()>::Pending
                })
                .await;
            }
            "panic" => panic!("asked to panic at once"),
            "panic-late" => {
                inventory_runtime::sleep(Duration::from_millis(number)).await;
                panic!("asked to panic later");
            }
            "refuse" => {
                guard.done.set(true);
                return Err(Status::new(Code::Aborted, "SEAT_UNAVAILABLE", "taken")
                    .with_metadata("event_id", "evt"));
            }
            "deadline" => text.push((call.deadline.0 - call.arrived.0).to_string()),
            "header" => {
                let value = call.headers.get("x-test").unwrap();
                text.push(value.to_str().unwrap().to_owned());
            }
            "large" => text.push("x".repeat(usize::try_from(number).unwrap())),
            other => panic!("{other} is not known to this service"),
        }
        guard.done.set(true);
        Ok(CheckRes {
            available: true,
            unavailable_seats: text,
        })
    }

    async fn commit_reservation(
        &self,
        _: &CallContext,
        request: CommitReq,
    ) -> Result<CommitRes, Status> {
        Ok(CommitRes {
            order_id: format!("ord_{}", request.reservation_id),
            status: "CONFIRMED".to_owned(),
        })
    }

    async fn release_hold(&self, _: &CallContext, _: ReleaseReq) -> Result<ReleaseRes, Status> {
        Ok(ReleaseRes {
            status: "RELEASED".to_owned(),
        })
    }

    async fn place_hold(&self, _: &CallContext, _: PlaceHoldReq) -> Result<PlaceHoldRes, Status> {
        Ok(PlaceHoldRes::default())
    }

    async fn get_reservation(
        &self,
        _: &CallContext,
        _: GetReservationReq,
    ) -> Result<GetReservationRes, Status> {
        Ok(GetReservationRes::default())
    }
}

enum Command {
    Drain,
    Abort,
    /// Replied when no connection is open.
    Empty(oneshot::Sender<()>),
    /// Writes so far.
    Writes(oneshot::Sender<u64>),
    Polls(oneshot::Sender<u64>),
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Shared,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(settings: GrpcSettings) -> Self {
        Self::start_with(settings, None)
    }

    pub(crate) fn start_with(settings: GrpcSettings, bridge: Option<TonicBridge>) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (started, address) = std::sync::mpsc::channel();
        let seen = Shared::default();
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let shard = run(settings, bridge, shared, inbox, started);
            inventory_runtime::run_unpinned(shard).unwrap();
        });
        Self {
            address: address.recv_timeout(PATIENCE).unwrap(),
            seen,
            commands: Some(commands),
            thread: Some(thread),
        }
    }

    pub(crate) fn see<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// Polls until `look` returns a value.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&self.seen.lock().unwrap()) {
                return found;
            }
            assert!(Instant::now() < give_up, "timed out waiting for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The end of the first connection.
    pub(crate) async fn first_end(&self) -> ConnectionEnd {
        self.until("the end of a connection", |seen| {
            seen.ended.first().copied()
        })
        .await
    }

    pub(crate) fn drain(&self) {
        self.send(Command::Drain);
    }

    pub(crate) fn abort(&self) {
        self.send(Command::Abort);
    }

    pub(crate) async fn empty(&self) {
        self.ask(Command::Empty).await;
    }

    pub(crate) async fn writes(&self) -> u64 {
        self.ask(Command::Writes).await
    }

    pub(crate) async fn polls(&self) -> u64 {
        self.ask(Command::Polls).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (answer, answered) = oneshot::channel();
        self.send(command(answer));
        within(answered).await.unwrap()
    }

    fn send(&self, command: Command) {
        assert!(self.commands.as_ref().unwrap().send(command).is_ok());
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        within(endpoint.connect()).await.unwrap()
    }

    pub(crate) async fn client(&self) -> InventoryClient<Channel> {
        InventoryClient::new(self.channel().await)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands.take();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

async fn run(
    settings: GrpcSettings,
    bridge: Option<TonicBridge>,
    seen: Shared,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    started: std::sync::mpsc::Sender<SocketAddr>,
) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    started.send(listener.local_addr().unwrap()).unwrap();
    let listener = Listener::adopt(listener);
    let drain = Drain::new();
    let observer = Rc::new(Observer(Arc::clone(&seen)));
    let context = Rc::new(GrpcContext::new(
        settings,
        Rc::clone(&drain),
        observer,
        bridge,
    ));
    let service = Rc::new(InventoryServer::new(Service {
        seen,
        arrived: Cell::new(0),
    }));
    let accepting = inventory_runtime::spawn({
        let context = Rc::clone(&context);
        async move {
            loop {
                let stream = listener.accept().await.unwrap().bind_to_shard().unwrap();
                stream.set_nodelay(true).unwrap();
                let (service, context) = (Rc::clone(&service), Rc::clone(&context));
                inventory_runtime::spawn(serve_connection(stream, service, context)).detach();
            }
        }
    });
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Drain => drain.start(),
            Command::Abort => drain.abort(),
            Command::Writes(answer) => answer.send(context.stats.writes()).unwrap(),
            Command::Polls(answer) => answer.send(context.stats.polls()).unwrap(),
            Command::Empty(answer) => {
                drain.wait_until_empty().await;
                answer.send(()).unwrap();
            }
        }
    }
    let _: Option<()> = accepting.cancel().await;
    drain.abort();
    drain.wait_until_empty().await;
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("timed out")
}

pub(crate) fn check(event_id: &str) -> CheckReq {
    CheckReq {
        event_id: event_id.to_owned(),
        qty: 1,
        seat_ids: Vec::new(),
    }
}
