//! One reservation sent many times at once, over connections, shards and processes: one order, and
//! the stock moves once.

use std::collections::HashSet;
use std::time::Duration;

use inventory_client::sale::{self, SalePlan, ledger::ReservationOutcome};
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;
use crate::proxy::Act;
use crate::server::{Launch, Server, shards};
use crate::stage::{Book, Stage, create_at};

const EVENT: &str = "evt_duplicates";

/// Sends each of `ids` twice at once over every client; the one order of each.
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

fn assert_told_is_stored(book: &Book, ids: &[String], orders: &[String]) {
    assert_eq!(book.len(), ids.len());
    for (id, order) in ids.iter().zip(orders) {
        assert_eq!(book.order(id).as_ref(), Some(order), "{id}");
    }
}

#[tokio::test]
async fn over_connections_on_every_shard_it_is_one_order() {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, 100, 1);
    let server = stage.server();
    let clients = clients(&server, 8).await;
    let ids = ids(10);
    let orders = send_everywhere(&clients, &ids, 3).await;
    let book = stage.book(EVENT);
    assert_told_is_stored(&book, &ids, &orders);
    assert_eq!(book.remaining(), 100 - 30);
    let figures = Figures::of(&server).await;
    for shard in 0..shards() {
        let name = format!("inventory_shard_connections{{shard=\"{shard}\"}}");
        assert!(figures.get(&name) > 0.0, "no connection on shard {shard}");
    }
}

async fn clients_of(servers: &[Server], each: usize) -> Vec<InventoryClient> {
    let mut all = Vec::new();
    for server in servers {
        all.extend(clients(server, each).await);
    }
    all
}

#[tokio::test]
async fn over_two_server_processes_it_is_one_order() {
    let stage = Stage::new();
    // Over several stripes the two processes may reach for different ones.
    create_at(stage.engine.address(), EVENT, 100, 3);
    let servers = [stage.server(), stage.server()];
    let clients = clients_of(&servers, 4).await;
    let ids = ids(10);
    let orders = send_everywhere(&clients, &ids, 3).await;
    let book = stage.book(EVENT);
    assert_told_is_stored(&book, &ids, &orders);
    assert_eq!(book.remaining(), 100 - 30);
}

#[tokio::test]
async fn a_sale_over_two_processes_keeps_every_promise() {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, 300, 2);
    let servers = [stage.server(), stage.server()];
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

    let book = stage.book(EVENT);
    assert_eq!(book.remaining(), 300 - report.sold_units());
    for entry in report.ledger.entries() {
        let id = &entry.reservation_id;
        let order = book.order(id);
        match &entry.outcome {
            ReservationOutcome::Confirmed { order_id } => {
                assert_eq!(order.as_deref(), Some(&**order_id))
            }
            ReservationOutcome::Released => {
                assert!(order.is_none() && book.ids().any(|known| known == id))
            }
            ReservationOutcome::SoldOut => assert!(book.ids().all(|known| known != id), "{id}"),
            other => panic!("{id}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn sold_out_is_not_said_of_what_another_process_has_just_confirmed() {
    let stage = Stage::new();
    // One on each stripe: who wants both looks at all stripes first.
    create_at(stage.engine.address(), EVENT, 2, 2);
    let slow = stage.server();
    let quick = Launch::serve(stage.engine.address()).start();
    let (slow, quick) = (client(&slow).await, client(&quick).await);
    // The slow one finds its stripe too short for two, and is held up on its way to the others.
    let (mut wrote, before) = (false, stage.proxy.asked().len());
    stage.proxy.rule(move |asked| {
        wrote |= asked.is_write();
        match wrote && !asked.is_write() {
            true => Act::HoldRequest,
            false => Act::Pass,
        }
    });
    let copy = tokio::spawn(async move { slow.order(commit("r1", EVENT, 2)).await });
    until("it looks at all stripes", async || {
        let asked = &stage.proxy.asked()[before..];
        asked.iter().any(|asked| asked.operation == "BatchGetItem")
            && asked.iter().any(crate::proxy::Asked::is_write)
    })
    .await;
    let order = quick.order(commit("r1", EVENT, 2)).await;
    stage.proxy.pass();
    assert_eq!(copy.await.unwrap(), order);
    assert_eq!(stage.book(EVENT).remaining(), 0);
}

#[tokio::test]
async fn a_commit_and_a_release_at_once_have_one_winner() {
    let stage = Stage::new();
    create_at(stage.engine.address(), EVENT, 100, 1);
    let servers = [stage.server(), stage.server()];
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
                tokio::join!(one.commits(commit()), other.releases(release()));
            assert_ne!(
                committed.is_ok(),
                released.is_ok(),
                "{committed:?} {released:?}"
            );
            // Whoever asks later, anywhere, hears of the same winner.
            for client in &clients {
                match &committed {
                    Ok(answer) => {
                        assert_eq!(client.order(commit()).await, answer.order_id);
                        let late = client.releases(release()).await.unwrap_err();
                        assert_eq!(reason(&late), "RESERVATION_COMMITTED");
                    }
                    Err(status) => {
                        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
                        let late = client.commits(commit()).await.unwrap_err();
                        assert_eq!(reason(&late), "RESERVATION_RELEASED");
                        client.releases(release()).await.unwrap();
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
    let book = stage.book(EVENT);
    assert_eq!((book.len(), book.remaining()), (20, 100 - sold));
}

/// Of several payloads under one id, all at once and everywhere, one is sold and stays the only one.
#[tokio::test]
async fn of_different_payloads_at_once_one_wins() {
    let stage = Stage::new();
    let events = [EVENT, "evt_other"];
    for event in events {
        create_at(stage.engine.address(), event, 1_000, 1);
    }
    let servers = [stage.server(), stage.server()];
    let clients = clients_of(&servers, 4).await;
    let mut calls = JoinSet::new();
    for n in 0..10 {
        for (at, client) in clients.iter().enumerate() {
            let (client, id) = (client.clone(), format!("one-{n}"));
            let (event, qty) = (events[(n + at) % 2], 1 + i32::try_from(at / 4).unwrap());
            calls.spawn(async move {
                let answer = client.commits(commit(&id, event, qty)).await;
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
                assert_refused(&status, code, "IDEMPOTENCY_CONFLICT", payload.0, &id);
            }
        }
    }
    assert_eq!(won.len(), 10);
    for event in events {
        let of_event = won.values().filter(|(of, _)| *of == event);
        let sold: u64 = of_event.map(|(_, qty)| u64::from(qty.unsigned_abs())).sum();
        assert_eq!(stage.book(event).remaining(), 1_000 - sold);
    }
}
