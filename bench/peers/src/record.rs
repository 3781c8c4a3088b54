//! A reservation's record, as the server writes and reads it: names, order, fingerprint, expressions.
//!
//! Must not live here: what a record means for a call (`rules`), a call to the store.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest, Sha256};

use crate::limits::{EXPIRY_SHARDS, TOMBSTONE_RETENTION};

/// An item, a key, or the values of an expression.
pub type Item = HashMap<String, AttributeValue>;

pub const EVENT_ID: &str = "event_id";
pub const RESERVATION_ID: &str = "reservation_id";
pub const UPDATED_AT: &str = "updated_at";
const STATUS: &str = "status";
const QTY: &str = "qty";
const DRAWS: &str = "draws";
const SEATS: &str = "seats";
const REQUEST_HASH: &str = "request_hash";
const ORDER_ID: &str = "order_id";
const PAYMENT_INTENT_ID: &str = "payment_intent_id";
const CREATED_AT: &str = "created_at";
const PURGE_AT: &str = "purge_at";
const EXPIRY_BUCKET: &str = "expiry_bucket";
const EXPIRES_AT: &str = "expires_at";

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// Of the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// ISO 8601 in UTC, as the tables have it.
    pub fn to_text(self) -> String {
        let at = DateTime::from_millis(i64::try_from(self.0).unwrap_or(i64::MAX));
        at.fmt(DateTimeFormat::DateTime).unwrap_or_default()
    }
}

/// A reservation's state, by its stored name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Held,
    Confirmed,
    Released,
    Expired,
    Refunded,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Refunded => "REFUNDED",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        use State::{Confirmed, Expired, Held, Refunded, Released};
        [Confirmed, Held, Released, Expired, Refunded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Units drawn from one stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub stripe: u16,
    pub units: u32,
}

/// A reservation's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub event: String,
    pub state: State,
    pub qty: u32,
    pub hash: String,
    pub draws: Vec<Draw>,
    /// Of a seated event; empty here.
    pub seats: Vec<String>,
    pub order: Option<String>,
    pub expires_at: Option<Millis>,
    /// When it got its state.
    pub at: Millis,
}

/// What is written of a reservation that has no record yet.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    pub reservation: &'a str,
    pub event: &'a str,
    pub qty: u32,
    pub hash: &'a str,
    pub payment: &'a str,
    pub state: State,
    pub draws: &'a [Draw],
    /// Of a hold.
    pub hold_until: Millis,
    pub at: Millis,
}

/// `ord_` and 128 bits drawn from the reservation's id alone, so that any node gives any repeat the
/// same order.
pub fn order_of(reservation: &str) -> String {
    format!("ord_{}", digest(&[b"order/v1", reservation.as_bytes()]))
}

/// What two calls for a quantity must share to be the same call.
pub fn hash_of_quantity(event: &str, qty: u32) -> String {
    digest(&[b"quantity/v1", event.as_bytes(), &qty.to_be_bytes()])
}

/// Of a call that means whatever the reservation holds: contract B leaves such tombstones.
pub fn hash_of_whatever(event: &str) -> String {
    digest(&[b"whatever/v1", event.as_bytes()])
}

/// The first 128 bits of SHA-256 over length-prefixed parts, in hex.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    format!("{:032x}", u128::from_be_bytes(first))
}

/// Where the expiry index has a hold: the minute of its end, and a part of it by FNV-1a of the id.
fn expiry_bucket(reservation: &str, expires_at: Millis) -> String {
    let hash = reservation.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{}#{}", expires_at.0 / 60_000, hash % EXPIRY_SHARDS)
}

fn purge_at(at: Millis) -> u64 {
    (at.0 / 1_000).saturating_add(TOMBSTONE_RETENTION.as_secs())
}

// ---- Writing ------------------------------------------------------------------------------------

pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The condition of [`NewRecord::item`], and what its alias stands for.
pub const NEW_CONDITION: &str = "attribute_not_exists(#k)";
pub const NEW_NAMES: (&str, &str) = ("#k", RESERVATION_ID);

