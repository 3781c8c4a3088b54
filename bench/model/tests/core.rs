//! The model in virtual time: conflicts, tokens, capacity, faults, refusals.
#![allow(clippy::unwrap_used)]

mod common;

use common::{SECOND, Sim, add, codes, error, key, put, transaction};
use inventory_store_model::{Fault, FaultKind, Profile, Settings, Units, limits};
use serde_json::{Value as Json, json};

fn settings(profile: Profile) -> Settings {
    Settings {
        profile,
        ..Settings::default()
    }
}

// ---- Conflicts ----------------------------------------------------------------------------------

#[test]
fn transactions_that_overlap_in_time_on_an_item_conflict_and_others_do_not() {
    let mut sim = Sim::new(settings(Profile::InRegion));
    let first = sim.send("TransactWriteItems", &transaction(&["a", "b"], None));
    let second = sim.send("TransactWriteItems", &transaction(&["b", "c"], None));
    let third = sim.send("TransactWriteItems", &transaction(&["d"], None));
    let (_, _, first) = sim.wait(first);
    let (_, _, second) = sim.wait(second);
    assert_eq!(sim.wait(third).1, 200);
    // Which of the two comes first is chance; one of them is cancelled, on the shared item alone.
    let cancelled = [&first, &second]
        .into_iter()
        .filter(|body| !error(body).is_empty());
    let cancelled: Vec<_> = cancelled.collect();
    assert_eq!(cancelled.len(), 1, "{first} {second}");
    assert_eq!(error(cancelled[0]), "TransactionCanceledException");
    let wanted = if error(&first).is_empty() {
        ["TransactionConflict", "None"]
    } else {
        ["None", "TransactionConflict"]
    };
    assert_eq!(codes(cancelled[0]), wanted);
    assert_eq!(sim.item("b")["n"]["N"], "1");
    // One after the other they do not.
    for _ in 0..3 {
        assert_eq!(
            sim.call("TransactWriteItems", transaction(&["a", "b"], None))
                .0,
            200
        );
    }
}

