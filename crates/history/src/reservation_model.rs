//! The sequential specification of one reservation: states, answers, and hold expiry as a step of its own.
//!
//! Written from the contract, without the server's rules. A reservation changes its state at most four times; every
//! other answer follows from the state. Stock is not part of the model: whether units were available is checked for
//! the event, in `check/availability.rs`.

use std::collections::BTreeSet;

use ReservationPhase::{Confirmed, Expired, Held, Refunded, Released, Unknown};

use super::call::{CallEffect, CallOperation, StockSelection};
use super::final_state::{FinalReservation, FinalStatus};
use super::search::SequentialModel;

/// State of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReservationPhase {
    Unknown,
    /// Until [`ReservationModel::hold_end`], and after it until the record is changed.
    Held(Payload),
    /// The hold has ended and the record was changed.
    Expired(Payload),
    Confirmed(Payload),
    Released(Payload),
    Refunded(Payload),
}

/// What a reservation is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Payload {
    pub(crate) event: String,
    /// `None` after a release that named nothing and found nothing: fits everything.
    pub(crate) qty: Option<u32>,
    /// Seats as far as they are known.
    pub(crate) seats: Option<BTreeSet<String>>,
}

/// A call, or a step that is not a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReservationOp {
    Call {
        event: String,
        operation: CallOperation,
        effect: CallEffect,
        /// Whether the hold may have expired by the time of the call.
        hold: HoldTiming,
    },
    /// The hold has ended and is reclaimed.
    Reclaim,
    /// The record at the end.
    Final(Option<FinalReservation>),
}

/// What a server may have found during a call, by its clock. Around hold expiry both are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldTiming {
    pub(crate) may_be_running: bool,
    pub(crate) may_be_over: bool,
}

/// See the module head.
pub(crate) struct ReservationModel {
    pub(crate) late_commits: bool,
    /// End of the hold by the record, an answer or a request, in milliseconds since the Unix epoch. A reservation has
    /// one hold at most.
    pub(crate) hold_end: Option<u64>,
    /// Seats by the record or by an answer, for calls that leave the choice to the server.
    pub(crate) seats: Option<BTreeSet<String>>,
}

impl ReservationPhase {
    fn payload(&self) -> Option<&Payload> {
        match self {
            Unknown => None,
            Held(payload) | Expired(payload) | Confirmed(payload) | Released(payload)
            | Refunded(payload) => Some(payload),
        }
    }
}

impl SequentialModel for ReservationModel {
    type State = ReservationPhase;
    type Op = ReservationOp;

    fn initial(&self) -> ReservationPhase {
        Unknown
    }

    fn answered(&self, state: &ReservationPhase, op: &ReservationOp) -> Option<ReservationPhase> {
        match op {
            ReservationOp::Call { event, operation, effect, hold } => {
                let fits = state.payload().is_none_or(|payload| payload.fits(event, operation));
                if !fits {
                    let conflict = *effect == CallEffect::IdempotencyConflict;
                    return conflict.then(|| state.clone());
                }
                let wanted = self.payload(event, operation, effect);
                match operation {
                    CallOperation::Hold { .. } => self.hold(state, wanted, effect, *hold),
                    CallOperation::Commit { .. } => self.commit(state, wanted, effect, *hold),
                    CallOperation::Release { .. } => release(state, event, wanted, effect),
                    CallOperation::Refund => refund(state, effect),
                    CallOperation::Read => read(state, effect, *hold),
                }
            }
            ReservationOp::Reclaim => None,
            ReservationOp::Final(record) => {
                self.is_stored_as(state, record.as_ref()).then(|| state.clone())
            }
        }
    }

    fn only_reads(&self, op: &ReservationOp) -> bool {
        match op {
            ReservationOp::Call { effect, .. } => !matches!(
                effect,
                CallEffect::Held { .. }
                    | CallEffect::Confirmed { .. }
                    | CallEffect::Released
                    | CallEffect::Refunded
                    | CallEffect::Unknown
            ),
            ReservationOp::Reclaim => false,
            ReservationOp::Final(_) => true,
        }
    }

