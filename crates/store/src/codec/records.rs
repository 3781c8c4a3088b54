//! Records of reservations.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;

use super::expression::{ExpressionTemplate, PutTemplate, UpdateTemplate};
use super::fields::{
    Item, maybe_number, maybe_parsed, maybe_text, read_number, read_parsed, read_text,
    read_timestamp,
};
use super::json::{AttributeWriter, JsonWriter};
use super::{
    COUNTED_AS_HELD, CREATED_AT, DRAWS, EVENT_ID, EXPIRES_AT, EXPIRY_BUCKET, ORDER_ID,
    PAYMENT_INTENT_ID, PURGE_AT, QTY, REQUEST_HASH, RESERVATION_ID, SEAT_PRICES, SEATS, STATUS,
    UPDATED_AT,
};
use crate::limits;
use inventory_core::expiry_search::ExpiryBucket;
use inventory_core::ids::{
    EventId, Fingerprint, OrderId, PaymentHash, ReservationId, SeatId, Seats,
};
use inventory_core::rules::{StockChange, stock_change};
use inventory_core::seats::SeatPrices;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{
    ExpiryCondition, RecordView, RecordWrite, ReservationState, StripeAllocation, StripeAllocations,
};

const NEW_ITEM_CONDITION: &str = "attribute_not_exists(#k)";

const ADD_PAYMENT: &str = "SET #p = :p";
const NO_PAYMENT_YET: &str = "#s = :f AND attribute_not_exists(#p)";

const NAMES: [(&str, &str); 11] = [
    ("#s", STATUS),
    ("#u", UPDATED_AT),
    ("#o", ORDER_ID),
    ("#p", PAYMENT_INTENT_ID),
    ("#d", DRAWS),
    ("#e", SEATS),
    ("#m", SEAT_PRICES),
    ("#x", EXPIRES_AT),
    ("#b", EXPIRY_BUCKET),
    ("#g", PURGE_AT),
    ("#k", RESERVATION_ID),
];

/// The complete record of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    pub reservation: ReservationId,
    pub event: EventId,
    pub qty: u32,
    /// Stripe allocations; empty for seats and for a tombstone.
    pub draws: StripeAllocations,
    /// Empty if none was given.
    pub payment_intent: String,
    /// 0 if the record has none.
    pub created_at: UnixMillis,
    /// Its `at` is the time of the last write.
    pub view: RecordView,
}

// ---- Writing ------------------------------------------------------------------------------------

/// The time of a transaction in the forms that its records store.
pub(super) struct WriteInstant<'a> {
    pub(super) at: &'a str,
    pub(super) millis: UnixMillis,
    /// Epoch seconds.
    pub(super) purge_at: u64,
}

/// The properties of a write on which its expressions depend.
#[derive(Clone, Copy)]
struct RecordTransition {
    to: ReservationState,
    due: ExpiryCondition,
    payment: PaymentChange,
    what: StockLink,
}

/// What a write does to the payment of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PaymentChange {
    Nothing,
    /// Stored by the transition that confirms.
    Stored,
    /// Added to a confirmed record that has none: nothing else changes.
    Added,
}

/// The stock that the record refers to after the write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StockLink {
    Nothing,
    Units,
    Seats,
    PricedSeats,
}

impl RecordTransition {
    const COUNT: usize = 5 * 3 * 3 * 4;

    fn of(record: &RecordWrite) -> Self {
        Self {
            to: record.to,
            due: record.due,
            payment: match record.to {
                _ if record.payment_added_to.is_some() => PaymentChange::Added,
                ReservationState::Confirmed if !record.operation.payment_intent.is_empty() => {
                    PaymentChange::Stored
                }
                _ => PaymentChange::Nothing,
            },
            what: match stock_change(record.from, record.to) {
                StockChange::Reserve if record.seats.is_some() => match prices(record) {
                    Some(_) => StockLink::PricedSeats,
                    None => StockLink::Seats,
                },
                StockChange::Reserve if !record.draws.is_empty() => StockLink::Units,
                _ => StockLink::Nothing,
            },
        }
    }

    fn index(self) -> usize {
        ((self.to as usize * 3 + self.due as usize) * 3 + self.payment as usize) * 4
            + self.what as usize
    }

