//! A seated event on the shard that owns it: its seat map, its seat locks, and what waits for them.
//!
//! The first buyer of a seat locks it, and later buyers wait for the outcome of the first. So no seat is twice in one
//! transaction, or in two transactions at a time.
//!
//! No wait is circular, because a reservation with locks is in a lane. The exception is an expiry,
//! which may wait while it has a lock, but never for another expiry.

use crate::fault::{self, Fault};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::OperationTask;
use super::foreign_sales::ForeignSales;
use crate::effect::CallId;
use crate::ids::{EventId, ReservationId, SeatId};
use crate::limits;
use crate::query::Query;
use crate::seat_map::SeatMap;
use crate::seats::{SeatItem, SeatState};
use crate::time::{Micros, Now, UnixMillis};
use crate::transaction::{RecordView, ReservationState};

/// What waits for a read of all seats.
#[derive(Debug)]
pub(super) enum SeatMapWaiter {
    Query { call: CallId, query: Query },
    SeatChoice(Box<OperationTask>),
}

#[derive(Debug)]
struct SeatLock {
    holder: ReservationId,
    blocked: Vec<OperationTask>,
}

const fn micros(span: Duration) -> Micros {
    Micros(span.as_micros() as u64)
}

/// The seat map and the seat locks of one event, and the operations that wait for them.
#[derive(Default)]
pub(super) struct SeatedEvent {
    map: Option<SeatMap>,
    /// When the last read of all seats began, on the monotonic clock.
    read_at: Option<Micros>,
    pub(super) read_began_unix: UnixMillis,
    /// Duration of that read, and that times the keys that it read in parallel.
    read_duration: Micros,
    read_cost: Micros,
    /// When the read in flight began.
    reading: Option<(Micros, UnixMillis)>,
    /// Keys that the read in flight reads in parallel.
    keys_in_parallel: u64,
    /// Changes recorded while the first read was in flight: they are newer than the read.
    changes_during_first_read: Vec<(SeatId, Option<SeatState>, Micros)>,
    /// The read in flight began before an operator's change: its result counts as stale.
    is_stale: bool,
    awaiting_map: Vec<SeatMapWaiter>,
    /// When the last verification that agreed with the seat map began, if later than `read_at`.
    verified_at: Option<Micros>,
    /// When the verification in flight began.
    verifying: Option<(Micros, UnixMillis)>,
    /// When the last verification began.
    verification_began: Option<Micros>,
    /// When the last read of the free seats began, whether or not it agreed with the seat map, and its duration.
    free_seats_read: Option<(Micros, Micros)>,
    foreign_sales: Option<ForeignSales>,
    /// When a write for chosen seats last found them taken.
    collided_at: Option<Micros>,
    /// A verification did not agree with the seat map, so all seats must be read.
    needs_full_read: bool,
    /// Operations that wait for a verification.
    awaiting_verification: Vec<OperationTask>,
    seat_locks: HashMap<SeatId, SeatLock, foldhash::fast::RandomState>,
    by_reservation: HashMap<ReservationId, Vec<SeatId>, foldhash::fast::RandomState>,
    blocked: usize,
    pub(super) used: Micros,
}

impl SeatedEvent {
    pub(super) fn map(&mut self) -> Option<&mut SeatMap> {
        self.map.as_mut()
    }

    /// The seat map, and whether a seat is locked.
    pub(super) fn map_and_locks(
        &mut self,
    ) -> Option<(&mut SeatMap, impl Fn(&SeatId) -> bool + use<'_>)> {
        let locks = &self.seat_locks;
        let map = self.map.as_mut()?;
        Some((map, move |seat: &SeatId| locks.contains_key(seat)))
    }

    /// Whether nothing is lost if the event is dropped.
    pub(super) fn is_idle(&self) -> bool {
        let is_read = self.reading.is_some() || self.verifying.is_some();
        let is_awaited = !self.awaiting_map.is_empty() || !self.awaiting_verification.is_empty();
        self.seat_locks.is_empty() && !is_read && !is_awaited
    }

