//! The model's answers against dynoxide's on the same random requests: status, error, reasons, items, and
//! everything that is stored afterwards. Half of the requests are shaped like the server's own.
//!
//! Where dynoxide is known to differ from DynamoDB, [`known_difference`] says so by name.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/http.rs"]
mod http;

use common::{codes, error, parse};
use http::{Client, dynoxide};
use inventory_store_model::{Model, Profile, Settings};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

/// Sequences, and requests in each.
const SEEDS: u64 = 12;
const REQUESTS: usize = 400;

const TABLES: [&str; 3] = ["inventory", "seats", "idempotency"];

struct Pair {
    model: Model,
    engine: Client,
    log: Vec<String>,
}

/// Sets in one order, lists of items as they are.
fn normal(value: &mut Json) {
    match value {
        Json::Object(members) => {
            for (name, value) in members.iter_mut() {
                if matches!(name.as_str(), "SS" | "NS" | "BS")
                    && let Json::Array(elements) = value
                {
                    elements.sort_by_key(Json::to_string);
                }
                normal(value);
            }
        }
        Json::Array(elements) => elements.iter_mut().for_each(normal),
        _ => {}
    }
}

fn sorted(list: &Json) -> Vec<String> {
    let mut all: Vec<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(Json::to_string)
        .collect();
    all.sort_unstable();
    all
}

/// What is compared of an answer.
fn essence(operation: &str, status: u16, mut body: Json) -> Json {
    normal(&mut body);
    if status != 200 {
        let items: Vec<Json> = body["CancellationReasons"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|reason| reason["Item"].clone())
            .collect();
        return json!({
            "status": status, "error": error(&body), "codes": codes(&body), "items": items, "item": body["Item"],
        });
    }
    match operation {
        // In no order.
        "BatchGetItem" => json!(TABLES.map(|table| sorted(&body["Responses"][table]))),
        "Scan" => {
            json!({ "items": sorted(&body["Items"]), "count": body["Count"], "examined": body["ScannedCount"] })
        }
        "BatchWriteItem" => body["UnprocessedItems"].clone(),
        _ => body,
    }
}

/// The name of a difference that is dynoxide's, and known.
fn known_difference(
    operation: &str,
    body: &Json,
    ours: &Json,
    theirs: &Json,
    said: &str,
) -> Option<&'static str> {
    let sets_key = |action: &Json| {
        let expression = action["UpdateExpression"].as_str().unwrap_or_default();
        expression.contains("#key")
    };
    match operation {
        "TransactWriteItems" if ours["codes"].to_string().contains("ValidationError") => {
            let actions = body["TransactItems"].as_array()?;
            actions
                .iter()
                .any(|action| sets_key(&action["Update"]))
                .then_some("dynoxide lets a transaction SET an attribute of the key")
        }
        "UpdateItem" if ours["error"] == "ValidationException" => sets_key(body).then_some(
            "dynoxide judges a condition before it refuses to SET an attribute of the key",
        ),
        "TransactWriteItems" | "Query" | "Scan" if said.contains("is not defined") => {
            let is_cancelled = theirs["error"] == "TransactionCanceledException";
            (is_cancelled || theirs["examined"] == 0 || theirs["ScannedCount"] == 0)
                .then_some("dynoxide misses an undefined alias until it comes to evaluate it")
        }
        "UpdateItem" if body["ReturnValues"] == "ALL_OLD" && *ours == json!({}) => {
            (theirs["Attributes"] == body["Key"])
                .then_some("dynoxide shows the key as what an update found where there was nothing")
        }
        _ => None,
    }
}

