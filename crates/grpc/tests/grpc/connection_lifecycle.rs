//! Connection lifecycle: handshake, keepalive, maximum age, drain, abort.

use std::time::{Duration, Instant};

use inventory_grpc::{Code, ConnectionEnd, GrpcSettings};
use inventory_testkit::http2::{
    ACK, CHECK, DATA, END_HEADERS, END_STREAM, FrameConnection, GOAWAY, HEADERS, Http2Client, PING,
    encode, frame, header_block, read_response, request,
};
use inventory_testkit::within_deadline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Request;

use crate::fixture::{TestGrpcServer, check, open_idle, settings};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test]
async fn handshake_times_out() {
    let server = TestGrpcServer::start(GrpcSettings { handshake_timeout: ms(50), ..settings() });
    let start = Instant::now();
    let mut silent = FrameConnection::connect(server.address).await;
    silent.send(b"PRI * HT").await;
    assert!(silent.is_closed_by_server().await);
    assert!(start.elapsed() >= ms(50));
    assert_eq!(server.first_end().await, ConnectionEnd::HandshakeTimeout);
}

/// The server that this one replaces answered the second idle PING with GOAWAY too_many_pings.
#[tokio::test]
async fn pings_on_an_idle_connection_are_answered() {
    let server = TestGrpcServer::start(settings());
    let mut client = Http2Client::connect(server.address).await;
    for _ in 0..200 {
        client.ping().await;
    }
    let answer = client.call(request(CHECK), encode(&check("now"))).await;
    assert_eq!(answer.code(), Code::Ok);
    for _ in 0..200 {
        client.ping().await;
    }
    server.inspect(|record| assert!(record.ended.is_empty()));
}

fn short_keep_alive() -> GrpcSettings {
    GrpcSettings { keep_alive_period: Some(ms(30)), keep_alive_timeout: ms(60), ..settings() }
}

#[tokio::test]
async fn idle_peer_without_pong_is_closed() {
    let server = TestGrpcServer::start(short_keep_alive());
    let (mut connection, _) = FrameConnection::open(server.address).await;
    let ping = connection.frame_of(PING).await.unwrap();
    assert_eq!(ping.flags, 0);
    let pinged = Instant::now();
    assert!(connection.frame_of(GOAWAY).await.is_some());
    assert!(pinged.elapsed() >= ms(50), "{:?}", pinged.elapsed());
    assert!(connection.is_closed_by_server().await);
    assert_eq!(server.first_end().await, ConnectionEnd::KeepAliveTimeout);
}

#[tokio::test]
async fn idle_peer_with_pongs_stays_connected() {
    let server = TestGrpcServer::start(GrpcSettings {
        keep_alive_timeout: Duration::from_secs(5),
        ..short_keep_alive()
    });
    let (mut connection, _) = FrameConnection::open(server.address).await;
    for _ in 0..6 {
        let ping = connection.frame_of(PING).await.unwrap();
        assert_eq!(ping.flags, 0);
        connection.send(&frame(PING, ACK, 0, &ping.payload)).await;
    }
    server.inspect(|record| assert!(record.ended.is_empty()));
}

#[tokio::test]
async fn idle_connection_polls_once_per_keepalive_period() {
    let server =
        TestGrpcServer::start(GrpcSettings { keep_alive_period: Some(ms(100)), ..settings() });
    let mut client = Http2Client::connect(server.address).await;
    client.call(request(CHECK), encode(&check("wait:5"))).await;
    // The timer of the call's deadline may still expire once.
    tokio::time::sleep(ms(300)).await;
    let before = server.polls().await;
    tokio::time::sleep(ms(1_000)).await;
    let polls = server.polls().await - before;
    assert!(polls <= 40, "{polls} polls in ten periods");
}

