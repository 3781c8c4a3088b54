//! Parses and formats amounts of money: decimal text, and a number in the smallest unit of the currency.

use crate::currency::decimals;
use crate::limits::PRICE_AMOUNT_MAX;

/// Parses a decimal amount: `45.50` of USD is 4550.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub(super) fn smallest_unit(text: &str, currency: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "is {text:?}; want a decimal number, such as 120000 or 45.50, without a currency sign and without \
             separators between thousands"
        )
    };
    let ambiguous = |one: String, other: String| {
        format!(
            "is {text:?}, which may be {one} or {other}; want a decimal number without separators between thousands"
        )
    };
    if text.starts_with(['-', '\u{2212}']) || (text.starts_with('(') && text.ends_with(')')) {
        return Err(format!("is {text:?}; want 0 or more"));
    }
    if let Some((whole, fraction)) = text.split_once(',')
        && is_number(whole)
        && is_number(fraction)
        && fraction.len() == 3
    {
        return Err(ambiguous(text.replace(',', ""), text.replace(',', ".")));
    }
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(wrong()),
        None => (text, ""),
    };
    if !is_number(whole) || !(fraction.is_empty() || is_number(fraction)) {
        return Err(wrong());
    }
    let places = decimals(currency);
    // Some spreadsheets separate thousands by a point.
    if fraction == "000" && places != 3 && whole.len() <= 3 {
        return Err(ambiguous(format!("{whole}000"), whole.to_owned()));
    }
    // Spreadsheets write 120000.00 for any currency.
    let shorter = fraction.trim_end_matches('0');
    let fraction = if shorter.len() <= places { shorter } else { fraction };
    if fraction.len() > places {
        let has = fraction.len();
        return Err(format!("has {has} decimals; want at most {places} in {currency}"));
    }
    let amount = format!("{whole}{fraction:0<places$}").parse().ok();
    amount
        .filter(|amount| *amount <= PRICE_AMOUNT_MAX)
        .ok_or_else(|| format!("is too much; want at most {}", decimal(PRICE_AMOUNT_MAX, currency)))
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

/// A price with separators that have one meaning: `1,200,000` is 1200000, `1,200.50` is 1200.50, `45,50` is 45.50, and
/// `120,000` is 120000 in a currency without decimals. `None` for any other text: in other currencies `120,000` may be
/// either.
pub(super) fn without_separators(text: &str, currency: &str) -> Option<String> {
    let (whole, point) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let groups: Vec<&str> = whole.split(',').collect();
    if !groups.iter().copied().chain(point).all(is_number) {
        return None;
    }
    let (first, others) = groups.split_first()?;
    let is_thousands = first.len() <= 3 && others.iter().all(|group| group.len() == 3);
    match (others, point) {
        ([fraction], None) if fraction.len() < 3 => Some(format!("{first}.{fraction}")),
        ([_], None) if is_thousands && decimals(currency) == 0 => Some(text.replace(',', "")),
        ([_, _, ..], None) | ([_, ..], Some(_)) if is_thousands => Some(text.replace(',', "")),
        _ => None,
    }
}

/// Formats an amount: 4550 of USD is `45.50`.
pub(super) fn decimal(amount: i64, currency: &str) -> String {
    let places = decimals(currency);
    let sign = if amount < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", amount.unsigned_abs(), width = places + 1);
    match digits.split_at(digits.len() - places) {
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_by_the_currency() {
        for (text, currency, amount) in [
            ("120000", "KRW", 120_000),
            ("45.50", "USD", 4_550),
            ("0.05", "EUR", 5),
            ("1.234", "KWD", 1_234),
            ("0", "JPY", 0),
            ("10000000000.00", "USD", PRICE_AMOUNT_MAX),
        ] {
            assert_eq!(smallest_unit(text, currency), Ok(amount), "{text}");
            assert_eq!(decimal(amount, currency), text);
        }
        // Decimals left out are zeros.
        assert_eq!(smallest_unit("45.5", "USD"), Ok(4_550));
        assert_eq!(smallest_unit("45", "USD"), Ok(4_500));
        // Decimals that the currency does not have are accepted if they are zeros.
        assert_eq!(smallest_unit("120000.00", "KRW"), Ok(120_000));
        assert_eq!(smallest_unit("45.5000", "USD"), Ok(4_550));
    }

    #[test]
    fn separators_are_dropped_where_they_have_one_meaning() {
        for (text, expected) in [
            ("1,200,000", Some("1200000")),
            ("1,200.50", Some("1200.50")),
            ("45,50", Some("45.50")),
            ("45,5", Some("45.5")),
            ("120,000", None),
            ("1,20,000", None),
            ("1234,500,000", None),
            ("45.50", None),
            ("1.200,50", None),
            (",50", None),
            ("a,b", None),
        ] {
            assert_eq!(without_separators(text, "USD").as_deref(), expected, "{text}");
        }
        // A currency without decimals has no decimal comma.
        assert_eq!(without_separators("120,000", "KRW").as_deref(), Some("120000"));
        assert_eq!(without_separators("0,500", "KWD"), None);
    }

    #[test]
    fn invalid_amount_error_shows_a_valid_one() {
        for (text, currency, said) in [
            ("", "USD", "decimal number"),
            (".5", "USD", "decimal number"),
            ("5.", "USD", "decimal number"),
            ("-1", "USD", "want 0 or more"),
            ("-5000", "KRW", "want 0 or more"),
            ("\u{2212}1", "USD", "want 0 or more"),
            ("(45.50)", "USD", "want 0 or more"),
            ("+1", "USD", "decimal number"),
            ("1,000", "USD", "may be 1000 or 1.000"),
            ("120.000", "KRW", "may be 120000 or 120"),
            ("1.000", "EUR", "may be 1000 or 1"),
            ("1e3", "USD", "decimal number"),
            ("45.505", "USD", "at most 2 in USD"),
            ("45.5", "KRW", "at most 0 in KRW"),
            ("120,000", "KRW", "separators between thousands"),
            ("45.5050", "USD", "at most 2 in USD"),
            ("10000000000.01", "USD", "at most 10000000000.00"),
            ("99999999999999999999", "KRW", "at most 1000000000000"),
        ] {
            let error = smallest_unit(text, currency).err().unwrap_or_default();
            assert!(error.contains(said), "{text}: {error:?}");
        }
    }
}
