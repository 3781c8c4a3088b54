//! Fixture: the model in virtual time, and requests on its table.

use inventory_store_model::{
    LatencyProfile, ModelReply, ModelSettings, ModelTime, StoreModel, Ticket,
};
use serde_json::{Value as Json, json};

pub(crate) const SECOND: ModelTime = 1_000_000;

pub(crate) fn settings(profile: LatencyProfile) -> ModelSettings {
    ModelSettings { profile, ..ModelSettings::default() }
}

pub(crate) fn parse(reply: ModelReply) -> (u16, Json) {
    match reply {
        ModelReply::Response { status, body } => (status, serde_json::from_slice(&body).unwrap()),
        ModelReply::Closed => (0, Json::Null),
    }
}

/// Name of the error without its namespace; empty for a success.
pub(crate) fn error(body: &Json) -> &str {
    let name = body["__type"].as_str().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default()
}

pub(crate) fn codes(body: &Json) -> Vec<&str> {
    let reasons = body["CancellationReasons"].as_array();
    let mut codes = Vec::new();
    for reason in reasons.into_iter().flatten() {
        codes.push(reason["Code"].as_str().unwrap_or_default());
    }
    codes
}

/// A model whose time is set by the test.
pub(crate) struct VirtualModel {
    pub(crate) model: StoreModel,
    pub(crate) now: ModelTime,
    answered: Vec<(Ticket, ModelTime, ModelReply)>,
}

impl VirtualModel {
    /// A model with the on-demand table `tab`, its key `id` and its index `due`.
    pub(crate) fn new(settings: ModelSettings) -> Self {
        let mut fixture = Self { model: StoreModel::new(settings), now: 0, answered: Vec::new() };
        let table = json!({
            "TableName": "tab", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                { "AttributeName": "id", "AttributeType": "S" },
                { "AttributeName": "bucket", "AttributeType": "S" },
                { "AttributeName": "at", "AttributeType": "N" },
            ],
            "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
            "GlobalSecondaryIndexes": [{
                "IndexName": "due",
                "KeySchema": [
                    { "AttributeName": "bucket", "KeyType": "HASH" },
                    { "AttributeName": "at", "KeyType": "RANGE" },
                ],
                "Projection": { "ProjectionType": "ALL" },
            }],
        });
        assert_eq!(fixture.call("CreateTable", table).0, 200);
        fixture
    }

    pub(crate) fn send(&mut self, operation: &str, body: &Json) -> Ticket {
        self.model.arrive(self.now, operation, body.to_string().as_bytes())
    }

    /// Advances the time to `at`.
    pub(crate) fn advance_to(&mut self, at: ModelTime) {
        while let Some(next) = self.model.next_due().filter(|next| *next <= at) {
            self.now = self.now.max(next);
            let due = self.model.due(self.now);
            self.answered.extend(due.into_iter().map(|(ticket, reply)| (ticket, self.now, reply)));
        }
        self.now = self.now.max(at);
    }

    /// Advances to the reply of a call and returns its time, status and body.
    pub(crate) fn wait(&mut self, ticket: Ticket) -> (ModelTime, u16, Json) {
        loop {
            if let Some(at) = self.answered.iter().position(|(answered, ..)| *answered == ticket) {
                let (_, at, reply) = self.answered.remove(at);
                let (status, body) = parse(reply);
                return (at, status, body);
            }
            let next = self.model.next_due().expect("a reply in flight");
            self.advance_to(next);
        }
    }

    pub(crate) fn call(&mut self, operation: &str, body: Json) -> (u16, Json) {
        let ticket = self.send(operation, &body);
        let (_, status, body) = self.wait(ticket);
        (status, body)
    }

    /// The current item `id`.
    pub(crate) fn item(&mut self, id: &str) -> Json {
        let get = json!({ "TableName": "tab", "Key": key(id), "ConsistentRead": true });
        self.call("GetItem", get).1["Item"].clone()
    }
}

pub(crate) fn key(id: &str) -> Json {
    json!({ "id": { "S": id } })
}

/// An update that adds `n` to the counter of item `id`, alone or as an action.
pub(crate) fn add(id: &str, n: i64) -> Json {
    json!({
        "TableName": "tab", "Key": key(id), "UpdateExpression": "ADD #n :n",
        "ExpressionAttributeNames": { "#n": "n" },
        "ExpressionAttributeValues": { ":n": { "N": n.to_string() } },
    })
}

pub(crate) fn put(id: &str) -> Json {
    json!({ "TableName": "tab", "Item": { "id": { "S": id }, "n": { "N": "0" } } })
}

/// A transaction that adds 1 to each of `ids`.
pub(crate) fn transaction(ids: &[&str], token: Option<&str>) -> Json {
    let actions: Vec<Json> = ids.iter().map(|id| json!({ "Update": add(id, 1) })).collect();
    match token {
        None => json!({ "TransactItems": actions }),
        Some(token) => json!({ "TransactItems": actions, "ClientRequestToken": token }),
    }
}
