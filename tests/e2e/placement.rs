//! Which shard a connection lives on: the kernel's choice is corrected, so that a handful of
//! long-lived clients is not all on one.

use crate::client::*;
use crate::server::{Launch, Server, shards, skip};

async fn connections(server: &Server) -> Vec<f64> {
    let figures = Figures::of(server).await;
    let of = |shard| figures.get(&format!("inventory_shard_connections{{shard=\"{shard}\"}}"));
    (0..shards()).map(of).collect()
}

/// Whether there are two shards; else the test is reported as skipped.
fn two_shards(test: &str) -> bool {
    let two = shards() == 2;
    if !two {
        skip(test, "two shards need two CPUs");
    }
    two
}

#[tokio::test]
async fn four_long_lived_clients_sit_two_and_two() {
    if !two_shards("four_long_lived_clients_sit_two_and_two") {
        return;
    }
    // The kernel's choice differs from start to start.
    for _ in 0..3 {
        let server = Launch::memory().env("SHARDS", "2").start();
        let held = clients(&server, 4).await;
        for client in &held {
            client.checks(check("evt_2025_1001", 1)).await.unwrap();
        }
        assert_eq!(connections(&server).await, [2.0, 2.0]);
        drop(held);
        until("closed connections are counted off", async || {
            connections(&server).await == [0.0, 0.0]
        })
        .await;
    }
}

#[tokio::test]
async fn clients_that_come_all_at_once_are_spread_evenly() {
    if !two_shards("clients_that_come_all_at_once_are_spread_evenly") {
        return;
    }
    let server = Launch::memory().env("SHARDS", "2").start();
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
async fn new_clients_go_where_others_have_left() {
    if !two_shards("new_clients_go_where_others_have_left") {
        return;
    }
    let server = Launch::memory().env("SHARDS", "2").start();
    // Found out by watching: which of six connections make up shard 0's three.
    let mut on_zero = Vec::new();
    let mut on_one = Vec::new();
    for _ in 0..6 {
        let before = connections(&server).await;
        let new = client(&server).await;
        until("it is counted", async || {
            connections(&server).await != before
        })
        .await;
        match connections(&server).await[0] > before[0] {
            true => on_zero.push(new),
            false => on_one.push(new),
        }
    }
    assert_eq!((on_zero.len(), on_one.len()), (3, 3));
    on_zero.truncate(1);
    until("two have left", async || {
        connections(&server).await == [1.0, 3.0]
    })
    .await;
    let more = clients(&server, 2).await;
    until("two have come", async || {
        connections(&server).await.iter().sum::<f64>() == 6.0
    })
    .await;
    assert_eq!(connections(&server).await, [3.0, 3.0]);
    drop((on_one, more));
}

#[tokio::test]
async fn the_shards_are_those_asked_for() {
    let one = Launch::memory().env("SHARDS", "1").start();
    let client = client(&one).await;
    client.order(commit("r1", "evt_2025_1001", 1)).await;
    let figures = Figures::of(&one).await;
    assert_eq!(figures.sum("inventory_shard_connections"), 1.0);
    assert_eq!(
        figures.get(r#"inventory_shard_connections{shard="1"}"#),
        0.0
    );
    let cores = inventory_process::allowed_cpus().unwrap();
    if cores.first() != Some(&0) || !cores.contains(&1) {
        let why = format!("SHARDS=0..2 needs CPUs 0 and 1, this machine allows {cores:?}");
        skip("SHARDS as a range", &why);
        return;
    }
    let two = Launch::memory().env("SHARDS", "0..2").start();
    let held = clients(&two, 2).await;
    until("one on each", async || {
        connections(&two).await == [1.0, 1.0]
    })
    .await;
    drop(held);
}
