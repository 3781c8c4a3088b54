//! Seat items in DynamoDB's own JSON, written and read past the code under test.

use crate::fake_store::{FakeStore, n, s};
use inventory_core::ids::{EventId, SeatId, seat_key};
use serde_json::{Map, Value, json};

/// Items of one BatchWriteItem.
const BATCH: usize = 25;

/// One seat of a hall.
#[derive(Clone, Debug)]
pub(crate) struct HallSeat {
    pub(crate) id: String,
    pub(crate) section: &'static str,
    pub(crate) row: &'static str,
    pub(crate) number: usize,
    pub(crate) price: i64,
}

/// `count` adjacent seats: `A-1-1`, `A-1-2`, …
pub(crate) fn row(
    section: &'static str,
    row: &'static str,
    count: usize,
    price: i64,
) -> Vec<HallSeat> {
    let seat =
        |number| HallSeat { id: format!("{section}-{row}-{number}"), section, row, number, price };
    (1..=count).map(seat).collect()
}

/// The key of a seat's item.
pub(crate) fn seat_item_key(event: &str, seat: &str, keys: u16) -> Value {
    let event: EventId = event.parse().unwrap();
    let seat: SeatId = seat.parse().unwrap();
    json!({ "event_id": s(&seat_key(&event, &seat, keys)), "seat_id": s(seat.as_str()) })
}

/// Creates a seated event with `keys` partition keys. Each seat has an attribute `note` that the server does not use.
pub(crate) fn seat_event(store: &FakeStore, event: &str, keys: u16, seats: &[HallSeat]) {
    let stripe = json!({
        "event_id": s(event), "name": s("The last night"), "remaining": n(0),
        "total_seats": n(0), "version": n(0), "stripes": n(1), "seat_keys": n(keys),
    });
    store.put_item("inventory", stripe);
    let put = |seat: &HallSeat| {
        let mut item = seat_item_key(event, &seat.id, keys);
        let facts = json!({
            "status": s("AVAILABLE"), "section": s(seat.section), "row": s(seat.row),
            "number": s(&seat.number.to_string()), "price_amount": n(seat.price),
            "price_currency": s("KRW"), "note": s("behind a pillar"),
        });
        let facts = facts.as_object().unwrap().clone();
        item.as_object_mut().unwrap().extend(facts);
        json!({ "PutRequest": { "Item": item } })
    };
    for seats in seats.chunks(BATCH) {
        let puts: Vec<Value> = seats.iter().map(put).collect();
        let body = json!({ "RequestItems": { "inventory_seats": puts } });
        store.call("BatchWriteItem", body);
    }
}

/// All attributes of a seat's item; `None` if there is no item.
pub(crate) fn seat_item(
    store: &FakeStore,
    event: &str,
    seat: &str,
    keys: u16,
) -> Option<Map<String, Value>> {
    let item = store.item("inventory_seats", &seat_item_key(event, seat, keys));
    item.as_object().cloned()
}

/// The text of an attribute; empty if it is absent.
pub(crate) fn text(item: &Map<String, Value>, name: &str) -> String {
    let value = item.get(name).and_then(|value| value["S"].as_str());
    value.unwrap_or_default().to_owned()
}
