//! grpc.health.v1, answered by the shard.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use inventory_grpc::{Code, GrpcSettings, HealthState, limits};
use inventory_testkit::http2::{
    DATA, END_HEADERS, FrameConnection, HEADERS, Http2Client, encode, frame, header_block,
    read_response, request, with_header,
};
use inventory_testkit::within_deadline;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus as Shown;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

use crate::fixture::{TestGrpcServer, check, settings};

const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn watch(
    health: &mut HealthClient<Channel>,
    service: &str,
) -> Result<Streaming<HealthCheckResponse>, tonic::Status> {
    within_deadline(health.watch(of(service))).await.map(tonic::Response::into_inner)
}

async fn next(watch: &mut Streaming<HealthCheckResponse>) -> Shown {
    within_deadline(watch.next()).await.unwrap().unwrap().status()
}

#[tokio::test]
async fn health_is_checked_per_service() {
    let server = TestGrpcServer::start(settings());
    let mut health = HealthClient::new(server.channel().await)
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    for (state, shown) in [
        (HealthState::Serving, Shown::Serving),
        (HealthState::NotServing, Shown::NotServing),
        (HealthState::Draining, Shown::NotServing),
    ] {
        server.set_health(state);
        for service in ["", "inventory.v1.Inventory"] {
            let answer = within_deadline(health.check(of(service))).await.unwrap().into_inner();
            assert_eq!(answer.status(), shown, "{service:?}");
        }
    }
    let unknown = within_deadline(health.check(of("no.Such"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    server.inspect(|record| {
        let codes: Vec<_> = record.finished.iter().map(|call| (call.0, call.1)).collect();
        assert_eq!(codes.len(), 7);
        assert_eq!(codes[6], ("grpc.health.v1.Health", Code::NotFound));
    });
}

#[tokio::test]
async fn unknown_method_is_unimplemented() {
    let server = TestGrpcServer::start(settings());
    let mut client = Http2Client::connect(server.address).await;
    let answer = client.call(request("/grpc.health.v1.Health/Nope"), encode(&of(""))).await;
    assert_eq!((answer.code(), answer.reason().as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"));
}

#[tokio::test]
async fn watch_streams_every_change_and_ends_when_the_process_drains() {
    let server = TestGrpcServer::start(settings());
    let mut health = HealthClient::new(server.channel().await);
    let mut known = watch(&mut health, "").await.unwrap();
    let mut unknown = watch(&mut health, "no.Such").await.unwrap();
    assert_eq!(next(&mut known).await, Shown::Serving);
    assert_eq!(next(&mut unknown).await, Shown::ServiceUnknown);
    for (state, shown) in
        [(HealthState::NotServing, Shown::NotServing), (HealthState::Serving, Shown::Serving)]
    {
        server.set_health(state);
        assert_eq!(next(&mut known).await, shown);
    }
    server.set_health(HealthState::Draining);
    assert_eq!(next(&mut known).await, Shown::NotServing);
    for mut ended in [known, unknown] {
        assert!(within_deadline(ended.next()).await.is_none());
    }
}

#[tokio::test]
async fn many_watches_leave_checks_calls_and_other_clients_alone() {
    let server = TestGrpcServer::start(settings());
    let mut health = HealthClient::new(server.channel().await);
    let most = limits::HEALTH_WATCHES_PER_CONNECTION_MAX;
    let opened = join_all((0..most).map(|_| {
        let mut health = health.clone();
        async move { watch(&mut health, "").await.unwrap() }
    }));
    let mut watches = opened.await;
    let refused = watch(&mut health, "").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let reason = refused.get_details_error_info().unwrap().reason;
    assert_eq!(reason, "HEALTH_WATCHES_EXCEEDED");
    assert!(refused.message().contains("this connection already has 500"), "{refused:?}");
    let mut other = HealthClient::new(server.channel().await);
    for health in [&mut health, &mut other] {
        let answer = within_deadline(health.check(of(""))).await.unwrap().into_inner();
        assert_eq!(answer.status(), Shown::Serving);
    }
    let mut first = watch(&mut other, "").await.unwrap();
    assert!(server.client().await.check_availability(check("now")).await.is_ok());
    server.set_health(HealthState::NotServing);
    for watch in watches.iter_mut().chain([&mut first]) {
        assert_eq!(next(watch).await, Shown::Serving);
        assert_eq!(next(watch).await, Shown::NotServing);
    }
}

#[tokio::test]
async fn dropped_watch_frees_its_slot() {
    let server = TestGrpcServer::start(settings());
    let mut health = HealthClient::new(server.channel().await);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut watched = 0;
    while watched < 2 * limits::HEALTH_WATCHES_PER_CONNECTION_MAX {
        match watch(&mut health, "").await {
            Ok(mut watch) => {
                next(&mut watch).await;
                watched += 1;
            }
            // The reset of a dropped watch is still on its way.
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
async fn deadline_ends_a_watch() {
    let server = TestGrpcServer::start(settings());
    // Without a clock of the client: the server's trailers end the call.
    let mut client = Http2Client::connect(server.address).await;
    let timed = with_header(request(WATCH), "grpc-timeout", "60m");
    let start = Instant::now();
    let answer = client.call(timed, encode(&of(""))).await;
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
    assert!(!answer.body.is_empty());
}

#[tokio::test]
async fn deadline_ends_a_request_without_an_end() {
    let server = TestGrpcServer::start(settings());
    let mut client = Http2Client::connect(server.address).await;
    for path in ["/grpc.health.v1.Health/Check", WATCH] {
        let timed = with_header(request(path), "grpc-timeout", "60m");
        let (response, stream) = client.open(timed).await.unwrap();
        let answer = within_deadline(read_response(response)).await.unwrap();
        assert_eq!(answer.code(), Code::DeadlineExceeded, "{path}");
        drop(stream);
    }
}

#[tokio::test]
async fn drain_ends_watches() {
    let server = TestGrpcServer::start(settings());
    let mut health = HealthClient::new(server.channel().await);
    let mut watch = watch(&mut health, "").await.unwrap();
    assert_eq!(next(&mut watch).await, Shown::Serving);
    server.drain();
    server.set_health(HealthState::NotServing);
    assert_eq!(next(&mut watch).await, Shown::NotServing, "the last change before the end");
    let end = within_deadline(watch.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(end.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
    server.empty().await;
}

#[tokio::test]
async fn watch_without_a_window_delays_nobody_and_ends_with_its_connection() {
    let server = TestGrpcServer::start(GrpcSettings { streams_per_connection: 8, ..settings() });
    let (mut connection, _) = FrameConnection::open(server.address).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0: the client accepts no DATA.
    let no_window = frame(inventory_testkit::http2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    connection.send(&no_window).await;
    connection.send(&frame(HEADERS, END_HEADERS, 1, &header_block(WATCH, &[]))).await;
    connection.send(&frame(DATA, 1, 1, &encode(&of("")))).await;
    assert_eq!(connection.frame_of(HEADERS).await.unwrap().stream, 1);
    let mut other = HealthClient::new(server.channel().await);
    for state in [HealthState::NotServing, HealthState::Serving] {
        server.set_health(state);
        assert!(within_deadline(other.check(of(""))).await.is_ok());
    }
    drop(connection);
    let ended = |record: &crate::fixture::ServerRecord| {
        (record.finished.len() == record.started.len()).then_some(())
    };
    server.until("the end of the watch", ended).await;
}
