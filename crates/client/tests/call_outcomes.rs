//! Classification of calls whose connection ends: never processed, or lost. The server side is written frame
//! by frame, so that each ending is exact.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use inventory_baseline::{BaselineService, MemoryBackend, bind, router};
use inventory_client::{CallOutcome, FailoverClient, connect};
use inventory_proto::inventory::v1::CommitReq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

const NO_ERROR: u8 = 0;
const INTERNAL_ERROR: u8 = 2;
const REFUSED_STREAM: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

fn go_away(last_stream: u8, error: u8) -> Vec<u8> {
    let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
    frame.extend([0, 0, 0, last_stream, 0, 0, 0, error]);
    frame
}

fn reset_first_stream(error: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, error]
}

/// Accepts connections, answers the first request on each with `frames`, and closes.
async fn serve_frames(frames: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(&SETTINGS).await.unwrap();
            await_request(&mut stream).await;
            stream.write_all(&frames).await.unwrap();
            stream.shutdown().await.unwrap();
            // Wait until the client has closed too: closing with unread bytes would reset the connection
            // and could discard the frames.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    address
}

async fn await_request(stream: &mut TcpStream) {
    let mut preface = [0; PREFACE_BYTES];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if header[3] == HEADERS {
            return;
        }
    }
}

fn commit() -> CommitReq {
    CommitReq {
        reservation_id: "r".to_owned(),
        event_id: "evt".to_owned(),
        qty: 1,
        ..CommitReq::default()
    }
}

/// Each way in which a call can end without an answer, with its outcome.
fn endings() -> [(&'static str, Vec<u8>, CallOutcome); 6] {
    [
        ("GOAWAY before it", go_away(0, NO_ERROR), CallOutcome::NeverProcessed),
        ("GOAWAY after it", go_away(1, NO_ERROR), CallOutcome::Lost),
        ("GOAWAY with an error", go_away(0, ENHANCE_YOUR_CALM), CallOutcome::Lost),
        ("refused", reset_first_stream(REFUSED_STREAM), CallOutcome::NeverProcessed),
        ("reset", reset_first_stream(INTERNAL_ERROR), CallOutcome::Lost),
        ("closed without a frame", Vec::new(), CallOutcome::Lost),
    ]
}

#[tokio::test]
async fn each_outcome_is_classified() {
    for (name, frames, expected) in endings() {
        let mut client = connect(&serve_frames(frames).await).await.unwrap();
        let status = client.commit_reservation(commit()).await.unwrap_err();
        assert_eq!(CallOutcome::of(&status), expected, "{name}: {status:?}");
    }
}

#[tokio::test]
async fn only_unprocessed_calls_move_to_the_next_server() {
    let incoming = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let good = incoming.local_addr().unwrap().to_string();
    let stub = BaselineService::new(MemoryBackend::new([("evt", 10)]), 100);
    tokio::spawn(router(stub).serve_with_incoming(incoming));
    for (name, frames, outcome) in endings() {
        let leaving = serve_frames(frames).await;
        let client = FailoverClient::new(&[leaving, good.clone()], 0).unwrap();
        let first = client.commit(&commit(), Duration::from_secs(5)).await;
        let stats = client.stats();
        if outcome == CallOutcome::NeverProcessed {
            assert_eq!(first.unwrap().status, "CONFIRMED", "{name}");
            assert_eq!((stats.answered, stats.moved, stats.failed), (1, 1, 0), "{name}");
        } else {
            assert!(first.is_err(), "{name}");
            assert_eq!((stats.answered, stats.moved, stats.failed), (0, 0, 1), "{name}");
            // The next call goes to the other server.
            client.commit(&commit(), Duration::from_secs(5)).await.unwrap();
        }
    }
}
