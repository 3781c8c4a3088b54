//! Items of any program: those that this server writes, with some attributes changed.

use std::collections::HashMap;

use arbitrary::{Result, Unstructured};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use super::transactions;
use crate::codec::{self, Item};
use crate::limits;
use inventory_core::membership::ProcessId;
use inventory_core::seats::SeatState;
use inventory_core::transaction::ReservationState;

/// Names of all attributes that the codec reads.
const NAMES: [&str; 32] = [
    codec::EVENT_ID,
    codec::REMAINING,
    codec::VERSION,
    codec::TOTAL_SEATS,
    codec::UPDATED_AT,
    codec::MOVED,
    codec::CLOSED,
    codec::HELD_UNITS,
    codec::CONFIRMED_UNITS,
    codec::STRIPES,
    codec::SEAT_KEYS,
    codec::NAME,
    codec::VENUE,
    codec::RESERVATION_ID,
    codec::STATUS,
    codec::QTY,
    codec::DRAWS,
    codec::SEATS,
    codec::REQUEST_HASH,
    codec::ORDER_ID,
    codec::COUNTED_AS_HELD,
    codec::SEAT_PRICES,
    codec::PAYMENT_INTENT_ID,
    codec::CREATED_AT,
    codec::EXPIRES_AT,
    codec::SEAT_ID,
    codec::HOLD_EXPIRES_AT,
    codec::SECTION,
    codec::ROW,
    codec::NUMBER,
    codec::PRICE_AMOUNT,
    codec::PRICE_CURRENCY,
];

/// Attributes of an entry of the membership item.
const MEMBER_NAMES: [&str; 8] = [
    "beat",
    "interval_ms",
    "beat_at",
    "shards",
    "version",
    "address",
    "clock_ahead_ms",
    "clock_error_ms",
];

/// Values that are valid for some attribute, so that a mistake in one does not hide the others.
const TEXTS: [&str; 16] = [
    "evt_1",
    "A-1",
    "AVAILABLE",
    "HOLD",
    "SOLD",
    "BLOCKED",
    "HELD",
    "CONFIRMED",
    "EXPIRED",
    "RELEASED",
    "2024-01-01T12:00:00.25Z",
    "0:2,63:1000",
    "1KRW,-,2USD",
    "KRW",
    "00000000000000000000000000000001",
    "ord_00000000000000000000000000000001",
];
const NUMBERS: [&str; 9] =
    ["0", "1", "-1", "64", "65", "18446744073709551615", "-9223372036854775808", "1e3", "0.5"];

/// A transaction is written and read back; an item with changed attributes is read, or reported by the name of the attribute.
pub fn store_items(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(is_transaction) = input.arbitrary() else {
        return;
    };
    // An input that ends early gives a smaller item.
    let _ = match is_transaction {
        true => transactions::assert_written_as_read(&mut input),
        false => item(&mut input).map(|item| assert_read_within_limits(&item)),
    };
}

/// As the store writes it.
pub(super) fn json_of(item: &Item) -> Value {
    let attribute = |(name, value): (&String, &AttributeValue)| (name.clone(), json_value(value));
    Value::Object(item.iter().map(attribute).collect())
}

fn json_value(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(digits) => json!({"N": digits}),
        AttributeValue::Bool(truth) => json!({"BOOL": truth}),
        AttributeValue::L(values) => {
            json!({"L": values.iter().map(json_value).collect::<Vec<_>>()})
        }
        AttributeValue::M(map) => json!({"M": json_of(map)}),
        _ => json!({"NULL": true}),
    }
}

/// Attributes of a seat, which the decoder of pages reads.
const SEAT_NAMES: [&str; 9] = [
    codec::SEAT_ID,
    codec::STATUS,
    codec::RESERVATION_ID,
    codec::HOLD_EXPIRES_AT,
    codec::SECTION,
    codec::ROW,
    codec::NUMBER,
    codec::PRICE_AMOUNT,
    codec::PRICE_CURRENCY,
];

/// A seat; most values have the right type.
fn seat_item(input: &mut Unstructured<'_>) -> Result<Item> {
    let mut item = Item::new();
    item.insert(codec::SEAT_ID.to_owned(), AttributeValue::S("A-1".to_owned()));
    item.insert(codec::STATUS.to_owned(), AttributeValue::S("AVAILABLE".to_owned()));
    for _ in 0..input.int_in_range(0..=9)? {
        let name = *input.choose(&SEAT_NAMES)?;
        let is_number = [codec::HOLD_EXPIRES_AT, codec::PRICE_AMOUNT].contains(&name);
        let value = match (input.ratio(7, 8)?, is_number) {
            (true, true) => AttributeValue::N((*input.choose(&NUMBERS)?).to_owned()),
            (true, false) => AttributeValue::S((*input.choose(&TEXTS)?).to_owned()),
            (false, _) => value(input, 1)?,
        };
        item.insert(name.to_owned(), value);
    }
    Ok(item)
}

