//! Refusals that rest on something else than the record: each must have been true.

use inventory_core::answer::Rejection;
use inventory_core::ids::{ReservationId, SeatId};
use inventory_core::limits;
use inventory_core::operation::{Selection, Verb};
use inventory_core::seats::SeatState;
use inventory_core::time::Micros;
use inventory_core::transaction::ReservationState;

use super::super::broken::{Broken, must};
use super::super::clients::Call;
use super::super::model::Store;
use super::{Audit, is_odd, unix};

/// For how long others may be refused a seat because memory knows it to be taken.
const SEAT_MEMORY_AGE: Micros = Micros::from_millis(1_000);

/// Nobody with more time than this is turned away for the length of a line: a run has some hundreds of
/// calls, and nothing goes wrong that would hold them up.
const LINE_MAX: Micros = Micros::from_millis(250);

/// A refusal, and all that it is held against.
struct Case<'a> {
    call: &'a Call,
    reservation: &'a ReservationId,
    takes: bool,
    now: Micros,
    store: &'a Store,
}

impl Audit {
    pub(super) fn refused(
        &self,
        call: &Call,
        verb: Verb,
        reservation: &ReservationId,
        refusal: &Rejection,
        now: Micros,
        store: &Store,
    ) -> Result<(), Broken> {
        let case = Case {
            call,
            reservation,
            takes: matches!(verb, Verb::Hold | Verb::Commit),
            now,
            store,
        };
        let (due, why) = match refusal {
            Rejection::InsufficientInventory { remaining } => (
                self.is_sold_out(&case, *remaining),
                "it was never that short since the call came, or the call's own copy took it",
            ),
            Rejection::SeatsUnavailable { seats } => (
                case.are_taken(seats),
                "they were not all taken, or it has them",
            ),
            Rejection::SeatsNotFound { seats } => (case.are_unknown(seats), "they are there"),
            Rejection::HoldExpired => (
                verb == Verb::Commit && self.is_gone(&case),
                "what it had could be had",
            ),
            Rejection::EventClosed => (case.is_closed(), "it was open"),
            Rejection::EventNotFound => (!store.exists(&call.event), "the event exists"),
            Rejection::DeadlineExceeded => (now >= call.deadline(), "there was time left"),
            Rejection::Internal => (is_odd(reservation), "it is a reservation like any other"),
            Rejection::Overloaded { .. } => (
                !self.calm
                    || self.calls_of(reservation) > limits::CALLS_PER_RESERVATION_MAX
                    || call.patience <= LINE_MAX,
                "no queue was full, nor too long for it",
            ),
            Rejection::StoreBusy { .. } if self.hasty && store.is_seated(&call.event) => (true, ""),
            Rejection::StoreBusy { .. } | Rejection::StoreUnavailable { .. } => {
                (!self.calm, "nothing was wrong")
            }
            _ => (false, "its record says something else"),
        };
        must!(
            due,
            "{call:?} got {refusal:?} at {}, but {why}; its record: {:?}",
            now.0,
            store.record_during(reservation, call.arrives, now)
        );
        Ok(())
    }

    fn is_sold_out(&self, case: &Case<'_>, remaining: u64) -> bool {
        let Selection::Quantity(qty) = case.call.selection else {
            return false;
        };
        let event = &case.call.event;
        case.takes
            && case.had(None)
            && case.store.exists(event)
            && remaining < u64::from(qty)
            && self.was_short(case, u64::from(qty), case.took_at(true), Some(remaining))
    }

    /// Whether there was too little at some instant since the call, or of units at most the latch
    /// before it. Whoever repeats a call is told
    /// what became of it, not what became of the stock: what counts is what was there before the
    /// call's own copy took it.
    fn was_short(
        &self,
        case: &Case<'_>,
        qty: u64,
        took_at: Option<Micros>,
        told: Option<u64>,
    ) -> bool {
        let event = &case.call.event;
        let from = case.call.arrives;
        let until = took_at.map_or(case.now, |at| Micros(at.0.saturating_sub(1)).min(case.now));
        if until < from {
            return false;
        }
        if case.store.is_seated(event) {
            let section = case.call.section.as_deref();
            let free = case.store.free_throughout(event, section, from, until);
            return (free as u64) < qty;
        }
        let from = Micros(from.since(self.latch).0);
        if self.torn_reads {
            return case.store.least_during(event, from, until) < qty;
        }
        let mut seen = case.store.remaining_during(event, from, until);
        seen.any(|held| held < qty && told.is_none_or(|told| told == held))
    }

    /// Whether an expired hold could not have back what it had.
    fn is_gone(&self, case: &Case<'_>) -> bool {
        let Some(record) = case.store.record(case.reservation) else {
            return false;
        };
        let gone = match &record.view.seats {
            Some(seats) => seats.iter().any(|seat| case.is_taken(seat)),
            None => {
                let qty = u64::from(record.view.qty);
                self.was_short(case, qty, case.took_at(false), None)
            }
        };
        gone && case.had(Some(ReservationState::Expired))
    }
}

impl Case<'_> {
    /// Whether the record was in this state, or not there, at some instant since the call.
    fn had(&self, state: Option<ReservationState>) -> bool {
        let from = self.call.arrives;
        let seen = self.store.record_during(self.reservation, from, self.now);
        seen.iter()
            .any(|record| record.map(|(_, view)| view.state) == state)
    }

    /// When the reservation itself took what the call asks for, by holding it or for good.
    fn took_at(&self, by_holding: bool) -> Option<Micros> {
        let record = self.store.record(self.reservation)?;
        let past = &record.past;
        if record.event != self.call.event {
            return None;
        }
        let from = past.iter().filter(|(at, _)| *at > self.call.arrives);
        let takes = |state| match state {
            ReservationState::Held => by_holding,
            state => state == ReservationState::Confirmed,
        };
        let mut took = from.filter(|(_, view)| takes(view.state));
        took.next().map(|(at, _)| *at)
    }

    /// Whether somebody else has the seat, or had it as long ago as memory goes back.
    fn is_taken(&self, seat: &SeatId) -> bool {
        let from = self.call.arrives.since(SEAT_MEMORY_AGE);
        let from = Micros(from.0);
        let seen = self
            .store
            .seat_during(&self.call.event, seat, from, self.now);
        seen.iter().any(|(began, state)| match state {
            SeatState::Available => false,
            SeatState::Blocked => true,
            SeatState::Sold { reservation } => reservation != self.reservation,
            SeatState::Hold { reservation, until } => {
                reservation != self.reservation && *until > unix((*began).max(from))
            }
        })
    }

    fn are_taken(&self, seats: &[SeatId]) -> bool {
        self.takes
            && self.had(None)
            && self.are_named(seats)
            && seats.iter().all(|seat| self.is_taken(seat))
    }

    fn are_unknown(&self, seats: &[SeatId]) -> bool {
        let event = &self.call.event;
        let is_there = |seat: &SeatId| self.store.section_of(event, seat).is_some();
        self.are_named(seats) && !seats.iter().any(is_there) && self.store.exists(event)
    }

    fn are_named(&self, seats: &[SeatId]) -> bool {
        match &self.call.selection {
            Selection::Seats(selection) => {
                !seats.is_empty() && seats.iter().all(|seat| selection.contains(seat))
            }
            _ => false,
        }
    }

    fn is_closed(&self) -> bool {
        let closed = self.store.closed_at(&self.call.event);
        self.takes
            && closed.is_some_and(|at| at <= self.now)
            && (self.had(None) || self.had(Some(ReservationState::Expired)))
    }
}
