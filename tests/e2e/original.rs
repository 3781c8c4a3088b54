//! Each bug of the original system that concerns events of a quantity, as a test of that name.

use std::collections::HashSet;
use std::time::Duration;

use crate::fake_store::FakeStore;
use inventory_testkit::http2::Http2Client;
use inventory_testkit::server::{CommandOutput, ServerCommand, command};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::*;

const EVENT: &str = "evt_original";

/// Every string under `key` at any depth.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    deeper => texts(deeper, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

/// The requests to the store of all kinds of calls.
async fn store_requests() -> Vec<Value> {
    let store = FakeStore::start();
    let server = store.start_server();
    create(&server, EVENT, 10, 2).await;
    let client = client(&server).await;
    client.try_check(check(EVENT, 1)).await.unwrap();
    client.order(commit("r1", EVENT, 2)).await;
    client.try_release(release("r2", EVENT, 1)).await.unwrap();
    client.try_release(release("r1", EVENT, 2)).await.unwrap_err();
    client.order(commit("r3", EVENT, 7)).await;
    client.try_commit(commit("r4", EVENT, 7)).await.unwrap_err();
    stock(&server, EVENT).await;
    store.requests().into_iter().map(|asked| asked.body).collect()
}

const EXPRESSIONS: [&str; 5] = [
    "ConditionExpression",
    "UpdateExpression",
    "ProjectionExpression",
    "FilterExpression",
    "KeyConditionExpression",
];

/// Checks that every expression of these requests is not empty and has no attribute name without `#`. Returns the kinds of
/// expressions found.
pub(crate) fn assert_aliased(bodies: &[Value]) -> HashSet<&'static str> {
    // The only words without `#` or `:`.
    const SYNTAX: [&str; 10] = [
        "SET",
        "ADD",
        "REMOVE",
        "AND",
        "OR",
        "NOT",
        "IN",
        "attribute_exists",
        "attribute_not_exists",
        "if_not_exists",
    ];
    let mut seen = HashSet::new();
    for (body, key) in bodies.iter().flat_map(|body| EXPRESSIONS.map(|key| (body, key))) {
        let mut found = Vec::new();
        texts(body, key, &mut found);
        for text in found {
            assert_ne!(text.trim(), "", "an empty {key} in {body}");
            let words = text.split(|c: char| !(c.is_alphanumeric() || "_#:".contains(c)));
            for word in words.filter(|word| !word.is_empty()) {
                let fine = word.starts_with(['#', ':']) || SYNTAX.contains(&word);
                assert!(fine, "{word} without # in {key} {text:?}");
            }
            seen.insert(key);
        }
    }
    seen
}

#[tokio::test]
async fn reserved_words_are_aliased_and_no_condition_is_empty() {
    let seen = assert_aliased(&store_requests().await);
    let wanted = HashSet::from(["ConditionExpression", "UpdateExpression"]);
    assert!(seen.is_superset(&wanted), "only {seen:?}");
}

