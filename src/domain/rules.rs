//! The state table of a reservation: what a verb does, given what the store already holds.
//!
//! The same function answers from the cache of settled reservations, from a record that was read or
//! that a failed condition returned, and says what is to be written where a write is needed. A write
//! decided on an old view harms nothing: its condition is the state it was decided on.

use super::answer::{Answer, Refusal, Released};
use super::ids::{Fingerprint, OrderId, ReservationId};
use super::operation::{Operation, Verb, Wanted};
use super::time::UnixMillis;
use super::transaction::{Due, RecordView, RecordWrite, ReservationState};

/// What becomes of the commit of a hold that is past its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LateCommit {
    /// The buyer has paid: confirmed if the stock is still there.
    #[default]
    Reacquire,
    /// Refused.
    Reject,
}

/// What happens to units and seats when a record goes from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Movement {
    /// From the stock to the reservation.
    Take,
    /// They stay with the reservation; seats go from HOLD to SOLD.
    Keep,
    /// From the reservation back to the stock.
    Give,
    /// There are none.
    None,
}

/// See [`Movement`].
pub fn movement(from: Option<ReservationState>, to: ReservationState) -> Movement {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    match (from, to) {
        (None | Some(Expired), Held | Confirmed) => Movement::Take,
        (Some(Held), Confirmed) => Movement::Keep,
        (Some(Held), Released | Expired) | (Some(Confirmed), Refunded) => Movement::Give,
        _ => Movement::None,
    }
}

/// A step in a reservation's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Option<ReservationState>,
    pub due: Due,
    pub to: ReservationState,
}

impl Transition {
    pub fn movement(self) -> Movement {
        movement(self.from, self.to)
    }
}

/// What is to be done about an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Answer(Answer),
    Write(Transition),
}

/// Applies the state table to `operation`. `record` is what the store holds for the reservation;
/// `None` when there is no record.
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
        return refuse(Refusal::IdempotencyConflict);
    }
    let over = record.expires_at.is_some_and(|at| at <= now);
    let write = |due, to| {
        Decision::Write(Transition {
            from: Some(record.state),
            due,
            to,
        })
    };
    match (operation.verb, record.state) {
        (Verb::Hold, Held) if over => refuse(Refusal::HoldExpired),
        (Verb::Hold, Held) => Decision::Answer(held(record)),
        (Verb::Hold, Expired) => refuse(Refusal::HoldExpired),
        (Verb::Commit, Held | Expired) if late == LateCommit::Reject => {
            if over || record.state == Expired {
                refuse(Refusal::HoldExpired)
            } else {
                write(Due::Ahead, Confirmed)
            }
        }
        (Verb::Commit, Held | Expired) => write(Due::Any, Confirmed),
        (Verb::Commit, Confirmed) => Decision::Answer(confirmed(&operation.reservation, record)),
        (Verb::Hold | Verb::Commit, Released | Refunded) => refuse(Refusal::ReservationReleased),
        (Verb::Hold | Verb::Release, Confirmed) => refuse(Refusal::ReservationCommitted),
        (Verb::Release, Held) => write(Due::Any, Released),
        (Verb::Release, Released | Expired | Refunded) => Decision::Answer(Answer::Released {
            how: super::answer::Released::Before,
            at: record.at,
            seats: record.seats.clone(),
        }),
        (Verb::Expire, Held) if over => write(Due::Over, Expired),
        (Verb::Expire, Held) => Decision::Answer(held(record)),
        (Verb::Expire, _) => Decision::Answer(Answer::Expired),
        (Verb::Refund, Confirmed) => write(Due::Any, Refunded),
        (Verb::Refund, Refunded) => Decision::Answer(Answer::Refunded),
        (Verb::Refund, _) => refuse(Refusal::ReservationNotConfirmed),
    }
}

fn without_record(operation: &Operation) -> Decision {
    let to = match operation.verb {
        // It says "what is held", and nothing is.
        Verb::Hold | Verb::Commit if operation.wanted == Wanted::Whatever => {
            return refuse(Refusal::ReservationNotFound);
        }
        Verb::Hold => ReservationState::Held,
        Verb::Commit => ReservationState::Confirmed,
        Verb::Release => ReservationState::Released,
        Verb::Expire => return Decision::Answer(Answer::Expired),
        Verb::Refund => return refuse(Refusal::ReservationNotFound),
    };
    Decision::Write(Transition {
        from: None,
        due: Due::Any,
        to,
    })
}

/// The answer to whoever asked for `write`, which the store has at `at`.
pub fn answer_written(write: &RecordWrite, at: UnixMillis) -> Answer {
    match write.to {
        ReservationState::Held => held(&write.view(at)),
        ReservationState::Confirmed => confirmed(&write.reservation, &write.view(at)),
        ReservationState::Released => Answer::Released {
            how: match write.from {
                None => Released::NeverWas,
                Some(_) => Released::Now,
            },
            at,
            seats: write.seats.clone(),
        },
        ReservationState::Expired => Answer::Expired,
        ReservationState::Refunded => Answer::Refunded,
    }
}

/// Whether the operation is about what the record is about: the same event, units and seats.
///
/// A quantity on a seated event means as many seats as were chosen, and a call that names nothing
/// means whatever there is. A tombstone left by such a call fits everything of its event.
fn is_same(operation: &Operation, record: &RecordView) -> bool {
    let stored = record.fingerprint;
    if operation.fingerprint == stored {
        return true;
    }
    let event = &operation.event;
    match (&operation.wanted, &record.seats) {
        (_, None) if record.qty == 0 => stored == Fingerprint::of_whatever(event),
        (Wanted::Whatever, Some(seats)) => stored == Fingerprint::of_seats(event, seats),
        (Wanted::Whatever, None) => {
            // A tombstone of seats knows how many there were, and no more.
            stored == Fingerprint::of_quantity(event, record.qty)
                || (record.state == ReservationState::Released && record.draws.is_empty())
        }
        (Wanted::Quantity(qty), Some(seats)) => {
            *qty as usize == seats.len() && stored == Fingerprint::of_seats(event, seats)
        }
        _ => false,
    }
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

fn refuse(why: Refusal) -> Decision {
    Decision::Answer(Answer::Refused(why))
}
