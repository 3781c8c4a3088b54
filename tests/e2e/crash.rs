//! Killed under load and started again on the same data: what was acknowledged is there, with its
//! order; what was not has one outcome; nothing is doubled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::*;
use crate::server::{Launch, Server};
use crate::stage::Book;

const EVENT: &str = "evt_crash";
const TOTAL: i64 = 50_000;
/// Kills, each in the midst of this many calls.
const KILLS: usize = 2;
const BUYERS: usize = 40;

/// What every reservation was last told: its quantity, and its order if it was acknowledged.
type Told = BTreeMap<String, (i32, Option<String>)>;

/// Buys until the server is gone, which it is soon after `enough` orders.
async fn buy_until_killed(server: Server, round: usize, enough: usize) -> Told {
    let told = Arc::new(Mutex::new(Told::new()));
    let next = Arc::new(AtomicUsize::new(0));
    let orders = Arc::new(AtomicUsize::new(0));
    let mut buyers = JoinSet::new();
    let clients = clients(&server, 4).await;
    for buyer in 0..BUYERS {
        let client = clients[buyer % clients.len()].clone();
        let (told, next, orders) = (told.clone(), next.clone(), orders.clone());
        buyers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst);
                let id = format!("k{round}-{n}");
                let qty = 1 + i32::try_from(n % 3).unwrap();
                told.lock().unwrap().insert(id.clone(), (qty, None));
                match client.commits(commit(&id, EVENT, qty)).await {
                    Ok(answer) => {
                        told.lock()
                            .unwrap()
                            .insert(id, (qty, Some(answer.order_id)));
                        orders.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => return,
                }
            }
        });
    }
    until("enough orders", async || {
        orders.load(Ordering::SeqCst) >= enough
    })
    .await;
    server.kill();
    while buyers.join_next().await.is_some() {}
    told.lock().unwrap().clone()
}

#[tokio::test]
async fn killed_under_load_it_loses_no_order_and_doubles_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Launch::data(dir.path()).start();
    create(&server, EVENT, TOTAL, 1).await;
    let mut all = Told::new();
    for round in 0..KILLS {
        let told = buy_until_killed(server, round, 150).await;
        let lost = told.values().filter(|(_, order)| order.is_none()).count();
        assert!(lost > 0, "nothing was under way when the server was killed");
        all.extend(told);
        server = Launch::data(dir.path()).start();
    }

    // Everybody asks again, on any connection, and then once more.
    let clients = clients(&server, 4).await;
    let mut orders = BTreeMap::new();
    let mut repeats = JoinSet::new();
    for (n, (id, (qty, known))) in all.iter().enumerate() {
        let (one, other) = (clients[n % 4].clone(), clients[(n + 1) % 4].clone());
        let (call, known) = (commit(id, EVENT, *qty), known.clone());
        repeats.spawn(async move {
            let order = one.order(call.clone()).await;
            assert!(
                known.is_none_or(|known| known == order),
                "another order: {call:?}"
            );
            assert_eq!(other.order(call.clone()).await, order);
            (call.reservation_id, order)
        });
        if repeats.len() > BUYERS {
            let (id, order) = repeats.join_next().await.unwrap().unwrap();
            orders.insert(id, order);
        }
    }
    while let Some(repeat) = repeats.join_next().await {
        let (id, order) = repeat.unwrap();
        orders.insert(id, order);
    }
    let units: i64 = all.values().map(|(qty, _)| i64::from(*qty)).sum();
    let shown = stock(&server, EVENT).await;
    assert_eq!((shown.total, shown.confirmed), (TOTAL, units));
    server.stops().await;

    let book = Book::of_dir(dir.path(), EVENT);
    assert_eq!(book.len(), all.len());
    for (id, order) in orders {
        assert_eq!(book.order(&id), Some(order), "{id}");
    }
    assert_eq!(book.remaining(), (TOTAL - units).unsigned_abs());
}

#[tokio::test]
async fn a_server_process_killed_before_another_leaves_it_nothing_to_wait_for() {
    // No lease, no lock: the one that lives sells on at once.
    let stage = crate::stage::Stage::new();
    crate::stage::create_at(stage.engine.address(), EVENT, 100, 1);
    let (dies, lives) = (stage.server(), stage.server());
    let one = client(&dies).await;
    let other = client(&lives).await;
    let order = one.order(commit("r1", EVENT, 1)).await;
    stage.proxy.writes(crate::proxy::Act::HoldAnswer);
    let pending = tokio::spawn(async move { one.commits(commit("r2", EVENT, 1)).await });
    let before = stage.proxy.writes_asked().len();
    until("the write is under way", async || {
        stage.proxy.writes_asked().len() > before || stage.book(EVENT).len() == 2
    })
    .await;
    dies.kill();
    assert!(pending.await.unwrap().is_err());
    stage.proxy.pass();
    let call = within(commit("r2", EVENT, 1), Duration::from_secs(20));
    let answer = other.clone().commit_reservation(call).await.unwrap();
    assert_eq!(other.order(commit("r1", EVENT, 1)).await, order);
    let book = stage.book(EVENT);
    assert_eq!(book.order("r2"), Some(answer.into_inner().order_id));
    assert_eq!(book.remaining(), 98);
}
