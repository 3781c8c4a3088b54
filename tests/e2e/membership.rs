//! Server processes that find each other through the store: they see who joins, leaves and dies, and nothing that happens
//! to the membership item stops a server.

use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::tables;
use inventory_testkit::server::{ServerCommand, TestServer, command, shards};
use inventory_testkit::store_proxy::StoreProxy;
use serde_json::{Value, json};

use crate::client::*;
use crate::fake_store::{FakeStore, RecordedRequest, RequestAction, n, s, store_error};
use crate::stored_event::on_store;

const EVENT: &str = "evt_members";

fn key() -> Value {
    json!({ "event_id": s("#members") })
}

/// Ids of the processes in the membership item.
fn listed(store: &FakeStore) -> Vec<String> {
    let item = store.item("inventory", &key());
    let names = item.as_object().into_iter().flat_map(|item| item.keys());
    names.filter(|name| *name != "event_id").cloned().collect()
}

/// Puts an entry that another process could have written.
fn put_entry(store: &FakeStore, id: &str, entry: &Value) {
    let body = json!({
        "TableName": "inventory", "Key": key(), "UpdateExpression": "SET #n = :v",
        "ExpressionAttributeNames": { "#n": id },
        "ExpressionAttributeValues": { ":v": entry },
    });
    store.call("UpdateItem", body);
}

fn entry(clock_ahead_ms: i64) -> Value {
    json!({ "M": {
        "beat": n(7), "interval_ms": n(60_000), "shards": n(1), "version": s("0.0.9"),
        "address": s("elsewhere:8080"), "clock_ahead_ms": n(clock_ahead_ms), "clock_error_ms": n(10),
    } })
}

async fn members(server: &TestServer) -> f64 {
    MetricsSample::scrape(server).await.get("inventory_members")
}

async fn all_see(servers: &[&TestServer], count: usize) {
    until(&format!("{count} members"), async || {
        for server in servers {
            if members(server).await != count as f64 {
                return false;
            }
        }
        true
    })
    .await;
}

/// `inventory-api members --json`.
async fn list(server: &TestServer) -> Value {
    let ran = run(server, &["--json"]).await;
    serde_json::from_str(&ran).unwrap()
}

async fn run(server: &TestServer, more: &[&str]) -> String {
    let arguments = [&["members", "--admin", &server.admin], more].concat();
    let mut command = command(&arguments);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let error = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{error}");
    String::from_utf8(ran.stdout).unwrap()
}

fn is_membership(request: &RecordedRequest) -> bool {
    request.body["Key"]["event_id"]["S"] == "#members"
}

