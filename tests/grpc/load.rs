//! Many calls at once: one write per turn, windows that do not run dry, slow readers.

use std::time::Duration;

use futures::future::join_all;
use inventory_api::limits;
use inventory_grpc::{Code, GrpcSettings};
use tokio::io::AsyncWriteExt;

use crate::raw::{
    Bare, CHECK, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, answer, frame, framed,
    header_block, request,
};
use crate::support::{Server, check, settings, within};

/// Requests on streams 1, 3, 5 …, as one piece.
fn burst(count: u32, what: &str) -> Vec<u8> {
    let block = header_block(CHECK);
    let message = framed(&check(what));
    let mut bytes = Vec::new();
    for n in 0..count {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
        bytes.extend(frame(DATA, END_STREAM, 2 * n + 1, &message));
    }
    bytes
}

/// Reads until that many streams have ended.
async fn read_ends(bare: &mut Bare, mut count: u32) {
    while count > 0 {
        let frame = bare.frame().await.unwrap();
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            count -= 1;
        }
    }
}

#[tokio::test]
async fn many_responses_leave_in_few_writes() {
    let server = Server::start(settings());
    let (mut bare, _) = Bare::open(&server).await;
    let before = server.writes().await;
    // More than one poll may read: the connection must wake itself for the next poll.
    let burst = burst(1_000, "now");
    assert!(burst.len() > 2 * limits::READ_BYTES_PER_POLL_MAX);
    bare.send(&burst).await;
    read_ends(&mut bare, 1_000).await;
    let writes = server.writes().await - before;
    assert!(writes <= 60, "1,000 answers took {writes} writes");
}

#[tokio::test]
async fn responses_of_waiting_handlers_are_coalesced_too() {
    let server = Server::start(settings());
    let (mut bare, _) = Bare::open(&server).await;
    let before = server.writes().await;
    bare.send(&burst(300, "wait:30")).await;
    read_ends(&mut bare, 300).await;
    let writes = server.writes().await - before;
    assert!(writes <= 60, "300 answers took {writes} writes");
}

#[tokio::test]
async fn a_thousand_streams_at_once_are_all_answered() {
    let server = Server::start(GrpcSettings {
        call_timeout: Duration::from_secs(10),
        ..settings()
    });
    let mut raw = Raw::connect(&server).await;
    let mut answers = Vec::new();
    for n in 0..1_000 {
        let what = if n % 2 == 0 { "now" } else { "yield:3" };
        let (response, mut stream) = raw.open(request(CHECK)).await.unwrap();
        stream.send_data(framed(&check(what)), true).unwrap();
        answers.push(answer(response));
    }
    for answer in within(join_all(answers)).await {
        assert_eq!(answer.unwrap().code(), Code::Ok);
    }
}

#[tokio::test]
async fn windows_reopen_when_requests_are_read() {
    let server = Server::start(settings());
    let client = server.client().await;
    // Several times the window of the connection in total, and no call ends before all requests are read.
    let message = 60_000;
    let calls = 4 * usize::try_from(limits::CONNECTION_WINDOW_BYTES).unwrap() / message;
    let waiting = (0..calls).map(|_| {
        let mut client = client.clone();
        let mut request = check(&format!("together:{calls}"));
        request.seat_ids = vec![inventory_proto::inventory::v1::SeatRef {
            seat_id: "s".repeat(message),
        }];
        async move { client.check_availability(request).await }
    });
    for answer in within(join_all(waiting)).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything_and_does_not_delay_others() {
    let server = Server::start(GrpcSettings {
        call_timeout: Duration::from_secs(10),
        ..settings()
    });
    let (mut bare, _) = Bare::open(&server).await;
    // Windows so large that only the socket and the write buffer apply back-pressure.
    let window = (1u32 << 30).to_be_bytes();
    bare.send(&frame(SETTINGS, 0, 0, &[&[0, 4], &window[..]].concat()))
        .await;
    bare.send(&frame(8, 0, 0, &window)).await;
    let (streams, size) = (400, 60_000);
    bare.0
        .write_all(&burst(streams, &format!("large:{size}")))
        .await
        .unwrap();
    let mut other = server.client().await;
    for _ in 0..20 {
        assert!(within(other.check_availability(check("now"))).await.is_ok());
    }
    let (mut ended, mut bytes) = (0, 0);
    while ended < streams {
        let frame = bare.frame().await.unwrap();
        if frame.kind == DATA {
            bytes += frame.payload.len();
        }
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            ended += 1;
        }
    }
    assert!(bytes > size * usize::try_from(streams).unwrap(), "{bytes}");
}