    /// Whether the free seats were read at `since` or later.
    pub(super) fn is_read_since(&self, since: Micros) -> bool {
        // A seat that a later read did not return may be free again: its state must be read first.
        let is_known = self.map.as_ref().is_some_and(|map| !map.has_missing());
        is_known && self.read_at.max(self.verified_at).is_some_and(|at| at >= since)
    }

    /// Whether a read of the free seats can replace a read of all seats, at less cost.
    pub(super) fn can_verify(&mut self, now: Now) -> bool {
        let has_missing = self.map.as_ref().is_some_and(SeatMap::has_missing);
        !has_missing
            && !self.needs_full_read
            && self.is_fresh(now.mono)
            && self.can_read_free_seats(now)
    }

    /// Lets a seat choice wait for a verification. `Err`: too many wait already.
    pub(super) fn wait_for_verification(
        &mut self,
        task: Box<OperationTask>,
    ) -> Result<(), Box<OperationTask>> {
        if self.awaiting_verification.len() >= limits::READ_WAITERS_MAX {
            return Err(task);
        }
        self.awaiting_verification.push(*task);
        Ok(())
    }

    /// Whether a verification has to be started.
    pub(super) fn start_verification(&mut self, now: Now) -> bool {
        if self.verifying.is_some() {
            return false;
        }
        self.verifying = Some((now.mono, now.unix));
        self.verification_began = Some(now.mono);
        true
    }

    /// When the next verification of "sold out" may begin. All processes that sell the event verify, each less often the
    /// more they are.
    pub(super) fn next_verification(&self, processes: usize) -> Micros {
        let interval = micros(limits::SEAT_VERIFICATION_INTERVAL).0;
        let interval = Micros(interval * (processes as u64 + 1) / 2);
        self.verification_began.map_or(Micros(0), |began| began.plus(interval))
    }

    /// Whether operations wait for a verification that has not begun.
    pub(super) fn awaits_verification(&self) -> bool {
        self.verifying.is_none() && !self.awaiting_verification.is_empty()
    }

    /// Ends a verification. Returns the operations that waited for it, and false if it did not agree with
    /// the seat map.
    pub(super) fn finish_verification(
        &mut self,
        free: Option<Vec<(SeatId, SeatState)>>,
        now: Micros,
    ) -> (Vec<OperationTask>, bool) {
        let mut agrees = true;
        // Without a seat map, since an operator has changed the event, nothing can be compared.
        if let (Some((began, unix)), Some(free), Some(map)) =
            (self.verifying.take(), free, &mut self.map)
        {
            let before = self.free_seats_read.map(|(began, _)| began).max(self.read_at);
            self.free_seats_read = Some((began, now.since(began)));
            let locks = &self.seat_locks;
            let is_locked = |seat: &SeatId| locks.contains_key(seat);
            let found = map.verify(free, began, unix, &is_locked);
            self.foreign_sales = before.map(|before| ForeignSales::between(before, began, &found));
            agrees = found.agrees;
            match agrees {
                true => self.verified_at = Some(began),
                false => self.needs_full_read = true,
            }
        }
        (std::mem::take(&mut self.awaiting_verification), agrees)
    }

    /// Whether the seat map is recent enough to answer a query: its age is at most [`limits::SEAT_MAP_READ_SHARE`]
    /// times the cost of its read, within [`limits::SEAT_MAP_AGE_MIN`] and [`limits::SEAT_MAP_AGE_MAX`].
    pub(super) fn is_fresh(&self, now: Micros) -> bool {
        self.map.is_some() && self.age(now).is_some_and(|age| age <= self.age_allowed())
    }

    pub(super) fn is_younger_than(&self, age: Duration, now: Micros) -> bool {
        let most = Micros(age.as_micros() as u64);
        self.map.is_some() && self.age(now).is_some_and(|age| age <= most)
    }

