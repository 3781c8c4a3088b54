//! The side thread over real sockets: probes, figures, health, reflection, admin, signals, stop.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inventory_api::domain::ids::EventId;
use inventory_api::domain::time::Micros;
use inventory_api::domain::transaction::StripeView;
use inventory_api::limits;
use inventory_api::side::admin::{AdminBackend, AdminError, Created, EventStock};
use inventory_api::side::{
    Readiness, Scrape, Shutdown, Side, SideHandle, SideSettings, cold_routes,
};
use inventory_api::telemetry::recorder::{Recorder, Snapshot};
use inventory_api::telemetry::registry::BuildInfo;
use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const SOON: Duration = Duration::from_secs(10);

/// Shard 0 answers a scrape, shard 1 does if `all` is set, and otherwise never.
struct Shards {
    all: bool,
}

#[tonic::async_trait]
impl Scrape for Shards {
    fn shards(&self) -> usize {
        2
    }

    async fn take(&self, shard: usize) -> Option<Snapshot> {
        if shard == 1 && !self.all {
            std::future::pending::<()>().await;
        }
        let recorder = Recorder::new(shard);
        recorder.call_started();
        recorder.call_finished("CommitReservation", Code::Ok, Micros::from_millis(12));
        Some(recorder.take())
    }
}

/// Events in memory; some names stand for troubles.
#[derive(Default)]
struct Events(Mutex<HashMap<EventId, EventStock>>);

fn trouble(event: &EventId) -> Result<(), AdminError> {
    let retry_after = Duration::from_millis(100);
    match event.as_str() {
        "busy" => Err(AdminError::Busy { retry_after }),
        "down" => Err(AdminError::Unavailable { retry_after }),
        "broken" => Err(AdminError::Internal),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl AdminBackend for Events {
    async fn create_event(
        &self,
        event: EventId,
        total: u64,
        stripes: u16,
    ) -> Result<Created, AdminError> {
        trouble(&event)?;
        let mut events = self.0.lock().unwrap();
        if let Some(stock) = events.get(&event) {
            let (standing, over) = (stock.total(), stock.stripes.len() as u16);
            return match (standing, over) == (total, stripes) {
                true => Ok(Created {
                    stock: stock.clone(),
                    created: false,
                }),
                false => Err(AdminError::EventExists {
                    total: standing,
                    stripes: over,
                }),
            };
        }
        let share =
            |index| total / u64::from(stripes) + u64::from(index < total % u64::from(stripes));
        let views = (0..u64::from(stripes)).map(|index| StripeView {
            capacity: share(index),
            remaining: share(index) - 1,
            version: 1,
            stripes: (index == 0).then_some(stripes),
        });
        let stock = EventStock {
            event: event.clone(),
            stripes: views.collect(),
        };
        events.insert(event, stock.clone());
        Ok(Created {
            stock,
            created: true,
        })
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        trouble(&event)?;
        self.0
            .lock()
            .unwrap()
            .get(&event)
            .cloned()
            .ok_or(AdminError::EventNotFound)
    }
}

fn free_port() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn settings(readiness: &Readiness) -> SideSettings {
    SideSettings {
        metrics: free_port(),
        admin: Some((free_port(), Arc::new(Events::default()))),
        scrape: Arc::new(Shards { all: true }),
        readiness: readiness.clone(),
        build: BuildInfo {
            service: "inventory-api".to_owned(),
            version: "1.0.0".to_owned(),
        },
        signals: false,
        tasks: Vec::new(),
    }
}

fn start() -> (SideHandle, Readiness) {
    let readiness = Readiness::new();
    (Side::start(settings(&readiness)).unwrap(), readiness)
}

fn client<T>(calls: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, calls).await.expect("in time") })
}

