//! SIGKILL under load and a restart on the same data: acknowledged orders are kept, unacknowledged calls have one outcome,
//! and no order is doubled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake_store::{FakeStore, RequestAction};
use crate::stored_event::StoredEvent;
use inventory_testkit::server::{ServerCommand, TestServer};
use tokio::task::JoinSet;

use crate::client::*;

const EVENT: &str = "evt_crash";
const TOTAL: i64 = 50_000;
/// Number of SIGKILLs.
const KILLS: usize = 2;
const BUYERS: usize = 40;

/// By reservation: the quantity, and the order id if the commit was acknowledged.
type LastAnswers = BTreeMap<String, (i32, Option<String>)>;

/// Buys until the server is killed, shortly after `enough` orders.
async fn buy_until_killed(server: TestServer, round: usize, enough: usize) -> LastAnswers {
    let answers = Arc::new(Mutex::new(LastAnswers::new()));
    let next = Arc::new(AtomicUsize::new(0));
    let orders = Arc::new(AtomicUsize::new(0));
    let mut buyers = JoinSet::new();
    let clients = clients(&server, 4).await;
    for buyer in 0..BUYERS {
        let client = clients[buyer % clients.len()].clone();
        let (answers, next, orders) = (answers.clone(), next.clone(), orders.clone());
        buyers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst);
                let id = format!("k{round}-{n}");
                let qty = 1 + i32::try_from(n % 3).unwrap();
                answers.lock().unwrap().insert(id.clone(), (qty, None));
                match client.try_commit(commit(&id, EVENT, qty)).await {
                    Ok(answer) => {
                        answers.lock().unwrap().insert(id, (qty, Some(answer.order_id)));
                        orders.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => return,
                }
            }
        });
    }
    until("enough orders", async || orders.load(Ordering::SeqCst) >= enough).await;
    server.kill();
    while buyers.join_next().await.is_some() {}
    answers.lock().unwrap().clone()
}

#[tokio::test]
async fn sigkill_under_load_loses_no_order_and_doubles_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = ServerCommand::dev_in_directory(dir.path()).start();
    create(&server, EVENT, TOTAL, 1).await;
    let mut all = LastAnswers::new();
    for round in 0..KILLS {
        let answers = buy_until_killed(server, round, 150).await;
        let lost = answers.values().filter(|(_, order)| order.is_none()).count();
        assert!(lost > 0, "no call was in flight when the server was killed");
        all.extend(answers);
        server = ServerCommand::dev_in_directory(dir.path()).start();
    }

    // Each call is repeated twice, on two connections.
    let clients = clients(&server, 4).await;
    let mut orders = BTreeMap::new();
    let mut repeats = JoinSet::new();
    for (n, (id, (qty, known))) in all.iter().enumerate() {
        let (one, other) = (clients[n % 4].clone(), clients[(n + 1) % 4].clone());
        let (call, known) = (commit(id, EVENT, *qty), known.clone());
        repeats.spawn(async move {
            let order = one.order(call.clone()).await;
            assert!(known.is_none_or(|known| known == order), "another order: {call:?}");
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
    server.stop().await;

    let stored = StoredEvent::in_directory(dir.path(), EVENT);
    assert_eq!(stored.record_count(), all.len());
    for (id, order) in orders {
        assert_eq!(stored.order_of(&id), Some(order), "{id}");
    }
    assert_eq!(stored.remaining(), (TOTAL - units).unsigned_abs());
}

#[tokio::test]
async fn killed_process_blocks_no_other_process() {
    // There is no lease and no lock: the other process sells at once.
    let store = FakeStore::start();
    store.create_event(EVENT, 100, 1);
    let (killed, alive) = (store.start_server(), store.start_server());
    let one = client(&killed).await;
    let other = client(&alive).await;
    let order = one.order(commit("r1", EVENT, 1)).await;
    store.set_write_rule(RequestAction::HoldResponse);
    let pending = tokio::spawn(async move { one.try_commit(commit("r2", EVENT, 1)).await });
    let before = store.writes().len();
    until("the write is in flight", async || {
        store.writes().len() > before || store.read_event(EVENT).record_count() == 2
    })
    .await;
    killed.kill();
    assert!(pending.await.unwrap().is_err());
    store.clear_rule();
    let call = within(commit("r2", EVENT, 1), Duration::from_secs(20));
    let answer = other.clone().commit_reservation(call).await.unwrap();
    assert_eq!(other.order(commit("r1", EVENT, 1)).await, order);
    let stored = store.read_event(EVENT);
    assert_eq!(stored.order_of("r2"), Some(answer.into_inner().order_id));
    assert_eq!(stored.remaining(), 98);
}
