//! Checks of the answer to an entry, and of the pool at rest.

use std::collections::BTreeMap;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::ReservationId;
use inventory_core::lane::Completion;
use inventory_core::limits;
use inventory_core::operation::{Selection, Verb};
use inventory_core::transaction::{
    ActionOutcome, ReservationState, Transaction, TransactionOutcome,
};

use super::{Entry, PoolHarness, unix};
use crate::model::{INVALID, POISON};
use crate::violation::{Violation, ensure};

impl PoolHarness {
    pub(super) fn settled(&mut self, settled: Completion) -> Result<(), Violation> {
        let Completion { reservation, answer, record: learned, is_own_write } = settled;
        let Some(number) = self.waiting.remove(&reservation) else {
            return Err(Violation(format!("{reservation} was settled twice")));
        };
        if let Some(learned) = &learned {
            ensure!(
                self.store.was(&reservation, learned),
                "{reservation} learned {learned:?}, which never was"
            );
        }
        ensure!(
            learned.is_some() || !is_own_write,
            "{reservation} was written and nothing is learned"
        );
        self.judge(number, &answer)?;
        self.entries[number].answer = Some(answer);
        Ok(())
    }

    pub(super) fn judge(&self, number: usize, answer: &Answer) -> Result<(), Violation> {
        let entry = &self.entries[number];
        let due = match answer {
            Answer::Rejected(Rejection::HoldExpired) if self.is_gone(entry) => true,
            Answer::Rejected(refusal) if !tells_of_record(refusal) => {
                self.refused(number, refusal)?
            }
            _ => self.store.explains(
                self.ask(entry),
                answer,
                (entry.arrived, self.now),
                unix,
                self.late,
            ),
        };
        ensure!(due, "{entry:?} got {answer:?} at {:?}", self.now);
        Ok(())
    }

    fn refused(&self, number: usize, refusal: &Rejection) -> Result<bool, Violation> {
        let entry = &self.entries[number];
        let odd = [POISON, INVALID];
        Ok(match refusal {
            Rejection::InsufficientInventory { remaining } => {
                self.first_come(number)?;
                let mut seen = self.store.remaining_during(&self.event, entry.arrived, self.now);
                matches!(entry.operation.verb, Verb::Hold | Verb::Commit)
                    && self.had(entry, None)
                    && *remaining < units(entry)
                    && seen.any(|held| held == *remaining)
            }
            Rejection::EventClosed => {
                matches!(entry.operation.verb, Verb::Hold | Verb::Commit)
                    && self.store.closed_at(&self.event).is_some()
                    && (self.had(entry, None) || self.had(entry, Some(ReservationState::Expired)))
            }
            Rejection::DeadlineExceeded => entry.operation.deadline <= self.now,
            Rejection::StoreBusy { .. } => !self.put_off.is_empty(),
            Rejection::StoreUnavailable { .. } => self.refused || !self.unresolved.is_empty(),
            Rejection::Overloaded { .. } => {
                // Or the queue is too long for the entry: rejected on arrival, with a time to wait, and never for an
                // entry that returns units.
                let gives =
                    matches!(entry.operation.verb, Verb::Release | Verb::Expire | Verb::Refund);
                let waits = !self.in_flight.is_empty() || self.pool.wake_at().is_some();
                let never_was = self.had(entry, None);
                let at_the_door = entry.arrived == self.now && waits && (!gives || never_was);
                self.pool.depth() >= limits::LANE_QUEUE_MAX || at_the_door
            }
            Rejection::Internal => {
                odd.iter().any(|p| entry.operation.reservation.as_str().starts_with(p))
            }
            _ => false,
        })
    }

    /// Whether the commit of an expired hold found too little to take again.
    fn is_gone(&self, entry: &Entry) -> bool {
        let short = |units: u64| {
            let mut seen = self.store.remaining_during(&self.event, entry.arrived, self.now);
            seen.any(|held| held < units)
        };
        entry.operation.verb == Verb::Commit
            && self.had(entry, Some(ReservationState::Expired))
            && short(units(entry))
    }

    /// Whether the record was in this state, or missing, since the entry arrived.
    fn had(&self, entry: &Entry, state: Option<ReservationState>) -> bool {
        let id = &entry.operation.reservation;
        let seen = self.store.record_during(id, entry.arrived, self.now);
        seen.iter().any(|record| record.map(|(_, view)| view.state) == state)
    }

