//! Building requests. Expressions are short constants and their names are made once per shard: a
//! transaction of a hundred actions copies them a hundred times.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_sdk_dynamodb::types::{
    AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};

use super::{
    CONFIRMED, CREATED_AT, DRAWS, EVENT_ID, ORDER_ID, PAYMENT_INTENT_ID, PURGE_AT, QTY, RELEASED,
    REMAINING, REQUEST_HASH, RESERVATION_ID, STATUS, STRIPES, TOTAL_SEATS, UPDATED_AT, VERSION,
};
use crate::domain::ids::{EventId, stripe_key};
use crate::domain::time::UnixMillis;
use crate::domain::transaction::{Draw, RecordWrite, ReservationState, StripeUpdate, Transaction};
use crate::limits;

type Item = HashMap<String, AttributeValue>;

/// `ADD` counts up from nothing where an item has no version yet.
const STRIPE_UPDATE: &str = "SET #r = #r - :t, #u = :u ADD #v :o";

/// Can only be true of an item that exists: a missing attribute compares false.
const STRIPE_CONDITION: &str = "#r >= :t";

const NEW_ITEM_CONDITION: &str = "attribute_not_exists(#k)";

/// What every request of one shard's store shares.
pub(in crate::store) struct Encoder {
    inventory: String,
    idempotency: String,
    stripe_names: HashMap<String, String>,
    record_names: HashMap<String, String>,
}

impl Encoder {
    pub(in crate::store) fn new(inventory: &str, idempotency: &str) -> Self {
        Self {
            inventory: inventory.to_owned(),
            idempotency: idempotency.to_owned(),
            stripe_names: names(&[("#r", REMAINING), ("#u", UPDATED_AT), ("#v", VERSION)]),
            record_names: names(&[("#k", RESERVATION_ID)]),
        }
    }

    /// One action per stripe, then one per record, in order.
    pub(in crate::store) fn actions(
        &self,
        transaction: &Transaction,
    ) -> Result<Vec<TransactWriteItem>, BuildError> {
        let at = timestamp(transaction.at);
        let purge_at = purge_at(transaction.at);
        let mut actions = Vec::with_capacity(transaction.action_count());
        for stripe in &transaction.stripes {
            let update = self.stripe(&transaction.event, stripe, &at)?;
            actions.push(TransactWriteItem::builder().update(update).build());
        }
        for record in &transaction.records {
            let put = Put::builder()
                .table_name(&self.idempotency)
                .set_item(Some(item(&transaction.event, record, &at, purge_at)))
                .condition_expression(NEW_ITEM_CONDITION)
                .set_expression_attribute_names(Some(self.record_names.clone()))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
                .build()?;
            actions.push(TransactWriteItem::builder().put(put).build());
        }
        Ok(actions)
    }

    fn stripe(
        &self,
        event: &EventId,
        stripe: &StripeUpdate,
        at: &str,
    ) -> Result<Update, BuildError> {
        Update::builder()
            .table_name(&self.inventory)
            .key(EVENT_ID, text(stripe_key(event, stripe.stripe)))
            .update_expression(STRIPE_UPDATE)
            .condition_expression(STRIPE_CONDITION)
            .set_expression_attribute_names(Some(self.stripe_names.clone()))
            .expression_attribute_values(":t", number(stripe.take))
            .expression_attribute_values(":o", number(1_u8))
            .expression_attribute_values(":u", text(at))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
    }
}

/// The put of one stripe item of a new event.
pub(in crate::store) fn event_stripe(
    table: &str,
    event: &EventId,
    index: u16,
    capacity: u64,
    stripes: u16,
    at: UnixMillis,
) -> Result<TransactWriteItem, BuildError> {
    let mut item = Item::with_capacity(6);
    item.insert(EVENT_ID.to_owned(), text(stripe_key(event, index)));
    item.insert(REMAINING.to_owned(), number(capacity));
    item.insert(TOTAL_SEATS.to_owned(), number(capacity));
    item.insert(VERSION.to_owned(), number(0_u8));
    item.insert(UPDATED_AT.to_owned(), text(timestamp(at)));
    if index == 0 {
        item.insert(STRIPES.to_owned(), number(stripes));
    }
    let put = Put::builder()
        .table_name(table)
        .set_item(Some(item))
        .condition_expression(NEW_ITEM_CONDITION)
        .expression_attribute_names("#k", EVENT_ID)
        .build()?;
    Ok(TransactWriteItem::builder().put(put).build())
}

fn item(event: &EventId, record: &RecordWrite, at: &str, purge_at: u64) -> Item {
    let mut item = Item::with_capacity(11);
    let mut set = |name: &str, value: AttributeValue| {
        item.insert(name.to_owned(), value);
    };
    set(RESERVATION_ID, text(record.reservation.as_str()));
    set(EVENT_ID, text(event.as_str()));
    set(QTY, number(record.qty));
    set(REQUEST_HASH, text(hex(&record.fingerprint.0)));
    set(CREATED_AT, text(at));
    set(UPDATED_AT, text(at));
    match record.to {
        ReservationState::Confirmed => set(STATUS, text(CONFIRMED)),
        _ => {
            set(STATUS, text(RELEASED));
            set(PURGE_AT, number(purge_at));
        }
    }
    if !record.draws.is_empty() {
        set(DRAWS, text(draws(&record.draws)));
    }
    if let Some(order) = &record.order {
        set(ORDER_ID, text(order.to_string()));
    }
    if !record.payment_intent.is_empty() {
        set(PAYMENT_INTENT_ID, text(record.payment_intent.as_str()));
    }
    item
}

/// `stripe:units`, separated by commas.
pub(super) fn draws(draws: &[Draw]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(draws.len() * 6);
    for draw in draws {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{}:{}", draw.stripe, draw.units);
    }
    text
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn names(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(alias, name): &(&str, &str)| ((*alias).to_owned(), (*name).to_owned());
    pairs.iter().map(owned).collect()
}

/// Epoch seconds.
fn purge_at(at: UnixMillis) -> u64 {
    (at.0 / 1_000).saturating_add(limits::TOMBSTONE_RETENTION.as_secs())
}

/// ISO 8601 in UTC, with milliseconds when there are any: `2024-01-01T12:00:00.25Z`.
pub(super) fn timestamp(at: UnixMillis) -> String {
    let at = DateTime::from_millis(i64::try_from(at.0).unwrap_or(i64::MAX));
    at.fmt(DateTimeFormat::DateTime).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_iso_8601() {
        assert_eq!(
            timestamp(UnixMillis(1_704_110_400_000)),
            "2024-01-01T12:00:00Z"
        );
        assert_eq!(
            timestamp(UnixMillis(1_704_110_400_250)),
            "2024-01-01T12:00:00.25Z"
        );
    }

    #[test]
    fn a_fingerprint_keeps_its_leading_zeros() {
        let mut bytes = [0; 16];
        bytes[15] = 0xab;
        assert_eq!(hex(&bytes), "000000000000000000000000000000ab");
    }
}
