//! Items in the format of the server: docs/adr/0004-tables.md, docs/adr/0025-held-units.md.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

pub(super) const STRIPE_ATTRIBUTES: &[&str] = &[
    "event_id",
    "total_seats",
    "remaining",
    "version",
    "stripes",
    "seat_keys",
    "held_units",
    "confirmed_units",
];
pub(super) const RECORD_ATTRIBUTES: &[&str] = &[
    "reservation_id",
    "event_id",
    "status",
    "qty",
    "draws",
    "seats",
    "order_id",
    "counted_as_held",
];
pub(super) const SEAT_ATTRIBUTES: &[&str] =
    &["event_id", "seat_id", "status", "reservation_id", "order_id"];

/// One stripe, or one confirmation counter, of an event of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeItem {
    /// Index of the event in the run.
    pub event: usize,
    pub index: u32,
    /// A confirmation counter has `held` alone.
    pub is_counter: bool,
    /// What the item adds to the held units of the event: negative in a counter.
    pub held: i64,
    pub total: i64,
    pub remaining: i64,
    pub version: u64,
    /// Number of stripes; only in stripe 0.
    pub stripes: u32,
    pub seat_keys: u32,
}

/// Record of a reservation; `""` and 0 for missing attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordItem<'a> {
    pub reservation: Cow<'a, str>,
    pub event: Cow<'a, str>,
    pub status: Cow<'a, str>,
    pub qty: u32,
    pub draws: Cow<'a, str>,
    pub seats: Vec<Cow<'a, str>>,
    pub order: Cow<'a, str>,
    /// The stripes count the units of the hold.
    pub counted: bool,
}

/// Item of a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatItem<'a> {
    /// The event, without the suffix of the partition key.
    pub event: Cow<'a, str>,
    pub seat: Cow<'a, str>,
    pub status: Cow<'a, str>,
    pub reservation: Cow<'a, str>,
    pub order: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct ScanPage<T> {
    #[serde(rename = "Items")]
    items: Vec<T>,
    #[serde(rename = "LastEvaluatedKey")]
    next: Option<Value>,
}

/// Text of an attribute value: `{"S": "…"}` or `{"N": "…"}`.
#[derive(Deserialize, Default)]
struct AttributeText<'a> {
    #[serde(borrow, alias = "N", rename = "S")]
    text: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct AttributeFlag {
    #[serde(rename = "BOOL")]
    is_set: bool,
}

#[derive(Deserialize, Default)]
struct AttributeList<'a> {
    #[serde(borrow, rename = "L")]
    list: Vec<AttributeText<'a>>,
}

#[derive(Deserialize)]
struct ItemAttributes<'a> {
    #[serde(borrow, default)]
    event_id: AttributeText<'a>,
    #[serde(borrow, default)]
    reservation_id: AttributeText<'a>,
    #[serde(borrow, default)]
    seat_id: AttributeText<'a>,
    #[serde(borrow, default)]
    status: AttributeText<'a>,
    #[serde(borrow, default)]
    qty: AttributeText<'a>,
    #[serde(borrow, default)]
    draws: AttributeText<'a>,
    #[serde(borrow, default)]
    seats: AttributeList<'a>,
    #[serde(borrow, default)]
    order_id: AttributeText<'a>,
    #[serde(borrow, default)]
    total_seats: AttributeText<'a>,
    #[serde(borrow, default)]
    remaining: AttributeText<'a>,
    #[serde(borrow, default)]
    version: AttributeText<'a>,
    #[serde(borrow, default)]
    stripes: AttributeText<'a>,
    #[serde(borrow, default)]
    seat_keys: AttributeText<'a>,
    #[serde(borrow, default)]
    held_units: AttributeText<'a>,
    #[serde(borrow, default)]
    confirmed_units: AttributeText<'a>,
    #[serde(default)]
    counted_as_held: AttributeFlag,
}

fn page(body: &[u8]) -> Result<ScanPage<ItemAttributes<'_>>, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn number<T: std::str::FromStr>(
    text: &AttributeText<'_>,
    of: &str,
    otherwise: T,
) -> Result<T, String> {
    match text.text.is_empty() {
        true => Ok(otherwise),
        false => text.text.parse().map_err(|_| format!("{of} is {:?}", text.text)),
    }
}

/// Splits `event#number`; the number is 0 without a `#`. True for a confirmation counter, `event#c3`.
fn split_key(key: &str) -> (&str, u32, bool) {
    let Some((event, index)) = key.split_once('#') else {
        return (key, 0, false);
    };
    let of_counter = index.strip_prefix('c');
    let number = of_counter.unwrap_or(index).parse().unwrap_or(u32::MAX);
    (event, number, of_counter.is_some())
}

