//! Seat items. A sale changes only the holder and the hold expiry; section, row, number and price stay as imported.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};

use super::expression::{ConditionalUpdate, ExpressionTemplate, UpdateTemplate};
use super::fields::{
    Item, maybe_number, maybe_text, names, number, read_parsed, read_text, text, timestamp, values,
};
use super::json::JsonWriter;
use super::records::order;
use super::{
    AVAILABLE, BLOCKED, EVENT_ID, HOLD, HOLD_EXPIRES_AT, NUMBER, ORDER_ID, PRICE_AMOUNT,
    PRICE_CURRENCY, RESERVATION_ID, ROW, SEAT_ID, SECTION, SOLD, STATUS, UPDATED_AT,
};
use inventory_core::ids::{EventId, SeatId, seat_key};
use inventory_core::rules::{StockChange, stock_change};
use inventory_core::seats::{Price, SeatFacts, SeatItem, SeatState};
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{RecordWrite, ReservationState, Transaction};

const NAMES: [(&str, &str); 5] = [
    ("#s", STATUS),
    ("#r", RESERVATION_ID),
    ("#x", HOLD_EXPIRES_AT),
    ("#o", ORDER_ID),
    ("#u", UPDATED_AT),
];

/// Condition of an available seat. A missing attribute compares false, so a sale never creates a seat.
const FREE: &str = "#s = :f";
/// Condition of a seat that this reservation holds.
const OURS: &str = "#s = :f AND #r = :r";

/// Updates of seat items.
pub(super) struct SeatExpressions {
    hold: UpdateTemplate,
    sell: UpdateTemplate,
    /// For seats that are held already.
    keep: UpdateTemplate,
    give: UpdateTemplate,
}

impl SeatExpressions {
    pub(super) fn new(table: &str) -> Self {
        let template =
            |update, condition| ExpressionTemplate::new(update, condition, &NAMES).template(table);
        Self {
            hold: template("SET #s = :s, #u = :u, #r = :r, #x = :x", FREE),
            sell: template("SET #s = :s, #u = :u, #r = :r, #o = :o REMOVE #x", FREE),
            keep: template("SET #s = :s, #u = :u, #o = :o REMOVE #x", OURS),
            give: template("SET #s = :s, #u = :u REMOVE #r, #x, #o", OURS),
        }
    }

    /// The change of every seat of `record`, and its state before and after.
    fn step(&self, record: &RecordWrite) -> (&UpdateTemplate, &'static str, &'static str) {
        let is_sale = record.to == ReservationState::Confirmed;
        match stock_change(record.from, record.to) {
            StockChange::Reserve if is_sale => (&self.sell, AVAILABLE, SOLD),
            StockChange::Reserve => (&self.hold, AVAILABLE, HOLD),
            StockChange::Keep => (&self.keep, HOLD, SOLD),
            // A record without a stock change has no seats to update.
            StockChange::Return | StockChange::None => match record.from {
                Some(ReservationState::Confirmed) => (&self.give, SOLD, AVAILABLE),
                _ => (&self.give, HOLD, AVAILABLE),
            },
        }
    }

    /// Writes the action on one of the seats that `record` moves.
    pub(super) fn write(
        &self,
        json: &mut JsonWriter,
        transaction: &Transaction,
        record: &RecordWrite,
        seat: &SeatId,
        at: &str,
    ) {
        let (template, from, to) = self.step(record);
        template.write(
            json,
            |key| {
                let partition = seat_key(&transaction.event, seat, transaction.seat_keys);
                key.text(EVENT_ID, &partition);
                key.text(SEAT_ID, seat.as_str());
            },
            |of| {
                of.text(":f", from);
                of.text(":s", to);
                of.text(":u", at);
                of.text(":r", record.reservation().as_str());
                if to == SOLD {
                    of.text(":o", &order(record).to_text());
                } else if to == HOLD {
                    of.number(":x", record.expires_at.unwrap_or_default().0);
                }
            },
        );
    }
}

pub(crate) fn seat_item_key(event: &EventId, seat: &SeatId, seat_keys: u16) -> Item {
    values([(EVENT_ID, text(seat_key(event, seat, seat_keys))), (SEAT_ID, text(seat.as_str()))])
}

