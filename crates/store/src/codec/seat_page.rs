//! Seats of one page of a query, decoded from the answer's body.
//!
//! The SDK builds a map of named values for every item: some twenty allocations and 4 to 8 µs per seat. A hall is read
//! as a whole, and the first calls of a sale wait for that. This decoder allocates the texts of the seat only.
//!
//! Only what this server writes. A page with anything else is not decoded here, so that what unusual items mean is
//! decided in one place ([`super::seats`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;

use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity};
use serde::Deserialize;

use super::fields::Item;
use super::{AVAILABLE, BLOCKED, EVENT_ID, HOLD, SEAT_ID, SOLD};
use inventory_core::seats::{Price, SeatFacts, SeatItem, SeatState};
use inventory_core::time::UnixMillis;

/// A decoded page.
pub(crate) struct DecodedSeatPage {
    pub(crate) seats: Vec<SeatItem>,
    /// Key at which the next page begins.
    pub(crate) last_key: Option<Item>,
    pub(crate) consumed: Option<ConsumedCapacity>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A typed value, with exactly one type. Other types than text, number and NULL are errors.
#[derive(Deserialize)]
enum Value<'a> {
    #[serde(rename = "S", borrow)]
    Text(Text<'a>),
    #[serde(rename = "N", borrow)]
    Number(Text<'a>),
    #[serde(rename = "NULL")]
    Null(bool),
}

/// The attributes that a page of seats is read with, by their stored names. The projection of the query has no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatAttributes<'a> {
    #[serde(borrow)]
    seat_id: Value<'a>,
    #[serde(borrow)]
    status: Value<'a>,
    #[serde(borrow)]
    reservation_id: Option<Value<'a>>,
    #[serde(borrow)]
    hold_expires_at: Option<Value<'a>>,
    #[serde(borrow)]
    section: Option<Value<'a>>,
    #[serde(borrow)]
    row: Option<Value<'a>>,
    #[serde(borrow)]
    number: Option<Value<'a>>,
    #[serde(borrow)]
    price_amount: Option<Value<'a>>,
    #[serde(borrow)]
    price_currency: Option<Value<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyAttributes<'a> {
    #[serde(borrow)]
    event_id: Value<'a>,
    #[serde(borrow)]
    seat_id: Value<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Consumed {
    table_name: Option<String>,
    capacity_units: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SeatItemPage<'a> {
    #[serde(borrow)]
    items: Vec<SeatAttributes<'a>>,
    #[serde(borrow)]
    last_evaluated_key: Option<KeyAttributes<'a>>,
    consumed_capacity: Option<Consumed>,
}

impl Value<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(&text.0),
            Value::Number(_) | Value::Null(_) => None,
        }
    }

    fn number<N: FromStr>(&self) -> Option<N> {
        match self {
            Value::Number(digits) => digits.0.parse().ok(),
            Value::Text(_) | Value::Null(_) => None,
        }
    }
}

/// The value unless it is missing or NULL.
fn present<'a, 'b>(value: &'b Option<Value<'a>>) -> Option<&'b Value<'a>> {
    value.as_ref().filter(|value| !matches!(value, Value::Null(true)))
}

impl SeatAttributes<'_> {
    /// `None`: not as this server writes it.
    fn seat(&self) -> Option<SeatItem> {
        let reservation = || present(&self.reservation_id)?.text()?.parse().ok();
        let state = match self.status.text()? {
            AVAILABLE => SeatState::Available,
            BLOCKED => SeatState::Blocked,
            HOLD => SeatState::Hold {
                reservation: reservation()?,
                until: UnixMillis(present(&self.hold_expires_at)?.number()?),
            },
            SOLD => SeatState::Sold { reservation: reservation()? },
            _ => return None,
        };
        let fact = |value| match present(value) {
            Some(value) => value.text().map(str::to_owned),
            None => Some(String::new()),
        };
        let price = match (present(&self.price_amount), present(&self.price_currency)) {
            (Some(amount), Some(currency)) => {
                Some(Price { amount: amount.number()?, currency: currency.text()?.to_owned() })
            }
            (None, None) => None,
            _ => return None,
        };
        Some(SeatItem {
            id: self.seat_id.text()?.parse().ok()?,
            facts: SeatFacts {
                section: fact(&self.section)?,
                row: fact(&self.row)?,
                number: fact(&self.number)?,
                price,
            },
            state,
        })
    }
}

impl KeyAttributes<'_> {
    fn item(&self) -> Option<Item> {
        let value = |value: &Value<'_>| Some(AttributeValue::S(value.text()?.to_owned()));
        Some(HashMap::from([
            (EVENT_ID.to_owned(), value(&self.event_id)?),
            (SEAT_ID.to_owned(), value(&self.seat_id)?),
        ]))
    }
}

