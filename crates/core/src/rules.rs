//! State table of a reservation: the effect of a verb on the stored state.
//!
//! The same function answers from the record cache, from a record that was read, and from a record that a failed
//! condition returned; where a write is needed it returns the transition. A write decided on a stale record is
//! harmless: the state it was decided on is its condition.

use super::answer::{Answer, Rejection, ReleaseOutcome};
use super::ids::{Fingerprint, OrderId, ReservationId};
use super::operation::{Operation, Selection, Verb};
use super::time::UnixMillis;
use super::transaction::{ExpiryCondition, RecordView, RecordWrite, ReservationState};
use crate::fault::{self, Fault};

pub use super::transaction::{StockChange, stock_change};

/// Policy for the commit of an expired hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LateCommit {
    /// Confirmed if the stock is still available, because the buyer has paid.
    #[default]
    Reacquire,
    /// Rejected.
    Reject,
}

/// A state transition of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Option<ReservationState>,
    pub due: ExpiryCondition,
    pub to: ReservationState,
}

impl Transition {
    pub fn stock_change(self) -> StockChange {
        stock_change(self.from, self.to)
    }
}

/// Result of the state table: an answer or a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Answer(Answer),
    Write(Transition),
}

/// Applies the state table to `operation`. `record` is the stored record of the reservation, `None` if there is no
/// record.
///
/// The payload is compared first: a repeat with another payload is a conflict in every state.
pub fn decide(
    operation: &Operation,
    record: Option<&RecordView>,
    now: UnixMillis,
    late: LateCommit,
) -> Decision {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    let Some(record) = record else {
        return without_record(operation);
    };
    if !is_same(operation, record) {
        return refuse(Rejection::IdempotencyConflict);
    }
    let over = record.expires_at.is_some_and(|at| at <= now);
    let write = |due, to| Decision::Write(Transition { from: Some(record.state), due, to });
    match (operation.verb, record.state) {
        (Verb::Hold, Held) if over => refuse(Rejection::HoldExpired),
        (Verb::Hold, Held) => Decision::Answer(held(record)),
        (Verb::Hold, Expired) => refuse(Rejection::HoldExpired),
        (Verb::Commit, Held | Expired)
            if late == LateCommit::Reject && !fault::planted(Fault::LateCommitDespiteReject) =>
        {
            if over || record.state == Expired {
                refuse(Rejection::HoldExpired)
            } else {
                write(ExpiryCondition::NotExpired, Confirmed)
            }
        }
        (Verb::Commit, Held | Expired) => write(ExpiryCondition::Any, Confirmed),
        (Verb::Commit, Confirmed) if has_other_payment(operation, record) => {
            let order = record.order.unwrap_or_else(|| OrderId::of(&operation.reservation));
            refuse(Rejection::PaymentConflict { order })
        }
        (Verb::Commit, Confirmed)
            if record.payment.is_none()
                && operation.payment().is_some()
                && !fault::planted(Fault::LaterPaymentDropped) =>
        {
            // The money would have no trace, and neither would a second payment.
            write(ExpiryCondition::Any, Confirmed)
        }
        (Verb::Commit, Confirmed) => Decision::Answer(confirmed(&operation.reservation, record)),
        (Verb::Hold | Verb::Commit, Released | Refunded) => refuse(Rejection::ReservationReleased),
        (Verb::Release, Held) => write(ExpiryCondition::Any, Released),
        (Verb::Release, Confirmed) if fault::planted(Fault::ConfirmedReleased) => {
            write(ExpiryCondition::Any, Released)
        }
        (Verb::Hold | Verb::Release, Confirmed) => refuse(Rejection::ReservationCommitted),
        (Verb::Release, Released | Expired | Refunded) => Decision::Answer(Answer::Released {
            how: super::answer::ReleaseOutcome::AlreadyReleased,
            at: record.at,
            seats: record.seats.clone(),
        }),
        (Verb::Expire, Held) if over && fault::planted(Fault::ExpiryUnconditional) => {
            write(ExpiryCondition::Any, Expired)
        }
        (Verb::Expire, Held) if over => write(ExpiryCondition::Expired, Expired),
        (Verb::Expire, Held) => Decision::Answer(held(record)),
        (Verb::Expire, _) => Decision::Answer(Answer::Expired),
        (Verb::Refund, Confirmed) => write(ExpiryCondition::Any, Refunded),
        (Verb::Refund, Refunded) => Decision::Answer(Answer::Refunded),
        (Verb::Refund, _) => refuse(Rejection::ReservationNotConfirmed),
    }
}

