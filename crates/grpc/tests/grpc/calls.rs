//! Calls: deadlines, panics, cancellation, slow bodies.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use inventory_grpc::limits;
use inventory_grpc::{Code, GrpcSettings};
use inventory_testkit::http2::{CHECK, Http2Client, encode, read_response, request, with_header};
use inventory_testkit::{DEADLINE, within_deadline};
use tonic::Request;
use tonic_types::StatusExt;

use crate::fixture::{TestGrpcServer, check, settings};

fn server() -> TestGrpcServer {
    TestGrpcServer::start(settings())
}

#[tokio::test]
async fn waiting_handlers_are_answered_when_they_return() {
    let server = server();
    let client = server.client().await;
    let calls = (0..50).map(|n| {
        let mut client = client.clone();
        async move { client.check_availability(check(&format!("wait:{}", n % 7))).await }
    });
    for answer in within_deadline(join_all(calls)).await {
        assert!(answer.unwrap().into_inner().available);
    }
}

#[tokio::test]
async fn body_in_many_frames_is_one_message() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    let (response, mut stream) = client.open(request(CHECK)).await.unwrap();
    for byte in encode(&check("now")) {
        stream.send_data(Bytes::copy_from_slice(&[byte]), false).unwrap();
        tokio::task::yield_now().await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(within_deadline(read_response(response)).await.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn body_that_never_ends_exceeds_the_deadline() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    let timed = with_header(request(CHECK), "grpc-timeout", "50m");
    let (response, mut stream) = client.open(timed).await.unwrap();
    stream.send_data(encode(&check("now")).slice(..6), false).unwrap();
    let answer = within_deadline(read_response(response)).await.unwrap();
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn deadline_drops_the_handler() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    // The client has no timer: the server ends the call.
    let start = Instant::now();
    let timed = with_header(request(CHECK), "grpc-timeout", "60m");
    let answer = client.call(timed, encode(&check("never"))).await;
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(60), "{took:?}");
    server.inspect(|record| {
        assert_eq!(record.dropped, 1);
        assert_eq!(record.finished[0].1, Code::DeadlineExceeded);
    });
}

#[tokio::test]
async fn each_of_many_deadlines_is_kept() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    // A long deadline at the front must not delay the short ones.
    let (_long, mut stream) = client.open(request(CHECK)).await.unwrap();
    stream.send_data(encode(&check("never")), true).unwrap();
    let start = Instant::now();
    let mut waiting = Vec::new();
    for n in (1..=40).rev() {
        let timed = with_header(request(CHECK), "grpc-timeout", &format!("{}m", n * 5));
        let (response, mut stream) = client.open(timed).await.unwrap();
        stream.send_data(encode(&check("never")), true).unwrap();
        waiting.push(async move {
            let answer = within_deadline(read_response(response)).await.unwrap();
            (n, answer.code(), start.elapsed())
        });
    }
    for (n, code, took) in join_all(waiting).await {
        assert_eq!(code, Code::DeadlineExceeded);
        assert!(took >= Duration::from_millis(n * 5), "{n}: {took:?}");
        assert!(took < DEADLINE / 2, "{n}: {took:?}");
    }
}

#[tokio::test]
async fn timeout_defaults_and_is_capped() {
    let short = GrpcSettings { call_timeout: Duration::from_millis(123), ..settings() };
    let server = TestGrpcServer::start(short);
    let mut client = server.client().await;
    let mut span = async |request: Request<_>| {
        let answer = client.check_availability(request).await.unwrap().into_inner();
        answer.unavailable_seats[0].parse::<u128>().unwrap()
    };
    assert_eq!(span(Request::new(check("deadline"))).await, 123_000);
    let mut long = Request::new(check("deadline"));
    long.set_timeout(Duration::from_secs(3_600));
    assert_eq!(span(long).await, limits::CALL_TIMEOUT_MAX.as_micros());
    let mut short = Request::new(check("deadline"));
    short.set_timeout(Duration::from_millis(5_000));
    let short = span(short).await;
    assert!(short <= 5_000_000 && short > 4_900_000, "{short}");
}

#[tokio::test]
async fn handler_reads_the_request_headers() {
    let server = server();
    let mut request = Request::new(check("header"));
    request.metadata_mut().insert("x-test", "record".parse().unwrap());
    let answer = server.client().await.check_availability(request).await.unwrap();
    assert_eq!(answer.into_inner().unavailable_seats, ["record"]);
}

#[tokio::test]
async fn panic_fails_only_its_own_call() {
    let server = server();
    let client = server.client().await;
    let neighbour = {
        let mut client = client.clone();
        tokio::spawn(async move { client.check_availability(check("wait:100")).await })
    };
    for what in ["panic", "panic-late:10", "panic"] {
        let status = client.clone().check_availability(check(what)).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{what}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "PANIC");
        assert!(!status.message().contains("scripted"), "{}", status.message());
    }
    assert!(within_deadline(neighbour).await.unwrap().is_ok());
    assert!(client.clone().check_availability(check("now")).await.is_ok());
    server.inspect(|record| assert_eq!(record.opened, 1));
}

#[tokio::test]
async fn reset_drops_the_handler() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    let (response, mut stream) = client.open(request(CHECK)).await.unwrap();
    stream.send_data(encode(&check("never")), true).unwrap();
    server.until("start of the call", |record| record.started.first().copied()).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    let finished = server.until("end of the call", |record| record.finished.first().copied()).await;
    assert_eq!(finished.1, Code::Cancelled);
    server.inspect(|record| {
        assert_eq!(record.dropped, 1);
        assert!(record.ended.is_empty());
    });
}

#[tokio::test]
async fn disconnect_drops_every_handler_of_the_connection() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let (response, mut stream) = client.open(request(CHECK)).await.unwrap();
        stream.send_data(encode(&check("never")), true).unwrap();
        held.push((response, stream));
    }
    server.until("start of all calls", |record| (record.started.len() == 20).then_some(())).await;
    client.task.abort();
    server.first_end().await;
    server.inspect(|record| {
        assert_eq!(record.dropped, 20);
        assert!(record.finished.iter().all(|(_, code, _)| *code == Code::Cancelled));
        assert_eq!(record.finished.len(), 20);
    });
}

#[tokio::test]
async fn handler_that_always_wakes_itself_starves_no_other_call() {
    let server = TestGrpcServer::start(GrpcSettings {
        call_timeout: Duration::from_millis(300),
        ..settings()
    });
    let mut spinning = server.client().await;
    let spinning = tokio::spawn(async move { spinning.check_availability(check("spin")).await });
    server.until("start of the call", |record| record.started.first().copied()).await;
    let mut other = server.client().await;
    assert!(within_deadline(other.check_availability(check("now"))).await.is_ok());
    let status = within_deadline(spinning).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
