//! Rejections that do not follow from the record: the reason of each must have been true.

use inventory_core::answer::Rejection;
use inventory_core::effect::CallId;
use inventory_core::ids::{ReservationId, SeatId};
use inventory_core::limits;
use inventory_core::operation::{Selection, Verb};
use inventory_core::seats::SeatState;
use inventory_core::time::Micros;
use inventory_core::transaction::ReservationState;

use super::super::clients::Call;
use super::super::model::Store;
use super::super::violation::{Violation, ensure};
use super::{Oracle, is_odd, unix};

/// How old the cached state may be that rejects a buyer of a taken seat.
const SEAT_MEMORY_AGE: Micros = Micros::from_millis(1_000);

/// No call with more time than this is rejected for the length of a queue: a run has some hundreds of calls,
/// and without faults nothing holds them up for longer.
const LINE_MAX: Micros = Micros::from_millis(250);

/// A rejection with everything that it is checked against.
struct RejectionCase<'a> {
    call: &'a Call,
    reservation: &'a ReservationId,
    takes: bool,
    now: Micros,
    store: &'a Store,
}

impl Oracle {
    pub(super) fn check_rejection(
        &self,
        (id, call): (CallId, &Call),
        verb: Verb,
        reservation: &ReservationId,
        refusal: &Rejection,
        now: Micros,
        store: &Store,
    ) -> Result<(), Violation> {
        let case = RejectionCase {
            call,
            reservation,
            takes: matches!(verb, Verb::Hold | Verb::Commit),
            now,
            store,
        };
        if is_not_executed(refusal) && self.decides_alone((id, call), reservation) {
            ensure!(
                !case.was_executed(verb),
                "rejected as not executed, but it was: {call:?} got {refusal:?} at {}, its record was {:?}",
                now.0,
                store.record_during(reservation, call.arrives, now)
            );
        }
        let (is_right, why) = match refusal {
            Rejection::InsufficientInventory { remaining } => (
                self.is_sold_out(&case, *remaining),
                "sold out, but there were enough units, or another copy of the call took them",
            ),
            Rejection::SeatsUnavailable { seats } => (
                case.are_taken(seats),
                "seats unavailable, but they were free, or held by this reservation",
            ),
            Rejection::SeatsNotFound { seats, .. } => {
                (case.are_unknown(seats), "seats not found, but they exist")
            }
            Rejection::HoldExpired => (
                verb == Verb::Commit && self.is_gone(&case),
                "hold expired, but its stock was available",
            ),
            Rejection::EventClosed => (
                case.is_closed(),
                "event closed, but the event was open, or the reservation has a record",
            ),
            Rejection::SectionNotFound(unknown) => (
                case.is_unknown(&unknown.section),
                "section not found, but the event has it, or there is a record",
            ),
            Rejection::EventNotFound => {
                (!store.exists(&call.event), "event not found, but it exists")
            }
            Rejection::DeadlineExceeded => {
                (now >= call.deadline(), "deadline exceeded, but there was time left")
            }
            Rejection::Internal => (is_odd(reservation), "INTERNAL without an invalid record"),
            Rejection::Overloaded { .. } => (
                !self.fault_free
                    || self.flood
                    || self.calls_of(reservation) > limits::CALLS_PER_RESERVATION_MAX
                    || call.patience <= LINE_MAX,
                "overloaded, but no queue was too long",
            ),
            Rejection::StoreBusy { .. } => (
                !self.fault_free || self.is_busy_without_fault(id, &case),
                "store busy, but no fault was injected",
            ),
            Rejection::StoreUnavailable { .. } => {
                (!self.fault_free, "store unavailable, but no fault was injected")
            }
            // An attempt that took too long may have been applied.
            Rejection::OutcomeUnknown { .. } => (
                !self.fault_free || now >= call.deadline() || self.is_busy_without_fault(id, &case),
                "outcome unknown, but there was time left",
            ),
            _ => (false, "the rejection does not follow from the record"),
        };
        ensure!(
            is_right,
            "{why}: {call:?} got {refusal:?} at {}, its record was {:?}",
            now.0,
            store.record_during(reservation, call.arrives, now)
        );
        Ok(())
    }