impl Pair {
    fn new() -> Self {
        let model = Model::new(Settings {
            profile: Profile::None,
            is_unlimited: true,
            ..Settings::default()
        });
        let mut pair = Self {
            model,
            engine: Client::connect(dynoxide()),
            log: Vec::new(),
        };
        let text = |name| json!({ "AttributeName": name, "AttributeType": "S" });
        let number = |name| json!({ "AttributeName": name, "AttributeType": "N" });
        let keys = |names: &[&str]| -> Json {
            let kinds = names.iter().zip(["HASH", "RANGE"]);
            kinds
                .map(|(name, kind)| json!({ "AttributeName": name, "KeyType": kind }))
                .collect()
        };
        for (table, definitions, schema) in [
            ("inventory", json!([text("event_id")]), keys(&["event_id"])),
            (
                "seats",
                json!([text("event_id"), text("seat_id")]),
                keys(&["event_id", "seat_id"]),
            ),
        ] {
            pair.make(json!({
                "TableName": table, "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": definitions,
                "KeySchema": schema,
            }));
        }
        pair.make(json!({
            "TableName": "idempotency", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [text("reservation_id"), text("expiry_bucket"), number("expires_at")],
            "KeySchema": keys(&["reservation_id"]),
            "GlobalSecondaryIndexes": [{
                "IndexName": "expiry", "KeySchema": keys(&["expiry_bucket", "expires_at"]),
                "Projection": { "ProjectionType": "ALL" },
            }],
        }));
        pair
    }

    fn make(&mut self, table: Json) {
        let (ours, theirs) = self.both("CreateTable", &table);
        assert_eq!((ours.0, theirs.0), (200, 200), "{ours:?} {theirs:?}");
    }

    fn both(&mut self, operation: &str, body: &Json) -> ((u16, Json), (u16, Json)) {
        let ticket = self.model.arrive(0, operation, body.to_string().as_bytes());
        let due = self.model.due(0);
        let (answered, reply) = due.into_iter().next().unwrap();
        assert_eq!(answered, ticket);
        (parse(reply), self.engine.call(operation, body).unwrap())
    }

    /// Whether the two hold the same afterwards. They answer the same, or differ in a known way.
    fn agree(&mut self, operation: &str, body: &Json) -> bool {
        let (ours, theirs) = self.both(operation, body);
        let (said, heard) = (ours.1.to_string(), theirs.1.to_string());
        let ours = essence(operation, ours.0, ours.1);
        let theirs = essence(operation, theirs.0, theirs.1);
        self.log.push(format!("{operation} {body}"));
        if ours == theirs {
            return true;
        }
        if let Some(name) = known_difference(operation, body, &ours, &theirs, &said) {
            println!("{name}");
            // Only a transaction that one of them applied leaves them apart.
            return !(operation == "TransactWriteItems" && heard.starts_with("{}"));
        }
        let from = self.log.len().saturating_sub(3);
        panic!(
            "{operation} {body}\n model    {ours}\n dynoxide {theirs}\n model said    {said}\n dynoxide said \
             {heard}\n after {:#?}",
            &self.log[from..]
        );
    }

    fn same_contents(&mut self) {
        for table in TABLES {
            assert!(self.agree(
                "Scan",
                &json!({ "TableName": table, "ConsistentRead": true })
            ));
        }
        let index = json!({ "TableName": "idempotency", "IndexName": "expiry" });
        assert!(self.agree("Scan", &index));
    }
}

// ---- Requests -----------------------------------------------------------------------------------

struct Chance(SmallRng);