#[test]
fn a_plain_write_meets_a_transaction_and_a_plain_read_sees_what_was_before() {
    let mut sim = Sim::new(settings(Profile::InRegion));
    sim.call("PutItem", put("a"));
    let mut met = 0;
    for _ in 0..40 {
        let before = sim.item("a")["n"]["N"].as_str().unwrap().to_owned();
        let began = sim.now;
        let writing = sim.send("TransactWriteItems", &transaction(&["a"], None));
        // Locked from 10 % of at least 7 ms on.
        sim.until(began + 1_500);
        let write = sim.send("UpdateItem", &add("a", 100));
        let get = json!({ "TableName": "tab", "Key": key("a"), "ConsistentRead": true });
        let read = sim.send("GetItem", &get);
        let (done, status, _) = sim.wait(writing);
        let (wrote, _, written) = sim.wait(write);
        let (at, _, seen) = sim.wait(read);
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
fn a_transaction_of_reads_is_cancelled_by_a_write_under_way_and_never_sees_half() {
    let mut sim = Sim::new(settings(Profile::InRegion));
    let get = |id| json!({ "Get": { "TableName": "tab", "Key": key(id) } });
    let both = json!({ "TransactItems": [get("a"), get("b")] });
    let (mut cancelled, mut read) = (0, 0);
    for _ in 0..60 {
        let writing = sim.send("TransactWriteItems", &transaction(&["a", "b"], None));
        sim.until(sim.now + 4_000);
        let reading = sim.send("TransactGetItems", &both);
        let (_, _, seen) = sim.wait(reading);
        if error(&seen) == "TransactionCanceledException" {
            assert_eq!(codes(&seen), ["TransactionConflict"; 2]);
            cancelled += 1;
        } else {
            assert_eq!(
                seen["Responses"][0]["Item"]["n"],
                seen["Responses"][1]["Item"]["n"]
            );
            read += 1;
        }
        sim.wait(writing);
    }
    assert!(
        cancelled > 20 && cancelled + read == 60,
        "{cancelled} {read}"
    );
    let (_, seen) = sim.call("TransactGetItems", both);
    assert_eq!(seen["Responses"][0]["Item"]["n"]["N"], "60");
}

#[test]
fn a_stock_that_many_draw_on_is_never_overdrawn_nor_lost() {
    let mut sim = Sim::new(settings(Profile::InRegion));
    let mut item = put("stock");
    item["Item"]["n"] = json!({ "N": "40" });
    sim.call("PutItem", item);
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
        calls.push(sim.send("TransactWriteItems", &take));
        sim.until(round * 3_000);
    }
    for call in calls {
        let (_, status, body) = sim.wait(call);
        match codes(&body)[..] {
            [] if status == 200 => taken += 1,
            ["ConditionalCheckFailed"] => short += 1,
            ["TransactionConflict"] => {}
            _ => panic!("{status} {body}"),
        }
    }
    assert_eq!(
        (taken, sim.item("stock")["n"]["N"].as_str()),
        (40, Some("0"))
    );
    assert!(short > 100, "{short}");
}

// ---- Tokens -------------------------------------------------------------------------------------

#[test]
fn the_same_token_and_body_is_applied_once_whatever_the_order_of_its_members() {
    let mut sim = Sim::new(settings(Profile::InRegion));
    let body = r##"{"ClientRequestToken":"k","TransactItems":[{"Update":{"TableName":"tab","Key":{"id":{"S":"a"}},
        "UpdateExpression":"ADD #n :n SET #m = :m","ExpressionAttributeNames":{"#n":"n","#m":"m"},
        "ExpressionAttributeValues":{":n":{"N":"1"},":m":{"M":{"x":{"S":"1"},"y":{"S":"2"}}}}}}]}"##;
    let turned = r##"{"TransactItems":[{"Update":{"ExpressionAttributeValues":{":m":{"M":{"y":{"S":"2"},"x":{"S":"1"}}},
        ":n":{"N":"1.0"}},"ExpressionAttributeNames":{"#m":"m","#n":"n"},"UpdateExpression":"ADD #n :n SET #m = :m",
        "Key":{"id":{"S":"a"}},"TableName":"tab"}}],"ClientRequestToken":"k"}"##;
    for body in [body, turned, body] {
        let ticket = sim
            .model
            .arrive(sim.now, "TransactWriteItems", body.as_bytes());
        assert_eq!(sim.wait(ticket).1, 200);
    }
    assert_eq!(sim.item("a")["n"]["N"], "1");
    let (status, other) = sim.call("TransactWriteItems", transaction(&["a"], Some("k")));
    assert_eq!(
        (status, error(&other)),
        (400, "IdempotentParameterMismatchException")
    );
    // Ten minutes later it is a token like any other.
    sim.until(sim.now + limits::TOKEN_LIFE);
    assert_eq!(
        sim.call("TransactWriteItems", transaction(&["a"], Some("k")))
            .0,
        200
    );
    assert_eq!(sim.item("a")["n"]["N"], "2");
}

#[test]
fn a_token_in_progress_is_told_so_and_one_that_was_cancelled_is_judged_anew() {
    let mut sim = Sim::new(settings(Profile::InRegion));
    let body = transaction(&["a"], Some("k"));
    let tickets = [0; 4].map(|_| sim.send("TransactWriteItems", &body));
    let answers = tickets.map(|ticket| sim.wait(ticket).2);
    let in_progress = answers
        .iter()
        .filter(|body| error(body) == "TransactionInProgressException");
    assert!(in_progress.count() >= 2, "{answers:?}");
    assert_eq!(sim.item("a")["n"]["N"], "1");

    let mut never = transaction(&["a"], Some("n"));
    never["TransactItems"][0]["Update"]["ConditionExpression"] = json!("attribute_exists(m)");
    for _ in 0..2 {
        let (_, body) = sim.call("TransactWriteItems", never.clone());
        assert_eq!(codes(&body), ["ConditionalCheckFailed"]);
    }
}

// ---- Capacity -----------------------------------------------------------------------------------

/// Offers `body` of `operation` every `every` microseconds for `seconds`; how many were answered 200,
/// and the errors' names.
fn offer(
    sim: &mut Sim,
    operation: &str,
    every: u64,
    seconds: u64,
    body: impl Fn(u64) -> Json,
) -> (u64, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    let from = sim.now;
    for n in 0..seconds * SECOND / every {
        sim.until(from + n * every);
        match sim.call(operation, body(n)) {
            (200, _) => good += 1,
            (_, body) => bad.push(error(&body).to_owned()),
        }
    }
    bad.sort_unstable();
    bad.dedup();
    (good, bad)
}

