//! Seats, on the shard that owns them: choosing and locking, and the reads behind "sold out".

use super::dispatch::{Completed, OverdueHolder, SeatRequest, Step};
use super::planner::{self, SeatsToWrite};
use super::seated_event::{SeatMapWaiter, SeatedEvent};
use super::{Engine, OperationTask};
use crate::answer::{Answer, Rejection};
use crate::effect::{Effect, RecordHint};
use crate::fault::{self, Fault};
use crate::ids::{EventId, ReservationId, SeatId, Seats};
use crate::lane::{PoolKind, WriteIntent};
use crate::limits;
use crate::operation::{Operation, RecordExpectation, Selection, Verb};
use crate::rules::{StockChange, Transition};
use crate::seat_map::Reach;
use crate::seats::SeatState;
use crate::time::{Micros, Now};
use crate::transaction::{EventLayout, ReservationState};

/// When a read of the free seats begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadStart {
    AtOnce,
    /// At the pace of verifications of "sold out".
    Paced,
}

/// Writes.
impl Engine {
    /// Writes a transition that moves seats, or a tombstone in a seated event.
    pub(super) fn write_seats(
        &mut self,
        mut task: OperationTask,
        layout: EventLayout,
        transition: Transition,
    ) {
        task.layout = Some(layout);
        let record = task.hint.record();
        let mut seats = match planner::seats_to_write(&task.operation, layout, transition, record) {
            SeatsToWrite::None => None,
            SeatsToWrite::Given(seats) => Some(seats),
            SeatsToWrite::Chosen(qty) => {
                self.choose_seats(task, layout, transition, qty);
                return;
            }
            SeatsToWrite::Closed => {
                self.reject(&task.operation, Rejection::EventClosed);
                return;
            }
            SeatsToWrite::TooMany { most } => {
                self.reject(&task.operation, Rejection::TooManySeats { most });
                return;
            }
            SeatsToWrite::Missing => {
                self.reject(&task.operation, Rejection::Internal);
                return;
            }
        };
        if let Some(seats) = &mut seats {
            let operation = &task.operation;
            let now = self.now;
            let seated = self.seated_events.open(&operation.event, now.mono);
            let takes = transition.stock_change() == StockChange::Reserve;
            if takes && layout.is_seated() && seats.prices.is_none() {
                let Some(map) = seated.map() else {
                    // The record states the prices, and only the seat map has them.
                    let event = operation.event.clone();
                    let task = Box::new(OperationTask { hint: task.hint.after_wait(), ..task });
                    self.wait_for_seat_map(&event, layout, SeatMapWaiter::SeatChoice(task));
                    return;
                };
                seats.prices = map.prices(seats);
            }
            if takes && let Some(rejection) = known_taken(seated, seats, operation, transition, now)
            {
                if !task.hint.is_confirmed() && !fault::planted(Fault::SeatsRejectedUnread) {
                    // The same call may have got them meanwhile, in another process: a read shows that,
                    // and costs less than the write would.
                    self.read_record(task);
                    return;
                }
                self.counters.seats_rejected_by_map += 1;
                self.reject(&task.operation, rejection);
                return;
            }
            if let Err(locked) = seated.lock_seats(seats, &operation.reservation) {
                if self.expiry_would_wait_for_expiry(&task.operation, &locked) {
                    self.reject(&task.operation, Rejection::store_busy());
                    return;
                }
                self.block(&locked, task);
                return;
            }
            self.refresh_seats(&task.operation.event, layout);
        }
        let intent = WriteIntent { transition, record: task.hint.into_record(), seats };
        self.enqueue(task.operation, PoolKind::Unstriped, layout, intent);
    }