pub(super) fn item(input: &mut Unstructured<'_>) -> Result<Item> {
    if input.ratio(1, 3)? {
        return seat_item(input);
    }
    let mut item = match input.arbitrary()? {
        true => transactions::written_item(input)?,
        false => Item::new(),
    };
    for _ in 0..input.int_in_range(0..=24)? {
        let name = match input.int_in_range(0..=7)? {
            0 => ProcessId(input.arbitrary::<u8>()?.into()).to_string(),
            1 => (*input.choose(&MEMBER_NAMES)?).to_owned(),
            _ => (*input.choose(&NAMES)?).to_owned(),
        };
        match input.ratio(1, 16)? {
            true => drop(item.remove(&name)),
            false => drop(item.insert(name, value(input, 2)?)),
        }
    }
    Ok(item)
}

/// A value of any type; lists and maps are nested at most `depth` times.
pub(super) fn value(input: &mut Unstructured<'_>, depth: u32) -> Result<AttributeValue> {
    Ok(match input.int_in_range(0..=9)? {
        0..=2 => AttributeValue::S((*input.choose(&TEXTS)?).to_owned()),
        3 => AttributeValue::S(input.arbitrary()?),
        4 | 5 => AttributeValue::N((*input.choose(&NUMBERS)?).to_owned()),
        6 => AttributeValue::N(input.arbitrary::<i32>()?.to_string()),
        7 => AttributeValue::Bool(input.arbitrary()?),
        8 if depth > 0 => {
            let count = input.int_in_range(0..=4)?;
            let values = (0..count).map(|_| value(input, depth - 1));
            AttributeValue::L(values.collect::<Result<_>>()?)
        }
        9 if depth > 0 => {
            let mut map = HashMap::new();
            for _ in 0..input.int_in_range(0..=8)? {
                let name = (*input.choose(&MEMBER_NAMES)?).to_owned();
                map.insert(name, value(input, depth - 1)?);
            }
            AttributeValue::M(map)
        }
        _ => AttributeValue::Null(input.arbitrary()?),
    })
}

/// What each reader of the codec accepts is within the limits; what it rejects, it rejects by the name of an attribute.
pub(super) fn assert_read_within_limits(item: &Item) {
    match codec::stripe_view(item) {
        Ok(view) => {
            assert!(view.remaining <= view.capacity, "{view:?}");
            assert!(
                view.stripes.is_none_or(|n| (1..=limits::STRIPES_MAX).contains(&n)),
                "{view:?}"
            );
            assert!(view.seat_keys <= limits::SEAT_KEYS_MAX, "{view:?}");
        }
        Err(why) => assert_names_an_attribute(&why),
    }
    match codec::event_about(item) {
        Ok(about) => {
            assert!((1..=limits::STRIPES_MAX).contains(&about.stripes), "{about:?}");
            assert!(about.seat_keys <= limits::SEAT_KEYS_MAX, "{about:?}");
        }
        Err(why) => assert_names_an_attribute(&why),
    }
    match codec::record(item) {
        Ok(record) => {
            let view = &record.view;
            assert_eq!((record.qty, &record.draws), (view.qty, &view.draws));
            assert!(view.state != ReservationState::Confirmed || view.order.is_some(), "{view:?}");
            assert!(view.state != ReservationState::Held || view.expires_at.is_some(), "{view:?}");
            if let Some(seats) = &view.seats {
                let prices = seats.prices.as_ref().map(|prices| prices.iter().count());
                assert!(prices.is_none_or(|count| count == seats.len()), "{view:?}");
            }
        }
        Err(why) => assert_names_an_attribute(&why),
    }
    match codec::seat(item) {
        (Some(seat), fault) => {
            assert!(fault.is_none() || seat.state == SeatState::Blocked, "{seat:?} is for sale");
            fault.iter().for_each(|why| assert_names_an_attribute(why));
        }
        (None, fault) => assert_names_an_attribute(&fault.unwrap_or_default()),
    }
    codec::confirmed_units(item).err().iter().for_each(|why| assert_names_an_attribute(why));
    let members = codec::members(Some(item));
    let count = members.entries.len() + members.unreadable.len();
    assert!(count <= limits::MEMBERS_READ_MAX, "{count} members");
    assert!(members.entries.is_sorted_by(|a, b| a.id < b.id), "{members:?}");
    assert!(members.entries.iter().all(|one| one.announcement.shards > 0), "{members:?}");
}

fn assert_names_an_attribute(why: &str) {
    assert!(NAMES.iter().any(|name| why.starts_with(name)), "names no attribute: {why:?}");
}
