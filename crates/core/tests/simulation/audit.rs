//! The promises, checked at every answer and at the end of a run.

mod refusals;
mod stock;
mod told;

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

use super::broken::{Broken, must};
use super::clients::{Call, What};
use super::model::{ALIEN, INVALID, POISON, Store, TOKEN_MEMORY, says};
use super::scenario::{AHEAD_MAX, Scenario};
use super::world::ShardRef;

/// The clock of a process that is not ahead.
pub(crate) fn unix(now: Micros) -> UnixMillis {
    UnixMillis(1_760_000_000_000 + now.0 / 1_000)
}

#[derive(Debug)]
enum State {
    Waits {
        process: usize,
    },
    Answered(Option<Answer>),
    /// Its process crashed.
    Lost,
}

/// What the clients of one reservation know.
#[derive(Debug, Default)]
struct Known {
    calls: Vec<CallId>,
    /// Some call was lost: something may be so that nobody was told of.
    lost: bool,
    /// Some answer said that a record exists.
    told: bool,
    /// States that some call was told to have been reached.
    reached: BTreeSet<&'static str>,
}

/// See the module's head.
pub(crate) struct Audit {
    /// By call number.
    calls: BTreeMap<u64, (Call, State)>,
    reservations: BTreeMap<ReservationId, Known>,
    late: LateCommit,
    latch: Micros,
    /// No answer may blame the store or a queue.
    calm: bool,
    /// A definite refusal may be wrong about an earlier try.
    nothing_done_is_likely: bool,
    torn_reads: bool,
    /// Holds end sooner than a few writes take: who waits for a seat finds it held and over, again
    /// and again.
    hasty: bool,
    /// How long before a question about units the read may have begun that answers it.
    staleness: Micros,
    stocks: stock::Stocks,
}

