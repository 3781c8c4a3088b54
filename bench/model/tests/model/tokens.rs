//! Idempotency tokens of transactions.

use crate::fixture::{VirtualModel, codes, error, settings, transaction};
use inventory_store_model::{LatencyProfile, limits};
use serde_json::json;

#[test]
fn a_token_applies_a_request_once_in_any_order_of_its_members() {
    let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
    let body = r##"{"ClientRequestToken":"k","TransactItems":[{"Update":{"TableName":"tab","Key":{"id":{"S":"a"}},
        "UpdateExpression":"ADD #n :n SET #m = :m","ExpressionAttributeNames":{"#n":"n","#m":"m"},
        "ExpressionAttributeValues":{":n":{"N":"1"},":m":{"M":{"x":{"S":"1"},"y":{"S":"2"}}}}}}]}"##;
    let turned = r##"{"TransactItems":[{"Update":{"ExpressionAttributeValues":{":m":{"M":{"y":{"S":"2"},"x":{"S":"1"}}},
        ":n":{"N":"1.0"}},"ExpressionAttributeNames":{"#m":"m","#n":"n"},"UpdateExpression":"ADD #n :n SET #m = :m",
        "Key":{"id":{"S":"a"}},"TableName":"tab"}}],"ClientRequestToken":"k"}"##;
    for body in [body, turned, body] {
        let ticket = model.model.arrive(model.now, "TransactWriteItems", body.as_bytes());
        assert_eq!(model.wait(ticket).1, 200);
    }
    assert_eq!(model.item("a")["n"]["N"], "1");
    let (status, other) = model.call("TransactWriteItems", transaction(&["a"], Some("k")));
    assert_eq!((status, error(&other)), (400, "IdempotentParameterMismatchException"));
    // Ten minutes later the token is new.
    model.advance_to(model.now + limits::TOKEN_LIFE);
    assert_eq!(model.call("TransactWriteItems", transaction(&["a"], Some("k"))).0, 200);
    assert_eq!(model.item("a")["n"]["N"], "2");
}

#[test]
fn a_token_in_progress_is_reported_and_a_cancelled_one_may_be_reused() {
    let mut model = VirtualModel::new(settings(LatencyProfile::InRegion));
    let body = transaction(&["a"], Some("k"));
    let tickets = [0; 4].map(|_| model.send("TransactWriteItems", &body));
    let replies = tickets.map(|ticket| model.wait(ticket).2);
    let in_progress = replies.iter().filter(|body| error(body) == "TransactionInProgressException");
    assert!(in_progress.count() >= 2, "{replies:?}");
    assert_eq!(model.item("a")["n"]["N"], "1");

    let mut never = transaction(&["a"], Some("n"));
    never["TransactItems"][0]["Update"]["ConditionExpression"] = json!("attribute_exists(m)");
    for _ in 0..2 {
        let (_, body) = model.call("TransactWriteItems", never.clone());
        assert_eq!(codes(&body), ["ConditionalCheckFailed"]);
    }
}
