//! The same reservation many times at once, over connections, shards and processes: one order and one change of stock.

use std::collections::HashSet;
use std::time::Duration;

use crate::fake_store::{FakeStore, RecordedRequest, RequestAction};
use crate::stored_event::StoredEvent;
use inventory_client::sale::{self, SalePlan, ledger::ReservationOutcome};
use inventory_testkit::server::{TestServer, shards};
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;

const EVENT: &str = "evt_duplicates";

/// Sends each of `ids` twice over every client, concurrently; returns the one order id of each.
async fn send_everywhere(clients: &[InventoryClient], ids: &[String], qty: i32) -> Vec<String> {
    let mut calls = JoinSet::new();
    for (index, id) in ids.iter().enumerate() {
        for client in clients.iter().chain(clients) {
            let (client, call) = (client.clone(), commit(id, EVENT, qty));
            calls.spawn(async move { (index, client.order(call).await) });
        }
    }
    let mut orders = vec![HashSet::new(); ids.len()];
    while let Some(answer) = calls.join_next().await {
        let (index, order) = answer.unwrap();
        orders[index].insert(order);
    }
    let the_one = |orders: HashSet<String>| {
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders.into_iter().next().unwrap()
    };
    orders.into_iter().map(the_one).collect()
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("dup-{n}")).collect()
}

fn assert_orders_are_stored(stored: &StoredEvent, ids: &[String], orders: &[String]) {
    assert_eq!(stored.record_count(), ids.len());
    for (id, order) in ids.iter().zip(orders) {
        assert_eq!(stored.order_of(id).as_ref(), Some(order), "{id}");
    }
}

async fn clients_of(servers: &[TestServer], each: usize) -> Vec<InventoryClient> {
    let mut all = Vec::new();
    for server in servers {
        all.extend(clients(server, each).await);
    }
    all
}

#[tokio::test]
async fn duplicates_over_connections_shards_and_processes_are_one_order() {
    let store = FakeStore::start();
    // With several stripes, the processes may choose different ones.
    store.create_event(EVENT, 100, 3);
    let servers = [store.start_server(), store.start_server()];
    let clients = clients_of(&servers, 4).await;
    let ids = ids(10);
    let orders = send_everywhere(&clients, &ids, 3).await;
    let stored = store.read_event(EVENT);
    assert_orders_are_stored(&stored, &ids, &orders);
    assert_eq!(stored.remaining(), 100 - 30);
    for server in &servers {
        let metrics = MetricsSample::scrape(server).await;
        for shard in 0..shards() {
            let name = format!("inventory_shard_connections{{shard=\"{shard}\"}}");
            assert!(metrics.get(&name) > 0.0, "no connection on shard {shard}");
        }
    }
}

