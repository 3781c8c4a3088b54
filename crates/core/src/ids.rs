//! Identifiers, valid by construction.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits;
use crate::prices::SeatPrices;

/// Why a text is not a valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("is empty; must be 1 to {max} bytes of [A-Za-z0-9._:-]", max = limits::ID_BYTES_MAX)]
    Empty,
    #[error("has {0} bytes; must be 1 to {max} bytes of [A-Za-z0-9._:-]", max = limits::ID_BYTES_MAX)]
    TooLong(usize),
    #[error("has {0:?} at byte {1}; must be 1 to {max} bytes of [A-Za-z0-9._:-]", max = limits::ID_BYTES_MAX)]
    Character(char, usize),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > limits::ID_BYTES_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    // Bytes first: on the hot path nearly every id is valid, and the scan is branch-predictable. A table of the bytes saves
    // instructions and costs time (ADR 0022).
    if text.bytes().all(is_id_byte) {
        return Ok(());
    }
    let (at, bad) = text
        .char_indices()
        .find(|(_, c)| !c.is_ascii() || !is_id_byte(*c as u8))
        .unwrap_or((0, char::REPLACEMENT_CHARACTER));
    Err(IdError::Character(bad, at))
}

const fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-')
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                check(&text).map(|()| Self(text))
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// An event id, as clients send it.
    EventId
}

identifier! {
    /// The idempotency key of every call that changes stock.
    ReservationId
}

impl ReservationId {
    /// Creates the id of a release record: a record that carries the stock of many expired holds until it is returned.
    /// Clients cannot send such an id, because `#` is not legal in client ids.
    pub(crate) fn release_record(token: u128) -> Self {
        Self(format!("{RELEASE_RECORD_PREFIX}{token:032x}"))
    }

    pub fn is_release_record(&self) -> bool {
        self.0.starts_with(RELEASE_RECORD_PREFIX)
    }

    /// Parses the id of a stored record: a client id or the id of a release record.
    ///
    /// # Errors
    /// For any other text.
    pub fn stored(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix(RELEASE_RECORD_PREFIX) {
            Some(rest) => check(rest).map(|()| Self(text.to_owned())),
            None => text.parse(),
        }
    }
}

/// Prefix of release record ids.
const RELEASE_RECORD_PREFIX: &str = "slip#";

identifier! {
    /// A seat id, as clients send it.
    SeatId
}

/// Seats of one reservation, distinct, in the requested order, with their prices if the reservation has them on record.
/// Shared, because every answer about the reservation carries them; `None` for a quantity event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    ids: Arc<[SeatId]>,
    pub prices: Option<SeatPrices>,
}

impl Seats {
    /// The same seats with these prices, or without any.
    #[must_use]
    pub fn with_prices(mut self, prices: Option<SeatPrices>) -> Self {
        self.prices = prices;
        self
    }
}

impl Deref for Seats {
    type Target = [SeatId];

    fn deref(&self) -> &[SeatId] {
        &self.ids
    }
}

impl From<Vec<SeatId>> for Seats {
    fn from(ids: Vec<SeatId>) -> Self {
        Self { ids: ids.into(), prices: None }
    }
}

impl<const N: usize> From<[SeatId; N]> for Seats {
    fn from(ids: [SeatId; N]) -> Self {
        Self { ids: ids.into(), prices: None }
    }
}

impl FromIterator<SeatId> for Seats {
    fn from_iter<T: IntoIterator<Item = SeatId>>(ids: T) -> Self {
        Self { ids: ids.into_iter().collect(), prices: None }
    }
}

/// Key of a stripe's item: `event` for stripe 0, `event#3` for stripe 3. `#` is not legal in an event id, so no event
/// can collide with another's stripe.
pub fn stripe_key(event: &EventId, index: u16) -> String {
    match index {
        0 => event.as_str().to_owned(),
        n => format!("{event}#{n}"),
    }
}

/// Key of a confirmation counter's item: `event#c3`. No stripe has such a key, and no client can send such an id.
pub fn counter_key(event: &EventId, counter: u16) -> String {
    format!("{event}#c{counter}")
}

/// Partition key of a seat's item for an event with `keys` partition keys: the event id if there is one key (the
/// original layout), else `event#n`.
///
/// The distribution is stored data: it must not change between versions.
pub fn seat_key(event: &EventId, seat: &SeatId, keys: u16) -> String {
    match keys {
        0 | 1 => event.as_str().to_owned(),
        keys => stripe_key(event, (fnv1a(seat.as_str()) % u32::from(keys)) as u16),
    }
}

