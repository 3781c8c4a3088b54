//! Stripe items: stock of an event.

use aws_sdk_dynamodb::types::AttributeValue;

use super::expression::{ExpressionTemplate, UpdateTemplate};
use super::fields::{Item, maybe_number, read_number};
use super::json::JsonWriter;
use super::{
    CLOSED, EVENT_ID, MOVED, REMAINING, SEAT_KEYS, STRIPES, TOTAL_SEATS, UPDATED_AT, VERSION,
};
use crate::limits;
use inventory_core::ids::{EventId, stripe_key};
use inventory_core::transaction::{StripeUpdate, StripeView};

const NAMES: [(&str, &str); 6] = [
    ("#r", REMAINING),
    ("#t", TOTAL_SEATS),
    ("#m", MOVED),
    ("#c", CLOSED),
    ("#u", UPDATED_AT),
    ("#v", VERSION),
];

/// `ADD` starts from 0 if an item has no version yet.
const LESS: &str = "SET #r = #r - :n, #u = :u ADD #v :o";
const MORE: &str = "SET #r = #r + :n, #u = :u ADD #v :o";

/// The same, with units that are moved from or to another stripe.
const LESS_AND_MOVED: &str = "SET #r = #r - :n, #t = #t + :m, #u = :u ADD #v :o, #m :m";
const MORE_AND_MOVED: &str = "SET #r = #r + :n, #t = #t + :m, #u = :u ADD #v :o, #m :m";

/// The first part is true only for an existing item: a missing attribute compares false.
const ENOUGH_AND_OPEN: &str = "#r >= :n AND (attribute_not_exists(#c) OR #c = :f)";
const THERE_AND_OPEN: &str = "attribute_exists(#r) AND (attribute_not_exists(#c) OR #c = :f)";
const THERE: &str = "attribute_exists(#r)";

/// Updates of stripe items.
pub(super) struct StripeExpressions {
    take: UpdateTemplate,
    /// For updates that reserve no more units than they return.
    swap: UpdateTemplate,
    give: UpdateTemplate,
    /// For updates that move units, and by which the remaining units decrease, or do not.
    move_less: UpdateTemplate,
    move_more: UpdateTemplate,
}

impl StripeExpressions {
    pub(super) fn new(table: &str) -> Self {
        let template =
            |update, condition| ExpressionTemplate::new(update, condition, &NAMES).template(table);
        Self {
            take: template(LESS, ENOUGH_AND_OPEN),
            swap: template(MORE, THERE_AND_OPEN),
            give: template(MORE, THERE),
            move_less: template(LESS_AND_MOVED, ENOUGH_AND_OPEN),
            move_more: template(MORE_AND_MOVED, THERE_AND_OPEN),
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
        let StripeUpdate { stripe, take, moved, .. } = *stripe;
        let template = match (take, moved) {
            (0, 0) => &self.give,
            (_, 0) if change < 0 => &self.take,
            (_, 0) => &self.swap,
            _ if change < 0 => &self.move_less,
            _ => &self.move_more,
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
    let stripes = maybe_number(item, STRIPES)?;
    if stripes.is_some_and(|n| n == 0 || n > limits::STRIPES_MAX) {
        return Err(format!("{STRIPES} is not 1 to {}", limits::STRIPES_MAX));
    }
    let seat_keys = maybe_number(item, SEAT_KEYS)?.unwrap_or(0);
    if seat_keys > limits::SEAT_KEYS_MAX {
        return Err(format!("{SEAT_KEYS} is over {}", limits::SEAT_KEYS_MAX));
    }
    Ok(StripeView {
        capacity,
        remaining,
        moved: maybe_number(item, MOVED)?.unwrap_or(0),
        // An item written by another program may lack it before its first sale.
        version: maybe_number(item, VERSION)?.unwrap_or(0),
        stripes,
        seat_keys,
        closed: is_closed(item),
    })
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
    }

    #[test]
    fn optional_attributes_are_read() {
        let mut item = values([
            (REMAINING, number(0)),
            (TOTAL_SEATS, number(0)),
            (SEAT_KEYS, number(4)),
            (MOVED, number(-5)),
            (CLOSED, AttributeValue::Bool(true)),
        ]);
        let view = stripe_view(&item).unwrap();
        assert_eq!((view.seat_keys, view.closed, view.moved), (4, true, -5));
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