#[test]
fn one_item_takes_a_thousand_writes_a_second_and_no_more() {
    let mut sim = Sim::new(settings(Profile::None));
    // 2,000 a second for 5 s; the bucket holds one second's worth.
    let (good, bad) = offer(&mut sim, "UpdateItem", 500, 5, |_| add("hot", 1));
    assert!((5_900..=6_010).contains(&good), "{good}");
    assert_eq!(bad, ["ProvisionedThroughputExceededException"]);
    assert_eq!(sim.item("hot")["n"]["N"], good.to_string().as_str());
    let report = sim.model.report(sim.now);
    let hottest = &report["tables"]["tab"]["hottest"][0];
    assert!(
        hottest["wcu"]["peak"].as_f64().unwrap() <= 2_001.0,
        "{report}"
    );
    assert_eq!(report["tables"]["tab"]["partitions"], 4);
    assert!(report["throttled"]["partition"].as_u64().unwrap() > 3_000);
}

#[test]
fn one_item_takes_five_hundred_transactions_a_second_and_a_cancelled_one_costs_as_much() {
    for condition in ["attribute_not_exists(zz)", "attribute_exists(zz)"] {
        let mut sim = Sim::new(settings(Profile::None));
        sim.call("PutItem", put("hot"));
        let mut body = transaction(&["hot"], None);
        body["TransactItems"][0]["Update"]["ConditionExpression"] = json!(condition);
        offer(&mut sim, "TransactWriteItems", 1_000, 5, |_| body.clone());
        let report = sim.model.report(sim.now);
        let total = report["tables"]["tab"]["wcu"]["total"].as_f64().unwrap();
        // A thousand in the bucket and a thousand a second.
        assert!((5_900.0..=6_010.0).contains(&total), "{condition}: {total}");
        let op = &report["operations"]["TransactWriteItems"];
        assert!(
            op["TransactionCanceledException"].as_u64().unwrap() > 1_900,
            "{report}"
        );
    }
}

#[test]
fn a_throttled_transaction_says_which_action_and_applies_nothing() {
    let mut sim = Sim::new(settings(Profile::None));
    offer(&mut sim, "UpdateItem", 200, 1, |_| add("hot", 1));
    let (status, body) = sim.call("TransactWriteItems", transaction(&["cold", "hot"], None));
    // Where the two keys lie is fixed by the hash: not on one partition.
    assert_eq!(
        (status, codes(&body)),
        (400, vec!["None", "ThrottlingError"]),
        "{body}"
    );
    assert!(sim.item("cold").is_null());
}

#[test]
fn a_new_table_takes_four_thousand_writes_and_twice_its_peak_half_an_hour_later() {
    let mut sim = Sim::new(settings(Profile::None));
    let spread = |n: u64| add(&format!("k{n}"), 1);
    let (good, bad) = offer(&mut sim, "UpdateItem", 100, 3, spread);
    // 4,000 in the buckets, 12,000 in three seconds, less where a partition had more than its part.
    assert!((15_000..=16_100).contains(&good), "{good}");
    assert_eq!(bad, ["ProvisionedThroughputExceededException"]);
    sim.until(limits::PEAK_WINDOW + SECOND);
    sim.call("PutItem", put("x"));
    let report = sim.model.report(sim.now);
    let capacity = &report["tables"]["tab"]["capacity"]["wcu"];
    // Twice the best second, which had a full bucket to draw on.
    assert!(
        (8_000..=16_000).contains(&capacity.as_u64().unwrap()),
        "{report}"
    );
    assert!(report["tables"]["tab"]["partitions"].as_u64().unwrap() >= 8);
}

#[test]
fn a_table_is_throttled_as_a_whole_where_its_capacity_is_below_its_partitions() {
    let mut sim = Sim::new(Settings {
        profile: Profile::None,
        warm: Units {
            wcu: 1_500,
            rcu: 12_000,
        },
        ..Settings::default()
    });
    let spread = |n: u64| add(&format!("k{n}"), 1);
    let (good, bad) = offer(&mut sim, "UpdateItem", 400, 4, spread);
    // 1,500 in the bucket and 1,500 a second.
    assert!((7_400..=7_510).contains(&good), "{good}");
    assert_eq!(bad, ["ThrottlingException"]);
}

