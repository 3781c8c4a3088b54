//! Strong reads of an event's stripes, shared by the callers that may share them.
//!
//! At most one read per event is in flight. A lane that asks meanwhile joins the next read, because "sold out" needs a
//! read that began after the call arrived. An operation that only needs the event's layout joins the read in flight. So
//! does a query, if the read began at most the maximum age of a snapshot before the query arrived: the snapshot of that
//! read answers the query.
//!
//! A status distinguishes held from confirmed units, which needs the confirmation counters. Only the reads that answer a
//! status include them, so that "sold out" and checks do not pay for them.
//!
//! The writes of this shard to the stripes while a read is in flight are recorded, because whether the read contains
//! them is unknown. See [`super::stock_snapshots`].

use std::collections::HashMap;

use super::effect::{CallId, PoolId, RecordHint};
use super::fault::{self, Fault};
use super::ids::EventId;
use super::operation::Operation;
use super::query::Query;
use super::stock_snapshots::StockDeltas;
use super::time::Micros;
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

impl StockReadWaiter {
    fn needs_counters(&self) -> bool {
        matches!(self, Self::Query { query: Query::Status, .. })
            && !fault::planted(Fault::CountersUnread)
    }
}

#[derive(Debug)]
struct ReadInFlight {
    began: Micros,
    /// The read includes the confirmation counters.
    with_counters: bool,
    current: Vec<StockReadWaiter>,
    next: Vec<StockReadWaiter>,
    /// Writes of this shard that finished since it began.
    deltas: StockDeltas,
    /// An operator has changed the event since it began.
    is_stale: bool,
}

impl ReadInFlight {
    fn new(began: Micros, current: Vec<StockReadWaiter>) -> Self {
        Self {
            began,
            with_counters: current.iter().any(StockReadWaiter::needs_counters),
            current,
            next: Vec::new(),
            deltas: StockDeltas::default(),
            is_stale: false,
        }
    }
}

/// A read that has ended.
#[derive(Debug)]
pub(super) struct FinishedRead {
    pub(super) began: Micros,
    pub(super) waiters: Vec<StockReadWaiter>,
    /// Writes of this shard that finished since it began.
    pub(super) deltas: StockDeltas,
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
                let has_all = read.with_counters || !waiter.needs_counters();
                self.age_max > Micros(0) && is_young && !read.is_stale && has_all
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
    pub(super) fn refresh(&mut self, event: &EventId, with_counters: bool, now: Micros) -> bool {
        let is_full = self.in_flight.len() >= limits::READ_WAITERS_MAX;
        let starts = !is_full && !self.in_flight.contains_key(event);
        if starts {
            let read = ReadInFlight { with_counters, ..ReadInFlight::new(now, Vec::new()) };
            self.in_flight.insert(event.clone(), read);
        }
        starts
    }

    /// Whether the read in flight includes the confirmation counters.
    pub(super) fn with_counters(&self, event: &EventId) -> bool {
        self.in_flight.get(event).is_some_and(|read| read.with_counters)
    }

    fn start(&mut self, event: &EventId, current: Vec<StockReadWaiter>, now: Micros) {
        self.in_flight.insert(event.clone(), ReadInFlight::new(now, current));
    }

    /// Records a finished write of this shard to the stock.
    pub(super) fn record_write(&mut self, event: &EventId, written: &StockDeltas) {
        if let Some(read) = self.in_flight.get_mut(event) {
            read.deltas.add(written);
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