fn without_record(operation: &Operation) -> Decision {
    let to = match operation.verb {
        // The operation refers to the held stock, and nothing is held.
        Verb::Hold | Verb::Commit if operation.selection == Selection::AsRecorded => {
            return refuse(Rejection::ReservationNotFound);
        }
        Verb::Hold => ReservationState::Held,
        Verb::Commit => ReservationState::Confirmed,
        Verb::Release if fault::planted(Fault::TombstoneMissing) => {
            return Decision::Answer(Answer::Released {
                how: ReleaseOutcome::NoReservation,
                at: UnixMillis(0),
                seats: None,
            });
        }
        Verb::Release => ReservationState::Released,
        Verb::Expire => return Decision::Answer(Answer::Expired),
        Verb::Refund => return refuse(Rejection::ReservationNotFound),
    };
    Decision::Write(Transition { from: None, due: ExpiryCondition::Any, to })
}

/// The answer for `write`, which was stored at `at`.
pub(crate) fn answer_written(write: &RecordWrite, at: UnixMillis) -> Answer {
    match write.to {
        ReservationState::Held => held(&write.view(at)),
        ReservationState::Confirmed => confirmed(write.reservation(), &write.view(at)),
        ReservationState::Released => Answer::Released {
            how: match write.from {
                None => ReleaseOutcome::NoReservation,
                Some(_) => ReleaseOutcome::Released,
            },
            at,
            seats: write.seats.clone(),
        },
        ReservationState::Expired => Answer::Expired,
        ReservationState::Refunded => Answer::Refunded,
    }
}

/// Whether operation and record agree on event, units and seats.
///
/// A quantity on a seated event means as many seats as were chosen, and an operation without units and seats refers to
/// the recorded ones. A tombstone of a release that names neither matches every operation on its event.
fn is_same(operation: &Operation, record: &RecordView) -> bool {
    let stored = record.fingerprint;
    if operation.fingerprint == stored {
        return true;
    }
    let event = &operation.event;
    match (&operation.selection, &record.seats) {
        (_, None) if record.qty == 0 => stored == Fingerprint::of_recorded_stock(event),
        (Selection::AsRecorded, Some(seats)) => stored == Fingerprint::of_seats(event, seats),
        (Selection::AsRecorded, None) => {
            // A tombstone of a seat reservation stores only the number of seats.
            stored == Fingerprint::of_quantity(event, record.qty)
                || (record.state == ReservationState::Released && record.draws.is_empty())
        }
        (Selection::Quantity(qty), Some(seats)) => {
            *qty as usize == seats.len() && stored == Fingerprint::of_seats(event, seats)
        }
        _ => false,
    }
}

/// Whether a transition adds a payment to a confirmed record, and nothing else.
pub(crate) fn adds_payment(transition: Transition) -> bool {
    let confirmed = ReservationState::Confirmed;
    transition.from == Some(confirmed) && transition.to == confirmed
}

/// Whether operation and record both have a payment, and not the same one.
fn has_other_payment(operation: &Operation, record: &RecordView) -> bool {
    let is_other = |recorded| operation.payment().is_some_and(|payment| payment != recorded);
    record.payment.is_some_and(is_other) && !fault::planted(Fault::PaymentIgnored)
}

fn held(record: &RecordView) -> Answer {
    Answer::Held {
        expires_at: record.expires_at.unwrap_or_default(),
        qty: record.qty,
        seats: record.seats.clone(),
    }
}

fn confirmed(reservation: &ReservationId, record: &RecordView) -> Answer {
    Answer::Confirmed {
        order: record.order.unwrap_or_else(|| OrderId::of(reservation)),
        at: record.at,
        seats: record.seats.clone(),
    }
}

fn refuse(why: Rejection) -> Decision {
    Decision::Answer(Answer::Rejected(why))
}

#[cfg(test)]
mod tests {
    use ReservationState::{Confirmed, Expired, Held, Refunded};

    use super::*;
    use crate::ids::{EventId, PaymentHash};
    use crate::time::Micros;
    use crate::transaction::StripeAllocations;

    const NOW: UnixMillis = UnixMillis(1_000);

    fn event() -> EventId {
        "evt".parse().expect("legal")
    }

    fn id() -> ReservationId {
        "rsv".parse().expect("legal")
    }

    fn operation(verb: Verb, selection: Selection) -> Operation {
        Operation::new(verb, id(), event(), selection, Micros(1))
    }

    /// A record of two units in this state, held until then.
    fn record(state: ReservationState, until: u64) -> RecordView {
        RecordView {
            fingerprint: Fingerprint::of_quantity(&event(), 2),
            state,
            order: None,
            payment: None,
            qty: 2,
            draws: StripeAllocations::new(),
            seats: None,
            expires_at: Some(UnixMillis(until)),
            counted: false,
            at: UnixMillis(7),
        }
    }

