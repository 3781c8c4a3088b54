//! Event attributes of stripe 0, and administrative changes of stripes.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};

use super::expression::{ConditionalUpdate, ExpressionTemplate};
use super::fields::{Item, maybe_text, number, read_parsed, text, timestamp, values};
use super::stripes::{is_closed, layout};
use super::{
    CLOSED, CREATED_AT, EVENT_ID, NAME, REMAINING, SEAT_KEYS, STRIPES, TOTAL_SEATS, UPDATED_AT,
    VENUE, VERSION,
};
use crate::events::{EventAbout, NewEvent};
use inventory_core::ids::{EventId, stripe_key};
use inventory_core::time::UnixMillis;

const NAMES: [(&str, &str); 6] = [
    ("#k", EVENT_ID),
    ("#t", TOTAL_SEATS),
    ("#r", REMAINING),
    ("#c", CLOSED),
    ("#u", UPDATED_AT),
    ("#v", VERSION),
];

/// The put of one stripe item of a new event.
pub(crate) fn event_stripe(
    table: &str,
    event: &NewEvent,
    index: u16,
    capacity: u64,
    at: UnixMillis,
) -> Result<TransactWriteItem, BuildError> {
    let at = timestamp(at);
    let mut item = values([
        (EVENT_ID, text(stripe_key(&event.event, index))),
        (REMAINING, number(capacity)),
        (TOTAL_SEATS, number(capacity)),
        (VERSION, number(0_u8)),
        (UPDATED_AT, text(&at)),
    ]);
    let mut set = |name: &str, value: AttributeValue| {
        item.insert(name.to_owned(), value);
    };
    if index == 0 {
        set(STRIPES, number(event.stripes));
        set(CREATED_AT, text(&at));
        if event.seat_keys > 0 {
            set(SEAT_KEYS, number(event.seat_keys));
        }
        for (name, value) in [(NAME, &event.name), (VENUE, &event.venue)] {
            if !value.is_empty() {
                set(name, text(value));
            }
        }
    }
    let put = Put::builder()
        .table_name(table)
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(#k)")
        .expression_attribute_names("#k", EVENT_ID)
        .build()?;
    Ok(TransactWriteItem::builder().put(put).build())
}

/// Reads stripe 0's item.
pub(crate) fn event_about(item: &Item) -> Result<EventAbout, String> {
    // Display names: a value that is not text is ignored.
    let label = |name| maybe_text(item, name).ok().flatten().unwrap_or_default();
    let (stripes, seat_keys) = layout(item)?;
    Ok(EventAbout {
        event: read_parsed(item, EVENT_ID)?,
        stripes: stripes.unwrap_or(1),
        seat_keys,
        closed: is_closed(item),
        name: label(NAME).to_owned(),
        venue: label(VENUE).to_owned(),
    })
}

/// Changes a stripe's capacity and its remaining units by the same amount, if the capacity is still `from` and no
/// sold unit is removed.
pub(crate) fn capacity_change(
    event: &EventId,
    index: u16,
    (from, to): (u64, u64),
    at: UnixMillis,
) -> ConditionalUpdate {
    let (sign, condition) = match to >= from {
        true => ("+", "#t = :f"),
        false => ("-", "#t = :f AND #r >= :n"),
    };
    let update = format!("SET #t = :t, #r = #r {sign} :n, #u = :u ADD #v :o");
    ConditionalUpdate {
        key: values([(EVENT_ID, text(stripe_key(event, index)))]),
        shape: ExpressionTemplate::new(update, condition, &NAMES),
        values: values([
            (":f", number(from)),
            (":t", number(to)),
            (":n", number(from.abs_diff(to))),
            (":o", number(1_u8)),
            (":u", text(timestamp(at))),
        ]),
    }
}

/// Closes the event on one stripe.
pub(crate) fn closing(event: &EventId, index: u16, at: UnixMillis) -> ConditionalUpdate {
    let update = "SET #c = :c, #u = :u";
    ConditionalUpdate {
        key: values([(EVENT_ID, text(stripe_key(event, index)))]),
        shape: ExpressionTemplate::new(update, "attribute_exists(#k)", &NAMES),
        values: values([(":c", AttributeValue::Bool(true)), (":u", text(timestamp(at)))]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A close of such an event would close one of its stripes, or write to thousands that do not exist.
    #[test]
    fn an_event_with_an_impossible_layout_is_refused_by_name() {
        let item = |stripes: u32, keys: u32| {
            values([(EVENT_ID, text("evt")), (STRIPES, number(stripes)), (SEAT_KEYS, number(keys))])
        };
        let about = event_about(&item(64, 64)).unwrap();
        assert_eq!((about.stripes, about.seat_keys), (64, 64));
        for (stripes, keys, name) in [(0, 0, STRIPES), (65, 0, STRIPES), (1, 65, SEAT_KEYS)] {
            let error = event_about(&item(stripes, keys)).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
