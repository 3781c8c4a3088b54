//! What a caller must be told because of a record.

use inventory_core::answer::{Answer, Refusal, Released};
use inventory_core::ids::{EventId, Fingerprint, OrderId, ReservationId};
use inventory_core::operation::{Verb, Wanted};
use inventory_core::rules::LateCommit;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{RecordView, ReservationState};

/// What a caller asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) verb: Verb,
    pub(crate) reservation: &'a ReservationId,
    pub(crate) event: &'a EventId,
    pub(crate) wanted: &'a Wanted,
}

/// What is to be answered while the record of `event` is `view` and the time is `clock`; `None`
/// where something is to be written first. A release is answered as one that found it done.
pub(crate) fn says(
    ask: Ask<'_>,
    record: Option<(&EventId, &RecordView)>,
    clock: UnixMillis,
    late: LateCommit,
) -> Option<Answer> {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released as Gone};
    let Some((event, view)) = record else {
        return match (ask.verb, ask.wanted) {
            (Verb::Refund, _) | (Verb::Hold | Verb::Commit, Wanted::Whatever) => {
                Some(Answer::Refused(Refusal::ReservationNotFound))
            }
            (Verb::Expire, _) => Some(Answer::Expired),
            _ => None,
        };
    };
    if !fits(ask, event, view) {
        return Some(Answer::Refused(Refusal::IdempotencyConflict));
    }
    let over = view.expires_at.is_some_and(|end| end <= clock);
    let refusal = match (ask.verb, view.state) {
        (Verb::Commit, Confirmed) => {
            return Some(Answer::Confirmed {
                order: OrderId::of(ask.reservation),
                at: view.at,
                seats: view.seats.clone(),
            });
        }
        (Verb::Hold | Verb::Expire, Held) if !over => {
            return Some(Answer::Held {
                expires_at: view.expires_at?,
                qty: view.qty,
                seats: view.seats.clone(),
            });
        }
        (Verb::Release, Gone | Expired | Refunded) => {
            return Some(Answer::Released {
                how: Released::Before,
                at: view.at,
                seats: view.seats.clone(),
            });
        }
        (Verb::Expire, Held) => return None,
        (Verb::Expire, _) => return Some(Answer::Expired),
        (Verb::Refund, Refunded) => return Some(Answer::Refunded),
        (Verb::Refund, Confirmed) => return None,
        (Verb::Refund, _) => Refusal::ReservationNotConfirmed,
        (Verb::Release, Held) => return None,
        (Verb::Hold, Held | Expired) => Refusal::HoldExpired,
        (Verb::Commit, Held) if over && late == LateCommit::Reject => Refusal::HoldExpired,
        (Verb::Commit, Expired) if late == LateCommit::Reject => Refusal::HoldExpired,
        (Verb::Commit, Held | Expired) => return None,
        (Verb::Hold | Verb::Release, Confirmed) => Refusal::ReservationCommitted,
        (Verb::Hold | Verb::Commit, Gone | Refunded) => Refusal::ReservationReleased,
    };
    Some(Answer::Refused(refusal))
}

/// The same event, and as many units or the same seats; naming nothing means whatever there is.
fn fits(ask: Ask<'_>, event: &EventId, view: &RecordView) -> bool {
    let is_tombstone = view.seats.is_none() && view.draws.is_empty();
    if is_tombstone && view.qty > 0 && *ask.wanted == Wanted::Whatever {
        // It knows a hash and a number, which say nothing to who names neither.
        return true;
    }
    if event != ask.event {
        return false;
    }
    match (ask.wanted, &view.seats) {
        (Wanted::Whatever, _) => true,
        _ if is_tombstone && view.qty == 0 => true,
        (Wanted::Quantity(qty), None) if is_tombstone => {
            view.fingerprint == Fingerprint::of_quantity(event, *qty)
        }
        (Wanted::Seats(seats), None) => {
            is_tombstone && view.fingerprint == Fingerprint::of_seats(event, seats)
        }
        (Wanted::Quantity(qty), _) => *qty == view.qty,
        (Wanted::Seats(wanted), Some(seats)) => {
            wanted.len() == seats.len() && wanted.iter().all(|seat| seats.contains(seat))
        }
    }
}
