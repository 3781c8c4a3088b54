//! A reservation's record in the server's format: names, order id, request hash, expressions.
//!
//! Not here: what a record means for a call (`rules`), calls to the store.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest, Sha256};

use crate::limits::{EXPIRY_SHARDS, TOMBSTONE_RETENTION};

/// An item, a key, or the values of an expression.
pub type AttributeMap = HashMap<String, AttributeValue>;

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
    /// Current time of the system clock.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// ISO 8601 in UTC, as stored.
    pub fn to_text(self) -> String {
        let at = DateTime::from_millis(i64::try_from(self.0).unwrap_or(i64::MAX));
        at.fmt(DateTimeFormat::DateTime).unwrap_or_default()
    }
}

/// State of a reservation, by its stored name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredState {
    Held,
    Confirmed,
    Released,
    Expired,
    Refunded,
}

impl StoredState {
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
        [Self::Confirmed, Self::Held, Self::Released, Self::Expired, Self::Refunded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Units allocated from one stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeUnits {
    pub stripe: u16,
    pub units: u32,
}

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationItem {
    pub event: String,
    pub state: StoredState,
    pub qty: u32,
    pub allocation: Vec<StripeUnits>,
    /// Seats of a seated event, written by the server only.
    pub seats: Vec<String>,
    pub order: Option<String>,
    pub expires_at: Option<Millis>,
    pub updated_at: Millis,
}

/// Content of a reservation's first record.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    pub reservation: &'a str,
    pub event: &'a str,
    pub qty: u32,
    pub payment: &'a str,
    pub state: StoredState,
    pub allocation: &'a [StripeUnits],
    /// Expiry of a hold.
    pub hold_until: Millis,
    pub now: Millis,
}

/// `ord_` and 128 bits derived from the reservation id alone: every process returns the same order for a
/// retry.
pub fn order_id(reservation: &str) -> String {
    format!("ord_{}", digest(&[b"order/v1", reservation.as_bytes()]))
}

/// Equal for two calls that ask for the same quantity of the same event.
pub fn request_hash(event: &str, qty: u32) -> String {
    digest(&[b"quantity/v1", event.as_bytes(), &qty.to_be_bytes()])
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

/// Partition of a hold in the expiry index: minute of expiry and FNV-1a of the id modulo the shards.
fn expiry_bucket(reservation: &str, expires_at: Millis) -> String {
    let hash = reservation
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}#{}", expires_at.0 / 60_000, hash % EXPIRY_SHARDS)
}

fn purge_at(now: Millis) -> u64 {
    (now.0 / 1_000).saturating_add(TOMBSTONE_RETENTION.as_secs())
}

// ---- Writing ------------------------------------------------------------------------------------

pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Condition of a put of [`NewRecord::item`], and its alias.
pub const NEW_CONDITION: &str = "attribute_not_exists(#k)";
pub const NEW_NAMES: (&str, &str) = ("#k", RESERVATION_ID);

impl NewRecord<'_> {
    /// The whole item.
    pub fn item(&self) -> AttributeMap {
        let mut item = AttributeMap::with_capacity(12);
        let mut set = |name: &str, value| item.insert(name.to_owned(), value);
        let now = self.now.to_text();
        set(RESERVATION_ID, text(self.reservation));
        set(EVENT_ID, text(self.event));
        set(QTY, number(self.qty));
        set(REQUEST_HASH, text(request_hash(self.event, self.qty)));
        set(CREATED_AT, text(now.clone()));
        set(UPDATED_AT, text(now));
        set(STATUS, text(self.state.name()));
        match self.state {
            StoredState::Held => {
                set(EXPIRES_AT, number(self.hold_until.0));
                let bucket = expiry_bucket(self.reservation, self.hold_until);
                set(EXPIRY_BUCKET, text(bucket));
            }
            StoredState::Confirmed => {
                set(ORDER_ID, text(order_id(self.reservation)));
            }
            StoredState::Released | StoredState::Expired | StoredState::Refunded => {
                set(PURGE_AT, number(purge_at(self.now)));
            }
        }
        if !self.allocation.is_empty() {
            set(DRAWS, text(allocation_text(self.allocation)));
        }
        if !self.payment.is_empty() {
            set(PAYMENT_INTENT_ID, text(self.payment));
        }
        item
    }
}

