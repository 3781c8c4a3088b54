//! Amounts of money as people write them, and in a currency's smallest unit.

use crate::limits::PRICE_AMOUNT_MAX;

/// Currencies that do not have two decimals, by ISO 4217.
const DECIMALS: [(&[&str], usize); 3] = [
    (
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
            "VND", "VUV", "XAF", "XOF", "XPF",
        ],
        0,
    ),
    (&["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
    (&["CLF", "UYW"], 4),
];

/// How many decimals amounts of `currency` have; two when it is not known better.
pub(super) fn decimals(currency: &str) -> usize {
    let known = DECIMALS.iter().find(|(names, _)| names.contains(&currency));
    known.map_or(2, |(_, decimals)| *decimals)
}

/// `45.50` of USD is 4550.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(super) fn smallest_unit(text: &str, currency: &str) -> Result<i64, String> {
    let wrong = || format!("is {text:?}; want a decimal number, such as 120000 or 45.50");
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(wrong()),
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let places = decimals(currency);
    if fraction.len() > places {
        let has = fraction.len();
        return Err(format!("has {has} decimals; want at most {places} in {currency}"));
    }
    let amount = format!("{whole}{fraction:0<places$}").parse().ok();
    amount
        .filter(|amount| *amount <= PRICE_AMOUNT_MAX)
        .ok_or_else(|| format!("is too much; want at most {}", decimal(PRICE_AMOUNT_MAX, currency)))
}

/// 4550 of USD is `45.50`.
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
    }

    #[test]
    fn invalid_amount_error_shows_a_valid_one() {
        for (text, currency, said) in [
            ("", "USD", "decimal number"),
            (".5", "USD", "decimal number"),
            ("5.", "USD", "decimal number"),
            ("-1", "USD", "decimal number"),
            ("+1", "USD", "decimal number"),
            ("1,000", "USD", "decimal number"),
            ("1e3", "USD", "decimal number"),
            ("45.505", "USD", "at most 2 in USD"),
            ("45.5", "KRW", "at most 0 in KRW"),
            ("10000000000.01", "USD", "at most 10000000000.00"),
            ("99999999999999999999", "KRW", "at most 1000000000000"),
        ] {
            let error = smallest_unit(text, currency).err().unwrap_or_default();
            assert!(error.contains(said), "{text}: {error:?}");
        }
    }
}