    /// A write for chosen seats found them taken: other processes choose the same seats.
    pub(super) fn record_collision(&mut self, now: Micros) {
        self.collided_at = Some(now);
    }

    /// Whether most of the seats that this process prefers are sold.
    pub(super) fn is_part_low(&self) -> bool {
        self.map.as_ref().is_some_and(SeatMap::is_part_low)
    }

    /// Whether the hall is divided among several processes.
    pub(super) fn is_divided(&self) -> bool {
        self.map.as_ref().is_some_and(SeatMap::is_divided)
    }

    /// Whether choices have collided recently.
    pub(super) fn collides(&self, now: Micros) -> bool {
        let memory = micros(limits::SEAT_COLLISION_MEMORY);
        self.is_divided() && self.collided_at.is_some_and(|at| now.since(at) < memory)
    }

    /// Whether writes for the last seats should be small, because choices have just collided.
    pub(super) fn is_contended(&mut self, now: Now) -> bool {
        let memory = micros(limits::SEAT_CONTENTION_MEMORY);
        let collides = self.collided_at.is_some_and(|at| now.mono.since(at) < memory);
        collides && self.is_divided() && self.can_read_free_seats(now)
    }

    /// Sets whether other processes choose the seats that this process prefers, for the order of its choices.
    pub(super) fn update_contested(&mut self, now: Micros) {
        let memory = micros(limits::SEAT_CONTESTED_MEMORY);
        let collides = self.collided_at.is_some_and(|at| now.since(at) < memory);
        if let Some(map) = &mut self.map {
            map.set_contested(collides);
        }
    }

    /// Whether the map is too old to choose seats that this process prefers: few are free, and choices collide, so other
    /// processes choose them too.
    pub(super) fn must_read_before_own_choice(&self, now: Micros) -> bool {
        self.is_part_low()
            && self.collides(now)
            && self.is_older_than(limits::SEAT_OTHERS_PART_AGE, now)
    }

    /// Whether a choice among seats that other processes prefer, by a call that has waited so long, must wait for a read.
    ///
    /// At the end of a sale those processes sell their last seats within a few transactions, and each choice of theirs
    /// would collide. So a process reads before it chooses their seats, and waits while they sell the last ones. A process
    /// that sells alone what others prefer reads once a second, and waits for no other read.
    pub(super) fn must_read_before_choice(&mut self, now: Now, waited: Micros) -> bool {
        if !self.is_divided() || waited >= micros(limits::SEAT_OTHERS_SELL_WAIT_MAX) {
            return false;
        }
        if !self.can_read_free_seats(now) {
            let most = limits::SEAT_OTHERS_PART_AGE_MANY;
            return self.collides(now.mono) && self.is_older_than(most, now.mono);
        }
        match self.foreign_sales.filter(|sales| sales.is_known(now.mono)) {
            Some(sales) if !sales.end_soon(now.mono) => {
                let most = limits::SEAT_OTHERS_PART_AGE;
                self.collides(now.mono) && self.is_older_than(most, now.mono)
            }
            _ => true,
        }
    }

    /// Whether the latest read is older than that. A read that has just ended is always recent enough.
    fn is_older_than(&self, most: Duration, now: Micros) -> bool {
        let all_seats = self.read_at.map(|at| (at, self.read_duration));
        let Some((at, duration)) = all_seats.max(self.free_seats_read) else {
            return true;
        };
        now.since(at) > micros(most).max(Micros(2 * duration.0))
    }

    /// Whether a read of the free seats makes the map recent enough for a choice, at less cost than a read of all seats.
    pub(super) fn can_read_free_seats(&mut self, now: Now) -> bool {
        let free = self.map.as_mut().map(|map| map.remaining(None, now.unix));
        free.is_some_and(|free| free <= limits::VERIFIABLE_SEATS_MAX)
    }