/// Update of a record from one state to another: expressions, names and values.
#[derive(Debug)]
pub struct RecordUpdate {
    pub update: String,
    pub condition: &'static str,
    pub names: HashMap<String, String>,
    pub values: AttributeMap,
}

impl RecordUpdate {
    /// `allocation` holds the units taken by this update; empty for an update that takes none.
    pub fn new(
        reservation: &str,
        from: StoredState,
        to: StoredState,
        payment: &str,
        allocation: &[StripeUnits],
        now: Millis,
    ) -> Self {
        let mut update = Self {
            update: "SET #s = :s, #u = :u".to_owned(),
            condition: "#s = :f",
            names: HashMap::new(),
            values: AttributeMap::new(),
        };
        update.name("#s", STATUS);
        update.name("#u", UPDATED_AT);
        update.value(":f", text(from.name()));
        update.value(":s", text(to.name()));
        update.value(":u", text(now.to_text()));
        if to == StoredState::Confirmed {
            update.set("#o", ORDER_ID, ":o", text(order_id(reservation)));
            if !payment.is_empty() {
                update.set("#p", PAYMENT_INTENT_ID, ":p", text(payment));
            }
        } else {
            update.set("#g", PURGE_AT, ":g", number(purge_at(now)));
        }
        if !allocation.is_empty() {
            update.set("#d", DRAWS, ":d", text(allocation_text(allocation)));
        }
        update.name("#b", EXPIRY_BUCKET);
        update.update += " REMOVE #b";
        if to == StoredState::Confirmed {
            update.name("#g", PURGE_AT);
            update.update += ", #g";
        }
        update
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
fn allocation_text(allocation: &[StripeUnits]) -> String {
    let parts: Vec<String> =
        allocation.iter().map(|part| format!("{}:{}", part.stripe, part.units)).collect();
    parts.join(",")
}

// ---- Reading ------------------------------------------------------------------------------------

/// The attribute as text; `None` if it is absent or NULL.
fn optional_text<'a>(item: &'a AttributeMap, name: &str) -> Result<Option<&'a str>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a string")),
    }
}

fn required_text<'a>(item: &'a AttributeMap, name: &str) -> Result<&'a str, String> {
    optional_text(item, name)?.ok_or_else(|| format!("{name} is missing"))
}

/// The attribute as a number; `None` if it is absent or NULL.
pub fn optional_number<N: std::str::FromStr>(
    item: &AttributeMap,
    name: &str,
) -> Result<Option<N>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::N(digits)) => match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name} is {digits}: out of range")),
        },
        Some(_) => Err(format!("{name} is not a number")),
    }
}

impl ReservationItem {
    /// Reads a stored item.
    ///
    /// # Errors
    /// Names the attribute that is missing or malformed.
    pub fn read(item: &AttributeMap) -> Result<Self, String> {
        let state = required_text(item, STATUS)?;
        let state = StoredState::parse(state).ok_or_else(|| format!("{STATUS} is {state:?}"))?;
        let order = optional_text(item, ORDER_ID)?.map(str::to_owned);
        let expires_at = optional_number(item, EXPIRES_AT)?.map(Millis);
        match state {
            StoredState::Confirmed if order.is_none() => {
                return Err(format!("{ORDER_ID} is missing"));
            }
            StoredState::Held if expires_at.is_none() => {
                return Err(format!("{EXPIRES_AT} is missing"));
            }
            _ => {}
        }
        Ok(Self {
            event: required_text(item, EVENT_ID)?.to_owned(),
            state,
            qty: optional_number(item, QTY)?.ok_or_else(|| format!("{QTY} is missing"))?,
            allocation: match optional_text(item, DRAWS)? {
                Some(text) => parse_allocation(text)?,
                None => Vec::new(),
            },
            seats: read_seats(item)?,
            order,
            expires_at,
            updated_at: read_timestamp(item)?,
        })
    }
}

