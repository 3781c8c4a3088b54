//! Seat items. A sale touches only who has the seat and until when; section, row, number and price
//! stay as they were imported.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::TransactWriteItem;

use super::fields::{Item, maybe_number, number, read_parsed, read_text, text, values};
use super::records::order;
use super::shape::Shape;
use super::{
    AVAILABLE, BLOCKED, EVENT_ID, HOLD, HOLD_EXPIRES_AT, ORDER_ID, RESERVATION_ID, SEAT_ID, SOLD,
    STATUS, UPDATED_AT,
};
use crate::domain::ids::{EventId, SeatId, seat_key};
use crate::domain::rules::{Movement, movement};
use crate::domain::seats::SeatState;
use crate::domain::time::UnixMillis;
use crate::domain::transaction::{RecordWrite, ReservationState, Transaction};

const NAMES: [(&str, &str); 5] = [
    ("#s", STATUS),
    ("#r", RESERVATION_ID),
    ("#x", HOLD_EXPIRES_AT),
    ("#o", ORDER_ID),
    ("#u", UPDATED_AT),
];

/// Of a seat that nobody has. A missing attribute compares false: a seat that is not there is never
/// made by a sale.
const FREE: &str = "#s = :f";
const OURS: &str = "#s = :f AND #r = :r";

/// Updates of seat items.
pub(super) struct SeatShapes {
    hold: Shape,
    sell: Shape,
    /// Of what is held already.
    keep: Shape,
    give: Shape,
}

impl SeatShapes {
    pub(super) fn new() -> Self {
        let hold = "SET #s = :s, #u = :u, #r = :r, #x = :x";
        let sell = "SET #s = :s, #u = :u, #r = :r, #o = :o REMOVE #x";
        let keep = "SET #s = :s, #u = :u, #o = :o REMOVE #x";
        let give = "SET #s = :s, #u = :u REMOVE #r, #x, #o";
        Self {
            hold: Shape::new(hold, FREE, &NAMES),
            sell: Shape::new(sell, FREE, &NAMES),
            keep: Shape::new(keep, OURS, &NAMES),
            give: Shape::new(give, OURS, &NAMES),
        }
    }

    /// Appends one action per seat that `record` moves, in order.
    pub(super) fn actions(
        &self,
        table: &str,
        transaction: &Transaction,
        record: &RecordWrite,
        at: &str,
        actions: &mut Vec<TransactWriteItem>,
    ) -> Result<(), BuildError> {
        let seats = record.seats_moved();
        if seats.is_empty() {
            return Ok(());
        }
        let (shape, values) = self.step(record, at);
        for seat in seats {
            let key = seat_item_key(&transaction.event, seat, transaction.seat_keys);
            actions.push(shape.action(table, key, values.clone())?);
        }
        Ok(())
    }

    /// What happens to every seat of `record`.
    fn step(&self, record: &RecordWrite, at: &str) -> (&Shape, Item) {
        let is_sale = record.to == ReservationState::Confirmed;
        let (shape, from, to) = match movement(record.from, record.to) {
            Movement::Take if is_sale => (&self.sell, AVAILABLE, SOLD),
            Movement::Take => (&self.hold, AVAILABLE, HOLD),
            Movement::Keep => (&self.keep, HOLD, SOLD),
            // A record that moves nothing has no seats to move.
            Movement::Give | Movement::None => match record.from {
                Some(ReservationState::Confirmed) => (&self.give, SOLD, AVAILABLE),
                _ => (&self.give, HOLD, AVAILABLE),
            },
        };
        let mut values = values([
            (":f", text(from)),
            (":s", text(to)),
            (":u", text(at)),
            (":r", text(record.reservation.as_str())),
        ]);
        if is_sale {
            values.insert(":o".to_owned(), text(order(record).to_text()));
        } else if to == HOLD {
            let until = record.expires_at.unwrap_or_default();
            values.insert(":x".to_owned(), number(until.0));
        }
        (shape, values)
    }
}

pub(in crate::store) fn seat_item_key(event: &EventId, seat: &SeatId, seat_keys: u16) -> Item {
    values([
        (EVENT_ID, text(seat_key(event, seat, seat_keys))),
        (SEAT_ID, text(seat.as_str())),
    ])
}

/// Whose the seat is.
pub(in crate::store) fn seat_state(item: &Item) -> Result<SeatState, String> {
    match read_text(item, STATUS)? {
        AVAILABLE => Ok(SeatState::Available),
        BLOCKED => Ok(SeatState::Blocked),
        HOLD => Ok(SeatState::Hold {
            reservation: read_parsed(item, RESERVATION_ID)?,
            // A hold that was not made here need not say: it ends when whoever made it ends it.
            until: UnixMillis(maybe_number(item, HOLD_EXPIRES_AT)?.unwrap_or(u64::MAX)),
        }),
        SOLD => Ok(SeatState::Sold {
            reservation: read_parsed(item, RESERVATION_ID)?,
        }),
        other => Err(format!("{STATUS} is {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;

    #[test]
    fn seats_that_another_program_made_read() {
        let free = values([
            (STATUS, text("AVAILABLE")),
            (RESERVATION_ID, AttributeValue::Null(true)),
        ]);
        assert_eq!(seat_state(&free).unwrap(), SeatState::Available);
        let held = values([(STATUS, text("HOLD")), (RESERVATION_ID, text("rsv_1"))]);
        let expected = SeatState::Hold {
            reservation: "rsv_1".parse().unwrap(),
            until: UnixMillis(u64::MAX),
        };
        assert_eq!(seat_state(&held).unwrap(), expected);
    }

    #[test]
    fn seats_that_cannot_be_are_refused_by_name() {
        let nobodys = values([
            (STATUS, text("SOLD")),
            (RESERVATION_ID, AttributeValue::Null(true)),
        ]);
        let error = seat_state(&nobodys).unwrap_err();
        assert!(error.contains("reservation_id is missing"), "{error}");
        let odd = values([(STATUS, text("available"))]);
        assert!(seat_state(&odd).unwrap_err().contains("available"));
        assert!(seat_state(&Item::new()).unwrap_err().contains(STATUS));
    }
}
