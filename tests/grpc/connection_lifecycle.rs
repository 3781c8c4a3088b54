//! The connection lifecycle: handshake, pings, maximum age, drain, abort.

use std::time::{Duration, Instant};

use h2::Ping;
use inventory_grpc::{Code, ConnectionEnd, GrpcSettings};
use tonic::Request;

use crate::raw::{ACK, Bare, CHECK, GOAWAY, PING, Raw, answer, frame, framed, request};
use crate::support::{Server, check, settings, within};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test]
async fn an_incomplete_handshake_is_closed() {
    let server = Server::start(GrpcSettings {
        handshake_timeout: ms(50),
        ..settings()
    });
    let start = Instant::now();
    let mut silent = Bare::connect(&server).await;
    silent.send(b"PRI * HT").await;
    assert!(silent.comes_to_end().await);
    assert!(start.elapsed() >= ms(50));
    assert_eq!(server.first_end().await, ConnectionEnd::HandshakeTimeout);
}

/// The original answered the second idle ping with GOAWAY too_many_pings.
#[tokio::test]
async fn pings_on_an_idle_connection_are_always_answered() {
    let server = Server::start(settings());
    let mut raw = Raw::connect(&server).await;
    for _ in 0..200 {
        within(raw.ping.ping(Ping::opaque())).await.unwrap();
    }
    let answer = raw.call(request(CHECK), framed(&check("now"))).await;
    assert_eq!(answer.code(), Code::Ok);
    for _ in 0..200 {
        within(raw.ping.ping(Ping::opaque())).await.unwrap();
    }
    server.see(|seen| assert!(seen.ended.is_empty()));
}

fn short_keep_alive() -> GrpcSettings {
    GrpcSettings {
        keep_alive_period: Some(ms(30)),
        keep_alive_timeout: ms(60),
        ..settings()
    }
}

#[tokio::test]
async fn an_idle_peer_that_does_not_answer_a_ping_is_closed() {
    let server = Server::start(short_keep_alive());
    let (mut bare, _) = Bare::open(&server).await;
    let ping = bare.frame_of(PING).await.unwrap();
    assert_eq!(ping.flags, 0);
    let pinged = Instant::now();
    assert!(bare.frame_of(GOAWAY).await.is_some());
    assert!(pinged.elapsed() >= ms(50), "{:?}", pinged.elapsed());
    assert!(bare.comes_to_end().await);
    assert_eq!(server.first_end().await, ConnectionEnd::KeepAliveTimeout);
}

#[tokio::test]
async fn an_idle_peer_that_answers_pings_stays_connected() {
    let server = Server::start(GrpcSettings {
        keep_alive_timeout: Duration::from_secs(5),
        ..short_keep_alive()
    });
    let (mut bare, _) = Bare::open(&server).await;
    for _ in 0..6 {
        let ping = bare.frame_of(PING).await.unwrap();
        assert_eq!(ping.flags, 0);
        bare.send(&frame(PING, ACK, 0, &ping.payload)).await;
    }
    server.see(|seen| assert!(seen.ended.is_empty()));
}

#[tokio::test]
async fn an_idle_connection_costs_few_polls_per_period() {
    let server = Server::start(GrpcSettings {
        keep_alive_period: Some(ms(100)),
        ..settings()
    });
    let mut raw = Raw::connect(&server).await;
    raw.call(request(CHECK), framed(&check("wait:5"))).await;
    // The timer of the call's deadline may still fire once.
    tokio::time::sleep(ms(300)).await;
    let before = server.polls().await;
    tokio::time::sleep(ms(1_000)).await;
    let polls = server.polls().await - before;
    assert!(polls <= 40, "{polls} polls in ten periods");
}

/// Sends batches of calls until the server sends GOAWAY. Every call that was sent must be answered.
async fn call_until_goaway(server: &Server, what: &str) -> usize {
    let mut raw = Raw::connect(server).await;
    let mut answered = 0;
    loop {
        let mut batch = Vec::new();
        for _ in 0..8 {
            match raw.open(request(CHECK)).await {
                Ok((response, mut stream)) => {
                    stream.send_data(framed(&check(what)), true).unwrap();
                    batch.push(response);
                }
                Err(error) => {
                    assert!(error.is_go_away() || error.is_io(), "{error:?}");
                    break;
                }
            }
        }
        let goaway = batch.len() < 8;
        for response in batch {
            let answer = within(answer(response)).await;
            assert_eq!(answer.expect("a call was lost").code(), Code::Ok);
            answered += 1;
        }
        if goaway {
            within(&mut raw.task).await.unwrap().unwrap();
            return answered;
        }
    }
}

#[tokio::test]
async fn a_connection_at_its_maximum_age_loses_no_call() {
    let server = Server::start(GrpcSettings {
        connection_age: Some(ms(100)),
        ..settings()
    });
    let start = Instant::now();
    for what in ["now", "wait:3"] {
        assert!(call_until_goaway(&server, what).await >= 8, "{what}");
    }
    assert!(start.elapsed() >= ms(180));
    server
        .until("both ends", |seen| (seen.ended.len() == 2).then_some(()))
        .await;
    server.see(|seen| assert_eq!(seen.ended, [ConnectionEnd::Aged, ConnectionEnd::Aged]));
}