    /// Chooses the best available seats, locks and writes them.
    pub(super) fn choose_seats(
        &mut self,
        task: OperationTask,
        layout: EventLayout,
        transition: Transition,
        qty: u32,
    ) {
        let now = self.now;
        let operation = &task.operation;
        let (reservation, event) = (&operation.reservation, &operation.event);
        let section = operation.section.as_deref();
        let reads_from = self.in_flight.reads_from(reservation, event, now.mono);
        let seated = self.seated_events.open(event, now.mono);
        if let Some(map) = seated.map() {
            map.set_members(self.pools.members(), now.mono);
        }
        seated.update_contested(now.mono);
        let mut pick = |seated: &mut SeatedEvent, reach| {
            let (map, locked) = seated.map_and_locks()?;
            map.pick_within(reach, qty, section, now, &locked, &mut self.rng)
        };
        let waited = reads_from.map_or(Micros(0), |from| now.mono.since(from));
        let own = match seated.must_read_before_own_choice(now.mono) {
            true => None,
            false => pick(seated, Reach::Own),
        };
        let is_last = own.is_none() || seated.is_part_low();
        let is_contended = is_last && seated.is_contended(now);
        let chosen = match own {
            None if seated.must_read_before_choice(now, waited) => {
                let can_read_free = seated.can_read_free_seats(now);
                self.wait_for_seats(task, layout, can_read_free, ReadStart::AtOnce);
                return;
            }
            None => pick(seated, Reach::All),
            own => own,
        };
        let Some(chosen) = chosen else {
            if reads_from.is_some_and(|from| seated.is_read_since(from)) {
                self.reject_sold_out_seats(task, layout);
            } else {
                self.verify_free_seats(task, layout);
            }
            return;
        };
        self.in_flight.set_shortage(reservation, event, None);
        let mut seats: Seats = chosen.into();
        seats.prices = seated.map().and_then(|map| map.prices(&seats));
        // The picker skips locked seats.
        let _ = seated.lock_seats(&seats, reservation);
        self.refresh_seats(&task.operation.event, layout);
        let intent =
            WriteIntent { transition, record: task.hint.into_record(), seats: Some(seats) };
        let kind = if is_contended { PoolKind::ContendedSeats } else { PoolKind::Unstriped };
        self.enqueue(task.operation, kind, layout, intent);
    }

    /// Lets a choice that found too few seats wait for a read of what is free now.
    ///
    /// A read of the free seats is used where it suffices: for a sold-out event it returns nothing, while a read of
    /// all seats returns each of them. All callers share one read.
    pub(super) fn verify_free_seats(&mut self, task: OperationTask, layout: EventLayout) {
        let now = self.now;
        let seated = self.seated_events.open(&task.operation.event, now.mono);
        let can_read_free = seated.can_verify(now);
        self.wait_for_seats(task, layout, can_read_free, ReadStart::Paced);
    }

    /// Lets a choice wait for a read of the free seats, or of all seats.
    fn wait_for_seats(
        &mut self,
        task: OperationTask,
        layout: EventLayout,
        can_read_free: bool,
        start: ReadStart,
    ) {
        let now = self.now;
        let event = task.operation.event.clone();
        let task = Box::new(OperationTask { hint: task.hint.after_wait(), ..task });
        let seated = self.seated_events.open(&event, now.mono);
        if !can_read_free {
            self.wait_for_seat_map(&event, layout, SeatMapWaiter::SeatChoice(task));
            return;
        }
        if let Err(task) = seated.wait_for_verification(task) {
            self.reject_overloaded(&task.operation);
            return;
        }
        let seat_keys = layout.seat_keys.max(1);
        let next = seated.next_verification(self.pools.members().count());
        if start == ReadStart::Paced && next > now.mono && seated.awaits_verification() {
            self.seated_events.plan_verification(next, event.clone(), seat_keys);
        } else if self.start_verification(&event, seat_keys) {
            self.refresh_layout(&event, layout);
        }
        self.refresh_seats(&event, layout);
    }

    /// Begins a read of the free seats, unless one is in flight.
    fn start_verification(&mut self, event: &EventId, seat_keys: u16) -> bool {
        let now = self.now;
        let seated = self.seated_events.open(event, now.mono);
        if !seated.start_verification(now) {
            return false;
        }
        self.counters.seat_verifications += 1;
        let event = event.clone();
        self.effects.push_back(Effect::ReadFreeSeats { event, seat_keys, at: now.unix });
        true
    }

    /// Begins the reads of the free seats that are due.
    pub(super) fn start_due_verifications(&mut self) {
        while let Some((event, seat_keys)) = self.seated_events.take_due(self.now.mono) {
            let seated = self.seated_events.get_mut(&event);
            if seated.is_some_and(|seated| seated.awaits_verification()) {
                self.start_verification(&event, seat_keys);
            }
        }
    }

    /// Rejects an operation that there are no seats for, once that is certain.
    ///
    /// "Sold out" needs a read that began after the call arrived, and no lock on a seat that the read
    /// shows as free: the write behind the lock may fail. The read alone is not enough, because the seats may just
    /// have been sold to this reservation by another process. So the record is read once more, after the reads and
    /// writes that the seat map reflects.
    pub(super) fn reject_sold_out_seats(&mut self, task: OperationTask, layout: EventLayout) {
        let now = self.now;
        let operation = &task.operation;
        let (reservation, event) = (&operation.reservation, &operation.event);
        let is_confirmed = task.hint.is_confirmed();
        let section = operation.section.as_deref();
        let seated = self.seated_events.open(event, now.mono);
        if is_confirmed && let Some(remaining) = self.in_flight.shortage(reservation, event) {
            let rejection = match section.zip(seated.map()) {
                Some((section, map)) => map.unknown_section(section),
                None => None,
            };
            let rejection = rejection.map(|unknown| Rejection::SectionNotFound(Box::new(unknown)));
            let few = Rejection::InsufficientInventory { remaining };
            self.reject(operation, rejection.unwrap_or(few));
            return;
        }
        match seated.any_locked_seat(section) {
            Some(locked) if is_confirmed => {
                self.in_flight.set_waits_for_seat_lock(reservation, event);
                self.block(&locked, task);
                return;
            }
            // This reservation may itself have a locked seat.
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
            self.reject(operation, Rejection::InsufficientInventory { remaining });
            return;
        }
        self.read_record(OperationTask { layout: Some(layout), ..task });
    }

