//! The oracle: checks every answer against the history of the store, and the end of a run.
//!
//! An answer is right if it follows from the record, or from the stock, at some instant between the call and
//! the answer. The rules are written a second time here and in `model`: a mistake in the core's rules shows.

mod queries;
mod rejections;
mod stock;

use std::collections::{BTreeMap, BTreeSet};

use inventory_core::answer::{Answer, Rejection, ReleaseOutcome};
use inventory_core::effect::CallId;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::operation::{Selection, Verb};
use inventory_core::rules::LateCommit;
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{
    ExpiryCondition, RecordView, RecordWrite, ReservationState, StripesRead, Transaction,
    TransactionOutcome,
};

use super::clients::{Call, Request};
use super::model::{ALIEN, INVALID, POISON, Store, expected_answer};
use super::scenario::{AHEAD_MAX, Scenario};
use super::trace::state_name;
use super::violation::{Violation, ensure};
use super::world::ShardRef;

/// Wall-clock time of a process whose clock is exact.
pub(crate) fn unix(now: Micros) -> UnixMillis {
    UnixMillis(1_760_000_000_000 + now.0 / 1_000)
}

#[derive(Debug)]
enum OracleCallState {
    Waiting {
        process: usize,
    },
    Answered {
        at: Micros,
        answer: Option<Answer>,
    },
    /// The process crashed before it answered.
    Lost,
}

/// What the clients of one reservation have been answered.
#[derive(Debug, Default)]
struct ReservationHistory {
    calls: Vec<CallId>,
    /// A call was lost in a crash, or made before the run: its write may have been made without an answer.
    lost: bool,
    /// An answer said that a record exists.
    told: bool,
    /// States that an answer reported as reached.
    reached: BTreeSet<&'static str>,
}

/// See the module head.
pub(crate) struct Oracle {
    /// By call id.
    calls: BTreeMap<u64, (Call, OracleCallState)>,
    reservations: BTreeMap<ReservationId, ReservationHistory>,
    late: LateCommit,
    latch: Micros,
    /// No rejection for store errors or overload is allowed.
    fault_free: bool,
    members_change: bool,
    /// Queues may be too long, and are kept short for all callers once a call was rejected.
    flood: bool,
    /// A final rejection may be wrong about an earlier attempt.
    rejections_may_be_wrong: bool,
    /// A copy of a request may be executed after the request itself was cancelled, which no server can know.
    late_copies: bool,
    torn_reads: bool,
    /// A process has several shards: calls of one reservation may be forwarded to each other.
    forwards: bool,
    /// Processes that write to the same items.
    processes: usize,
    /// Holds expire within the time of a few writes: a buyer of such a seat may find it held and expired again
    /// and again.
    short_holds: bool,
    /// How long before a query about units the read that answers it may have begun.
    staleness: Micros,
    stock_views: stock::StockViews,
}

