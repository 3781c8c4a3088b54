//! Operations on seats, on the shard that owns the event: choosing them, claiming them, and what
//! their writes teach.

use super::Engine;
use super::planner::Basis;
use super::seated_event::{BlockedOperation, SeatMapWaiter, SeatedEvent};
use crate::answer::{Answer, Rejection};
use crate::effect::{CallId, Effect, RecordHint, Route};
use crate::fault::{self, Fault};
use crate::ids::{EventId, ReservationId, SeatId, Seats};
use crate::lane::{PoolKind, WriteIntent};
use crate::limits;
use crate::operation::{Operation, RecordExpectation, Selection, Verb};
use crate::rules::{StockChange, Transition};
use crate::seats::SeatState;
use crate::stock_reads::StockReadWaiter;
use crate::time::{Micros, Now};
use crate::transaction::{EventLayout, FreeSeatsRead, RecordView, ReservationState, SeatsRead};

impl Engine {
    /// Writes what moves seats, or leaves a tombstone in a seated event.
    pub(super) fn write_seats(
        &mut self,
        operation: Operation,
        shape: EventLayout,
        transition: Transition,
        basis: Basis,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let record = &basis.record;
        let held = record.as_ref().and_then(|record| record.seats.clone());
        let seats = match (transition.stock_change(), held, &operation.selection) {
            (StockChange::None, ..) => None,
            (StockChange::Reserve, ..) if shape.closed => {
                self.end(
                    &operation,
                    Answer::Rejected(Rejection::EventClosed),
                    None,
                    now,
                    fx,
                );
                return;
            }
            (_, Some(held), _) => Some(held),
            (StockChange::Reserve, None, Selection::Seats(seats)) => Some(Seats::clone(seats)),
            (StockChange::Reserve, None, Selection::Quantity(qty)) => {
                let qty = *qty;
                self.choose_seats(operation, qty, shape, transition, basis, now, fx);
                return;
            }
            // A record that should have seats and has none.
            _ => {
                self.end(
                    &operation,
                    Answer::Rejected(Rejection::Internal),
                    None,
                    now,
                    fx,
                );
                return;
            }
        };
        if let Some(seats) = &seats {
            let seated = self.seated_event(&operation.event, now.mono);
            let takes = transition.stock_change() == StockChange::Reserve;
            if takes
                && let Some(rejection) = known_taken(seated, seats, &operation, transition, now)
            {
                if !basis.is_said && !fault::planted(Fault::SeatsRejectedUnread) {
                    // A copy of this call may have had them meanwhile, elsewhere: a read tells, which
                    // costs less than the write would.
                    let route = Some(Route { shape });
                    self.look_up(operation, route, fx);
                    return;
                }
                self.counters.seats_refused += 1;
                self.end(&operation, Answer::Rejected(rejection), None, now, fx);
                return;
            }
            if let Err(taken) = seated.lock_seats(seats, &operation.reservation) {
                if self.would_wait_for_its_like(&operation, &taken) {
                    let busy = Answer::Rejected(Rejection::store_busy());
                    self.end(&operation, busy, None, now, fx);
                    return;
                }
                self.park(&taken, operation, shape, basis, now, fx);
                return;
            }
            self.read_seats_soon(&operation.event, shape, now, fx);
        }
        let plan = WriteIntent {
            transition,
            record: basis.record,
            seats,
        };
        self.enqueue(operation, PoolKind::Unstriped, shape, plan, now, fx);
    }

    /// The best seats that can be had.
    #[expect(clippy::too_many_arguments, reason = "one operation, taken apart")]
    fn choose_seats(
        &mut self,
        operation: Operation,
        qty: u32,
        shape: EventLayout,
        transition: Transition,
        basis: Basis,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let section = operation.section.as_deref();
        let (reservation, event) = (&operation.reservation, &operation.event);
        let since = self.in_flight.reads_from(reservation, event, now.mono);
        let seated = seated_event_of(&mut self.seated_events, &operation.event, now.mono);
        let chosen = seated
            .map_and_locks()
            .and_then(|(map, claimed)| map.pick(qty, section, now, &claimed, &mut self.rng));
        if let Some(chosen) = chosen {
            self.in_flight
                .set_shortage(&operation.reservation, &operation.event, None);
            let seats: Seats = chosen.into();
            // None of them is claimed: that was looked at.
            let _ = seated.lock_seats(&seats, &operation.reservation);
            let plan = WriteIntent {
                transition,
                record: basis.record,
                seats: Some(seats),
            };
            self.read_seats_soon(&operation.event, shape, now, fx);
            self.enqueue(operation, PoolKind::Unstriped, shape, plan, now, fx);
            return;
        }
        let is_told = since.is_some_and(|since| seated.is_read_since(since));
        if is_told {
            self.none_left(operation, shape, basis, now, fx);
            return;
        }
        let parked = Box::new(BlockedOperation {
            known: basis.into_known(),
            operation,
            shape,
        });
        self.look_for_seats(parked, now, fx);
    }

