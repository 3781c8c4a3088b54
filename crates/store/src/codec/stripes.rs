//! Stripe items: stock of an event.

use aws_sdk_dynamodb::types::AttributeValue;

use super::expression::{ExpressionTemplate, UpdateTemplate};
use super::fields::{Item, maybe_number, read_number};
use super::json::JsonWriter;
use super::{
    CLOSED, CONFIRMED_UNITS, EVENT_ID, HELD_UNITS, MOVED, REMAINING, SEAT_KEYS, STRIPES,
    TOTAL_SEATS, UPDATED_AT, VERSION,
};
use crate::limits;
use inventory_core::ids::{EventId, counter_key, stripe_key};
use inventory_core::transaction::{CounterUpdate, StripeUpdate, StripeView};

const NAMES: [(&str, &str); 8] = [
    ("#r", REMAINING),
    ("#t", TOTAL_SEATS),
    ("#m", MOVED),
    ("#c", CLOSED),
    ("#u", UPDATED_AT),
    ("#v", VERSION),
    ("#h", HELD_UNITS),
    ("#n", CONFIRMED_UNITS),
];

/// `ADD` starts from 0 if an item has no version, or was written before held units were counted.
const LESS: &str = "SET #r = #r - :n, #u = :u ADD #v :o";
const MORE: &str = "SET #r = #r + :n, #u = :u ADD #v :o";

/// The same, with units that are moved from or to another stripe.
const LESS_AND_MOVED: &str = "SET #r = #r - :n, #t = #t + :m, #u = :u ADD #v :o, #m :m";
const MORE_AND_MOVED: &str = "SET #r = #r + :n, #t = #t + :m, #u = :u ADD #v :o, #m :m";

/// Appended if the held units of the stripe change.
const HELD: &str = ", #h :h";

/// The item of a counter comes into being by its first update.
const CONFIRM: &str = "SET #u = :u ADD #n :n";

/// The first part is true only for an existing item: a missing attribute compares false.
const ENOUGH_AND_OPEN: &str = "#r >= :n AND (attribute_not_exists(#c) OR #c = :f)";
const THERE_AND_OPEN: &str = "attribute_exists(#r) AND (attribute_not_exists(#c) OR #c = :f)";
const THERE: &str = "attribute_exists(#r)";

/// Updates of stripe items and confirmation counters.
pub(super) struct StripeExpressions {
    take: StripeTemplates,
    /// For updates that reserve no more units than they return.
    swap: StripeTemplates,
    give: StripeTemplates,
    /// For updates that move units, and by which the remaining units decrease, or do not.
    move_less: StripeTemplates,
    move_more: StripeTemplates,
    confirm: UpdateTemplate,
}

/// An update without a change of the held units, and with one.
struct StripeTemplates {
    plain: UpdateTemplate,
    held: UpdateTemplate,
}

impl StripeTemplates {
    fn new(table: &str, update: &str, condition: &str) -> Self {
        let template =
            |update: String| ExpressionTemplate::new(update, condition, &NAMES).template(table);
        Self { plain: template(update.to_owned()), held: template(format!("{update}{HELD}")) }
    }
}

impl StripeExpressions {
    pub(super) fn new(table: &str) -> Self {
        Self {
            take: StripeTemplates::new(table, LESS, ENOUGH_AND_OPEN),
            swap: StripeTemplates::new(table, MORE, THERE_AND_OPEN),
            give: StripeTemplates::new(table, MORE, THERE),
            move_less: StripeTemplates::new(table, LESS_AND_MOVED, ENOUGH_AND_OPEN),
            move_more: StripeTemplates::new(table, MORE_AND_MOVED, THERE_AND_OPEN),
            confirm: ExpressionTemplate::new(CONFIRM, "", &NAMES).template(table),
        }
    }

    pub(super) fn write(
        &self,
        json: &mut JsonWriter,
        event: &EventId,
        stripe: &StripeUpdate,
        at: &str,
    ) {
        let change = stripe.change();
        let StripeUpdate { stripe, take, moved, held, .. } = *stripe;
        let templates = match (take, moved) {
            (0, 0) => &self.give,
            (_, 0) if change < 0 => &self.take,
            (_, 0) => &self.swap,
            _ if change < 0 => &self.move_less,
            _ => &self.move_more,
        };
        let template = match held {
            0 => &templates.plain,
            _ => &templates.held,
        };
        template.write(
            json,
            |key| key.text(EVENT_ID, &stripe_key(event, stripe)),
            |of| {
                of.number(":n", change.unsigned_abs());
                of.number(":o", 1_u8);
                of.text(":u", at);
                if moved != 0 {
                    of.number(":m", moved);
                }
                if take > 0 || moved != 0 {
                    of.truth(":f", false);
                }
                if held != 0 {
                    of.number(":h", held);
                }
            },
        );
    }

