//! Calls in flight, by reservation and event.
//!
//! One call per reservation and event is executed at a time: the leader. An equal call waits for the leader's answer; a
//! call with another verb or quantity waits until the leader is answered, and is then executed itself. So no
//! reservation is twice in one transaction, and no two answers about a reservation race.
//!
//! If clients name one reservation with two events, there are two entries, and neither waits for the other: their
//! transactions are separate, and the record's condition lets one of them through. Waiting could deadlock, because the
//! events may have different owners: two shards that forward calls to each other would wait for each other.

use crate::fault::{self, Fault};
use std::collections::HashMap;

use super::OperationTask;
use crate::answer::{Answer, Rejection};
use crate::effect::CallId;
use crate::ids::{EventId, Fingerprint, PaymentHash, ReservationId};
use crate::limits;
use crate::operation::{Operation, Verb};
use crate::time::Micros;
use crate::transaction::EventLayout;

/// The caller of an operation.
#[derive(Debug)]
pub(super) enum Caller {
    Call(CallId),
    /// Another shard forwarded the operation.
    Shard(Box<ForwardOrigin>),
}

/// Identifies a forwarded operation to the shard that forwarded it.
#[derive(Debug)]
pub(super) struct ForwardOrigin {
    pub(super) shard: usize,
    pub(super) event: EventId,
    pub(super) reservation: ReservationId,
}

impl Caller {
    pub(super) const INTERNAL: Self = Self::Call(CallId::INTERNAL);

    /// The shard that forwarded an operation.
    pub(super) fn of_shard(shard: usize, operation: &Operation) -> Self {
        let (event, reservation) = (operation.event.clone(), operation.reservation.clone());
        Self::Shard(Box::new(ForwardOrigin { shard, event, reservation }))
    }
}

/// A reservation in flight.
#[derive(Debug)]
pub(super) struct InFlightCall {
    event: EventId,
    pub(super) leader: Caller,
    pub(super) verb: Verb,
    pub(super) fingerprint: Fingerprint,
    pub(super) payment: Option<PaymentHash>,
    /// When the leader was registered: everything that is read for it is read after this.
    pub(super) started_at: Micros,
    /// How often the leader was decided again because a write or a read contradicted what it relied on.
    attempts: u32,
    /// Remaining units or seats, if they were too few for the leader. Whether it is rejected for that depends on one
    /// more read of its record.
    shortage: Option<u64>,
    /// A read of free seats proves a shortage if it began at this instant or later.
    reads_from: Micros,
    /// The leader found too few seats and waits for the write that has locked one.
    waits_for_seat_lock: bool,
    /// Another shard executes the leader.
    is_forwarded: bool,
    /// In order of arrival.
    pub(super) waiters: Vec<Waiter>,
    /// Buyers of seats that this reservation holds past its expiry: its outcome decides about them.
    pub(super) watchers: Vec<OperationTask>,
    /// The leader watches another reservation.
    is_watching: bool,
    /// An attempt to write the leader had an unknown outcome: it is not rejected as not executed.
    may_be_written: bool,
}

/// A call that waits for the outcome of the leader.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) caller: Caller,
    pub(super) operation: Operation,
    pub(super) layout: Option<EventLayout>,
    pub(super) arrived: Micros,
}

/// All calls of one reservation: one entry, except for clients that name two events.
#[derive(Debug)]
struct CallSlot {
    first: InFlightCall,
    others: Vec<InFlightCall>,
}

/// The result of registering a call.
#[derive(Debug)]
pub(super) enum Registration {
    /// The call is the leader: execute it.
    Leader(Operation),
    Waiting,
    /// Too many calls: in all, of this event, or for this reservation.
    Full(Caller),
}

#[derive(Debug, Default)]
pub(super) struct InFlightCalls {
    by_reservation: HashMap<ReservationId, CallSlot, foldhash::fast::RandomState>,
    calls: usize,
    /// Number of calls by event.
    by_event: HashMap<EventId, usize, foldhash::fast::RandomState>,
}

