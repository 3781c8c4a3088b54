//! Strong reads of an event's stripes, shared by all who may share them.
//!
//! At most one read per event is read way. A lane that wants one meanwhile joins the next, because
//! the promise is a read that began after the call arrived; who only needs to know how many stripes
//! there are may join the one read way. So may a query, if that read began no longer before it
//! than the bound on a snapshot's age: it is then answered from the snapshot the read makes.
//!
//! A read remembers what this shard has written to the stripes while it was read way: it may or may
//! not have seen it. See [`super::stock_snapshots`].

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

/// Who waits for a read.
#[derive(Debug)]
pub(super) enum StockReadWaiter {
    /// A query about the event, which arrived at `asked`.
    Query {
        call: CallId,
        query: Query,
        asked: Micros,
    },
    /// An operation that cannot be routed before it is known what the event is like.
    Operation(Box<(Operation, RecordHint)>),
    /// Nobody: what the event is like is looked at again.
    Layout,
    /// Lanes whose stripes are short.
    Pool(PoolId),
}

#[derive(Debug)]
struct ReadInFlight {
    began: Micros,
    current: Vec<StockReadWaiter>,
    next: Vec<StockReadWaiter>,
    /// What has settled since it began.
    deltas: PendingDeltas,
    /// An operator has changed the event since it began.
    is_stale: bool,
}

impl ReadInFlight {
    fn new(began: Micros, current: Vec<StockReadWaiter>) -> Self {
        Self {
            began,
            current,
            next: Vec::new(),
            deltas: PendingDeltas::new(),
            is_stale: false,
        }
    }
}

/// A read that has ended.
#[derive(Debug)]
pub(super) struct FinishedRead {
    pub(super) began: Micros,
    pub(super) waiters: Vec<StockReadWaiter>,
    /// What has settled since it began.
    pub(super) deltas: PendingDeltas,
    /// It may be older than what an operator did: nobody should remember it.
    pub(super) is_stale: bool,
    /// The next read has begun: the caller sends it.
    pub(super) starts_next: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct StockReads {
    in_flight: HashMap<EventId, ReadInFlight, foldhash::fast::RandomState>,
    waiting: usize,
    /// How long before a query the read may have begun that answers it; 0: not at all.
    age_max: Micros,
}

impl StockReads {
    pub(super) fn new(age_max: Micros) -> Self {
        Self {
            in_flight: HashMap::default(),
            waiting: 0,
            age_max,
        }
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
        if self.waiting >= limits::READ_WAITERS_MAX && !matches!(waiter, StockReadWaiter::Pool(_)) {
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
        self.in_flight
            .insert(event.clone(), ReadInFlight::new(now, current));
    }

    /// This shard's writes to the stripes have settled.
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

    /// Ends the read of an event, and starts the next one if anybody waits for that.
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
