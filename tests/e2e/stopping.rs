//! Stopping: no call is lost, readiness goes first, the grace is kept, a second signal ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use inventory_client::{CallOutcome, FailoverClient};
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;
use crate::proxy::Act;
use crate::raw::Bare;
use crate::server::{Launch, PATIENCE, Server};
use crate::stage::{Stage, create_at};

const EVENT: &str = "evt_stopping";

/// Far below any grace, and above what a busy machine makes of "at once".
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn under_load_no_call_fails_while_a_second_server_serves() {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, 1_000_000, 1);
    let (mut leaving, staying) = (stage.server(), stage.server());
    let addresses = [leaving.grpc.clone(), staying.grpc.clone()];
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut buyers = JoinSet::new();
    let mut clients = Vec::new();
    for lane in 0..4 {
        let client = FailoverClient::new(&addresses, 0).unwrap();
        clients.push(client.clone());
        for buyer in 0..10 {
            let (client, over, answered) = (client.clone(), over.clone(), answered.clone());
            buyers.spawn(async move {
                let mut sold = 0;
                while !over.load(Ordering::SeqCst) {
                    let call = commit(&format!("s{lane}-{buyer}-{sold}"), EVENT, 1);
                    let answer = client.commit(&call, PATIENCE).await;
                    answer.unwrap_or_else(|status| panic!("{call:?}: {status:?}"));
                    sold += 1;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                sold
            });
        }
    }
    let answers = |count: usize| {
        let answered = answered.clone();
        let wanted = answered.load(Ordering::SeqCst) + count;
        async move {
            until("calls are answered", async || {
                answered.load(Ordering::SeqCst) >= wanted
            })
            .await
        }
    };
    answers(300).await;
    leaving.signal(libc::SIGTERM);
    let (took, status) = leaving.ends().await;
    answers(300).await;
    over.store(true, Ordering::SeqCst);
    let mut sold = 0;
    while let Some(buyer) = buyers.join_next().await {
        sold += buyer.unwrap();
    }
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let log = leaving.log.all();
    assert!(!log.contains("the grace was over"), "{log}");
    for stats in clients.iter().map(FailoverClient::stats) {
        assert_eq!(stats.failed, 0, "{stats:?}");
    }
    let book = stage.book(EVENT);
    assert_eq!(book.remaining(), 1_000_000 - sold);
    staying.stops().await;
}

