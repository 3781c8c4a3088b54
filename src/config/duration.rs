//! Durations in human notation: `250ms`, `1m30s`, `1.5s`, `50us`.

use std::time::Duration;

use humantime::DurationError;

/// Units, longest first: a duration is displayed in the longest unit that represents it exactly.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const NO_UNIT: &str = "has no unit (us, ms, s, m, h)";
const TOO_LONG: &str = "is too long, or has more decimals than its unit takes";

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
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: u64 = text.parse().map_err(|_| TOO_LONG.to_owned())?;
        return match (number, bare) {
            (0, _) => Ok(Duration::ZERO),
            (seconds, DefaultUnit::Seconds) => Ok(Duration::from_secs(seconds)),
            (millis, DefaultUnit::Millis) => Ok(Duration::from_millis(millis)),
            (_, DefaultUnit::Refused) => Err(NO_UNIT.to_owned()),
        };
    }
    // The parser would read `1 0s` as ten seconds and `30M` as months.
    if text.contains(|c: char| c.is_whitespace() || c.is_uppercase()) {
        return Err("is not a time".to_owned());
    }
    humantime::parse_duration(text).map_err(|error| match error {
        DurationError::UnknownUnit { unit, .. } if unit.is_empty() => NO_UNIT.to_owned(),
        DurationError::UnknownUnit { unit, .. } => format!("has the unknown unit {unit:?}"),
        DurationError::NumberOverflow => TOO_LONG.to_owned(),
        DurationError::InvalidCharacter(_)
        | DurationError::NumberExpected(_)
        | DurationError::Empty => "is not a time".to_owned(),
    })
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
    fn errors_name_the_problem() {
        for (text, problem) in [
            ("30", NO_UNIT),
            ("1m30", NO_UNIT),
            ("1x", "has the unknown unit \"x\""),
            ("1e3s", "has the unknown unit \"e\""),
            ("99999999999999999999s", TOO_LONG),
            ("1.0000000001s", TOO_LONG),
            ("30M", "is not a time"),
            ("1 0s", "is not a time"),
            ("soon", "is not a time"),
            ("", "is not a time"),
        ] {
            assert_eq!(parse_span(text, DefaultUnit::Refused), Err(problem.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_overflows() {
        for text in [
            "s",
            "-1s",
            "1s2",
            "s1",
            "1..5s",
            ".5s",
            "1.s5",
            " 1s",
            "1 s",
            "∞",
            "99999999999999999999",
            "999999999999999999h",
            "18446744073709551616s",
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