#[tokio::test]
async fn servers_on_one_embedded_store_see_each_other() {
    let engine = EmbeddedEngine::start(EngineStorage::Memory).unwrap();
    let address = engine.address();
    on_store(address, async |store| tables::create(&store).await.map(drop)).unwrap();
    let first = ServerCommand::with_store(address, &["serve"]).start();
    let second =
        ServerCommand::with_store(address, &["serve"]).env("SERVICE_VERSION", "7.8.9").start();
    all_see(&[&first, &second], 2).await;
    let metrics = MetricsSample::scrape(&first).await;
    assert_eq!(metrics.get("inventory_member_share_ratio"), 0.5);
    assert!(metrics.get(r#"inventory_member_beats_total{result="ok"}"#) >= 1.0);
    assert!(metrics.get("inventory_member_beat_age_seconds") < 10.0);

    let list = list(&first).await;
    assert_eq!((&list["source"], &list["own_share"]), (&json!("store"), &json!(0.5)), "{list:#}");
    let [own, other] = &list["members"].as_array().unwrap()[..] else { panic!("{list:#}") };
    assert_eq!((&own["state"], &other["state"]), (&json!("self"), &json!("alive")));
    assert_eq!(other["version"], "7.8.9");
    assert_eq!(other["shards"], shards());
    let port = second.grpc.rsplit(':').next().unwrap();
    assert!(other["address"].as_str().unwrap().ends_with(&format!(":{port}")), "{other:#}");
    assert!(other["beat_age_seconds"].as_f64().unwrap() < 10.0);
    assert!(other["uptime_seconds"].as_f64().unwrap() < 60.0);
    let text = run(&first, &[]).await;
    assert!(text.contains("7.8.9") && text.contains("share of this process 50 %"), "{text}");

    // Events are listed without the membership item, and nothing about it is logged.
    create(&first, EVENT, 100, 2).await;
    let events = ServerCommand::from(command(&["event", "list", "--admin", &first.admin])).run();
    assert_eq!(events.code, Some(0), "{}", events.err);
    assert!(events.out.contains(EVENT) && !events.out.contains('#'), "{}", events.out);
    assert!(!first.log.text().contains("cannot be understood"), "{}", first.log.text());

    second.stop().await;
    all_see(&[&first], 1).await;
}

#[tokio::test]
async fn a_draining_server_removes_its_entry_before_it_has_answered_its_last_call() {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000, 1);
    let (mut draining, staying) = (store.start_server(), store.start_server());
    all_see(&[&draining, &staying], 2).await;
    // A call that lasts until the rule ends.
    store.set_write_rule(RequestAction::HoldRequest);
    let client = client(&draining).await;
    let call = tokio::spawn(async move { client.order(commit("last", EVENT, 1)).await });
    until("the write is held", async || !store.writes().is_empty()).await;
    draining.signal(libc::SIGTERM);
    until("the entry is removed", async || listed(&store).len() == 1).await;
    draining.assert_running();
    assert!(!call.is_finished());
    store.clear_rule();
    assert!(!call.await.unwrap().is_empty());
    assert_eq!(draining.wait_for_exit().await.1.code(), Some(0));
    all_see(&[&staying], 1).await;
    assert_eq!(listed(&store).len(), 1, "written again");
}

#[tokio::test]
async fn a_killed_server_is_forgotten_after_missed_beats() {
    let store = FakeStore::start();
    let (killed, staying) = (store.start_server(), store.start_server());
    all_see(&[&killed, &staying], 2).await;
    killed.kill();
    all_see(&[&staying], 1).await;
    until("the entry is removed", async || listed(&store).len() == 1).await;
    let known = async || list(&staying).await["members"].as_array().unwrap().len();
    until("the answer to the removal arrived", async || known().await == 1).await;
}

#[tokio::test]
async fn configured_members_need_no_store() {
    let store = FakeStore::start();
    let of = |setting: &str| store.server_command().env("MEMBERSHIP", setting).start();
    let (last, alone) = (of("static:2/3"), of("off"));
    assert_eq!((members(&last).await, members(&alone).await), (3.0, 1.0));
    let share = MetricsSample::scrape(&last).await.get("inventory_member_share_ratio");
    assert!((share - 1.0 / 3.0).abs() < 1e-9, "{share}");
    let list = list(&last).await;
    let states: Vec<_> =
        list["members"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(
        (&list["source"], json!(states)),
        (&json!("static"), json!(["self", "alive", "alive"]))
    );
    assert!(run(&alone, &[]).await.contains("MEMBERSHIP=off"));
    last.stop().await;
    alone.stop().await;
    assert!(!store.requests().iter().any(is_membership));
    assert_eq!(store.item("inventory", &key()), Value::Null);
}

#[tokio::test]
async fn a_full_item_leaves_a_server_unlisted_and_serving() {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000, 4);
    for id in 0..64 {
        put_entry(&store, &format!("{id:016x}"), &entry(0));
    }
    let server = store.start_server();
    let unlisted =
        async || MetricsSample::scrape(&server).await.get("inventory_member_unlisted") == 1.0;
    until("the server is unlisted", unlisted).await;
    assert!(server.log.wait_for(|log| log.contains("membership item full")));
    assert_eq!(members(&server).await, 65.0);
    assert!(run(&server, &[]).await.contains("membership item is full"));
    client(&server).await.order(commit("full", EVENT, 1)).await;
    server.stop().await;
    assert_eq!(listed(&store).len(), 64, "its own entry is removed");
}

#[tokio::test]
async fn a_damaged_item_is_reported_and_stops_no_server() {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000, 4);
    let nonsense = json!({
        "event_id": s("#members"), "remaining": s("lots"), "note": n(1),
        "00000000000000aa": s("nonsense"), "00000000000000bb": { "M": { "beat": s("seven") } },
        "00000000000000cc": { "L": [] },
    });
    store.put_item("inventory", nonsense);
    let server = store.start_server();
    until("the damage is counted", async || {
        MetricsSample::scrape(&server).await.get("inventory_member_entries_unreadable") == 3.0
    })
    .await;
    assert!(server.log.wait_for(|log| log.contains("entries that cannot be read")));
    assert_eq!(members(&server).await, 1.0);
    assert!(run(&server, &[]).await.contains("cannot be read: 3"));
    let client = client(&server).await;
    client.order(commit("damaged", EVENT, 1)).await;
    // The own entry is overwritten, and then the whole item.
    let own = list(&server).await["members"][0]["process_id"].as_str().unwrap().to_owned();
    put_entry(&store, &own, &s("mine now"));
    until("the entry is back", async || {
        store.item("inventory", &key())[&own]["M"]["beat"]["N"].is_string()
    })
    .await;
    store.delete_item("inventory", &key());
    until("the item is back", async || listed(&store) == [own.clone()]).await;
    client.order(commit("repaired", EVENT, 1)).await;
}