    fn shape(self) -> ExpressionTemplate {
        use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
        if self.payment == PaymentChange::Added {
            return ExpressionTemplate::new(ADD_PAYMENT, NO_PAYMENT_YET, &NAMES);
        }
        let (more, gone) = match self.to {
            Held => (", #x = :x, #b = :b", "#g"),
            Confirmed => (", #o = :o", "#b, #g"),
            Released | Expired => (", #g = :g", "#b"),
            // An order is never purged.
            Refunded => ("", "#b"),
        };
        let payment = match self.payment {
            PaymentChange::Nothing => "",
            PaymentChange::Stored | PaymentChange::Added => ", #p = :p",
        };
        let what = match self.what {
            StockLink::Nothing => "",
            StockLink::Units => ", #d = :d",
            StockLink::Seats => ", #e = :e",
            StockLink::PricedSeats => ", #e = :e, #m = :m",
        };
        let due = match self.due {
            ExpiryCondition::Any => "",
            ExpiryCondition::Expired => " AND #x <= :a",
            ExpiryCondition::NotExpired => " AND #x > :a",
        };
        ExpressionTemplate::new(
            format!("SET #s = :s, #u = :u{more}{payment}{what} REMOVE {gone}"),
            format!("#s = :f{due}"),
            &NAMES,
        )
    }

    fn values(
        self,
        of: &mut AttributeWriter<'_>,
        record: &RecordWrite,
        from: ReservationState,
        now: &WriteInstant<'_>,
    ) {
        use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
        of.text(":f", from.name());
        if self.payment == PaymentChange::Added {
            of.text(":p", &record.operation.payment_intent);
            return;
        }
        of.text(":s", self.to.name());
        of.text(":u", now.at);
        match self.to {
            Held => {
                let expires_at = record.expires_at.unwrap_or_default();
                of.number(":x", expires_at.0);
                of.text(":b", &ExpiryBucket::of(record.reservation(), expires_at).to_string());
            }
            Confirmed => of.text(":o", &order(record).to_text()),
            Released | Expired => of.number(":g", now.purge_at),
            Refunded => {}
        }
        if self.payment == PaymentChange::Stored {
            of.text(":p", &record.operation.payment_intent);
        }
        match self.what {
            StockLink::Nothing => {}
            StockLink::Units => of.plain(":d", DrawList(&record.draws)),
            StockLink::Seats | StockLink::PricedSeats => {
                of.texts(":e", named(record.seats.as_deref()));
                if let Some(prices) = prices(record) {
                    of.text(":m", prices.as_str());
                }
            }
        }
        if self.due != ExpiryCondition::Any {
            of.number(":a", now.millis.0);
        }
    }
}

/// Writes of records. Templates are built on first use, because few of the possible combinations occur.
pub(super) struct RecordExpressions {
    table: String,
    new: PutTemplate,
    steps: Box<[OnceCell<UpdateTemplate>]>,
}

impl RecordExpressions {
    pub(super) fn new(table: &str) -> Self {
        let names = HashMap::from([("#k".to_owned(), RESERVATION_ID.to_owned())]);
        Self {
            table: table.to_owned(),
            new: PutTemplate::new(table, NEW_ITEM_CONDITION, &names),
            steps: (0..RecordTransition::COUNT).map(|_| OnceCell::new()).collect(),
        }
    }

    pub(super) fn write(
        &self,
        json: &mut JsonWriter,
        event: &EventId,
        record: &RecordWrite,
        now: &WriteInstant<'_>,
    ) {
        let Some(from) = record.from else {
            self.new.write(json, |of| item(of, event, record, now));
            return;
        };
        let step = RecordTransition::of(record);
        let template = self.steps[step.index()].get_or_init(|| step.shape().template(&self.table));
        template.write(
            json,
            |key| key.text(RESERVATION_ID, record.reservation().as_str()),
            |of| step.values(of, record, from, now),
        );
    }
}

