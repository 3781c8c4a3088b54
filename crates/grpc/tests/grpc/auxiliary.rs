//! Reflection: a tonic service on a tokio thread, reached through the shard's port.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures::StreamExt;
use http_body::Frame;
use http_body_util::StreamBody;
use inventory_grpc::limits;
use inventory_grpc::tonic_bridge::{self, TonicBridge};
use inventory_grpc::{Code, GrpcSettings};
use inventory_testkit::http2::{Http2Client, encode, read_response, request, with_header};
use inventory_testkit::within_deadline;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_reflection::pb::v1;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::fixture::{TestGrpcServer, check, settings};

const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

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

fn reflection() -> TonicThread {
    TonicThread::start(|| {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(inventory_proto::DESCRIPTORS)
            .build_v1()
            .unwrap();
        let gzip = tonic::codec::CompressionEncoding::Gzip;
        Routes::new(reflection.accept_compressed(gzip))
    })
}

fn list_services() -> v1::ServerReflectionRequest {
    v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    }
}

#[tokio::test]
async fn unknown_method_of_a_bridged_service_is_unimplemented() {
    let services = reflection();
    let server = services.server(settings());
    let mut client = Http2Client::connect(server.address).await;
    let request = request("/grpc.reflection.v1.ServerReflection/Nope");
    let answer = client.call(request, encode(&list_services())).await;
    assert_eq!(answer.code(), Code::Unimplemented);
}

/// An open reflection stream that has answered once.
async fn open_stream(
    channel: Channel,
) -> Result<(impl Sized, tonic::Streaming<v1::ServerReflectionResponse>), tonic::Status> {
    let (ask, asked) = futures::channel::mpsc::unbounded();
    ask.unbounded_send(list_services()).unwrap();
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = within_deadline(client.server_reflection_info(asked)).await?.into_inner();
    within_deadline(answers.next()).await.unwrap()?;
    Ok((ask, answers))
}

#[tokio::test]
async fn open_reflection_streams_of_one_connection_take_no_other_connections_place() {
    let services = reflection();
    let server = services.server(settings());
    let channel = server.channel().await;
    let mut held = Vec::new();
    for _ in 0..limits::BRIDGED_CALLS_PER_CONNECTION_MAX {
        held.push(open_stream(channel.clone()).await.unwrap());
    }
    let refused = open_stream(channel.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("8 reflection calls"), "{refused:?}");
    open_stream(server.channel().await).await.unwrap();
    // A stream that ends makes room.
    held.pop();
    loop {
        match open_stream(channel.clone()).await {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    }
    let mut client = server.client().await;
    assert!(client.check_availability(check("now")).await.is_ok());
}

#[tokio::test]
async fn deadline_ends_an_open_stream() {
    let services = reflection();
    let server = services.server(settings());
    // Without a clock of the client: the server's trailers end the call.
    let mut client = Http2Client::connect(server.address).await;
    let timed = with_header(request(REFLECT), "grpc-timeout", "60m");
    let (response, mut stream) = client.open(timed).await.unwrap();
    stream.send_data(encode(&list_services()), false).unwrap();
    let answer = within_deadline(read_response(response)).await.unwrap();
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
    assert!(!answer.body.is_empty());
}

#[tokio::test]
async fn gzip_requests_are_accepted() {
    let services = reflection();
    let server = services.server(settings());
    let mut client = ServerReflectionClient::new(server.channel().await)
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let asked = futures::stream::iter([list_services()]);
    let answers = within_deadline(client.server_reflection_info(asked)).await.unwrap();
    within_deadline(answers.into_inner().next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_bidirectional_stream_answers_before_its_request_has_ended() {
    let services = reflection();
    let server = services.server(settings());
    let mut client = ServerReflectionClient::new(server.channel().await);
    let (ask, asked) = futures::channel::mpsc::unbounded();
    ask.unbounded_send(list_services()).unwrap();
    let mut answers =
        within_deadline(client.server_reflection_info(asked)).await.unwrap().into_inner();
    for _ in 0..30 {
        within_deadline(answers.next()).await.unwrap().unwrap();
        ask.unbounded_send(list_services()).unwrap();
    }
    drop(ask);
    within_deadline(answers.next()).await.unwrap().unwrap();
    assert!(within_deadline(answers.next()).await.is_none());
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
        Routes::from(axum::Router::new().route(REFLECT, read))
    });
    let server = services.server(settings());
    let mut client = Http2Client::connect(server.address).await;
    let (response, mut stream) = client.open(request(REFLECT)).await.unwrap();
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

/// A route of the reflection service with this handler.
fn route(handler: axum::routing::MethodRouter) -> Routes {
    Routes::from(axum::Router::new().route(REFLECT, handler))
}

async fn panicking_handler() -> &'static str {
    panic!("scripted panic")
}

#[tokio::test]
async fn panic_in_a_bridged_service_fails_only_its_call() {
    let services = TonicThread::start(|| route(axum::routing::post(panicking_handler)));
    let server = services.server(settings());
    let mut client = Http2Client::connect(server.address).await;
    for _ in 0..3 {
        let answer = client.call(request(REFLECT), encode(&list_services())).await;
        assert_eq!((answer.code(), answer.reason().as_str()), (Code::Internal, "PANIC"));
    }
    server.inspect(|record| assert_eq!(record.opened, 1));
}

/// Sends a message when it is dropped.
struct DropSignal(Option<oneshot::Sender<()>>);

impl Drop for DropSignal {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// A response that never ends and owns `signal`.
fn endless_response(signal: DropSignal) -> axum::http::Response<axum::body::Body> {
    let frames = futures::stream::unfold(signal, async |signal| {
        let _ = &signal;
        std::future::pending::<Option<(Result<Frame<bytes::Bytes>, tonic::Status>, DropSignal)>>()
            .await
    });
    let body = axum::body::Body::new(StreamBody::new(frames));
    axum::http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

#[tokio::test]
async fn client_that_disconnects_ends_the_task_of_its_call() {
    for reset in [true, false] {
        let (dropped, is_dropped) = oneshot::channel();
        let services = TonicThread::start(|| {
            let signal = Arc::new(Mutex::new(Some(dropped)));
            route(axum::routing::post(async move || {
                endless_response(DropSignal(signal.lock().unwrap().take()))
            }))
        });
        let server = services.server(settings());
        let mut client = Http2Client::connect(server.address).await;
        let (response, mut stream) = client.open(request(REFLECT)).await.unwrap();
        let response = within_deadline(response).await.unwrap();
        if reset {
            stream.send_reset(h2::Reason::CANCEL);
            within_deadline(is_dropped).await.unwrap();
        } else {
            // The connection ends with an open stream.
            server.abort();
            within_deadline(is_dropped).await.unwrap();
        }
        drop(response);
    }
}
