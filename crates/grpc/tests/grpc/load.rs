//! Many concurrent calls: write coalescing, flow-control windows, slow readers.

use std::time::Duration;

use futures::future::join_all;
use inventory_grpc::limits;
use inventory_grpc::{Code, GrpcSettings};
use inventory_testkit::http2::{
    CHECK, DATA, END_HEADERS, END_STREAM, FrameConnection, HEADERS, Http2Client, SETTINGS, encode,
    frame, header_block, read_response, request,
};
use inventory_testkit::within_deadline;
use tokio::io::AsyncWriteExt;

use crate::fixture::{TestGrpcServer, check, settings};

/// The frames of requests on streams 1, 3, 5 …
fn burst(count: u32, what: &str) -> Vec<u8> {
    let block = header_block(CHECK, &[]);
    let message = encode(&check(what));
    let mut bytes = Vec::new();
    for n in 0..count {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
        bytes.extend(frame(DATA, END_STREAM, 2 * n + 1, &message));
    }
    bytes
}

/// Reads until that many streams have ended.
async fn read_ends(connection: &mut FrameConnection, mut count: u32) {
    while count > 0 {
        let frame = connection.frame().await.unwrap();
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            count -= 1;
        }
    }
}

#[tokio::test]
async fn many_responses_take_few_writes() {
    let server = TestGrpcServer::start(settings());
    let (mut connection, _) = FrameConnection::open(server.address).await;
    let before = server.writes().await;
    // More than one poll may read: the connection must wake itself.
    let burst = burst(1_000, "now");
    assert!(burst.len() > 2 * limits::READ_BYTES_PER_POLL_MAX);
    connection.send(&burst).await;
    read_ends(&mut connection, 1_000).await;
    let writes = server.writes().await - before;
    assert!(writes <= 60, "1,000 answers took {writes} writes");
}

#[tokio::test]
async fn responses_of_waiting_handlers_are_coalesced() {
    let server = TestGrpcServer::start(settings());
    let (mut connection, _) = FrameConnection::open(server.address).await;
    let before = server.writes().await;
    connection.send(&burst(300, "wait:30")).await;
    read_ends(&mut connection, 300).await;
    let writes = server.writes().await - before;
    assert!(writes <= 60, "300 answers took {writes} writes");
}

#[tokio::test]
async fn thousand_concurrent_streams_are_answered() {
    let server =
        TestGrpcServer::start(GrpcSettings { call_timeout: Duration::from_secs(10), ..settings() });
    let mut client = Http2Client::connect(server.address).await;
    let mut answers = Vec::new();
    for n in 0..1_000 {
        let what = if n % 2 == 0 { "now" } else { "yield:3" };
        let (response, mut stream) = client.open(request(CHECK)).await.unwrap();
        stream.send_data(encode(&check(what)), true).unwrap();
        answers.push(read_response(response));
    }
    for answer in within_deadline(join_all(answers)).await {
        assert_eq!(answer.unwrap().code(), Code::Ok);
    }
}

#[tokio::test]
async fn windows_reopen_when_requests_are_read() {
    let server = TestGrpcServer::start(settings());
    let client = server.client().await;
    // Several connection windows in total, and no call returns before all requests are read.
    let message = 60_000;
    let calls = 4 * usize::try_from(limits::CONNECTION_WINDOW_BYTES).unwrap() / message;
    let waiting = (0..calls).map(|_| {
        let mut client = client.clone();
        let mut request = check(&format!("together:{calls}"));
        request.seat_ids =
            vec![inventory_proto::inventory::v1::SeatRef { seat_id: "s".repeat(message) }];
        async move { client.check_availability(request).await }
    });
    for answer in within_deadline(join_all(waiting)).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn paused_reader_gets_everything_and_delays_no_other_connection() {
    let server =
        TestGrpcServer::start(GrpcSettings { call_timeout: Duration::from_secs(10), ..settings() });
    let (mut connection, _) = FrameConnection::open(server.address).await;
    // Windows so large that only the socket and the write buffer can push back.
    let window = (1u32 << 30).to_be_bytes();
    connection.send(&frame(SETTINGS, 0, 0, &[&[0, 4], &window[..]].concat())).await;
    connection.send(&frame(8, 0, 0, &window)).await;
    let (streams, size) = (400, 60_000);
    connection.stream.write_all(&burst(streams, &format!("large:{size}"))).await.unwrap();
    let mut other = server.client().await;
    for _ in 0..20 {
        assert!(within_deadline(other.check_availability(check("now"))).await.is_ok());
    }
    let (mut ended, mut bytes) = (0, 0);
    while ended < streams {
        let frame = connection.frame().await.unwrap();
        if frame.kind == DATA {
            bytes += frame.payload.len();
        }
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            ended += 1;
        }
    }
    assert!(bytes > size * usize::try_from(streams).unwrap(), "{bytes}");
}