impl InFlightCalls {
    /// Calls that have not been answered, leaders and all others.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_reservation.is_empty()
    }

    pub(super) fn register(
        &mut self,
        caller: Caller,
        operation: Operation,
        layout: Option<EventLayout>,
        now: Micros,
    ) -> Registration {
        if self.calls >= limits::OPERATIONS_IN_FLIGHT_MAX
            || self.exceeds_event_share(&operation.event)
        {
            return Registration::Full(caller);
        }
        let Some(slot) = self.by_reservation.get_mut(&operation.reservation) else {
            let first = InFlightCall::with_leader(caller, &operation, now);
            let others = Vec::new();
            self.by_reservation.insert(operation.reservation.clone(), CallSlot { first, others });
            self.count(&operation.event);
            return Registration::Leader(operation);
        };
        if slot.calls() > limits::CALLS_PER_RESERVATION_MAX {
            return Registration::Full(caller);
        }
        let event = operation.event.clone();
        let joined = match slot.of(&operation.event) {
            Some(call) => {
                call.waiters.push(Waiter { caller, operation, layout, arrived: now });
                Registration::Waiting
            }
            None => {
                slot.others.push(InFlightCall::with_leader(caller, &operation, now));
                Registration::Leader(operation)
            }
        };
        self.count(&event);
        joined
    }

    fn count(&mut self, event: &EventId) {
        self.calls += 1;
        match self.by_event.get_mut(event) {
            Some(calls) => *calls += 1,
            None => drop(self.by_event.insert(event.clone(), 1)),
        }
    }

    /// Whether an event has so many calls that no more are accepted: once a shard is half full, no event
    /// has more than its share, and one share is kept for a new event.
    fn exceeds_event_share(&self, event: &EventId) -> bool {
        if self.calls < limits::OPERATIONS_IN_FLIGHT_MAX / 2 {
            return false;
        }
        let share = limits::OPERATIONS_IN_FLIGHT_MAX / (self.by_event.len() + 1);
        self.by_event.get(event).is_some_and(|calls| *calls >= share)
    }

    pub(super) fn remove(
        &mut self,
        reservation: &ReservationId,
        event: &EventId,
    ) -> Option<InFlightCall> {
        let slot = self.by_reservation.get_mut(reservation)?;
        let call = if slot.first.event != *event {
            let at = slot.others.iter().position(|p| p.event == *event)?;
            slot.others.swap_remove(at)
        } else if let Some(next) = slot.others.pop() {
            std::mem::replace(&mut slot.first, next)
        } else {
            self.by_reservation.remove(reservation)?.first
        };
        self.uncount(event, call.calls());
        Some(call)
    }

    fn uncount(&mut self, event: &EventId, ended: usize) {
        self.calls -= ended;
        if let Some(calls) = self.by_event.get_mut(event) {
            *calls = calls.saturating_sub(ended);
            if *calls == 0 {
                self.by_event.remove(event);
            }
        }
    }
}

/// Whether a forwarded call must not wait for a leader that was forwarded too.
fn must_not_wait(waiter: Verb, leader: Verb) -> bool {
    let rank = |verb| match verb {
        Verb::Expire => 0,
        Verb::Release => 1,
        Verb::Refund => 2,
        Verb::Hold => 3,
        Verb::Commit => 4,
    };
    rank(leader) >= rank(waiter)
}

impl InFlightCalls {
    /// When the leader was registered.
    pub(super) fn started_at(
        &mut self,
        reservation: &ReservationId,
        event: &EventId,
    ) -> Option<Micros> {
        self.of(reservation, event).map(|call| call.started_at)
    }

    /// Whether a call that was forwarded to this shard must not wait for the call in flight, because the two could wait
    /// for each other.
    ///
    /// A forwarded call waits for calls that this shard executes, and for a leader that this shard has forwarded only if
    /// its verb comes first in this order: expiry, release, refund, hold, commit. The leader waits elsewhere for one
    /// whose verb comes before that, so there is no circle. A call that this rule rejects is answered with STORE_BUSY, and
    /// its client repeats it. An expiry, which no client would repeat, comes first and is never rejected.
    ///
    /// While the members do not change, few calls are rejected: returns are forwarded to shards that sell, such shards
    /// forward no reservation, and all returns of one record go to the same shard. Exceptions are a hold and its order
    /// after a late commit, which may have different stripes. After a change of the members, shards may forward calls of
    /// one reservation to each other.
    pub(super) fn would_deadlock(&mut self, operation: &Operation) -> bool {
        let Some(call) = self.of(&operation.reservation, &operation.event) else {
            return false;
        };
        call.is_forwarded && must_not_wait(operation.verb, call.verb)
    }