    /// Lets a choice that found too few wait until it is known what is free as of now.
    ///
    /// By a look at what is free, if that does: of a house that is sold out it tells nothing at all,
    /// where a read of all seats tells of each of them. Everyone who asks then waits for one.
    fn look_for_seats(&mut self, parked: Box<BlockedOperation>, now: Now, fx: &mut Vec<Effect>) {
        let (event, shape) = (parked.operation.event.clone(), parked.shape);
        let seated = self.seated_event(&event, now.mono);
        if !seated.can_verify(now) {
            self.wait_for_map(&event, shape, SeatMapWaiter::SeatChoice(parked), now, fx);
            return;
        }
        if let Err(parked) = seated.wait_for_verification(parked) {
            self.counters.rejected_overloaded += 1;
            let rejection = Answer::Rejected(Rejection::overloaded());
            self.end(&parked.operation, rejection, None, now, fx);
            return;
        }
        if seated.start_verification(now) {
            self.counters.seat_verifications += 1;
            fx.push(Effect::ReadFreeSeats {
                event: event.clone(),
                seat_keys: shape.seat_keys.max(1),
                at: now.unix,
            });
            self.read_shape(&event, shape, now, fx);
        }
        self.read_seats_soon(&event, shape, now, fx);
    }

    /// Ends an operation that there are no seats for.
    ///
    /// "Sold out" is said on a read that began after the call arrived, and not while a seat that the
    /// read shows as free is only claimed: its write may fail. The read alone does not do: what it
    /// found missing may have been sold, elsewhere and just now, to this very reservation. So its
    /// record is looked at once more, after all that the map has learned.
    fn none_left(
        &mut self,
        operation: Operation,
        shape: EventLayout,
        basis: Basis,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let (reservation, event) = (&operation.reservation, &operation.event);
        if basis.is_said
            && let Some(remaining) = self.in_flight.shortage(reservation, event)
        {
            let rejection = Rejection::InsufficientInventory { remaining };
            self.end(&operation, Answer::Rejected(rejection), None, now, fx);
            return;
        }
        let section = operation.section.as_deref();
        let seated = seated_event_of(&mut self.seated_events, event, now.mono);
        match seated.any_locked_seat(section) {
            Some(claimed) if basis.is_said => {
                self.in_flight.waits_for_claim(reservation, event);
                self.park(&claimed, operation, shape, basis, now, fx);
                return;
            }
            // It may have seats of its own, which others wait for.
            Some(_) => {}
            None => {
                let remaining = seated.map().map(|map| map.remaining(section, now.unix));
                let remaining = Some(remaining.unwrap_or_default());
                self.in_flight.set_shortage(reservation, event, remaining);
            }
        }
        if fault::planted(Fault::SeatsSoldOutUnread)
            && let Some(remaining) = self.in_flight.shortage(reservation, event)
        {
            let rejection = Rejection::InsufficientInventory { remaining };
            self.end(&operation, Answer::Rejected(rejection), None, now, fx);
            return;
        }
        let route = Some(Route { shape });
        self.look_up(operation, route, fx);
    }

    /// Whether the end of a hold would wait for the end of another.
    fn would_wait_for_its_like(&mut self, operation: &Operation, taken: &SeatId) -> bool {
        let event = &operation.event;
        let seated = self.seated_events.get(event);
        let holder = seated.and_then(|seated| seated.lock_holder(taken));
        let verb = holder.and_then(|holder| self.in_flight.verb(holder, event));
        operation.verb == Verb::Expire && verb == Some(Verb::Expire)
    }

