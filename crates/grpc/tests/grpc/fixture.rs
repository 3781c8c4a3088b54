//! A gRPC server on a shard's executor and a thread of its own. Its service does what the event_id of the request
//! names; the server records calls and connections.

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
    CallContext, CallObserver, Code, ConnectionEnd, Drain, GrpcContext, GrpcSettings, HealthState,
    Inventory, InventoryServer, Status, serve_connection,
};
use inventory_proto::inventory::v1::inventory_client::InventoryClient;
use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes,
};
use inventory_runtime::Listener;
use inventory_testkit::http2::{ACK, FrameConnection, PING, frame};
use inventory_testkit::{DEADLINE, within_deadline};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::{Channel, Endpoint};

/// The defaults, with a call timeout that a busy machine keeps.
pub(crate) fn settings() -> GrpcSettings {
    GrpcSettings { call_timeout: Duration::from_secs(10), ..GrpcSettings::default() }
}

/// Calls and connections of the server, readable from the test's thread.
#[derive(Default)]
pub(crate) struct ServerRecord {
    pub(crate) ended: Vec<ConnectionEnd>,
    pub(crate) opened: usize,
    pub(crate) started: Vec<&'static str>,
    pub(crate) finished: Vec<(&'static str, Code, Micros)>,
    /// Handlers that were dropped before they returned.
    pub(crate) dropped: usize,
}

type SharedRecord = Arc<Mutex<ServerRecord>>;

struct RecordingObserver(SharedRecord);

impl CallObserver for RecordingObserver {
    fn call_started(&self, method: &'static str) {
        self.0.lock().unwrap().started.push(method);
    }

    fn call_finished(&self, method: &'static str, code: Code, latency: Micros) {
        self.0.lock().unwrap().finished.push((method, code, latency));
    }

    fn connection_opened(&self) {
        self.0.lock().unwrap().opened += 1;
    }

    fn connection_closed(&self, ended: ConnectionEnd) {
        self.0.lock().unwrap().ended.push(ended);
    }
}

struct ScriptedService {
    record: SharedRecord,
    /// Number of calls of `together` so far.
    arrived: Cell<u64>,
}

/// Counts a handler that is dropped before it returns.
struct HandlerGuard<'a> {
    record: &'a SharedRecord,
    done: Cell<bool>,
}

impl Drop for HandlerGuard<'_> {
    fn drop(&mut self) {
        if !self.done.get() {
            self.record.lock().unwrap().dropped += 1;
        }
    }
}