impl Oracle {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            calls: BTreeMap::new(),
            reservations: BTreeMap::new(),
            late: scenario.late,
            latch: scenario.latch,
            fault_free: scenario.is_fault_free(),
            members_change: scenario.membership.views > 0,
            flood: scenario.flood,
            rejections_may_be_wrong: scenario.ghosts || scenario.may_forget_tokens(),
            late_copies: scenario.ghosts && scenario.faults.echo > 0,
            torn_reads: scenario.torn_reads,
            forwards: scenario.processes.iter().any(|shards| *shards > 1),
            processes: scenario.processes.len(),
            short_holds: scenario.hold_for <= Micros::from_millis(1),
            staleness: scenario.read_staleness,
            stock_views: stock::StockViews::default(),
        }
    }

    /// A hold of this reservation was stored before the run.
    pub(crate) fn was_held_before(&mut self, reservation: &ReservationId) {
        self.reservations.entry(reservation.clone()).or_default().lost = true;
    }

    pub(crate) fn taken(&mut self, id: CallId, process: usize, call: Call) {
        if let Request::Write(_, reservation) = &call.what {
            let known = self.reservations.entry(reservation.clone()).or_default();
            known.calls.push(id);
        }
        self.calls.insert(id.0, (call, OracleCallState::Waiting { process }));
    }

    /// Ends the calls that waited in a crashed process, and returns them.
    pub(crate) fn crashed(&mut self, crashed: usize) -> Vec<Call> {
        let mut lost = Vec::new();
        for (call, state) in self.calls.values_mut() {
            if matches!(state, OracleCallState::Waiting { process } if *process == crashed) {
                *state = OracleCallState::Lost;
                lost.push(call.clone());
                if let Request::Write(_, reservation) = &call.what {
                    let known = self.reservations.entry(reservation.clone()).or_default();
                    known.lost = true;
                }
            }
        }
        lost
    }

    pub(crate) fn answer_to(&self, id: CallId) -> Option<Answer> {
        match self.calls.get(&id.0) {
            Some((_, OracleCallState::Answered { answer, .. })) => answer.clone(),
            _ => None,
        }
    }

    /// Records the answer of a call, which must be its only one.
    fn close(&mut self, id: CallId, answer: Option<Answer>, at: Micros) -> Result<Call, Violation> {
        let Some((call, state)) = self.calls.get_mut(&id.0) else {
            return Err(Violation(format!(
                "an answer to a call that was never made: {id:?} {answer:?}"
            )));
        };
        ensure!(
            matches!(state, OracleCallState::Waiting { .. }),
            "a second answer to one call: {id:?} is {state:?} and got {answer:?}"
        );
        *state = OracleCallState::Answered { at, answer };
        Ok(call.clone())
    }

    pub(crate) fn answered(
        &mut self,
        id: CallId,
        answer: &Answer,
        now: Micros,
        store: &Store,
    ) -> Result<Call, Violation> {
        let call = self.close(id, Some(answer.clone()), now)?;
        let Request::Write(verb, reservation) = &call.what else {
            return Err(Violation(format!("a query answered as a write: {id:?} got {answer:?}")));
        };
        let explained = self.explained(&call, *verb, reservation, answer, now, store);
        if let Answer::Rejected(refusal) = answer
            && !explained
        {
            self.check_rejection((id, &call), *verb, reservation, refusal, now, store)?;
            return Ok(call);
        }
        ensure!(
            explained,
            "the answer does not follow from the record: {call:?} got {answer:?} at {}, its record was {:?}",
            now.0,
            store.record_during(reservation, call.arrives, now)
        );
        self.reservations.entry(reservation.clone()).or_default().remember(answer);
        Ok(call)
    }

    /// Whether the answer follows from the record at some instant between call and answer. A state that only an
    /// operator can change may be answered later too, from the cache or by the write of an equal call.
    fn explained(
        &self,
        call: &Call,
        verb: Verb,
        reservation: &ReservationId,
        answer: &Answer,
        now: Micros,
        store: &Store,
    ) -> bool {
        let ask = call.ask(verb, reservation);
        // The clock of a process may be ahead, and the times in the record come from that clock.
        let clock = |at: Micros| match at == now {
            true => UnixMillis(unix(at).0 + AHEAD_MAX),
            false => unix(at),
        };
        if store.explains(ask, answer, (call.arrives, now), clock, self.late) {
            return true;
        }
        let Some(record) = store.record(reservation) else {
            return false;
        };
        let was_confirmed = |view: &&_| is(view, ReservationState::Confirmed);
        let mut past = record.past.iter().map(|(_, view)| view);
        // The last one: a payment may have been added.
        let confirmed = past.rfind(was_confirmed).map(|view| (&record.event, view));
        is(&record.view, ReservationState::Refunded)
            && confirmed.is_some()
            && expected_answer(ask, confirmed, unix(now), self.late).as_ref() == Some(answer)
    }

    fn calls_of(&self, reservation: &ReservationId) -> usize {
        self.reservations.get(reservation).map_or(0, |known| known.calls.len())
    }

    /// Whether another call of the reservation was in progress at some instant since the arrival of this one.
    fn has_concurrent_call(
        &self,
        (id, call): (CallId, &Call),
        reservation: &ReservationId,
    ) -> bool {
        let Some(known) = self.reservations.get(reservation) else { return false };
        known.calls.iter().filter(|other| **other != id).any(|other| {
            match self.calls.get(&other.0) {
                Some((_, OracleCallState::Answered { at, .. })) => *at >= call.arrives,
                other => other.is_some(),
            }
        })
    }

    /// Whether no other call can have written the record since the arrival of this one: none was in progress, and none
    /// before it ended without a known outcome.
    fn decides_alone(&self, (id, call): (CallId, &Call), reservation: &ReservationId) -> bool {
        let Some(known) = self.reservations.get(reservation) else { return true };
        let has_known_outcome = |other: &CallId| match self.calls.get(&other.0) {
            Some((_, OracleCallState::Answered { answer: Some(Answer::Rejected(why)), .. })) => {
                // A final rejection may be wrong about an attempt that arrives later.
                !self.rejections_may_be_wrong
                    && !matches!(
                        why,
                        Rejection::StoreUnavailable { .. } | Rejection::OutcomeUnknown { .. }
                    )
            }
            Some((_, OracleCallState::Answered { .. })) => true,
            _ => false,
        };
        let mut others = known.calls.iter().filter(|other| **other != id);
        !known.lost
            && !self.late_copies
            && !self.has_concurrent_call((id, call), reservation)
            && others.all(has_known_outcome)
    }

    // ---- What the shards learn about stock ----------------------------------------------------------

    pub(crate) fn read_begins(
        &mut self,
        at: ShardRef,
        event: &EventId,
        now: Micros,
        store: &Store,
    ) {
        self.stock_views.read_begins(at, event, now, store);
    }

    pub(crate) fn read_ends(
        &mut self,
        at: ShardRef,
        event: &EventId,
        read: &StripesRead,
        now: Micros,
        store: &Store,
    ) {
        let failed = !matches!(read, StripesRead::Found(_));
        self.stock_views.read_ends(at, event, failed, now, store);
    }

    pub(crate) fn forgets(&mut self, at: ShardRef, event: &EventId) {
        self.stock_views.forgets(at, event);
    }

    pub(crate) fn sends(&mut self, transaction: &Transaction, now: Micros) {
        self.stock_views.sends(transaction, now);
    }

    pub(crate) fn settles(
        &mut self,
        at: ShardRef,
        transaction: &Transaction,
        outcome: &TransactionOutcome,
        store: &Store,
    ) {
        self.stock_views.settles(at, transaction, outcome, store);
    }

    pub(crate) fn forward_answered(
        &mut self,
        at: ShardRef,
        event: &EventId,
        reservation: &ReservationId,
        learned: &RecordView,
        store: &Store,
    ) {
        self.stock_views.forward_answered(at, event, reservation, learned, store);
    }

    /// A new transaction contains only operations that a call of this process still waits for in time, and takes
    /// no more than the call requested.
    pub(crate) fn dispatched(
        &self,
        process: usize,
        transaction: &Transaction,
        now: Micros,
    ) -> Result<(), Violation> {
        for record in &transaction.records {
            let late = match (record.from, record.to) {
                (Some(ReservationState::Held), ReservationState::Confirmed) => {
                    (self.late == LateCommit::Reject) == (record.due == ExpiryCondition::NotExpired)
                }
                (Some(ReservationState::Expired), _) => self.late == LateCommit::Reacquire,
                _ => true,
            };
            ensure!(
                late,
                "a late commit against the setting: {record:?} although late commits are {:?}",
                self.late
            );
            if record.to == ReservationState::Expired || record.reservation().is_release_record() {
                continue;
            }
            let calls = self.reservations.get(record.reservation());
            let waits = calls.into_iter().flat_map(|k| &k.calls).any(|id| {
                self.calls.get(&id.0).is_some_and(|(call, state)| {
                    is_for(call, &transaction.event, record)
                        && call.deadline() > now
                        && matches!(state, OracleCallState::Waiting { process: p } if *p == process)
                })
            });
            ensure!(waits, "a write that no call waits for: {} at {}", record.reservation(), now.0);
        }
        Ok(())
    }

    /// Checks the state after the last step.
    pub(crate) fn at_rest(&self, store: &Store) -> Result<(), Violation> {
        for (id, (call, state)) in &self.calls {
            ensure!(
                !matches!(state, OracleCallState::Waiting { .. }),
                "a call was never answered: {id} {call:?}"
            );
        }
        for (reservation, known) in &self.reservations {
            let record = store.record(reservation);
            ensure!(
                record.is_some() || !known.told,
                "an answered reservation has no record: {reservation}"
            );
            let Some(record) = record else { continue };
            ensure!(!is_odd(reservation), "a record that the store rejects: {reservation}");
            ensure!(
                !is(&record.view, ReservationState::Held),
                "a hold is left at rest: {reservation} {:?}",
                record.view
            );
            // A client that was answered "nothing was done" does not retry, so nothing may have been done.
            if known.lost || self.rejections_may_be_wrong {
                continue;
            }
            for (_, view) in &record.past {
                let name = state_name(view.state);
                ensure!(
                    view.state == ReservationState::Expired || known.reached.contains(name),
                    "a state that no answer reported: {reservation} is {name}"
                );
            }
        }
        Ok(())
    }
}

