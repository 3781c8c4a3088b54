//! The store of a test: the DynamoDB model with the server's tables. A rule decides what becomes of each request,
//! and every request is recorded. Items can be read and changed without the code under test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use inventory_store_model::RequestAction;
use inventory_store_model::{LatencyProfile, ModelServer, ModelSettings};
use serde_json::{Value, json};

use crate::stored_event::{StoredEvent, on_store};
use inventory_store::{NewEvent, tables};
use inventory_testkit::server::{ServerCommand, TestServer};

/// Message of the errors of [`store_error`]. No client may ever read it.
pub(crate) const STORE_ERROR_TEXT: &str = "raw words of the store";

/// Responds with this HTTP status and DynamoDB error code, without executing the request.
pub(crate) fn store_error(status: u16, code: &str) -> RequestAction {
    RequestAction::error(status, code, STORE_ERROR_TEXT)
}

/// A request as the store received it.
#[derive(Clone, Debug)]
pub(crate) struct RecordedRequest {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

impl RecordedRequest {
    pub(crate) fn is_write(&self) -> bool {
        self.operation == "TransactWriteItems"
    }

    /// The client request token of a write.
    pub(crate) fn token(&self) -> &str {
        self.body["ClientRequestToken"].as_str().unwrap_or_default()
    }
}

/// The store of a test.
pub(crate) struct FakeStore {
    model: ModelServer,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
}

impl FakeStore {
    /// A store with empty tables and without latency.
    pub(crate) fn start() -> Self {
        let settings = ModelSettings {
            profile: LatencyProfile::None,
            is_unlimited: true,
            ..ModelSettings::default()
        };
        let store = Self { model: ModelServer::start(settings).unwrap(), requests: Arc::default() };
        let created =
            on_store(store.address(), async |store| tables::create(&store).await.map(drop));
        created.unwrap();
        store.clear_rule();
        store
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.model.address()
    }

    // ---- Requests -------------------------------------------------------------------------------

    /// Calls `rule` for each request from now on. Requests that the rule before holds are released.
    pub(crate) fn set_rule(
        &self,
        mut rule: impl FnMut(&RecordedRequest) -> RequestAction + Send + 'static,
    ) {
        let requests = Arc::clone(&self.requests);
        self.model.set_rule(move |request| {
            let request = RecordedRequest {
                operation: request.operation.to_owned(),
                body: serde_json::from_slice(request.body).unwrap_or(Value::Null),
            };
            let action = rule(&request);
            lock(&requests).push(request);
            action
        });
    }

    /// `action` for every write; every other request is executed.
    pub(crate) fn set_write_rule(&self, action: RequestAction) {
        self.set_rule(move |request| match request.is_write() {
            true => action.clone(),
            false => RequestAction::Execute,
        });
    }

    /// Executes every request from now on, and those that are held.
    pub(crate) fn clear_rule(&self) {
        self.set_rule(|_| RequestAction::Execute);
    }

    /// All requests since the start.
    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.requests).clone()
    }

    /// The writes among [`FakeStore::requests`].
    pub(crate) fn writes(&self) -> Vec<RecordedRequest> {
        let requests = self.requests().into_iter();
        requests.filter(RecordedRequest::is_write).collect()
    }

    // ---- Events ---------------------------------------------------------------------------------

    /// Creates an event without seats.
    pub(crate) fn create_event(&self, event: &str, total: u64, stripes: u16) {
        let event = NewEvent::of_quantity(event.parse().unwrap(), total, stripes);
        on_store(self.address(), async move |store| {
            store.create_event(&event).await.unwrap();
        });
    }

    pub(crate) fn read_event(&self, event: &str) -> StoredEvent {
        StoredEvent::read(self.address(), event)
    }

    // ---- Servers --------------------------------------------------------------------------------

    /// `serve` on this store.
    pub(crate) fn server_command(&self) -> ServerCommand {
        ServerCommand::with_store(self.address(), &["serve"])
    }

    #[track_caller]
    pub(crate) fn start_server(&self) -> TestServer {
        self.server_command().start()
    }

    // ---- Items, past rules and the code under test ------------------------------------------------

    /// Executes a request that must succeed.
    #[track_caller]
    pub(crate) fn call(&self, operation: &str, body: Value) -> Value {
        let (status, body) = self.model.execute(operation, body);
        assert_eq!(status, 200, "{operation}: {body}");
        body
    }

    /// Executes a transaction; `false` if one of its conditions failed.
    #[track_caller]
    pub(crate) fn try_transaction(&self, items: Value) -> bool {
        let body = json!({ "TransactItems": items });
        let (status, body) = self.model.execute("TransactWriteItems", body);
        let is_cancelled = body.to_string().contains("TransactionCanceled");
        assert!(status == 200 || is_cancelled, "{body}");
        status == 200
    }

    #[track_caller]
    pub(crate) fn put_item(&self, table: &str, item: Value) {
        self.call("PutItem", json!({ "TableName": table, "Item": item }));
    }

    /// The item; `Null` if there is none.
    #[track_caller]
    pub(crate) fn item(&self, table: &str, key: &Value) -> Value {
        let body = json!({ "TableName": table, "Key": key, "ConsistentRead": true });
        self.call("GetItem", body)["Item"].clone()
    }

    /// Units of the event that can be sold, also during the sale.
    pub(crate) fn remaining(&self, event: &str, stripes: u16) -> u64 {
        let stripe = |number: u16| {
            let key = if number == 0 { event.to_owned() } else { format!("{event}#{number}") };
            let item = self.item("inventory", &json!({ "event_id": s(&key) }));
            item["remaining"]["N"].as_str().unwrap().parse::<u64>().unwrap()
        };
        (0..stripes).map(stripe).sum()
    }

    /// Deletes an item that exists.
    #[track_caller]
    pub(crate) fn delete_item(&self, table: &str, key: &Value) {
        assert_ne!(self.item(table, key), Value::Null, "{key}: no such item");
        self.call("DeleteItem", json!({ "TableName": table, "Key": key }));
    }

    /// Sets one attribute of an item that exists.
    #[track_caller]
    pub(crate) fn set_attribute(&self, table: &str, key: &Value, name: &str, value: Value) {
        self.update(table, key, "SET #n = :v", name, value);
    }

    /// Adds to a numeric attribute of an item that exists.
    #[track_caller]
    pub(crate) fn add_to_attribute(&self, table: &str, key: &Value, name: &str, summand: i64) {
        self.update(table, key, "ADD #n :v", name, n(summand));
    }

    #[track_caller]
    fn update(&self, table: &str, key: &Value, expression: &str, name: &str, value: Value) {
        assert_ne!(self.item(table, key), Value::Null, "{key}: no such item");
        let body = json!({
            "TableName": table, "Key": key, "UpdateExpression": expression,
            "ExpressionAttributeNames": { "#n": name },
            "ExpressionAttributeValues": { ":v": value },
        });
        self.call("UpdateItem", body);
    }
}

/// A string attribute.
pub(crate) fn s(text: &str) -> Value {
    json!({ "S": text })
}

/// A numeric attribute.
pub(crate) fn n(number: impl ToString) -> Value {
    json!({ "N": number.to_string() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
