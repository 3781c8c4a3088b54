//! The model's responses compared with dynoxide's on the same random requests: status, error, reasons, items,
//! and the stored items afterwards. Half of the requests resemble the server's.
//!
//! [`known_difference`] names the cases in which dynoxide is known to differ from DynamoDB. `SEED=n` runs one
//! sequence.

use crate::client::{HttpClient, dynoxide};
use crate::fixture::{codes, error, parse};
use inventory_store_model::{LatencyProfile, ModelSettings, StoreModel};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

/// Sequences, and requests per sequence.
const SEEDS: u64 = 12;
const REQUESTS: usize = 400;

const TABLES: [&str; 3] = ["inventory", "seats", "idempotency"];

struct ComparedStores {
    model: StoreModel,
    dynoxide: HttpClient,
    log: Vec<String>,
}

/// Sorts the elements of sets.
fn sort_sets(value: &mut Json) {
    match value {
        Json::Object(members) => {
            for (name, value) in members.iter_mut() {
                if matches!(name.as_str(), "SS" | "NS" | "BS")
                    && let Json::Array(elements) = value
                {
                    elements.sort_by_key(Json::to_string);
                }
                sort_sets(value);
            }
        }
        Json::Array(elements) => elements.iter_mut().for_each(sort_sets),
        _ => {}
    }
}

fn sorted(list: &Json) -> Vec<String> {
    let mut all: Vec<String> = list.as_array().into_iter().flatten().map(Json::to_string).collect();
    all.sort_unstable();
    all
}

/// The compared part of a response.
fn compared_part(operation: &str, status: u16, mut body: Json) -> Json {
    sort_sets(&mut body);
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
        // Without an order.
        "BatchGetItem" => json!(TABLES.map(|table| sorted(&body["Responses"][table]))),
        "Scan" => {
            json!({ "items": sorted(&body["Items"]), "count": body["Count"], "examined": body["ScannedCount"] })
        }
        "BatchWriteItem" => body["UnprocessedItems"].clone(),
        _ => body,
    }
}

/// Description of a known difference of dynoxide.
fn known_difference(
    operation: &str,
    body: &Json,
    ours: &Json,
    theirs: &Json,
    message: &str,
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
                .then_some("dynoxide allows a transaction to SET an attribute of the key")
        }
        "UpdateItem" if ours["error"] == "ValidationException" => sets_key(body).then_some(
            "dynoxide evaluates a condition before it rejects a SET of an attribute of the key",
        ),
        "TransactWriteItems" | "Query" | "Scan" if message.contains("is not defined") => {
            let is_cancelled = theirs["error"] == "TransactionCanceledException";
            (is_cancelled || theirs["examined"] == 0 || theirs["ScannedCount"] == 0)
                .then_some("dynoxide reports an undefined alias only when it evaluates it")
        }
        "UpdateItem" if body["ReturnValues"] == "ALL_OLD" && *ours == json!({}) => {
            (theirs["Attributes"] == body["Key"]).then_some(
                "dynoxide returns the key as the old item of an update that creates the item",
            )
        }
        _ => None,
    }
}

impl ComparedStores {
    fn new() -> Self {
        let model = StoreModel::new(ModelSettings {
            profile: LatencyProfile::None,
            is_unlimited: true,
            ..ModelSettings::default()
        });
        let mut stores = Self { model, dynoxide: HttpClient::connect(dynoxide()), log: Vec::new() };
        let text = |name| json!({ "AttributeName": name, "AttributeType": "S" });
        let number = |name| json!({ "AttributeName": name, "AttributeType": "N" });
        let keys = |names: &[&str]| -> Json {
            let kinds = names.iter().zip(["HASH", "RANGE"]);
            kinds.map(|(name, kind)| json!({ "AttributeName": name, "KeyType": kind })).collect()
        };
        for (table, definitions, schema) in [
            ("inventory", json!([text("event_id")]), keys(&["event_id"])),
            ("seats", json!([text("event_id"), text("seat_id")]), keys(&["event_id", "seat_id"])),
        ] {
            stores.create_table(json!({
                "TableName": table, "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": definitions,
                "KeySchema": schema,
            }));
        }
        stores.create_table(json!({
            "TableName": "idempotency", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [text("reservation_id"), text("expiry_bucket"), number("expires_at")],
            "KeySchema": keys(&["reservation_id"]),
            "GlobalSecondaryIndexes": [{
                "IndexName": "expiry", "KeySchema": keys(&["expiry_bucket", "expires_at"]),
                "Projection": { "ProjectionType": "ALL" },
            }],
        }));
        stores
    }

