//! Capacity, throttling and costs.

use crate::fixture::{SECOND, VirtualModel, add, codes, error, key, put, settings, transaction};
use inventory_store_model::{CapacityUnits, LatencyProfile, ModelSettings, limits};
use serde_json::{Value as Json, json};

/// Sends a request every `every` microseconds for `seconds`. Returns the number of successes and the names of
/// the errors.
fn offer(
    model: &mut VirtualModel,
    operation: &str,
    every: u64,
    seconds: u64,
    body: impl Fn(u64) -> Json,
) -> (u64, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    let from = model.now;
    for n in 0..seconds * SECOND / every {
        model.advance_to(from + n * every);
        match model.call(operation, body(n)) {
            (200, _) => good += 1,
            (_, body) => bad.push(error(&body).to_owned()),
        }
    }
    bad.sort_unstable();
    bad.dedup();
    (good, bad)
}

#[test]
fn one_item_serves_a_thousand_writes_per_second() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    // 2,000 per second for 5 s; the bucket holds the capacity of one second.
    let (good, bad) = offer(&mut model, "UpdateItem", 500, 5, |_| add("hot", 1));
    assert!((5_900..=6_010).contains(&good), "{good}");
    assert_eq!(bad, ["ProvisionedThroughputExceededException"]);
    assert_eq!(model.item("hot")["n"]["N"], good.to_string().as_str());
    let report = model.model.report(model.now);
    let hottest = &report["tables"]["tab"]["hottest"][0];
    assert!(hottest["wcu"]["peak"].as_f64().unwrap() <= 2_001.0, "{report}");
    assert_eq!(report["tables"]["tab"]["partitions"], 4);
    assert!(report["throttled"]["partition"].as_u64().unwrap() > 3_000);
}

#[test]
fn one_item_serves_five_hundred_transactions_per_second_and_cancelled_ones_cost_the_same() {
    for condition in ["attribute_not_exists(zz)", "attribute_exists(zz)"] {
        let mut model = VirtualModel::new(settings(LatencyProfile::None));
        model.call("PutItem", put("hot"));
        let mut body = transaction(&["hot"], None);
        body["TransactItems"][0]["Update"]["ConditionExpression"] = json!(condition);
        offer(&mut model, "TransactWriteItems", 1_000, 5, |_| body.clone());
        let report = model.model.report(model.now);
        let total = report["tables"]["tab"]["wcu"]["total"].as_f64().unwrap();
        // The bucket holds a thousand and gets a thousand per second.
        assert!((5_900.0..=6_010.0).contains(&total), "{condition}: {total}");
        let op = &report["operations"]["TransactWriteItems"];
        assert!(op["TransactionCanceledException"].as_u64().unwrap() > 1_900, "{report}");
    }
}

#[test]
fn a_throttled_transaction_reports_the_action_and_applies_nothing() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    offer(&mut model, "UpdateItem", 200, 1, |_| add("hot", 1));
    let (status, body) = model.call("TransactWriteItems", transaction(&["cold", "hot"], None));
    // The hash is constant: the two keys are on different partitions.
    assert_eq!((status, codes(&body)), (400, vec!["None", "ThrottlingError"]), "{body}");
    assert!(model.item("cold").is_null());
}

#[test]
fn a_new_table_serves_four_thousand_writes_and_twice_its_peak_half_an_hour_later() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    let spread = |n: u64| add(&format!("k{n}"), 1);
    let (good, bad) = offer(&mut model, "UpdateItem", 100, 3, spread);
    // 4,000 in the buckets and 12,000 in three seconds, less what uneven partitions throttle.
    assert!((15_000..=16_100).contains(&good), "{good}");
    assert_eq!(bad, ["ProvisionedThroughputExceededException"]);
    model.advance_to(limits::PEAK_WINDOW + SECOND);
    model.call("PutItem", put("x"));
    let report = model.model.report(model.now);
    let capacity = &report["tables"]["tab"]["capacity"]["wcu"];
    // Twice the best second, which started with a full bucket.
    assert!((8_000..=16_000).contains(&capacity.as_u64().unwrap()), "{report}");
    assert!(report["tables"]["tab"]["partitions"].as_u64().unwrap() >= 8);
}