    /// Records that another shard executes the leader. Removes and returns the calls that other shards have forwarded
    /// here and that must not wait for the leader any longer: see [`InFlightCalls::would_deadlock`].
    pub(super) fn mark_forwarded(
        &mut self,
        reservation: &ReservationId,
        event: &EventId,
    ) -> Vec<Caller> {
        let Some(call) = self.of(reservation, event) else {
            return Vec::new();
        };
        call.is_forwarded = true;
        let leader = call.verb;
        let (ended, waiters): (Vec<_>, Vec<_>) =
            std::mem::take(&mut call.waiters).into_iter().partition(|waiter| {
                let is_forwarded = matches!(waiter.caller, Caller::Shard(_));
                is_forwarded && must_not_wait(waiter.operation.verb, leader)
            });
        call.waiters = waiters;
        self.uncount(event, ended.len());
        ended.into_iter().map(|waiter| waiter.caller).collect()
    }

    /// The verb of the leader, if there is one.
    pub(super) fn verb(&mut self, reservation: &ReservationId, event: &EventId) -> Option<Verb> {
        self.of(reservation, event).map(|call| call.verb)
    }

    /// Whether a buyer may wait for the outcome of a reservation: the reservation has a call in flight that
    /// does not itself watch another one. So there is no circular wait.
    pub(super) fn can_be_watched(&mut self, reservation: &ReservationId, event: &EventId) -> bool {
        let call = self.of(reservation, event);
        call.is_some_and(|call| !call.is_watching)
    }

    /// Lets a buyer wait for the outcome of a reservation that can be watched.
    pub(super) fn watch(
        &mut self,
        reservation: &ReservationId,
        event: &EventId,
        buyer: OperationTask,
    ) {
        self.set_watching(&buyer.operation.reservation, event, true);
        if let Some(call) = self.of(reservation, event) {
            call.watchers.push(buyer);
        }
    }

    pub(super) fn set_watching(&mut self, reservation: &ReservationId, event: &EventId, is: bool) {
        if let Some(call) = self.of(reservation, event) {
            call.is_watching = is;
        }
    }

    /// Sets or clears the number of units or seats that were available for the leader.
    pub(super) fn set_shortage(
        &mut self,
        reservation: &ReservationId,
        event: &EventId,
        remaining: Option<u64>,
    ) {
        if let Some(call) = self.of(reservation, event) {
            call.shortage = remaining;
        }
    }

    /// What [`InFlightCalls::set_shortage`] has set.
    pub(super) fn shortage(&mut self, reservation: &ReservationId, event: &EventId) -> Option<u64> {
        self.of(reservation, event)?.shortage
    }

    /// Records that the leader found too few seats and waits for the write that has locked one.
    pub(super) fn set_waits_for_seat_lock(&mut self, reservation: &ReservationId, event: &EventId) {
        if let Some(call) = self.of(reservation, event) {
            call.waits_for_seat_lock = true;
        }
    }

    /// The instant from which a read of free seats proves a shortage: the arrival of the leader, or the end of the
    /// lock that it waited for. The locking write may be older than the leader, and another process may have released
    /// the seat since. So a read that shows the seat as free and the later outcome of the write do not prove that
    /// the seat was taken.
    pub(super) fn reads_from(
        &mut self,
        reservation: &ReservationId,
        event: &EventId,
        now: Micros,
    ) -> Option<Micros> {
        let call = self.of(reservation, event)?;
        if std::mem::take(&mut call.waits_for_seat_lock)
            && !fault::planted(Fault::OldWriteProvesSoldOut)
        {
            call.reads_from = now;
        }
        Some(call.reads_from)
    }

    /// How often the leader was decided again because a write or a read contradicted what it relied on.
    pub(super) fn attempts(&mut self, reservation: &ReservationId, event: &EventId) -> u32 {
        self.of(reservation, event).map_or(0, |call| call.attempts)
    }

    /// Records that an attempt to write the leader had an unknown outcome.
    pub(super) fn mark_may_be_written(&mut self, reservation: &ReservationId, event: &EventId) {
        if let Some(call) = self.of(reservation, event) {
            call.may_be_written = true;
        }
    }