impl Chance {
    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices.choose(&mut self.0).unwrap().clone()
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_range(0..n) == 0
    }

    fn up_to(&mut self, n: usize) -> usize {
        self.0.random_range(0..=n)
    }

    fn key(&mut self, table: &str) -> Json {
        let event = json!({ "S": self.of(&["e1", "e2", "e3"]) });
        match table {
            "inventory" => json!({ "event_id": event }),
            "seats" => {
                json!({ "event_id": event, "seat_id": { "S": self.of(&["A-1", "A-10", "A-2", "B-1", "B"]) } })
            }
            _ => {
                json!({ "reservation_id": { "S": self.of(&["r1", "r2", "r3", "r4", "r5", "r6"]) } })
            }
        }
    }

    /// Some attribute's value.
    fn value(&mut self) -> Json {
        match self.up_to(11) {
            0 | 1 => json!({ "S": self.of(&["", "a", "ab", "HELD", "é\"\\\n"]) }),
            2..=5 => {
                json!({ "N": self.of(&["0", "1", "-1", "2.50", "1e2", "007", "12345678901234567890", "-0.5"]) })
            }
            6 => json!({ "BOOL": self.one_in(2) }),
            7 => json!({ "NULL": true }),
            8 => json!({ "L": [{ "S": "a" }, { "N": "1.0" }] }),
            9 => json!({ "M": { "z": { "S": "a" }, "a": { "L": [] } } }),
            10 => json!({ "SS": self.of(&[vec!["a"], vec!["b", "a"], vec!["c", "ab"]]) }),
            _ => self.of(&[
                json!({ "NS": ["1", "2"] }),
                json!({ "NS": ["2.0", "10"] }),
                json!({ "B": "AAEC" }),
            ]),
        }
    }

    fn item(&mut self, table: &str) -> Json {
        let mut item = self.key(table);
        for name in ["status", "remaining", "version", "tags", "closed"] {
            if !self.one_in(3) {
                item[name] = self.value();
            }
        }
        if table == "idempotency" && self.one_in(2) {
            item["expiry_bucket"] = json!({ "S": self.of(&["1#0", "1#1"]) });
            item["expires_at"] = json!({ "N": self.of(&["5", "10", "70", "8.5", "-3"]) });
        }
        item
    }

    fn condition(&mut self, depth: usize) -> String {
        let path = self.of(&["#s", "#r", "#v", "#t", "remaining"]);
        if depth > 0 && self.one_in(2) {
            let (a, b) = (self.condition(depth - 1), self.condition(depth - 1));
            return match self.up_to(3) {
                0 => format!("{a} AND {b}"),
                1 => format!("({a} OR {b})"),
                2 => format!("{a} or {b}"),
                _ => format!("NOT {a}"),
            };
        }
        match self.up_to(8) {
            0 => format!("attribute_exists({path})"),
            1 => format!("attribute_not_exists({path})"),
            2 => format!("attribute_type({path}, :type)"),
            3 => format!("begins_with({path}, :text)"),
            4 => format!("contains({path}, {})", self.of(&[":a", ":b", ":text"])),
            5 => format!("{path} BETWEEN :low AND :high"),
            6 => format!("{path} IN (:a, :b, {})", self.of(&[":c", "version"])),
            _ => {
                let compare = self.of(&["=", "<>", "<", "<=", ">", ">="]);
                // Two equal operands, and orders of what has none, are refused for reasons of their own.
                match compare {
                    "=" | "<>" => format!(
                        "{path} {compare} {}",
                        self.of(&[":a", ":b", ":c", "version"])
                    ),
                    _ => format!("{path} {compare} {}", self.of(&[":low", ":text"])),
                }
            }
        }
    }

    fn update(&mut self, table: &str) -> String {
        let mut parts = Vec::new();
        let set = match self.up_to(6) {
            0 => "SET #s = :a, #r = #r - :n",
            1 => "SET #s = if_not_exists(#s, :b), remaining = remaining + :n",
            2 => "SET #r = :n",
            3 => "SET #s = :c, closed = #v",
            4 => "SET #t = :list, #s = list_append(#s, :list)",
            5 if table == "idempotency" => "SET expiry_bucket = :bucket, expires_at = :n",
            _ => "",
        };
        parts.push(set.to_owned());
        parts.push(
            self.of(&["", "", "REMOVE #c", "REMOVE #c, expiry_bucket"])
                .to_owned(),
        );
        parts.push(
            self.of(&["", "ADD #v :n", "ADD #v :set", "ADD #v :n"])
                .to_owned(),
        );
        if !set.contains("#t") {
            parts.push(self.of(&["", "", "DELETE #t :set"]).to_owned());
        }
        let text = parts.join(" ");
        match text.trim() {
            "" => "SET #s = :a".to_owned(),
            text => text.to_owned(),
        }
    }

    /// Gives `body` its names and values, those that its expressions use; now and then one too many or
    /// too few.
    fn bind(&mut self, body: &mut Json) {
        let members = [
            "ConditionExpression",
            "UpdateExpression",
            "FilterExpression",
            "KeyConditionExpression",
            "ProjectionExpression",
        ];
        let texts: Vec<String> = members
            .iter()
            .filter_map(|m| body[*m].as_str().map(str::to_owned))
            .collect();
        // Without any, regions of DynamoDB differ: some take the values, some refuse them.
        if texts.is_empty() {
            return;
        }
        let uses = |alias: &str| {
            texts.iter().any(|text| {
                text.match_indices(alias).any(|(at, _)| {
                    let next = text[at + alias.len()..].chars().next();
                    !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
                })
            })
        };
        for (alias, name) in [
            ("#s", "status"),
            ("#r", "remaining"),
            ("#v", "version"),
            ("#t", "tags"),
            ("#c", "closed"),
            ("#key", "event_id"),
            ("#e", "event_id"),
            ("#seat", "seat_id"),
            ("#b", "expiry_bucket"),
            ("#x", "expires_at"),
        ] {
            if uses(alias) != self.one_in(400) {
                body["ExpressionAttributeNames"][alias] = json!(name);
            }
        }
        for alias in [
            ":a", ":b", ":c", ":n", ":set", ":list", ":low", ":high", ":text", ":type", ":bucket",
            ":e",
        ] {
            let value = match alias {
                ":n" => json!({ "N": self.of(&["1", "2", "0.5"]) }),
                ":set" => json!({ "SS": self.of(&[vec!["a"], vec!["a", "c"]]) }),
                ":list" => json!({ "L": [{ "S": "x" }] }),
                ":low" => json!({ "N": "0" }),
                ":high" => json!({ "N": "50" }),
                ":text" => json!({ "S": self.of(&["a", "HE", "A-1"]) }),
                ":type" => json!({ "S": self.of(&["S", "N", "SS", "BOOL"]) }),
                ":bucket" => json!({ "S": self.of(&["1#0", "1#1"]) }),
                ":e" => json!({ "S": self.of(&["e1", "e2"]) }),
                _ => self.value(),
            };
            if uses(alias) != self.one_in(400) {
                body["ExpressionAttributeValues"][alias] = value;
            }
        }
    }

    /// One of the four actions of a transaction, on the item at `key`.
    fn action(&mut self, table: &str, key: Json) -> Json {
        let mut body = json!({ "TableName": table });
        let kind = self.of(&["Put", "Update", "Update", "Delete", "ConditionCheck"]);
        match kind {
            "Put" => {
                let mut item = self.item(table);
                for (name, value) in key.as_object().unwrap() {
                    item[name] = value.clone();
                }
                body["Item"] = item;
            }
            _ => body["Key"] = key,
        }
        if kind == "Update" {
            let sets_key = table == "inventory" && self.one_in(60);
            body["UpdateExpression"] = json!(if sets_key {
                "SET #key = :a".to_owned()
            } else {
                self.update(table)
            });
        }
        if kind == "ConditionCheck" || !self.one_in(3) {
            let condition = match self.up_to(3) {
                0 => "attribute_not_exists(#s)".to_owned(),
                1 => "attribute_exists(#s) OR attribute_not_exists(#s)".to_owned(),
                _ => self.condition(2),
            };
            body["ConditionExpression"] = json!(condition);
        }
        if self.one_in(2) {
            body["ReturnValuesOnConditionCheckFailure"] = json!("ALL_OLD");
        }
        self.bind(&mut body);
        json!({ kind: body })
    }

    fn transaction(&mut self) -> Json {
        let mut actions = Vec::new();
        let mut taken: Vec<String> = Vec::new();
        for _ in 0..=self.up_to(5) {
            let table = self.of(&TABLES);
            let key = self.key(table);
            let name = format!("{table}{key}");
            if !taken.contains(&name) || self.one_in(40) {
                taken.push(name);
                actions.push(self.action(table, key));
            }
        }
        json!({ "TransactItems": actions })
    }

    /// As the server does: a stripe drawn on, records put.
    fn sale(&mut self) -> Json {
        let event = self.of(&["e1", "e2"]);
        let mut actions = vec![json!({ "Update": {
            "TableName": "inventory", "Key": { "event_id": { "S": event } },
            "UpdateExpression": "SET #r = #r - :n, #u = :u ADD #v :o",
            "ConditionExpression": "#r >= :n AND (attribute_not_exists(#c) OR #c = :f)",
            "ExpressionAttributeNames": { "#r": "remaining", "#u": "updated_at", "#v": "version", "#c": "closed" },
            "ExpressionAttributeValues": {
                ":n": { "N": self.of(&["1", "3"]) }, ":u": { "S": "2024-01-01T12:00:00.25Z" }, ":o": { "N": "1" },
                ":f": { "BOOL": false },
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        } })];
        for id in ["r1", "r2", "r3", "r4", "r5", "r6"] {
            if self.one_in(2) {
                actions.push(match self.one_in(2) {
                    true => json!({ "Put": {
                        "TableName": "idempotency",
                        "Item": {
                            "reservation_id": { "S": id }, "event_id": { "S": event }, "status": { "S": "HELD" },
                            "qty": { "N": "1" }, "expires_at": { "N": "70" }, "expiry_bucket": { "S": "1#1" },
                        },
                        "ConditionExpression": "attribute_not_exists(#k)",
                        "ExpressionAttributeNames": { "#k": "reservation_id" },
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    } }),
                    false => json!({ "Update": {
                        "TableName": "idempotency", "Key": { "reservation_id": { "S": id } },
                        "UpdateExpression": "SET #s = :s, #u = :u, #g = :g REMOVE #b",
                        "ConditionExpression": "#s = :f AND #x <= :a",
                        "ExpressionAttributeNames": {
                            "#s": "status", "#u": "updated_at", "#g": "purge_at", "#b": "expiry_bucket",
                            "#x": "expires_at",
                        },
                        "ExpressionAttributeValues": {
                            ":s": { "S": "EXPIRED" }, ":u": { "S": "now" }, ":g": { "N": "99" }, ":f": { "S": "HELD" },
                            ":a": { "N": self.of(&["69", "70", "71"]) },
                        },
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    } }),
                });
            }
        }
        json!({ "TransactItems": actions })
    }

    fn query(&mut self) -> Json {
        let mut body = match self.one_in(2) {
            true => {
                let sort = self.of(&[
                    "",
                    " AND seat_id = :text",
                    " AND #seat < :text",
                    " AND #seat >= :text",
                    " AND begins_with(#seat, :text)",
                    " AND #seat BETWEEN :text AND :text",
                ]);
                json!({ "TableName": "seats", "KeyConditionExpression": format!("#e = :e{sort}") })
            }
            false => {
                let sort = self.of(&[
                    "",
                    " AND #x <= :high",
                    " AND #x > :low",
                    " AND #x BETWEEN :low AND :high",
                ]);
                json!({
                    "TableName": "idempotency", "IndexName": "expiry",
                    "KeyConditionExpression": format!("#b = :bucket{sort}"),
                })
            }
        };
        if self.one_in(3) {
            body["FilterExpression"] = json!(self.condition(1));
        }
        if self.one_in(3) {
            body["ProjectionExpression"] = json!("#s, #v, remaining");
        }
        if self.one_in(2) {
            body["ScanIndexForward"] = json!(self.one_in(2));
        }
        if self.one_in(2) {
            body["Limit"] = json!(1 + self.up_to(3));
        }
        self.bind(&mut body);
        body
    }

    fn single(&mut self) -> (&'static str, Json) {
        let table = self.of(&TABLES);
        let key = self.key(table);
        let action = self.action(table, key);
        let (kind, body) = action.as_object().unwrap().iter().next().unwrap();
        let mut body = body.clone();
        let operation = match kind.as_str() {
            "Put" => "PutItem",
            "Update" => "UpdateItem",
            "Delete" => "DeleteItem",
            _ => {
                let get = json!({ "TableName": table, "Key": body["Key"], "ConsistentRead": true });
                return ("GetItem", get);
            }
        };
        let returns = match operation {
            "UpdateItem" => self.of(&["NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"]),
            _ => self.of(&["NONE", "ALL_OLD"]),
        };
        body["ReturnValues"] = json!(returns);
        (operation, body)
    }

    fn keys(&mut self, table: &str) -> Vec<Json> {
        let mut keys: Vec<Json> = Vec::new();
        for _ in 0..=self.up_to(4) {
            let key = self.key(table);
            if !keys.contains(&key) || self.one_in(20) {
                keys.push(key);
            }
        }
        keys
    }

    fn request(&mut self) -> (&'static str, Json) {
        match self.up_to(11) {
            0..=3 => ("TransactWriteItems", self.sale()),
            4 | 5 => ("TransactWriteItems", self.transaction()),
            6 | 7 => self.single(),
            8 => ("Query", self.query()),
            9 => {
                let table = self.of(&TABLES);
                let keys = self.keys(table);
                (
                    "BatchGetItem",
                    json!({ "RequestItems": { table: { "Keys": keys, "ConsistentRead": true } } }),
                )
            }
            10 => {
                let table = self.of(&TABLES);
                let get = |key: &Json| json!({ "Get": { "TableName": table, "Key": key } });
                let gets: Vec<Json> = self.keys(table).iter().map(get).collect();
                ("TransactGetItems", json!({ "TransactItems": gets }))
            }
            _ => {
                let mut body =
                    json!({ "TableName": self.of(&TABLES), "FilterExpression": self.condition(2) });
                self.bind(&mut body);
                ("Scan", body)
            }
        }
    }
}

