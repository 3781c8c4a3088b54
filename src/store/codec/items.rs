//! Reading stored items. Whatever does not fit the format is an error that names the attribute:
//! other programs may write to these tables.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{
    CONFIRMED, DRAWS, EVENT_ID, ORDER_ID, QTY, RELEASED, REMAINING, REQUEST_HASH, RESERVATION_ID,
    STATUS, STRIPES, TOTAL_SEATS, VERSION,
};
use crate::domain::ids::{EventId, Fingerprint, ReservationId};
use crate::domain::transaction::{Draw, RecordView, ReservationState, StripeView};
use crate::limits;

type Item = HashMap<String, AttributeValue>;

/// A reservation's record, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    pub reservation: ReservationId,
    pub event: EventId,
    pub qty: u32,
    /// Where the units came from; empty for a tombstone.
    pub draws: Vec<Draw>,
    pub view: RecordView,
}

pub(in crate::store) fn stripe_view(item: &Item) -> Result<StripeView, String> {
    let capacity = number(item, TOTAL_SEATS)?;
    let remaining: u64 = number(item, REMAINING)?;
    if remaining > capacity {
        return Err(format!(
            "{REMAINING} {remaining} is over {TOTAL_SEATS} {capacity}"
        ));
    }
    let stripes = match item.get(STRIPES) {
        None => None,
        Some(_) => Some(number(item, STRIPES)?),
    };
    if stripes.is_some_and(|n| n == 0 || n > limits::STRIPES_MAX) {
        return Err(format!("{STRIPES} is not 1 to {}", limits::STRIPES_MAX));
    }
    Ok(StripeView {
        capacity,
        remaining,
        // An item that another program made need not have one before its first sale.
        version: match item.get(VERSION) {
            None => 0,
            Some(_) => number(item, VERSION)?,
        },
        stripes,
        seat_keys: 0,
        closed: false,
    })
}

pub(in crate::store) fn record_view(item: &Item) -> Result<RecordView, String> {
    let state = match text(item, STATUS)? {
        CONFIRMED => ReservationState::Confirmed,
        RELEASED => ReservationState::Released,
        other => return Err(format!("{STATUS} is {other:?}")),
    };
    let hash = text(item, REQUEST_HASH)?;
    let fingerprint = parse_hex(hash)
        .ok_or_else(|| format!("{REQUEST_HASH} is {hash:?}, want 32 lower-case hex digits"))?;
    let order = match item.get(ORDER_ID) {
        None => None,
        Some(_) => {
            let order = text(item, ORDER_ID)?;
            let parsed = order.parse();
            Some(parsed.map_err(|error| format!("{ORDER_ID} is {order:?}: {error}"))?)
        }
    };
    if state == ReservationState::Confirmed && order.is_none() {
        return Err(format!("{STATUS} is {CONFIRMED} and {ORDER_ID} is missing"));
    }
    Ok(RecordView {
        fingerprint: Fingerprint(fingerprint),
        state,
        order,
        qty: 0,
        draws: crate::domain::transaction::Draws::new(),
        seats: None,
        expires_at: None,
        at: crate::domain::time::UnixMillis(0),
    })
}

pub(in crate::store) fn record(item: &Item) -> Result<StoredRecord, String> {
    let reservation = text(item, RESERVATION_ID)?;
    let event = text(item, EVENT_ID)?;
    Ok(StoredRecord {
        reservation: reservation
            .parse()
            .map_err(|error| format!("{RESERVATION_ID} {reservation:?} {error}"))?,
        event: event
            .parse()
            .map_err(|error| format!("{EVENT_ID} {event:?} {error}"))?,
        qty: number(item, QTY)?,
        draws: match item.get(DRAWS) {
            None => Vec::new(),
            Some(_) => parse_draws(text(item, DRAWS)?)?,
        },
        view: record_view(item)?,
    })
}

fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str, String> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        Some(_) => Err(format!("{name} is no text")),
        None => Err(format!("{name} is missing")),
    }
}