    /// Whether the seat map should be read again before it is too old.
    pub(super) fn needs_refresh(&self, now: Micros) -> bool {
        self.map.as_ref().is_none_or(SeatMap::awaits_division)
            || self.age(now).is_none_or(|age| age.0 > self.age_allowed().0 / 2)
    }

    fn age(&self, now: Micros) -> Option<Micros> {
        self.read_at.map(|at| now.since(at))
    }

    fn age_allowed(&self) -> Micros {
        let least = limits::SEAT_MAP_AGE_MIN.as_micros() as u64;
        let most = limits::SEAT_MAP_AGE_MAX.as_micros() as u64;
        let by_cost = self.read_cost.0.saturating_mul(limits::SEAT_MAP_READ_SHARE);
        Micros(by_cost.clamp(least, most))
    }

    /// Whether a read has to be started.
    pub(super) fn start_read(&mut self, now: Micros, unix: UnixMillis, seat_keys: u16) -> bool {
        if self.reading.is_some() {
            return false;
        }
        self.keys_in_parallel = u64::from(seat_keys).min(limits::SEAT_KEYS_IN_PARALLEL as u64);
        self.reading = Some((now, unix));
        true
    }

    /// Ends a read of all seats. Returns what waited for it.
    pub(super) fn finish_read(
        &mut self,
        seats: Option<Vec<SeatItem>>,
        now: Micros,
    ) -> Vec<SeatMapWaiter> {
        let (began, unix) = self.reading.take().unwrap_or_default();
        if seats.is_none() {
            self.changes_during_first_read.clear();
        }
        if let Some(seats) = seats {
            match &mut self.map {
                Some(map) => map.refresh(seats, began),
                None => {
                    let map = self.map.insert(SeatMap::new(seats, began));
                    for (seat, state, at) in self.changes_during_first_read.drain(..) {
                        map.record_result(&seat, state, at);
                    }
                }
            }
            self.read_at = (!std::mem::take(&mut self.is_stale)).then_some(began);
            self.needs_full_read = false;
            self.read_began_unix = unix;
            self.read_duration = now.since(began);
            self.read_cost = Micros(self.read_duration.0 * self.keys_in_parallel);
        }
        std::mem::take(&mut self.awaiting_map)
    }

    /// Records a seat as a write of this shard, or a failed condition, has just shown it.
    pub(super) fn record_seat(&mut self, seat: &SeatId, state: Option<SeatState>, at: Micros) {
        match &mut self.map {
            Some(map) => map.record_result(seat, state, at),
            None if self.reading.is_some()
                && self.changes_during_first_read.len() < limits::SEAT_WAITERS_MAX =>
            {
                self.changes_during_first_read.push((seat.clone(), state, at));
            }
            None => {}
        }
    }

    /// Drops the seat map: an operator has changed the event.
    pub(super) fn invalidate_map(&mut self) {
        self.map = None;
        self.read_at = None;
        self.is_stale = self.reading.is_some();
        self.verified_at = None;
        self.free_seats_read = None;
        self.foreign_sales = None;
    }

    /// `Err`: too many wait already.
    pub(super) fn wait_for_map(&mut self, waiter: SeatMapWaiter) -> Result<(), SeatMapWaiter> {
        if self.awaiting_map.len() >= limits::READ_WAITERS_MAX {
            return Err(waiter);
        }
        self.awaiting_map.push(waiter);
        Ok(())
    }

    /// Locks all of `seats` for `by`, or none: then returns a seat that another reservation has locked.
    pub(super) fn lock_seats(
        &mut self,
        seats: &[SeatId],
        by: &ReservationId,
    ) -> Result<(), SeatId> {
        let others = |seat: &&SeatId| {
            self.seat_locks.get(*seat).is_some_and(|c| c.holder != *by)
                && !fault::planted(Fault::SeatLocksShared)
        };
        if let Some(taken) = seats.iter().find(others) {
            return Err(taken.clone());
        }
        for seat in seats {
            let mut fresh = false;
            self.seat_locks.entry(seat.clone()).or_insert_with(|| {
                fresh = true;
                SeatLock { holder: by.clone(), blocked: Vec::new() }
            });
            if fresh {
                let mine = self.by_reservation.entry(by.clone()).or_default();
                mine.push(seat.clone());
            }
        }
        Ok(())
    }