impl Audit {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            calls: BTreeMap::new(),
            reservations: BTreeMap::new(),
            late: scenario.late,
            latch: scenario.latch,
            calm: scenario.is_calm(),
            nothing_done_is_likely: scenario.ghosts || scenario.token_memory < TOKEN_MEMORY,
            torn_reads: scenario.torn_reads,
            hasty: scenario.hold_for <= Micros::from_millis(1),
            staleness: scenario.read_staleness,
            stocks: stock::Stocks::default(),
        }
    }

    pub(crate) fn taken(&mut self, id: CallId, process: usize, call: Call) {
        if let What::Write(_, reservation) = &call.what {
            let known = self.reservations.entry(reservation.clone()).or_default();
            known.calls.push(id);
        }
        self.calls.insert(id.0, (call, State::Waits { process }));
    }

    /// The calls that were waiting in a process that is no more.
    pub(crate) fn crashed(&mut self, crashed: usize) -> Vec<Call> {
        let mut lost = Vec::new();
        for (call, state) in self.calls.values_mut() {
            if matches!(state, State::Waits { process } if *process == crashed) {
                *state = State::Lost;
                lost.push(call.clone());
                if let What::Write(_, reservation) = &call.what {
                    let known = self.reservations.entry(reservation.clone()).or_default();
                    known.lost = true;
                }
            }
        }
        lost
    }

    pub(crate) fn answer_to(&self, id: CallId) -> Option<Answer> {
        match self.calls.get(&id.0) {
            Some((_, State::Answered(answer))) => answer.clone(),
            _ => None,
        }
    }

    /// Marks the call answered: exactly once.
    fn close(&mut self, id: CallId, answer: Option<Answer>) -> Result<Call, Broken> {
        let Some((call, state)) = self.calls.get_mut(&id.0) else {
            return Err(Broken(format!("{id:?} never called and got {answer:?}")));
        };
        must!(
            matches!(state, State::Waits { .. }),
            "{id:?} is {state:?} and got {answer:?}"
        );
        *state = State::Answered(answer);
        Ok(call.clone())
    }

    pub(crate) fn answered(
        &mut self,
        id: CallId,
        answer: &Answer,
        now: Micros,
        store: &Store,
    ) -> Result<Call, Broken> {
        let call = self.close(id, Some(answer.clone()))?;
        let What::Write(verb, reservation) = &call.what else {
            return Err(Broken(format!("{id:?} only asked and got {answer:?}")));
        };
        let explained = self.explained(&call, *verb, reservation, answer, now, store);
        if let Answer::Rejected(refusal) = answer
            && !explained
        {
            self.refused(&call, *verb, reservation, refusal, now, store)?;
            return Ok(call);
        }
        must!(
            explained,
            "{call:?} got {answer:?} at {}, its record was {:?}",
            now.0,
            store.record_during(reservation, call.arrives, now)
        );
        self.reservations
            .entry(reservation.clone())
            .or_default()
            .remember(answer);
        Ok(call)
    }

    /// Whether the record says this: as it was at some instant between call and answer. A state
    /// that never changes but by an operator's hand may be told after that, from memory or by the
    /// write of an equal call.
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
        // A process's clock may be ahead, and the record's instants are its clock's.
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
        let confirmed = past.find(was_confirmed).map(|view| (&record.event, view));
        is(&record.view, ReservationState::Refunded)
            && confirmed.is_some()
            && says(ask, confirmed, unix(now), self.late).as_ref() == Some(answer)
    }

    fn calls_of(&self, reservation: &ReservationId) -> usize {
        self.reservations
            .get(reservation)
            .map_or(0, |known| known.calls.len())
    }

    // ---- What the shards hear of stock --------------------------------------------------------------

    pub(crate) fn read_begins(
        &mut self,
        at: ShardRef,
        event: &EventId,
        now: Micros,
        store: &Store,
    ) {
        self.stocks.read_begins(at, event, now, store);
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
        self.stocks.read_ends(at, event, failed, now, store);
    }

    pub(crate) fn forgets(&mut self, at: ShardRef, event: &EventId) {
        self.stocks.forgets(at, event);
    }

    pub(crate) fn sends(&mut self, transaction: &Transaction, now: Micros) {
        self.stocks.sends(transaction, now);
    }

    pub(crate) fn settles(
        &mut self,
        at: ShardRef,
        transaction: &Transaction,
        outcome: &TransactionOutcome,
        store: &Store,
    ) {
        self.stocks.settles(at, transaction, outcome, store);
    }

    pub(crate) fn is_told(
        &mut self,
        at: ShardRef,
        event: &EventId,
        reservation: &ReservationId,
        learned: &RecordView,
        store: &Store,
    ) {
        self.stocks.is_told(at, event, reservation, learned, store);
    }

    /// A new body carries only operations that some call in this process still waits for in time,
    /// and takes no more than was asked for.
    pub(crate) fn dispatched(
        &self,
        process: usize,
        transaction: &Transaction,
        now: Micros,
    ) -> Result<(), Broken> {
        for record in &transaction.records {
            let late = match (record.from, record.to) {
                (Some(ReservationState::Held), ReservationState::Confirmed) => {
                    (self.late == LateCommit::Reject) == (record.due == ExpiryCondition::Ahead)
                }
                (Some(ReservationState::Expired), _) => self.late == LateCommit::Reacquire,
                _ => true,
            };
            must!(late, "{record:?} although late commits are {:?}", self.late);
            if record.to == ReservationState::Expired || record.reservation.is_slip() {
                continue;
            }
            let calls = self.reservations.get(&record.reservation);
            let waits = calls.into_iter().flat_map(|k| &k.calls).any(|id| {
                self.calls.get(&id.0).is_some_and(|(call, state)| {
                    is_for(call, &transaction.event, record)
                        && call.deadline() > now
                        && matches!(state, State::Waits { process: p } if *p == process)
                })
            });
            must!(
                waits,
                "{} sent at {} and nobody waits for it in time",
                record.reservation,
                now.0
            );
        }
        Ok(())
    }

    /// When nothing is under way any more.
    pub(crate) fn at_rest(&self, store: &Store) -> Result<(), Broken> {
        for (id, (call, state)) in &self.calls {
            must!(
                !matches!(state, State::Waits { .. }),
                "call {id} was never answered: {call:?}"
            );
        }
        for (reservation, known) in &self.reservations {
            let record = store.record(reservation);
            must!(
                record.is_some() || !known.told,
                "{reservation} was answered and has no record"
            );
            let Some(record) = record else { continue };
            must!(!is_odd(reservation), "{reservation} cannot exist");
            must!(
                !is(&record.view, ReservationState::Held),
                "{reservation} is still held: {:?}",
                record.view
            );
            // Told that nothing was done, the clients went home: nothing may have been done.
            if known.lost || self.nothing_done_is_likely {
                continue;
            }
            for (_, view) in &record.past {
                let name = name_of(view.state);
                must!(
                    view.state == ReservationState::Expired || known.reached.contains(name),
                    "{reservation} came to be {name}, and no call was told so"
                );
            }
        }
        Ok(())
    }
}

impl Known {
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
        self.reached.insert(name_of(reached));
    }
}

fn is(view: &RecordView, state: ReservationState) -> bool {
    view.state == state
}

/// Whether `call` asks for what `record` writes.
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
    call.what == What::Write(verb, record.reservation.clone()) && call.event == *event && named
}

fn name_of(state: ReservationState) -> &'static str {
    match state {
        ReservationState::Held => "held",
        ReservationState::Confirmed => "confirmed",
        ReservationState::Released => "released",
        ReservationState::Expired => "expired",
        ReservationState::Refunded => "refunded",
    }
}

fn is_odd(reservation: &ReservationId) -> bool {
    [POISON, INVALID, ALIEN]
        .iter()
        .any(|prefix| reservation.as_str().starts_with(prefix))
}