/// The update that writes a seat's facts, and a state if it has none. Facts that are not given are removed.
pub(crate) fn seat_put(
    table: &str,
    event: &EventId,
    seat_keys: u16,
    seat: &SeatId,
    facts: &SeatFacts,
    at: UnixMillis,
) -> Result<TransactWriteItem, BuildError> {
    let set = |fact: &String| (!fact.is_empty()).then(|| text(fact));
    let price = facts.price.as_ref();
    let facts = [
        ("#a", ":a", SECTION, set(&facts.section)),
        ("#b", ":b", ROW, set(&facts.row)),
        ("#c", ":c", NUMBER, set(&facts.number)),
        ("#d", ":d", PRICE_AMOUNT, price.map(|p| number(p.amount))),
        ("#e", ":e", PRICE_CURRENCY, price.map(|p| text(&p.currency))),
    ];
    let mut names = names(&[("#s", STATUS), ("#u", UPDATED_AT)]);
    let mut values = values([(":f", text(AVAILABLE)), (":u", text(timestamp(at)))]);
    let mut set = "SET #s = if_not_exists(#s, :f), #u = :u".to_owned();
    let mut gone = Vec::new();
    for (alias, holder, name, value) in facts {
        names.insert(alias.to_owned(), name.to_owned());
        match value {
            Some(value) => {
                set.extend([", ", alias, " = ", holder]);
                values.insert(holder.to_owned(), value);
            }
            None => gone.push(alias),
        }
    }
    if !gone.is_empty() {
        set.extend([" REMOVE ", &gone.join(", ")]);
    }
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(seat_item_key(event, seat, seat_keys)))
        .update_expression(set)
        .set_expression_attribute_names(Some(names))
        .set_expression_attribute_values(Some(values))
        .build()?;
    Ok(TransactWriteItem::builder().update(update).build())
}

/// Changes the state of a seat outside any reservation, if the state is `from`.
pub(crate) fn seat_turn(
    event: &EventId,
    seat_keys: u16,
    seat: &SeatId,
    (from, to): (&str, &str),
    at: UnixMillis,
) -> ConditionalUpdate {
    ConditionalUpdate {
        key: seat_item_key(event, seat, seat_keys),
        shape: ExpressionTemplate::new("SET #s = :s, #u = :u", FREE, &NAMES),
        values: values([(":f", text(from)), (":s", text(to)), (":u", text(timestamp(at)))]),
    }
}

/// Query of the seats of one partition key, with only the attributes that [`seat`] or [`free_seat`] needs.
pub(crate) struct SeatPage {
    pub(crate) projection: String,
    pub(crate) filter: Option<String>,
    pub(crate) names: HashMap<String, String>,
    pub(crate) values: Item,
}

impl SeatPage {
    pub(crate) const KEY: &str = "#k = :k";

    pub(crate) fn new(partition_key: String) -> Self {
        const READ: [(&str, &str); 9] = [
            ("#i", SEAT_ID),
            ("#s", STATUS),
            ("#r", RESERVATION_ID),
            ("#x", HOLD_EXPIRES_AT),
            ("#a", SECTION),
            ("#b", ROW),
            ("#c", NUMBER),
            ("#d", PRICE_AMOUNT),
            ("#e", PRICE_CURRENCY),
        ];
        let mut names = names(&READ);
        names.insert("#k".to_owned(), EVENT_ID.to_owned());
        Self {
            projection: READ.map(|(alias, _)| alias).join(", "),
            filter: None,
            names,
            values: values([(":k", text(partition_key))]),
        }
    }

    /// Only seats that are available at `at`. A hold without an expiry time is not overdue.
    pub(crate) fn free(partition_key: String, at: UnixMillis) -> Self {
        const READ: [(&str, &str); 4] =
            [("#i", SEAT_ID), ("#s", STATUS), ("#r", RESERVATION_ID), ("#x", HOLD_EXPIRES_AT)];
        let mut names = names(&READ);
        names.insert("#k".to_owned(), EVENT_ID.to_owned());
        Self {
            projection: READ.map(|(alias, _)| alias).join(", "),
            filter: Some("#s = :f OR (#s = :h AND #x <= :t)".to_owned()),
            names,
            values: values([
                (":k", text(partition_key)),
                (":f", text(AVAILABLE)),
                (":h", text(HOLD)),
                (":t", number(at.0)),
            ]),
        }
    }
}

