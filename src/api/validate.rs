//! Validation of request fields.
//!
//! Each violation names the field as the contract names it and states what is valid. All violations of a
//! request are reported at once.

use prost_types::Timestamp;

use super::convert;
use crate::limits;
use crate::text::control_character;
use inventory_core::ids::{EventId, IdError, ReservationId, SeatId};
use inventory_core::operation::Selection;
use inventory_core::time::UnixMillis;

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldViolation {
    pub(crate) field: &'static str,
    pub(crate) problem: String,
}

/// Field names of one contract, for error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldNames {
    pub quantity: &'static str,
    /// The path from `seat_ids[3]` to the id itself.
    pub seat: &'static str,
}

/// Field names of `inventory.v1`.
pub const INVENTORY_V1: FieldNames = FieldNames { quantity: "qty", seat: ".seat_id" };

/// Field names of `reservation.v1`.
pub(crate) const RESERVATION_V1: FieldNames = FieldNames { quantity: "quantity", seat: "" };

/// Collects violations, as many as fit into an error; allocates only if there is one.
#[derive(Debug)]
pub struct FieldViolations {
    names: FieldNames,
    found: Vec<FieldViolation>,
    /// Text of those found.
    bytes: usize,
    /// Further ones.
    omitted: usize,
}

impl FieldViolations {
    pub fn of(names: FieldNames) -> Self {
        Self { names, found: Vec::new(), bytes: 0, omitted: 0 }
    }

    pub(crate) fn add(&mut self, field: &'static str, problem: impl Into<String>) {
        let problem = problem.into();
        self.bytes += field.len() + problem.len();
        match self.found.is_empty() || self.bytes <= limits::ERROR_TEXT_BYTES_MAX {
            true => self.found.push(FieldViolation { field, problem }),
            false => self.omitted += 1,
        }
    }

    fn id<T>(&mut self, field: &'static str, id: Result<T, IdError>) -> Option<T> {
        id.map_err(|error| self.add(field, error.to_string())).ok()
    }

    pub fn event(&mut self, text: String) -> Option<EventId> {
        self.id("event_id", EventId::try_from(text))
    }

    pub fn reservation(&mut self, text: String) -> Option<ReservationId> {
        self.id("reservation_id", ReservationId::try_from(text))
    }

    /// Seats take precedence over a quantity. At most [`limits::SEATS_PER_RESERVATION_MAX`] seats, or as many as the
    /// units if these are more, up to what fits into one transaction.
    pub(crate) fn selection(
        &mut self,
        qty: i32,
        seats: Vec<String>,
        qty_max: u32,
    ) -> Option<Selection> {
        if seats.is_empty() {
            if qty == 0 {
                let field = self.names.quantity;
                self.add(
                    field,
                    format!(
                        "is 0, and there are no seat_ids; must be 1 to {qty_max}, or name seats"
                    ),
                );
                return None;
            }
            return self.quantity(qty, qty_max).map(Selection::Quantity);
        }
        let transaction_max = limits::SEATS_PER_TRANSACTION_MAX;
        let most = transaction_max.min(qty_max as usize).max(limits::SEATS_PER_RESERVATION_MAX);
        self.seats(seats, most)
    }

    /// As [`FieldViolations::selection`], but an empty selection means the recorded one.
    pub(crate) fn selection_or_recorded(
        &mut self,
        qty: i32,
        seats: Vec<String>,
        qty_max: u32,
    ) -> Option<Selection> {
        if seats.is_empty() && qty == 0 {
            return Some(Selection::AsRecorded);
        }
        self.selection(qty, seats, qty_max)
    }

    /// As [`FieldViolations::selection`], for calls that repeat the selection of a hold.
    pub(crate) fn repeated_selection(
        &mut self,
        qty: i32,
        seats: Vec<String>,
        qty_max: u32,
    ) -> Option<Selection> {
        if seats.is_empty() && qty == 0 {
            let field = self.names.quantity;
            self.add(
                field,
                "is 0, and there are no seat_ids; must be the quantity or the seats of the hold",
            );
            return None;
        }
        self.selection(qty, seats, qty_max)
    }

    fn quantity(&mut self, qty: i32, qty_max: u32) -> Option<u32> {
        match u32::try_from(qty) {
            Ok(units) if (1..=qty_max).contains(&units) => Some(units),
            _ => {
                let field = self.names.quantity;
                self.add(field, format!("is {qty}; must be 1 to {qty_max}"));
                None
            }
        }
    }

