//! The promises, checked at every answer and at the end of a run.

use std::collections::BTreeMap;

use inventory_api::domain::answer::{Answer, Refusal};
use inventory_api::domain::effect::{Availability, CallId};
use inventory_api::domain::ids::{OrderId, ReservationId};
use inventory_api::domain::operation::Verb;
use inventory_api::domain::time::Micros;
use inventory_api::domain::transaction::{ReservationState, Transaction};
use inventory_api::limits;

use super::broken::{Broken, must};
use super::clients::{Call, What};
use super::model::{ALIEN, INVALID, POISON, Store, TOKEN_MEMORY};
use super::scenario::Scenario;

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
    order: Option<OrderId>,
    released: bool,
    /// Some call was lost: a record may exist that nobody was told of.
    lost: bool,
    /// Some answer said that a record exists.
    told: bool,
}

/// See the module's head.
pub(crate) struct Audit {
    /// By call number.
    calls: BTreeMap<u64, (Call, State)>,
    reservations: BTreeMap<ReservationId, Known>,
    /// No answer may blame the store or a queue.
    calm: bool,
    /// A definite refusal may be wrong about an earlier try.
    nothing_done_is_likely: bool,
    torn_reads: bool,
    /// Stock may come back after it was too little.
    restocked: bool,
}

impl Audit {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            calls: BTreeMap::new(),
            reservations: BTreeMap::new(),
            calm: scenario.is_calm(),
            nothing_done_is_likely: scenario.ghosts || scenario.token_memory < TOKEN_MEMORY,
            torn_reads: scenario.torn_reads,
            restocked: scenario.restocks > 0,
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
                    self.reservations
                        .entry(reservation.clone())
                        .or_default()
                        .lost = true;
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
        let due = store.answer_due(*verb, reservation, call.fingerprint());
        match answer {
            Answer::Refused(refusal) if !tells_of_record(refusal) => {
                self.refused(&call, reservation, refusal, now, store)?;
            }
            _ => {
                must!(
                    due.as_ref() == Some(answer),
                    "{reservation}: {verb:?} got {answer:?}, its record wants {due:?}"
                );
                self.remember(reservation, answer)?;
            }
        }
        Ok(call)
    }

    /// One outcome per reservation, for ever.
    fn remember(&mut self, reservation: &ReservationId, answer: &Answer) -> Result<(), Broken> {
        let known = self.reservations.entry(reservation.clone()).or_default();
        known.told = true;
        match answer {
            Answer::Confirmed { order } => {
                must!(
                    known.order.is_none_or(|first| first == *order),
                    "{reservation} has two orders"
                );
                known.order = Some(*order);
            }
            Answer::Released => known.released = true,
            Answer::Refused(_) => {}
        }
        must!(
            known.order.is_none() || !known.released,
            "{reservation} was answered confirmed and released"
        );
        Ok(())
    }

    fn refused(
        &self,
        call: &Call,
        reservation: &ReservationId,
        refusal: &Refusal,
        now: Micros,
        store: &Store,
    ) -> Result<(), Broken> {
        // Whoever repeats a call is told what became of it, not what became of the stock: it may
        // have been this very reservation that took the last of it. What takes none of that stock,
        // or takes what came back to it, may come between the refusal and its answer.
        if let Refusal::InsufficientInventory { .. } = refusal {
            let written = store.record(reservation);
            let took_it = written.is_some_and(|record| {
                let view = record.view;
                let confirmed = view.state == ReservationState::Confirmed;
                confirmed && view.fingerprint == call.fingerprint()
            });
            let may_be_later = self.restocked || !took_it;
            let written = written.map(|record| record.written);
            must!(
                written.is_none_or(|at| may_be_later && at > call.arrives),
                "{reservation}: {call:?} got {refusal:?}, but it exists since {written:?}"
            );
        }
        let (due, why) = match refusal {
            Refusal::InsufficientInventory { remaining } => {
                let qty = u64::from(call.qty);
                let mut seen = store.remaining_during(&call.event, call.arrives, now);
                let honest = if self.torn_reads {
                    seen.any(|held| held < qty)
                } else {
                    seen.any(|held| held == *remaining)
                };
                let commits = matches!(call.what, What::Write(Verb::Commit, _));
                (
                    honest && *remaining < qty && commits && store.exists(&call.event),
                    "it was never that short since the call came",
                )
            }
            Refusal::EventNotFound => (!store.exists(&call.event), "the event exists"),
            Refusal::DeadlineExceeded => (now >= call.deadline(), "there was time left"),
            Refusal::Internal => (is_odd(reservation), "it is a reservation like any other"),
            Refusal::Overloaded { .. } => (
                !self.calm || self.calls_of(reservation) > limits::CALLS_PER_RESERVATION_MAX,
                "no queue was full",
            ),
            Refusal::StoreBusy { .. } | Refusal::StoreUnavailable { .. } => {
                (!self.calm, "nothing was wrong")
            }
            _ => (false, "it tells of a record"),
        };
        must!(
            due,
            "{reservation}: {call:?} got {refusal:?} at {}, but {why}",
            now.0
        );
        Ok(())
    }

    fn calls_of(&self, reservation: &ReservationId) -> usize {
        self.reservations
            .get(reservation)
            .map_or(0, |known| known.calls.len())
    }

    pub(crate) fn checked(
        &mut self,
        id: CallId,
        result: &Result<Availability, Refusal>,
        now: Micros,
        store: &Store,
    ) -> Result<(), Broken> {
        let call = self.close(id, None)?;
        let due = match result {
            Ok(found) => {
                let mut seen = store.remaining_during(&call.event, call.arrives, now);
                (self.torn_reads || seen.any(|held| held == found.remaining))
                    && found.available == (found.remaining >= u64::from(call.qty))
            }
            Err(Refusal::EventNotFound) => !store.exists(&call.event),
            Err(
                Refusal::StoreBusy { .. }
                | Refusal::StoreUnavailable { .. }
                | Refusal::Overloaded { .. },
            ) => !self.calm,
            Err(_) => false,
        };
        must!(due, "{call:?} found {result:?} at {}", now.0);
        Ok(())
    }

    /// A new body carries only operations that some call in this process still waits for in time.
    pub(crate) fn dispatched(
        &self,
        process: usize,
        transaction: &Transaction,
        now: Micros,
    ) -> Result<(), Broken> {
        for record in &transaction.records {
            let verb = match record.state {
                ReservationState::Confirmed => Verb::Commit,
                ReservationState::Released => Verb::Release,
            };
            let what = What::Write(verb, record.reservation.clone());
            let calls = self.reservations.get(&record.reservation);
            let waits = calls.into_iter().flat_map(|k| &k.calls).any(|id| {
                self.calls.get(&id.0).is_some_and(|(call, state)| {
                    call.what == what
                        && call.fingerprint() == record.fingerprint
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
            // Told that nothing was done, the clients went home: nothing may have been done.
            must!(
                record.is_none() || known.told || known.lost || self.nothing_done_is_likely,
                "{reservation} exists, but every call was told that nothing was done"
            );
            must!(
                record.is_none() || !is_odd(reservation),
                "{reservation} cannot exist"
            );
        }
        Ok(())
    }
}

/// Refusals that rest on a record, as the successes do.
fn tells_of_record(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::IdempotencyConflict | Refusal::ReservationReleased | Refusal::ReservationCommitted
    )
}

fn is_odd(reservation: &ReservationId) -> bool {
    [POISON, INVALID, ALIEN]
        .iter()
        .any(|prefix| reservation.as_str().starts_with(prefix))
}