impl ReservationHistory {
    fn remember(&mut self, answer: &Answer) {
        self.told |= !matches!(answer, Answer::Rejected(Rejection::ReservationNotFound));
        let reached = match answer {
            Answer::Held { .. } => ReservationState::Held,
            Answer::Confirmed { .. } => ReservationState::Confirmed,
            Answer::Released {
                how: ReleaseOutcome::Released | ReleaseOutcome::NoReservation,
                ..
            } => ReservationState::Released,
            Answer::Refunded => ReservationState::Refunded,
            _ => return,
        };
        self.reached.insert(state_name(reached));
    }
}

fn is(view: &RecordView, state: ReservationState) -> bool {
    view.state == state
}

/// Whether `call` requests what `record` writes.
fn is_for(call: &Call, event: &EventId, record: &RecordWrite) -> bool {
    let verb = match record.to {
        ReservationState::Held => Verb::Hold,
        ReservationState::Confirmed => Verb::Commit,
        ReservationState::Released => Verb::Release,
        ReservationState::Expired => Verb::Expire,
        ReservationState::Refunded => Verb::Refund,
    };
    let named = match (&call.selection, &record.seats) {
        (Selection::AsRecorded, _) => {
            record.from.is_some() || record.to == ReservationState::Released
        }
        (Selection::Quantity(qty), _) => *qty == record.qty,
        (Selection::Seats(selection), Some(seats)) => {
            selection.len() == seats.len() && selection.iter().all(|seat| seats.contains(seat))
        }
        (Selection::Seats(selection), None) => selection.len() == record.qty as usize,
    };
    let paid = verb != Verb::Commit || record.operation.payment_intent == call.payment;
    call.what == Request::Write(verb, record.reservation().clone())
        && call.event == *event
        && named
        && paid
}

fn is_odd(reservation: &ReservationId) -> bool {
    [POISON, INVALID, ALIEN].iter().any(|prefix| reservation.as_str().starts_with(prefix))
}