impl NewRecord<'_> {
    /// The whole item.
    pub fn item(&self) -> Item {
        let mut item = Item::with_capacity(12);
        let mut set = |name: &str, value| item.insert(name.to_owned(), value);
        let at = self.at.to_text();
        set(RESERVATION_ID, text(self.reservation));
        set(EVENT_ID, text(self.event));
        set(QTY, number(self.qty));
        set(REQUEST_HASH, text(self.hash));
        set(CREATED_AT, text(at.clone()));
        set(UPDATED_AT, text(at));
        set(STATUS, text(self.state.name()));
        match self.state {
            State::Held => {
                set(EXPIRES_AT, number(self.hold_until.0));
                let bucket = expiry_bucket(self.reservation, self.hold_until);
                set(EXPIRY_BUCKET, text(bucket));
            }
            State::Confirmed => {
                set(ORDER_ID, text(order_of(self.reservation)));
            }
            State::Released | State::Expired | State::Refunded => {
                set(PURGE_AT, number(purge_at(self.at)));
            }
        }
        if !self.draws.is_empty() {
            set(DRAWS, text(draws_text(self.draws)));
        }
        if !self.payment.is_empty() {
            set(PAYMENT_INTENT_ID, text(self.payment));
        }
        item
    }
}

/// An update of a record from one state to another: its expressions, names and values.
#[derive(Debug)]
pub struct Step {
    pub update: String,
    pub condition: &'static str,
    pub names: HashMap<String, String>,
    pub values: Item,
}

impl Step {
    /// `draws` are those taken by this very step; empty where it takes none.
    pub fn of(
        reservation: &str,
        from: State,
        to: State,
        payment: &str,
        draws: &[Draw],
        at: Millis,
    ) -> Self {
        let mut step = Self {
            update: "SET #s = :s, #u = :u".to_owned(),
            condition: "#s = :f",
            names: HashMap::new(),
            values: Item::new(),
        };
        step.name("#s", STATUS);
        step.name("#u", UPDATED_AT);
        step.value(":f", text(from.name()));
        step.value(":s", text(to.name()));
        step.value(":u", text(at.to_text()));
        if to == State::Confirmed {
            step.set("#o", ORDER_ID, ":o", text(order_of(reservation)));
            if !payment.is_empty() {
                step.set("#p", PAYMENT_INTENT_ID, ":p", text(payment));
            }
        } else {
            step.set("#g", PURGE_AT, ":g", number(purge_at(at)));
        }
        if !draws.is_empty() {
            step.set("#d", DRAWS, ":d", text(draws_text(draws)));
        }
        step.name("#b", EXPIRY_BUCKET);
        step.update += " REMOVE #b";
        if to == State::Confirmed {
            step.name("#g", PURGE_AT);
            step.update += ", #g";
        }
        step
    }

    fn name(&mut self, alias: &str, name: &str) {
        self.names.insert(alias.to_owned(), name.to_owned());
    }

    fn value(&mut self, alias: &str, value: AttributeValue) {
        self.values.insert(alias.to_owned(), value);
    }

    fn set(&mut self, alias: &str, name: &str, value_alias: &str, value: AttributeValue) {
        self.update += &format!(", {alias} = {value_alias}");
        self.name(alias, name);
        self.value(value_alias, value);
    }
}

/// `stripe:units`, separated by commas.
fn draws_text(draws: &[Draw]) -> String {
    let each: Vec<String> = draws
        .iter()
        .map(|draw| format!("{}:{}", draw.stripe, draw.units))
        .collect();
    each.join(",")
}

// ---- Reading ------------------------------------------------------------------------------------

/// The attribute as text; `None` where there is none, or it is NULL.
fn maybe_text<'a>(item: &'a Item, name: &str) -> Result<Option<&'a str>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is no text")),
    }
}

fn read_text<'a>(item: &'a Item, name: &str) -> Result<&'a str, String> {
    maybe_text(item, name)?.ok_or_else(|| format!("{name} is missing"))
}

/// The attribute as a number of the wanted kind; `None` where there is none, or it is NULL.
pub fn maybe_number<N: std::str::FromStr>(item: &Item, name: &str) -> Result<Option<N>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::N(digits)) => match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name} is {digits}, out of its range")),
        },
        Some(_) => Err(format!("{name} is no number")),
    }
}