#[test]
fn a_warm_table_takes_more_up_to_the_quota() {
    for (quota, wanted) in [(100_000, 60_000), (40_000, 40_000)] {
        let sim = &mut Sim::new(Settings {
            profile: Profile::None,
            warm: Units {
                wcu: 60_000,
                rcu: 12_000,
            },
            table_quota: quota,
            ..Settings::default()
        });
        let report = sim.model.report(sim.now);
        assert_eq!(report["tables"]["tab"]["capacity"]["wcu"], wanted);
        assert_eq!(report["tables"]["tab"]["partitions"], 64);
    }
}

#[test]
fn sizes_indexes_and_reads_are_charged_as_documented() {
    let mut sim = Sim::new(settings(Profile::None));
    let big = "x".repeat(2_500);
    let mut body = json!({ "TableName": "tab", "ReturnConsumedCapacity": "INDEXES", "Item": {
        "id": { "S": "a" }, "bucket": { "S": "b" }, "at": { "N": "1" }, "big": { "S": big } } });
    // 3 KB to the table, 3 KB to the index.
    let cost = |body: &Json| body["ConsumedCapacity"]["CapacityUnits"].as_f64().unwrap();
    let (_, put) = sim.call("PutItem", body.clone());
    assert_eq!(cost(&put), 6.0, "{put}");
    assert_eq!(
        put["ConsumedCapacity"]["GlobalSecondaryIndexes"]["due"]["CapacityUnits"],
        3.0
    );
    // A new index key: the old entry goes, the new one comes.
    body["Item"]["at"] = json!({ "N": "2" });
    assert_eq!(cost(&sim.call("PutItem", body.clone()).1), 9.0);
    // The same again changes no index.
    assert_eq!(cost(&sim.call("PutItem", body.clone()).1), 3.0);
    let get = |consistent: bool| json!({ "TableName": "tab", "Key": key("a"), "ConsistentRead": consistent, "ReturnConsumedCapacity": "TOTAL" });
    assert_eq!(cost(&sim.call("GetItem", get(true)).1), 1.0);
    assert_eq!(cost(&sim.call("GetItem", get(false)).1), 0.5);
    let mut actions = transaction(&["p", "q"], None);
    actions["ReturnConsumedCapacity"] = json!("TOTAL");
    let (_, done) = sim.call("TransactWriteItems", actions);
    assert_eq!(
        done["ConsumedCapacity"][0]["WriteCapacityUnits"], 4.0,
        "{done}"
    );
    let reads = json!({ "TransactItems": [{ "Get": { "TableName": "tab", "Key": key("a") } }], "ReturnConsumedCapacity": "TOTAL" });
    let (_, read) = sim.call("TransactGetItems", reads);
    assert_eq!(
        read["ConsumedCapacity"][0]["ReadCapacityUnits"], 2.0,
        "{read}"
    );
}

#[test]
fn a_batch_read_leaves_throttled_keys_unprocessed() {
    let mut sim = Sim::new(settings(Profile::None));
    sim.call("PutItem", put("hot"));
    let get = json!({ "TableName": "tab", "Key": key("hot"), "ConsistentRead": true });
    offer(&mut sim, "GetItem", 100, 1, |_| get.clone());
    let batch = |ids: &[&str]| {
        let keys: Vec<Json> = ids.iter().map(|id| key(id)).collect();
        json!({ "RequestItems": { "tab": { "Keys": keys, "ConsistentRead": true } } })
    };
    let (status, body) = sim.call("BatchGetItem", batch(&["hot", "cold"]));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["UnprocessedKeys"]["tab"]["Keys"], json!([key("hot")]));
    assert_eq!(body["UnprocessedKeys"]["tab"]["ConsistentRead"], true);
    // What came back unprocessed can be asked for as it is.
    sim.until(sim.now + SECOND);
    let again = json!({ "RequestItems": body["UnprocessedKeys"] });
    let (_, body) = sim.call("BatchGetItem", again);
    assert_eq!(body["Responses"]["tab"][0]["id"]["S"], "hot", "{body}");
}

// ---- Faults -------------------------------------------------------------------------------------

fn fault(kind: FaultKind, operation: Option<&str>) -> Fault {
    Fault {
        kind,
        probability: 1.0,
        operation: operation.map(str::to_owned),
        delay_ms: if kind == FaultKind::DelayedAnswer {
            500
        } else {
            0
        },
    }
}

