//! Deadlines from end to end: the caller's, the default, and calls that exceed them before their write.

use std::time::Duration;

use crate::fake_store::{FakeStore, RequestAction};
use inventory_testkit::http2::Http2Client;
use inventory_testkit::server::TestServer;
use tonic::Code;

use crate::client::*;

const EVENT: &str = "evt_deadlines";

/// A server whose store stops answering.
async fn hanging(env: &[(&str, &str)]) -> (FakeStore, TestServer) {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    let mut command = store.server_command();
    for (name, value) in env {
        command = command.env(name, value);
    }
    let server = command.start();
    client(&server).await.order(commit("warm", EVENT, 1)).await;
    store.set_rule(|_| RequestAction::Hang);
    (store, server)
}

/// The shortest time of three calls, because a busy machine answers late, but never early.
async fn shortest_time(
    server: &TestServer,
    headers: &[(&'static str, &str)],
    least: u64,
) -> Duration {
    let mut raw = Http2Client::connect(&server.grpc).await;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let (status, took) = raw.check(EVENT, 1, headers).await;
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(took >= Duration::from_millis(least), "{took:?}");
        best = best.min(took);
    }
    best
}

#[tokio::test]
async fn default_deadline_is_250_ms() {
    let (_store, server) = hanging(&[]).await;
    let took = shortest_time(&server, &[], 249).await;
    assert!(took < Duration::from_millis(450), "{took:?}");
}

#[tokio::test]
async fn default_deadline_is_configurable_and_callers_override_it() {
    let (_store, server) = hanging(&[("GRPC_TIMEOUT", "60ms")]).await;
    let took = shortest_time(&server, &[], 59).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    let own = [("grpc-timeout", "400m")];
    let took = shortest_time(&server, &own, 399).await;
    assert!(took < Duration::from_millis(700), "{took:?}");
    let short = [("grpc-timeout", "20000u")];
    let took = shortest_time(&server, &short, 19).await;
    assert!(took < Duration::from_millis(150), "{took:?}");
}

#[tokio::test]
async fn deadline_error_names_event_and_reservation() {
    let (_store, server) = hanging(&[]).await;
    let mut raw = Http2Client::connect(&server.grpc).await;
    let (status, _) = raw.commit(&commit("r1", EVENT, 1), "80m").await;
    let code = Code::DeadlineExceeded;
    assert_rejected(&status, code, "DEADLINE_EXCEEDED", EVENT, "r1");
    // So does one in the queue, in the first read of an event, and in a check.
    let (status, _) = raw.commit(&commit("r2", EVENT, 1), "80m").await;
    assert_rejected(&status, code, "DEADLINE_EXCEEDED", EVENT, "r2");
    let (status, _) = raw.commit(&commit("r3", "evt_new", 1), "80m").await;
    assert_rejected(&status, code, "DEADLINE_EXCEEDED", "evt_new", "r3");
    let (status, _) = raw.check(EVENT, 1, &[("grpc-timeout", "80m")]).await;
    assert_rejected(&status, code, "DEADLINE_EXCEEDED", EVENT, "");
}

#[tokio::test]
async fn call_that_exceeds_its_deadline_in_the_queue_is_never_written() {
    let (store, server) = hanging(&[]).await;
    store.set_write_rule(RequestAction::HoldResponse);
    let client = client(&server).await;
    let writes = store.writes().len();
    let first = client.clone();
    let first = tokio::spawn(async move { first.try_commit(commit("r1", EVENT, 1)).await });
    until("the first write is in flight", async || store.writes().len() > writes).await;
    // The lane is busy: this call waits in the queue until its deadline.
    let mut raw = Http2Client::connect(&server.grpc).await;
    let (status, _) = raw.commit(&commit("late", EVENT, 1), "80m").await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    store.clear_rule();
    first.await.unwrap().unwrap();
    client.order(commit("r2", EVENT, 1)).await;
    let stored = store.read_event(EVENT);
    assert!(
        stored.reservation_ids().eq(["r1", "r2", "warm"]),
        "{:?}",
        stored.reservation_ids().collect::<Vec<_>>()
    );
    assert_eq!(stored.remaining(), 7);
}