    fn of(&mut self, reservation: &ReservationId, event: &EventId) -> Option<&mut InFlightCall> {
        self.by_reservation.get_mut(reservation)?.of(event)
    }

    /// Counts one more attempt of the leader; false if the bound is reached.
    pub(super) fn count_attempt(&mut self, reservation: &ReservationId, event: &EventId) -> bool {
        let Some(call) = self.of(reservation, event) else {
            return false;
        };
        call.attempts += 1;
        call.attempts <= limits::ATTEMPTS_PER_OPERATION_MAX
    }
}

impl CallSlot {
    fn of(&mut self, event: &EventId) -> Option<&mut InFlightCall> {
        std::iter::once(&mut self.first).chain(&mut self.others).find(|call| call.event == *event)
    }

    fn calls(&self) -> usize {
        let others = self.others.iter().map(InFlightCall::calls);
        self.first.calls() + others.sum::<usize>()
    }
}

impl InFlightCall {
    fn with_leader(caller: Caller, operation: &Operation, now: Micros) -> Self {
        Self {
            event: operation.event.clone(),
            leader: caller,
            verb: operation.verb,
            fingerprint: operation.fingerprint,
            payment: operation.payment(),
            started_at: now,
            attempts: 0,
            shortage: None,
            reads_from: now,
            waits_for_seat_lock: false,
            is_forwarded: false,
            waiters: Vec::new(),
            watchers: Vec::new(),
            is_watching: false,
            may_be_written: false,
        }
    }