fn number<N: std::str::FromStr>(item: &Item, name: &str) -> Result<N, String> {
    match item.get(name) {
        Some(AttributeValue::N(digits)) => digits
            .parse()
            .map_err(|_| format!("{name} is {digits}, out of its range")),
        Some(_) => Err(format!("{name} is no number")),
        None => Err(format!("{name} is missing")),
    }
}

fn parse_draws(text: &str) -> Result<Vec<Draw>, String> {
    let draw = |part: &str| {
        let (stripe, units) = part.split_once(':')?;
        Some(Draw {
            stripe: stripe.parse().ok()?,
            units: units.parse().ok()?,
        })
    };
    text.split(',')
        .map(|part| draw(part).ok_or_else(|| format!("{DRAWS} is {text:?}, want stripe:units,…")))
        .collect()
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let canonical = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 32 || !text.bytes().all(canonical) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::ids::OrderId;

    fn item(pairs: &[(&str, AttributeValue)]) -> Item {
        let owned = |(name, value): &(&str, AttributeValue)| ((*name).to_owned(), value.clone());
        pairs.iter().map(owned).collect()
    }

    fn s(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn n(digits: &str) -> AttributeValue {
        AttributeValue::N(digits.to_owned())
    }

    #[test]
    fn a_seed_item_without_stripes_reads() {
        let seed = item(&[
            (EVENT_ID, s("evt_2025_1001")),
            (REMAINING, n("8500")),
            (VERSION, n("42")),
            (TOTAL_SEATS, n("10000")),
        ]);
        let view = stripe_view(&seed).unwrap();
        assert_eq!((view.remaining, view.capacity), (8500, 10_000));
        assert_eq!((view.version, view.stripes), (42, None));
    }

    #[test]
    fn stock_that_cannot_be_is_refused_by_name() {
        let negative = item(&[(REMAINING, n("-1")), (TOTAL_SEATS, n("5"))]);
        assert!(
            stripe_view(&negative)
                .unwrap_err()
                .contains("remaining is -1")
        );
        let over = item(&[(REMAINING, n("6")), (TOTAL_SEATS, n("5"))]);
        assert!(stripe_view(&over).unwrap_err().contains("over"));
        let stripes = [
            (REMAINING, n("1")),
            (TOTAL_SEATS, n("5")),
            (STRIPES, n("65")),
        ];
        assert!(
            stripe_view(&item(&stripes))
                .unwrap_err()
                .contains("stripes")
        );
        assert!(stripe_view(&Item::new()).unwrap_err().contains("missing"));
    }

    #[test]
    fn a_record_of_another_program_is_refused_by_name() {
        let order = OrderId::of(&"r1".parse().unwrap()).to_string();
        let hash = "0".repeat(32);
        let good = [
            (STATUS, s(CONFIRMED)),
            (REQUEST_HASH, s(&hash)),
            (ORDER_ID, s(&order)),
        ];
        let view = record_view(&item(&good)).unwrap();
        assert_eq!(view.order.unwrap().to_string(), order);
        for (name, value) in [
            (STATUS, s("PENDING")),
            (REQUEST_HASH, s("abc")),
            (REQUEST_HASH, n("1")),
            (ORDER_ID, s("ord_xyz789")),
        ] {
            let mut bad = item(&good);
            bad.insert(name.to_owned(), value);
            assert!(record_view(&bad).unwrap_err().contains(name));
        }
        let mut bad = item(&good);
        bad.remove(ORDER_ID);
        assert!(record_view(&bad).unwrap_err().contains(ORDER_ID));
    }

    #[test]
    fn draws_survive_the_round_trip() {
        let draws = vec![
            Draw {
                stripe: 0,
                units: 2,
            },
            Draw {
                stripe: 63,
                units: 1000,
            },
        ];
        assert_eq!(
            parse_draws(&super::super::encode::draws(&draws)).unwrap(),
            draws
        );
        assert!(parse_draws("0:2,").is_err());
        assert!(parse_draws("0-2").is_err());
    }
}
