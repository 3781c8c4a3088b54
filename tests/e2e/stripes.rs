//! An event over several stripes: sold to the last unit, never beyond, and nobody is refused what is
//! there.

use std::collections::HashSet;

use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;
use crate::server::{Launch, command};
use crate::stage::{Stage, create_at};

const EVENT: &str = "evt_stripes";

#[tokio::test]
async fn an_event_made_on_the_command_line_sells_out_exactly() {
    let server = Launch::memory().start();
    let create = |total: &str| {
        let mut create = command(&["event", "create", EVENT, "--total", total, "--stripes", "5"]);
        create.args(["--admin", &server.admin]);
        Launch { command: create }.run()
    };
    for said in ["created", "there already"] {
        let made = create("203");
        assert_eq!(made.code, Some(0), "{made:?}");
        assert!(made.out.contains(said), "{made:?}");
    }
    let other = create("204");
    assert_eq!(other.code, Some(1), "{other:?}");
    other.says(&["203"]);

    let clients = clients(&server, 6).await;
    let mut calls = JoinSet::new();
    for n in 0..300 {
        let client = clients[n % clients.len()].clone();
        let (id, qty) = (format!("r{n}"), [1, 1, 2, 3][n % 4]);
        calls.spawn(async move { (qty, client.commits(commit(&id, EVENT, qty)).await) });
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
    // Somebody wanted one ticket and was refused, so none may be left.
    assert!(refused.contains(&1), "{refused:?}");
    assert_eq!(left.remaining, 0, "{left:?}");

    let mut show = command(&["event", "show", EVENT, "--json"]);
    show.args(["--admin", &server.admin]);
    let shown = Launch { command: show }.run();
    let json: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(
        (&json["remaining"], &json["confirmed"]),
        (&0.into(), &203.into())
    );
}

#[tokio::test]
async fn the_last_units_of_several_stripes_sell_to_one_buyer() {
    let stage = Stage::new();
    // Two on each: nobody gets seven from one stripe.
    create_at(stage.engine.address(), EVENT, 10, 5);
    let server = stage.server();
    let client = client(&server).await;
    let order = client.order(commit("big", EVENT, 7)).await;
    let too_big = client
        .commits(commit("bigger", EVENT, 4))
        .await
        .unwrap_err();
    assert_eq!(reason(&too_big), "INSUFFICIENT_INVENTORY");
    assert!(client.checks(check(EVENT, 3)).await.unwrap().available);
    assert!(!client.checks(check(EVENT, 4)).await.unwrap().available);
    client.order(commit("rest", EVENT, 3)).await;
    assert_eq!(client.order(commit("big", EVENT, 7)).await, order);
    let book = stage.book(EVENT);
    assert_eq!(book.remaining(), 0);
    assert!(book.draws("big") >= 4);
}

#[tokio::test]
async fn big_buyers_on_two_processes_share_the_stripes_without_a_gap() {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, 60, 8);
    let servers = [stage.server(), stage.server()];
    let clients = [client(&servers[0]).await, client(&servers[1]).await];
    let mut calls = JoinSet::new();
    for n in 0..30 {
        let client = clients[n % 2].clone();
        calls.spawn(async move { client.commits(commit(&format!("r{n}"), EVENT, 5)).await });
    }
    let mut sold = 0;
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            Ok(_) => sold += 5,
            Err(status) => assert_eq!(reason(&status), "INSUFFICIENT_INVENTORY", "{status:?}"),
        }
    }
    assert_eq!(sold, 60);
    assert_eq!(stage.book(EVENT).remaining(), 0);
}
