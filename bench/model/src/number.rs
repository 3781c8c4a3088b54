//! DynamoDB's numbers: 38 significant decimal digits, magnitudes from 10^-130 to below 10^126. Stored as text
//! in one canonical form, so that equal numbers are equal bytes; arithmetic by `bigdecimal`.
//!
//! Integers of up to 18 digits take a short path, because every reservation writes several of them.
//!
//! Not here: what a number is part of.

use std::cmp::Ordering;

use bigdecimal::{BigDecimal, Zero};

use crate::error::Error;

/// Significant digits.
const DIGITS_MAX: usize = 38;
/// Bounds of `e` in `0.digits * 10^e`.
const EXPONENT_MAX: i64 = 126;
const EXPONENT_MIN: i64 = -129;

/// Appends the canonical form of a number as a client wrote it.
pub(crate) fn canonical(text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    if is_canonical_integer(text) {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    let is_valid = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number: Option<BigDecimal> =
        text.bytes().all(is_valid).then(|| text.parse().ok()).flatten();
    let number = number.ok_or_else(|| {
        Error::validation(format!("The parameter cannot be converted to a numeric value: {text}"))
    })?;
    let too_long = "Attempting to store more than 38 significant digits in a Number";
    out.extend_from_slice(format(&number, too_long)?.as_bytes());
    Ok(())
}

/// The usual case: an integer of at most 38 digits without a redundant sign or zero.
fn is_canonical_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let is_negative = digits.len() < text.len();
    !digits.is_empty()
        && digits.len() <= DIGITS_MAX
        && digits.iter().all(u8::is_ascii_digit)
        && (digits[0] != b'0' || (digits.len() == 1 && !is_negative))
}

/// The canonical text, if the number is within DynamoDB's bounds.
fn format(number: &BigDecimal, too_long: &str) -> Result<String, Error> {
    if number.is_zero() {
        return Ok("0".to_owned());
    }
    let number = number.normalized();
    let digits = number.digits();
    if digits > DIGITS_MAX as u64 {
        return Err(Error::validation(too_long));
    }
    let out_of_range = |what: &str, size: &str| {
        Err(Error::validation(format!(
            "Number {what}. Attempting to store a number with magnitude {size} than supported range"
        )))
    };
    match digits as i64 - number.fractional_digit_count() {
        e if e > EXPONENT_MAX => out_of_range("overflow", "larger"),
        e if e < EXPONENT_MIN => out_of_range("underflow", "smaller"),
        _ => Ok(number.to_plain_string()),
    }
}

/// Reads what [`canonical`] wrote.
fn stored(text: &[u8]) -> BigDecimal {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// Compares two canonical texts.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    match (small(a), small(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => stored(a).cmp(&stored(b)),
    }
}

/// `a + b`, or `a - b`, of canonical texts, as canonical text.
pub(crate) fn sum(a: &[u8], b: &[u8], minus: bool) -> Result<Vec<u8>, Error> {
    if let (Some(a), Some(b)) = (small(a), small(b)) {
        let sum = if minus { a - b } else { a + b };
        return Ok(sum.to_string().into_bytes());
    }
    let (a, b) = (stored(a), stored(b));
    let sum = if minus { a - b } else { a + b };
    // DynamoDB rounds such sums. The model rejects them, so that no test depends on rounding unnoticed.
    let too_long = "the sum has more than 38 significant digits, which the model does not round";
    Ok(format(&sum, too_long)?.into_bytes())
}

/// An integer whose sums cannot overflow.
fn small(text: &[u8]) -> Option<i64> {
    if text.len() > 18 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Contribution of a canonical number to an item's size, in bytes: one, one per two digits before and after
/// the point without outer zeros, one for a minus sign.
pub(crate) fn size(text: &[u8]) -> usize {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let minus = usize::from(digits.len() < text.len());
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        None => (trim_end_zeros(digits).len(), 0),
        Some(1) if digits[0] == b'0' => (0, trim_start_zeros(&digits[2..]).len()),
        Some(at) => (at, digits.len() - at - 1),
    };
    whole.div_ceil(2) + fraction.div_ceil(2) + 1 + minus
}

