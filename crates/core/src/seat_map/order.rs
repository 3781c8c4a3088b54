//! Natural order of the names of rows and seats: `2` before `10`, `B` before `AA`.

use std::cmp::Ordering;

/// Natural order: "2" before "10", row "B" before row "AA", "A-9" before "A-10". A text is split into alternating parts
/// of digits and non-digits. Digits compare as numbers, other parts by length and then by bytes; digits sort before
/// other parts, and a prefix sorts first. Texts that differ only in leading zeros compare by bytes, so that only equal
/// texts are equal.
pub fn natural(left: &str, right: &str) -> Ordering {
    let (mut a, mut b) = (left, right);
    while !a.is_empty() && !b.is_empty() {
        let (part_a, rest_a) = first_part(a);
        let (part_b, rest_b) = first_part(b);
        let order = match (is_number(part_a), is_number(part_b)) {
            (true, true) => shorter_first(significant(part_a), significant(part_b)),
            (false, false) => shorter_first(part_a, part_b),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len()).then_with(|| left.cmp(right))
}

fn is_number(part: &str) -> bool {
    part.as_bytes().first().is_some_and(u8::is_ascii_digit)
}

/// `text` is not empty. The split is next to a digit, so never inside a character.
fn first_part(text: &str) -> (&str, &str) {
    let number = is_number(text);
    let end = text.bytes().position(|byte| byte.is_ascii_digit() != number).unwrap_or(text.len());
    text.split_at(end)
}

fn significant(digits: &str) -> &str {
    digits.trim_start_matches('0')
}

fn shorter_first(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn natural_order_examples() {
        let ordered = [
            "", "1", "02", "2", "10", "10a", "100", "A", "A1", "B", "Z", "A-9", "A-10", "AA", "AB",
            "열",
        ];
        // "B" before "A-9": the part "B" is shorter than "A-".
        for (at, left) in ordered.iter().enumerate() {
            for right in &ordered[at + 1..] {
                assert_eq!(natural(left, right), Ordering::Less, "{left} {right}");
            }
        }
        assert_eq!(natural("A-9", "A-10"), Ordering::Less);
        assert_eq!(natural("A-10", "B-1"), Ordering::Less);
        assert_eq!(natural("99999999999999999999998", "99999999999999999999999"), Ordering::Less);
    }

    proptest! {
        #[test]
        fn is_a_total_order(a in "[01AB열-]{0,6}", b in "[01AB열-]{0,6}", c in "[01AB열-]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            prop_assert_eq!(natural(&a, &b) == Ordering::Equal, a == b);
            let mut sorted = [a, b, c];
            sorted.sort_by(|x, y| natural(x, y));
            prop_assert!(natural(&sorted[0], &sorted[2]) != Ordering::Greater);
        }
    }
}