    pub(super) fn write_counter(
        &self,
        json: &mut JsonWriter,
        event: &EventId,
        counter: &CounterUpdate,
        at: &str,
    ) {
        let CounterUpdate { counter, units } = *counter;
        self.confirm.write(
            json,
            |key| key.text(EVENT_ID, &counter_key(event, counter)),
            |of| {
                of.number(":n", units);
                of.text(":u", at);
            },
        );
    }
}

pub(crate) fn stripe_view(item: &Item) -> Result<StripeView, String> {
    let capacity = read_number(item, TOTAL_SEATS)?;
    let remaining: u64 = read_number(item, REMAINING)?;
    if remaining > capacity {
        return Err(format!("{REMAINING} {remaining} is over {TOTAL_SEATS} {capacity}"));
    }
    let (stripes, seat_keys) = layout(item)?;
    Ok(StripeView {
        capacity,
        remaining,
        moved: maybe_number(item, MOVED)?.unwrap_or(0),
        // An item written by another program may lack it before its first sale.
        version: maybe_number(item, VERSION)?.unwrap_or(0),
        stripes,
        seat_keys,
        closed: is_closed(item),
        held: maybe_number(item, HELD_UNITS)?.unwrap_or(0),
        confirmed_holds: None,
    })
}

/// The number of stripes, which only stripe 0 has, and that of seat keys, 0 for a quantity event.
pub(super) fn layout(item: &Item) -> Result<(Option<u16>, u16), String> {
    let stripes = maybe_number(item, STRIPES)?;
    if stripes.is_some_and(|n| n == 0 || n > limits::STRIPES_MAX) {
        return Err(format!("{STRIPES} is not 1 to {}", limits::STRIPES_MAX));
    }
    let seat_keys = maybe_number(item, SEAT_KEYS)?.unwrap_or(0);
    if seat_keys > limits::SEAT_KEYS_MAX {
        return Err(format!("{SEAT_KEYS} is over {}", limits::SEAT_KEYS_MAX));
    }
    Ok((stripes, seat_keys))
}

/// The units of a confirmation counter; negative only after a repair.
pub(crate) fn confirmed_units(item: &Item) -> Result<i64, String> {
    Ok(maybe_number(item, CONFIRMED_UNITS)?.unwrap_or(0))
}

/// Whether the event is closed: the attribute has any value other than false.
pub(crate) fn is_closed(item: &Item) -> bool {
    !matches!(item.get(CLOSED), None | Some(AttributeValue::Bool(false)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::fields::{number, text, values};
    use super::*;

    #[test]
    fn a_seed_item_without_stripes_reads() {
        let seed = values([
            (EVENT_ID, text("evt_2025_1001")),
            (REMAINING, number(8_500)),
            (VERSION, number(42)),
            (TOTAL_SEATS, number(10_000)),
        ]);
        let view = stripe_view(&seed).unwrap();
        assert_eq!((view.remaining, view.capacity), (8_500, 10_000));
        assert_eq!((view.version, view.stripes), (42, None));
        assert_eq!((view.seat_keys, view.closed, view.moved), (0, false, 0));
        assert_eq!((view.held, view.confirmed_holds), (0, None));
    }

    #[test]
    fn optional_attributes_are_read() {
        let mut item = values([
            (REMAINING, number(0)),
            (TOTAL_SEATS, number(0)),
            (SEAT_KEYS, number(4)),
            (MOVED, number(-5)),
            (CLOSED, AttributeValue::Bool(true)),
            (HELD_UNITS, number(7)),
        ]);
        let view = stripe_view(&item).unwrap();
        assert_eq!((view.seat_keys, view.closed, view.moved), (4, true, -5));
        assert_eq!(view.held, 7);
        item.insert(CLOSED.to_owned(), AttributeValue::Bool(false));
        assert!(!stripe_view(&item).unwrap().closed);
        // The condition of a reservation fails on any value other than false.
        item.insert(CLOSED.to_owned(), text("no"));
        assert!(stripe_view(&item).unwrap().closed);
        item.insert(SEAT_KEYS.to_owned(), number(limits::SEAT_KEYS_MAX + 1));
        assert!(stripe_view(&item).unwrap_err().contains(SEAT_KEYS));
    }

    #[test]
    fn impossible_stock_is_refused_by_name() {
        let negative = values([(REMAINING, number(-1)), (TOTAL_SEATS, number(5))]);
        let error = stripe_view(&negative).unwrap_err();
        assert!(error.contains("remaining is -1"), "{error}");
        let over = values([(REMAINING, number(6)), (TOTAL_SEATS, number(5))]);
        assert!(stripe_view(&over).unwrap_err().contains("over"));
        let stripes =
            values([(REMAINING, number(1)), (TOTAL_SEATS, number(5)), (STRIPES, number(65))]);
        assert!(stripe_view(&stripes).unwrap_err().contains("stripes"));
        assert!(stripe_view(&Item::new()).unwrap_err().contains("missing"));
    }
}
