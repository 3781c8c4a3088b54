//! The state table of a reservation: what a verb does, given what the store already holds.
//!
//! The same function answers from the cache of settled answers, from a record that a failed
//! condition returned, and, with no record, decides what to write.

use super::answer::{Answer, Refusal};
use super::ids::{Fingerprint, OrderId, ReservationId};
use super::operation::Verb;
use super::transaction::{RecordView, ReservationState};

/// The state that `verb` gives to a reservation that does not exist yet.
pub fn written_by(verb: Verb) -> ReservationState {
    match verb {
        Verb::Commit => ReservationState::Confirmed,
        Verb::Release => ReservationState::Released,
    }
}

/// The answer to `verb` on a reservation that exists as `record`.
///
/// The payload is compared first: a repeat with another payload is a conflict in every state.
pub fn answer_from(
    verb: Verb,
    reservation: &ReservationId,
    fingerprint: Fingerprint,
    record: &RecordView,
) -> Answer {
    if record.fingerprint != fingerprint {
        return Answer::Refused(Refusal::IdempotencyConflict);
    }
    match (verb, record.state) {
        (Verb::Commit, ReservationState::Confirmed) => Answer::Confirmed {
            order: record.order.unwrap_or_else(|| OrderId::of(reservation)),
        },
        (Verb::Commit, ReservationState::Released) => Answer::Refused(Refusal::ReservationReleased),
        (Verb::Release, ReservationState::Confirmed) => {
            Answer::Refused(Refusal::ReservationCommitted)
        }
        (Verb::Release, ReservationState::Released) => Answer::Released,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: ReservationState, fingerprint: Fingerprint) -> RecordView {
        RecordView {
            fingerprint,
            state,
            order: None,
        }
    }

    #[test]
    fn every_row_of_the_table_that_has_a_record() {
        let id: ReservationId = "rsv".parse().expect("legal");
        let same = Fingerprint([1; 16]);
        let rows = [
            (
                Verb::Commit,
                ReservationState::Confirmed,
                Answer::Confirmed {
                    order: OrderId::of(&id),
                },
            ),
            (
                Verb::Commit,
                ReservationState::Released,
                Answer::Refused(Refusal::ReservationReleased),
            ),
            (
                Verb::Release,
                ReservationState::Confirmed,
                Answer::Refused(Refusal::ReservationCommitted),
            ),
            (Verb::Release, ReservationState::Released, Answer::Released),
        ];
        for (verb, state, expected) in rows {
            let answer = answer_from(verb, &id, same, &record(state, same));
            assert_eq!(answer, expected, "{verb:?} in {state:?}");
            let other = answer_from(verb, &id, same, &record(state, Fingerprint([2; 16])));
            assert_eq!(
                other,
                Answer::Refused(Refusal::IdempotencyConflict),
                "{verb:?} in {state:?} with another payload"
            );
        }
    }
}
