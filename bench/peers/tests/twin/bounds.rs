//! A store that never lets a write through, or never answers, does not keep a caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::stage::{EVENT, commit, peer, said};
use inventory_client::connect;
use inventory_peers::sale::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic_types::StatusExt;

const STRIPE: &str = r#"{"Item":{"event_id":{"S":"evt_2025_1001"},"remaining":{"N":"5"},"total_seats":{"N":"5"},"version":{"N":"1"}}}"#;

/// Another transaction is on the stripe.
const CONFLICT: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled","CancellationReasons":[{"Code":"TransactionConflict"},{"Code":"None"}]}"#;

/// Somebody wrote the stripe since it was read.
const STALE: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled","CancellationReasons":[{"Code":"ConditionalCheckFailed","Item":{"event_id":{"S":"evt_2025_1001"},"remaining":{"N":"5"},"total_seats":{"N":"5"},"version":{"N":"2"}}},{"Code":"None"}]}"#;

/// The stripe has too little, and the record is just being written: perhaps by a copy of the call.
const LOCKED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled","CancellationReasons":[{"Code":"ConditionalCheckFailed","Item":{"event_id":{"S":"evt_2025_1001"},"remaining":{"N":"0"},"total_seats":{"N":"5"},"version":{"N":"1"}}},{"Code":"TransactionConflict"}]}"#;

/// A store that has a stripe, no record, and cancels every transaction with `refusal`. Counts them.
async fn stubborn(refusal: &'static str) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let writes = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&writes);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, refusal, Arc::clone(&counted)));
        }
    });
    (endpoint, writes)
}

async fn answer(mut stream: TcpStream, refusal: &'static str, writes: Arc<AtomicU32>) {
    let mut read = Vec::new();
    loop {
        while let Some((request, length)) = whole(&read) {
            let (status, body) = if request.contains("TransactWriteItems") {
                writes.fetch_add(1, Ordering::Relaxed);
                ("400 Bad Request", refusal)
            } else if request.contains("reservation_id") {
                ("200 OK", "{}")
            } else {
                ("200 OK", STRIPE)
            };
            read.drain(..length);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.0\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// The first request read, if it is complete, and its length.
fn whole(read: &[u8]) -> Option<(String, usize)> {
    let text = String::from_utf8_lossy(read);
    let head = text.find("\r\n\r\n")? + 4;
    let length: usize = text[..head]
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let whole = head + length;
    (read.len() >= whole).then(|| (text[..whole].to_owned(), whole))
}

#[tokio::test]
async fn a_write_that_never_gets_through_ends_after_its_retries() {
    for (mode, refusal) in [
        (Mode::Transaction, CONFLICT),
        (Mode::Transaction, LOCKED),
        (Mode::Optimistic, CONFLICT),
        (Mode::Optimistic, STALE),
    ] {
        let (endpoint, writes) = stubborn(refusal).await;
        let address = peer(&endpoint, mode, 3, 10).await;
        let mut client = connect(&address.to_string()).await.unwrap();
        let status = client.commit_reservation(commit("r", 1)).await;
        let status = status.unwrap_err();
        let pause = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(pause, Some(Duration::from_millis(100)));
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        assert_eq!(pushback.unwrap(), "100");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["event_id"], EVENT);
        let said = said::<()>(Err(status));
        assert_eq!(said, (Code::Unavailable, "STORE_BUSY".to_owned()));
        assert_eq!(writes.load(Ordering::Relaxed), 4, "{mode:?}");
    }
}

/// What a pause would outlast is answered at once, as is all the rest, inside the caller's time.
#[tokio::test]
async fn a_caller_is_answered_in_its_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let address = peer(&endpoint, Mode::Transaction, 3, 10).await;
    let mut client = connect(&address.to_string()).await.unwrap();
    // Without a deadline of its own, for a client of tonic's keeps that too, and does not wait.
    let asked = commit("r", 1).into_inner();
    let asked_at = Instant::now();
    let late = client.commit_reservation(asked).await;
    assert!(asked_at.elapsed() < Duration::from_secs(2));
    let reason = "DEADLINE_EXCEEDED".to_owned();
    assert_eq!(said(late), (Code::DeadlineExceeded, reason));

    // Far more retries than fit. The last pause is not made, unless the last write came too late.
    let (endpoint, writes) = stubborn(CONFLICT).await;
    let address = peer(&endpoint, Mode::Transaction, 100, 10).await;
    let mut client = connect(&address.to_string()).await.unwrap();
    let asked = commit("r", 1).into_inner();
    let (code, reason) = said(client.commit_reservation(asked).await);
    let in_time = [
        (Code::Unavailable, "STORE_BUSY"),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    ];
    assert!(
        in_time.contains(&(code, reason.as_str())),
        "{code} {reason}"
    );
    assert!((2..101).contains(&writes.load(Ordering::Relaxed)));
}