impl Inventory for ScriptedService {
    /// `event_id` is `what` or `what:number`.
    async fn check_availability(
        &self,
        call: &CallContext,
        request: CheckReq,
    ) -> Result<CheckRes, Status> {
        let guard = HandlerGuard { record: &self.record, done: Cell::new(false) };
        let (what, number) = request.event_id.split_once(':').unwrap_or((&request.event_id, "0"));
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
            "panic" => panic!("scripted panic"),
            "panic-late" => {
                inventory_runtime::sleep(Duration::from_millis(number)).await;
                panic!("scripted panic after a wait");
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
            other => panic!("unknown script: {other}"),
        }
        guard.done.set(true);
        Ok(CheckRes { available: true, unavailable_seats: text })
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
        Ok(ReleaseRes { status: "RELEASED".to_owned() })
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

enum ServerRequest {
    Drain,
    Abort,
    EvictIdlest(oneshot::Sender<bool>),
    /// Answered when the last connection has ended.
    Empty(oneshot::Sender<()>),
    /// Number of socket writes.
    Writes(oneshot::Sender<u64>),
    /// Number of polls of connections.
    Polls(oneshot::Sender<u64>),
}

pub(crate) struct TestGrpcServer {
    pub(crate) address: SocketAddr,
    record: SharedRecord,
    health: watch::Sender<HealthState>,
    commands: Option<mpsc::UnboundedSender<ServerRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl TestGrpcServer {
    pub(crate) fn start(settings: GrpcSettings) -> Self {
        Self::start_with(settings, None)
    }

    /// A server with health; [`TestGrpcServer::set_health`] changes what it reports.
    pub(crate) fn start_with(settings: GrpcSettings, bridge: Option<TonicBridge>) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (started, address) = std::sync::mpsc::channel();
        let record = SharedRecord::default();
        let shared = Arc::clone(&record);
        let (health, state) = watch::channel(HealthState::Serving);
        let thread = std::thread::spawn(move || {
            let shard = run((settings, bridge, state), shared, inbox, started);
            inventory_runtime::run_unpinned(shard).unwrap();
        });
        Self {
            address: address.recv_timeout(DEADLINE).unwrap(),
            record,
            health,
            commands: Some(commands),
            thread: Some(thread),
        }
    }

    pub(crate) fn inspect<T>(&self, read: impl FnOnce(&ServerRecord) -> T) -> T {
        read(&self.record.lock().unwrap())
    }

    /// Polls until `find` returns a value.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut find: impl FnMut(&ServerRecord) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = find(&self.record.lock().unwrap()) {
                return found;
            }
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// End of the first connection.
    pub(crate) async fn first_end(&self) -> ConnectionEnd {
        self.until("the end of a connection", |record| record.ended.first().copied()).await
    }

    pub(crate) fn set_health(&self, state: HealthState) {
        self.health.send_replace(state);
    }

    /// Ends the idlest connection; false if every connection is busy.
    pub(crate) async fn evict_idlest(&self) -> bool {
        self.ask(ServerRequest::EvictIdlest).await
    }

    pub(crate) fn drain(&self) {
        self.send(ServerRequest::Drain);
    }

    pub(crate) fn abort(&self) {
        self.send(ServerRequest::Abort);
    }

    pub(crate) async fn empty(&self) {
        self.ask(ServerRequest::Empty).await;
    }

    pub(crate) async fn writes(&self) -> u64 {
        self.ask(ServerRequest::Writes).await
    }

    pub(crate) async fn polls(&self) -> u64 {
        self.ask(ServerRequest::Polls).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> ServerRequest) -> T {
        let (answer, answered) = oneshot::channel();
        self.send(command(answer));
        within_deadline(answered).await.unwrap()
    }

    fn send(&self, command: ServerRequest) {
        assert!(self.commands.as_ref().unwrap().send(command).is_ok());
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        within_deadline(endpoint.connect()).await.unwrap()
    }

    pub(crate) async fn client(&self) -> InventoryClient<Channel> {
        InventoryClient::new(self.channel().await)
    }
}

impl Drop for TestGrpcServer {
    fn drop(&mut self) {
        self.commands.take();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

async fn run(
    (settings, bridge, health): (GrpcSettings, Option<TonicBridge>, watch::Receiver<HealthState>),
    record: SharedRecord,
    mut inbox: mpsc::UnboundedReceiver<ServerRequest>,
    started: std::sync::mpsc::Sender<SocketAddr>,
) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    started.send(listener.local_addr().unwrap()).unwrap();
    let listener = Listener::adopt(listener);
    let drain = Drain::new();
    let observer = Rc::new(RecordingObserver(Arc::clone(&record)));
    let context =
        Rc::new(GrpcContext::new(settings, Rc::clone(&drain), observer, bridge, Some(health)));
    let service = Rc::new(InventoryServer::new(ScriptedService { record, arrived: Cell::new(0) }));
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
            ServerRequest::Drain => drain.start(),
            ServerRequest::Abort => drain.abort(),
            ServerRequest::Writes(answer) => answer.send(context.stats.writes()).unwrap(),
            ServerRequest::Polls(answer) => answer.send(context.stats.polls()).unwrap(),
            ServerRequest::EvictIdlest(answer) => answer.send(drain.evict_idlest()).unwrap(),
            ServerRequest::Empty(answer) => {
                drain.wait_until_empty().await;
                answer.send(()).unwrap();
            }
        }
    }
    let _: Option<()> = accepting.cancel().await;
    drain.abort();
    drain.wait_until_empty().await;
}

pub(crate) fn check(event_id: &str) -> CheckReq {
    CheckReq { event_id: event_id.to_owned(), qty: 1, seat_ids: Vec::new() }
}

/// A connection on which neither side has anything left to do.
pub(crate) async fn open_idle(server: &TestGrpcServer) -> FrameConnection {
    let (mut connection, _) = FrameConnection::open(server.address).await;
    connection.send(&frame(PING, 0, 0, b"settled?")).await;
    let pong = connection.frame_of(PING).await.unwrap();
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"settled?"[..]));
    let mut polls = server.polls().await;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = server.polls().await;
        if now == polls {
            return connection;
        }
        polls = now;
    }
}
