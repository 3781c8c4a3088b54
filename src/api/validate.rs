//! What a request must look like, field by field.
//!
//! Each check names the field as the contract spells it and says what would be right. All
//! violations of a request are reported at once.

use crate::domain::ids::{EventId, IdError, ReservationId};
use crate::limits;

/// One field that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub field: &'static str,
    pub problem: String,
}

/// Collects violations; allocates only when there is one.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Quantity(u32),
    /// Distinct, legal seat ids, in the order given.
    Seats(Vec<String>),
}

impl Violations {
    pub fn add(&mut self, field: &'static str, problem: impl Into<String>) {
        self.0.push(Violation {
            field,
            problem: problem.into(),
        });
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

    /// Seats win over a quantity when both are given.
    pub fn wanted(&mut self, qty: i32, seats: Vec<String>, qty_max: u32) -> Option<Wanted> {
        if seats.is_empty() {
            return self.quantity(qty, qty_max).map(Wanted::Quantity);
        }
        self.seats(seats).map(Wanted::Seats)
    }

    fn quantity(&mut self, qty: i32, qty_max: u32) -> Option<u32> {
        match u32::try_from(qty) {
            Ok(units) if (1..=qty_max).contains(&units) => Some(units),
            _ => {
                self.add("qty", format!("is {qty}; want 1 to {qty_max}"));
                None
            }
        }
    }

    fn seats(&mut self, seats: Vec<String>) -> Option<Vec<String>> {
        let before = self.0.len();
        let most = limits::SEATS_PER_RESERVATION_MAX;
        if seats.len() > most {
            let count = seats.len();
            self.add("seat_ids", format!("has {count} seats; want 1 to {most}"));
            return None;
        }
        for (at, seat) in seats.iter().enumerate() {
            if let Err(error) = seat.parse::<EventId>() {
                self.add("seat_ids", format!("[{at}].seat_id {error}"));
            } else if seats[..at].contains(seat) {
                self.add("seat_ids", format!("names {seat} twice"));
            }
        }
        (self.0.len() == before).then_some(seats)
    }

    pub fn payment_intent(&mut self, text: &str) {
        let most = limits::PAYMENT_INTENT_BYTES_MAX;
        if text.len() > most {
            let bytes = text.len();
            self.add(
                "payment_intent_id",
                format!("has {bytes} bytes; want at most {most}"),
            );
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(check: impl FnOnce(&mut Violations)) -> Vec<(&'static str, String)> {
        let mut violations = Violations::default();
        check(&mut violations);
        let pairs = violations.into_vec().into_iter();
        pairs.map(|v| (v.field, v.problem)).collect()
    }

    #[test]
    fn quantities_outside_the_bounds_never_pass() {
        for bad in [i32::MIN, -5, -1, 0, 11, i32::MAX] {
            let found = problems(|v| assert_eq!(v.wanted(bad, Vec::new(), 10), None));
            assert_eq!(found, [("qty", format!("is {bad}; want 1 to 10"))]);
        }
        for good in [1, 10] {
            let found = problems(|v| {
                assert_eq!(
                    v.wanted(good, Vec::new(), 10),
                    Some(Wanted::Quantity(good as u32))
                );
            });
            assert!(found.is_empty());
        }
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let found = problems(|v| {
            v.event(String::new());
            v.reservation("a b".into());
            v.wanted(0, Vec::new(), 10);
            v.payment_intent(&"x".repeat(limits::PAYMENT_INTENT_BYTES_MAX + 1));
        });
        let fields: Vec<_> = found.iter().map(|(field, _)| *field).collect();
        assert_eq!(
            fields,
            ["event_id", "reservation_id", "qty", "payment_intent_id"]
        );
        assert!(found[1].1.contains("' ' at byte 1"), "{}", found[1].1);
    }

    #[test]
    fn ids_are_bounded_and_ascii() {
        let long = "x".repeat(limits::ID_BYTES_MAX);
        assert!(problems(|v| assert!(v.event(long.clone()).is_some())).is_empty());
        for bad in [
            format!("{long}x"),
            "좌석".into(),
            "evt#1".into(),
            "a/b".into(),
        ] {
            let found = problems(|v| assert!(v.event(bad.clone()).is_none()));
            assert_eq!(found.len(), 1, "{bad}");
        }
    }

    #[test]
    fn seats_are_counted_distinct_and_legal() {
        let seats = |ids: &[&str]| ids.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert!(
            problems(|v| assert!(v.wanted(-1, seats(&["A-1", "A-2"]), 10).is_some())).is_empty()
        );
        let twice = problems(|v| assert!(v.wanted(1, seats(&["A-1", "A-1"]), 10).is_none()));
        assert_eq!(twice, [("seat_ids", "names A-1 twice".to_owned())]);
        let many: Vec<String> = (0..11).map(|n| format!("A-{n}")).collect();
        assert_eq!(
            problems(|v| assert!(v.wanted(1, many, 10).is_none())).len(),
            1
        );
        assert_eq!(
            problems(|v| assert!(v.wanted(1, seats(&["", "B"]), 10).is_none())).len(),
            1
        );
    }
}
