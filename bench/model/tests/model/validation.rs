//! Invalid, unsupported and excess requests.

use crate::fixture::{VirtualModel, add, error, key, settings, transaction};
use inventory_store_model::{LatencyProfile, ModelSettings, limits};
use serde_json::{Value as Json, json};

#[test]
fn invalid_and_unsupported_requests_name_their_cause() {
    let mut model = VirtualModel::new(settings(LatencyProfile::None));
    let mut with = |operation: &str, body: Json, word: &str| {
        let (status, response) = model.call(operation, body.clone());
        assert_eq!(
            (status, error(&response)),
            (400, "ValidationException"),
            "{operation} {body} {response}"
        );
        let message = response["message"].as_str().unwrap();
        assert!(message.contains(word), "{word} is not in {message}");
    };
    let changed = |mut body: Json, member: &str, value: Json| {
        body[member] = value;
        body
    };
    let update = || add("a", 1);
    for (member, value, word) in [
        ("Expected", json!({}), "Expected"),
        ("ReturnItemCollectionMetrics", json!("SIZE"), "SIZE"),
        ("ReturnValues", json!("SOME"), "SOME"),
        ("UpdateExpression", json!(""), "empty"),
        ("UpdateExpression", json!("ADD #n :x"), ":x"),
        ("UpdateExpression", json!("ADD #m :n"), "#m"),
        ("UpdateExpression", json!("ADD #n :n, #n :n"), "overlap"),
        ("UpdateExpression", json!("SET #n = fly(:n)"), "fly"),
        ("UpdateExpression", json!("SET status = :n REMOVE #n"), "status"),
        ("UpdateExpression", json!("SET a.#n = :n"), "document paths"),
        ("UpdateExpression", json!("REMOVE #n"), ":n"),
        ("UpdateExpression", json!("SET id = :n REMOVE #n"), "part of the key"),
        ("UpdateExpression", json!("ADD #n :n ADD m :n"), "once"),
        ("ConditionExpression", json!("near(#n, :n)"), "near"),
        ("ConditionExpression", json!("#n ="), "<EOF>"),
        ("ConditionExpression", json!("#n = :n AND"), "<EOF>"),
        ("ConditionExpression", json!("#n = :n # "), "#"),
        ("ExpressionAttributeNames", json!({ "#n": "n", "#z": "z" }), "#z"),
        ("ExpressionAttributeValues", json!({ ":n": { "N": "1" }, ":z": { "N": "1" } }), ":z"),
        ("ExpressionAttributeNames", json!({ "n": "n" }), "\"n\""),
        ("ExpressionAttributeValues", json!({}), "empty"),
        ("Key", json!({ "id": { "N": "1" } }), "schema"),
        ("Key", json!({ "id": { "S": "" } }), "empty"),
        ("Key", json!({ "id": { "S": "a" }, "x": { "S": "a" } }), "schema"),
    ] {
        with("UpdateItem", changed(update(), member, value), word);
    }
    let long = format!("#n = :n{}", " AND #n = :n".repeat(400));
    with("UpdateItem", changed(update(), "ConditionExpression", json!(long)), "size");
    let huge = json!({ "id": { "S": "a" }, "x": { "S": "x".repeat(limits::ITEM_BYTES_MAX) } });
    with("PutItem", json!({ "TableName": "tab", "Item": huge }), "Item size");
    with("PutItem", json!({ "TableName": "tab", "Item": { "x": { "S": "a" } } }), "id");
    with("TransactWriteItems", transaction(&["a", "a"], None), "multiple operations");
    let ids: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    with("TransactWriteItems", transaction(&ids, None), "100");
    with("TransactWriteItems", json!({ "TransactItems": [] }), "equal to 1");
    with("TransactWriteItems", json!({ "TransactItems": [{ "Fly": {} }] }), "Fly");
    with("TransactWriteItems", transaction(&["a"], Some(&"k".repeat(37))), "clientRequestToken");
    let big: Vec<Json> = (0..12)
        .map(|n| {
            json!({ "Put": { "TableName": "tab", "Item": {
        "id": { "S": n.to_string() }, "x": { "S": "x".repeat(390_000) } } } })
        })
        .collect();
    with("TransactWriteItems", json!({ "TransactItems": big }), "4MB");
    let keys: Vec<Json> = ids.iter().map(|id| key(id)).collect();
    with("BatchGetItem", json!({ "RequestItems": { "tab": { "Keys": keys } } }), "Too many");
    with(
        "BatchGetItem",
        json!({ "RequestItems": { "tab": { "Keys": [key("a"), key("a")] } } }),
        "duplicates",
    );
    with("Query", json!({ "TableName": "tab" }), "KeyConditionExpression");
    with("CreateTable", json!({ "TableName": "u", "Tags": [] }), "Tags");
    let (_, response) = model.call("DescribeStream", json!({}));
    assert_eq!(error(&response), "UnknownOperationException");
    let (_, response) = model.call("GetItem", json!({ "TableName": "none", "Key": key("a") }));
    assert_eq!(error(&response), "ResourceNotFoundException");
    let ticket = model.model.arrive(model.now, "GetItem", b"{");
    assert_eq!(error(&model.wait(ticket).2), "SerializationException");
}

#[test]
fn calls_beyond_the_limit_are_rejected() {
    let mut model = VirtualModel::new(ModelSettings {
        is_unlimited: true,
        ..settings(LatencyProfile::InRegion)
    });
    let get = json!({ "TableName": "tab", "Key": key("a") });
    let tickets: Vec<_> = (0..limits::CALLS_MAX + 5).map(|_| model.send("GetItem", &get)).collect();
    let replies: Vec<u16> = tickets.into_iter().map(|ticket| model.wait(ticket).1).collect();
    assert_eq!(replies.iter().filter(|status| **status == 503).count(), 5);
    assert_eq!(replies.iter().filter(|status| **status == 200).count() + 5, replies.len());
}