/// Appends the stripes of `events` to `to`.
pub(super) fn stripes(
    body: &[u8],
    events: &[String],
    to: &mut Vec<StripeItem>,
) -> Result<Option<Value>, String> {
    let page = page(body)?;
    for item in &page.items {
        let (event, index, is_counter) = split_key(&item.event_id.text);
        let Some(event) = events.iter().position(|known| known == event) else {
            continue;
        };
        to.push(StripeItem {
            event,
            index,
            is_counter,
            held: number(&item.held_units, "held_units", 0_i64)?
                - number(&item.confirmed_units, "confirmed_units", 0_i64)?,
            total: number(&item.total_seats, "total_seats", 0)?,
            remaining: number(&item.remaining, "remaining", 0)?,
            version: number(&item.version, "version", 0)?,
            stripes: number(&item.stripes, "stripes", 1)?,
            seat_keys: number(&item.seat_keys, "seat_keys", 0)?,
        });
    }
    Ok(page.next)
}

pub(super) fn records(
    body: &[u8],
    mut on_record: impl FnMut(RecordItem<'_>),
) -> Result<Option<Value>, String> {
    let page = page(body)?;
    for item in page.items {
        on_record(RecordItem {
            reservation: item.reservation_id.text,
            event: item.event_id.text,
            status: item.status.text,
            qty: number(&item.qty, "qty", 0)?,
            draws: item.draws.text,
            seats: item.seats.list.into_iter().map(|seat| seat.text).collect(),
            order: item.order_id.text,
            counted: item.counted_as_held.is_set,
        });
    }
    Ok(page.next)
}

pub(super) fn seats(
    body: &[u8],
    mut on_seat: impl FnMut(SeatItem<'_>),
) -> Result<Option<Value>, String> {
    let page = page(body)?;
    for item in page.items {
        let (event, ..) = split_key(&item.event_id.text);
        on_seat(SeatItem {
            event: Cow::Borrowed(event),
            seat: item.seat_id.text,
            status: item.status.text,
            reservation: item.reservation_id.text,
            order: item.order_id.text,
        });
    }
    Ok(page.next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_decoded_from_the_format_of_the_server() {
        let body = br##"{"Count":2,"Items":[
            {"reservation_id":{"S":"r-1"},"event_id":{"S":"evt"},"status":{"S":"CONFIRMED"},
             "qty":{"N":"3"},"draws":{"S":"0:2,5:1"},"order_id":{"S":"ord_1"},"other":{"M":{}}},
            {"reservation_id":{"S":"r\u002d2"},"event_id":{"S":"evt"},"status":{"S":"HELD"},
             "qty":{"N":"1"},"seats":{"L":[{"S":"A-1"}]},"counted_as_held":{"BOOL":true}}],
            "LastEvaluatedKey":{"reservation_id":{"S":"r-2"}}}"##;
        let mut seen = Vec::new();
        let next = records(body, |record| {
            seen.push((
                record.reservation.to_string(),
                record.qty,
                record.draws.to_string(),
                record.seats.len(),
                record.counted,
            ));
        });
        assert_eq!(next.unwrap().unwrap()["reservation_id"]["S"], "r-2");
        let expected = [
            ("r-1".to_owned(), 3, "0:2,5:1".to_owned(), 0, false),
            ("r-2".to_owned(), 1, String::new(), 1, true),
        ];
        assert_eq!(seen, expected);
        let body = br##"{"Items":[
            {"event_id":{"S":"evt#7"},"total_seats":{"N":"10"},"remaining":{"N":"-1"},"version":{"N":"4"},
             "held_units":{"N":"3"}},
            {"event_id":{"S":"evt#c2"},"confirmed_units":{"N":"2"}},
            {"event_id":{"S":"other"},"total_seats":{"N":"1"},"remaining":{"N":"1"}}]}"##;
        let mut all = Vec::new();
        assert!(stripes(body, &["evt".to_owned()], &mut all).unwrap().is_none());
        let expected = StripeItem {
            event: 0,
            index: 7,
            is_counter: false,
            held: 3,
            total: 10,
            remaining: -1,
            version: 4,
            stripes: 1,
            seat_keys: 0,
        };
        let counter = StripeItem {
            index: 2,
            is_counter: true,
            held: -2,
            total: 0,
            remaining: 0,
            version: 0,
            ..expected.clone()
        };
        assert_eq!(all, [expected, counter]);
        assert!(stripes(b"{}", &[], &mut all).is_err());
        assert!(records(br#"{"Items":[{"qty":{"N":"-3"}}]}"#, |_| {}).unwrap_err().contains("qty"));
    }
}