    fn park(
        &mut self,
        seat: &SeatId,
        operation: Operation,
        shape: EventLayout,
        basis: Basis,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let seated = self.seated_event(&operation.event, now.mono);
        let parked = Box::new(BlockedOperation {
            known: basis.into_known(),
            operation,
            shape,
        });
        if let Err(parked) = seated.block(seat, parked) {
            self.counters.rejected_overloaded += 1;
            let rejection = Answer::Rejected(Rejection::overloaded());
            self.end(&parked.operation, rejection, None, now, fx);
        }
    }

    /// A write found seats that are not free.
    #[expect(clippy::too_many_arguments, reason = "one operation, taken apart")]
    pub(super) fn seats_differ(
        &mut self,
        operation: Operation,
        shape: EventLayout,
        from: Option<ReservationState>,
        found: Vec<(SeatId, Option<SeatState>)>,
        as_of: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let event = operation.event.clone();
        let mut unknown = Vec::new();
        let mut taken = Vec::new();
        let mut overdue = Vec::new();
        let seated = self.seated_event(&event, now.mono);
        for (seat, state) in found {
            seated.record_seat(&seat, state.clone(), as_of);
            match state {
                None => unknown.push(seat),
                Some(SeatState::Hold { reservation, until })
                    if until <= now.unix && reservation != operation.reservation =>
                {
                    overdue.push((seat, reservation));
                }
                // Free again by now, or not: the next try tells.
                Some(SeatState::Available) => {}
                Some(_) => taken.push(seat),
            }
        }
        let mut freed = seated.unlock(&operation.reservation);
        let is_chosen = matches!(operation.selection, Selection::Quantity(_)) && from.is_none();
        let rejection = if from == Some(ReservationState::Held) {
            // Seats of a hold that are not its own were changed by hand.
            Some(Rejection::HoldExpired)
        } else if is_chosen || (unknown.is_empty() && taken.is_empty()) {
            None
        } else if from.is_some() {
            Some(Rejection::HoldExpired)
        } else if !unknown.is_empty() {
            Some(Rejection::SeatsNotFound { seats: unknown })
        } else {
            Some(Rejection::SeatsUnavailable { seats: taken })
        };
        if let Some(rejection) = rejection {
            self.counters.seats_taken += 1;
            self.let_go(freed, now, fx);
            self.end(&operation, Answer::Rejected(rejection), None, now, fx);
            return;
        }
        // Holds that are over are ended before anybody else meets them, and what a holder itself has
        // under way goes first.
        let deadline = operation.deadline;
        for (seat, holder) in &overdue {
            if fault::planted(Fault::OverdueNotExpired) {
                break;
            }
            freed.sort_by_key(|parked| parked.operation.reservation != *holder);
            self.expire(&event, shape, holder.clone(), seat, deadline, now, fx);
        }
        self.let_go(freed, now, fx);
        let route = Some(Route { shape });
        let known = match from {
            None => RecordHint::Confirmed(None),
            Some(_) => RecordHint::None,
        };
        let turns = self.in_flight.attempts(&operation.reservation, &event);
        if is_chosen && turns > limits::SEAT_COLLISIONS_MAX {
            // The map is old: others sell the same seats.
            let parked = Box::new(BlockedOperation {
                operation,
                shape,
                known,
            });
            self.wait_for_map(&event, shape, SeatMapWaiter::SeatChoice(parked), now, fx);
            return;
        }
        let busy = overdue
            .into_iter()
            .map(|(_, holder)| holder)
            .find(|holder| {
                self.is_busy_otherwise(holder, &event)
                    && self.in_flight.can_be_watched(holder, &event)
            });
        match busy {
            None => self.advance(operation, route, known, now, fx),
            Some(holder) => {
                let buyer = BlockedOperation {
                    operation,
                    shape,
                    known,
                };
                self.in_flight.watch(&holder, &event, buyer);
            }
        }
    }

    /// Whether something else than the end of its hold is under way for a reservation.
    fn is_busy_otherwise(&mut self, holder: &ReservationId, event: &EventId) -> bool {
        !matches!(
            self.in_flight.verb(holder, event),
            None | Some(Verb::Expire)
        )
    }