/// The seat of an item that a [`SeatPage::free`] query returned.
pub(crate) fn free_seat(item: &Item) -> Result<(SeatId, SeatState), String> {
    Ok((read_parsed(item, SEAT_ID)?, seat_state(item)?))
}

/// The seat, if its id is valid, and what is wrong with the item. A state that cannot be understood keeps the
/// seat from being sold.
pub(crate) fn seat(item: &Item) -> (Option<SeatItem>, Option<String>) {
    let id = match read_parsed(item, SEAT_ID) {
        Ok(id) => id,
        Err(why) => return (None, Some(why)),
    };
    let (state, fault) = match seat_state(item) {
        Ok(state) => (state, None),
        Err(why) => (SeatState::Blocked, Some(why)),
    };
    let facts = facts(item);
    (Some(SeatItem { id, facts, state }), fault)
}

/// The facts that the item has. A number may be stored as a DynamoDB number.
fn facts(item: &Item) -> SeatFacts {
    let stored = |name| match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.clone(),
        _ => String::new(),
    };
    let amount = maybe_number(item, PRICE_AMOUNT).ok().flatten();
    let currency = maybe_text(item, PRICE_CURRENCY).ok().flatten();
    SeatFacts {
        section: stored(SECTION),
        row: stored(ROW),
        number: stored(NUMBER),
        price: amount
            .zip(currency)
            .map(|(amount, currency)| Price { amount, currency: currency.to_owned() }),
    }
}

/// State of the seat.
pub(crate) fn seat_state(item: &Item) -> Result<SeatState, String> {
    match read_text(item, STATUS)? {
        AVAILABLE => Ok(SeatState::Available),
        BLOCKED => Ok(SeatState::Blocked),
        HOLD => Ok(SeatState::Hold {
            reservation: read_parsed(item, RESERVATION_ID)?,
            // A hold made by another program may have no expiry time; that program ends it.
            until: UnixMillis(maybe_number(item, HOLD_EXPIRES_AT)?.unwrap_or(u64::MAX)),
        }),
        SOLD => Ok(SeatState::Sold { reservation: read_parsed(item, RESERVATION_ID)? }),
        other => Err(format!("{STATUS} is {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn seats_of_another_program_are_readable() {
        let free =
            values([(STATUS, text("AVAILABLE")), (RESERVATION_ID, AttributeValue::Null(true))]);
        assert_eq!(seat_state(&free).unwrap(), SeatState::Available);
        let held = values([(STATUS, text("HOLD")), (RESERVATION_ID, text("rsv_1"))]);
        let expected =
            SeatState::Hold { reservation: "rsv_1".parse().unwrap(), until: UnixMillis(u64::MAX) };
        assert_eq!(seat_state(&held).unwrap(), expected);
    }

    #[test]
    fn readable_facts_of_a_damaged_seat_are_returned() {
        let mut item = values([
            (SEAT_ID, text("A-12")),
            (STATUS, text("LOST")),
            (ROW, text("A")),
            (NUMBER, number(12)),
            (PRICE_AMOUNT, number(9_900)),
        ]);
        let (seat, fault) = super::seat(&item);
        let seat = seat.unwrap();
        assert_eq!(seat.state, SeatState::Blocked);
        assert!(fault.unwrap().contains("LOST"));
        assert_eq!((&*seat.facts.row, &*seat.facts.number), ("A", "12"));
        // An amount without a currency is not a price.
        assert_eq!((&*seat.facts.section, seat.facts.price), ("", None));
        item.insert(SEAT_ID.to_owned(), text("A 12"));
        let (seat, fault) = super::seat(&item);
        assert_eq!(seat, None);
        assert!(fault.unwrap().contains(SEAT_ID));
    }

    #[test]
    fn invalid_seats_are_refused_by_name() {
        let nobodys =
            values([(STATUS, text("SOLD")), (RESERVATION_ID, AttributeValue::Null(true))]);
        let error = seat_state(&nobodys).unwrap_err();
        assert!(error.contains("reservation_id is missing"), "{error}");
        let odd = values([(STATUS, text("available"))]);
        assert!(seat_state(&odd).unwrap_err().contains("available"));
        assert!(seat_state(&Item::new()).unwrap_err().contains(STATUS));
    }
}