/// Makes calls in batches until the server sends GOAWAY; every call that was sent must be answered. Returns the number
/// of answers.
async fn call_until_goaway(server: &TestGrpcServer, what: &str) -> usize {
    let mut client = Http2Client::connect(server.address).await;
    let mut answered = 0;
    loop {
        let mut batch = Vec::new();
        for _ in 0..8 {
            match client.open(request(CHECK)).await {
                Ok((response, mut stream)) => {
                    stream.send_data(encode(&check(what)), true).unwrap();
                    batch.push(response);
                }
                Err(error) => {
                    assert!(error.is_go_away() || error.is_io(), "{error:?}");
                    break;
                }
            }
        }
        let leaving = batch.len() < 8;
        for response in batch {
            let answer = within_deadline(read_response(response)).await;
            assert_eq!(answer.expect("a call was lost").code(), Code::Ok);
            answered += 1;
        }
        if leaving {
            within_deadline(&mut client.task).await.unwrap().unwrap();
            return answered;
        }
    }
}

#[tokio::test]
async fn aged_connection_closes_without_losing_a_call() {
    let server =
        TestGrpcServer::start(GrpcSettings { connection_age: Some(ms(100)), ..settings() });
    let start = Instant::now();
    for what in ["now", "wait:3"] {
        assert!(call_until_goaway(&server, what).await >= 8, "{what}");
    }
    assert!(start.elapsed() >= ms(180));
    server.until("both ends", |record| (record.ended.len() == 2).then_some(())).await;
    server.inspect(|record| assert_eq!(record.ended, [ConnectionEnd::Aged, ConnectionEnd::Aged]));
}

#[tokio::test]
async fn drain_sends_two_goaways() {
    // No timer expires in this test: only the drain itself can wake an idle connection.
    let server = TestGrpcServer::start(GrpcSettings {
        handshake_timeout: Duration::from_secs(600),
        keep_alive_period: None,
        ..settings()
    });
    let mut connection = open_idle(&server).await;
    server.drain();
    let first = connection.frame_of(GOAWAY).await.unwrap();
    assert_eq!(first.payload[..4], 0x7fff_ffff_u32.to_be_bytes(), "no stream is cut off yet");
    assert_eq!(first.payload[4..8], [0; 4], "NO_ERROR");
    let ping = connection.frame_of(PING).await.unwrap();
    // A call that is in flight when the first GOAWAY is sent.
    let block = header_block(CHECK, &[]);
    connection.send(&frame(HEADERS, END_HEADERS, 1, &block)).await;
    connection.send(&frame(DATA, END_STREAM, 1, &encode(&check("wait:20")))).await;
    connection.send(&frame(PING, ACK, 0, &ping.payload)).await;
    let second = connection.frame_of(GOAWAY).await.unwrap();
    assert_eq!(second.payload[..4], 1u32.to_be_bytes(), "the last stream that is served");
    let reply = connection.frame_of(DATA).await.unwrap();
    assert_eq!((reply.stream, reply.payload[0]), (1, 0));
    assert!(connection.is_closed_by_server().await);
    assert_eq!(server.first_end().await, ConnectionEnd::Drained);
}

/// Reads to the end, then writes: a write fails if the server has reset the connection instead of closing it.
async fn is_closed_without_reset(mut connection: FrameConnection) -> bool {
    let mut rest = Vec::new();
    let read = within_deadline(connection.stream.read_to_end(&mut rest)).await;
    let mut is_in_order = read.is_ok();
    for _ in 0..10 {
        tokio::time::sleep(ms(10)).await;
        let written = within_deadline(connection.stream.write_all(b"more")).await;
        is_in_order &= written.is_ok();
    }
    is_in_order
}

