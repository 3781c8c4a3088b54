//! The sequential specification of one seat: who has it.
//!
//! Calls are those that name the seat, by request or by answer. A call that names several seats is one call of each: a
//! seat's history alone is checked, not that all seats change together, which the records at the end show.

use SeatPhase::{Available, Held, Sold};

use super::final_state::FinalSeatState;
use super::search::SequentialModel;

/// State of a seat. Reservations are numbers in the seat's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SeatPhase {
    Available,
    Held(u32),
    Sold(u32),
    Blocked,
}

/// A call about the seat, or a step that is not a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeatOp {
    Hold(u32),
    Commit(u32),
    Release(u32),
    Refund(u32),
    /// The hold of the reservation has ended: another one may take the seat.
    Expire(u32),
    /// Refused, because another reservation has the seat.
    Unavailable(u32),
    /// A release refused, because the reservation has bought the seat.
    Bought(u32),
    /// The seat at the end.
    Final(SeatPhase),
}

impl SeatOp {
    /// The seat at the end, with the number of its reservation; `None` if the seat names no known reservation.
    pub(crate) fn of_final(state: FinalSeatState, reservation: Option<u32>) -> Option<Self> {
        Some(Self::Final(match state {
            FinalSeatState::Available => SeatPhase::Available,
            FinalSeatState::Blocked => SeatPhase::Blocked,
            FinalSeatState::Hold => SeatPhase::Held(reservation?),
            FinalSeatState::Sold => SeatPhase::Sold(reservation?),
        }))
    }
}

/// See the module head.
pub(crate) struct SeatModel {
    /// Blocked from the start to the end: nothing here blocks or unblocks seats.
    pub(crate) is_blocked: bool,
}

impl SequentialModel for SeatModel {
    type State = SeatPhase;
    type Op = SeatOp;

    fn initial(&self) -> SeatPhase {
        if self.is_blocked { SeatPhase::Blocked } else { Available }
    }

    fn answered(&self, state: &SeatPhase, op: &SeatOp) -> Option<SeatPhase> {
        match (*op, *state) {
            (SeatOp::Hold(by), Available) => Some(Held(by)),
            (SeatOp::Hold(by), Held(holder)) => (holder == by).then_some(*state),
            (SeatOp::Commit(by), Available) => Some(Sold(by)),
            (SeatOp::Commit(by), Held(owner) | Sold(owner)) => (owner == by).then_some(Sold(by)),
            // A sold seat is returned by a refund only.
            (SeatOp::Release(by), Sold(owner)) => (owner != by).then_some(*state),
            (SeatOp::Unavailable(by), Held(owner) | Sold(owner)) => (owner != by).then_some(*state),
            (SeatOp::Unavailable(_), SeatPhase::Blocked) => Some(*state),
            (SeatOp::Bought(by), Sold(owner)) => (owner == by).then_some(*state),
            (SeatOp::Release(_) | SeatOp::Refund(_), _) => Some(self.effect(state, op)),
            (SeatOp::Final(found), _) => (found == *state).then_some(*state),
            _ => None,
        }
    }

    fn only_reads(&self, op: &SeatOp) -> bool {
        matches!(op, SeatOp::Unavailable(_) | SeatOp::Bought(_) | SeatOp::Final(_))
    }

    fn effect(&self, state: &SeatPhase, op: &SeatOp) -> SeatPhase {
        match (*op, *state) {
            (SeatOp::Hold(by), Available) => Held(by),
            (SeatOp::Commit(by), Available) => Sold(by),
            (SeatOp::Commit(by), Held(holder)) if holder == by => Sold(by),
            (SeatOp::Release(by) | SeatOp::Expire(by), Held(holder)) if holder == by => Available,
            (SeatOp::Refund(by), Sold(owner)) if owner == by => Available,
            _ => *state,
        }
    }
}
