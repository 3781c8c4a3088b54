//! Events with several stripes: sold to the last unit, never oversold, and no call is rejected while units are available.

use std::collections::HashSet;

use crate::fake_store::FakeStore;
use inventory_testkit::server::{ServerCommand, command};
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;

const EVENT: &str = "evt_stripes";

#[tokio::test]
async fn event_created_by_a_command_sells_out_exactly() {
    let server = ServerCommand::dev_in_memory().start();
    let create = |total: &str| {
        let mut create = command(&["event", "create", EVENT, "--total", total, "--stripes", "5"]);
        create.args(["--admin", &server.admin]);
        ServerCommand::from(create).run()
    };
    for text in ["created", "nothing was changed"] {
        let made = create("203");
        assert_eq!(made.code, Some(0), "{made:?}");
        assert!(made.out.contains(text), "{made:?}");
    }
    let other = create("204");
    assert_eq!(other.code, Some(1), "{other:?}");
    other.assert_error_names(&["203"]);

    let clients = clients(&server, 6).await;
    let mut calls = JoinSet::new();
    for n in 0..300 {
        let client = clients[n % clients.len()].clone();
        let (id, qty) = (format!("r{n}"), [1, 1, 2, 3][n % 4]);
        calls.spawn(async move { (qty, client.try_commit(commit(&id, EVENT, qty)).await) });
    }
    let (mut sold, mut orders) = (0, HashSet::new());
    let mut refused = HashSet::new();
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            (qty, Ok(answer)) => {
                sold += i64::from(qty);
                assert!(orders.insert(answer.order_id));
            }
            (qty, Err(status)) => {
                assert_eq!(status.code(), Code::Aborted, "{status:?}");
                assert_eq!(reason(&status), "INSUFFICIENT_INVENTORY");
                refused.insert(qty);
            }
        }
    }
    let left = stock(&server, EVENT).await;
    assert_eq!(left.stripes.len(), 5);
    assert_eq!(left.confirmed, sold);
    // A call for one ticket was rejected, so no unit may remain.
    assert!(refused.contains(&1), "{refused:?}");
    assert_eq!(left.remaining, 0, "{left:?}");

    let mut show = command(&["event", "show", EVENT, "--json"]);
    show.args(["--admin", &server.admin]);
    let shown = ServerCommand::from(show).run();
    let json: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&json["remaining"], &json["confirmed"]), (&0.into(), &203.into()));
}

#[tokio::test]
async fn last_units_of_several_stripes_are_sold_to_one_buyer() {
    let store = FakeStore::start();
    // Two units per stripe: seven need several stripes.
    store.create_event(EVENT, 10, 5);
    let server = store.start_server();
    let client = client(&server).await;
    let order = client.order(commit("big", EVENT, 7)).await;
    let too_big = client.try_commit(commit("bigger", EVENT, 4)).await.unwrap_err();
    assert_eq!(reason(&too_big), "INSUFFICIENT_INVENTORY");
    assert!(client.try_check(check(EVENT, 3)).await.unwrap().available);
    assert!(!client.try_check(check(EVENT, 4)).await.unwrap().available);
    client.order(commit("rest", EVENT, 3)).await;
    assert_eq!(client.order(commit("big", EVENT, 7)).await, order);
    let stored = store.read_event(EVENT);
    assert_eq!(stored.remaining(), 0);
    assert!(stored.stripes_of("big") >= 4);
}

#[tokio::test]
async fn large_reservations_on_two_processes_sell_every_unit() {
    let store = FakeStore::start();
    store.create_event(EVENT, 60, 8);
    let servers = [store.start_server(), store.start_server()];
    let clients = [client(&servers[0]).await, client(&servers[1]).await];
    let mut calls = JoinSet::new();
    for n in 0..30 {
        let client = clients[n % 2].clone();
        calls.spawn(async move { client.try_commit(commit(&format!("r{n}"), EVENT, 5)).await });
    }
    let mut sold = 0;
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            Ok(_) => sold += 5,
            Err(status) => assert_eq!(reason(&status), "INSUFFICIENT_INVENTORY", "{status:?}"),
        }
    }
    assert_eq!(sold, 60);
    assert_eq!(store.read_event(EVENT).remaining(), 0);
}
