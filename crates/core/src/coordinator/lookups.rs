//! Records that must be read before an operation can be decided: gathered, and read in batches.

use std::collections::HashMap;

use crate::effect::{Effect, LookupId, Route};
use crate::ids::ReservationId;
use crate::limits;
use crate::operation::Operation;

/// An operation that waits for its record.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) operation: Operation,
    pub(super) route: Option<Route>,
    /// Its record's place in the read: one reservation may be asked for twice, by two events.
    pub(super) place: usize,
}

/// See the module's head. Bounded by the operations in flight, of which each waits once.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    queue: Vec<Asker>,
    under_way: HashMap<LookupId, Vec<Asker>>,
    next: u64,
}

impl Lookups {
    pub(super) fn want(&mut self, asker: Asker, fx: &mut Vec<Effect>) {
        self.queue.push(asker);
        self.start(fx);
    }

    /// Ends a read: who waited for it, in the order it asked for their records.
    pub(super) fn done(&mut self, lookup: LookupId, fx: &mut Vec<Effect>) -> Vec<Asker> {
        let done = self.under_way.remove(&lookup).unwrap_or_default();
        self.start(fx);
        done
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_empty()
    }

    fn start(&mut self, fx: &mut Vec<Effect>) {
        while !self.queue.is_empty() && self.under_way.len() < limits::LOOKUPS_IN_FLIGHT_MAX {
            let batch = self.queue.len().min(limits::BATCH_GET_KEYS_MAX);
            let mut askers: Vec<Asker> = self.queue.drain(..batch).collect();
            let lookup = LookupId(self.next);
            self.next += 1;
            let mut reservations: Vec<ReservationId> = Vec::with_capacity(batch);
            for asker in &mut askers {
                let reservation = &asker.operation.reservation;
                let known = reservations.iter().position(|r| r == reservation);
                asker.place = known.unwrap_or(reservations.len());
                if known.is_none() {
                    reservations.push(reservation.clone());
                }
            }
            fx.push(Effect::ReadRecords {
                lookup,
                reservations,
            });
            self.under_way.insert(lookup, askers);
        }
    }
}