    fn seats(&mut self, texts: Vec<String>, most: usize) -> Option<Selection> {
        if texts.len() > most {
            let count = texts.len();
            self.add("seat_ids", format!("has {count} seats; must be 1 to {most}"));
            return None;
        }
        let count = texts.len();
        let mut seats: Vec<SeatId> = Vec::with_capacity(count);
        for (at, text) in texts.into_iter().enumerate() {
            match SeatId::try_from(text) {
                Err(error) => {
                    let id = self.names.seat;
                    self.add("seat_ids", format!("[{at}]{id} {error}"));
                }
                Ok(seat) if seats.contains(&seat) => {
                    self.add("seat_ids", format!("has {seat} twice"));
                }
                Ok(seat) => seats.push(seat),
            }
        }
        (seats.len() == count).then(|| Selection::Seats(seats.into()))
    }

    /// The expiry of a hold: as requested but at most `ttl_max` from now, or `default_ttl` from now without a request.
    /// Both in milliseconds.
    pub(crate) fn hold_until(
        &mut self,
        requested: Option<&Timestamp>,
        now: UnixMillis,
        default_ttl: u64,
        ttl_max: u64,
    ) -> Option<UnixMillis> {
        const FIELD: &str = "hold_expires_at";
        let Some(requested) = requested else {
            return Some(UnixMillis(now.0.saturating_add(default_ttl)));
        };
        match convert::millis(requested) {
            None => self.add(FIELD, "is not a valid timestamp; must be in the future"),
            Some(at) if at <= now => {
                let ago = now.0 - at.0;
                self.add(FIELD, format!("was {ago} ms ago; must be in the future"));
            }
            Some(at) => return Some(at.min(UnixMillis(now.0.saturating_add(ttl_max)))),
        }
        None
    }

    /// The section of a best-available selection; `None` if empty.
    pub(crate) fn section(&mut self, text: String) -> Option<String> {
        self.at_most("section", &text, limits::SECTION_BYTES_MAX);
        (!text.is_empty()).then_some(text)
    }

    pub fn payment_intent(&mut self, text: &str) {
        self.at_most("payment_intent_id", text, limits::PAYMENT_INTENT_BYTES_MAX);
        if let Some(character) = control_character(text) {
            let problem = format!("has {character}; must not have control characters");
            self.add("payment_intent_id", problem);
        }
    }

    /// Text that is accepted and not interpreted.
    pub(crate) fn opaque(&mut self, field: &'static str, text: &str) {
        self.at_most(field, text, limits::OPAQUE_BYTES_MAX);
    }