/// FNV-1a, 32 bits, by its published constants.
pub(crate) fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Order id of a confirmed reservation: 128 bits derived from the reservation id, so that every process returns the
/// same one for every repeat. Displayed as `ord_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderId([u8; 16]);

impl OrderId {
    pub fn of(reservation: &ReservationId) -> Self {
        Self(digest(&[b"order/v1", reservation.as_str().as_bytes()]))
    }
}

impl OrderId {
    // Formatted by hand, because every answered commit formats one.
    pub fn to_text(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"ord_00000000000000000000000000000000";
        for (digits, byte) in text[4..].chunks_exact_mut(2).zip(self.0) {
            digits[0] = DIGITS[usize::from(byte >> 4)];
            digits[1] = DIGITS[usize::from(byte & 15)];
        }
        String::from_utf8(text.to_vec()).expect("hex digits are ASCII")
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Hash of a payment_intent_id: compares payments without their text. Never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PaymentHash(NonZeroU64);

impl PaymentHash {
    /// `None` for an empty text: no payment was given.
    pub fn of(payment_intent: &str) -> Option<Self> {
        if payment_intent.is_empty() {
            return None;
        }
        // FNV-1a, 64 bits, by its published constants.
        let hash = payment_intent.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Some(Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MAX)))
    }
}

/// A text is not an order id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be ord_ and 32 lower-case hex digits")]
pub struct OrderIdError;

impl std::str::FromStr for OrderId {
    type Err = OrderIdError;

    fn from_str(text: &str) -> Result<Self, OrderIdError> {
        let digits = text.strip_prefix("ord_").ok_or(OrderIdError)?;
        let canonical = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() != 32 || !digits.bytes().all(canonical) {
            return Err(OrderIdError);
        }
        let value = u128::from_str_radix(digits, 16).map_err(|_| OrderIdError)?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hash of event, quantity and seats, by which two requests are recognised as the same request. Stored with the
/// reservation; a repeat with another fingerprint is an idempotency conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Fingerprint of a request for `qty` units.
    pub fn of_quantity(event: &EventId, qty: u32) -> Self {
        Self(digest(&[b"quantity/v1", event.as_str().as_bytes(), &qty.to_be_bytes()]))
    }

    /// Fingerprint of a request for these seats, independent of their order.
    pub fn of_seats(event: &EventId, seats: &[SeatId]) -> Self {
        let mut sorted: Vec<&[u8]> = seats.iter().map(|s| s.as_str().as_bytes()).collect();
        sorted.sort_unstable();
        let mut parts: Vec<&[u8]> = vec![b"seats/v1", event.as_str().as_bytes()];
        parts.append(&mut sorted);
        Self(digest(&parts))
    }

    /// Fingerprint of a request that refers to the recorded stock.
    pub(crate) fn of_recorded_stock(event: &EventId) -> Self {
        Self(digest(&[b"whatever/v1", event.as_str().as_bytes()]))
    }
}

/// The first 128 bits of SHA-256 over length-prefixed parts: no two part lists share an encoding.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ids_have_only_the_characters_of_the_contract() {
        let valid = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("._:-".chars());
        let valid: Vec<char> = valid.collect();
        for character in (0..=0x17f).filter_map(char::from_u32) {
            let expected = match valid.contains(&character) {
                true => Ok(()),
                false => Err(IdError::Character(character, 2)),
            };
            assert_eq!(check(&format!("id{character}x")), expected, "{character:?}");
        }
    }

    /// Stored data: `bench/baseline` writes the same format with its own code and is tested with the same
    /// examples.
    #[test]
    fn derived_ids_are_stable() {
        let order = OrderId::of(&"rsv_abc123".parse().unwrap());
        let text = order.to_text();
        assert_eq!(text, "ord_97c42ccd0e7f05c61e74ba7eda007525");
        assert_eq!(text.parse(), Ok(order));
        let hex = |Fingerprint(bytes)| format!("{:032x}", u128::from_be_bytes(bytes));
        let event = "evt_2025_1001".parse().unwrap();
        let quantity = hex(Fingerprint::of_quantity(&event, 2));
        assert_eq!(quantity, "65fd69e9dac157469589889bc0eda924");
        let whatever = hex(Fingerprint::of_recorded_stock(&event));
        assert_eq!(whatever, "dc07775af1e341a13c5c6d45b37b442e");
    }
}
