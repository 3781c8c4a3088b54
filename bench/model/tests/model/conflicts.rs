//! Conflicts of transactions, writes and reads.

use crate::fixture::{VirtualModel, add, codes, error, key, put, settings, transaction};
use inventory_store_model::LatencyProfile;
use serde_json::json;

#[test]
fn concurrent_transactions_on_an_item_conflict() {
    let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
    let first = model.send("TransactWriteItems", &transaction(&["a", "b"], None));
    let second = model.send("TransactWriteItems", &transaction(&["b", "c"], None));
    let third = model.send("TransactWriteItems", &transaction(&["d"], None));
    let (_, _, first) = model.wait(first);
    let (_, _, second) = model.wait(second);
    assert_eq!(model.wait(third).1, 200);
    // Which of the two is first is random; the other is cancelled because of the shared item only.
    let cancelled = [&first, &second].into_iter().filter(|body| !error(body).is_empty());
    let cancelled: Vec<_> = cancelled.collect();
    assert_eq!(cancelled.len(), 1, "{first} {second}");
    assert_eq!(error(cancelled[0]), "TransactionCanceledException");
    let expected = if error(&first).is_empty() {
        ["TransactionConflict", "None"]
    } else {
        ["None", "TransactionConflict"]
    };
    assert_eq!(codes(cancelled[0]), expected);
    assert_eq!(model.item("b")["n"]["N"], "1");
    // Sequential transactions do not conflict.
    for _ in 0..3 {
        assert_eq!(model.call("TransactWriteItems", transaction(&["a", "b"], None)).0, 200);
    }
}

#[test]
fn a_transaction_blocks_plain_writes_and_is_invisible_to_plain_reads() {
    let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
    model.call("PutItem", put("a"));
    let mut met = 0;
    for _ in 0..40 {
        let before = model.item("a")["n"]["N"].as_str().unwrap().to_owned();
        let began = model.now;
        let writing = model.send("TransactWriteItems", &transaction(&["a"], None));
        // Locked from 10 % of at least 7 ms on.
        model.advance_to(began + 1_500);
        let write = model.send("UpdateItem", &add("a", 100));
        let get = json!({ "TableName": "tab", "Key": key("a"), "ConsistentRead": true });
        let read = model.send("GetItem", &get);
        let (done, status, _) = model.wait(writing);
        let (wrote, _, written) = model.wait(write);
        let (at, _, seen) = model.wait(read);
        assert_eq!(status, 200);
        if at < done {
            assert_eq!(seen["Item"]["n"]["N"], before.as_str());
        }
        if wrote < done {
            assert_eq!(error(&written), "TransactionConflictException");
            met += 1;
        }
    }
    assert!(met > 10, "{met}");
}

#[test]
fn transact_get_is_cancelled_by_a_write_in_flight_and_never_reads_half() {
    let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
    let get = |id| json!({ "Get": { "TableName": "tab", "Key": key(id) } });
    let both = json!({ "TransactItems": [get("a"), get("b")] });
    let (mut cancelled, mut read) = (0, 0);
    for _ in 0..60 {
        let writing = model.send("TransactWriteItems", &transaction(&["a", "b"], None));
        model.advance_to(model.now + 4_000);
        let reading = model.send("TransactGetItems", &both);
        let (_, _, seen) = model.wait(reading);
        if error(&seen) == "TransactionCanceledException" {
            assert_eq!(codes(&seen), ["TransactionConflict"; 2]);
            cancelled += 1;
        } else {
            assert_eq!(seen["Responses"][0]["Item"]["n"], seen["Responses"][1]["Item"]["n"]);
            read += 1;
        }
        model.wait(writing);
    }
    assert!(cancelled > 20 && cancelled + read == 60, "{cancelled} {read}");
    let (_, seen) = model.call("TransactGetItems", both);
    assert_eq!(seen["Responses"][0]["Item"]["n"]["N"], "60");
}

#[test]
fn contended_stock_is_never_oversold_or_lost() {
    let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
    let mut item = put("stock");
    item["Item"]["n"] = json!({ "N": "40" });
    model.call("PutItem", item);
    let take = json!({
        "TransactItems": [{ "Update": {
            "TableName": "tab", "Key": key("stock"),
            "UpdateExpression": "SET #n = #n - :q", "ConditionExpression": "#n >= :q",
            "ExpressionAttributeNames": { "#n": "n" },
            "ExpressionAttributeValues": { ":q": { "N": "1" } },
        } }],
    });
    let mut taken = 0;
    let mut short = 0;
    let mut calls = Vec::new();
    for round in 0..600 {
        calls.push(model.send("TransactWriteItems", &take));
        model.advance_to(round * 3_000);
    }
    for call in calls {
        let (_, status, body) = model.wait(call);
        match codes(&body)[..] {
            [] if status == 200 => taken += 1,
            ["ConditionalCheckFailed"] => short += 1,
            ["TransactionConflict"] => {}
            _ => panic!("{status} {body}"),
        }
    }
    assert_eq!((taken, model.item("stock")["n"]["N"].as_str()), (40, Some("0")));
    assert!(short > 100, "{short}");
}