    /// Whether the operation is an expiry that would wait for another expiry, which has locked `seat`.
    pub(super) fn expiry_would_wait_for_expiry(
        &mut self,
        operation: &Operation,
        seat: &SeatId,
    ) -> bool {
        let event = &operation.event;
        let seated = self.seated_events.get_mut(event);
        let holder = seated.and_then(|seated| seated.lock_holder(seat).cloned());
        let verb = holder.and_then(|holder| self.in_flight.verb(&holder, event));
        operation.verb == Verb::Expire && verb == Some(Verb::Expire)
    }

    /// Lets an operation wait for the lock on a seat.
    pub(super) fn block(&mut self, seat: &SeatId, task: OperationTask) {
        let now = self.now.mono;
        let seated = self.seated_events.open(&task.operation.event, now);
        let task = Box::new(OperationTask { hint: task.hint.after_wait(), ..task });
        if let Err(task) = seated.block(seat, task) {
            self.reject_overloaded(&task.operation);
        }
    }
}

/// Conflicts.
impl Engine {
    /// Records the seats that a write found, and decides its operation again or rejects it. Overdue
    /// holds of these seats are expired first.
    pub(super) fn resolve_seat_conflict(
        &mut self,
        operation: Operation,
        layout: EventLayout,
        from: Option<ReservationState>,
        found: Vec<(SeatId, Option<SeatState>)>,
        as_of: Micros,
    ) {
        let now = self.now;
        let event = operation.event.clone();
        let seated = self.seated_events.open(&event, now.mono);
        let conflict = seated.record_conflict(found, &operation.reservation, as_of, now.unix);
        let mut blocked = seated.unlock(&operation.reservation);
        let is_best_available =
            matches!(operation.selection, Selection::Quantity(_)) && from.is_none();
        if is_best_available {
            seated.record_collision(now.mono);
        }
        let can_be_retried = conflict.unknown.is_empty() && conflict.taken.is_empty();
        let rejection = if from == Some(ReservationState::Held) {
            // An operator has changed the seats of this hold.
            Some(Rejection::HoldExpired)
        } else if is_best_available || can_be_retried {
            None
        } else if from.is_some() {
            Some(Rejection::HoldExpired)
        } else if !conflict.unknown.is_empty() {
            let seated = layout.seat_keys > 0;
            Some(Rejection::SeatsNotFound { seats: conflict.unknown, seated })
        } else {
            Some(Rejection::SeatsUnavailable { seats: conflict.taken })
        };
        if let Some(rejection) = rejection {
            self.counters.seats_rejected_by_write += 1;
            // The answer is given after the blocked operations are decided.
            let completed = Completed {
                reservation: operation.reservation,
                answer: Answer::Rejected(rejection),
                record: None,
            };
            self.steps.push(Step::Complete(event, completed));
            self.push_tasks(blocked);
            return;
        }
        // Order of the steps: the expiries of overdue holds; the blocked operations, those of an overdue holder
        // first; the buyer.
        for (_, holder) in &conflict.overdue {
            blocked.sort_by_key(|task| task.operation.reservation != *holder);
        }
        let deadline = operation.deadline;
        let hint = match from {
            None => RecordHint::Confirmed(None),
            Some(_) => RecordHint::None,
        };
        let overdue = conflict.overdue.iter().map(|(_, holder)| holder.clone());
        self.steps.push(Step::ResumeBuyer(Box::new(SeatRequest {
            overdue: overdue.collect(),
            task: OperationTask { operation, layout: Some(layout), hint },
            layout,
            is_best_available,
        })));
        self.push_tasks(blocked);
        if fault::planted(Fault::OverdueNotExpired) {
            return;
        }
        for (seat, holder) in conflict.overdue.into_iter().rev() {
            self.steps.push(Step::ExpireHolder(Box::new(OverdueHolder {
                event: event.clone(),
                layout,
                holder,
                seat,
                deadline,
            })));
        }
    }