fn item(
    of: &mut AttributeWriter<'_>,
    event: &EventId,
    record: &RecordWrite,
    now: &WriteInstant<'_>,
) {
    of.text(RESERVATION_ID, record.reservation().as_str());
    of.text(EVENT_ID, event.as_str());
    of.number(QTY, record.qty);
    of.plain(REQUEST_HASH, Hex(&record.fingerprint.0));
    of.text(CREATED_AT, now.at);
    of.text(UPDATED_AT, now.at);
    of.text(STATUS, record.to.name());
    match record.to {
        ReservationState::Held => {
            let expires_at = record.expires_at.unwrap_or_default();
            of.number(EXPIRES_AT, expires_at.0);
            let bucket = ExpiryBucket::of(record.reservation(), expires_at).to_string();
            of.text(EXPIRY_BUCKET, &bucket);
        }
        ReservationState::Confirmed => of.text(ORDER_ID, &order(record).to_text()),
        ReservationState::Released | ReservationState::Expired => {
            of.number(PURGE_AT, now.purge_at);
        }
        ReservationState::Refunded => {}
    }
    if !record.draws.is_empty() {
        of.plain(DRAWS, DrawList(&record.draws));
    }
    if record.counted {
        of.truth(COUNTED_AS_HELD, true);
    }
    if record.seats.is_some() {
        of.texts(SEATS, named(record.seats.as_deref()));
    }
    if let Some(prices) = prices(record) {
        of.text(SEAT_PRICES, prices.as_str());
    }
    if !record.operation.payment_intent.is_empty() {
        of.text(PAYMENT_INTENT_ID, &record.operation.payment_intent);
    }
}

fn prices(record: &RecordWrite) -> Option<&SeatPrices> {
    record.seats.as_ref()?.prices.as_ref()
}

/// The order id that a confirming write stores.
pub(super) fn order(record: &RecordWrite) -> OrderId {
    record.order.unwrap_or_else(|| OrderId::of(record.reservation()))
}

/// `stripe:units`, separated by commas.
struct DrawList<'a>(&'a [StripeAllocation]);

impl fmt::Display for DrawList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, draw) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", draw.stripe, draw.units)?;
        }
        Ok(())
    }
}

/// 128 bits in hexadecimal, leading zeros included.
struct Hex<'a>(&'a [u8; 16]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(*self.0))
    }
}

fn named(seats: Option<&[SeatId]>) -> impl Iterator<Item = &str> {
    seats.unwrap_or_default().iter().map(SeatId::as_str)
}

/// Epoch seconds.
pub(crate) fn purge_at(at: UnixMillis) -> u64 {
    (at.0 / 1_000).saturating_add(limits::TOMBSTONE_RETENTION.as_secs())
}

// ---- Reading ------------------------------------------------------------------------------------

pub(crate) fn record_view(item: &Item) -> Result<RecordView, String> {
    let state = read_state(item)?;
    let hash = read_text(item, REQUEST_HASH)?;
    let fingerprint = parse_hex(hash)
        .ok_or_else(|| format!("{REQUEST_HASH} is {hash:?}, want 32 lower-case hex digits"))?;
    let order = maybe_parsed(item, ORDER_ID)?;
    let expires_at = maybe_number(item, EXPIRES_AT)?.map(UnixMillis);
    let needs = match state {
        ReservationState::Confirmed if order.is_none() => Some(ORDER_ID),
        ReservationState::Held if expires_at.is_none() => Some(EXPIRES_AT),
        _ => None,
    };
    if let Some(name) = needs {
        let state = state.name();
        return Err(format!("{STATUS} is {state} and {name} is missing"));
    }
    Ok(RecordView {
        fingerprint: Fingerprint(fingerprint),
        state,
        order,
        payment: match state {
            ReservationState::Confirmed => {
                PaymentHash::of(maybe_text(item, PAYMENT_INTENT_ID)?.unwrap_or_default())
            }
            _ => None,
        },
        qty: read_number(item, QTY)?,
        draws: match maybe_text(item, DRAWS)? {
            None => StripeAllocations::new(),
            Some(text) => parse_draws(text)?,
        },
        seats: read_seats(item)?,
        expires_at,
        counted: item.get(COUNTED_AS_HELD) == Some(&AttributeValue::Bool(true)),
        at: read_timestamp(item, UPDATED_AT)?,
    })
}

pub(crate) fn record(item: &Item) -> Result<StoredRecord, String> {
    let view = record_view(item)?;
    Ok(StoredRecord {
        reservation: {
            let name = read_text(item, RESERVATION_ID)?;
            ReservationId::stored(name).map_err(|why| format!("{RESERVATION_ID} {name:?} {why}"))?
        },
        event: read_parsed(item, EVENT_ID)?,
        qty: view.qty,
        draws: view.draws.clone(),
        payment_intent: maybe_text(item, PAYMENT_INTENT_ID)?.unwrap_or_default().to_owned(),
        created_at: read_timestamp(item, CREATED_AT)?,
        view,
    })
}

fn read_state(item: &Item) -> Result<ReservationState, String> {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    let name = read_text(item, STATUS)?;
    [Confirmed, Held, Released, Expired, Refunded]
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| format!("{STATUS} is {name:?}"))
}