    fn decided(verb: Verb, record: Option<&RecordView>, late: LateCommit) -> Decision {
        decide(&operation(verb, Selection::Quantity(2)), record, NOW, late)
    }

    fn write(
        from: Option<ReservationState>,
        due: ExpiryCondition,
        to: ReservationState,
    ) -> Decision {
        Decision::Write(Transition { from, due, to })
    }

    const AHEAD: u64 = 1_001;
    const OVER: u64 = 1_000;

    #[test]
    fn every_row_of_the_table() {
        use Rejection::{
            HoldExpired, ReservationCommitted, ReservationNotConfirmed, ReservationNotFound,
            ReservationReleased,
        };
        let released = ReservationState::Released;
        let refused = |why| Decision::Answer(Answer::Rejected(why));
        let is_held =
            Decision::Answer(Answer::Held { expires_at: UnixMillis(AHEAD), qty: 2, seats: None });
        let is_confirmed = Decision::Answer(Answer::Confirmed {
            order: OrderId::of(&id()),
            at: UnixMillis(7),
            seats: None,
        });
        let before = Decision::Answer(Answer::Released {
            how: ReleaseOutcome::AlreadyReleased,
            at: UnixMillis(7),
            seats: None,
        });
        let ended = Decision::Answer(Answer::Expired);
        let held = Some((Held, AHEAD));
        let over = Some((Held, OVER));
        let of = |state| Some((state, OVER));
        let rows = [
            (Verb::Hold, None, write(None, ExpiryCondition::Any, Held)),
            (Verb::Hold, held, is_held.clone()),
            (Verb::Hold, over, refused(HoldExpired)),
            (Verb::Hold, of(Confirmed), refused(ReservationCommitted)),
            (Verb::Hold, of(released), refused(ReservationReleased)),
            (Verb::Hold, of(Expired), refused(HoldExpired)),
            (Verb::Hold, of(Refunded), refused(ReservationReleased)),
            (Verb::Commit, None, write(None, ExpiryCondition::Any, Confirmed)),
            (Verb::Commit, held, write(Some(Held), ExpiryCondition::Any, Confirmed)),
            (Verb::Commit, over, write(Some(Held), ExpiryCondition::Any, Confirmed)),
            (Verb::Commit, of(Expired), write(Some(Expired), ExpiryCondition::Any, Confirmed)),
            (Verb::Commit, of(Confirmed), is_confirmed),
            (Verb::Commit, of(released), refused(ReservationReleased)),
            (Verb::Commit, of(Refunded), refused(ReservationReleased)),
            (Verb::Release, None, write(None, ExpiryCondition::Any, released)),
            (Verb::Release, held, write(Some(Held), ExpiryCondition::Any, released)),
            (Verb::Release, over, write(Some(Held), ExpiryCondition::Any, released)),
            (Verb::Release, of(released), before.clone()),
            (Verb::Release, of(Expired), before.clone()),
            (Verb::Release, of(Refunded), before),
            (Verb::Release, of(Confirmed), refused(ReservationCommitted)),
            (Verb::Expire, None, ended.clone()),
            (Verb::Expire, held, is_held),
            (Verb::Expire, over, write(Some(Held), ExpiryCondition::Expired, Expired)),
            (Verb::Expire, of(Confirmed), ended.clone()),
            (Verb::Expire, of(Expired), ended),
            (Verb::Refund, None, refused(ReservationNotFound)),
            (Verb::Refund, of(Confirmed), write(Some(Confirmed), ExpiryCondition::Any, Refunded)),
            (Verb::Refund, of(Refunded), Decision::Answer(Answer::Refunded)),
            (Verb::Refund, held, refused(ReservationNotConfirmed)),
            (Verb::Refund, of(released), refused(ReservationNotConfirmed)),
        ];
        for (verb, state, expected) in rows {
            let record = state.map(|(state, until)| record(state, until));
            let found = decided(verb, record.as_ref(), LateCommit::Reacquire);
            assert_eq!(found, expected, "{verb:?} of {state:?}");
        }
    }

    #[test]
    fn late_commit_can_be_rejected() {
        let refused = Decision::Answer(Answer::Rejected(Rejection::HoldExpired));
        let commit =
            |state, until| decided(Verb::Commit, Some(&record(state, until)), LateCommit::Reject);
        // The write carries the same condition, because the hold may expire before the write arrives.
        assert_eq!(commit(Held, AHEAD), write(Some(Held), ExpiryCondition::NotExpired, Confirmed));
        assert_eq!(commit(Held, OVER), refused);
        assert_eq!(commit(Expired, OVER), refused);
    }