#[test]
fn every_fault_does_what_its_name_says_and_only_where_it_should() {
    for (kind, status, name, applied) in [
        (FaultKind::LostAnswer, 0, "", 1),
        (FaultKind::LostRequest, 0, "", 0),
        (FaultKind::DelayedAnswer, 200, "", 1),
        (FaultKind::Throttle, 400, "TransactionCanceledException", 0),
        (FaultKind::Conflict, 400, "TransactionCanceledException", 0),
    ] {
        let mut sim = Sim::new(settings(Profile::InRegion));
        sim.call("PutItem", put("a"));
        sim.model
            .set_faults(vec![fault(kind, Some("TransactWriteItems"))])
            .unwrap();
        let began = sim.now;
        let ticket = sim.send("TransactWriteItems", &transaction(&["a"], None));
        let (at, got, body) = sim.wait(ticket);
        assert_eq!((got, error(&body)), (status, name), "{kind:?}");
        if kind == FaultKind::DelayedAnswer {
            assert!(at - began > 500_000);
        }
        // Reads are not struck, and the faults can be taken out again.
        assert_eq!(
            sim.item("a")["n"]["N"],
            applied.to_string().as_str(),
            "{kind:?}"
        );
        sim.model.set_faults(Vec::new()).unwrap();
        assert_eq!(
            sim.call("TransactWriteItems", transaction(&["a"], None)).0,
            200
        );
    }
}

