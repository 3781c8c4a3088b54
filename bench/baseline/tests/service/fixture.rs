//! Fixture: a DynamoDB model with the server's tables, and the baseline service in front of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use inventory_baseline::{
    BaselineService, StoreBackend, TableClient, TableConfig, WriteMode, bind, router,
};
use inventory_client::{InventoryClient, connect, reason};
use inventory_proto::inventory::v1::{CommitReq, PlaceHoldReq, ReleaseReq};
use inventory_store_model::{LatencyProfile, ModelServer, ModelSettings};
use serde_json::{Map, Value, json};
use tonic::{Code, Request, Status};

pub(crate) const EVENT: &str = "evt_2025_1001";
pub(crate) const INVENTORY: &str = "inventory";
pub(crate) const IDEMPOTENCY: &str = "idempotency";

/// Timeout far beyond any response: a test that reaches it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An item in DynamoDB's JSON.
pub(crate) type JsonItem = Map<String, Value>;

/// A model without latency, with the tables that `inventory-api tables create` makes.
pub(crate) struct ModelFixture {
    pub(crate) server: ModelServer,
}

impl ModelFixture {
    pub(crate) fn start() -> Self {
        let server = ModelServer::start(ModelSettings {
            profile: LatencyProfile::None,
            is_unlimited: true,
            ..ModelSettings::default()
        });
        let fixture = Self { server: server.unwrap() };
        let definition =
            |name: &str, kind: &str| json!({ "AttributeName": name, "AttributeType": kind });
        let key = |name: &str, kind: &str| json!({ "AttributeName": name, "KeyType": kind });
        fixture.call(
            "CreateTable",
            json!({
                "TableName": INVENTORY, "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [definition("event_id", "S")],
                "KeySchema": [key("event_id", "HASH")],
            }),
        );
        fixture.call(
            "CreateTable",
            json!({
                "TableName": IDEMPOTENCY, "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [
                    definition("reservation_id", "S"), definition("expiry_bucket", "S"), definition("expires_at", "N"),
                ],
                "KeySchema": [key("reservation_id", "HASH")],
                "GlobalSecondaryIndexes": [{
                    "IndexName": "expiry", "Projection": { "ProjectionType": "ALL" },
                    "KeySchema": [key("expiry_bucket", "HASH"), key("expires_at", "RANGE")],
                }],
            }),
        );
        fixture
    }

    fn call(&self, operation: &str, body: Value) -> Value {
        let (status, output) = self.server.execute(operation, body);
        assert_eq!(status, 200, "{operation}: {output}");
        output
    }

    /// Creates an event without seats; `remaining` lists the units of its stripes.
    pub(crate) fn create_event(&self, event: &str, remaining: &[u64]) {
        for (stripe, units) in remaining.iter().enumerate() {
            let mut item = json!({
                "event_id": { "S": stripe_key(event, stripe) }, "version": { "N": "0" },
                "total_seats": { "N": units.to_string() }, "remaining": { "N": units.to_string() },
            });
            if stripe == 0 {
                item["stripes"] = json!({ "N": remaining.len().to_string() });
            }
            self.put(INVENTORY, item);
        }
    }

    pub(crate) fn put(&self, table: &str, item: impl Into<Value>) {
        let put = json!({ "TableName": table, "Item": item.into() });
        self.call("PutItem", put);
    }

    pub(crate) fn item(&self, table: &str, key: &str, id: &str) -> Option<JsonItem> {
        let get =
            json!({ "TableName": table, "Key": { key: { "S": id } }, "ConsistentRead": true });
        self.call("GetItem", get)["Item"].as_object().cloned()
    }

    /// `remaining` and `version` of a stripe, by its key.
    pub(crate) fn stripe(&self, key: &str) -> (u64, u64) {
        let item = self.item(INVENTORY, "event_id", key).unwrap();
        let number = |name: &str| item[name]["N"].as_str().unwrap().parse().unwrap();
        (number("remaining"), number("version"))
    }

    pub(crate) fn record(&self, reservation: &str) -> Option<JsonItem> {
        self.item(IDEMPOTENCY, "reservation_id", reservation)
    }

    pub(crate) fn record_count(&self) -> u64 {
        let scan = json!({ "TableName": IDEMPOTENCY, "Select": "COUNT" });
        self.call("Scan", scan)["Count"].as_u64().unwrap()
    }
}

pub(crate) fn stripe_key(event: &str, stripe: usize) -> String {
    match stripe {
        0 => event.to_owned(),
        n => format!("{event}#{n}"),
    }
}

/// Starts a baseline service on a free port of this test's runtime.
pub(crate) async fn serve(
    endpoint: &str,
    mode: WriteMode,
    retries: u32,
    concurrency: usize,
) -> SocketAddr {
    let tables = TableClient::new(TableConfig {
        endpoint: endpoint.to_owned(),
        region: "ap-northeast-2".to_owned(),
        inventory: INVENTORY.to_owned(),
        idempotency: IDEMPOTENCY.to_owned(),
    });
    let backend = StoreBackend::new(tables.unwrap(), mode, retries);
    let router = router(BaselineService::new(backend, concurrency));
    let incoming = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(router.serve_with_incoming(incoming));
    address
}

/// A store, a baseline service on it, and a client of the service.
pub(crate) async fn start(mode: WriteMode) -> (ModelFixture, InventoryClient) {
    let store = ModelFixture::start();
    let address = serve(&store.server.endpoint(), mode, 50, 1_000).await;
    let client = connect(&address.to_string()).await.unwrap();
    (store, client)
}

pub(crate) fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

pub(crate) fn commit(reservation: &str, qty: i32) -> Request<CommitReq> {
    let message = CommitReq {
        reservation_id: reservation.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        payment_intent_id: "pay_1".to_owned(),
        ..CommitReq::default()
    };
    with_timeout(message, PATIENCE)
}

pub(crate) fn hold(reservation: &str, qty: i32) -> Request<PlaceHoldReq> {
    let message = PlaceHoldReq {
        reservation_id: reservation.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        ..PlaceHoldReq::default()
    };
    with_timeout(message, PATIENCE)
}

pub(crate) fn release(reservation: &str, qty: i32) -> Request<ReleaseReq> {
    let message = ReleaseReq {
        reservation_id: reservation.to_owned(),
        event_id: EVENT.to_owned(),
        qty,
        ..ReleaseReq::default()
    };
    with_timeout(message, PATIENCE)
}

/// Code and reason of a failed call.
pub(crate) fn failure<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.unwrap_err();
    (status.code(), reason(&status))
}

/// An item of string and number attributes, `("S", …)` or `("N", …)`.
pub(crate) fn item(attributes: &[(&str, &str, &str)]) -> JsonItem {
    let attributes: HashMap<&str, Value> =
        attributes.iter().map(|(name, kind, value)| (*name, json!({ *kind: value }))).collect();
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
