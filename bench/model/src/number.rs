//! DynamoDB's numbers: 38 significant decimal digits, exact. Kept as text in one canonical form, so
//! that equal numbers are equal bytes.
//!
//! Must not live here: what a number is part of.

use std::cmp::Ordering;

use crate::error::Error;

/// Significant digits.
const DIGITS_MAX: usize = 38;
/// Of `0.digits * 10^exponent`: below 10^126.
const EXPONENT_MAX: i64 = 126;
/// 10^-130 is the smallest magnitude.
const EXPONENT_MIN: i64 = -129;

/// `± 0.digits * 10^exponent`; no leading or trailing zero digit; zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    /// Each 0 to 9.
    digits: Vec<u8>,
    exponent: i64,
}

/// The canonical text of what a client wrote, appended to `out`.
pub(crate) fn canonical(text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    if is_canonical_integer(text) {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    Number::parse(text)?.write(out);
    Ok(())
}

/// The usual case: an integer of at most 38 digits without a needless sign or zero.
fn is_canonical_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let is_negative = digits.len() < text.len();
    !digits.is_empty()
        && digits.len() <= DIGITS_MAX
        && digits.iter().all(u8::is_ascii_digit)
        && (digits[0] != b'0' || (digits.len() == 1 && !is_negative))
}

/// Compares two canonical texts.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    match (small(a), small(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => Number::stored(a).compare(&Number::stored(b)),
    }
}

/// `a + b`, or `a - b`, of canonical texts, as canonical text.
pub(crate) fn sum(a: &[u8], b: &[u8], minus: bool) -> Result<Vec<u8>, Error> {
    if let (Some(a), Some(b)) = (small(a), small(b)) {
        let sum = if minus { a - b } else { a + b };
        return Ok(sum.to_string().into_bytes());
    }
    let mut right = Number::stored(b);
    right.negative ^= minus;
    let sum = Number::stored(a).plus(&right)?;
    let mut out = Vec::new();
    sum.write(&mut out);
    Ok(out)
}

/// What a canonical number counts towards an item's size, in bytes: one, and one for every two
/// digits before and after the point, zeros at the ends aside; one more for a minus.
pub(crate) fn size(text: &[u8]) -> usize {
    if text.len() <= DIGITS_MAX && !text.contains(&b'.') {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let zeros = digits
            .iter()
            .rev()
            .take_while(|digit| **digit == b'0')
            .count();
        let minus = usize::from(digits.len() < text.len());
        return (digits.len() - zeros).div_ceil(2) + 1 + minus;
    }
    let number = Number::stored(text);
    let count = number.digits.len();
    let whole = usize::try_from(number.exponent.max(0)).map_or(count, |n| n.min(count));
    whole.div_ceil(2) + (count - whole).div_ceil(2) + 1 + usize::from(number.negative)
}

