//! Requests that the gRPC and HTTP/2 specifications do not allow, and their statuses.

use std::io::Write;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use inventory_grpc::limits;
use inventory_grpc::{Code, ConnectionEnd, GrpcSettings, PeerProtocol};
use inventory_proto::inventory::v1::{CheckRes, CommitReq, ReleaseReq};
use inventory_testkit::http2::{
    ACK, CHECK, DATA, END_HEADERS, END_STREAM, FrameConnection, GOAWAY, HEADERS, Http2Client, PING,
    RST_STREAM, encode, frame, header_block, request, with_header,
};
use inventory_testkit::within_deadline;
use prost::Message;
use tokio::io::AsyncWriteExt;
use tonic_types::StatusExt;

use crate::fixture::{TestGrpcServer, check, settings};

fn server() -> TestGrpcServer {
    TestGrpcServer::start(settings())
}

#[tokio::test]
async fn every_method_answers_a_tonic_client() {
    let server = server();
    let mut client = server.client().await;
    let checked = client.check_availability(check("now")).await.unwrap();
    assert!(checked.into_inner().available);
    let commit = CommitReq { reservation_id: "r1".into(), ..Default::default() };
    let order = client.commit_reservation(commit).await.unwrap().into_inner();
    assert_eq!((order.order_id.as_str(), order.status.as_str()), ("ord_r1", "CONFIRMED"));
    let released = client.release_hold(ReleaseReq::default()).await.unwrap();
    assert_eq!(released.into_inner().status, "RELEASED");
    server.inspect(|record| {
        assert_eq!(record.started.len(), 3);
        assert_eq!(record.finished[1].0, "/inventory.v1.Inventory/CommitReservation");
        assert!(record.finished.iter().all(|(_, code, _)| *code == Code::Ok));
    });
}

#[tokio::test]
async fn rejection_reaches_a_tonic_client_with_its_details() {
    let server = server();
    let status = server.client().await.check_availability(check("refuse")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "taken"));
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("SEAT_UNAVAILABLE", "inventory.v1"));
    assert_eq!(info.metadata["event_id"], "evt");
}

/// A compressed message with its gRPC prefix.
fn gzip(message: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(message).unwrap();
    let compressed = encoder.finish().unwrap();
    let length = u32::try_from(compressed.len()).unwrap().to_be_bytes();
    [&[1], &length[..], &compressed].concat().into()
}

