//! Connections per shard: the acceptors balance what the kernel distributed, so that few long-lived clients use all shards.

use inventory_testkit::server::{ServerCommand, TestServer, report_skipped, shards};

use crate::client::*;

async fn connections(server: &TestServer) -> Vec<f64> {
    let metrics = MetricsSample::scrape(server).await;
    let of = |shard| metrics.get(&format!("inventory_shard_connections{{shard=\"{shard}\"}}"));
    (0..shards()).map(of).collect()
}

/// Whether there are two shards; otherwise the test is reported as skipped.
fn two_shards(test: &str) -> bool {
    let two = shards() == 2;
    if !two {
        report_skipped(test, "two shards need two CPUs");
    }
    two
}

#[tokio::test]
async fn four_clients_are_two_per_shard() {
    if !two_shards("four_clients_are_two_per_shard") {
        return;
    }
    // The kernel distributes differently after each start.
    for _ in 0..3 {
        let server = ServerCommand::dev_in_memory().env("SHARDS", "2").start();
        let held = clients(&server, 4).await;
        for client in &held {
            client.try_check(check("evt_2025_1001", 1)).await.unwrap();
        }
        assert_eq!(connections(&server).await, [2.0, 2.0]);
        drop(held);
        until("all connections are closed", async || connections(&server).await == [0.0, 0.0])
            .await;
    }
}

#[tokio::test]
async fn concurrent_connections_are_balanced() {
    if !two_shards("concurrent_connections_are_balanced") {
        return;
    }
    let server = ServerCommand::dev_in_memory().env("SHARDS", "2").start();
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let address = server.grpc.clone();
        coming.spawn(async move { inventory_client::connect(&address).await.unwrap() });
    }
    let held = coming.join_all().await;
    until("every connection is counted", async || {
        connections(&server).await.iter().sum::<f64>() == 40.0
    })
    .await;
    assert_eq!(connections(&server).await, [20.0, 20.0]);
    drop(held);
}

#[tokio::test]
async fn new_connections_go_to_the_shard_with_fewer() {
    if !two_shards("new_connections_go_to_the_shard_with_fewer") {
        return;
    }
    let server = ServerCommand::dev_in_memory().env("SHARDS", "2").start();
    // The metrics show on which shard each of six connections is.
    let mut on_zero = Vec::new();
    let mut on_one = Vec::new();
    for _ in 0..6 {
        let before = connections(&server).await;
        let new = client(&server).await;
        until("the connection is counted", async || connections(&server).await != before).await;
        match connections(&server).await[0] > before[0] {
            true => on_zero.push(new),
            false => on_one.push(new),
        }
    }
    assert_eq!((on_zero.len(), on_one.len()), (3, 3));
    on_zero.truncate(1);
    until("two closed connections", async || connections(&server).await == [1.0, 3.0]).await;
    let more = clients(&server, 2).await;
    until("two new connections", async || connections(&server).await.iter().sum::<f64>() == 6.0)
        .await;
    assert_eq!(connections(&server).await, [3.0, 3.0]);
    drop((on_one, more));
}

#[tokio::test]
async fn shards_are_as_configured() {
    let one = ServerCommand::dev_in_memory().env("SHARDS", "1").start();
    let client = client(&one).await;
    client.order(commit("r1", "evt_2025_1001", 1)).await;
    let metrics = MetricsSample::scrape(&one).await;
    assert_eq!(metrics.sum("inventory_shard_connections"), 1.0);
    assert_eq!(metrics.get(r#"inventory_shard_connections{shard="1"}"#), 0.0);
    let cores = inventory_process::allowed_cpus().unwrap();
    if cores.first() != Some(&0) || !cores.contains(&1) {
        let why = format!("SHARDS=0..2 needs CPUs 0 and 1, this machine allows {cores:?}");
        report_skipped("SHARDS as a range", &why);
        return;
    }
    let two = ServerCommand::dev_in_memory().env("SHARDS", "0..2").start();
    let held = clients(&two, 2).await;
    until("one on each", async || connections(&two).await == [1.0, 1.0]).await;
    drop(held);
}