    /// Moves a hold that is past its time out of the way of a buyer.
    #[expect(clippy::too_many_arguments, reason = "one operation, taken apart")]
    fn expire(
        &mut self,
        event: &EventId,
        shape: EventLayout,
        holder: ReservationId,
        seat: &SeatId,
        deadline: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        // What the holder itself has under way here may wait for a seat, and must not with a claim.
        if self.is_busy_otherwise(&holder, event) {
            return;
        }
        // Claimed for it at once, so that the buyer waits for it.
        let seated = self.seated_event(event, now.mono);
        if seated
            .lock_seats(std::slice::from_ref(seat), &holder)
            .is_err()
        {
            return;
        }
        let operation = expiry(event.clone(), holder, deadline);
        let route = Some(Route { shape });
        let (reservation, event) = (operation.reservation.clone(), operation.event.clone());
        self.register(
            CallId::INTERNAL,
            operation,
            route,
            RecordHint::None,
            now,
            fx,
        );
        if self.in_flight.started_at(&reservation, &event).is_none() {
            // It was refused at the door: nobody else would end the claim.
            self.unclaim(&event, &reservation, now, fx);
        }
    }

    /// Ends a reservation's claims and lets those go on who waited for them.
    pub(super) fn unclaim(
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(seated) = self.seated_events.get_mut(event) else {
            return;
        };
        let freed = seated.unlock(reservation);
        self.let_go(freed, now, fx);
    }

    pub(super) fn let_go(&mut self, freed: Vec<BlockedOperation>, now: Now, fx: &mut Vec<Effect>) {
        for parked in freed {
            if fault::planted(Fault::BlockedOperationLost) {
                continue;
            }
            let route = Some(Route {
                shape: parked.shape,
            });
            self.advance(parked.operation, route, parked.known, now, fx);
        }
    }

    /// What this shard has just written, into the map.
    pub(super) fn seats_written(
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
        record: &RecordView,
        as_of: Micros,
    ) {
        let (Some(seats), Some(seated)) = (&record.seats, self.seated_events.get_mut(event)) else {
            return;
        };
        let state = match record.state {
            ReservationState::Held => SeatState::Hold {
                reservation: reservation.clone(),
                until: record.expires_at.unwrap_or_default(),
            },
            ReservationState::Confirmed => SeatState::Sold {
                reservation: reservation.clone(),
            },
            _ => SeatState::Available,
        };
        for seat in seats.iter() {
            seated.record_seat(seat, Some(state.clone()), as_of);
        }
    }

    /// Reports the result of [`Effect::ReadSeats`].
    pub fn handle_seats_read(
        &mut self,
        event: &EventId,
        read: SeatsRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let (seats, rejection) = match read {
            SeatsRead::Found(seats) => (Some(seats), None),
            SeatsRead::Unavailable => (None, Some(Rejection::store_unavailable())),
            SeatsRead::Throttled => (None, Some(Rejection::store_busy())),
        };
        let Some(seated) = self.seated_events.get_mut(event) else {
            return;
        };
        for waiter in seated.finish_read(seats, now.mono) {
            match (waiter, &rejection) {
                (SeatMapWaiter::Query { call, query }, None) => {
                    self.answer_from_map(call, event, query, now, fx);
                }
                (SeatMapWaiter::Query { call, .. }, Some(rejection)) => {
                    fx.push(Effect::AnswerQuery {
                        call,
                        result: Err(rejection.clone()),
                    })
                }
                (SeatMapWaiter::SeatChoice(parked), None) => {
                    let route = Some(Route {
                        shape: parked.shape,
                    });
                    self.advance(parked.operation, route, parked.known, now, fx);
                }
                (SeatMapWaiter::SeatChoice(parked), Some(rejection)) => {
                    let rejection = Answer::Rejected(rejection.clone());
                    self.end(&parked.operation, rejection, None, now, fx);
                }
            }
        }
    }

    /// Reports the result of [`Effect::ReadFreeSeats`].
    pub fn handle_free_seats_read(
        &mut self,
        event: &EventId,
        read: FreeSeatsRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let (free, rejection) = match read {
            FreeSeatsRead::Found(free) => (Some(free), None),
            FreeSeatsRead::Unavailable => (None, Some(Rejection::store_unavailable())),
            FreeSeatsRead::Throttled => (None, Some(Rejection::store_busy())),
        };
        let Some(seated) = self.seated_events.get_mut(event) else {
            return;
        };
        let (waited, agrees) = seated.finish_verification(free);
        self.counters.seat_verification_mismatches += u64::from(!agrees);
        match rejection {
            None => self.let_go(waited, now, fx),
            Some(rejection) => {
                for parked in waited {
                    let rejection = Answer::Rejected(rejection.clone());
                    self.end(&parked.operation, rejection, None, now, fx);
                }
            }
        }
    }