/// HTTP status, gRPC status and reason.
type ExpectedStatus = (u16, Code, &'static str);

/// Name, request, body, and what is expected.
type SpecificationCase = (&'static str, Request<()>, Bytes, ExpectedStatus);

fn specification_cases() -> Vec<SpecificationCase> {
    use Code::{DeadlineExceeded, Internal, InvalidArgument, Ok, ResourceExhausted, Unimplemented};
    let good = encode(&check("now"));
    let check = || request(CHECK);
    let mut get = check();
    *get.method_mut() = Method::GET;
    let untyped = Request::post(format!("http://localhost{CHECK}")).body(()).unwrap();
    let typed = |content_type| with_header(check(), "content-type", content_type);
    let encoded = |encoding| with_header(check(), "grpc-encoding", encoding);
    let timed = |timeout| with_header(check(), "grpc-timeout", timeout);
    let cases = [
        ("good", check(), (200, Ok, "none")),
        ("+proto", typed("application/grpc+proto"), (200, Ok, "none")),
        ("identity", encoded("identity"), (200, Ok, "none")),
        ("GET", get, (405, Internal, "HTTP_METHOD_INVALID")),
        ("json", typed("application/json"), (415, Internal, "CONTENT_TYPE_INVALID")),
        ("grpc+json", typed("application/grpc+json"), (415, Internal, "CONTENT_TYPE_INVALID")),
        ("no type", untyped, (415, Internal, "CONTENT_TYPE_INVALID")),
        ("method", request("/inventory.v1.Inventory/Nope"), (200, Unimplemented, "METHOD_UNKNOWN")),
        ("service", request("/no.Such/Service"), (200, Unimplemented, "SERVICE_UNKNOWN")),
        ("path", request("/"), (200, Unimplemented, "METHOD_UNKNOWN")),
        (
            "no bridge",
            request("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            (200, Unimplemented, "SERVICE_UNKNOWN"),
        ),
        ("timeout", timed("250ms"), (200, InvalidArgument, "TIMEOUT_INVALID")),
        ("no time", timed("0m"), (200, DeadlineExceeded, "DEADLINE_EXCEEDED")),
    ];
    let with_good = |(name, request, expected)| (name, request, good.clone(), expected);
    let mut rows: Vec<SpecificationCase> = cases.into_iter().map(with_good).collect();

    let too_large = u32::try_from(limits::REQUEST_MESSAGE_BYTES_MAX + 1).unwrap();
    let oversized = Bytes::from([&[0], &too_large.to_be_bytes()[..]].concat());
    let twice = Bytes::from([&good[..], &good[..]].concat());
    let flagged = |flag: u8| Bytes::from([&[flag], &good[1..]].concat());
    // 20 KB that expand to 20 MB.
    let bomb = gzip(&vec![0; 20 * 1024 * 1024]);
    let no_protobuf = Bytes::from_static(b"\0\0\0\0\x02\x0a\x7f");
    let no_utf8 = Bytes::from_static(b"\0\0\0\0\x03\x0a\x01\xff");
    rows.extend([
        (
            "deflate",
            encoded("deflate"),
            flagged(1),
            (200, Unimplemented, "COMPRESSION_UNSUPPORTED"),
        ),
        ("gzip", encoded("gzip"), gzip(&good[5..]), (200, Ok, "none")),
        ("gzip, flag 0", encoded("gzip"), good.clone(), (200, Ok, "none")),
        ("not gzip", encoded("gzip"), flagged(1), (200, Internal, "MALFORMED_MESSAGE")),
        ("bomb", encoded("gzip"), bomb, (200, ResourceExhausted, "MESSAGE_TOO_LARGE")),
        ("flag 1", check(), flagged(1), (200, Internal, "COMPRESSION_UNDECLARED")),
        ("flag 7", check(), flagged(7), (200, Internal, "MALFORMED_MESSAGE")),
        ("large", check(), oversized, (200, ResourceExhausted, "MESSAGE_TOO_LARGE")),
        ("short", check(), good.slice(..7), (200, Internal, "MESSAGE_TRUNCATED")),
        ("prefix", check(), good.slice(..3), (200, Internal, "MESSAGE_TRUNCATED")),
        ("none", check(), Bytes::new(), (200, Unimplemented, "MESSAGE_COUNT")),
        ("two", check(), twice, (200, Unimplemented, "MESSAGE_COUNT")),
        ("protobuf", check(), no_protobuf, (200, Internal, "MALFORMED_MESSAGE")),
        ("utf-8", check(), no_utf8, (200, Internal, "MALFORMED_MESSAGE")),
    ]);
    rows
}

#[tokio::test]
async fn invalid_requests_get_the_status_of_the_specification() {
    let rows = specification_cases();
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    let sent = rows.len();
    for (row, request, body, (http, code, reason)) in rows {
        let answer = client.call(request, body).await;
        assert_eq!(answer.http.as_u16(), http, "{row}");
        assert_eq!(answer.code(), code, "{row}: {answer:?}");
        assert_eq!(answer.reason(), reason, "{row}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/grpc", "{row}");
        match row {
            "GET" => assert_eq!(answer.headers["allow"], "POST"),
            "deflate" => assert_eq!(answer.headers["grpc-accept-encoding"], "identity,gzip"),
            "timeout" => assert!(answer.status().message().contains("grpc-timeout")),
            _ => {}
        }
    }
    server.inspect(|record| {
        assert_eq!((record.started.len(), record.finished.len()), (sent, sent));
        assert_eq!(record.opened, 1, "one connection for all calls");
    });
}

#[tokio::test]
async fn response_is_framed_as_specified() {
    let server = server();
    let answer = Http2Client::connect(server.address)
        .await
        .call(request(CHECK), encode(&check("now")))
        .await;
    assert_eq!(answer.http, StatusCode::OK);
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(answer.body[0], 0);
    let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), answer.body.len() - 5);
    assert!(CheckRes::decode(&answer.body[5..]).unwrap().available);
}

#[tokio::test]
async fn settings_frame_has_the_limits() {
    let narrow = GrpcSettings { streams_per_connection: 77, ..settings() };
    let server = TestGrpcServer::start(narrow);
    let (_bare, frame) = FrameConnection::open(server.address).await;
    let mut settings: Vec<(u16, u32)> = frame
        .payload
        .chunks(6)
        .map(|entry| {
            let id = u16::from_be_bytes(entry[..2].try_into().unwrap());
            (id, u32::from_be_bytes(entry[2..].try_into().unwrap()))
        })
        .collect();
    settings.sort_unstable();
    // Table size, streams, stream window, frame size, header list: RFC 9113, 6.5.2.
    let want = [
        (1, limits::HEADER_TABLE_BYTES),
        (3, 77),
        (4, limits::STREAM_WINDOW_BYTES),
        (5, limits::FRAME_BYTES_MAX),
        (6, limits::HEADER_LIST_BYTES_MAX),
    ];
    assert_eq!(settings, want);
}

#[tokio::test]
async fn header_list_over_the_limit_is_rejected_and_the_connection_stays() {
    let server = server();
    let mut client = Http2Client::connect(server.address).await;
    let large = "x".repeat(usize::try_from(limits::HEADER_LIST_BYTES_MAX).unwrap());
    let (response, mut stream) =
        client.open(with_header(request(CHECK), "x-large", &large)).await.unwrap();
    let _ = stream.send_data(encode(&check("now")), true);
    match within_deadline(response).await {
        Ok(response) => assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(error.is_reset(), "{error:?}"),
    }
    let answer = client.call(request(CHECK), encode(&check("now"))).await;
    assert_eq!(answer.code(), Code::Ok);
    server.inspect(|record| assert_eq!(record.started.len(), 1));
}

#[tokio::test]
async fn malformed_frame_ends_its_connection_with_a_goaway() {
    let server = server();
    let mut other = Http2Client::connect(server.address).await;
    for malformed in [
        // DATA on stream 0, a PING of seven bytes, HEADERS on an even stream, a broken block.
        frame(DATA, 0, 0, b"x"),
        frame(PING, 0, 0, b"1234567"),
        frame(HEADERS, END_HEADERS, 2, &header_block(CHECK, &[])),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 10]),
    ] {
        let before = server.inspect(|record| record.ended.len());
        let (mut connection, _) = FrameConnection::open(server.address).await;
        connection.send(&malformed).await;
        assert!(connection.frame_of(GOAWAY).await.is_some(), "{malformed:?}");
        assert!(connection.is_closed_by_server().await);
        let ended =
            server.until("end of the connection", |record| record.ended.get(before).copied()).await;
        assert!(matches!(ended, ConnectionEnd::Protocol(_)), "{ended:?}");
    }
    let answer = other.call(request(CHECK), encode(&check("now"))).await;
    assert_eq!(answer.code(), Code::Ok);
}