#[tokio::test]
async fn a_server_that_cannot_reach_the_item_serves_and_keeps_its_members() {
    let store = FakeStore::start();
    store.create_event(EVENT, 1_000, 4);
    let (cut_off, other) = (store.start_server(), store.start_server());
    all_see(&[&cut_off, &other], 2).await;
    store.set_rule(|request| match is_membership(request) {
        true => store_error(400, "AccessDeniedException"),
        false => RequestAction::Execute,
    });
    until("beats fail", async || {
        MetricsSample::scrape(&cut_off)
            .await
            .get(r#"inventory_member_beats_total{result="failed"}"#)
            >= 2.0
    })
    .await;
    assert!(cut_off.log.wait_for(|log| log.contains("membership beats fail")));
    assert_eq!(members(&cut_off).await, 2.0);
    assert_eq!(http_get(&cut_off.metrics, "/readyz").await.unwrap().0, 200);
    client(&cut_off).await.order(commit("cut-off", EVENT, 1)).await;
    // A process that cannot leave ends all the same.
    other.stop().await;
    store.clear_rule();
    assert!(cut_off.log.wait_for(|log| log.contains("membership beats succeed again")));
}

#[tokio::test]
async fn clocks_of_two_processes_that_differ_are_reported() {
    let store = FakeStore::start();
    let proxy = StoreProxy::start(store.address(), None);
    put_entry(&store, "00000000000000aa", &entry(5_000));
    let server = ServerCommand::with_store(proxy.address, &["serve"]).start();
    until("the difference is measured", async || {
        let metrics = MetricsSample::scrape(&server).await;
        metrics.get("inventory_member_clock_difference_seconds") > 1.0
    })
    .await;
    assert!(server.log.wait_for(|log| log.contains("clocks of two processes differ")));
    let checked = ServerCommand::with_store(proxy.address, &["check"]).run();
    let line = checked.out.lines().find(|line| line.starts_with("members"));
    let line = line.unwrap_or_else(|| panic!("no members in:\n{}", checked.out));
    assert!(line.contains("note") && line.contains("00000000000000aa"), "{line}");
}
