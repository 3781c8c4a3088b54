//! The embedded engine in memory behind a socket, with the server's tables.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ScalarAttributeType,
};
use tokio::sync::oneshot;

pub(crate) const INVENTORY: &str = "inventory";
pub(crate) const IDEMPOTENCY: &str = "idempotency";

pub(crate) type Item = HashMap<String, AttributeValue>;

/// Runs on a thread of its own, until it is dropped.
pub(crate) struct Engine {
    address: SocketAddr,
    pub(crate) client: Client,
    /// Dropped: the engine stops.
    _stop: oneshot::Sender<()>,
}

impl Engine {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let database = dynoxide::Database::memory().unwrap();
                let serving = dynoxide::server::serve_with_shutdown(listener, database, async {
                    std::future::pending().await
                });
                tokio::select! {
                    _ = serving => {}
                    _ = stopped => {}
                }
            });
        });
        let client = client(&format!("http://{address}"));
        Self {
            address,
            client,
            _stop: stop,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn create_tables(&self) {
        create_tables(&self.client).await;
    }

    /// An event of a quantity, its stock as given, stripe by stripe.
    pub(crate) async fn create_event(&self, event: &str, remaining: &[u64]) {
        create_event(&self.client, event, remaining).await;
    }

    pub(crate) async fn put(&self, table: &str, item: Item) {
        let put = self.client.put_item().table_name(table);
        put.set_item(Some(item)).send().await.unwrap();
    }

    pub(crate) async fn item(&self, table: &str, key: &str, id: &str) -> Option<Item> {
        let get = self.client.get_item().table_name(table).key(key, text(id));
        get.consistent_read(true).send().await.unwrap().item
    }

    /// A stripe's `remaining` and `version`, by its key.
    pub(crate) async fn stripe(&self, key: &str) -> (u64, u64) {
        let item = self.item(INVENTORY, "event_id", key).await.unwrap();
        let number = |name: &str| item.get(name).map_or("0", |n| n.as_n().unwrap());
        let number = |name: &str| number(name).parse().unwrap();
        (number("remaining"), number("version"))
    }

    /// A reservation's record.
    pub(crate) async fn record(&self, reservation: &str) -> Option<Item> {
        self.item(IDEMPOTENCY, "reservation_id", reservation).await
    }

    /// All records.
    pub(crate) async fn records(&self) -> Vec<Item> {
        let scan = self.client.scan().table_name(IDEMPOTENCY);
        let scan = scan.consistent_read(true).into_paginator().items().send();
        scan.collect::<Result<_, _>>().await.unwrap()
    }
}

pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn client(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("ap-northeast-2"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// The tables that a peer uses, as `inventory-api tables create` makes them.
pub(crate) async fn create_tables(client: &Client) {
    use ScalarAttributeType::{N, S};
    let table = |name: &str| {
        let create = client.create_table().table_name(name);
        create.billing_mode(BillingMode::PayPerRequest)
    };
    let inventory = table(INVENTORY)
        .attribute_definitions(attribute("event_id", S))
        .key_schema(key("event_id", KeyType::Hash));
    inventory.send().await.unwrap();
    let all = Projection::builder().projection_type(ProjectionType::All);
    let index = GlobalSecondaryIndex::builder()
        .index_name("expiry")
        .key_schema(key("expiry_bucket", KeyType::Hash))
        .key_schema(key("expires_at", KeyType::Range))
        .projection(all.build());
    let idempotency = table(IDEMPOTENCY)
        .attribute_definitions(attribute("reservation_id", S))
        .attribute_definitions(attribute("expiry_bucket", S))
        .attribute_definitions(attribute("expires_at", N))
        .key_schema(key("reservation_id", KeyType::Hash))
        .global_secondary_indexes(index.build().unwrap());
    idempotency.send().await.unwrap();
}

/// See [`Engine::create_event`].
pub(crate) async fn create_event(client: &Client, event: &str, remaining: &[u64]) {
    for (at, &units) in remaining.iter().enumerate() {
        let key = match at {
            0 => event.to_owned(),
            n => format!("{event}#{n}"),
        };
        let mut put = client
            .put_item()
            .table_name(INVENTORY)
            .item("event_id", text(&key))
            .item("total_seats", number(units))
            .item("remaining", number(units))
            .item("version", number(0));
        if at == 0 {
            put = put.item("stripes", number(remaining.len() as u64));
        }
        put.send().await.unwrap();
    }
}

fn attribute(name: &str, kind: ScalarAttributeType) -> AttributeDefinition {
    let attribute = AttributeDefinition::builder().attribute_name(name);
    attribute.attribute_type(kind).build().unwrap()
}

fn key(name: &str, kind: KeyType) -> KeySchemaElement {
    let element = KeySchemaElement::builder().attribute_name(name);
    element.key_type(kind).build().unwrap()
}