    fn create_table(&mut self, table: Json) {
        let (ours, theirs) = self.send_both("CreateTable", &table);
        assert_eq!((ours.0, theirs.0), (200, 200), "{ours:?} {theirs:?}");
    }

    fn send_both(&mut self, operation: &str, body: &Json) -> ((u16, Json), (u16, Json)) {
        let ticket = self.model.arrive(0, operation, body.to_string().as_bytes());
        let due = self.model.due(0);
        let (answered, reply) = due.into_iter().next().unwrap();
        assert_eq!(answered, ticket);
        (parse(reply), self.dynoxide.call(operation, body).unwrap())
    }

    /// Compares the responses to a request. Returns whether the stored items still are the same, which a known
    /// difference may change.
    fn compare(&mut self, operation: &str, body: &Json) -> bool {
        let (ours, theirs) = self.send_both(operation, body);
        let (our_text, their_text) = (ours.1.to_string(), theirs.1.to_string());
        let ours = compared_part(operation, ours.0, ours.1);
        let theirs = compared_part(operation, theirs.0, theirs.1);
        self.log.push(format!("{operation} {body}"));
        if ours == theirs {
            return true;
        }
        if let Some(name) = known_difference(operation, body, &ours, &theirs, &our_text) {
            println!("{name}");
            // The items differ only after a transaction that one of the two applied.
            return !(operation == "TransactWriteItems" && their_text.starts_with("{}"));
        }
        let from = self.log.len().saturating_sub(3);
        panic!(
            "{operation} {body}\n model    {ours}\n dynoxide {theirs}\n model's response    {our_text}\n dynoxide's response \
             {their_text}\n after {:#?}",
            &self.log[from..]
        );
    }

    fn compare_items(&mut self) {
        for table in TABLES {
            assert!(self.compare("Scan", &json!({ "TableName": table, "ConsistentRead": true })));
        }
        let index = json!({ "TableName": "idempotency", "IndexName": "expiry" });
        assert!(self.compare("Scan", &index));
    }
}

// ---- Requests -----------------------------------------------------------------------------------

struct RequestGenerator(SmallRng);

impl RequestGenerator {
    fn choose<T: Clone>(&mut self, choices: &[T]) -> T {
        choices.choose(&mut self.0).unwrap().clone()
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_range(0..n) == 0
    }

    fn up_to(&mut self, n: usize) -> usize {
        self.0.random_range(0..=n)
    }

    fn key(&mut self, table: &str) -> Json {
        let event = json!({ "S": self.choose(&["e1", "e2", "e3"]) });
        match table {
            "inventory" => json!({ "event_id": event }),
            "seats" => {
                json!({ "event_id": event, "seat_id": { "S": self.choose(&["A-1", "A-10", "A-2", "B-1", "B"]) } })
            }
            _ => {
                json!({ "reservation_id": { "S": self.choose(&["r1", "r2", "r3", "r4", "r5", "r6"]) } })
            }
        }
    }