#[tokio::test]
async fn a_goaway_comes_in_two_phases() {
    // No timer fires in this test: only the drain itself can wake an idle connection.
    let server = Server::start(GrpcSettings {
        handshake_timeout: Duration::from_secs(600),
        keep_alive_period: None,
        ..settings()
    });
    let mut bare = Bare::open_and_settle(&server).await;
    server.drain();
    let first = bare.frame_of(GOAWAY).await.unwrap();
    assert_eq!(
        first.payload[..4],
        0x7fff_ffff_u32.to_be_bytes(),
        "no stream is cut off yet"
    );
    assert_eq!(first.payload[4..8], [0; 4], "NO_ERROR");
    let ping = bare.frame_of(PING).await.unwrap();
    // A call that the client sent before it received the first GOAWAY.
    let block = crate::raw::header_block(CHECK);
    let (headers, data) = (crate::raw::HEADERS, crate::raw::DATA);
    bare.send(&frame(headers, crate::raw::END_HEADERS, 1, &block))
        .await;
    bare.send(&frame(
        data,
        crate::raw::END_STREAM,
        1,
        &framed(&check("wait:20")),
    ))
    .await;
    bare.send(&frame(PING, ACK, 0, &ping.payload)).await;
    let second = bare.frame_of(GOAWAY).await.unwrap();
    assert_eq!(
        second.payload[..4],
        1u32.to_be_bytes(),
        "the last stream that is served"
    );
    let reply = bare.frame_of(data).await.unwrap();
    assert_eq!((reply.stream, reply.payload[0]), (1, 0));
    assert!(bare.comes_to_end().await);
    assert_eq!(server.first_end().await, ConnectionEnd::Drained);
}

/// The close of a socket with unread bytes is a reset, and the reset discards what the peer has not read yet.
#[tokio::test]
async fn unread_bytes_do_not_turn_the_close_into_a_reset() {
    for _ in 0..3 {
        let server = Server::start(settings());
        let mut bare = Bare::open_and_settle(&server).await;
        server.drain();
        let ping = bare.frame_of(PING).await.unwrap();
        // More than the server reads before it has processed the acknowledgement and closes.
        let mut remaining = frame(PING, ACK, 0, &ping.payload);
        for _ in 0..8_000 {
            remaining.extend(frame(PING, ACK, 0, &[7; 8]));
        }
        bare.send(&remaining).await;
        assert!(bare.frame_of(GOAWAY).await.is_some(), "the last GOAWAY");
        assert!(bare.ends_in_order().await, "an end, not a reset");
    }
}

#[tokio::test]
async fn a_drain_waits_for_calls_and_then_closes_every_connection() {
    let server = Server::start(settings());
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        clients.push(tokio::spawn(async move {
            client.check_availability(check("wait:150")).await
        }));
    }
    server
        .until("all starts", |seen| (seen.started.len() == 3).then_some(()))
        .await;
    server.drain();
    for client in clients {
        assert!(within(client).await.unwrap().is_ok());
    }
    server.empty().await;
    server.see(|seen| assert_eq!(seen.ended, [ConnectionEnd::Drained; 3]));
}

#[tokio::test]
async fn a_connection_opened_during_a_drain_gets_a_goaway() {
    let server = Server::start(settings());
    server.drain();
    let (mut bare, _) = Bare::open(&server).await;
    assert!(bare.frame_of(GOAWAY).await.is_some());
}

#[tokio::test]
async fn an_abort_closes_connections_that_a_drain_left_open() {
    let server = Server::start(settings());
    let mut client = server.client().await;
    let call = tokio::spawn(async move {
        let mut request = Request::new(check("never"));
        request.set_timeout(Duration::from_secs(20));
        client.check_availability(request).await
    });
    server
        .until("its start", |seen| seen.started.first().copied())
        .await;
    server.drain();
    tokio::time::sleep(ms(50)).await;
    server.see(|seen| assert!(seen.ended.is_empty()));
    server.abort();
    assert!(within(call).await.unwrap().is_err());
    server.empty().await;
    server.see(|seen| {
        assert_eq!(seen.ended, [ConnectionEnd::Aborted]);
        assert_eq!((seen.dropped, seen.finished[0].1), (1, Code::Cancelled));
    });
}

#[tokio::test]
async fn a_connection_at_its_maximum_age_is_closed_after_the_grace_period() {
    let server = Server::start(GrpcSettings {
        connection_age: Some(ms(50)),
        connection_age_grace: ms(50),
        call_timeout: Duration::from_secs(20),
        ..settings()
    });
    let status = server
        .client()
        .await
        .check_availability(check("never"))
        .await;
    assert!(status.is_err());
    assert_eq!(server.first_end().await, ConnectionEnd::AgeGraceOver);
}

#[tokio::test]
async fn a_close_by_the_peer_is_reported() {
    let server = Server::start(settings());
    let (bare, _) = Bare::open(&server).await;
    drop(bare);
    let ended = server.first_end().await;
    assert!(
        matches!(ended, ConnectionEnd::Closed | ConnectionEnd::Lost(_)),
        "{ended:?}"
    );
}