    /// Whether a call may have to be repeated although the store does all that it should.
    fn is_busy_without_fault(&self, id: CallId, case: &RejectionCase<'_>) -> bool {
        let is_seated = case.store.is_seated(&case.call.event);
        let has_backed_off_until_its_deadline = case.now >= case.call.deadline();
        // Calls of one reservation at two shards that would have waited for each other. When the members change,
        // shards hear of it at different times, and forward also calls that the reclaimer makes.
        let would_wait_in_a_circle = self.members_change
            || self.forwards && self.has_concurrent_call((id, case.call), case.reservation);
        // Attempt after attempt, another process took the seats that were chosen, or found them held and expired again.
        let is_outrun =
            is_seated && (self.short_holds || self.processes > 1 && case.are_seats_chosen());
        has_backed_off_until_its_deadline || would_wait_in_a_circle || is_outrun
    }

    fn is_sold_out(&self, case: &RejectionCase<'_>, remaining: u64) -> bool {
        let Selection::Quantity(qty) = case.call.selection else {
            return false;
        };
        let event = &case.call.event;
        let section = case.call.section.as_ref();
        case.takes
            && case.had(None)
            && case.store.exists(event)
            && section.is_none_or(|section| !case.store.lacks_section(event, section))
            && remaining < u64::from(qty)
            && self.was_short(case, u64::from(qty), case.took_at(true), Some(remaining))
    }

    /// Whether there was too little at some instant since the call or, for units, at most the sold-out latch
    /// before it. A retry is answered with the outcome of the reservation, not with the stock, so the stock before
    /// the call's own copy took it counts.
    fn was_short(
        &self,
        case: &RejectionCase<'_>,
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

    /// Whether an expired hold could not take its stock again.
    fn is_gone(&self, case: &RejectionCase<'_>) -> bool {
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

/// Whether the rejection says that the call was not executed (docs/reference/statuses.md).
fn is_not_executed(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::StoreBusy { .. } | Rejection::Overloaded { .. } | Rejection::DeadlineExceeded
    )
}

impl RejectionCase<'_> {
    /// Whether the record has changed since the call as the call requests.
    fn was_executed(&self, verb: Verb) -> bool {
        let state = match verb {
            Verb::Hold => ReservationState::Held,
            Verb::Commit => ReservationState::Confirmed,
            Verb::Release => ReservationState::Released,
            Verb::Refund => ReservationState::Refunded,
            Verb::Expire => ReservationState::Expired,
        };
        let past = self.store.record(self.reservation).map(|record| &record.past);
        let mut since = past.into_iter().flatten().filter(|(at, _)| *at >= self.call.arrives);
        since.any(|(_, view)| view.state == state)
    }

    /// Whether the server chooses the seats, in a seated event.
    fn are_seats_chosen(&self) -> bool {
        self.takes && matches!(self.call.selection, Selection::Quantity(_))
    }

    /// Whether the record was in this state, or missing, at some instant since the call.
    fn had(&self, state: Option<ReservationState>) -> bool {
        let from = self.call.arrives;
        let seen = self.store.record_during(self.reservation, from, self.now);
        seen.iter().any(|record| record.map(|(_, view)| view.state) == state)
    }

    /// When the reservation itself took what the call requests, as a hold or for good.
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

    /// Whether another reservation has the seat, or had it within the age of the cache.
    fn is_taken(&self, seat: &SeatId) -> bool {
        let from = self.call.arrives.since(SEAT_MEMORY_AGE);
        let from = Micros(from.0);
        let seen = self.store.seat_during(&self.call.event, seat, from, self.now);
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

    fn is_unknown(&self, section: &str) -> bool {
        self.takes
            && self.had(None)
            && self.call.section.as_deref() == Some(section)
            && self.store.lacks_section(&self.call.event, section)
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
