//! Auxiliary services: health and reflection by tonic on a tokio thread, reached through the shard's port.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt;
use inventory_api::limits;
use inventory_grpc::tonic_bridge::{self, TonicBridge};
use inventory_grpc::{Code, GrpcSettings};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as Shown;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthReporter;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;

use crate::support::{Server, check, settings, within};

/// The control plane's end of the bridge, on a thread with its own runtime.
struct BridgeThread {
    bridge: Option<TonicBridge>,
    thread: Option<JoinHandle<()>>,
}

impl BridgeThread {
    fn start(routes: impl FnOnce() -> Routes + Send + 'static) -> Self {
        let (bridge, receiver) = tonic_bridge::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .unwrap()
                .block_on(async move { tonic_bridge::serve(receiver, routes()).await });
        });
        Self {
            bridge: Some(bridge),
            thread: Some(thread),
        }
    }

    fn server(&self, settings: GrpcSettings) -> Server {
        Server::start_with(settings, self.bridge.clone())
    }
}

impl Drop for BridgeThread {
    fn drop(&mut self) {
        // The thread ends after the last bridge and the last call are dropped: no task leaks.
        self.bridge.take();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn health_and_reflection() -> (BridgeThread, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let side = BridgeThread::start(move || {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(inventory_proto::DESCRIPTORS)
        };
        Routes::new(health)
            .add_service(builder().build_v1().unwrap())
            .add_service(builder().build_v1alpha().unwrap())
    });
    (side, reporter)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_is_reported_per_service() {
    let (side, reporter) = health_and_reflection();
    reporter
        .set_service_status("inventory.v1.Inventory", ServingStatus::Serving)
        .await;
    let server = side.server(settings());
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel);
    for service in ["", "inventory.v1.Inventory"] {
        let answer = within(health.check(of(service)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status(), Shown::Serving, "{service:?}");
    }
    let unknown = within(health.check(of("no.Such"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(
        server
            .client()
            .await
            .check_availability(check("now"))
            .await
            .is_ok()
    );
    server.see(|seen| {
        let auxiliary: Vec<_> = seen
            .finished
            .iter()
            .filter(|call| call.0 == "grpc.health.v1.Health")
            .collect();
        assert_eq!(auxiliary.len(), 3);
        assert_eq!(auxiliary[2].1, Code::NotFound);
    });
}

#[tokio::test]
async fn an_unknown_method_of_an_auxiliary_service_is_unimplemented() {
    let (side, _reporter) = health_and_reflection();
    let server = side.server(settings());
    let mut raw = crate::raw::Raw::connect(&server).await;
    let request = crate::raw::request("/grpc.health.v1.Health/Nope");
    let answer = raw.call(request, crate::raw::framed(&of(""))).await;
    assert_eq!(answer.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_watch_streams_every_change() {
    let (side, reporter) = health_and_reflection();
    let server = side.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    let mut watch = within(health.watch(of(""))).await.unwrap().into_inner();
    let now = within(watch.next()).await.unwrap().unwrap();
    assert_eq!(now.status(), Shown::Serving);
    for (set, shown) in [
        (ServingStatus::NotServing, Shown::NotServing),
        (ServingStatus::Serving, Shown::Serving),
    ] {
        reporter.set_service_status("", set).await;
        let change = within(watch.next()).await.unwrap().unwrap();
        assert_eq!(change.status(), shown);
    }
}

#[tokio::test]
async fn a_dropped_watch_releases_its_permit() {
    let (side, _reporter) = health_and_reflection();
    let server = side.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    let give_up = Instant::now() + Duration::from_secs(20);
    let mut watched = 0;
    while watched < 2 * limits::AUXILIARY_CALLS_MAX {
        match within(health.watch(of(""))).await {
            Ok(watch) => {
                let mut watch = watch.into_inner();
                within(watch.next()).await.unwrap().unwrap();
                watched += 1;
            }
            // The control plane may process the end of a call with a delay.
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        assert!(
            Instant::now() < give_up,
            "only {watched}: places do not come back"
        );
    }
    drop(health);
    let all = server.until("all ends", |seen| {
        (seen.finished.len() == seen.started.len()).then(|| seen.finished.clone())
    });
    let cancelled = all
        .await
        .iter()
        .filter(|call| call.1 == Code::Cancelled)
        .count();
    assert_eq!(cancelled, watched);
}

#[tokio::test]
async fn auxiliary_calls_beyond_the_limit_are_rejected_with_a_retry_delay() {
    let (side, _reporter) = health_and_reflection();
    let server = side.server(settings());
    let health = HealthClient::new(server.channel().await);
    let mut held = Vec::new();
    for _ in 0..limits::AUXILIARY_CALLS_MAX {
        held.push(within(health.clone().watch(of(""))).await.unwrap());
    }
    let refused = within(health.clone().check(of(""))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.get_details_error_info().unwrap().reason,
        "COLD_CALLS_EXCEEDED"
    );
    assert!(refused.get_details_retry_info().is_some());
    assert!(
        server
            .client()
            .await
            .check_availability(check("now"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    let (side, _reporter) = health_and_reflection();
    let server = side.server(settings());
    let channel = server.channel().await;

    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let ask = |message| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let asked = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "inventory.v1.Inventory".into(),
        )),
    ]);
    let mut answers = within(client.server_reflection_info(asked))
        .await
        .unwrap()
        .into_inner();
    let first = within(answers.next())
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = first else {
        panic!("{first:?}");
    };
    assert!(
        list.service
            .iter()
            .any(|service| service.name == "inventory.v1.Inventory")
    );
    let second = within(answers.next())
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    assert!(
        matches!(second, MessageResponse::FileDescriptorResponse(_)),
        "{second:?}"
    );
    assert!(within(answers.next()).await.is_none());

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let asked = futures::stream::iter([v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    }]);
    let mut answers = within(client.server_reflection_info(asked))
        .await
        .unwrap()
        .into_inner();
    assert!(within(answers.next()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_bidirectional_stream_answers_before_its_request_has_ended() {
    let (side, _reporter) = health_and_reflection();
    let server = side.server(settings());
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
    let mut answers = within(client.server_reflection_info(asked))
        .await
        .unwrap()
        .into_inner();
    for _ in 0..30 {
        within(answers.next()).await.unwrap().unwrap();
        ask.unbounded_send(request()).unwrap();
    }
    drop(ask);
    within(answers.next()).await.unwrap().unwrap();
    assert!(within(answers.next()).await.is_none());
}

#[tokio::test]
async fn a_deadline_ends_a_watch() {
    let (side, _reporter) = health_and_reflection();
    let server = side.server(settings());
    // The client does not enforce the deadline: the server's trailers end the call.
    let mut raw = crate::raw::Raw::connect(&server).await;
    let timed = crate::raw::with(
        crate::raw::request("/grpc.health.v1.Health/Watch"),
        "grpc-timeout",
        "60m",
    );
    let start = Instant::now();
    let answer = raw.call(timed, crate::raw::framed(&of(""))).await;
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
    assert!(!answer.body.is_empty());
}

#[tokio::test]
async fn a_drain_ends_a_watch_so_that_the_connection_can_close() {
    let (side, reporter) = health_and_reflection();
    let server = side.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    let mut watch = within(health.watch(of(""))).await.unwrap().into_inner();
    within(watch.next()).await.unwrap().unwrap();
    server.drain();
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    let last = within(watch.next()).await.unwrap().unwrap();
    assert_eq!(
        last.status(),
        Shown::NotServing,
        "the watch reports the shutdown"
    );
    let end = within(watch.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(
        end.get_details_error_info().unwrap().reason,
        "SHUTTING_DOWN"
    );
    server.empty().await;
}

/// Reads its request to the end. Returns code 0 if the request was complete, 10 if it was reset.
async fn read_to_end(body: axum::body::Body) -> axum::http::Response<axum::body::Body> {
    let whole = http_body_util::BodyExt::collect(body).await.is_ok();
    axum::http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", if whole { "0" } else { "10" })
        .body(axum::body::Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_complete_request_is_complete_for_the_service() {
    let side = BridgeThread::start(|| {
        let read = axum::routing::post(read_to_end);
        Routes::from(axum::Router::new().route("/grpc.health.v1.Health/Check", read))
    });
    let server = side.server(settings());
    let mut raw = crate::raw::Raw::connect(&server).await;
    let (response, mut stream) = raw
        .open(crate::raw::request("/grpc.health.v1.Health/Check"))
        .await
        .unwrap();
    // Longer than the window and the channel, so that it is relayed in many frames.
    let sent = tokio::spawn(async move {
        for n in 0..100 {
            stream.reserve_capacity(10_000);
            while stream.capacity() < 10_000 {
                futures::future::poll_fn(|cx| stream.poll_capacity(cx))
                    .await
                    .unwrap()
                    .unwrap();
            }
            stream.send_data(vec![0; 10_000].into(), n == 99).unwrap();
        }
    });
    let answer = within(crate::raw::answer(response)).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
    within(sent).await.unwrap();
}

/// Panics in Check; signals when a Watch is dropped.
struct PanickingHealth(std::sync::Mutex<Option<oneshot::Sender<()>>>);

struct DropSignal {
    gone: Option<oneshot::Sender<()>>,
}

impl Drop for DropSignal {
    fn drop(&mut self) {
        let _ = self.gone.take().unwrap().send(());
    }
}

#[tonic::async_trait]
impl Health for PanickingHealth {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        panic!("asked to panic");
    }

    type WatchStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let telling = DropSignal {
            gone: self.0.lock().unwrap().take(),
        };
        let stream = futures::stream::unfold(telling, |telling| async move {
            let _ = &telling;
            std::future::pending::<()>().await;
            None
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tokio::test]
async fn a_panic_in_an_auxiliary_service_fails_only_its_call() {
    let side =
        BridgeThread::start(|| Routes::new(HealthServer::new(PanickingHealth(Default::default()))));
    let server = side.server(settings());
    let mut health = HealthClient::new(server.channel().await);
    for _ in 0..3 {
        let status = within(health.check(of(""))).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.get_details_error_info().unwrap().reason, "PANIC");
    }
    server.see(|seen| assert_eq!(seen.opened, 1));
}

#[tokio::test]
async fn a_disconnect_ends_the_task_in_the_control_plane() {
    for reset in [true, false] {
        let (gone, told) = oneshot::channel();
        let side = BridgeThread::start(|| {
            Routes::new(HealthServer::new(PanickingHealth(Some(gone).into())))
        });
        let server = side.server(settings());
        let mut health = HealthClient::new(server.channel().await);
        let watch = within(health.watch(of(""))).await.unwrap();
        if reset {
            drop(watch);
            within(told).await.unwrap();
        } else {
            // The whole connection goes, with its stream open.
            let watching = watch.into_inner();
            server.abort();
            within(told).await.unwrap();
            drop(watching);
        }
    }
}