/// The kernel resets a socket that is closed with unread data, and the reset discards what the peer has not read yet.
#[tokio::test]
async fn late_frames_of_the_peer_do_not_turn_the_close_into_a_reset() {
    for _ in 0..3 {
        let server = TestGrpcServer::start(settings());
        let mut connection = open_idle(&server).await;
        server.drain();
        let ping = connection.frame_of(PING).await.unwrap();
        // More than the server reads before it has record the acknowledgement and closes.
        let mut late_frames = frame(PING, ACK, 0, &ping.payload);
        for _ in 0..8_000 {
            late_frames.extend(frame(PING, ACK, 0, &[7; 8]));
        }
        connection.send(&late_frames).await;
        assert!(connection.frame_of(GOAWAY).await.is_some(), "the last GOAWAY");
        assert!(is_closed_without_reset(connection).await);
    }
}

#[tokio::test]
async fn drain_waits_for_calls_and_closes_every_connection() {
    let server = TestGrpcServer::start(settings());
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        clients
            .push(tokio::spawn(async move { client.check_availability(check("wait:150")).await }));
    }
    server.until("all starts", |record| (record.started.len() == 3).then_some(())).await;
    server.drain();
    for client in clients {
        assert!(within_deadline(client).await.unwrap().is_ok());
    }
    server.empty().await;
    server.inspect(|record| assert_eq!(record.ended, [ConnectionEnd::Drained; 3]));
}

#[tokio::test]
async fn connection_opened_during_a_drain_gets_a_goaway() {
    let server = TestGrpcServer::start(settings());
    server.drain();
    let (mut connection, _) = FrameConnection::open(server.address).await;
    assert!(connection.frame_of(GOAWAY).await.is_some());
}

#[tokio::test]
async fn abort_ends_calls_that_outlast_the_drain() {
    let server = TestGrpcServer::start(settings());
    let mut client = server.client().await;
    let call = tokio::spawn(async move {
        let mut request = Request::new(check("never"));
        request.set_timeout(Duration::from_secs(20));
        client.check_availability(request).await
    });
    server.until("its start", |record| record.started.first().copied()).await;
    server.drain();
    tokio::time::sleep(ms(50)).await;
    server.inspect(|record| assert!(record.ended.is_empty()));
    server.abort();
    assert!(within_deadline(call).await.unwrap().is_err());
    server.empty().await;
    server.inspect(|record| {
        assert_eq!(record.ended, [ConnectionEnd::Aborted]);
        assert_eq!((record.dropped, record.finished[0].1), (1, Code::Cancelled));
    });
}

#[tokio::test]
async fn aged_connection_is_closed_after_its_grace() {
    let server = TestGrpcServer::start(GrpcSettings {
        connection_age: Some(ms(50)),
        connection_age_grace: ms(50),
        call_timeout: Duration::from_secs(20),
        ..settings()
    });
    let status = server.client().await.check_availability(check("never")).await;
    assert!(status.is_err());
    assert_eq!(server.first_end().await, ConnectionEnd::AgeGraceOver);
}

#[tokio::test]
async fn close_by_the_peer_is_recorded() {
    let server = TestGrpcServer::start(settings());
    let (connection, _) = FrameConnection::open(server.address).await;
    drop(connection);
    let ended = server.first_end().await;
    assert!(matches!(ended, ConnectionEnd::Closed | ConnectionEnd::Lost(_)), "{ended:?}");
}

#[tokio::test]
async fn eviction_ends_an_idle_connection_and_no_busy_one() {
    let server = TestGrpcServer::start(settings());
    let mut busy = Http2Client::connect(server.address).await;
    let (waiting, mut stream) = busy.open(request(CHECK)).await.unwrap();
    stream.send_data(encode(&check("wait:300")), true).unwrap();
    server.until("the call", |record| (record.started.len() == 1).then_some(())).await;
    let mut idle = open_idle(&server).await;
    assert!(server.evict_idlest().await);
    assert_eq!(idle.wait_for_goaway().await, 0);
    assert!(idle.is_closed_by_server().await);
    assert_eq!(server.first_end().await, ConnectionEnd::Evicted);
    assert!(!server.evict_idlest().await, "the other connection has a call");
    let answer = within_deadline(read_response(waiting)).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
}