    fn at_most(&mut self, field: &'static str, text: &str, most: usize) {
        if text.len() > most {
            let bytes = text.len();
            self.add(field, format!("has {bytes} bytes; must have at most {most}"));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Violations that did not fit.
    pub(crate) fn omitted(&self) -> usize {
        self.omitted
    }

    pub(crate) fn into_vec(self) -> Vec<FieldViolation> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_in(
        names: FieldNames,
        check: impl FnOnce(&mut FieldViolations),
    ) -> Vec<(&'static str, String)> {
        let mut violations = FieldViolations::of(names);
        check(&mut violations);
        let pairs = violations.into_vec().into_iter();
        pairs.map(|v| (v.field, v.problem)).collect()
    }

    fn problems(check: impl FnOnce(&mut FieldViolations)) -> Vec<(&'static str, String)> {
        problems_in(INVENTORY_V1, check)
    }

    fn seats(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn quantities_outside_the_bounds_are_rejected() {
        for names in [INVENTORY_V1, RESERVATION_V1] {
            for bad in [i32::MIN, -5, -1, 0, 11, i32::MAX] {
                let found = problems_in(names, |v| {
                    assert_eq!(v.selection(bad, Vec::new(), 10), None);
                });
                let message = match bad {
                    0 => {
                        "is 0, and there are no seat_ids; must be 1 to 10, or name seats".to_owned()
                    }
                    bad => format!("is {bad}; must be 1 to 10"),
                };
                assert_eq!(found, [(names.quantity, message)]);
            }
            let found = problems_in(names, |v| {
                assert_eq!(v.repeated_selection(0, Vec::new(), 10), None);
            });
            let message =
                "is 0, and there are no seat_ids; must be the quantity or the seats of the hold"
                    .to_owned();
            assert_eq!(found, [(names.quantity, message)]);
        }
        for good in [1, 10] {
            let found = problems(|v| {
                let selection = v.selection(good, Vec::new(), 10);
                assert_eq!(selection, Some(Selection::Quantity(good as u32)));
            });
            assert!(found.is_empty());
        }
    }

    #[test]
    fn an_empty_selection_means_the_recorded_one_only_where_allowed() {
        let found = problems_in(RESERVATION_V1, |v| {
            let selection = v.selection_or_recorded(0, Vec::new(), 10);
            assert_eq!(selection, Some(Selection::AsRecorded));
            assert_eq!(v.selection_or_recorded(2, Vec::new(), 10), Some(Selection::Quantity(2)));
            // Seats take precedence over any quantity.
            let named = v.selection_or_recorded(7, seats(&["A-1"]), 10);
            assert!(matches!(named, Some(Selection::Seats(seats)) if seats.len() == 1));
        });
        assert!(found.is_empty(), "{found:?}");
        for bad in [-1, i32::MIN, 11] {
            let found = problems_in(RESERVATION_V1, |v| {
                assert_eq!(v.selection_or_recorded(bad, Vec::new(), 10), None);
            });
            assert_eq!(found[0].0, "quantity");
        }
    }

    #[test]
    fn all_invalid_fields_are_reported_at_once() {
        let found = problems(|v| {
            v.event(String::new());
            v.reservation("a b".into());
            v.selection(0, Vec::new(), 10);
            v.payment_intent(&"x".repeat(limits::PAYMENT_INTENT_BYTES_MAX + 1));
            v.opaque("user_id", &"x".repeat(limits::OPAQUE_BYTES_MAX + 1));
            v.section("x".repeat(limits::SECTION_BYTES_MAX + 1));
        });
        let fields: Vec<_> = found.iter().map(|(field, _)| *field).collect();
        assert_eq!(
            fields,
            ["event_id", "reservation_id", "qty", "payment_intent_id", "user_id", "section"]
        );
        assert!(found[1].1.contains("' ' at byte 1"), "{}", found[1].1);
    }

    #[test]
    fn texts_at_their_limits_are_accepted() {
        let found = problems(|v| {
            v.payment_intent(&"x".repeat(limits::PAYMENT_INTENT_BYTES_MAX));
            v.opaque("reason", &"x".repeat(limits::OPAQUE_BYTES_MAX));
            assert_eq!(v.section(String::new()), None);
            let section = "x".repeat(limits::SECTION_BYTES_MAX);
            assert_eq!(v.section(section.clone()), Some(section));
        });
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn ids_are_bounded_and_ascii() {
        let long = "x".repeat(limits::ID_BYTES_MAX);
        assert!(problems(|v| assert!(v.event(long.clone()).is_some())).is_empty());
        for bad in [format!("{long}x"), "좌석".into(), "evt#1".into(), "a/b".into()] {
            let found = problems(|v| assert!(v.event(bad.clone()).is_none()));
            assert_eq!(found.len(), 1, "{bad}");
        }
    }

    #[test]
    fn seats_are_bounded_distinct_and_valid() {
        let good = problems(|v| assert!(v.selection(-1, seats(&["A-1", "A-2"]), 10).is_some()));
        assert!(good.is_empty());
        let twice = problems(|v| assert!(v.selection(1, seats(&["A-1", "A-1"]), 10).is_none()));
        assert_eq!(twice, [("seat_ids", "has A-1 twice".to_owned())]);
        let many: Vec<String> = (0..11).map(|n| format!("A-{n}")).collect();
        let many = problems(|v| assert!(v.selection(1, many, 10).is_none()));
        assert_eq!(many[0].1, "has 11 seats; must be 1 to 10");
        for (names, named) in
            [(INVENTORY_V1, "[1].seat_id is empty"), (RESERVATION_V1, "[1] is empty")]
        {
            let found = problems_in(names, |v| {
                assert!(v.selection(1, seats(&["B", ""]), 10).is_none());
            });
            assert_eq!(found.len(), 1);
            assert!(found[0].1.starts_with(named), "{found:?}");
        }
    }

    #[test]
    fn hold_expiry_is_in_the_future_and_within_the_maximum() {
        let now = UnixMillis(1_000_000_000_000);
        let at = |millis: u64| convert::timestamp(UnixMillis(millis));
        let until = |requested: Option<Timestamp>| {
            let mut violations = FieldViolations::of(RESERVATION_V1);
            let until = violations.hold_until(requested.as_ref(), now, 60_000, 900_000);
            (until.map(|at| at.0 - now.0), violations.into_vec())
        };
        assert_eq!(until(None), (Some(60_000), Vec::new()));
        assert_eq!(until(Some(at(now.0 + 1))), (Some(1), Vec::new()));
        assert_eq!(until(Some(at(now.0 + 900_000))).0, Some(900_000));
        // Beyond the maximum: capped, not rejected.
        assert_eq!(until(Some(at(now.0 + 900_001))), (Some(900_000), Vec::new()));
        let far = Timestamp { seconds: i64::MAX, nanos: 0 };
        assert_eq!(until(Some(far)).0, Some(900_000));
        for bad in [
            at(now.0),
            at(now.0 - 1),
            at(0),
            Timestamp { seconds: -1, nanos: 0 },
            Timestamp { seconds: 2_000_000_000, nanos: 1_000_000_000 },
            Timestamp { seconds: 2_000_000_000, nanos: -1 },
        ] {
            let (until, violations) = until(Some(bad));
            assert_eq!(until, None, "{bad:?}");
            assert_eq!(violations[0].field, "hold_expires_at");
        }
    }
}