/// Bytes whose order is the numbers' order, appended to `out`.
pub(crate) fn sortable(text: &[u8], out: &mut Vec<u8>) {
    let number = Number::stored(text);
    if number.digits.is_empty() {
        out.push(1);
        return;
    }
    out.push(if number.negative { 0 } else { 2 });
    let start = out.len();
    // The exponent is within ±130.
    out.push(u8::try_from(number.exponent + 129).unwrap_or(u8::MAX));
    let pair = |pair: &[u8]| pair[0] * 10 + pair.get(1).copied().unwrap_or(0) + 1;
    out.extend(number.digits.chunks(2).map(pair));
    out.push(0);
    if number.negative {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// An integer that sums cannot overflow.
fn small(text: &[u8]) -> Option<i64> {
    if text.len() > 18 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Number {
    /// Reads what was written by [`canonical`].
    fn stored(text: &[u8]) -> Self {
        let text = std::str::from_utf8(text).unwrap_or("0");
        Self::split(text).unwrap_or(Self {
            negative: false,
            digits: Vec::new(),
            exponent: 0,
        })
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let number = Self::split(text).ok_or_else(|| {
            Error::validation(format!(
                "The parameter cannot be converted to a numeric value: {text}"
            ))
        })?;
        number.check("Attempting to store more than 38 significant digits in a Number")
    }

    fn check(self, too_long: &str) -> Result<Self, Error> {
        if self.digits.len() > DIGITS_MAX {
            return Err(Error::validation(too_long));
        }
        let range = |what: &str| {
            let size = if what == "overflow" {
                "larger"
            } else {
                "smaller"
            };
            Err(Error::validation(format!(
                "Number {what}. Attempting to store a number with magnitude {size} than supported range"
            )))
        };
        match self.exponent {
            _ if self.digits.is_empty() => Ok(self),
            e if e > EXPONENT_MAX => range("overflow"),
            e if e < EXPONENT_MIN => range("underflow"),
            _ => Ok(self),
        }
    }

    /// `None`: no number.
    fn split(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (coefficient, power) = match rest.find(['e', 'E']) {
            None => (rest, 0),
            Some(at) => (&rest[..at], parse_power(&rest[at + 1..])?),
        };
        let (whole, fraction) = coefficient.split_once('.').unwrap_or((coefficient, ""));
        let all = whole.bytes().chain(fraction.bytes());
        let mut digits = Vec::with_capacity(coefficient.len());
        for byte in all {
            digits.push(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        if digits.is_empty() {
            return None;
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let exponent = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
        Some(Self {
            negative: negative && !digits.is_empty(),
            exponent: match digits.is_empty() {
                true => 0,
                false => exponent.saturating_add(power),
            },
            digits,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.digits.is_empty() {
            out.push(b'0');
            return;
        }
        if self.negative {
            out.push(b'-');
        }
        let digit = |digit: &u8| b'0' + digit;
        let count = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        let zeros = |n: i64| std::iter::repeat_n(b'0', usize::try_from(n).unwrap_or(0));
        if self.exponent <= 0 {
            out.extend_from_slice(b"0.");
            out.extend(zeros(-self.exponent));
            out.extend(self.digits.iter().map(digit));
        } else if self.exponent >= count {
            out.extend(self.digits.iter().map(digit));
            out.extend(zeros(self.exponent - count));
        } else {
            let (whole, fraction) = self
                .digits
                .split_at(usize::try_from(self.exponent).unwrap_or(0));
            out.extend(whole.iter().map(digit));
            out.push(b'.');
            out.extend(fraction.iter().map(digit));
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.digits.is_empty(), n.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        match sign(self).cmp(&sign(other)) {
            Ordering::Equal if self.negative => other.compare_magnitude(self),
            Ordering::Equal => self.compare_magnitude(other),
            unequal => unequal,
        }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        let by_power = self.exponent.cmp(&other.exponent);
        by_power.then_with(|| self.digits.cmp(&other.digits))
    }

    fn plus(&self, other: &Self) -> Result<Self, Error> {
        let (big, little) = match self.compare_magnitude(other) {
            Ordering::Less => (other, self),
            _ => (self, other),
        };
        if little.digits.is_empty() {
            return Ok(big.clone());
        }
        if big.digits.is_empty() {
            return Ok(little.clone());
        }
        // Digits from 10^(exponent-1) down, one place in front for a carry. Both exponents are
        // within ±130, so the columns are a few hundred at most.
        let column = |n: &Self, at: usize| {
            let shift = usize::try_from(big.exponent - n.exponent).unwrap_or(usize::MAX);
            let at = at.checked_sub(1)?.checked_sub(shift)?;
            n.digits.get(at).copied()
        };
        let shift = usize::try_from(big.exponent - little.exponent).unwrap_or(0);
        let width = 1 + big.digits.len().max(shift + little.digits.len());
        let mut digits = vec![0_i8; width];
        let is_sum = big.negative == little.negative;
        let mut carry = 0_i8;
        for at in (0..width).rev() {
            let digit = |n| column(n, at).map_or(0, |digit| digit as i8);
            let mut value = match is_sum {
                true => digit(big) + digit(little) + carry,
                false => digit(big) - digit(little) + carry,
            };
            carry = i8::from(value > 9) - i8::from(value < 0);
            value -= 10 * carry;
            digits[at] = value;
        }
        let mut digits: Vec<u8> = digits.into_iter().map(i8::unsigned_abs).collect();
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let sum = Self {
            negative: big.negative && !digits.is_empty(),
            exponent: big.exponent + 1 - i64::try_from(zeros).unwrap_or(0),
            digits,
        };
        // DynamoDB rounds here; a server that counts never comes near, and must not unseen.
        sum.check("the sum has more than 38 significant digits, which the model does not round")
    }
}

fn parse_power(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_digits.then(|| text.parse::<i64>().ok())?
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
    fn every_way_to_write_a_number_has_one_form() {
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
            assert!(
                form(bad).contains("cannot be converted"),
                "{bad}: {}",
                form(bad)
            );
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
            (
                "99999999999999999999",
                "1",
                "100000000000000000000",
                "99999999999999999998",
            ),
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
    fn bytes_sort_as_numbers_do() {
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
        ] {
            assert_eq!(size(text.as_bytes()), bytes, "{text}");
        }
    }
}
