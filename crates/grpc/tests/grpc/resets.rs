//! Calls that the client resets: bursts after a stall, which a connection survives, and floods, which it does not.

use std::time::{Duration, Instant};

use inventory_grpc::{Code, ConnectionEnd, GrpcSettings, limits};
use inventory_testkit::http2::{
    CHECK, DATA, END_HEADERS, END_STREAM, FrameConnection, HEADERS, Http2Client, PING, RST_STREAM,
    encode, frame, header_block, request,
};
use inventory_testkit::within_deadline;
use tokio::io::AsyncWriteExt;

use crate::fixture::{TestGrpcServer, check, settings};

const CANCEL: [u8; 4] = 8u32.to_be_bytes();

/// The frames of a complete call of `what` and its cancellation, for each of `count` streams from `first` on. The calls
/// come before the resets, in groups of `in_flight`, as from a client whose calls expire.
fn cancelled_calls(first: u32, count: u32, in_flight: u32, what: &str) -> Vec<u8> {
    let (block, message) = (header_block(CHECK, &[]), encode(&check(what)));
    let mut bytes = Vec::new();
    for group in 0..count / in_flight {
        let streams = (0..in_flight).map(|n| first + 2 * (group * in_flight + n));
        for stream in streams.clone() {
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
            bytes.extend(frame(DATA, END_STREAM, stream, &message));
        }
        for stream in streams {
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
        }
    }
    bytes
}

/// Reads until these streams have ended, in any order.
async fn wait_for_ends(connection: &mut FrameConnection, mut streams: Vec<u32>) {
    while !streams.is_empty() {
        let frame = connection.frame().await.expect("the connection has ended");
        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
            streams.retain(|stream| *stream != frame.stream);
        }
    }
}

#[tokio::test]
async fn cancellations_after_a_stall_end_no_other_call_of_the_connection() {
    let server = TestGrpcServer::start(settings());
    let (mut connection, _) = FrameConnection::open(server.address).await;
    // Stream 1 waits; then come six generations of 500 calls that expired, and a last call.
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &header_block(CHECK, &[]));
    bytes.extend(frame(DATA, END_STREAM, 1, &encode(&check("wait:300"))));
    bytes.extend(cancelled_calls(3, 3_000, 500, "never"));
    let last = 3 + 2 * 3_000;
    bytes.extend(frame(HEADERS, END_HEADERS, last, &header_block(CHECK, &[])));
    bytes.extend(frame(DATA, END_STREAM, last, &encode(&check("now"))));
    connection.send(&bytes).await;
    wait_for_ends(&mut connection, vec![1, last]).await;
    server.inspect(|record| {
        assert!(record.ended.is_empty());
        assert_eq!((record.started.len(), record.finished.len()), (3_002, 3_002));
        let ok = record.finished.iter().filter(|call| call.1 == Code::Ok).count();
        assert_eq!(ok, 2);
    });
}

#[tokio::test]
async fn a_call_that_is_reset_before_it_is_read_runs_no_handler() {
    let server = TestGrpcServer::start(settings());
    let (mut connection, _) = FrameConnection::open(server.address).await;
    connection.send(&cancelled_calls(1, 100, 1, "panic")).await;
    let mut other = Http2Client::connect(server.address).await;
    let answer = other.call(request(CHECK), encode(&check("now"))).await;
    assert_eq!(answer.code(), Code::Ok);
    server.until("all ends", |record| (record.finished.len() == 101).then_some(())).await;
    server.inspect(|record| {
        let cancelled = record.finished.iter().filter(|call| call.1 == Code::Cancelled).count();
        assert_eq!((cancelled, record.dropped), (100, 0));
    });
}

#[tokio::test]
async fn rapid_reset_flood_ends_only_its_connection() {
    let server = TestGrpcServer::start(GrpcSettings { streams_per_connection: 100, ..settings() });
    let mut other = Http2Client::connect(server.address).await;
    let (connection, _) = FrameConnection::open(server.address).await;
    let (mut reading, mut writing) = connection.stream.into_split();
    let block = header_block(CHECK, &[]);
    // Ends when the server closes; a million resets otherwise.
    let flood = tokio::spawn(async move {
        for group in 0..1_000 {
            let mut bytes = Vec::new();
            for n in 0..1_000 {
                let stream = 2 * (group * 1_000 + n) + 1;
                bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
                bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
            }
            if writing.write_all(&bytes).await.is_err() {
                return group;
            }
        }
        1_000
    });
    let mut sink = tokio::io::sink();
    let drained = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut sink).await });
    let mut slowest = Duration::ZERO;
    while server.inspect(|record| record.ended.is_empty()) {
        let start = Instant::now();
        let answer = other.call(request(CHECK), encode(&check("now"))).await;
        assert_eq!(answer.code(), Code::Ok);
        slowest = slowest.max(start.elapsed());
    }
    let ended = server.first_end().await;
    assert!(matches!(ended, ConnectionEnd::Protocol(h2::Reason::ENHANCE_YOUR_CALM)), "{ended:?}");
    let sent = within_deadline(flood).await.unwrap();
    let _ = within_deadline(drained).await.unwrap();
    assert!(sent < 1_000, "the flood was read to its end");
    assert!(slowest < Duration::from_secs(5), "a call beside the flood took {slowest:?}");
    let burst = 100 * limits::EARLY_RESETS_PER_STREAM_AND_SECOND;
    server.inspect(|record| {
        let cancelled = record.finished.iter().filter(|call| call.1 == Code::Cancelled).count();
        assert!(cancelled as u64 >= burst, "{cancelled}");
    });
}

#[tokio::test]
async fn late_frames_of_rejected_calls_end_no_connection() {
    let server = TestGrpcServer::start(settings());
    let (mut connection, _) = FrameConnection::open(server.address).await;
    let block = header_block("/inventory.v1.Inventory/Nope", &[]);
    // The server rejects each call before its message arrives: 1,500 at a time on a limit of 1,000 streams, because
    // rejected streams have ended.
    for round in 0..3u32 {
        let streams = (0..500).map(|n| 2 * (round * 500 + n) + 1);
        let heads: Vec<u8> =
            streams.clone().flat_map(|n| frame(HEADERS, END_HEADERS, n, &block)).collect();
        connection.send(&heads).await;
        let mut rejected = 0;
        while rejected < 500 {
            let answer = connection.frame().await.expect("the connection has ended");
            rejected += u32::from(answer.kind == HEADERS);
        }
        let late: Vec<u8> =
            streams.flat_map(|n| frame(DATA, END_STREAM, n, &encode(&check("now")))).collect();
        connection.send(&late).await;
    }
    connection.send(&frame(PING, 0, 0, b"is open?")).await;
    loop {
        let answer = connection.frame().await.expect("the connection has ended");
        if answer.kind == PING && answer.flags != 0 {
            break;
        }
    }
}