    /// The answer for the leader. A rejection that says that the call was not executed becomes one that says nothing about
    /// that, if an attempt had an unknown outcome: a later attempt that was cancelled or never sent proves nothing about
    /// the earlier one.
    pub(super) fn without_false_claim(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Rejected(rejection)
                if self.may_be_written && rejection.claims_not_executed() =>
            {
                Answer::Rejected(Rejection::outcome_unknown())
            }
            answer => answer,
        }
    }

    fn calls(&self) -> usize {
        1 + self.waiters.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Selection;

    /// In the order in which forwarded calls wait for each other.
    const VERBS: [Verb; 5] = [Verb::Expire, Verb::Release, Verb::Refund, Verb::Hold, Verb::Commit];

    fn operation(verb: Verb, reservation: &str, event: &str) -> Operation {
        let (reservation, event) =
            (reservation.parse().expect("legal"), event.parse().expect("legal"));
        Operation::new(verb, reservation, event, Selection::Quantity(1), Micros(1_000))
    }

    fn id(reservation: &str) -> ReservationId {
        reservation.parse().expect("legal")
    }

    fn event(event: &str) -> EventId {
        event.parse().expect("legal")
    }

    fn register(calls: &mut InFlightCalls, caller: Caller, operation: Operation) -> bool {
        match calls.register(caller, operation, None, Micros(1)) {
            Registration::Leader(_) => true,
            Registration::Waiting => false,
            Registration::Full(_) => panic!("not full"),
        }
    }

    /// The calls of a shard whose leader of reservation `r` is executed by another shard.
    fn forwarded(leader: Verb) -> InFlightCalls {
        let mut calls = InFlightCalls::default();
        assert!(register(&mut calls, Caller::Call(CallId(1)), operation(leader, "r", "e")));
        assert!(calls.mark_forwarded(&id("r"), &event("e")).is_empty());
        calls
    }

    #[test]
    fn a_forwarded_call_waits_for_a_call_that_this_shard_executes() {
        for leader in VERBS {
            let mut calls = InFlightCalls::default();
            register(&mut calls, Caller::INTERNAL, operation(leader, "r", "e"));
            for waiter in VERBS {
                assert!(
                    !calls.would_deadlock(&operation(waiter, "r", "e")),
                    "{waiter:?} {leader:?}"
                );
            }
        }
    }

    #[test]
    fn a_forwarded_call_waits_for_a_forwarded_leader_before_it_in_the_order() {
        for (first, leader) in VERBS.into_iter().enumerate() {
            let mut calls = forwarded(leader);
            for (second, waiter) in VERBS.into_iter().enumerate() {
                let waits = first < second;
                let would_deadlock = calls.would_deadlock(&operation(waiter, "r", "e"));
                assert_eq!(would_deadlock, !waits, "{waiter:?} behind {leader:?}");
            }
            // Other reservations and events are not concerned.
            assert!(!calls.would_deadlock(&operation(Verb::Commit, "other", "e")));
            assert!(!calls.would_deadlock(&operation(Verb::Commit, "r", "other")));
        }
    }

    /// Shards in a circle, each of which has forwarded its leader to the next one. If every leader waited there, none would
    /// ever be executed.
    #[test]
    fn forwarded_calls_never_wait_for_each_other_in_a_circle() {
        for shards in 2..=4_u32 {
            for circle in 0..VERBS.len().pow(shards) {
                let verb = |shard: u32| VERBS[circle / VERBS.len().pow(shard) % VERBS.len()];
                let waits = |shard: u32| {
                    let next = (shard + 1) % shards;
                    !forwarded(verb(next)).would_deadlock(&operation(verb(shard), "r", "e"))
                };
                let verbs: Vec<Verb> = (0..shards).map(verb).collect();
                assert!(!(0..shards).all(waits), "{verbs:?} wait for each other");
            }
        }
    }

    #[test]
    fn calls_that_must_not_wait_end_when_their_leader_is_forwarded() {
        for (position, leader) in VERBS.into_iter().enumerate() {
            let mut calls = InFlightCalls::default();
            register(&mut calls, Caller::Call(CallId(1)), operation(leader, "r", "e"));
            // The same reservation with another event, and another reservation of the event.
            register(&mut calls, Caller::INTERNAL, operation(leader, "r", "other"));
            register(&mut calls, Caller::INTERNAL, operation(leader, "s", "e"));
            for (shard, verb) in VERBS.into_iter().enumerate() {
                for (reservation, event) in [("r", "e"), ("r", "other"), ("s", "e")] {
                    let waiter = operation(verb, reservation, event);
                    assert!(!register(&mut calls, Caller::of_shard(shard, &waiter), waiter));
                    // A caller of this shard waits in any case: its call waits for nothing else.
                    let waiter = operation(verb, reservation, event);
                    assert!(!register(&mut calls, Caller::Call(CallId(9)), waiter));
                }
            }
            assert_eq!((calls.calls(), calls.by_event[&event("e")]), (33, 22));

            let ended = calls.mark_forwarded(&id("r"), &event("e"));
            let ended: Vec<Verb> = ended
                .into_iter()
                .map(|caller| match caller {
                    Caller::Shard(origin) => VERBS[origin.shard],
                    Caller::Call(_) => panic!("a call of this shard has ended"),
                })
                .collect();
            assert_eq!(ended, VERBS[..=position], "behind {leader:?}");
            assert_eq!(calls.calls(), 33 - ended.len());
            assert_eq!(calls.by_event[&event("e")], 22 - ended.len());
            assert_eq!(calls.by_event[&event("other")], 11);
            // Once more: nothing is left to end.
            assert!(calls.mark_forwarded(&id("r"), &event("e")).is_empty());

            // The others are still there, in their order.
            let call = calls.remove(&id("r"), &event("e")).expect("in flight");
            let left: Vec<Verb> = call.waiters.iter().map(|waiter| waiter.operation.verb).collect();
            let kept = |at| 1 + usize::from(at > position);
            let expected = VERBS.iter().enumerate().flat_map(|(at, verb)| vec![*verb; kept(at)]);
            assert_eq!(left, expected.collect::<Vec<_>>());
            for (reservation, of) in [("r", "other"), ("s", "e")] {
                let call = calls.remove(&id(reservation), &event(of)).expect("in flight");
                assert_eq!(call.waiters.len(), 10);
            }
            assert_eq!((calls.calls(), calls.is_empty()), (0, true));
        }
    }

    #[test]
    fn forwarding_a_call_that_has_ended_changes_nothing() {
        let mut calls = forwarded(Verb::Commit);
        assert!(calls.mark_forwarded(&id("other"), &event("e")).is_empty());
        assert!(calls.mark_forwarded(&id("r"), &event("other")).is_empty());
        assert_eq!(calls.calls(), 1);
        // The next call of the reservation is a new leader, which this shard executes.
        calls.remove(&id("r"), &event("e")).expect("in flight");
        register(&mut calls, Caller::INTERNAL, operation(Verb::Commit, "r", "e"));
        assert!(!calls.would_deadlock(&operation(Verb::Commit, "r", "e")));
    }
}