fn read_seats(item: &AttributeMap) -> Result<Vec<String>, String> {
    match item.get(SEATS) {
        None => Ok(Vec::new()),
        Some(AttributeValue::L(seats)) => seats
            .iter()
            .map(|seat| match seat {
                AttributeValue::S(id) => Ok(id.clone()),
                _ => Err(format!("{SEATS} contains a value that is not a string")),
            })
            .collect(),
        Some(_) => Err(format!("{SEATS} is not a list")),
    }
}

fn read_timestamp(item: &AttributeMap) -> Result<Millis, String> {
    let Some(text) = optional_text(item, UPDATED_AT)? else {
        return Ok(Millis(0));
    };
    DateTime::from_str(text, DateTimeFormat::DateTime)
        .ok()
        .and_then(|at| at.to_millis().ok())
        .and_then(|millis| u64::try_from(millis).ok())
        .map(Millis)
        .ok_or_else(|| format!("{UPDATED_AT} is {text:?}; expected ISO 8601 in UTC"))
}

fn parse_allocation(text: &str) -> Result<Vec<StripeUnits>, String> {
    let parse = |part: &str| {
        let (stripe, units) = part.split_once(':')?;
        Some(StripeUnits { stripe: stripe.parse().ok()?, units: units.parse().ok()? })
    };
    text.split(',')
        .map(|part| {
            parse(part).ok_or_else(|| format!("{DRAWS} is {text:?}; expected stripe:units,…"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order ids are those of the server's README; the hash was computed by another program from the
    /// description of the format.
    #[test]
    fn order_ids_and_hashes_equal_the_servers() {
        let order = order_id("rsv_abc123");
        assert_eq!(order, "ord_97c42ccd0e7f05c61e74ba7eda007525");
        assert_eq!(order_id("rsv_1"), "ord_aa7e6dcb115a8d20c240ed6dbb393995");
        let hash = request_hash("evt_2025_1001", 2);
        assert_eq!(hash, "65fd69e9dac157469589889bc0eda924");
    }

    #[test]
    fn a_written_record_reads_back() {
        let units = |stripe, units| StripeUnits { stripe, units };
        let allocation = [units(0, 1), units(12, 2)];
        let new = NewRecord {
            reservation: "r1",
            event: "evt",
            qty: 3,
            payment: "pi",
            state: StoredState::Held,
            allocation: &allocation,
            hold_until: Millis(120_500),
            now: Millis(60_250),
        };
        let mut item = new.item();
        let read = ReservationItem::read(&item).unwrap();
        assert_eq!((read.state, read.qty), (StoredState::Held, 3));
        assert_eq!(read.allocation, allocation);
        assert_eq!(read.expires_at, Some(Millis(120_500)));
        assert_eq!(read.updated_at, Millis(60_250));
        assert_eq!(item[DRAWS], text("0:1,12:2"));
        assert_eq!(item[CREATED_AT], text("1970-01-01T00:01:00.25Z"));
        // FNV-1a of "r1" by its published constants.
        assert_eq!(item[EXPIRY_BUCKET], text("2#12"));
        item.insert(DRAWS.to_owned(), text("0-1"));
        let error = ReservationItem::read(&item).unwrap_err();
        assert!(error.contains("draws"), "{error}");
    }

    #[test]
    fn a_confirmed_record_is_never_purged_and_leaves_the_expiry_index() {
        use StoredState::{Confirmed, Held, Released};
        let update = RecordUpdate::new("r1", Held, Confirmed, "", &[], Millis(0));
        assert_eq!(update.update, "SET #s = :s, #u = :u, #o = :o REMOVE #b, #g");
        assert_eq!(update.names["#g"], PURGE_AT);
        let update = RecordUpdate::new("r1", Held, Released, "pi", &[], Millis(0));
        assert_eq!(update.update, "SET #s = :s, #u = :u, #g = :g REMOVE #b");
    }
}
