//! Calls: deadlines, panics, cancellation, slow bodies.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use inventory_api::limits;
use inventory_grpc::{Code, GrpcSettings};
use tonic::Request;
use tonic_types::StatusExt;

use crate::raw::{CHECK, Raw, answer, framed, request, with};
use crate::support::{PATIENCE, Server, check, settings, within};

fn server() -> Server {
    Server::start(settings())
}

#[tokio::test]
async fn a_waiting_handler_is_answered_when_it_completes() {
    let server = server();
    let client = server.client().await;
    let calls = (0..50).map(|n| {
        let mut client = client.clone();
        async move {
            client
                .check_availability(check(&format!("wait:{}", n % 7)))
                .await
        }
    });
    for answer in within(join_all(calls)).await {
        assert!(answer.unwrap().into_inner().available);
    }
}

#[tokio::test]
async fn a_body_in_many_frames_is_one_message() {
    let server = server();
    let mut raw = Raw::connect(&server).await;
    let (response, mut stream) = raw.open(request(CHECK)).await.unwrap();
    for byte in framed(&check("now")) {
        stream
            .send_data(Bytes::copy_from_slice(&[byte]), false)
            .unwrap();
        tokio::task::yield_now().await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(within(answer(response)).await.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_by_the_deadline() {
    let server = server();
    let mut raw = Raw::connect(&server).await;
    let timed = with(request(CHECK), "grpc-timeout", "50m");
    let (response, mut stream) = raw.open(timed).await.unwrap();
    stream
        .send_data(framed(&check("now")).slice(..6), false)
        .unwrap();
    let answer = within(answer(response)).await.unwrap();
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_deadline_ends_a_handler() {
    let server = server();
    let mut raw = Raw::connect(&server).await;
    // The client does not enforce its own deadline: only the server can end the call.
    let start = Instant::now();
    let timed = with(request(CHECK), "grpc-timeout", "60m");
    let answer = raw.call(timed, framed(&check("never"))).await;
    assert_eq!(answer.code(), Code::DeadlineExceeded);
    assert_eq!(answer.reason(), "DEADLINE_EXCEEDED");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(60), "{took:?}");
    server.see(|seen| {
        assert_eq!(seen.dropped, 1);
        assert_eq!(seen.finished[0].1, Code::DeadlineExceeded);
    });
}

#[tokio::test]
async fn each_of_many_deadlines_is_enforced() {
    let server = server();
    let mut raw = Raw::connect(&server).await;
    // An earlier call with a long deadline must not delay later calls with short ones.
    let (_long, mut stream) = raw.open(request(CHECK)).await.unwrap();
    stream.send_data(framed(&check("never")), true).unwrap();
    let start = Instant::now();
    let mut waiting = Vec::new();
    for n in (1..=40).rev() {
        let timed = with(request(CHECK), "grpc-timeout", &format!("{}m", n * 5));
        let (response, mut stream) = raw.open(timed).await.unwrap();
        stream.send_data(framed(&check("never")), true).unwrap();
        waiting.push(async move {
            let answer = within(answer(response)).await.unwrap();
            (n, answer.code(), start.elapsed())
        });
    }
    for (n, code, took) in join_all(waiting).await {
        assert_eq!(code, Code::DeadlineExceeded);
        assert!(took >= Duration::from_millis(n * 5), "{n}: {took:?}");
        assert!(took < PATIENCE / 2, "{n}: {took:?}");
    }
}

#[tokio::test]
async fn the_default_timeout_applies_and_a_long_one_is_capped() {
    let short = GrpcSettings {
        call_timeout: Duration::from_millis(123),
        ..settings()
    };
    let server = Server::start(short);
    let mut client = server.client().await;
    let mut span = async |request: Request<_>| {
        let answer = client
            .check_availability(request)
            .await
            .unwrap()
            .into_inner();
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
async fn a_handler_sees_the_headers() {
    let server = server();
    let mut request = Request::new(check("header"));
    request
        .metadata_mut()
        .insert("x-test", "seen".parse().unwrap());
    let answer = server
        .client()
        .await
        .check_availability(request)
        .await
        .unwrap();
    assert_eq!(answer.into_inner().unavailable_seats, ["seen"]);
}

#[tokio::test]
async fn a_panic_fails_only_its_own_call() {
    let server = server();
    let client = server.client().await;
    let neighbour = {
        let mut client = client.clone();
        tokio::spawn(async move { client.check_availability(check("wait:100")).await })
    };
    for what in ["panic", "panic-late:10", "panic"] {
        let status = client
            .clone()
            .check_availability(check(what))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{what}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "PANIC");
        assert!(
            !status.message().contains("asked to"),
            "{}",
            status.message()
        );
    }
    assert!(within(neighbour).await.unwrap().is_ok());
    assert!(
        client
            .clone()
            .check_availability(check("now"))
            .await
            .is_ok()
    );
    server.see(|seen| assert_eq!(seen.opened, 1));
}

#[tokio::test]
async fn a_reset_drops_the_handler() {
    let server = server();
    let mut raw = Raw::connect(&server).await;
    let (response, mut stream) = raw.open(request(CHECK)).await.unwrap();
    stream.send_data(framed(&check("never")), true).unwrap();
    server
        .until("its start", |seen| seen.started.first().copied())
        .await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    let finished = server
        .until("its end", |seen| seen.finished.first().copied())
        .await;
    assert_eq!(finished.1, Code::Cancelled);
    server.see(|seen| {
        assert_eq!(seen.dropped, 1);
        assert!(seen.ended.is_empty());
    });
}

#[tokio::test]
async fn a_disconnect_drops_every_handler_of_its_connection() {
    let server = server();
    let mut raw = Raw::connect(&server).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let (response, mut stream) = raw.open(request(CHECK)).await.unwrap();
        stream.send_data(framed(&check("never")), true).unwrap();
        held.push((response, stream));
    }
    server
        .until("all starts", |seen| {
            (seen.started.len() == 20).then_some(())
        })
        .await;
    raw.task.abort();
    server.first_end().await;
    server.see(|seen| {
        assert_eq!(seen.dropped, 20);
        assert!(
            seen.finished
                .iter()
                .all(|(_, code, _)| *code == Code::Cancelled)
        );
        assert_eq!(seen.finished.len(), 20);
    });
}

#[tokio::test]
async fn a_handler_that_always_wakes_itself_does_not_starve_others() {
    let server = Server::start(GrpcSettings {
        call_timeout: Duration::from_millis(300),
        ..settings()
    });
    let mut spinning = server.client().await;
    let spinning = tokio::spawn(async move { spinning.check_availability(check("spin")).await });
    server
        .until("its start", |seen| seen.started.first().copied())
        .await;
    let mut other = server.client().await;
    assert!(within(other.check_availability(check("now"))).await.is_ok());
    let status = within(spinning).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