    /// Lets an operation wait until the lock on `seat` ends; returns it if too many wait, or if there is no
    /// lock.
    pub(super) fn block(
        &mut self,
        seat: &SeatId,
        task: Box<OperationTask>,
    ) -> Result<(), Box<OperationTask>> {
        match self.seat_locks.get_mut(seat) {
            Some(lock) if self.blocked < limits::SEAT_WAITERS_MAX => {
                lock.blocked.push(*task);
                self.blocked += 1;
                Ok(())
            }
            _ => Err(task),
        }
    }

    /// Ends the locks of a reservation. Returns the operations that they blocked, in order.
    pub(super) fn unlock(&mut self, reservation: &ReservationId) -> Vec<OperationTask> {
        let mut freed = Vec::new();
        for seat in self.by_reservation.remove(reservation).unwrap_or_default() {
            if let Some(lock) = self.seat_locks.remove(&seat) {
                freed.extend(lock.blocked);
            }
        }
        self.blocked -= freed.len();
        freed
    }

    /// The reservation that has locked the seat.
    pub(super) fn lock_holder(&self, seat: &SeatId) -> Option<&ReservationId> {
        self.seat_locks.get(seat).map(|lock| &lock.holder)
    }

    /// A locked seat, in `section` if one is named.
    pub(super) fn any_locked_seat(&self, section: Option<&str>) -> Option<SeatId> {
        let inside = |seat: &&SeatId| match (section, &self.map) {
            (Some(section), Some(map)) => map.get(seat).is_some_and(|seat| seat.section == section),
            _ => true,
        };
        // The smallest: the choice must not depend on the hash order.
        self.seat_locks.keys().filter(inside).min().cloned()
    }

    /// Records the seats of a reservation that this shard has written.
    pub(super) fn record_write(
        &mut self,
        reservation: &ReservationId,
        record: &RecordView,
        as_of: Micros,
    ) {
        let Some(seats) = &record.seats else { return };
        let state = match record.state {
            ReservationState::Held => SeatState::Hold {
                reservation: reservation.clone(),
                until: record.expires_at.unwrap_or_default(),
            },
            ReservationState::Confirmed => SeatState::Sold { reservation: reservation.clone() },
            _ => SeatState::Available,
        };
        for seat in seats.iter() {
            self.record_seat(seat, Some(state.clone()), as_of);
        }
    }

    /// Records the seats that a write of `reservation` found not to be free.
    pub(super) fn record_conflict(
        &mut self,
        found: Vec<(SeatId, Option<SeatState>)>,
        reservation: &ReservationId,
        as_of: Micros,
        now: UnixMillis,
    ) -> SeatConflict {
        let mut conflict = SeatConflict::default();
        for (seat, state) in found {
            self.record_seat(&seat, state.clone(), as_of);
            match state {
                None => conflict.unknown.push(seat),
                Some(SeatState::Hold { reservation: holder, until })
                    if until <= now && holder != *reservation =>
                {
                    conflict.overdue.push((seat, holder));
                }
                // May be free again: the next attempt decides.
                Some(SeatState::Available) => {}
                Some(_) => conflict.taken.push(seat),
            }
        }
        conflict
    }
}

/// The seats that a write found not to be free.
#[derive(Debug, Default)]
pub(super) struct SeatConflict {
    /// The event has no such seats.
    pub(super) unknown: Vec<SeatId>,
    /// Another reservation has them.
    pub(super) taken: Vec<SeatId>,
    /// A hold has them that is past its expiry.
    pub(super) overdue: Vec<(SeatId, ReservationId)>,
}

