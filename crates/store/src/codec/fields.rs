//! Single attributes, to and from the SDK's types. A value that does not fit is an error that names the attribute,
//! because other programs may write to these tables.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_sdk_dynamodb::types::AttributeValue;

use inventory_core::time::UnixMillis;

/// An item, a key, or the values of an expression.
pub(crate) type Item = HashMap<String, AttributeValue>;

// ---- Writing ------------------------------------------------------------------------------------

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The values of an expression, or a key.
pub(super) fn values<const N: usize>(pairs: [(&str, AttributeValue); N]) -> Item {
    let owned = |(name, value): (&str, AttributeValue)| (name.to_owned(), value);
    pairs.into_iter().map(owned).collect()
}

/// Names behind the aliases of an expression.
pub(super) fn names(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(alias, name): &(&str, &str)| ((*alias).to_owned(), (*name).to_owned());
    pairs.iter().map(owned).collect()
}

/// ISO 8601 in UTC, with milliseconds unless they are zero: `2024-01-01T12:00:00.25Z`.
pub(crate) fn timestamp(at: UnixMillis) -> String {
    let at = DateTime::from_millis(i64::try_from(at.0).unwrap_or(i64::MAX));
    at.fmt(DateTimeFormat::DateTime).unwrap_or_default()
}

// ---- Reading ------------------------------------------------------------------------------------

/// The attribute; `None` if it is missing or NULL, which some programs write for "nothing".
fn present<'a>(item: &'a Item, name: &str) -> Option<&'a AttributeValue> {
    item.get(name).filter(|value| !value.is_null())
}

pub(super) fn maybe_text<'a>(item: &'a Item, name: &str) -> Result<Option<&'a str>, String> {
    match present(item, name) {
        Some(AttributeValue::S(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is no text")),
        None => Ok(None),
    }
}

pub(super) fn read_text<'a>(item: &'a Item, name: &str) -> Result<&'a str, String> {
    maybe_text(item, name)?.ok_or_else(|| format!("{name} is missing"))
}

pub(super) fn maybe_number<N>(item: &Item, name: &str) -> Result<Option<N>, String>
where
    N: std::str::FromStr,
{
    match present(item, name) {
        Some(AttributeValue::N(digits)) => {
            digits.parse().map(Some).map_err(|_| format!("{name} is {digits}, out of its range"))
        }
        Some(_) => Err(format!("{name} is no number")),
        None => Ok(None),
    }
}

pub(super) fn read_number<N: std::str::FromStr>(item: &Item, name: &str) -> Result<N, String> {
    maybe_number(item, name)?.ok_or_else(|| format!("{name} is missing"))
}

/// An identifier, an order id, or any other type whose error explains why a text is invalid.
pub(super) fn read_parsed<T>(item: &Item, name: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    maybe_parsed(item, name)?.ok_or_else(|| format!("{name} is missing"))
}

/// As [`read_parsed`], for an optional attribute.
pub(super) fn maybe_parsed<T>(item: &Item, name: &str) -> Result<Option<T>, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let Some(text) = maybe_text(item, name)? else {
        return Ok(None);
    };
    let parsed = text.parse();
    parsed.map(Some).map_err(|error| format!("{name} is {text:?}: {error}"))
}

/// Reads the format of [`timestamp`]; 0 if the attribute is missing.
pub(super) fn read_timestamp(item: &Item, name: &str) -> Result<UnixMillis, String> {
    let Some(text) = maybe_text(item, name)? else {
        return Ok(UnixMillis(0));
    };
    let at = DateTime::from_str(text, DateTimeFormat::DateTime).ok();
    let millis = at.and_then(|at| at.to_millis().ok());
    let millis = millis.and_then(|millis| u64::try_from(millis).ok());
    millis.map(UnixMillis).ok_or_else(|| format!("{name} is {text:?}, want ISO 8601 in UTC"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_written_as_iso_8601_and_read_back() {
        for (millis, written) in [
            (1_704_110_400_000, "2024-01-01T12:00:00Z"),
            (1_704_110_400_250, "2024-01-01T12:00:00.25Z"),
            (1_704_110_400_007, "2024-01-01T12:00:00.007Z"),
        ] {
            assert_eq!(timestamp(UnixMillis(millis)), written);
            let item = values([("t", text(written))]);
            assert_eq!(read_timestamp(&item, "t").unwrap(), UnixMillis(millis));
        }
        let nothing = values([("t", AttributeValue::Null(true))]);
        assert_eq!(read_timestamp(&nothing, "t").unwrap(), UnixMillis(0));
        for bad in [text("yesterday"), text("1960-01-01T00:00:00Z"), number(7)] {
            let error = read_timestamp(&values([("t", bad)]), "t").unwrap_err();
            assert!(error.starts_with("t is"), "{error}");
        }
    }

    #[test]
    fn null_reads_as_missing() {
        let item = values([("a", AttributeValue::Null(true))]);
        assert_eq!(maybe_text(&item, "a").unwrap(), None);
        assert_eq!(maybe_number::<u64>(&item, "a").unwrap(), None);
        assert_eq!(read_text(&item, "a").unwrap_err(), "a is missing");
    }
}