#[test]
fn an_internal_error_is_applied_in_half_of_the_cases() {
    let mut sim = Sim::new(settings(Profile::None));
    sim.call("PutItem", put("a"));
    sim.model
        .set_faults(vec![fault(FaultKind::Error500, Some("UpdateItem"))])
        .unwrap();
    for _ in 0..400 {
        let (status, body) = sim.call("UpdateItem", add("a", 1));
        assert_eq!((status, error(&body)), (500, "InternalServerError"));
    }
    let applied: u32 = sim.item("a")["n"]["N"].as_str().unwrap().parse().unwrap();
    assert!((150..250).contains(&applied), "{applied}");
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let mut sim = Sim::new(Settings {
            seed,
            faults: vec![Fault {
                probability: 0.3,
                ..fault(FaultKind::LostAnswer, None)
            }],
            ..settings(Profile::InRegion)
        });
        let tickets: Vec<_> = (0..50)
            .map(|_| sim.send("UpdateItem", &add("a", 1)))
            .collect();
        tickets
            .into_iter()
            .map(|ticket| sim.wait(ticket))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

// ---- Refusals -----------------------------------------------------------------------------------

#[test]
fn whatever_is_not_known_is_refused_by_name() {
    let mut sim = Sim::new(settings(Profile::None));
    let mut with = |operation: &str, body: Json, word: &str| {
        let (status, answer) = sim.call(operation, body.clone());
        assert_eq!(
            (status, error(&answer)),
            (400, "ValidationException"),
            "{operation} {body} {answer}"
        );
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(word), "{word} is not in {message}");
    };
    let changed = |mut body: Json, member: &str, value: Json| {
        body[member] = value;
        body
    };
    let update = || add("a", 1);
    for (member, value, word) in [
        ("Expected", json!({}), "Expected"),
        (
            "ReturnItemCollectionMetrics",
            json!("SIZE"),
            "ReturnItemCollectionMetrics",
        ),
        ("ReturnValues", json!("SOME"), "returnValues"),
        ("UpdateExpression", json!(""), "empty"),
        ("UpdateExpression", json!("ADD #n :x"), ":x"),
        ("UpdateExpression", json!("ADD #m :n"), "#m"),
        ("UpdateExpression", json!("ADD #n :n, #n :n"), "overlap"),
        ("UpdateExpression", json!("SET #n = fly(:n)"), "fly"),
        (
            "UpdateExpression",
            json!("SET status = :n REMOVE #n"),
            "status",
        ),
        ("UpdateExpression", json!("SET a.#n = :n"), "document paths"),
        ("UpdateExpression", json!("REMOVE #n"), ":n"),
        (
            "UpdateExpression",
            json!("SET id = :n REMOVE #n"),
            "part of the key",
        ),
        ("UpdateExpression", json!("ADD #n :n ADD m :n"), "once"),
        ("ConditionExpression", json!("near(#n, :n)"), "near"),
        ("ConditionExpression", json!("#n ="), "<EOF>"),
        ("ConditionExpression", json!("#n = :n AND"), "<EOF>"),
        ("ConditionExpression", json!("#n = :n # "), "#"),
        (
            "ExpressionAttributeNames",
            json!({ "#n": "n", "#z": "z" }),
            "#z",
        ),
        (
            "ExpressionAttributeValues",
            json!({ ":n": { "N": "1" }, ":z": { "N": "1" } }),
            ":z",
        ),
        ("ExpressionAttributeNames", json!({ "n": "n" }), "\"n\""),
        ("ExpressionAttributeValues", json!({}), "empty"),
        ("Key", json!({ "id": { "N": "1" } }), "schema"),
        ("Key", json!({ "id": { "S": "" } }), "empty"),
        (
            "Key",
            json!({ "id": { "S": "a" }, "x": { "S": "a" } }),
            "schema",
        ),
    ] {
        with("UpdateItem", changed(update(), member, value), word);
    }
    let long = format!("#n = :n{}", " AND #n = :n".repeat(400));
    with(
        "UpdateItem",
        changed(update(), "ConditionExpression", json!(long)),
        "size",
    );
    let huge = json!({ "id": { "S": "a" }, "x": { "S": "x".repeat(limits::ITEM_BYTES_MAX) } });
    with(
        "PutItem",
        json!({ "TableName": "tab", "Item": huge }),
        "Item size",
    );
    with(
        "PutItem",
        json!({ "TableName": "tab", "Item": { "x": { "S": "a" } } }),
        "id",
    );
    with(
        "TransactWriteItems",
        transaction(&["a", "a"], None),
        "multiple operations",
    );
    let ids: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    with("TransactWriteItems", transaction(&ids, None), "100");
    with(
        "TransactWriteItems",
        json!({ "TransactItems": [] }),
        "equal to 1",
    );
    with(
        "TransactWriteItems",
        json!({ "TransactItems": [{}] }),
        "should contain",
    );
    with(
        "TransactWriteItems",
        json!({ "TransactItems": [{ "Fly": {} }] }),
        "Fly",
    );
    with(
        "TransactWriteItems",
        transaction(&["a"], Some(&"k".repeat(37))),
        "clientRequestToken",
    );
    let big: Vec<Json> = (0..12)
        .map(|n| {
            json!({ "Put": { "TableName": "tab", "Item": {
        "id": { "S": n.to_string() }, "x": { "S": "x".repeat(390_000) } } } })
        })
        .collect();
    with("TransactWriteItems", json!({ "TransactItems": big }), "4MB");
    let keys: Vec<Json> = ids.iter().map(|id| key(id)).collect();
    with(
        "BatchGetItem",
        json!({ "RequestItems": { "tab": { "Keys": keys } } }),
        "Too many",
    );
    with(
        "BatchGetItem",
        json!({ "RequestItems": { "tab": { "Keys": [key("a"), key("a")] } } }),
        "duplicates",
    );
    with(
        "Query",
        json!({ "TableName": "tab" }),
        "KeyConditionExpression",
    );
    with(
        "CreateTable",
        json!({ "TableName": "u", "Tags": [] }),
        "Tags",
    );
    let (_, answer) = sim.call("DescribeStream", json!({}));
    assert_eq!(error(&answer), "UnknownOperationException");
    let (_, answer) = sim.call("GetItem", json!({ "TableName": "none", "Key": key("a") }));
    assert_eq!(error(&answer), "ResourceNotFoundException");
    let ticket = sim.model.arrive(sim.now, "GetItem", b"{");
    assert_eq!(error(&sim.wait(ticket).2), "SerializationException");
}

#[test]
fn calls_beyond_the_limit_are_refused_and_the_rest_is_answered() {
    let mut sim = Sim::new(Settings {
        is_unlimited: true,
        ..settings(Profile::InRegion)
    });
    let get = json!({ "TableName": "tab", "Key": key("a") });
    let tickets: Vec<_> = (0..limits::CALLS_MAX + 5)
        .map(|_| sim.send("GetItem", &get))
        .collect();
    let answers: Vec<u16> = tickets
        .into_iter()
        .map(|ticket| sim.wait(ticket).1)
        .collect();
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 5);
    assert_eq!(
        answers.iter().filter(|status| **status == 200).count() + 5,
        answers.len()
    );
}