fn channel(to: SocketAddr) -> Channel {
    Endpoint::try_from(format!("http://{to}"))
        .unwrap()
        .connect_lazy()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends `head` and reads the answer to its end.
fn exchange(to: SocketAddr, head: &str) -> String {
    let mut stream = connect(to);
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Status and body of a GET.
fn get(to: SocketAddr, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = exchange(to, &head);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

#[test]
fn probes_follow_readiness_and_say_why_not() {
    let (side, readiness) = start();
    let at = side.metrics_address();
    assert_eq!(get(at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(
        get(at, "/readyz"),
        (503, "not ready: starting\n".to_owned())
    );
    readiness.ready();
    assert_eq!(get(at, "/readyz"), (200, "ready\n".to_owned()));
    readiness.drain("SIGTERM");
    assert_eq!(
        get(at, "/readyz"),
        (503, "not ready: draining (SIGTERM)\n".to_owned())
    );
    assert_eq!(get(at, "/healthz").0, 200, "draining is alive");
    let (status, body) = get(at, "/favicon.ico");
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"));
    let post = exchange(
        at,
        "POST /metrics HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

#[test]
fn metrics_are_the_sum_of_all_shards_since_the_start() {
    let (side, _readiness) = start();
    let head = "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let first = exchange(side.metrics_address(), head);
    assert!(
        first.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{first}"
    );
    let (status, text) = get(side.metrics_address(), "/metrics");
    assert_eq!(status, 200);
    let count = "grpc_request_duration_seconds_count{method=\"CommitReservation\"} 4\n";
    assert!(text.contains(count), "{text}");
    assert!(text.contains("inventory_scrape_incomplete 0\n"), "{text}");
}

#[test]
fn a_dead_shard_delays_only_the_scrape_and_that_for_a_bounded_time() {
    let mut settings = settings(&Readiness::new());
    settings.scrape = Arc::new(Shards { all: false });
    let side = Side::start(settings).unwrap();
    let at = side.metrics_address();
    let began = Instant::now();
    let mut scrape = connect(at);
    scrape
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(get(at, "/healthz").0, 200);
    assert!(
        began.elapsed() < limits::SCRAPE_TIMEOUT,
        "the probe did not wait for the scrape"
    );
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(began.elapsed() < 3 * limits::SCRAPE_TIMEOUT);
    assert!(text.contains("inventory_scrape_incomplete 1\n"), "{text}");
    assert!(
        text.contains("_count{method=\"CommitReservation\"} 1\n"),
        "{text}"
    );
}

#[test]
fn a_header_past_the_limit_is_refused_before_it_ends() {
    let (side, _readiness) = start();
    let long = "x".repeat(limits::HTTP_HEADER_BYTES_MAX + 1024);
    let answer = exchange(
        side.metrics_address(),
        &format!("GET /healthz HTTP/1.1\r\nx: {long}"),
    );
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn a_connection_past_the_last_slot_waits_for_one() {
    let (side, _readiness) = start();
    let at = side.metrics_address();
    let mut idle: Vec<_> = (0..limits::HTTP_CONNECTIONS_MAX)
        .map(|_| connect(at))
        .collect();
    for stream in &mut idle {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    let mut late = connect(at);
    late.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .unwrap();
    late.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(late.read(&mut [0; 12]).is_err(), "every slot is taken");
    late.set_read_timeout(Some(SOON)).unwrap();
    drop(idle.pop());
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// The cold services of the clients' port on a server of their own.
async fn cold_server(readiness: &Readiness) -> Channel {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let routes = cold_routes(readiness);
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_routes(routes);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    channel(address)
}

async fn check(health: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Code> {
    let service = service.to_owned();
    let answer = health.check(HealthCheckRequest { service }).await;
    answer
        .map(|a| a.into_inner().status())
        .map_err(|status| status.code())
}

#[test]
fn health_check_follows_readiness_per_service() {
    client(async {
        let readiness = Readiness::new();
        let mut health = HealthClient::new(cold_server(&readiness).await);
        for service in ["", "inventory.v1.Inventory"] {
            assert_eq!(
                check(&mut health, service).await,
                Ok(ServingStatus::NotServing)
            );
        }
        readiness.ready();
        for service in ["", "inventory.v1.Inventory"] {
            assert_eq!(
                check(&mut health, service).await,
                Ok(ServingStatus::Serving)
            );
        }
        assert_eq!(
            check(&mut health, "inventory.v1.InventoryAdmin").await,
            Err(Code::NotFound)
        );
        readiness.drain("test");
        assert_eq!(check(&mut health, "").await, Ok(ServingStatus::NotServing));
    });
}

#[test]
fn health_watch_tells_each_change_and_ends_with_the_drain() {
    client(async {
        let readiness = Readiness::new();
        let mut health = HealthClient::new(cold_server(&readiness).await);
        let watch = async |health: &mut HealthClient<Channel>, service: &str| {
            let service = service.to_owned();
            health
                .watch(HealthCheckRequest { service })
                .await
                .unwrap()
                .into_inner()
        };
        let mut known = watch(&mut health, "inventory.v1.Inventory").await;
        let mut unknown = watch(&mut health, "no.such.Service").await;
        let status = |m: Result<Option<tonic_health::pb::HealthCheckResponse>, Status>| {
            m.unwrap().map(|m| m.status())
        };
        assert_eq!(
            status(known.message().await),
            Some(ServingStatus::NotServing)
        );
        assert_eq!(
            status(unknown.message().await),
            Some(ServingStatus::ServiceUnknown)
        );
        readiness.ready();
        assert_eq!(status(known.message().await), Some(ServingStatus::Serving));
        readiness.drain("test");
        assert_eq!(
            status(known.message().await),
            Some(ServingStatus::NotServing)
        );
        assert_eq!(status(known.message().await), None);
        assert_eq!(status(unknown.message().await), None);
    });
}

/// Asks one version of reflection for the services' names and for the file of a symbol.
macro_rules! reflect {
    ($version:ident, $channel:expr, $symbol:expr) => {{
        use reflection::server_reflection_request::MessageRequest;
        use reflection::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as reflection;
        let mut client =
            reflection::server_reflection_client::ServerReflectionClient::new($channel);
        let requests = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol($symbol.to_owned()),
        ];
        let requests = requests.map(|request| reflection::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        });
        let mut answers = client
            .server_reflection_info(futures::stream::iter(requests))
            .await
            .unwrap()
            .into_inner();
        let list = answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap();
        let MessageResponse::ListServicesResponse(list) = list else {
            panic!("{list:?}")
        };
        let mut names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
        names.sort();
        (names, answers.message().await.map(|_file| ()))
    }};
}

const OWN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

#[test]
fn reflection_names_what_the_port_serves_and_nothing_else() {
    let (side, _readiness) = start();
    let admin = side.admin_address().unwrap();
    client(async {
        let clients = cold_server(&Readiness::new()).await;
        for (channel, own, other) in [
            (
                clients,
                "inventory.v1.Inventory",
                "inventory.v1.InventoryAdmin",
            ),
            (
                channel(admin),
                "inventory.v1.InventoryAdmin",
                "inventory.v1.Inventory",
            ),
        ] {
            let want = [&OWN_SERVICES[..], &[own]].concat();
            let (names, file) = reflect!(v1, channel.clone(), own);
            assert_eq!(names, want);
            file.unwrap();
            let (names, file) = reflect!(v1alpha, channel.clone(), own);
            assert_eq!(names, want);
            file.unwrap();
            let (_, file) = reflect!(v1, channel, other);
            assert_eq!(file.unwrap_err().code(), Code::NotFound, "{other}");
        }
    });
}

fn create(event_id: &str, total: i64, stripes: i32) -> pb::CreateEventRequest {
    let event_id = event_id.to_owned();
    pb::CreateEventRequest {
        event_id,
        total,
        stripes,
    }
}

#[test]
fn admin_creates_once_and_reads_back() {
    let (side, _readiness) = start();
    client(async {
        let mut admin = InventoryAdminClient::new(channel(side.admin_address().unwrap()));
        let made = admin
            .create_event(create("evt", 101, 4))
            .await
            .unwrap()
            .into_inner();
        assert!(made.created);
        let event = made.event.unwrap();
        assert_eq!(
            (event.total, event.remaining, event.confirmed),
            (101, 97, 4)
        );
        let shares: Vec<_> = event
            .stripes
            .iter()
            .map(|s| (s.index, s.capacity))
            .collect();
        assert_eq!(shares, [(0, 26), (1, 25), (2, 25), (3, 25)]);
        let again = admin
            .create_event(create("evt", 101, 4))
            .await
            .unwrap()
            .into_inner();
        assert!(!again.created);
        assert_eq!(again.event.as_ref(), Some(&event));
        let event_id = "evt".to_owned();
        let read = admin
            .get_event(pb::GetEventRequest { event_id })
            .await
            .unwrap();
        assert_eq!(read.into_inner().event, Some(event));
        // Not named, the stripe count is one.
        let one = admin
            .create_event(create("evt-1", 5, 0))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(one.event.unwrap().stripes.len(), 1);
    });
}

#[test]
fn admin_names_every_bad_field() {
    let (side, _readiness) = start();
    let long = "e".repeat(129);
    let cases = [
        (create("", 10, 1), vec!["event_id"]),
        (create(&long, 10, 1), vec!["event_id"]),
        (create("evt#1", 10, 1), vec!["event_id"]),
        (create("evt", 0, 1), vec!["total"]),
        (create("evt", -5, 1), vec!["total"]),
        (create("evt", 1_000_000_001, 1), vec!["total"]),
        (create("evt", 10, -1), vec!["stripes"]),
        (create("evt", 10, 65), vec!["stripes"]),
        (create("evt", 10, 11), vec!["stripes"]),
        (
            create("e v t", 0, i32::MIN),
            vec!["event_id", "total", "stripes"],
        ),
    ];
    client(async {
        let mut admin = InventoryAdminClient::new(channel(side.admin_address().unwrap()));
        for (request, want) in cases {
            let error = admin.create_event(request.clone()).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{request:?}");
            let bad = error.get_details_bad_request().unwrap();
            let named: Vec<_> = bad
                .field_violations
                .iter()
                .map(|v| v.field.as_str())
                .collect();
            assert_eq!(named, want, "{request:?}");
            for violation in &bad.field_violations {
                assert!(violation.description.contains("want "), "{violation:?}");
                assert!(error.message().contains(&violation.description), "{error}");
            }
            assert_eq!(
                error.get_details_error_info().unwrap().reason,
                "INVALID_ARGUMENT"
            );
        }
        let error = admin
            .get_event(pb::GetEventRequest::default())
            .await
            .unwrap_err();
        assert_eq!(
            error.get_details_bad_request().unwrap().field_violations[0].field,
            "event_id"
        );
    });
}

#[test]
fn admin_refusals_have_a_status_a_reason_and_the_event() {
    let (side, _readiness) = start();
    client(async {
        let mut admin = InventoryAdminClient::new(channel(side.admin_address().unwrap()));
        admin.create_event(create("evt", 10, 1)).await.unwrap();
        let other = admin.create_event(create("evt", 11, 1)).await.unwrap_err();
        assert!(other.message().contains("total 10 over 1"), "{other}");
        let mut refusals = vec![(other, Code::AlreadyExists, "EVENT_EXISTS", "evt")];
        for (event, code, reason) in [
            ("nowhere", Code::NotFound, "EVENT_NOT_FOUND"),
            ("busy", Code::ResourceExhausted, "STORE_BUSY"),
            ("down", Code::Unavailable, "STORE_UNAVAILABLE"),
            ("broken", Code::Internal, "INTERNAL"),
        ] {
            let event_id = event.to_owned();
            let error = admin
                .get_event(pb::GetEventRequest { event_id })
                .await
                .unwrap_err();
            refusals.push((error, code, reason, event));
        }
        for (error, code, reason, event) in refusals {
            assert_eq!(error.code(), code, "{event}");
            let info = error.get_details_error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.metadata["event_id"].as_str()),
                (reason, event)
            );
            let transient = matches!(event, "busy" | "down");
            assert_eq!(
                error.get_details_retry_info().is_some(),
                transient,
                "{event}"
            );
            let pushback = error.metadata().get("grpc-retry-pushback-ms");
            assert_eq!(
                pushback.map(|ms| ms.to_str().unwrap()),
                transient.then_some("100")
            );
        }
    });
}

#[test]
fn the_admin_port_has_health_of_its_own() {
    let (side, readiness) = start();
    readiness.ready();
    client(async {
        let mut health = HealthClient::new(channel(side.admin_address().unwrap()));
        let own = "inventory.v1.InventoryAdmin";
        assert_eq!(check(&mut health, own).await, Ok(ServingStatus::Serving));
        assert_eq!(
            check(&mut health, "inventory.v1.Inventory").await,
            Err(Code::NotFound)
        );
    });
}

#[test]
fn the_first_signal_asks_for_a_graceful_end_and_the_second_for_one_at_once() {
    let mut settings = settings(&Readiness::new());
    settings.signals = true;
    let side = Side::start(settings).unwrap();
    let mut shutdown = side.shutdown();
    assert_eq!(*shutdown.borrow(), Shutdown::No);
    let mut send = |signal| {
        // SAFETY: kill has no memory effects, and this process handles both signals by now.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
        client(async { shutdown.changed().await.unwrap() });
        *shutdown.borrow_and_update()
    };
    assert_eq!(send(libc::SIGTERM), Shutdown::Graceful { by: "SIGTERM" });
    assert_eq!(send(libc::SIGINT), Shutdown::Immediate { by: "SIGINT" });
    assert_eq!(
        get(side.metrics_address(), "/healthz").0,
        200,
        "the end is the server's to make"
    );
}

#[test]
fn a_stop_frees_the_ports_however_the_clients_behave() {
    let (dropped, task_dropped) = std::sync::mpsc::channel::<()>();
    let mut settings = settings(&Readiness::new());
    settings.tasks.push(Box::pin(async move {
        let _held = dropped;
        std::future::pending::<()>().await;
    }));
    let side = Side::start(settings).unwrap();
    let (metrics, admin) = (side.metrics_address(), side.admin_address().unwrap());
    // One says nothing, one stops in the middle of a header, one watches for ever.
    let _silent = (connect(metrics), connect(admin));
    let mut halting = connect(metrics);
    halting.write_all(b"GET /metr").unwrap();
    client(async {
        let mut health = HealthClient::new(channel(admin));
        let mut watch = health
            .watch(HealthCheckRequest::default())
            .await
            .unwrap()
            .into_inner();
        watch.message().await.unwrap().unwrap();
        let began = Instant::now();
        side.stop(SOON).unwrap();
        assert!(began.elapsed() < limits::SIDE_STOP_GRACE + SOON / 2);
    });
    assert!(
        task_dropped
            .recv_timeout(SOON)
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Disconnected)
    );
    for port in [metrics, admin] {
        assert!(
            TcpStream::connect(port).is_err(),
            "{port} is still listened on"
        );
    }
}

#[test]
fn a_stop_lets_a_request_finish() {
    let mut settings = settings(&Readiness::new());
    settings.scrape = Arc::new(Shards { all: false });
    let side = Side::start(settings).unwrap();
    let mut scrape = connect(side.metrics_address());
    let head = "GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n";
    scrape.write_all(head.as_bytes()).unwrap();
    // Answered on another connection: by now the side thread has seen the first as well.
    get(side.metrics_address(), "/healthz");
    side.stop(SOON).unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(text.contains("inventory_scrape_incomplete 1"), "{text}");
}
