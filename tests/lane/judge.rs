//! What a member may be told, and what must hold when the lane rests.

use std::collections::BTreeMap;

use inventory_api::domain::answer::{Answer, Refusal};
use inventory_api::domain::ids::ReservationId;
use inventory_api::domain::lane::Settled;
use inventory_api::domain::operation::Verb;
use inventory_api::domain::transaction::{Outcome, Reason};
use inventory_api::limits;

use super::super::broken::{Broken, must};
use super::super::model::{INVALID, POISON};
use super::Bench;

impl Bench {
    pub(super) fn settled(&mut self, settled: Settled) -> Result<(), Broken> {
        let Settled {
            reservation,
            answer,
            learned,
        } = settled;
        let Some(number) = self.waiting.remove(&reservation) else {
            return Err(Broken(format!("{reservation} was settled twice")));
        };
        let stored = self.store.record(&reservation).map(|record| record.view);
        must!(
            learned.is_none() || learned == stored,
            "{reservation} learned {learned:?}, stored is {stored:?}"
        );
        self.judge(number, &answer)?;
        self.entries[number].answer = Some(answer);
        Ok(())
    }

    fn judge(&self, number: usize, answer: &Answer) -> Result<(), Broken> {
        let entry = &self.entries[number];
        let due = self
            .store
            .answer_due(entry.verb, &entry.reservation, entry.fingerprint);
        let odd = [POISON, INVALID];
        let held = match answer {
            Answer::Refused(refusal) if !tells_of_record(refusal) => match refusal {
                Refusal::InsufficientInventory { remaining } => {
                    must!(
                        due.is_none(),
                        "{entry:?} is sold out, but its record says {due:?}"
                    );
                    self.first_come(number)?;
                    let mut seen =
                        self.store
                            .remaining_during(&self.event, entry.arrived, self.now);
                    entry.verb == Verb::Commit
                        && *remaining < u64::from(entry.qty)
                        && seen.any(|held| held == *remaining)
                }
                Refusal::DeadlineExceeded => entry.deadline <= self.now,
                Refusal::StoreBusy { .. } => self.put_off,
                Refusal::StoreUnavailable { .. } => self.refused,
                Refusal::Overloaded { .. } => self.lane.depth() >= limits::LANE_QUEUE_MAX,
                Refusal::Internal => odd
                    .iter()
                    .any(|p| entry.reservation.as_str().starts_with(p)),
                _ => false,
            },
            _ => due.as_ref() == Some(answer),
        };
        must!(held, "{entry:?} got {answer:?} at {:?}", self.now);
        Ok(())
    }

    /// Over one stripe, nobody who came later has got as many units as this one is refused.
    fn first_come(&self, number: usize) -> Result<(), Broken> {
        if self.stripes > 1 {
            return Ok(());
        }
        let refused = &self.entries[number];
        let later = self.entries[number..].iter().find(|later| {
            later.qty == refused.qty
                && !later.repeated
                && matches!(later.answer, Some(Answer::Confirmed { .. }))
        });
        must!(later.is_none(), "{later:?} was served before {refused:?}");
        Ok(())
    }

    pub(super) fn at_rest(&self) -> Result<(), Broken> {
        must!(
            self.lane.is_idle() && self.lane.depth() == 0,
            "not idle at rest: {:?}",
            self.lane
        );
        must!(
            self.waiting.is_empty(),
            "never answered: {:?}",
            self.waiting
        );
        self.store.conserved_in_full()?;
        let tells = |answer: &Answer| match answer {
            Answer::Confirmed { .. } | Answer::Released => true,
            Answer::Refused(refusal) => tells_of_record(refusal),
        };
        let mut told: BTreeMap<&ReservationId, bool> = BTreeMap::new();
        for entry in &self.entries {
            *told.entry(&entry.reservation).or_default() |=
                entry.answer.as_ref().is_some_and(tells);
        }
        for (reservation, told) in told {
            let exists = self.store.record(reservation).is_some();
            must!(
                exists == told,
                "{reservation} exists: {exists}, its callers were told so: {told}"
            );
        }
        Ok(())
    }
}

/// Whether a store that says this wants to be left alone for a while.
pub(super) fn puts_off(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Unknown | Outcome::Conflict | Outcome::Throttled => true,
        Outcome::Cancelled(reasons) => {
            let busy = |reason: &Reason| matches!(reason, Reason::Conflict | Reason::Throttled);
            reasons.iter().any(busy) || reasons.iter().all(|reason| *reason == Reason::Fine)
        }
        Outcome::Committed | Outcome::Rejected | Outcome::Refused => false,
    }
}

fn tells_of_record(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::IdempotencyConflict | Refusal::ReservationReleased | Refusal::ReservationCommitted
    )
}
