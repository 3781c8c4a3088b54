//! Strong reads of an event's stripes, shared by the callers that may share them.
//!
//! At most one read per event is in flight. A lane that asks meanwhile joins the next read, because "sold out" needs a
//! read that began after the call arrived. An operation that only needs the event's layout joins the read in flight. So
//! does a query, if the read began at most the maximum age of a snapshot before the query arrived: the snapshot of that
//! read answers the query.
//!
//! The writes of this shard to the stripes while a read is in flight are recorded, because whether the read contains
//! them is unknown. See [`super::stock_snapshots`].

use std::collections::HashMap;

use super::effect::{CallId, PoolId, RecordHint};
use super::fault::{self, Fault};
use super::ids::EventId;
use super::operation::Operation;
use super::query::Query;
use super::stock_snapshots::{PendingDeltas, add_deltas};
use super::time::Micros;
use super::transaction::StripeUpdate;
use crate::limits;

/// What waits for a read.
#[derive(Debug)]
pub(super) enum StockReadWaiter {
    /// A query about the event, which arrived at `asked`.
    Query { call: CallId, query: Query, asked: Micros },
    /// An operation that needs the event's layout before it can be routed.
    Operation(Box<(Operation, RecordHint)>),
    /// No caller: the read refreshes the layout.
    Layout,
    /// A pool whose stripes are short.
    Pool(PoolId),
}

#[derive(Debug)]
struct ReadInFlight {
    began: Micros,
    current: Vec<StockReadWaiter>,
    next: Vec<StockReadWaiter>,
    /// Writes of this shard that finished since it began.
    deltas: PendingDeltas,
    /// An operator has changed the event since it began.
    is_stale: bool,
}

impl ReadInFlight {
    fn new(began: Micros, current: Vec<StockReadWaiter>) -> Self {
        Self { began, current, next: Vec::new(), deltas: PendingDeltas::new(), is_stale: false }
    }
}

/// A read that has ended.
#[derive(Debug)]
pub(super) struct FinishedRead {
    pub(super) began: Micros,
    pub(super) waiters: Vec<StockReadWaiter>,
    /// Writes of this shard that finished since it began.
    pub(super) deltas: PendingDeltas,
    /// The result may be older than an operator's change: it must not be cached.
    pub(super) is_stale: bool,
    /// The next read has begun: the caller sends it.
    pub(super) starts_next: bool,
}

/// The stripe reads in flight, with their waiters.
#[derive(Debug)]
pub(super) struct StockReads {
    in_flight: HashMap<EventId, ReadInFlight, foldhash::fast::RandomState>,
    waiting: usize,
    /// Maximum time between the start of a read and a query that the read answers; 0: queries never share.
    age_max: Micros,
}

impl StockReads {
    pub(super) fn new(age_max: Micros) -> Self {
        Self { in_flight: HashMap::default(), waiting: 0, age_max }
    }

    /// Joins the read in flight, or the next one. `Ok(true)`: no read is in flight, so the caller starts
    /// one. `Err`: too many wait already.
    pub(super) fn request(
        &mut self,
        event: &EventId,
        waiter: StockReadWaiter,
        now: Micros,
    ) -> Result<bool, StockReadWaiter> {
        // A pool makes one request at a time, which must not be lost.
        if self.is_full(event) && !matches!(waiter, StockReadWaiter::Pool(_)) {
            return Err(waiter);
        }
        self.waiting += 1;
        let read = self.in_flight.get_mut(event);
        let Some(read) = read.filter(|_| !fault::planted(Fault::SecondRead)) else {
            self.start(event, vec![waiter], now);
            return Ok(true);
        };
        let joins = match &waiter {
            StockReadWaiter::Operation(..) | StockReadWaiter::Layout => true,
            StockReadWaiter::Pool(_) => false,
            StockReadWaiter::Query { asked, .. } => {
                let is_young = asked.since(read.began) <= self.age_max;
                self.age_max > Micros(0) && is_young && !read.is_stale
            }
        };
        match joins {
            true => read.current.push(waiter),
            false => read.next.push(waiter),
        }
        Ok(false)
    }

    /// Whether no more may wait for this event: once half of all waiters are there, no event has more than its share, and
    /// one share is kept for a new event.
    fn is_full(&self, event: &EventId) -> bool {
        if self.waiting < limits::READ_WAITERS_MAX / 2 {
            return false;
        }
        let share = limits::READ_WAITERS_MAX / (self.in_flight.len() + 1);
        let of_event = |read: &ReadInFlight| read.current.len() + read.next.len();
        self.waiting >= limits::READ_WAITERS_MAX
            || self.in_flight.get(event).is_some_and(|read| of_event(read) >= share)
    }

    /// Starts a read without a waiter unless one is in flight. Returns whether the caller sends it.
    pub(super) fn refresh(&mut self, event: &EventId, now: Micros) -> bool {
        let is_full = self.in_flight.len() >= limits::READ_WAITERS_MAX;
        let starts = !is_full && !self.in_flight.contains_key(event);
        if starts {
            self.start(event, Vec::new(), now);
        }
        starts
    }

    fn start(&mut self, event: &EventId, current: Vec<StockReadWaiter>, now: Micros) {
        self.in_flight.insert(event.clone(), ReadInFlight::new(now, current));
    }

    /// Records a finished write of this shard to the stripes.
    pub(super) fn record_write(&mut self, event: &EventId, written: &[StripeUpdate]) {
        if let Some(read) = self.in_flight.get_mut(event) {
            add_deltas(&mut read.deltas, written);
        }
    }

    /// An operator has changed the event.
    pub(super) fn mark_stale(&mut self, event: &EventId) {
        if let Some(read) = self.in_flight.get_mut(event) {
            read.is_stale = true;
        }
    }

    /// Ends the read of an event, and starts the next one if it has waiters.
    pub(super) fn finish(&mut self, event: &EventId, now: Micros) -> Option<FinishedRead> {
        let read = self.in_flight.remove(event)?;
        self.waiting -= read.current.len();
        let starts_next = !read.next.is_empty();
        if starts_next {
            self.start(event, read.next, now);
        }
        Some(FinishedRead {
            began: read.began,
            waiters: read.current,
            deltas: read.deltas,
            is_stale: read.is_stale,
            starts_next,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn waiters_of_one_event_leave_room_for_other_events() {
        let mut reads = StockReads::new(Micros(0));
        let mut accepted = |event: &str| {
            let event: EventId = event.parse().unwrap();
            (0..limits::READ_WAITERS_MAX)
                .take_while(|_| reads.request(&event, StockReadWaiter::Layout, Micros(0)).is_ok())
                .count()
        };
        assert_eq!(accepted("hot"), limits::READ_WAITERS_MAX / 2);
        assert!(accepted("cold") >= limits::READ_WAITERS_MAX / 4);
        assert!(accepted("new") > 0);
    }
}