    fn effect(&self, state: &ReservationPhase, op: &ReservationOp) -> ReservationPhase {
        let changed = match op {
            ReservationOp::Call { event, operation, effect, .. } => {
                if state.payload().is_some_and(|payload| !payload.fits(event, operation)) {
                    return state.clone();
                }
                let wanted = self.payload(event, operation, effect);
                match (operation, state) {
                    (CallOperation::Hold { .. }, Unknown) => wanted.map(Held),
                    (CallOperation::Commit { .. }, Unknown) => wanted.map(Confirmed),
                    (CallOperation::Commit { .. }, Held(payload) | Expired(payload)) => {
                        Some(Confirmed(payload.clone()))
                    }
                    (CallOperation::Release { .. }, Unknown) => {
                        Some(Released(wanted.unwrap_or_else(|| Payload::of_anything(event))))
                    }
                    (CallOperation::Release { .. }, Held(payload)) => {
                        Some(Released(payload.clone()))
                    }
                    (CallOperation::Refund, Confirmed(payload)) => Some(Refunded(payload.clone())),
                    _ => None,
                }
            }
            ReservationOp::Reclaim => match state {
                Held(payload) => Some(Expired(payload.clone())),
                _ => None,
            },
            ReservationOp::Final(_) => None,
        };
        changed.unwrap_or_else(|| state.clone())
    }
}

impl ReservationModel {
    /// What a call is for; `None` if it names nothing.
    fn payload(
        &self,
        event: &str,
        operation: &CallOperation,
        effect: &CallEffect,
    ) -> Option<Payload> {
        let (CallOperation::Hold { selection, .. }
        | CallOperation::Commit { selection }
        | CallOperation::Release { selection }) = operation
        else {
            return None;
        };
        let (qty, seats) = match selection {
            StockSelection::Units(units) => (*units, None),
            StockSelection::Seats(seats) => (seats.len() as u32, Some(seats.clone())),
            StockSelection::AnySeats(count) => match effect {
                CallEffect::Held { seats, .. } if !seats.is_empty() => {
                    // The answer must have as many seats as were requested.
                    (seats.len() as u32, Some(seats.clone()))
                }
                _ => (*count, self.seats.clone().filter(|seats| seats.len() == *count as usize)),
            },
            StockSelection::AsRecorded => return None,
        };
        Some(Payload { event: event.to_owned(), qty: Some(qty), seats })
    }

    fn hold(
        &self,
        state: &ReservationPhase,
        wanted: Option<Payload>,
        effect: &CallEffect,
        hold: HoldTiming,
    ) -> Option<ReservationPhase> {
        match (effect, state) {
            (CallEffect::Held { expires_at_ms, .. }, Unknown) => {
                (self.hold_end == Some(*expires_at_ms)).then_some(Held(wanted?))
            }
            (CallEffect::Held { expires_at_ms, seats }, Held(held)) => {
                let same_end = self.hold_end == Some(*expires_at_ms);
                let same_seats =
                    seats.is_empty() || held.seats.as_ref().is_none_or(|held| held == seats);
                (same_end && same_seats && hold.may_be_running).then(|| state.clone())
            }
            (CallEffect::HoldExpired, Held(_)) => hold.may_be_over.then(|| state.clone()),
            (CallEffect::HoldExpired, Expired(_))
            | (CallEffect::ReservationReleased, Released(_) | Refunded(_))
            // After a refund a process may still have the order in its cache.
            | (CallEffect::ReservationCommitted, Confirmed(_) | Refunded(_))
            | (CallEffect::EventClosed, Unknown | Expired(_)) => Some(state.clone()),
            _ => lacks_stock(state, effect),
        }
    }

    fn commit(
        &self,
        state: &ReservationPhase,
        wanted: Option<Payload>,
        effect: &CallEffect,
        hold: HoldTiming,
    ) -> Option<ReservationPhase> {
        match (effect, state) {
            (CallEffect::Confirmed { .. }, Unknown) => Some(Confirmed(wanted?)),
            (CallEffect::Confirmed { .. }, Held(payload)) => {
                (self.late_commits || hold.may_be_running).then(|| Confirmed(payload.clone()))
            }
            (CallEffect::Confirmed { .. }, Expired(payload)) => {
                self.late_commits.then(|| Confirmed(payload.clone()))
            }
            (CallEffect::HoldExpired, Held(_)) => {
                (!self.late_commits && hold.may_be_over).then(|| state.clone())
            }
            // As above: the order may be in a cache.
            (CallEffect::Confirmed { .. }, Confirmed(_) | Refunded(_))
            | (CallEffect::HoldExpired, Expired(_))
            | (CallEffect::ReservationReleased, Released(_) | Refunded(_))
            | (CallEffect::EventClosed, Unknown | Expired(_)) => Some(state.clone()),
            (CallEffect::ReservationNotFound, Unknown) => wanted.is_none().then_some(Unknown),
            _ => lacks_stock(state, effect),
        }
    }