#[test]
fn a_table_with_less_capacity_than_its_partitions_is_throttled_as_a_whole() {
    let mut model = VirtualModel::new(ModelSettings {
        profile: LatencyProfile::None,
        warm: CapacityUnits { wcu: 1_500, rcu: 12_000 },
        ..ModelSettings::default()
    });
    let spread = |n: u64| add(&format!("k{n}"), 1);
    let (good, bad) = offer(&mut model, "UpdateItem", 400, 4, spread);
    // The bucket holds 1,500 and gets 1,500 per second.
    assert!((7_400..=7_510).contains(&good), "{good}");
    assert_eq!(bad, ["ThrottlingException"]);
}

#[test]
fn warm_throughput_is_bounded_by_the_quota() {
    for (quota, expected) in [(100_000, 60_000), (40_000, 40_000)] {
        let model = &mut VirtualModel::new(ModelSettings {
            profile: LatencyProfile::None,
            warm: CapacityUnits { wcu: 60_000, rcu: 12_000 },
            table_quota: quota,
            ..ModelSettings::default()
        });
        let report = model.model.report(model.now);
        assert_eq!(report["tables"]["tab"]["capacity"]["wcu"], expected);
        assert_eq!(report["tables"]["tab"]["partitions"], 64);
    }
}

#[test]
fn sizes_indexes_and_reads_are_charged_as_documented() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    let big = "x".repeat(2_500);
    let mut body = json!({ "TableName": "tab", "ReturnConsumedCapacity": "INDEXES", "Item": {
        "id": { "S": "a" }, "bucket": { "S": "b" }, "at": { "N": "1" }, "big": { "S": big } } });
    // 3 KB to the table, 3 KB to the index.
    let cost = |body: &Json| body["ConsumedCapacity"]["CapacityUnits"].as_f64().unwrap();
    let (_, put) = model.call("PutItem", body.clone());
    assert_eq!(cost(&put), 6.0, "{put}");
    assert_eq!(put["ConsumedCapacity"]["GlobalSecondaryIndexes"]["due"]["CapacityUnits"], 3.0);
    // A new index key: the old entry is deleted, the new one written.
    body["Item"]["at"] = json!({ "N": "2" });
    assert_eq!(cost(&model.call("PutItem", body.clone()).1), 9.0);
    // An unchanged item changes no index.
    assert_eq!(cost(&model.call("PutItem", body.clone()).1), 3.0);
    let get = |consistent: bool| json!({ "TableName": "tab", "Key": key("a"), "ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL" });
    assert_eq!(cost(&model.call("GetItem", get(true)).1), 1.0);
    assert_eq!(cost(&model.call("GetItem", get(false)).1), 0.5);
    let mut actions = transaction(&["p", "q"], None);
    actions["ReturnConsumedCapacity"] = json!("TOTAL");
    let (_, done) = model.call("TransactWriteItems", actions);
    assert_eq!(done["ConsumedCapacity"][0]["WriteCapacityUnits"], 4.0, "{done}");
    let reads = json!({ "TransactItems": [{ "Get": { "TableName": "tab", "Key": key("a") } }], "ReturnConsumedCapacity": "TOTAL" });
    let (_, read) = model.call("TransactGetItems", reads);
    assert_eq!(read["ConsumedCapacity"][0]["ReadCapacityUnits"], 2.0, "{read}");
}

#[test]
fn batch_get_returns_throttled_keys_unprocessed() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    model.call("PutItem", put("hot"));
    let get = json!({ "TableName": "tab", "Key": key("hot"), "ConsistentRead": true });
    offer(&mut model, "GetItem", 100, 1, |_| get.clone());
    let batch = |ids: &[&str]| {
        let keys: Vec<Json> = ids.iter().map(|id| key(id)).collect();
        json!({ "RequestItems": { "tab": { "Keys": keys, "ConsistentRead": true } } })
    };
    let (status, body) = model.call("BatchGetItem", batch(&["hot", "cold"]));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["UnprocessedKeys"]["tab"]["Keys"], json!([key("hot")]));
    assert_eq!(body["UnprocessedKeys"]["tab"]["ConsistentRead"], true);
    // The unprocessed keys are a valid request.
    model.advance_to(model.now + SECOND);
    let again = json!({ "RequestItems": body["UnprocessedKeys"] });
    let (_, body) = model.call("BatchGetItem", again);
    assert_eq!(body["Responses"]["tab"][0]["id"]["S"], "hot", "{body}");
}