    #[test]
    fn another_payload_is_a_conflict_in_every_state() {
        let conflict = Decision::Answer(Answer::Rejected(Rejection::IdempotencyConflict));
        for state in [Held, Confirmed, ReservationState::Released, Expired, Refunded] {
            for verb in [Verb::Hold, Verb::Commit, Verb::Release] {
                for selection in [
                    Selection::Quantity(3),
                    Selection::Seats(["A-1".parse().expect("legal")].into()),
                ] {
                    let asked = operation(verb, selection);
                    let found =
                        decide(&asked, Some(&record(state, AHEAD)), NOW, LateCommit::default());
                    assert_eq!(found, conflict, "{verb:?} of {state:?}");
                }
                let mut elsewhere = operation(verb, Selection::Quantity(2));
                elsewhere.event = "evt-2".parse().expect("legal");
                elsewhere.fingerprint =
                    Operation::fingerprint_of(&elsewhere.event, &elsewhere.selection);
                let found =
                    decide(&elsewhere, Some(&record(state, AHEAD)), NOW, LateCommit::default());
                assert_eq!(found, conflict, "{verb:?} of {state:?}, other event");
            }
        }
    }

    #[test]
    fn another_payment_of_a_confirmed_reservation_is_a_conflict() {
        let late = LateCommit::default();
        let paid = |payment: &str, recorded: &str, state| {
            let mut commit = operation(Verb::Commit, Selection::Quantity(2));
            commit.payment_intent = payment.to_owned();
            let stored = RecordView { payment: PaymentHash::of(recorded), ..record(state, AHEAD) };
            decide(&commit, Some(&stored), NOW, late)
        };
        let conflict = Rejection::PaymentConflict { order: OrderId::of(&id()) };
        let conflict = Decision::Answer(Answer::Rejected(conflict));
        assert_eq!(paid("pay_second", "pay_first", Confirmed), conflict);
        assert_eq!(paid("pay_first ", "pay_first", Confirmed), conflict);
        for (payment, recorded) in [("pay_first", "pay_first"), ("", "pay_first"), ("", "")] {
            let found = paid(payment, recorded, Confirmed);
            assert!(matches!(found, Decision::Answer(Answer::Confirmed { .. })), "{found:?}");
        }
        // The first payment of a reservation that was confirmed without one is recorded.
        let added = write(Some(Confirmed), ExpiryCondition::Any, Confirmed);
        assert_eq!(paid("pay", "", Confirmed), added);
        // Nothing is confirmed yet: the payment is recorded by the write.
        for state in [Held, Expired] {
            assert!(matches!(paid("pay", "", state), Decision::Write(_)));
        }
    }

    #[test]
    fn empty_selection_refers_to_the_record() {
        let late = LateCommit::default();
        let commit = operation(Verb::Commit, Selection::AsRecorded);
        let found = decide(&commit, Some(&record(Held, AHEAD)), NOW, late);
        assert_eq!(found, write(Some(Held), ExpiryCondition::Any, Confirmed));
        // Without units or seats it is unknown what to reserve.
        let found = decide(&commit, None, NOW, late);
        let missing = Decision::Answer(Answer::Rejected(Rejection::ReservationNotFound));
        assert_eq!(found, missing);
        // A tombstone of such a call matches every operation on its event, and none on another event.
        let tombstone = RecordView {
            fingerprint: Fingerprint::of_recorded_stock(&event()),
            qty: 0,
            ..record(ReservationState::Released, 0)
        };
        let found = decided(Verb::Hold, Some(&tombstone), late);
        let gone = Decision::Answer(Answer::Rejected(Rejection::ReservationReleased));
        assert_eq!(found, gone);
    }

    #[test]
    fn seat_requests_match_in_any_order_and_by_count() {
        let seats = |names: [&str; 2]| -> crate::ids::Seats {
            names.map(|name| name.parse().expect("legal")).into()
        };
        let stored = RecordView {
            fingerprint: Fingerprint::of_seats(&event(), &seats(["A-1", "A-2"])),
            seats: Some(seats(["A-1", "A-2"])),
            ..record(Held, AHEAD)
        };
        let late = LateCommit::default();
        let fits = |selection| {
            let found = decide(&operation(Verb::Commit, selection), Some(&stored), NOW, late);
            found == write(Some(Held), ExpiryCondition::Any, Confirmed)
        };
        assert!(fits(Selection::Seats(seats(["A-2", "A-1"]))));
        assert!(fits(Selection::Quantity(2)));
        assert!(fits(Selection::AsRecorded));
        assert!(!fits(Selection::Seats(seats(["A-1", "A-3"]))));
        assert!(!fits(Selection::Quantity(1)));
    }
}