    /// Whether the record at the end is that of the state.
    fn is_stored_as(&self, state: &ReservationPhase, record: Option<&FinalReservation>) -> bool {
        let Some(record) = record else { return *state == Unknown };
        let Some(payload) = state.payload() else { return false };
        // A tombstone has no stock and, if the release named nothing, no quantity.
        let is_tombstone = matches!(state, Released(_));
        let same_event = payload.event == record.event_id;
        let same_qty = is_tombstone || payload.qty.is_none_or(|qty| qty == record.qty);
        let same_seats =
            is_tombstone || payload.seats.as_ref().is_none_or(|seats| *seats == record.seats);
        let same_end = !matches!(state, Held(_)) || record.expires_at_ms == self.hold_end;
        stored_status(state) == Some(record.status)
            && same_event
            && same_qty
            && same_seats
            && same_end
    }
}

fn read(
    state: &ReservationPhase,
    effect: &CallEffect,
    hold: HoldTiming,
) -> Option<ReservationPhase> {
    let status = match effect {
        CallEffect::Read { status } => *status,
        CallEffect::ReservationNotFound => return (*state == Unknown).then_some(Unknown),
        _ => return None,
    };
    let is_right = match (state, status) {
        (Held(_), FinalStatus::Held) => hold.may_be_running,
        // A hold past its end is shown as expired before it is reclaimed.
        (Held(_), FinalStatus::Expired) => hold.may_be_over,
        _ => stored_status(state) == Some(status),
    };
    is_right.then(|| state.clone())
}

fn release(
    state: &ReservationPhase,
    event: &str,
    wanted: Option<Payload>,
    effect: &CallEffect,
) -> Option<ReservationPhase> {
    match (effect, state) {
        (CallEffect::Released, Held(payload)) => Some(Released(payload.clone())),
        (CallEffect::Released, Released(_) | Expired(_) | Refunded(_))
        | (CallEffect::ReservationCommitted, Confirmed(_) | Refunded(_))
        | (CallEffect::StockNotFound, Unknown) => Some(state.clone()),
        // A tombstone, so that a late hold or commit finds it.
        (CallEffect::Released, Unknown) => {
            Some(Released(wanted.unwrap_or_else(|| Payload::of_anything(event))))
        }
        _ => None,
    }
}

fn refund(state: &ReservationPhase, effect: &CallEffect) -> Option<ReservationPhase> {
    match (effect, state) {
        (CallEffect::Refunded, Confirmed(payload)) => Some(Refunded(payload.clone())),
        (CallEffect::Refunded, Refunded(_))
        | (CallEffect::ReservationNotConfirmed, Held(_) | Expired(_) | Released(_))
        | (CallEffect::ReservationNotFound, Unknown) => Some(state.clone()),
        _ => None,
    }
}

/// A refusal for lack of stock: only for a reservation that has no record.
fn lacks_stock(state: &ReservationPhase, effect: &CallEffect) -> Option<ReservationPhase> {
    let is_refusal = matches!(
        effect,
        CallEffect::SoldOut | CallEffect::SeatUnavailable { .. } | CallEffect::StockNotFound
    );
    (is_refusal && *state == Unknown).then_some(Unknown)
}

fn stored_status(state: &ReservationPhase) -> Option<FinalStatus> {
    Some(match state {
        Unknown => return None,
        Held(_) => FinalStatus::Held,
        Expired(_) => FinalStatus::Expired,
        Confirmed(_) => FinalStatus::Confirmed,
        Released(_) => FinalStatus::Released,
        Refunded(_) => FinalStatus::Refunded,
    })
}

impl Payload {
    fn of_anything(event: &str) -> Self {
        Self { event: event.to_owned(), qty: None, seats: None }
    }

    /// Whether a call names the same event and the same units or seats, as far as both are known.
    fn fits(&self, event: &str, operation: &CallOperation) -> bool {
        let (CallOperation::Hold { selection, .. }
        | CallOperation::Commit { selection }
        | CallOperation::Release { selection }) = operation
        else {
            return true;
        };
        if self.event != event {
            return false;
        }
        let Some(qty) = self.qty else { return true };
        match (selection, &self.seats) {
            (StockSelection::AsRecorded, _) => true,
            (StockSelection::Units(count) | StockSelection::AnySeats(count), _) => *count == qty,
            (StockSelection::Seats(seats), Some(held)) => seats == held,
            (StockSelection::Seats(seats), None) => seats.len() == qty as usize,
        }
    }
}