#[test]
fn the_model_answers_as_dynoxide_does() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    let mut compared = 0;
    for seed in seeds {
        println!("SEED={seed}");
        let mut pair = Pair::new();
        let mut chance = Chance(SmallRng::seed_from_u64(seed));
        for event in ["e1", "e2"] {
            let stock = json!({ "TableName": "inventory", "Item": {
                "event_id": { "S": event }, "remaining": { "N": "40" }, "version": { "N": "0" } } });
            assert!(pair.agree("PutItem", &stock));
        }
        let mut is_same = true;
        for _ in 0..REQUESTS {
            let (operation, body) = chance.request();
            is_same = pair.agree(operation, &body);
            compared += 1;
            if !is_same {
                break;
            }
        }
        if is_same {
            pair.same_contents();
        }
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn paging_comes_to_everything_once() {
    let mut pair = Pair::new();
    for n in 0..40 {
        let seat = json!({ "TableName": "seats", "Item": {
            "event_id": { "S": format!("e{}", n % 3) }, "seat_id": { "S": format!("A-{n}") }, "qty": { "N": n.to_string() } } });
        assert!(pair.agree("PutItem", &seat));
    }
    for (operation, mut body) in [
        (
            "Query",
            json!({ "TableName": "seats", "Limit": 4, "KeyConditionExpression": "event_id = :e",
            "ExpressionAttributeValues": { ":e": { "S": "e1" } } }),
        ),
        (
            "Query",
            json!({ "TableName": "seats", "Limit": 5, "KeyConditionExpression": "event_id = :e",
            "ExpressionAttributeValues": { ":e": { "S": "e1" } }, "ScanIndexForward": false }),
        ),
        ("Scan", json!({ "TableName": "seats", "Limit": 7 })),
        (
            "Scan",
            json!({ "TableName": "seats", "Limit": 3, "Segment": 0, "TotalSegments": 1 }),
        ),
    ] {
        let mut all = [Vec::new(), Vec::new()];
        let mut pages = [0, 0];
        // Each engine is asked on with its own keys: their scans have orders of their own.
        for (side, all) in all.iter_mut().enumerate() {
            body.as_object_mut().unwrap().remove("ExclusiveStartKey");
            loop {
                let (ours, theirs) = pair.both(operation, &body);
                let (status, page) = if side == 0 { ours } else { theirs };
                assert_eq!(status, 200, "{page}");
                all.extend(
                    page["Items"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(Json::to_string),
                );
                pages[side] += 1;
                match &page["LastEvaluatedKey"] {
                    Json::Null => break,
                    last => body["ExclusiveStartKey"] = last.clone(),
                }
            }
            if operation == "Scan" {
                all.sort_unstable();
            }
        }
        assert_eq!(all[0], all[1], "{operation}");
        assert_eq!(pages[0], pages[1], "{operation}");
    }
    // Segments split a table without loss or overlap.
    let mut found = Vec::new();
    for segment in 0..5 {
        let scan = json!({ "TableName": "seats", "Segment": segment, "TotalSegments": 5 });
        let ((status, page), _) = pair.both("Scan", &scan);
        assert_eq!(status, 200);
        found.extend(sorted(&page["Items"]));
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 40);
}