    pub(super) fn resume_buyer(&mut self, buyer: SeatRequest) {
        let SeatRequest { task, layout, is_best_available, overdue } = buyer;
        let event = task.operation.event.clone();
        let attempts = self.in_flight.attempts(&task.operation.reservation, &event);
        if is_best_available && attempts > limits::SEAT_COLLISIONS_MAX {
            // The seat map is old: another process sells the same seats.
            let seated = self.seated_events.open(&event, self.now.mono);
            let can_read_free = seated.can_read_free_seats(self.now);
            self.wait_for_seats(task, layout, can_read_free, ReadStart::AtOnce);
            return;
        }
        let busy = overdue.into_iter().find(|holder| {
            self.has_other_call_in_flight(holder, &event)
                && self.in_flight.can_be_watched(holder, &event)
        });
        match busy {
            None => self.steps.push(Step::Advance(task)),
            Some(holder) => self.in_flight.watch(&holder, &event, task),
        }
    }

    /// Whether a reservation has something other than its expiry in flight.
    pub(super) fn has_other_call_in_flight(
        &mut self,
        holder: &ReservationId,
        event: &EventId,
    ) -> bool {
        !matches!(self.in_flight.verb(holder, event), None | Some(Verb::Expire))
    }

    pub(super) fn expire_holder(&mut self, overdue: OverdueHolder) {
        let OverdueHolder { event, layout, holder, seat, deadline } = overdue;
        // Another operation of the holder may be waiting for a seat; the holder must not have a lock meanwhile.
        if self.has_other_call_in_flight(&holder, &event) {
            return;
        }
        // Locked at once, so that the buyer waits for the expiry.
        let seated = self.seated_events.open(&event, self.now.mono);
        if seated.lock_seats(std::slice::from_ref(&seat), &holder).is_err() {
            return;
        }
        if self.in_flight.verb(&holder, &event).is_some() {
            // One expiry ends the whole hold and unlocks all of its seats, however many buyers want them.
            return;
        }
        self.steps.push(Step::UnlockUnregistered(event.clone(), holder.clone()));
        let task = OperationTask {
            operation: expiry(event, holder, deadline),
            layout: Some(layout),
            hint: RecordHint::None,
        };
        self.steps.push(Step::Register(task));
    }
}

/// Reads.
impl Engine {
    /// Lets a waiter wait for a read of all seats, which is started unless one is in flight.
    pub(super) fn wait_for_seat_map(
        &mut self,
        event: &EventId,
        layout: EventLayout,
        waiter: SeatMapWaiter,
    ) {
        let seated = self.seated_events.open(event, self.now.mono);
        match seated.wait_for_map(waiter) {
            Ok(()) => self.read_seats(event, layout),
            Err(SeatMapWaiter::Query { call, .. }) => {
                self.counters.rejected_overloaded += 1;
                self.answer_query(call, Err(Rejection::overloaded()));
            }
            Err(SeatMapWaiter::SeatChoice(task)) => self.reject_overloaded(&task.operation),
        }
    }

    /// Reads the seats before the seat map is too old, so that no query waits for the read.
    pub(super) fn refresh_seats(&mut self, event: &EventId, layout: EventLayout) {
        let now = self.now.mono;
        if layout.is_seated() && self.seated_events.open(event, now).needs_refresh(now) {
            self.read_seats(event, layout);
        }
    }

    pub(super) fn read_seats(&mut self, event: &EventId, layout: EventLayout) {
        let now = self.now;
        let seat_keys = layout.seat_keys.max(1);
        let seated = self.seated_events.open(event, now.mono);
        if !seated.start_read(now.mono, now.unix, seat_keys) {
            return;
        }
        self.counters.seat_reads += 1;
        self.effects.push_back(Effect::ReadSeats { event: event.clone(), seat_keys });
        self.refresh_layout(event, layout);
    }
}

/// The operation that expires a hold.
pub(super) fn expiry(event: EventId, reservation: ReservationId, deadline: Micros) -> Operation {
    Operation {
        expectation: RecordExpectation::Present,
        ..Operation::new(Verb::Expire, reservation, event, Selection::AsRecorded, deadline)
    }
}

/// The rejection of seats that the seat map shows as another reservation's.
fn known_taken(
    seated: &mut SeatedEvent,
    seats: &[SeatId],
    operation: &Operation,
    transition: Transition,
    now: Now,
) -> Option<Rejection> {
    let map = seated.map()?;
    // A seat that the event does not have is reported before a taken one, and only the write proves it.
    if seats.iter().any(|seat| map.get(seat).is_none()) {
        return None;
    }
    let taken = |seat: &&SeatId| map.known_taken(seat, &operation.reservation, now);
    let seats: Vec<SeatId> = seats.iter().filter(taken).cloned().collect();
    match (seats.is_empty(), transition.from) {
        (true, _) => None,
        (false, None) => Some(Rejection::SeatsUnavailable { seats }),
        (false, Some(_)) => Some(Rejection::HoldExpired),
    }
}