/// The seated events that a shard owns and has been asked about.
#[derive(Default)]
pub(super) struct SeatedEvents {
    by_event: HashMap<EventId, SeatedEvent, foldhash::fast::RandomState>,
    /// When verifications are due, with the partition keys of the event.
    due: BTreeSet<(Micros, EventId, u16)>,
}

impl SeatedEvents {
    /// Lets a verification of the event begin at that time.
    pub(super) fn plan_verification(&mut self, at: Micros, event: EventId, seat_keys: u16) {
        self.due.insert((at, event, seat_keys));
    }

    /// When [`SeatedEvents::take_due`] has something.
    pub(super) fn wake_at(&self) -> Option<Micros> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// An event whose verification is due, with its partition keys.
    pub(super) fn take_due(&mut self, now: Micros) -> Option<(EventId, u16)> {
        self.due.first().filter(|(at, ..)| *at <= now)?;
        let (_, event, seat_keys) = self.due.pop_first()?;
        Some((event, seat_keys))
    }

    pub(super) fn get_mut(&mut self, event: &EventId) -> Option<&mut SeatedEvent> {
        self.by_event.get_mut(event)
    }

    /// The event, created if there is none. An idle event is evicted if there are too many.
    pub(super) fn open(&mut self, event: &EventId, now: Micros) -> &mut SeatedEvent {
        let events = &mut self.by_event;
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

    /// Releases a reservation's seat locks. Returns the operations that they blocked, in order.
    pub(super) fn unlock(
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
    ) -> Vec<OperationTask> {
        match self.by_event.get_mut(event) {
            Some(seated) => seated.unlock(reservation),
            None => Vec::new(),
        }
    }

    pub(super) fn all_idle(&self) -> bool {
        self.by_event.values().all(SeatedEvent::is_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::RecordHint;
    use crate::ids::EventId;
    use crate::operation::{Operation, Selection, Verb};

    fn seats(names: &[&str]) -> Vec<SeatId> {
        names.iter().map(|n| n.parse().expect("legal")).collect()
    }

    fn by(n: u32) -> ReservationId {
        format!("r{n}").parse().expect("legal")
    }

    fn task(n: u32) -> Box<OperationTask> {
        let event: EventId = "evt".parse().expect("legal");
        let selection = Selection::Quantity(1);
        Box::new(OperationTask {
            operation: Operation::new(Verb::Hold, by(n), event, selection, Micros(1)),
            layout: None,
            hint: RecordHint::None,
        })
    }

    #[test]
    fn locks_all_seats_or_none() {
        let mut seated = SeatedEvent::default();
        assert_eq!(seated.lock_seats(&seats(&["A", "B"]), &by(1)), Ok(()));
        assert_eq!(seated.lock_seats(&seats(&["C", "B"]), &by(2)), Err(seats(&["B"])[0].clone()));
        assert_eq!(seated.lock_seats(&seats(&["C"]), &by(3)), Ok(()), "C was left alone");
        // A reservation may lock more seats beside its own.
        assert_eq!(seated.lock_seats(&seats(&["B", "D"]), &by(1)), Ok(()));
    }

    #[test]
    fn blocked_operations_continue_once_in_order() {
        let mut seated = SeatedEvent::default();
        seated.lock_seats(&seats(&["A", "B"]), &by(1)).expect("free");
        for (n, seat) in [(2, "B"), (3, "A"), (4, "B")] {
            assert!(seated.block(&seats(&[seat])[0], task(n)).is_ok());
        }
        assert!(seated.block(&seats(&["Z"])[0], task(5)).is_err(), "nobody has locked it");
        let freed: Vec<_> =
            seated.unlock(&by(1)).into_iter().map(|p| p.operation.reservation).collect();
        assert_eq!(freed, [by(3), by(2), by(4)]);
        assert!(seated.unlock(&by(1)).is_empty());
        assert!(seated.is_idle());
    }
}