/// RFC 9113, 8.1 and 8.1.1: a request whose content-length differs from its DATA, or with a second HEADERS frame that
/// does not end the stream, is malformed. A server may answer before it has seen that; a call that reads its request
/// has not answered.
#[tokio::test]
async fn malformed_call_is_reset_and_runs_no_handler() {
    let server = server();
    let message = encode(&check("now"));
    let half = &message[..message.len() / 2];
    let length = |bytes: usize| header_block(CHECK, &[("content-length", &bytes.to_string())]);
    for (what, frames) in [
        (
            "more DATA than content-length",
            [frame(HEADERS, END_HEADERS, 1, &length(1)), frame(DATA, END_STREAM, 1, &message)],
        ),
        (
            "less DATA than content-length",
            [
                frame(HEADERS, END_HEADERS, 1, &length(message.len() + 1)),
                frame(DATA, END_STREAM, 1, &message),
            ],
        ),
        (
            "two DATA frames with more than content-length",
            [
                frame(HEADERS, END_HEADERS, 1, &length(message.len() - 1)),
                [frame(DATA, 0, 1, half), frame(DATA, END_STREAM, 1, &message[half.len()..])]
                    .concat(),
            ],
        ),
        (
            "HEADERS without END_STREAM after DATA",
            [
                frame(HEADERS, END_HEADERS, 1, &header_block(CHECK, &[])),
                [frame(DATA, 0, 1, half), frame(HEADERS, END_HEADERS, 1, b"\0\x01x\x01y")].concat(),
            ],
        ),
    ] {
        let (mut connection, _) = FrameConnection::open(server.address).await;
        connection.send(&frames.concat()).await;
        let reset = loop {
            let frame = connection.frame().await.expect("the connection has ended");
            assert_ne!(frame.kind, HEADERS, "{what}: answered");
            if frame.kind == RST_STREAM {
                break frame;
            }
        };
        assert_eq!(
            (reset.stream, reset.payload),
            (1, 1_u32.to_be_bytes().to_vec()),
            "{what}: PROTOCOL_ERROR"
        );
        // Only the stream: the connection serves the next call.
        let next = [
            frame(HEADERS, END_HEADERS, 3, &header_block(CHECK, &[])),
            frame(DATA, END_STREAM, 3, &message),
        ];
        connection.send(&next.concat()).await;
        assert_eq!(connection.frame_of(HEADERS).await.unwrap().stream, 3, "{what}");
    }
    server.inspect(|record| {
        let ok = record.finished.iter().filter(|call| call.1 == Code::Ok).count();
        assert_eq!(ok, 4, "{:?}", record.finished);
    });
}

#[tokio::test]
async fn http_1_request_closes_the_connection() {
    let server = server();
    let mut connection = FrameConnection::connect(server.address).await;
    connection.stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(connection.is_closed_by_server().await);
    assert_eq!(server.first_end().await, ConnectionEnd::WrongProtocol(PeerProtocol::Http1));
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_without_a_call() {
    let narrow = GrpcSettings { streams_per_connection: 4, ..settings() };
    let server = TestGrpcServer::start(narrow);
    let (mut connection, _) = FrameConnection::open(server.address).await;
    let mut opened = Vec::new();
    for n in 0..10 {
        opened.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &header_block(CHECK, &[])));
    }
    opened.extend(frame(PING, 0, 0, b"all here"));
    connection.send(&opened).await;
    let mut refused = 0;
    loop {
        let frame = connection.frame().await.unwrap();
        match (frame.kind, frame.flags) {
            (RST_STREAM, _) => {
                assert!(frame.stream > 8);
                assert_eq!(frame.payload, 7u32.to_be_bytes(), "REFUSED_STREAM: safe to retry");
                refused += 1;
            }
            (PING, ACK) => break,
            _ => {}
        }
    }
    assert_eq!(refused, 6);
    server.inspect(|record| assert_eq!(record.started.len(), 4));
}
