//! Records that must be read before an operation can be decided: collected, and read in batches.
//!
//! At most [`limits::RECORD_READS_IN_FLIGHT_MAX`] reads are in flight, and a short read is sent at most once per batching
//! delay. Reads requested meanwhile share the next request. The number of waiters is bounded by the operations in flight.

use std::collections::HashMap;

use super::OperationTask;
use crate::effect::RecordReadId;
use crate::fault::{self, Fault};
use crate::ids::ReservationId;
use crate::limits;
use crate::time::Micros;

/// An operation that waits for its record.
#[derive(Debug)]
pub(super) struct RecordWaiter {
    pub(super) task: OperationTask,
    /// Position of its record in the read: two events may ask for the same reservation.
    pub(super) position: usize,
}

/// The queued record reads, and those in flight.
#[derive(Debug, Default)]
pub(super) struct RecordReads {
    queue: Vec<RecordWaiter>,
    in_flight: HashMap<RecordReadId, Vec<RecordWaiter>>,
    next: u64,
    /// Until then a short queue waits for more.
    batching_until: Micros,
}

impl RecordReads {
    /// Queues an operation; [`RecordReads::next_read`] then returns the read to send, if any.
    pub(super) fn request(&mut self, task: OperationTask) {
        self.queue.push(RecordWaiter { task, position: 0 });
    }

    /// The next read to send, if something is queued, fewer reads than the bound are in flight, and the queue is long or
    /// the batching delay since the previous read has passed.
    pub(super) fn next_read(
        &mut self,
        now: Micros,
        batching_delay: Micros,
    ) -> Option<(RecordReadId, Vec<ReservationId>)> {
        let is_delayed =
            now < self.batching_until && self.queue.len() < limits::BATCHING_DELAY_ENTRIES_MAX;
        if self.queue.is_empty() || self.is_full() || is_delayed {
            return None;
        }
        self.batching_until = now.plus(batching_delay);
        let batch = self.queue.len().min(limits::BATCH_GET_KEYS_MAX);
        let mut waiters: Vec<RecordWaiter> = self.queue.drain(..batch).collect();
        let read = RecordReadId(self.next);
        self.next += 1;
        let mut reservations: Vec<ReservationId> = Vec::with_capacity(batch);
        for waiter in &mut waiters {
            let reservation = &waiter.task.operation.reservation;
            let known = reservations.iter().position(|r| r == reservation);
            waiter.position = match fault::planted(Fault::RecordsMixedUp) {
                true => 0,
                false => known.unwrap_or(reservations.len()),
            };
            if known.is_none() {
                reservations.push(reservation.clone());
            }
        }
        self.in_flight.insert(read, waiters);
        Some((read, reservations))
    }

    /// Ends a read. Returns its waiters in the order in which they asked.
    pub(super) fn finish(&mut self, read: RecordReadId) -> Vec<RecordWaiter> {
        self.in_flight.remove(&read).unwrap_or_default()
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= limits::RECORD_READS_IN_FLIGHT_MAX
    }

    /// When the queue is sent although it is short.
    pub(super) fn wake_at(&self) -> Option<Micros> {
        (!self.queue.is_empty() && !self.is_full()).then_some(self.batching_until)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }
}