fn trim_start_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn trim_end_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    &digits[..digits.len() - zeros]
}

/// Appends bytes whose order is the order of the numbers.
pub(crate) fn sortable(text: &[u8], out: &mut Vec<u8>) {
    let number = stored(text);
    let (digits, scale) = number.as_bigint_and_exponent();
    if digits.is_zero() {
        out.push(1);
        return;
    }
    let text = digits.to_string();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits.as_bytes()),
        None => (false, text.as_bytes()),
    };
    // In `0.digits * 10^exponent`, which is within ±130.
    let exponent = digits.len() as i64 - scale;
    out.push(if is_negative { 0 } else { 2 });
    let start = out.len();
    out.push(u8::try_from(exponent + 129).unwrap_or(u8::MAX));
    let pair = |pair: &[u8]| (pair[0] - b'0') * 10 + pair.get(1).map_or(0, |low| low - b'0') + 1;
    out.extend(trim_end_zeros(digits).chunks(2).map(pair));
    out.push(0);
    if is_negative {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        let mut out = Vec::new();
        match canonical(text, &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn equal_numbers_have_one_form() {
        for (written, stored) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.00", "0"),
            ("007", "7"),
            ("+5", "5"),
            ("5.", "5"),
            ("-.5", "-0.5"),
            ("1.200", "1.2"),
            ("1e2", "100"),
            ("12E-3", "0.012"),
            ("1.5E+3", "1500"),
        ] {
            assert_eq!(form(written), stored, "{written}");
        }
        for bad in ["", "+", "1e", "1.2.3", "--1", "1_0", " 1", "NaN", "1e+-2"] {
            assert!(form(bad).contains("cannot be converted"), "{bad}: {}", form(bad));
        }
        assert!(form(&"1".repeat(39)).contains("38 significant"));
        assert!(form("1e126").contains("overflow") && form("1e-131").contains("underflow"));
        assert_eq!(form("1e125").len(), 126);
    }

    #[test]
    fn sums_are_exact() {
        for (a, b, plus, minus) in [
            ("1", "2", "3", "-1"),
            ("0.1", "0.2", "0.3", "-0.1"),
            ("99999999999999999999", "1", "100000000000000000000", "99999999999999999998"),
            ("-5", "0.25", "-4.75", "-5.25"),
            ("1.5", "1.5", "3", "0"),
            ("0", "7.25", "7.25", "-7.25"),
            (
                "1000000000000000000000",
                "0.5",
                "1000000000000000000000.5",
                "999999999999999999999.5",
            ),
        ] {
            let text = |minus| String::from_utf8(sum(a.as_bytes(), b.as_bytes(), minus).unwrap());
            assert_eq!(text(false).unwrap(), plus, "{a} + {b}");
            assert_eq!(text(true).unwrap(), minus, "{a} - {b}");
        }
        assert!(sum(b"1e1", b"1", false).is_ok());
        let far = form("1e40");
        assert!(sum(far.as_bytes(), b"1", false).is_err());
    }

    #[test]
    fn number_bytes_sort_like_numbers() {
        let order = [
            "-1e100", "-100", "-99.5", "-2", "-1.5", "-1.05", "-0.001", "0", "1e-100", "0.1",
            "0.11", "1", "1.01", "2", "9", "10", "11", "100", "1e30",
        ];
        let forms: Vec<String> = order.iter().map(|text| form(text)).collect();
        for pair in forms.windows(2) {
            let key = |text: &str| {
                let mut out = Vec::new();
                sortable(text.as_bytes(), &mut out);
                out
            };
            assert!(key(&pair[0]) < key(&pair[1]), "{pair:?}");
            let order = compare(pair[0].as_bytes(), pair[1].as_bytes());
            assert_eq!(order, Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn sizes_count_digit_pairs() {
        for (text, bytes) in [
            ("0", 1),
            ("7", 2),
            ("42", 2),
            ("-42", 3),
            ("100", 2),
            ("1.5", 3),
            ("100.5", 4),
            ("0.0012", 2),
            ("-0.5", 3),
            ("120", 2),
        ] {
            assert_eq!(size(text.as_bytes()), bytes, "{text}");
        }
    }
}
