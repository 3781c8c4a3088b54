//! What one client holds open, cancels or leaves idle costs no other client and no probe anything.

use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use futures::future::join_all;
use inventory_testkit::http2::FrameConnection;
use inventory_testkit::restriction::limit_descriptors;
use inventory_testkit::server::{ServerCommand, TestServer, command, shards};
use inventory_testkit::within_deadline;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::client::*;

const EVENT: &str = "evt_pools";

async fn channel(server: &TestServer) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    within_deadline(endpoint.connect()).await.unwrap()
}

/// The probes of a pod, each on a connection of its own.
async fn assert_probes_answer(server: &TestServer) {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http_get(&server.metrics, path).await.unwrap().0, 200, "{path}");
    }
    let mut health = HealthClient::new(channel(server).await);
    let answer = within_deadline(health.check(HealthCheckRequest::default())).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    let address = server.grpc.clone();
    let probe = tokio::task::spawn_blocking(move || {
        ServerCommand::from(command(&["health", "--server", &address])).run()
    });
    let probe = probe.await.unwrap();
    assert_eq!(probe.code, Some(0), "{probe:?}");
}

#[tokio::test]
async fn watches_of_one_client_keep_no_probe_and_no_other_watch_out() {
    let server = ServerCommand::dev_in_memory().start();
    let health = HealthClient::new(channel(&server).await);
    let watches = (0..400).map(|_| {
        let mut health = health.clone();
        async move {
            let watch = within_deadline(health.watch(HealthCheckRequest::default())).await;
            let mut watch = watch.unwrap().into_inner();
            assert_eq!(within_deadline(watch.message()).await.unwrap().unwrap().status, 1);
            watch
        }
    });
    let held = join_all(watches).await;
    assert_probes_answer(&server).await;
    let mut other = HealthClient::new(channel(&server).await);
    let watch = within_deadline(other.watch(HealthCheckRequest::default())).await.unwrap();
    assert_eq!(watch.into_inner().message().await.unwrap().unwrap().status, 1);
    drop(held);
    server.stop().await;
}

/// As after a stop-the-world pause of the machine: calls expire in the client while nobody reads them.
#[tokio::test]
async fn calls_that_expire_while_the_process_is_suspended_end_no_connection() {
    let server = ServerCommand::dev_in_memory().start();
    create(&server, EVENT, 1_000_000, 1).await;
    let channel = channel(&server).await;
    let mut health = HealthClient::new(channel.clone());
    let watch = within_deadline(health.watch(HealthCheckRequest::default())).await.unwrap();
    let mut watch = watch.into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let client = InventoryClient::new(channel);
    client.order(commit("before", EVENT, 1)).await;
    server.signal(libc::SIGSTOP);
    let suspended = Instant::now();
    for generation in 0.. {
        let calls = (0..120).map(|n| {
            let call = commit(&format!("s{generation}-{n}"), EVENT, 1);
            let mut client = client.clone();
            async move {
                let call = within(call, Duration::from_millis(50));
                client.commit_reservation(call).await.unwrap_err().code()
            }
        });
        for code in join_all(calls).await {
            assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
        }
        if suspended.elapsed() > Duration::from_millis(300) {
            break;
        }
    }
    server.signal(libc::SIGCONT);
    client.order(commit("after", EVENT, 1)).await;
    // The connection is the same: the watch of before has not ended, and no other one was opened.
    let ended = tokio::time::timeout(Duration::from_millis(200), watch.message()).await;
    assert!(ended.is_err(), "the watch ended: {ended:?}");
    server.stop().await;
}

#[tokio::test]
async fn open_client_connections_keep_no_probe_out() {
    // Room for some 70 connections per shard.
    let descriptors = 300 + 220 * shards() as u64;
    let mut starting = ServerCommand::dev_in_memory();
    // SAFETY: the closure makes one system call, without allocations and locks.
    unsafe { starting.command.pre_exec(move || limit_descriptors(descriptors)) };
    let server = starting.start();
    create(&server, EVENT, 1_000, 1).await;
    let active = client(&server).await;
    let mut idle = Vec::new();
    let mut silent = Vec::new();
    for n in 0..300 {
        silent.push(TcpStream::connect(&server.grpc).await.unwrap());
        idle.push(FrameConnection::connect(&server.grpc).await);
        idle[n].send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        if n % 50 == 0 {
            // A client that calls is never the idlest.
            active.order(commit(&format!("r{n}"), EVENT, 1)).await;
        }
    }
    assert_probes_answer(&server).await;
    client(&server).await.order(commit("new", EVENT, 1)).await;
    active.order(commit("last", EVENT, 1)).await;
    let metrics = MetricsSample::scrape(&server).await;
    assert!(metrics.sum("inventory_shard_connections_evicted_total") > 300.0);
    let log = server.log.text();
    let lines = log.matches("every shard has its maximum of connections").count();
    assert!((1..=20).contains(&lines), "{lines} lines for 600 connections:\n{log}");
    assert!(!log.contains("accept failed"), "{log}");
    server.stop().await;
}