fn read_seats(item: &Item) -> Result<Option<Seats>, String> {
    let seat = |value: &AttributeValue| {
        let text = value.as_s().map_err(|_| format!("{SEATS} has what is no text"))?;
        text.parse::<SeatId>().map_err(|error| format!("{SEATS} has {text:?}, which {error}"))
    };
    let seats: Seats = match item.get(SEATS) {
        None => return Ok(None),
        Some(AttributeValue::L(seats)) => seats.iter().map(seat).collect::<Result<_, _>>()?,
        Some(_) => return Err(format!("{SEATS} is no list")),
    };
    // A record of an earlier version has none.
    let prices = match maybe_text(item, SEAT_PRICES)? {
        None => None,
        Some(text) => {
            let count = seats.len();
            let prices = SeatPrices::parse(text, count);
            Some(prices.ok_or_else(|| format!("{SEAT_PRICES} is {text:?}, want {count} prices"))?)
        }
    };
    Ok(Some(seats.with_prices(prices)))
}

fn parse_draws(text: &str) -> Result<StripeAllocations, String> {
    let draw = |part: &str| {
        let (stripe, units) = part.split_once(':')?;
        Some(StripeAllocation { stripe: stripe.parse().ok()?, units: units.parse().ok()? })
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

    use super::super::fields::{number, text, values};
    use super::*;

    #[test]
    fn foreign_record_is_refused_by_name() {
        let order = OrderId::of(&"r1".parse().unwrap()).to_string();
        let hash = "0".repeat(32);
        let good = values([
            (STATUS, text("CONFIRMED")),
            (REQUEST_HASH, text(&hash)),
            (ORDER_ID, text(&order)),
            (QTY, number(2)),
        ]);
        let view = record_view(&good).unwrap();
        assert_eq!(view.order.unwrap().to_string(), order);
        assert_eq!((view.at, view.seats), (UnixMillis(0), None));
        for (name, value) in [
            (STATUS, text("PENDING")),
            (REQUEST_HASH, text("abc")),
            (REQUEST_HASH, number(1)),
            (ORDER_ID, text("ord_xyz789")),
            (QTY, number(-1)),
            (DRAWS, text("0:2,")),
            (EXPIRES_AT, text("soon")),
            (SEATS, text("A-1")),
            (SEATS, AttributeValue::L(vec![text("A 1")])),
            (UPDATED_AT, text("yesterday")),
        ] {
            let mut bad = good.clone();
            bad.insert(name.to_owned(), value);
            let error = record_view(&bad).unwrap_err();
            assert!(error.contains(name), "{name}: {error}");
        }
        for name in [STATUS, REQUEST_HASH, ORDER_ID, QTY] {
            let mut bad = good.clone();
            bad.remove(name);
            assert!(record_view(&bad).unwrap_err().contains(name));
        }
        let mut endless = good.clone();
        endless.insert(STATUS.to_owned(), text("HELD"));
        assert!(record_view(&endless).unwrap_err().contains(EXPIRES_AT));
    }

    #[test]
    fn draws_survive_the_round_trip() {
        let draw = |stripe, units| StripeAllocation { stripe, units };
        let drawn = StripeAllocations::from_slice(&[draw(0, 2), draw(63, 1_000)]);
        assert_eq!(parse_draws(&DrawList(&drawn).to_string()).unwrap(), drawn);
        assert!(parse_draws("0:2,").is_err());
        assert!(parse_draws("0-2").is_err());
    }

    #[test]
    fn a_fingerprint_keeps_its_leading_zeros() {
        let mut bytes = [0; 16];
        bytes[15] = 0xab;
        let hex = Hex(&bytes).to_string();
        assert_eq!(hex, "000000000000000000000000000000ab");
        assert_eq!(parse_hex(&hex), Some(bytes));
    }

    #[test]
    fn every_transition_has_its_own_template() {
        use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
        let mut seen = [false; RecordTransition::COUNT];
        for to in [Held, Confirmed, Released, Expired, Refunded] {
            for due in [ExpiryCondition::Any, ExpiryCondition::Expired, ExpiryCondition::NotExpired]
            {
                for payment in [PaymentChange::Nothing, PaymentChange::Stored, PaymentChange::Added]
                {
                    for what in [
                        StockLink::Nothing,
                        StockLink::Units,
                        StockLink::Seats,
                        StockLink::PricedSeats,
                    ] {
                        let step = RecordTransition { to, due, payment, what };
                        assert!(!std::mem::replace(&mut seen[step.index()], true));
                    }
                }
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
