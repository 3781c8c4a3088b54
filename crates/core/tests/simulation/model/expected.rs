//! The answer that a caller must get because of a record.

use inventory_core::answer::{Answer, Rejection, ReleaseOutcome};
use inventory_core::ids::{EventId, Fingerprint, OrderId, PaymentHash, ReservationId};
use inventory_core::operation::{Selection, Verb};
use inventory_core::rules::LateCommit;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{RecordView, ReservationState};

/// What a caller requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) verb: Verb,
    pub(crate) reservation: &'a ReservationId,
    pub(crate) event: &'a EventId,
    pub(crate) selection: &'a Selection,
    /// Empty if none is named.
    pub(crate) payment: &'a str,
}

/// The answer while the record of `event` is `view` and the time is `clock`; `None` where something must be
/// written first. A release is answered as one that was released before.
pub(crate) fn expected_answer(
    ask: Ask<'_>,
    record: Option<(&EventId, &RecordView)>,
    clock: UnixMillis,
    late: LateCommit,
) -> Option<Answer> {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released as Gone};
    let Some((event, view)) = record else {
        return match (ask.verb, ask.selection) {
            (Verb::Refund, _) | (Verb::Hold | Verb::Commit, Selection::AsRecorded) => {
                Some(Answer::Rejected(Rejection::ReservationNotFound))
            }
            (Verb::Expire, _) => Some(Answer::Expired),
            _ => None,
        };
    };
    if !fits(ask, event, view) {
        return Some(Answer::Rejected(Rejection::IdempotencyConflict));
    }
    let over = view.expires_at.is_some_and(|end| end <= clock);
    let refusal = match (ask.verb, view.state) {
        // Two payments for one order: the caller must learn that the second is not recorded.
        (Verb::Commit, Confirmed)
            if !ask.payment.is_empty()
                && view.payment.is_some_and(|paid| PaymentHash::of(ask.payment) != Some(paid)) =>
        {
            Rejection::PaymentConflict { order: OrderId::of(ask.reservation) }
        }
        // A payment without a trace could be made twice: it is recorded first.
        (Verb::Commit, Confirmed) if !ask.payment.is_empty() && view.payment.is_none() => {
            return None;
        }
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
                how: ReleaseOutcome::AlreadyReleased,
                at: view.at,
                seats: view.seats.clone(),
            });
        }
        (Verb::Expire, Held) => return None,
        (Verb::Expire, _) => return Some(Answer::Expired),
        (Verb::Refund, Refunded) => return Some(Answer::Refunded),
        (Verb::Refund, Confirmed) => return None,
        (Verb::Refund, _) => Rejection::ReservationNotConfirmed,
        (Verb::Release, Held) => return None,
        (Verb::Hold, Held | Expired) => Rejection::HoldExpired,
        (Verb::Commit, Held) if over && late == LateCommit::Reject => Rejection::HoldExpired,
        (Verb::Commit, Expired) if late == LateCommit::Reject => Rejection::HoldExpired,
        (Verb::Commit, Held | Expired) => return None,
        (Verb::Hold | Verb::Release, Confirmed) => Rejection::ReservationCommitted,
        (Verb::Hold | Verb::Commit, Gone | Refunded) => Rejection::ReservationReleased,
    };
    Some(Answer::Rejected(refusal))
}

/// Whether event and units or seats are the same; a request that names nothing means what was recorded.
fn fits(ask: Ask<'_>, event: &EventId, view: &RecordView) -> bool {
    let is_tombstone = view.seats.is_none() && view.draws.is_empty();
    if is_tombstone && view.qty > 0 && *ask.selection == Selection::AsRecorded {
        // The tombstone has a hash and a number, which do not matter to a request that names neither.
        return true;
    }
    if event != ask.event {
        return false;
    }
    match (ask.selection, &view.seats) {
        (Selection::AsRecorded, _) => true,
        _ if is_tombstone && view.qty == 0 => true,
        (Selection::Quantity(qty), None) if is_tombstone => {
            view.fingerprint == Fingerprint::of_quantity(event, *qty)
        }
        (Selection::Seats(seats), None) => {
            is_tombstone && view.fingerprint == Fingerprint::of_seats(event, seats)
        }
        (Selection::Quantity(qty), _) => *qty == view.qty,
        (Selection::Seats(selection), Some(seats)) => {
            selection.len() == seats.len() && selection.iter().all(|seat| seats.contains(seat))
        }
    }
}