#[tokio::test]
async fn sale_over_two_processes_is_clean() {
    let store = FakeStore::start();
    store.create_event(EVENT, 300, 2);
    let servers = [store.start_server(), store.start_server()];
    let addresses = servers.iter().map(|server| server.grpc.clone()).collect();
    let plan = SalePlan {
        buyers: 500,
        connections: 6,
        calls_per_connection: 16,
        call_timeout: Duration::from_secs(10),
        ..SalePlan::new(addresses, EVENT, 300)
    };
    let report = sale::run(plan, None).await.unwrap();
    assert!(report.is_clean(), "{report}");
    let counts = report.ledger.counts();
    assert!(counts.duplicates_identical > 20, "{report}");
    assert!(counts.late_commits_refused > 0, "{report}");
    assert!(counts.sold_out > 0, "{report}");

    let stored = store.read_event(EVENT);
    assert_eq!(stored.remaining(), 300 - report.sold_units());
    for entry in report.ledger.entries() {
        let id = &entry.reservation_id;
        let order = stored.order_of(id);
        match &entry.outcome {
            ReservationOutcome::Confirmed { order_id } => {
                assert_eq!(order.as_deref(), Some(&**order_id))
            }
            ReservationOutcome::Released => {
                assert!(order.is_none() && stored.reservation_ids().any(|known| known == id))
            }
            ReservationOutcome::SoldOut => {
                assert!(stored.reservation_ids().all(|known| known != id), "{id}")
            }
            other => panic!("{id}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn reservation_confirmed_by_another_process_is_not_sold_out() {
    let store = FakeStore::start();
    // One unit per stripe: a commit of two reads all stripes first.
    store.create_event(EVENT, 2, 2);
    let slow = store.start_server();
    let quick = store.start_server();
    let (slow, quick) = (client(&slow).await, client(&quick).await);
    // The slow server's stripe has too few units for two; its read of all stripes after that write is held.
    let (mut has_written, mut has_held, before) = (false, false, store.requests().len());
    store.set_rule(move |request| {
        has_written |= request.is_write();
        let is_read = has_written && request.operation == "BatchGetItem";
        if !is_read || std::mem::replace(&mut has_held, true) {
            return RequestAction::Execute;
        }
        RequestAction::HoldRequest
    });
    let copy = tokio::spawn(async move { slow.order(commit("r1", EVENT, 2)).await });
    until("the read of all stripes", async || {
        let asked = &store.requests()[before..];
        asked.iter().any(|asked| asked.operation == "BatchGetItem")
            && asked.iter().any(RecordedRequest::is_write)
    })
    .await;
    let order = quick.order(commit("r1", EVENT, 2)).await;
    store.clear_rule();
    assert_eq!(copy.await.unwrap(), order);
    assert_eq!(store.read_event(EVENT).remaining(), 0);
}

#[tokio::test]
async fn concurrent_commit_and_release_have_one_winner() {
    let store = FakeStore::start();
    store.create_event(EVENT, 100, 1);
    let servers = [store.start_server(), store.start_server()];
    let clients = clients_of(&servers, 2).await;
    let mut races = JoinSet::new();
    for n in 0..20 {
        let clients = clients.clone();
        races.spawn(async move {
            let id = format!("race-{n}");
            let (one, other) = (&clients[n % 4], &clients[(n + 2) % 4]);
            let commit = || commit(&id, EVENT, 2);
            let release = || release(&id, EVENT, 2);
            let (committed, released) =
                tokio::join!(one.try_commit(commit()), other.try_release(release()));
            assert_ne!(committed.is_ok(), released.is_ok(), "{committed:?} {released:?}");
            // Every later call on any connection reports the same winner.
            for client in &clients {
                match &committed {
                    Ok(answer) => {
                        assert_eq!(client.order(commit()).await, answer.order_id);
                        let late = client.try_release(release()).await.unwrap_err();
                        assert_eq!(reason(&late), "RESERVATION_COMMITTED");
                    }
                    Err(status) => {
                        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
                        let late = client.try_commit(commit()).await.unwrap_err();
                        assert_eq!(reason(&late), "RESERVATION_RELEASED");
                        client.try_release(release()).await.unwrap();
                    }
                }
            }
            committed.is_ok()
        });
    }
    let mut sold = 0;
    while let Some(won) = races.join_next().await {
        sold += 2 * u64::from(won.unwrap());
    }
    let stored = store.read_event(EVENT);
    assert_eq!((stored.record_count(), stored.remaining()), (20, 100 - sold));
}

#[tokio::test]
async fn one_of_several_payloads_with_the_same_id_wins() {
    let store = FakeStore::start();
    let events = [EVENT, "evt_other"];
    for event in events {
        store.create_event(event, 1_000, 1);
    }
    let servers = [store.start_server(), store.start_server()];
    let clients = clients_of(&servers, 4).await;
    let mut calls = JoinSet::new();
    for n in 0..10 {
        for (at, client) in clients.iter().enumerate() {
            let (client, id) = (client.clone(), format!("one-{n}"));
            let (event, qty) = (events[(n + at) % 2], 1 + i32::try_from(at / 4).unwrap());
            calls.spawn(async move {
                let answer = client.try_commit(commit(&id, event, qty)).await;
                (id, (event, qty), answer)
            });
        }
    }
    let mut won = std::collections::BTreeMap::new();
    while let Some(call) = calls.join_next().await {
        let (id, payload, answer) = call.unwrap();
        match answer {
            Ok(_) => {
                let first = *won.entry(id.clone()).or_insert(payload);
                assert_eq!(first, payload, "{id} was sold twice");
            }
            Err(status) => {
                let code = Code::AlreadyExists;
                assert_rejected(&status, code, "IDEMPOTENCY_CONFLICT", payload.0, &id);
            }
        }
    }
    assert_eq!(won.len(), 10);
    for event in events {
        let of_event = won.values().filter(|(of, _)| *of == event);
        let sold: u64 = of_event.map(|(_, qty)| u64::from(qty.unsigned_abs())).sum();
        assert_eq!(store.read_event(event).remaining(), 1_000 - sold);
    }
}
