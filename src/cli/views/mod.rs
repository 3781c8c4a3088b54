//! View models: each command renders one as text and as JSON.
//!
//! The JSON has the fields of the contract under the same names; statuses are words without a prefix, times are RFC
//! 3339. Not here: calls, and the order of printing.

mod audit;
mod event;
mod reservation;

pub(super) use audit::progress as audit_progress;
pub(super) use audit::{AuditReportView, RepairPlanView, RepairsDoneView};
pub(super) use event::{CreatedEventView, EventListView, EventView};
pub(super) use reservation::{ExportedReservation, ReservationView};

use crate::output::{Align, TextTable};

/// Names and values, one pair per line; pairs without a value are left out.
pub(super) fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = TextTable::new(&[Align::Left, Align::Left]);
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.row([name, &value]);
    }
    table.to_string()
}

/// The name of a value of the contract without the prefix that the contract needs.
pub(super) fn short_name<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC, always with three fraction digits; `None` for 0, which means
/// that there is no time.
pub(super) fn time(ms: i64) -> Option<String> {
    let seconds = prost_types::Timestamp { seconds: ms.div_euclid(1_000), nanos: 0 }.to_string();
    (ms != 0).then(|| format!("{}.{:03}Z", seconds.trim_end_matches('Z'), ms.rem_euclid(1_000)))
}

/// A dash for an empty text.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A number with a noun: `1 seat`, `2,000 seats`.
pub(in crate::cli) fn counted(number: i64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

/// A number with a comma between groups of three digits.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        let texts = [0, 1, 2_000].map(|number| counted(number, "seat"));
        assert_eq!(texts, ["0 seats", "1 seat", "2,000 seats"]);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-12_345, "-12,345"),
            (1_000_000_000, "1,000,000,000"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_have_three_fraction_digits() {
        for (ms, text) in [
            (1_704_110_400_000, "2024-01-01T12:00:00.000Z"),
            (1_704_110_400_250, "2024-01-01T12:00:00.250Z"),
            (1_704_110_400_007, "2024-01-01T12:00:00.007Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time(ms).as_deref(), Some(text));
        }
        assert_eq!(time(0), None);
    }
}
