//! Items as they lie in the store: put and read in DynamoDB's own JSON, past everything of this
//! project, so that a test sees what the seed's other programs would see.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use inventory_core::ids::{EventId, SeatId, seat_key};
use serde_json::{Map, Value, json};

/// Keys of one BatchWriteItem.
const BATCH: usize = 25;

/// Makes one call; its answer, which must be a success.
#[track_caller]
fn call(engine: SocketAddr, operation: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(engine).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {engine}\r\nconnection: close\r\n\
         content-type: application/x-amz-json-1.0\r\n\
         x-amz-target: DynamoDB_20120810.{operation}\r\n\
         x-amz-date: 20261122T000000Z\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=local/20261122/local/dynamodb/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
    serde_json::from_str(body).unwrap()
}

pub(crate) fn s(text: &str) -> Value {
    json!({ "S": text })
}

pub(crate) fn n(number: i64) -> Value {
    json!({ "N": number.to_string() })
}

/// One seat of a hall.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) section: &'static str,
    pub(crate) row: &'static str,
    pub(crate) number: usize,
    pub(crate) price: i64,
}

/// `count` seats beside each other: `A-1-1`, `A-1-2`, …
pub(crate) fn row(
    section: &'static str,
    row: &'static str,
    count: usize,
    price: i64,
) -> Vec<Place> {
    let place = |number| Place {
        id: format!("{section}-{row}-{number}"),
        section,
        row,
        number,
        price,
    };
    (1..=count).map(place).collect()
}

fn key_of(event: &str, seat: &str, keys: u16) -> String {
    let event: EventId = event.parse().unwrap();
    let seat: SeatId = seat.parse().unwrap();
    seat_key(&event, &seat, keys)
}

/// Makes a seated event whose seats are spread over `keys` partition keys. Each seat also has a
/// `note`, which this project knows nothing of.
pub(crate) fn seat_event(engine: SocketAddr, event: &str, keys: u16, places: &[Place]) {
    let stripe = json!({
        "event_id": s(event), "name": s("The last night"), "remaining": n(0),
        "total_seats": n(0), "version": n(0), "stripes": n(1), "seat_keys": n(i64::from(keys)),
    });
    call(
        engine,
        "PutItem",
        &json!({ "TableName": "inventory", "Item": stripe }),
    );
    let put = |place: &Place| {
        let key = key_of(event, &place.id, keys);
        json!({ "PutRequest": { "Item": {
            "event_id": s(&key), "seat_id": s(&place.id), "status": s("AVAILABLE"),
            "section": s(place.section), "row": s(place.row),
            "number": s(&place.number.to_string()), "price_amount": n(place.price),
            "price_currency": s("KRW"), "note": s("behind a pillar"),
        } } })
    };
    for places in places.chunks(BATCH) {
        let puts: Vec<Value> = places.iter().map(put).collect();
        let body = json!({ "RequestItems": { "inventory_seats": puts } });
        call(engine, "BatchWriteItem", &body);
    }
}

/// A seat's item, every attribute of it; `None`: there is none.
pub(crate) fn seat_item(
    engine: SocketAddr,
    event: &str,
    seat: &str,
    keys: u16,
) -> Option<Map<String, Value>> {
    let key = json!({ "event_id": s(&key_of(event, seat, keys)), "seat_id": s(seat) });
    let body = json!({ "TableName": "inventory_seats", "Key": key, "ConsistentRead": true });
    let answer = call(engine, "GetItem", &body);
    answer.get("Item").and_then(Value::as_object).cloned()
}

/// The text of an attribute; empty when it is not there.
pub(crate) fn text(item: &Map<String, Value>, name: &str) -> String {
    let value = item.get(name).and_then(|value| value["S"].as_str());
    value.unwrap_or_default().to_owned()
}

/// Sets one attribute of a seat, by hand.
pub(crate) fn set_seat(engine: SocketAddr, event: &str, seat: &str, name: &str, value: &Value) {
    let body = json!({
        "TableName": "inventory_seats",
        "Key": { "event_id": s(event), "seat_id": s(seat) },
        "UpdateExpression": "SET #n = :v",
        "ExpressionAttributeNames": { "#n": name },
        "ExpressionAttributeValues": { ":v": value },
    });
    call(engine, "UpdateItem", &body);
}

/// Sets what an event's first stripe was given and has left, by hand, whether that can be or not.
pub(crate) fn put_units(engine: SocketAddr, event: &str, total: i64, remaining: i64) {
    let body = json!({
        "TableName": "inventory",
        "Key": { "event_id": s(event) },
        "UpdateExpression": "SET #t = :t, #r = :r",
        "ExpressionAttributeNames": { "#t": "total_seats", "#r": "remaining" },
        "ExpressionAttributeValues": { ":t": n(total), ":r": n(remaining) },
    });
    call(engine, "UpdateItem", &body);
}