    /// Over one stripe, no later entry got as many units as this one was rejected for.
    fn first_come(&self, number: usize) -> Result<(), Violation> {
        if self.shape.stripes > 1 {
            return Ok(());
        }
        let refused = &self.entries[number];
        let later = self.entries[number..].iter().find(|later| {
            let served =
                matches!(later.answer, Some(Answer::Confirmed { .. } | Answer::Held { .. }));
            units(later) == units(refused) && !later.repeated && served
        });
        ensure!(later.is_none(), "{later:?} was served before {refused:?}");
        Ok(())
    }

    pub(super) fn at_rest(&self) -> Result<(), Violation> {
        ensure!(self.pool.is_idle() && self.pool.depth() == 0, "not idle at rest: {:?}", self.pool);
        ensure!(self.waiting.is_empty(), "never answered: {:?}", self.waiting);
        let unanswered = |entry: &&Entry| entry.answer.is_none() && !entry.returned;
        let unanswered = self.entries.iter().find(unanswered);
        ensure!(unanswered.is_none(), "never answered: {unanswered:?}");
        self.store.check_all_conservation()?;
        let tells = |answer: &Answer| match answer {
            Answer::Rejected(refusal) => tells_of_record(refusal),
            _ => true,
        };
        let mut answered: BTreeMap<&ReservationId, bool> = BTreeMap::new();
        for entry in &self.entries {
            let answered = answered.entry(&entry.operation.reservation).or_default();
            // An entry that came back for its record got the answer from it.
            *answered |= entry.answer.as_ref().is_some_and(tells);
        }
        for (reservation, answered) in answered {
            let exists = self.store.record(reservation).is_some();
            let came_back =
                |entry: &Entry| entry.operation.reservation == *reservation && entry.returned;
            ensure!(
                exists == answered || (exists && self.entries.iter().any(came_back)),
                "{reservation} exists: {exists}, its callers were answered so: {answered}"
            );
        }
        Ok(())
    }
}

/// The units of the reservation.
fn units(entry: &Entry) -> u64 {
    match &entry.selection {
        Selection::Quantity(qty) => u64::from(*qty),
        Selection::Seats(seats) => seats.len() as u64,
        Selection::AsRecorded => 0,
    }
}

/// Whether the store asks for a pause with this outcome. Nodes that expire the same hold meet all the time, which
/// alone delays no sale.
pub(super) fn puts_off(outcome: &TransactionOutcome, sent: &Transaction) -> bool {
    let TransactionOutcome::Cancelled(reasons) = outcome else {
        return is_busy(outcome);
    };
    let (of_stripes, rest) = reasons.split_at(sent.stripes.len().min(reasons.len()));
    let (of_records, mut of_seats) = rest.split_at(sent.records.len().min(rest.len()));
    let mut collided = of_stripes.contains(&ActionOutcome::Conflict);
    for (write, of_record) in sent.records.iter().zip(of_records) {
        let seats = write.seats_moved().len().min(of_seats.len());
        let (own, others) = of_seats.split_at(seats);
        of_seats = others;
        // An entry that leaves for another reason is not sent again.
        let leaves = |reason: &ActionOutcome| {
            matches!(reason, ActionOutcome::Seat(_) | ActionOutcome::Invalid)
        };
        let stays = match of_record {
            ActionOutcome::Fine => !own.iter().any(leaves),
            other => *other == ActionOutcome::Conflict,
        };
        let conflicts =
            *of_record == ActionOutcome::Conflict || own.contains(&ActionOutcome::Conflict);
        collided |= stays && conflicts && write.to != ReservationState::Expired;
    }
    reasons.len() != sent.action_count()
        || collided
        || reasons.contains(&ActionOutcome::Throttled)
        || reasons.iter().all(|reason| *reason == ActionOutcome::Fine)
}

/// Whether the store was too busy for an entry.
pub(super) fn is_busy(outcome: &TransactionOutcome) -> bool {
    match outcome {
        TransactionOutcome::Unknown
        | TransactionOutcome::Conflict
        | TransactionOutcome::Throttled => true,
        TransactionOutcome::Cancelled(reasons) => {
            let busy = |reason: &ActionOutcome| {
                matches!(reason, ActionOutcome::Conflict | ActionOutcome::Throttled)
            };
            reasons.iter().any(busy)
        }
        TransactionOutcome::Committed
        | TransactionOutcome::Rejected
        | TransactionOutcome::Refused => false,
    }
}

fn tells_of_record(refusal: &Rejection) -> bool {
    matches!(
        refusal,
        Rejection::IdempotencyConflict
            | Rejection::PaymentConflict { .. }
            | Rejection::ReservationReleased
            | Rejection::ReservationCommitted
            | Rejection::HoldExpired
            | Rejection::ReservationNotFound
            | Rejection::ReservationNotConfirmed
    )
}
