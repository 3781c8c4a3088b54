//! Health and reflection: tonic services on a tokio thread, reached through the shard's port.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt;
use inventory_grpc::limits;
use inventory_grpc::tonic_bridge::{self, TonicBridge};
use inventory_grpc::{Code, GrpcSettings};
use inventory_testkit::http2::{Http2Client, encode, read_response, request, with_header};
use inventory_testkit::within_deadline;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as Shown;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthReporter;
use tonic_reflection::pb::v1;
use tonic_types::StatusExt;

use crate::fixture::{TestGrpcServer, check, settings};

/// A thread with a tokio runtime that serves tonic services.
struct TonicThread {
    bridge: Option<TonicBridge>,
    thread: Option<JoinHandle<()>>,
}

impl TonicThread {
    fn start(routes: impl FnOnce() -> Routes + Send + 'static) -> Self {
        let (bridge, receiver) = tonic_bridge::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move { tonic_bridge::serve(receiver, routes()).await });
        });
        Self { bridge: Some(bridge), thread: Some(thread) }
    }

    fn server(&self, settings: GrpcSettings) -> TestGrpcServer {
        TestGrpcServer::start_with(settings, self.bridge.clone())
    }
}

impl Drop for TonicThread {
    fn drop(&mut self) {
        // The thread ends after the last bridge and the last call: no task leaks.
        self.bridge.take();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn health_and_reflection() -> (TonicThread, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let services = TonicThread::start(move || {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(inventory_proto::DESCRIPTORS);
        Routes::new(health).add_service(reflection.build_v1().unwrap())
    });
    (services, reporter)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_checked_per_service() {
    let (services, reporter) = health_and_reflection();
    reporter.set_service_status("inventory.v1.Inventory", ServingStatus::Serving).await;
    let server = services.server(settings());
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel);
    for service in ["", "inventory.v1.Inventory"] {
        let answer = within_deadline(health.check(of(service))).await.unwrap().into_inner();
        assert_eq!(answer.status(), Shown::Serving, "{service:?}");
    }
    let unknown = within_deadline(health.check(of("no.Such"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(server.client().await.check_availability(check("now")).await.is_ok());
    server.inspect(|record| {
        let health: Vec<_> =
            record.finished.iter().filter(|call| call.0 == "grpc.health.v1.Health").collect();
        assert_eq!(health.len(), 3);
        assert_eq!(health[2].1, Code::NotFound);
    });
}

#[tokio::test]
async fn unknown_method_of_an_auxiliary_service_is_unimplemented() {
    let (services, _reporter) = health_and_reflection();
    let server = services.server(settings());
    let mut client = Http2Client::connect(server.address).await;
    let request = request("/grpc.health.v1.Health/Nope");
    let answer = client.call(request, encode(&of(""))).await;
    assert_eq!(answer.code(), Code::Unimplemented);
}

#[tokio::test]
async fn watch_streams_every_change() {
    let (services, reporter) = health_and_reflection();
    let server = services.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    let mut watch = within_deadline(health.watch(of(""))).await.unwrap().into_inner();
    let now = within_deadline(watch.next()).await.unwrap().unwrap();
    assert_eq!(now.status(), Shown::Serving);
    for (set, shown) in
        [(ServingStatus::NotServing, Shown::NotServing), (ServingStatus::Serving, Shown::Serving)]
    {
        reporter.set_service_status("", set).await;
        let change = within_deadline(watch.next()).await.unwrap().unwrap();
        assert_eq!(change.status(), shown);
    }
}

#[tokio::test]
async fn dropped_watch_frees_its_slot() {
    let (services, _reporter) = health_and_reflection();
    let server = services.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut watched = 0;
    while watched < 2 * limits::AUXILIARY_CALLS_MAX {
        match within_deadline(health.watch(of(""))).await {
            Ok(watch) => {
                let mut watch = watch.into_inner();
                within_deadline(watch.next()).await.unwrap().unwrap();
                watched += 1;
            }
            // The services' thread handles dropped watches with a delay.
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        assert!(Instant::now() < deadline, "slots are not freed: {watched} watches");
    }
    drop(health);
    let all = server.until("all ends", |record| {
        (record.finished.len() == record.started.len()).then(|| record.finished.clone())
    });
    let cancelled = all.await.iter().filter(|call| call.1 == Code::Cancelled).count();
    assert_eq!(cancelled, watched);
}

#[tokio::test]
async fn auxiliary_calls_over_the_limit_are_rejected() {
    let (services, _reporter) = health_and_reflection();
    let server = services.server(settings());
    let health = HealthClient::new(server.channel().await);
    let mut held = Vec::new();
    for _ in 0..limits::AUXILIARY_CALLS_MAX {
        held.push(within_deadline(health.clone().watch(of(""))).await.unwrap());
    }
    let refused = within_deadline(health.clone().check(of(""))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "COLD_CALLS_EXCEEDED");
    assert!(refused.get_details_retry_info().is_some());
    assert!(server.client().await.check_availability(check("now")).await.is_ok());
}

#[tokio::test]
async fn a_bidirectional_stream_answers_before_its_request_has_ended() {
    let (services, _reporter) = health_and_reflection();
    let server = services.server(settings());
    let channel = server.channel().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let (ask, asked) = futures::channel::mpsc::unbounded();
    let request = || v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    ask.unbounded_send(request()).unwrap();
    let mut answers =
        within_deadline(client.server_reflection_info(asked)).await.unwrap().into_inner();
    for _ in 0..30 {
        within_deadline(answers.next()).await.unwrap().unwrap();
        ask.unbounded_send(request()).unwrap();
    }
    drop(ask);
    within_deadline(answers.next()).await.unwrap().unwrap();
    assert!(within_deadline(answers.next()).await.is_none());
}

#[tokio::test]
async fn deadline_ends_a_watch() {
    let (services, _reporter) = health_and_reflection();
    let server = services.server(settings());
    // Without a client-services clock: the server's trailers are what ends it.
    let mut client = Http2Client::connect(server.address).await;
    let timed = with_header(request("/grpc.health.v1.Health/Watch"), "grpc-timeout", "60m");
    let start = Instant::now();
    let answer = client.call(timed, encode(&of(""))).await;
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
    assert!(!answer.body.is_empty());
}

#[tokio::test]
async fn drain_ends_watches() {
    let (services, reporter) = health_and_reflection();
    let server = services.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    let mut watch = within_deadline(health.watch(of(""))).await.unwrap().into_inner();
    within_deadline(watch.next()).await.unwrap().unwrap();
    server.drain();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let last = within_deadline(watch.next()).await.unwrap().unwrap();
    assert_eq!(last.status(), Shown::NotServing, "the last change before the end");
    let end = within_deadline(watch.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(end.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
    server.empty().await;
}

/// Reads the request to its end; status 0 if it was complete, 10 if it broke off.
async fn read_to_end(body: axum::body::Body) -> axum::http::Response<axum::body::Body> {
    let whole = http_body_util::BodyExt::collect(body).await.is_ok();
    axum::http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", if whole { "0" } else { "10" })
        .body(axum::body::Body::empty())
        .unwrap()
}

#[tokio::test]
async fn complete_request_arrives_complete() {
    let services = TonicThread::start(|| {
        let read = axum::routing::post(read_to_end);
        Routes::from(axum::Router::new().route("/grpc.health.v1.Health/Check", read))
    });
    let server = services.server(settings());
    let mut client = Http2Client::connect(server.address).await;
    let (response, mut stream) =
        client.open(request("/grpc.health.v1.Health/Check")).await.unwrap();
    // Longer than the window and the channel: it passes in many pieces.
    let sent = tokio::spawn(async move {
        for n in 0..100 {
            stream.reserve_capacity(10_000);
            while stream.capacity() < 10_000 {
                futures::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            }
            stream.send_data(vec![0; 10_000].into(), n == 99).unwrap();
        }
    });
    let answer = within_deadline(read_response(response)).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
    within_deadline(sent).await.unwrap();
}

/// Check panics; Watch never yields and sends a message when it is dropped.
struct PanickingHealth(std::sync::Mutex<Option<oneshot::Sender<()>>>);

struct DropSignal {
    dropped: Option<oneshot::Sender<()>>,
}

impl Drop for DropSignal {
    fn drop(&mut self) {
        let _ = self.dropped.take().unwrap().send(());
    }
}

#[tonic::async_trait]
impl Health for PanickingHealth {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        panic!("scripted panic");
    }

    type WatchStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let signal = DropSignal { dropped: self.0.lock().unwrap().take() };
        let stream = futures::stream::unfold(signal, |signal| async move {
            let _ = &signal;
            std::future::pending::<()>().await;
            None
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tokio::test]
async fn panic_in_an_auxiliary_service_fails_only_its_call() {
    let services =
        TonicThread::start(|| Routes::new(HealthServer::new(PanickingHealth(Default::default()))));
    let server = services.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    for _ in 0..3 {
        let status = within_deadline(health.check(of(""))).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.get_details_error_info().unwrap().reason, "PANIC");
    }
    server.inspect(|record| assert_eq!(record.opened, 1));
}

#[tokio::test]
async fn client_that_disconnects_ends_the_task_of_its_call() {
    for reset in [true, false] {
        let (dropped, is_dropped) = oneshot::channel();
        let services = TonicThread::start(|| {
            Routes::new(HealthServer::new(PanickingHealth(Some(dropped).into())))
        });
        let server = services.server(settings());
        let mut health = HealthClient::new(server.channel().await);
        let watch = within_deadline(health.watch(of(""))).await.unwrap();
        if reset {
            drop(watch);
            within_deadline(is_dropped).await.unwrap();
        } else {
            // The connection ends with an open stream.
            let watching = watch.into_inner();
            server.abort();
            within_deadline(is_dropped).await.unwrap();
            drop(watching);
        }
    }
}