impl Record {
    /// Reads a stored item.
    ///
    /// # Errors
    /// When an attribute is missing or not as the server writes it: names it.
    pub fn read(item: &Item) -> Result<Self, String> {
        let state = read_text(item, STATUS)?;
        let state = State::parse(state).ok_or_else(|| format!("{STATUS} is {state:?}"))?;
        let order = maybe_text(item, ORDER_ID)?.map(str::to_owned);
        let expires_at = maybe_number(item, EXPIRES_AT)?.map(Millis);
        match state {
            State::Confirmed if order.is_none() => return Err(format!("{ORDER_ID} is missing")),
            State::Held if expires_at.is_none() => return Err(format!("{EXPIRES_AT} is missing")),
            _ => {}
        }
        Ok(Self {
            event: read_text(item, EVENT_ID)?.to_owned(),
            state,
            qty: maybe_number(item, QTY)?.ok_or_else(|| format!("{QTY} is missing"))?,
            hash: read_text(item, REQUEST_HASH)?.to_owned(),
            draws: match maybe_text(item, DRAWS)? {
                Some(text) => parse_draws(text)?,
                None => Vec::new(),
            },
            seats: read_seats(item)?,
            order,
            expires_at,
            at: read_timestamp(item)?,
        })
    }
}

fn read_seats(item: &Item) -> Result<Vec<String>, String> {
    match item.get(SEATS) {
        None => Ok(Vec::new()),
        Some(AttributeValue::L(seats)) => seats
            .iter()
            .map(|seat| match seat {
                AttributeValue::S(id) => Ok(id.clone()),
                _ => Err(format!("{SEATS} has what is no text")),
            })
            .collect(),
        Some(_) => Err(format!("{SEATS} is no list")),
    }
}

fn read_timestamp(item: &Item) -> Result<Millis, String> {
    let Some(text) = maybe_text(item, UPDATED_AT)? else {
        return Ok(Millis(0));
    };
    DateTime::from_str(text, DateTimeFormat::DateTime)
        .ok()
        .and_then(|at| at.to_millis().ok())
        .and_then(|millis| u64::try_from(millis).ok())
        .map(Millis)
        .ok_or_else(|| format!("{UPDATED_AT} is {text:?}, want ISO 8601 in UTC"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders are those of the server's README; the rest was computed by another program from
    /// the format's description.
    #[test]
    fn orders_and_fingerprints_are_the_servers() {
        let order = order_of("rsv_abc123");
        assert_eq!(order, "ord_97c42ccd0e7f05c61e74ba7eda007525");
        assert_eq!(order_of("rsv_1"), "ord_aa7e6dcb115a8d20c240ed6dbb393995");
        let hash = hash_of_quantity("evt_2025_1001", 2);
        assert_eq!(hash, "65fd69e9dac157469589889bc0eda924");
        let whatever = hash_of_whatever("evt_2025_1001");
        assert_eq!(whatever, "dc07775af1e341a13c5c6d45b37b442e");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let draws = [
            Draw {
                stripe: 0,
                units: 1,
            },
            Draw {
                stripe: 12,
                units: 2,
            },
        ];
        let new = NewRecord {
            reservation: "r1",
            event: "evt",
            qty: 3,
            hash: "00",
            payment: "pi",
            state: State::Held,
            draws: &draws,
            hold_until: Millis(120_500),
            at: Millis(60_250),
        };
        let mut item = new.item();
        let read = Record::read(&item).unwrap();
        assert_eq!((read.state, read.qty), (State::Held, 3));
        assert_eq!(read.draws, draws);
        assert_eq!(read.expires_at, Some(Millis(120_500)));
        assert_eq!(read.at, Millis(60_250));
        assert_eq!(item[DRAWS], text("0:1,12:2"));
        assert_eq!(item[CREATED_AT], text("1970-01-01T00:01:00.25Z"));
        // FNV-1a of "r1" by its published constants.
        assert_eq!(item[EXPIRY_BUCKET], text("2#12"));
        item.insert(DRAWS.to_owned(), text("0-1"));
        let error = Record::read(&item).unwrap_err();
        assert!(error.contains("draws"), "{error}");
    }

    #[test]
    fn an_order_is_never_purged_and_no_longer_expires() {
        let step = Step::of("r1", State::Held, State::Confirmed, "", &[], Millis(0));
        assert_eq!(step.update, "SET #s = :s, #u = :u, #o = :o REMOVE #b, #g");
        assert_eq!(step.names["#g"], PURGE_AT);
        let step = Step::of("r1", State::Held, State::Released, "pi", &[], Millis(0));
        assert_eq!(step.update, "SET #s = :s, #u = :u, #g = :g REMOVE #b");
    }
}
