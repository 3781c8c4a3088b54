//! Durations in human notation: `250ms`, `1m30s`, `1.5s`, `50us`.

use std::time::Duration;

/// Units, longest first: a duration is displayed in the longest unit that represents it exactly.
const UNITS: [(&str, u128); 7] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// Unit of a number without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultUnit {
    /// A number without a unit is invalid.
    Refused,
    Seconds,
    Millis,
}

/// Parses a duration with units; without a unit only `0`, and whole numbers in the unit of `bare`.
///
/// # Errors
/// The problem of the text.
pub(super) fn parse_span(text: &str, bare: DefaultUnit) -> Result<Duration, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        let number: u64 = text.parse().map_err(|_| "is longer than any clock".to_owned())?;
        return match (number, bare) {
            (0, _) => Ok(Duration::ZERO),
            (seconds, DefaultUnit::Seconds) => Ok(Duration::from_secs(seconds)),
            (millis, DefaultUnit::Millis) => Ok(Duration::from_millis(millis)),
            (_, DefaultUnit::Refused) => Err("has no unit (us, ms, s, m, h)".to_owned()),
        };
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest)?;
        total = total.checked_add(part).ok_or_else(|| "is longer than any clock".to_owned())?;
        rest = after;
    }
    if text.is_empty() {
        return Err("is not a time".to_owned());
    }
    u64::try_from(total)
        .map(Duration::from_nanos)
        .map_err(|_| "is longer than any clock".to_owned())
}

/// Parses one number and its unit from the front of `text`; returns nanoseconds and the rest.
fn parse_part(text: &str) -> Result<(u128, &str), String> {
    let not_a_time = || "is not a time".to_owned();
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(|| "has no unit at its end".to_owned())?;
    let (number, rest) = text.split_at(number_ends);
    let unit_ends = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit_ends);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(not_a_time)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits are nanoseconds of a second; more are a typing error.
    if whole.is_empty() || whole.len() > 18 || fraction.len() > 9 {
        return Err(not_a_time());
    }
    let whole: u128 = whole.parse().map_err(|_| not_a_time())?;
    let fraction_nanos = match fraction {
        "" => 0,
        digits => {
            let value: u128 = digits.parse().map_err(|_| not_a_time())?;
            value * nanos / 10u128.pow(digits.len() as u32)
        }
    };
    Ok((whole * nanos + fraction_nanos, after))
}

/// Parses a duration given as a command argument, with a unit: `250ms`, `1m30s`.
///
/// # Errors
/// The problem of the text, to be displayed after the text.
pub(crate) fn parse_with_unit(text: &str) -> Result<Duration, String> {
    parse_span(text, DefaultUnit::Refused)
}

/// The duration in the longest unit that represents it exactly: `30m`, `250ms`, `90s`.
pub(crate) fn format_span(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos == 0 {
        return "0".to_owned();
    }
    UNITS
        .iter()
        .find(|(_, unit)| nanos.is_multiple_of(*unit))
        .map_or_else(|| format!("{nanos}ns"), |(name, unit)| format!("{}{name}", nanos / unit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_parsed_in_common_forms() {
        for (text, nanos) in [
            ("250ms", 250_000_000),
            ("30s", 30_000_000_000),
            ("5m", 300_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.25s", 250_000_000),
            ("50us", 50_000),
            ("50µs", 50_000),
            ("0", 0),
            ("0s", 0),
        ] {
            let span = parse_span(text, DefaultUnit::Refused).unwrap();
            assert_eq!(span, Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn number_without_unit_needs_a_default_unit() {
        let three_hundred = |bare| parse_span("300", bare);
        assert_eq!(three_hundred(DefaultUnit::Seconds), Ok(Duration::from_secs(300)));
        assert_eq!(three_hundred(DefaultUnit::Millis), Ok(Duration::from_millis(300)));
        let refused = three_hundred(DefaultUnit::Refused).unwrap_err();
        assert!(refused.contains("no unit"));
    }

    #[test]
    fn nonsense_is_refused_and_never_overflows() {
        for text in [
            "",
            "s",
            "-1s",
            "1x",
            "1s2",
            "s1",
            "1..5s",
            ".5s",
            "1.s5",
            " 1s",
            "1 s",
            "1e3s",
            "∞",
            "99999999999999999999",
            "999999999999999999h",
            "18446744073709551616s",
            "1.0000000001s",
        ] {
            assert!(parse_span(text, DefaultUnit::Seconds).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn shown_durations_parse_to_the_same_value() {
        for nanos in [1, 50_000, 250_000_000, 90_000_000_000, 1_800_000_000_000] {
            let span = Duration::from_nanos(nanos);
            assert_eq!(parse_span(&format_span(span), DefaultUnit::Refused), Ok(span));
        }
        assert_eq!(format_span(Duration::from_secs(1_800)), "30m");
    }
}