/// Decodes the body of a successful answer; `None` if the page has anything that this server does not write.
pub(crate) fn decode_seat_page(body: &[u8]) -> Option<DecodedSeatPage> {
    // As a whole: the SDK refuses a body that is not UTF-8 anywhere, also in a field that is not read here.
    let body = std::str::from_utf8(body).ok()?;
    let page: SeatItemPage<'_> = serde_json::from_str(body).ok()?;
    let seats: Option<Vec<SeatItem>> = page.items.iter().map(SeatAttributes::seat).collect();
    let last_key = match &page.last_evaluated_key {
        Some(key) => Some(key.item()?),
        None => None,
    };
    let consumed = page.consumed_capacity.map(|consumed| {
        ConsumedCapacity::builder()
            .set_table_name(consumed.table_name)
            .set_capacity_units(consumed.capacity_units)
            .build()
    });
    Some(DecodedSeatPage { seats: seats?, last_key, consumed })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value as Json, json};

    use super::super::seats::seat;
    use super::*;

    fn seat_json(id: &str, more: Json) -> Json {
        let mut seat = json!({"seat_id": {"S": id}, "status": {"S": "AVAILABLE"}});
        let all = seat.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        seat
    }

    fn page(items: &[Json]) -> Vec<u8> {
        json!({"Items": items, "Count": items.len()}).to_string().into_bytes()
    }

    /// As the SDK reads it.
    fn item(json: &Json) -> Item {
        let value = |value: &Json| {
            let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
            match kind.as_str() {
                "S" => AttributeValue::S(value.as_str().unwrap().to_owned()),
                "N" => AttributeValue::N(value.as_str().unwrap().to_owned()),
                "NULL" => AttributeValue::Null(true),
                "BOOL" => AttributeValue::Bool(value.as_bool().unwrap()),
                other => panic!("{other}"),
            }
        };
        json.as_object().unwrap().iter().map(|(name, v)| (name.clone(), value(v))).collect()
    }

    #[test]
    fn a_page_is_decoded_as_its_items_are() {
        let by = json!({"reservation_id": {"S": "rsv_1"}, "status": {"S": "SOLD"}});
        let items = [
            seat_json("A-1", json!({})),
            seat_json("A-2", by),
            seat_json(
                "A-3",
                json!({"section": {"S": "열 \"\n 1"}, "row": {"S": "B"}, "number": {"S": "7"}}),
            ),
            seat_json("A-4", json!({"price_amount": {"N": "-5"}, "price_currency": {"S": "KRW"}})),
            seat_json("A-5", json!({"reservation_id": {"NULL": true}, "section": {"NULL": true}})),
            seat_json("A-6", json!({"status": {"S": "BLOCKED"}})),
            seat_json(
                "A-7",
                json!({
                    "status": {"S": "HOLD"}, "reservation_id": {"S": "r"}, "hold_expires_at": {"N": "17"}
                }),
            ),
        ];
        let expected: Vec<_> = items.iter().map(|one| seat(&item(one))).collect();
        assert!(expected.iter().all(|(seat, fault)| seat.is_some() && fault.is_none()));
        let expected: Vec<_> = expected.into_iter().filter_map(|(seat, _)| seat).collect();
        assert_eq!(decode_seat_page(&page(&items)).unwrap().seats, expected);
    }

    #[test]
    fn unusual_items_are_left_to_the_other_decoder() {
        for (more, what) in [
            (json!({"status": {"S": "LOST"}}), "an unknown status"),
            (json!({"status": {"S": "SOLD"}}), "no reservation"),
            (json!({"status": {"S": "HOLD"}, "reservation_id": {"S": "r"}}), "no expiry time"),
            (json!({"seat_id": {"S": ""}}), "no valid id"),
            (json!({"seat_id": {"N": "7"}}), "a number as the id"),
            (json!({"row": {"N": "12"}}), "a number as the row"),
            (json!({"row": {"BOOL": true}}), "another type"),
            (json!({"row": {"S": "A", "N": "12"}}), "two types"),
            (json!({"row": {"NULL": true, "S": "A"}}), "NULL and text"),
            (json!({"colour": "red"}), "an attribute that was not asked for, without a type"),
            (json!({"price_amount": {"N": "1"}}), "no currency"),
            (json!({"price_amount": {"N": "x"}, "price_currency": {"S": "KRW"}}), "no number"),
        ] {
            let items = [seat_json("A-1", json!({})), seat_json("A-2", more)];
            assert!(decode_seat_page(&page(&items)).is_none(), "{what}");
        }
        for bad in ["", "[]", "{}", "{\"Items\":[{}]}"] {
            assert!(decode_seat_page(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(decode_seat_page(b"{\"Items\":[],\"More\":\"\xff\"}").is_none());
    }

    #[test]
    fn position_and_capacity_are_read() {
        let body = json!({
            "Items": [], "Count": 0, "ScannedCount": 250,
            "LastEvaluatedKey": {"event_id": {"S": "evt#3"}, "seat_id": {"S": "A-9"}},
            "ConsumedCapacity": {"TableName": "seats", "CapacityUnits": 12.5},
        });
        let page = decode_seat_page(body.to_string().as_bytes()).unwrap();
        let key = item(&json!({"event_id": {"S": "evt#3"}, "seat_id": {"S": "A-9"}}));
        assert_eq!(page.last_key, Some(key));
        let consumed = page.consumed.unwrap();
        assert_eq!(consumed.table_name(), Some("seats"));
        assert_eq!(consumed.capacity_units(), Some(12.5));
        assert!(page.seats.is_empty());
    }
}