#[tokio::test]
async fn record_and_stock_are_written_in_one_transaction() {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    // Beats are writes too.
    let server = store.server_command().env("MEMBERSHIP", "off").start();
    let client = client(&server).await;
    let before = store.requests().len();
    client.order(commit("r1", EVENT, 2)).await;
    let requests = &store.requests()[before..];
    let about = |body: &Value| body.to_string().contains(&format!("\"{EVENT}\""));
    let writes = requests.iter().filter(|request| request.is_write());
    let own: Vec<_> = writes.filter(|write| about(&write.body)).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    let actions = own[0].body["TransactItems"].as_array().unwrap();
    let table = |action: &Value| {
        let inner = action.as_object().unwrap().values().next().unwrap();
        inner["TableName"].as_str().unwrap().to_owned()
    };
    let tables: Vec<String> = actions.iter().map(table).collect();
    assert_eq!(tables, ["inventory", "idempotency"]);
    // There are no other writes.
    let other: Vec<&str> = requests
        .iter()
        .map(|request| request.operation.as_str())
        .filter(|o| ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"].contains(o))
        .collect();
    assert_eq!(other, [""; 0]);
}

#[tokio::test]
async fn retried_commit_sells_once_without_any_cache() {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    let server = store.start_server();
    let order = client(&server).await.order(commit("r1", EVENT, 2)).await;
    assert_eq!(client(&server).await.order(commit("r1", EVENT, 2)).await, order);
    server.kill();
    let server = store.start_server();
    let client = client(&server).await;
    assert_eq!(client.order(commit("r1", EVENT, 2)).await, order);
    let stored = store.read_event(EVENT);
    assert_eq!((stored.remaining(), stored.record_count()), (8, 1));
}

#[tokio::test]
async fn two_hundred_concurrent_commits_succeed() {
    let server = ServerCommand::dev_in_memory().start();
    create(&server, EVENT, 200, 1).await;
    let clients = clients(&server, 8).await;
    let mut calls = JoinSet::new();
    for n in 0..200 {
        let client = clients[n % clients.len()].clone();
        calls.spawn(async move { client.order(commit(&format!("r{n}"), EVENT, 1)).await });
    }
    let mut orders = HashSet::new();
    while let Some(order) = calls.join_next().await {
        orders.insert(order.unwrap());
    }
    assert_eq!(orders.len(), 200);
    let stock = stock(&server, EVENT).await;
    assert_eq!((stock.remaining, stock.confirmed), (0, 200));
}

#[tokio::test]
async fn release_without_a_hold_adds_no_stock() {
    let server = ServerCommand::dev_in_memory().start();
    create(&server, EVENT, 10, 1).await;
    let client = client(&server).await;
    client.order(commit("r1", EVENT, 10)).await;
    for id in ["r2", "r2", "r3"] {
        client.try_release(release(id, EVENT, 5)).await.unwrap();
    }
    let status = client.try_release(release("r1", EVENT, 10)).await.unwrap_err();
    assert_eq!(reason(&status), "RESERVATION_COMMITTED");
    let sold_out = client.try_commit(commit("r4", EVENT, 1)).await.unwrap_err();
    assert_eq!(sold_out.code(), Code::Aborted);
    assert_eq!(stock(&server, EVENT).await.remaining, 0);
}

#[tokio::test]
async fn same_id_with_another_payload_is_rejected() {
    let store = FakeStore::start();
    for event in [EVENT, "evt_other"] {
        store.create_event(event, 10, 1);
    }
    let mut server = store.start_server();
    let order = client(&server).await.order(commit("r1", EVENT, 2)).await;
    client(&server).await.try_release(release("r2", EVENT, 2)).await.unwrap();
    // From the cache, and from the store after a restart.
    for _ in 0..2 {
        let client = client(&server).await;
        for (id, event, qty) in [("r1", EVENT, 3), ("r1", "evt_other", 2), ("r2", EVENT, 1)] {
            let code = Code::AlreadyExists;
            let status = client.try_commit(commit(id, event, qty)).await.unwrap_err();
            assert_rejected(&status, code, "IDEMPOTENCY_CONFLICT", event, id);
            let status = client.try_release(release(id, event, qty)).await.unwrap_err();
            assert_rejected(&status, code, "IDEMPOTENCY_CONFLICT", event, id);
        }
        // Another payment intent is the same reservation.
        assert_eq!(client.order(commit("r1", EVENT, 2)).await, order);
        server = store.start_server();
    }
    assert_eq!(store.read_event(EVENT).remaining(), 8);
    assert_eq!(store.read_event("evt_other").remaining(), 10);
}

#[tokio::test]
async fn negative_quantity_adds_no_stock_and_zero_is_not_confirmed() {
    let store = FakeStore::start();
    store.create_event(EVENT, 10, 1);
    let server = store.start_server();
    let client = client(&server).await;
    // The reclaimer sends requests as well.
    let about = || {
        let asked = store.requests().into_iter();
        asked.filter(|a| a.body.to_string().contains(EVENT)).count()
    };
    let before = about();
    for qty in [-5, 0, i32::MIN] {
        let status = client.try_commit(commit("r1", EVENT, qty)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let status = client.try_release(release("r1", EVENT, qty)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert_eq!(about(), before, "the call reached the store");
    assert_eq!(store.read_event(EVENT).remaining(), 10);
}

#[tokio::test]
async fn order_ids_have_128_bits_and_are_equal_on_every_server() {
    let servers = [ServerCommand::dev_in_memory().start(), ServerCommand::dev_in_memory().start()];
    let mut orders = HashSet::new();
    for server in &servers {
        create(server, EVENT, 1_000, 1).await;
        let client = client(server).await;
        let mut calls = JoinSet::new();
        for n in 0..100 {
            let client = client.clone();
            calls.spawn(async move { client.order(commit(&format!("r{n}"), EVENT, 1)).await });
        }
        while let Some(order) = calls.join_next().await {
            let order = order.unwrap();
            let digits = order.strip_prefix("ord_").unwrap();
            assert_eq!(digits.len(), 128 / 4, "{order}");
            assert!(digits.bytes().all(|b| b.is_ascii_hexdigit()), "{order}");
            orders.insert(order);
        }
    }
    // Derived from the reservation: servers without a common store agree.
    assert_eq!(orders.len(), 100);
    let bytes = |at: usize| -> HashSet<String> {
        orders.iter().map(|order| order[4 + 2 * at..6 + 2 * at].to_owned()).collect()
    };
    assert!((0..16).all(|at| bytes(at).len() > 50), "constant bits");
}

#[tokio::test]
async fn ttl_without_a_unit_is_in_seconds() {
    const HITS: &str = "idempotency_hits_total";
    const MISSES: &str = "idempotency_misses_total";
    for ttl in ["1", "1s"] {
        let server = ServerCommand::dev_in_memory().env("IDEMPOTENCY_TTL_SECONDS", ttl).start();
        create(&server, EVENT, 10, 1).await;
        let client = client(&server).await;
        let order = client.order(commit("r1", EVENT, 1)).await;
        // Cached at first, then evicted, always with the same order id.
        let misses = MetricsSample::scrape(&server).await.sum(MISSES);
        until("the answer is evicted", async || {
            assert_eq!(client.order(commit("r1", EVENT, 1)).await, order);
            MetricsSample::scrape(&server).await.sum(MISSES) > misses
        })
        .await;
        assert!(MetricsSample::scrape(&server).await.sum(HITS) > 0.0, "{ttl}");
    }
    let server = ServerCommand::dev_in_memory().env("IDEMPOTENCY_TTL_SECONDS", "300").start();
    server.stop().await;
    let ran: CommandOutput =
        ServerCommand::dev_in_memory().env("IDEMPOTENCY_TTL_SECONDS", "300x").run();
    assert_eq!(ran.code, Some(64));
    ran.assert_error_names(&["IDEMPOTENCY_TTL_SECONDS=\"300x\"", "300"]);
}

#[tokio::test]
async fn keepalive_pings_without_calls_are_answered() {
    let server = ServerCommand::dev_in_memory().start();
    let mut client = Http2Client::connect(&server.grpc).await;
    // Far more often than gRPC allows: none is answered with GOAWAY too_many_pings.
    for _ in 0..60 {
        client.ping().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, _) = client.check("evt_2025_1001", 1, &[]).await;
    assert_eq!(status.code(), Code::Ok);
}

#[tokio::test]
async fn metrics_are_served_and_move() {
    let server = ServerCommand::dev_in_memory().start();
    create(&server, EVENT, 5, 1).await;
    let client = client(&server).await;
    client.try_check(check(EVENT, 1)).await.unwrap();
    client.order(commit("r1", EVENT, 5)).await;
    client.order(commit("r1", EVENT, 5)).await;
    client.try_commit(commit("r2", EVENT, 1)).await.unwrap_err();
    client.try_release(release("r3", EVENT, 1)).await.unwrap();
    client.try_release(release("r1", EVENT, 5)).await.unwrap_err();
    let metrics = MetricsSample::scrape(&server).await;
    for (name, wanted) in [
        (
            r#"grpc_request_duration_seconds_count{method="/inventory.v1.Inventory/CommitReservation"}"#,
            3.0,
        ),
        (
            r#"grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="OK"}"#,
            2.0,
        ),
        (
            r#"grpc_requests_total{method="/inventory.v1.Inventory/CommitReservation",status="ABORTED"}"#,
            1.0,
        ),
        (
            r#"inventory_commit_reservations_total{inventory_type="quantity",status="CONFIRMED"}"#,
            2.0,
        ),
        (r#"inventory_release_holds_total{inventory_type="quantity",status="RELEASED"}"#, 1.0),
        (
            r#"inventory_check_availability_total{inventory_type="quantity",result="available"}"#,
            1.0,
        ),
        (r#"inventory_conflicts_total{conflict_type="INSUFFICIENT_INVENTORY"}"#, 1.0),
        (r#"idempotency_hits_total{operation_type="commit"}"#, 1.0),
        ("grpc_active_requests", 0.0),
    ] {
        assert_eq!(metrics.get(name), wanted, "{name}");
    }
    assert!(metrics.sum("dynamodb_operation_duration_seconds_count") > 2.0);
    assert!(metrics.sum("dynamodb_requests_total") > 2.0);
    assert!(metrics.sum("idempotency_misses_total") > 2.0);
}

#[tokio::test]
async fn health_check_starts_no_second_server() {
    let server = ServerCommand::dev_in_memory().start();
    let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
    let ask = || {
        let mut command = command(&["health"]);
        // A second server would find all three ports in use.
        command
            .env("GRPC_PORT", port(&server.grpc))
            .env("METRICS_PORT", port(&server.metrics))
            .env("ADMIN_PORT", port(&server.admin));
        ServerCommand::from(command).run()
    };
    for _ in 0..3 {
        let ran = ask();
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    assert_eq!(server.log.text().matches("\"serving\"").count(), 1);
    server.stop().await;
}

#[tokio::test]
async fn health_and_reflection_are_on_the_port_of_clients() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1 as reflection;

    let server = ServerCommand::dev_in_memory().start();
    let url = format!("http://{}", server.grpc);
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "inventory.v1.Inventory"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    let service = "no.such.Service".to_owned();
    let unknown = health.check(HealthCheckRequest { service }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;
    let ask = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel);
    let asked = client.server_reflection_info(futures::stream::iter([ask])).await;
    let answer = asked.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for wanted in ["inventory.v1.Inventory", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }
    // The admin service is not on this port.
    assert!(!names.iter().any(|name| name.contains("Admin")), "{names:?}");
}