#[tokio::test]
async fn with_nothing_to_do_it_is_quick_whoever_is_connected() {
    let server = Launch::memory().start();
    let idle = clients(&server, 3).await;
    create(&server, EVENT, 10, 1).await;
    idle[0].order(commit("r1", EVENT, 1)).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc));
    let channel = channel.unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let wanted = tonic_health::pb::HealthCheckRequest::default();
    // A watch never ends by itself.
    let mut watch = health.watch(wanted).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let mut server = server;
    server.signal(libc::SIGTERM);
    let (took, status) = server.ends().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AT_ONCE, "{took:?}");
    // It said why before it went.
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    // And every line it logged is one that a machine reads.
    let log = server.log.all();
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["ts", "level", "msg"] {
            assert!(line[field].is_string(), "no {field} in {line}");
        }
    }
    for message in ["\"serving\"", "\"stopping\"", "\"stopped\""] {
        assert_eq!(log.matches(message).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn connections_that_grow_old_move_without_losing_a_call() {
    let server = Launch::memory().env("MAX_CONNECTION_AGE", "1s").start();
    create(&server, EVENT, 1_000_000, 1).await;
    let client = FailoverClient::new(&[&server.grpc], 0).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for buyer in 0..8 {
        let (client, over) = (client.clone(), over.clone());
        buyers.spawn(async move {
            let mut sold = 0;
            while !over.load(Ordering::SeqCst) {
                let call = commit(&format!("o{buyer}-{sold}"), EVENT, 1);
                let answer = client.commit(&call, PATIENCE).await;
                answer.unwrap_or_else(|status| panic!("{call:?}: {status:?}"));
                sold += 1;
            }
            sold
        });
    }
    // The first GOAWAY says only that it leaves; who answers the ping after it loses nothing.
    for _ in 0..2 {
        let mut bare = Bare::open(&server.grpc).await;
        assert_eq!(bare.wait_for_goaway().await, u32::MAX >> 1);
        bare.answer_ping().await;
        assert_eq!(bare.wait_for_goaway().await, 0);
    }
    over.store(true, Ordering::SeqCst);
    let mut sold = 0;
    while let Some(buyer) = buyers.join_next().await {
        sold += buyer.unwrap();
    }
    assert_eq!(client.stats().failed, 0);
    assert!(sold > 100, "{sold} sold in two lives of a connection");
    assert_eq!(stock(&server, EVENT).await.confirmed, sold);
    server.stops().await;
}

/// A server with one call under way that the store does not answer.
async fn with_a_call_under_way(env: &[(&str, &str)]) -> (Stage, Server, InventoryClient, Pending) {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, 10, 1);
    let mut launch = stage.launch().env("DDB_TIMEOUT", "20s");
    for (name, value) in env {
        launch = launch.env(name, value);
    }
    let server = launch.start();
    let client = client(&server).await;
    client.order(commit("warm", EVENT, 1)).await;
    let writes = stage.proxy.writes_asked().len();
    stage.proxy.writes(Act::HoldAnswer);
    let caller = client.clone();
    let pending = tokio::spawn(async move { caller.commits(commit("r1", EVENT, 1)).await });
    until("the write is under way", async || {
        stage.proxy.writes_asked().len() > writes
    })
    .await;
    (stage, server, client, pending)
}

type Pending =
    tokio::task::JoinHandle<Result<inventory_proto::inventory::v1::CommitRes, tonic::Status>>;

#[tokio::test]
async fn readiness_goes_first_and_the_call_under_way_is_answered() {
    let (stage, mut server, client, pending) = with_a_call_under_way(&[]).await;
    let (code, _) = http_get(&server.metrics, "/readyz").await.unwrap();
    assert_eq!(code, 200);
    server.signal(libc::SIGTERM);
    until("readiness is off", async || {
        http_get(&server.metrics, "/readyz").await.unwrap().0 == 503
    })
    .await;
    // Alive all the same: it must not be restarted now.
    assert_eq!(http_get(&server.metrics, "/healthz").await.unwrap().0, 200);
    until("no new connections are taken", async || {
        tokio::net::TcpStream::connect(&server.grpc).await.is_err()
    })
    .await;
    // The client may send on the old connection until it has read that the server leaves, and is
    // served until then. A check needs no write, so it tells when that moment has come.
    until("the client has read that the server leaves", async || {
        let check = client.checks(check(EVENT, 1)).await;
        check.is_err_and(|status| CallOutcome::of(&status) == CallOutcome::NeverProcessed)
    })
    .await;
    // From here on a call on the old connection is turned away unseen, to be made elsewhere.
    let late = client.commits(commit("r2", EVENT, 1)).await.unwrap_err();
    assert_eq!(
        CallOutcome::of(&late),
        CallOutcome::NeverProcessed,
        "{late:?}"
    );

    assert!(!pending.is_finished());
    stage.proxy.pass();
    let answer = pending.await.unwrap().unwrap();
    let (took, status) = server.ends().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AT_ONCE, "{took:?}");
    let book = stage.book(EVENT);
    assert_eq!(book.order("r1"), Some(answer.order_id));
    assert_eq!(book.len(), 2);
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_is_waited_for() {
    let (stage, mut server, client, pending) = with_a_call_under_way(&[]).await;
    pending.abort();
    drop(client);
    server.signal(libc::SIGTERM);
    assert!(server.log.wait(|log| log.contains("\"stopping\"")));
    // Nobody is connected any more; the outcome is still open.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (code, _) = http_get(&server.metrics, "/readyz").await.unwrap();
    assert_eq!(code, 503);
    stage.proxy.pass();
    let (_, status) = server.ends().await;
    assert_eq!(status.code(), Some(0));
    assert!(!server.log.all().contains("the grace was over"));
}

#[tokio::test]
async fn when_the_grace_is_over_it_says_what_was_left() {
    let grace = [("SHUTDOWN_GRACE", "500ms")];
    let (_stage, mut server, _client, pending) = with_a_call_under_way(&grace).await;
    server.signal(libc::SIGTERM);
    let (took, status) = server.ends().await;
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(took < Duration::from_millis(500) + AT_ONCE, "{took:?}");
    let log = server.log.all();
    let warning = log.lines().find(|line| line.contains("the grace was over"));
    let warning = warning.unwrap_or_else(|| panic!("{log}"));
    let warning: serde_json::Value = serde_json::from_str(warning).unwrap();
    assert_eq!(warning["operations"], 1, "{warning}");
    assert_eq!(warning["connections"], 1, "{warning}");
    let lost = pending.await.unwrap().unwrap_err();
    assert_ne!(lost.code(), Code::Ok);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (_stage, mut server, _client, _pending) = with_a_call_under_way(&[]).await;
    server.signal(libc::SIGTERM);
    assert!(server.log.wait(|log| log.contains("\"stopping\"")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.signal(libc::SIGINT);
    let (took, status) = server.ends().await;
    assert!(took < AT_ONCE, "{took:?}");
    assert!(status.code().is_some(), "{status:?}");
}

/// A client may send until it has seen the second GOAWAY. Until then its calls are served whole,
/// also by shards that have nothing left to do themselves.
#[tokio::test]
async fn a_shard_stays_for_what_the_others_still_send_it() {
    const EVENTS: usize = 8;
    let server = Launch::memory().start();
    for n in 0..EVENTS {
        // One stripe each: whoever owns it, one shard's calls go to the other.
        create(&server, &format!("evt-{n}"), 10, 1).await;
    }
    let mut bare = Bare::open(&server.grpc).await;
    let mut server = server;
    server.signal(libc::SIGTERM);
    let goaway = bare.wait_for_goaway().await;
    assert_eq!(goaway, u32::MAX >> 1, "the first GOAWAY closes nothing");
    // Time enough for an idle shard to end.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 0..EVENTS {
        bare.commit(&commit(&format!("r{n}"), &format!("evt-{n}"), 1))
            .await;
    }
    for _ in 0..EVENTS {
        assert!(bare.answered_with_a_message().await, "a call was lost");
    }
    bare.answer_ping().await;
    let (took, status) = server.ends().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AT_ONCE, "{took:?}");
}