    /// A random attribute value.
    fn value(&mut self) -> Json {
        match self.up_to(11) {
            0 | 1 => json!({ "S": self.choose(&["", "a", "ab", "HELD", "é\"\\\n"]) }),
            2..=5 => {
                json!({ "N": self.choose(&["0", "1", "-1", "2.50", "1e2", "007", "12345678901234567890", "-0.5"]) })
            }
            6 => json!({ "BOOL": self.one_in(2) }),
            7 => json!({ "NULL": true }),
            8 => json!({ "L": [{ "S": "a" }, { "N": "1.0" }] }),
            9 => json!({ "M": { "z": { "S": "a" }, "a": { "L": [] } } }),
            10 => json!({ "SS": self.choose(&[vec!["a"], vec!["b", "a"], vec!["c", "ab"]]) }),
            _ => self.choose(&[
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
            item["expiry_bucket"] = json!({ "S": self.choose(&["1#0", "1#1"]) });
            item["expires_at"] = json!({ "N": self.choose(&["5", "10", "70", "8.5", "-3"]) });
        }
        item
    }

    fn condition(&mut self, depth: usize) -> String {
        let path = self.choose(&["#s", "#r", "#v", "#t", "remaining"]);
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
            4 => format!("contains({path}, {})", self.choose(&[":a", ":b", ":text"])),
            5 => format!("{path} BETWEEN :low AND :high"),
            6 => format!("{path} IN (:a, :b, {})", self.choose(&[":c", "version"])),
            _ => {
                let compare = self.choose(&["=", "<>", "<", "<=", ">", ">="]);
                // Equal operands, and orders of values without one, are rejected for other reasons.
                match compare {
                    "=" | "<>" => {
                        format!("{path} {compare} {}", self.choose(&[":a", ":b", ":c", "version"]))
                    }
                    _ => format!("{path} {compare} {}", self.choose(&[":low", ":text"])),
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
        parts.push(self.choose(&["", "", "REMOVE #c", "REMOVE #c, expiry_bucket"]).to_owned());
        parts.push(self.choose(&["", "ADD #v :n", "ADD #v :set", "ADD #v :n"]).to_owned());
        if !set.contains("#t") {
            parts.push(self.choose(&["", "", "DELETE #t :set"]).to_owned());
        }
        let text = parts.join(" ");
        match text.trim() {
            "" => "SET #s = :a".to_owned(),
            text => text.to_owned(),
        }
    }

    /// Adds the names and values that the expressions of `body` use; rarely one too many or too few.
    fn bind(&mut self, body: &mut Json) {
        let members = [
            "ConditionExpression",
            "UpdateExpression",
            "FilterExpression",
            "KeyConditionExpression",
            "ProjectionExpression",
        ];
        let texts: Vec<String> =
            members.iter().filter_map(|m| body[*m].as_str().map(str::to_owned)).collect();
        // Without an expression, some regions of DynamoDB accept values and others reject them.
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
                ":n" => json!({ "N": self.choose(&["1", "2", "0.5"]) }),
                ":set" => json!({ "SS": self.choose(&[vec!["a"], vec!["a", "c"]]) }),
                ":list" => json!({ "L": [{ "S": "x" }] }),
                ":low" => json!({ "N": "0" }),
                ":high" => json!({ "N": "50" }),
                ":text" => json!({ "S": self.choose(&["a", "HE", "A-1"]) }),
                ":type" => json!({ "S": self.choose(&["S", "N", "SS", "BOOL"]) }),
                ":bucket" => json!({ "S": self.choose(&["1#0", "1#1"]) }),
                ":e" => json!({ "S": self.choose(&["e1", "e2"]) }),
                _ => self.value(),
            };
            if uses(alias) != self.one_in(400) {
                body["ExpressionAttributeValues"][alias] = value;
            }
        }
    }

    /// A random action of a transaction on the item at `key`.
    fn action(&mut self, table: &str, key: Json) -> Json {
        let mut body = json!({ "TableName": table });
        let kind = self.choose(&["Put", "Update", "Update", "Delete", "ConditionCheck"]);
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
            body["UpdateExpression"] =
                json!(if sets_key { "SET #key = :a".to_owned() } else { self.update(table) });
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
            let table = self.choose(&TABLES);
            let key = self.key(table);
            let name = format!("{table}{key}");
            if !taken.contains(&name) || self.one_in(40) {
                taken.push(name);
                actions.push(self.action(table, key));
            }
        }
        json!({ "TransactItems": actions })
    }

    /// A transaction like the server's: a stripe update and record writes.
    fn sale(&mut self) -> Json {
        let event = self.choose(&["e1", "e2"]);
        let mut actions = vec![json!({ "Update": {
            "TableName": "inventory", "Key": { "event_id": { "S": event } },
            "UpdateExpression": "SET #r = #r - :n, #u = :u ADD #v :o",
            "ConditionExpression": "#r >= :n AND (attribute_not_exists(#c) OR #c = :f)",
            "ExpressionAttributeNames": { "#r": "remaining", "#u": "updated_at", "#v": "version", "#c": "closed" },
            "ExpressionAttributeValues": {
                ":n": { "N": self.choose(&["1", "3"]) }, ":u": { "S": "2024-01-01T12:00:00.25Z" }, ":o": { "N": "1" },
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
                            ":a": { "N": self.choose(&["69", "70", "71"]) },
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
                let sort = self.choose(&[
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
                let sort = self.choose(&[
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
        let table = self.choose(&TABLES);
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
            "UpdateItem" => {
                self.choose(&["NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"])
            }
            _ => self.choose(&["NONE", "ALL_OLD"]),
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
                let table = self.choose(&TABLES);
                let keys = self.keys(table);
                (
                    "BatchGetItem",
                    json!({ "RequestItems": { table: { "Keys": keys, "ConsistentRead": true } } }),
                )
            }
            10 => {
                let table = self.choose(&TABLES);
                let get = |key: &Json| json!({ "Get": { "TableName": table, "Key": key } });
                let gets: Vec<Json> = self.keys(table).iter().map(get).collect();
                ("TransactGetItems", json!({ "TransactItems": gets }))
            }
            _ => {
                let mut body = json!({ "TableName": self.choose(&TABLES), "FilterExpression": self.condition(2) });
                self.bind(&mut body);
                ("Scan", body)
            }
        }
    }
}

#[test]
fn the_model_responds_like_dynoxide() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    let mut compared = 0;
    for seed in seeds {
        println!("SEED={seed}");
        let mut stores = ComparedStores::new();
        let mut generator = RequestGenerator(SmallRng::seed_from_u64(seed));
        for event in ["e1", "e2"] {
            let stock = json!({ "TableName": "inventory", "Item": {
                "event_id": { "S": event }, "remaining": { "N": "40" }, "version": { "N": "0" } } });
            assert!(stores.compare("PutItem", &stock));
        }
        let mut is_same = true;
        for _ in 0..REQUESTS {
            let (operation, body) = generator.request();
            is_same = stores.compare(operation, &body);
            compared += 1;
            if !is_same {
                break;
            }
        }
        if is_same {
            stores.compare_items();
        }
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn pages_and_segments_return_every_item_once() {
    let mut stores = ComparedStores::new();
    for n in 0..40 {
        let seat = json!({ "TableName": "seats", "Item": {
            "event_id": { "S": format!("e{}", n % 3) }, "seat_id": { "S": format!("A-{n}") }, "qty": { "N": n.to_string() } } });
        assert!(stores.compare("PutItem", &seat));
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
        ("Scan", json!({ "TableName": "seats", "Limit": 3, "Segment": 0, "TotalSegments": 1 })),
    ] {
        let mut all = [Vec::new(), Vec::new()];
        let mut pages = [0, 0];
        // Each store continues with its own keys, because their scans have different orders.
        for (side, all) in all.iter_mut().enumerate() {
            body.as_object_mut().unwrap().remove("ExclusiveStartKey");
            loop {
                let (ours, theirs) = stores.send_both(operation, &body);
                let (status, page) = if side == 0 { ours } else { theirs };
                assert_eq!(status, 200, "{page}");
                all.extend(page["Items"].as_array().unwrap().iter().map(Json::to_string));
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
    // Segments partition a table.
    let mut found = Vec::new();
    for segment in 0..5 {
        let scan = json!({ "TableName": "seats", "Segment": segment, "TotalSegments": 5 });
        let ((status, page), _) = stores.send_both("Scan", &scan);
        assert_eq!(status, 200);
        found.extend(sorted(&page["Items"]));
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 40);
}
