//! Numbers of command arguments.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Parser of a whole number in `range`. The error follows the value: `-5 is not a whole number in 1..=64`.
pub(crate) fn whole_number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("{text} is not a whole number in {}..={}", range.start(), range.end())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_the_range_are_refused_with_the_range() {
        let number = whole_number(1_u16..=64);
        assert_eq!(number("64"), Ok(64));
        for text in ["0", "65", "-5", "1.5", "many", "", "99999999999999999999"] {
            let expected = format!("{text} is not a whole number in 1..=64");
            assert_eq!(number(text), Err(expected));
        }
    }
}
