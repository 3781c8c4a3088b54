//! Records that must be read before an operation can be decided: gathered, and read in batches.

use crate::fault::{self, Fault};
use std::collections::HashMap;

use crate::effect::{Effect, RecordReadId, Route};
use crate::ids::ReservationId;
use crate::limits;
use crate::operation::Operation;

/// An operation that waits for its record.
#[derive(Debug)]
pub(super) struct RecordWaiter {
    pub(super) operation: Operation,
    pub(super) route: Option<Route>,
    /// Its record's place in the read: one reservation may be asked for twice, by two events.
    pub(super) place: usize,
}

/// See the module's head. Bounded by the operations in flight, of which each waits once.
#[derive(Debug, Default)]
pub(super) struct RecordReads {
    queue: Vec<RecordWaiter>,
    in_flight: HashMap<RecordReadId, Vec<RecordWaiter>>,
    next: u64,
}

impl RecordReads {
    pub(super) fn request(&mut self, waiter: RecordWaiter, fx: &mut Vec<Effect>) {
        self.queue.push(waiter);
        self.start(fx);
    }

    /// Ends a read: who waited for it, in the order it asked for their records.
    pub(super) fn finish(
        &mut self,
        lookup: RecordReadId,
        fx: &mut Vec<Effect>,
    ) -> Vec<RecordWaiter> {
        let finish = self.in_flight.remove(&lookup).unwrap_or_default();
        self.start(fx);
        finish
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    fn start(&mut self, fx: &mut Vec<Effect>) {
        while !self.queue.is_empty() && self.in_flight.len() < limits::RECORD_READS_IN_FLIGHT_MAX {
            let batch = self.queue.len().min(limits::BATCH_GET_KEYS_MAX);
            let mut waiters: Vec<RecordWaiter> = self.queue.drain(..batch).collect();
            let lookup = RecordReadId(self.next);
            self.next += 1;
            let mut reservations: Vec<ReservationId> = Vec::with_capacity(batch);
            for waiter in &mut waiters {
                let reservation = &waiter.operation.reservation;
                let known = reservations.iter().position(|r| r == reservation);
                waiter.place = match fault::planted(Fault::RecordsMixedUp) {
                    true => 0,
                    false => known.unwrap_or(reservations.len()),
                };
                if known.is_none() {
                    reservations.push(reservation.clone());
                }
            }
            fx.push(Effect::ReadRecords {
                lookup,
                reservations,
            });
            self.in_flight.insert(lookup, waiters);
        }
    }
}
