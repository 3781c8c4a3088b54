//! What the model's tests share: tables like the server's, and the model in virtual time.
#![allow(dead_code, clippy::unwrap_used)]

use inventory_store_model::{Micros, Model, Reply, Settings, Ticket};
use serde_json::{Value as Json, json};

pub(crate) const SECOND: Micros = 1_000_000;

pub(crate) fn parse(reply: Reply) -> (u16, Json) {
    match reply {
        Reply::Answer { status, body } => (status, serde_json::from_slice(&body).unwrap()),
        Reply::Cut => (0, Json::Null),
    }
}

/// The error's name, without its namespace; empty: none.
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

/// A model whose time is the test's.
pub(crate) struct Sim {
    pub(crate) model: Model,
    pub(crate) now: Micros,
    answered: Vec<(Ticket, Micros, Reply)>,
}

impl Sim {
    /// With the table `t` (key `id`), on demand.
    pub(crate) fn new(settings: Settings) -> Self {
        let mut sim = Self {
            model: Model::new(settings),
            now: 0,
            answered: Vec::new(),
        };
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
        assert_eq!(sim.call("CreateTable", table).0, 200);
        sim
    }

    pub(crate) fn send(&mut self, operation: &str, body: &Json) -> Ticket {
        self.model
            .arrive(self.now, operation, body.to_string().as_bytes())
    }

    /// Goes on to `at`.
    pub(crate) fn until(&mut self, at: Micros) {
        while let Some(next) = self.model.next_due().filter(|next| *next <= at) {
            self.now = self.now.max(next);
            let due = self.model.due(self.now);
            self.answered.extend(
                due.into_iter()
                    .map(|(ticket, reply)| (ticket, self.now, reply)),
            );
        }
        self.now = self.now.max(at);
    }

    /// Waits for a call; says when it was answered too.
    pub(crate) fn wait(&mut self, ticket: Ticket) -> (Micros, u16, Json) {
        loop {
            if let Some(at) = self
                .answered
                .iter()
                .position(|(answered, ..)| *answered == ticket)
            {
                let (_, at, reply) = self.answered.remove(at);
                let (status, body) = parse(reply);
                return (at, status, body);
            }
            let next = self.model.next_due().expect("an answer to come");
            self.until(next);
        }
    }

    pub(crate) fn call(&mut self, operation: &str, body: Json) -> (u16, Json) {
        let ticket = self.send(operation, &body);
        let (_, status, body) = self.wait(ticket);
        (status, body)
    }

    /// The item `id` as it stands.
    pub(crate) fn item(&mut self, id: &str) -> Json {
        let get = json!({ "TableName": "tab", "Key": key(id), "ConsistentRead": true });
        self.call("GetItem", get).1["Item"].clone()
    }
}

pub(crate) fn key(id: &str) -> Json {
    json!({ "id": { "S": id } })
}

/// Adds `n` to the counter of item `id`; of an update alone, and of an action.
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
    let actions: Vec<Json> = ids
        .iter()
        .map(|id| json!({ "Update": add(id, 1) }))
        .collect();
    match token {
        None => json!({ "TransactItems": actions }),
        Some(token) => json!({ "TransactItems": actions, "ClientRequestToken": token }),
    }
}
