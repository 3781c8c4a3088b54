//! Checks after the last step.

use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::EventId;
use inventory_core::limits;
use inventory_core::operation::{RecordExpectation, Selection, Verb};
use inventory_core::time::Micros;

use super::super::clients::{Call, Request};
use super::super::violation::{Violation, ensure};
use super::{ShardRef, World};

impl World {
    pub(super) fn idle(&self) -> Result<(), Violation> {
        for (number, process) in self.processes.iter().enumerate() {
            for (shard, at) in process.shards.iter().enumerate() {
                let at = &at.engine;
                ensure!(
                    at.is_idle() && at.calls_in_flight() == 0 && at.operations_in_pools() == 0,
                    "a shard is not idle at rest: {number}/{shard}, {} in flight, {} in lanes",
                    at.calls_in_flight(),
                    at.operations_in_pools()
                );
                ensure!(
                    at.poll_timeout().is_none(),
                    "a timer is left at rest: shard {number}/{shard}"
                );
            }
        }
        ensure!(
            self.internal.is_empty(),
            "an internal call was never answered: {:?}",
            self.internal
        );
        Ok(())
    }

    /// All stock is sellable: at rest, new commits buy every remaining unit and seat, and then the event is sold
    /// out.
    pub(super) fn sell_the_rest(&mut self) -> Result<(), Violation> {
        let events: Vec<EventId> = self.scenario.events.iter().map(|(e, _)| e.clone()).collect();
        let mut bought = 0;
        // Returned stock may be answered as sold out until the latch ends.
        self.now = self.now.plus(self.scenario.latch).plus(Micros(1));
        for event in events {
            loop {
                let left = match self.store.is_seated(&event) {
                    true => self.store.free_throughout(&event, None, self.now, self.now) as u64,
                    false => self.store.remaining(&event),
                };
                let qty = left.clamp(1, u64::from(limits::QTY_MAX_DEFAULT)) as u32;
                let answer = self.buy(&event, qty, bought)?;
                bought += 1;
                let closed = self.store.closed_at(&event).is_some();
                let due = match &answer {
                    Answer::Rejected(Rejection::EventClosed) => closed,
                    Answer::Rejected(Rejection::InsufficientInventory { remaining: 0 }) => {
                        left == 0
                    }
                    // A write of seats has no condition that notices a closed event.
                    Answer::Confirmed { .. } => {
                        left > 0 && (!closed || self.store.is_seated(&event))
                    }
                    _ => false,
                };
                ensure!(
                    due,
                    "remaining stock cannot be sold: {left} of {event}, a buyer of {qty} got {answer:?}"
                );
                // A large stock is checked by its first units and by its sum.
                if left == 0 || bought > 40 || closed {
                    break;
                }
            }
        }
        Ok(())
    }

    fn buy(&mut self, event: &EventId, qty: u32, number: u32) -> Result<Answer, Violation> {
        let id = format!("rest-{number}").parse().expect("legal");
        let call = Call {
            what: Request::Write(Verb::Commit, id),
            event: event.clone(),
            selection: Selection::Quantity(qty),
            section: None,
            payment: "",
            hold_for: Micros(0),
            expectation: RecordExpectation::Absent,
            arrives: self.now,
            patience: Micros::from_millis(60_000),
            tries: 0,
        };
        let process = number as usize % self.processes.len();
        let shards = self.processes[process].shards.len();
        let at = ShardRef {
            process,
            shard: (number as usize / 2) % shards,
            life: self.processes[process].life,
        };
        let id = self.submit(at, call)?;
        self.until_rest()?;
        let answer = self.oracle.answer_to(id);
        answer.ok_or_else(|| Violation(format!("a call was never answered: {id:?}")))
    }
}