    /// Lets somebody wait for a read of the seats, which is started unless one is under way.
    pub(super) fn wait_for_map(
        &mut self,
        event: &EventId,
        shape: EventLayout,
        waiter: SeatMapWaiter,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let seated = self.seated_event(event, now.mono);
        match seated.wait_for_map(waiter) {
            Ok(()) => self.read_seats(event, shape, now, fx),
            Err(SeatMapWaiter::Query { call, .. }) => {
                self.counters.rejected_overloaded += 1;
                fx.push(Effect::AnswerQuery {
                    call,
                    result: Err(Rejection::overloaded()),
                });
            }
            Err(SeatMapWaiter::SeatChoice(parked)) => {
                self.counters.rejected_overloaded += 1;
                let rejection = Answer::Rejected(Rejection::overloaded());
                self.end(&parked.operation, rejection, None, now, fx);
            }
        }
    }

    /// StockReads the seats in good time, so that nobody has to wait for it.
    pub(super) fn read_seats_soon(
        &mut self,
        event: &EventId,
        shape: EventLayout,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if shape.is_seated() && self.seated_event(event, now.mono).needs_refresh(now.mono) {
            self.read_seats(event, shape, now, fx);
        }
    }

    fn read_seats(&mut self, event: &EventId, shape: EventLayout, now: Now, fx: &mut Vec<Effect>) {
        if !self
            .seated_event(event, now.mono)
            .start_read(now.mono, now.unix)
        {
            return;
        }
        self.counters.seat_reads += 1;
        fx.push(Effect::ReadSeats {
            event: event.clone(),
            seat_keys: shape.seat_keys.max(1),
        });
        self.read_shape(event, shape, now, fx);
    }

    /// An operator may have closed the event since.
    fn read_shape(&mut self, event: &EventId, shape: EventLayout, now: Now, fx: &mut Vec<Effect>) {
        let _ = self.stock_reads.request(
            event,
            Some(shape.stripes),
            StockReadWaiter::Layout,
            now.mono,
            fx,
        );
    }

    pub(super) fn seated_event(&mut self, event: &EventId, now: Micros) -> &mut SeatedEvent {
        seated_event_of(&mut self.seated_events, event, now)
    }
}

/// The seated of an event, made if there is none; makes room for it.
fn seated_event_of<'a>(
    events: &'a mut super::SeatedEvents,
    event: &EventId,
    now: Micros,
) -> &'a mut SeatedEvent {
    if !events.contains_key(event) {
        if events.len() >= limits::SEATED_EVENTS_MAX {
            let idle = events.iter().filter(|(_, seated)| seated.is_idle());
            let oldest = idle.min_by_key(|(_, seated)| seated.used);
            if let Some(oldest) = oldest.map(|(event, _)| event.clone()) {
                events.remove(&oldest);
            }
        }
        events.insert(event.clone(), SeatedEvent::default());
    }
    let seated = events.entry(event.clone()).or_default();
    seated.used = now;
    seated
}

/// The operation that ends a hold which is past its time.
pub(super) fn expiry(event: EventId, reservation: ReservationId, deadline: Micros) -> Operation {
    let selection = Selection::AsRecorded;
    Operation {
        verb: Verb::Expire,
        fingerprint: Operation::fingerprint_of(&event, &selection),
        reservation,
        event,
        selection,
        section: None,
        payment_intent: String::new(),
        hold_until: None,
        expectation: RecordExpectation::Present,
        deadline,
    }
}

/// The rejection of seats that memory knows others to have.
fn known_taken(
    seated: &mut SeatedEvent,
    seats: &[SeatId],
    operation: &Operation,
    transition: Transition,
    now: Now,
) -> Option<Rejection> {
    let map = seated.map()?;
    let taken = |seat: &&SeatId| map.known_taken(seat, &operation.reservation, now);
    let seats: Vec<SeatId> = seats.iter().filter(taken).cloned().collect();
    match (seats.is_empty(), transition.from) {
        (true, _) => None,
        (false, None) => Some(Rejection::SeatsUnavailable { seats }),
        (false, Some(_)) => Some(Rejection::HoldExpired),
    }
}
