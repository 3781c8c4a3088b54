//! Metrics of one shard: single writer, no lock, no atomic.
//!
//! Labels are `&'static str` from the code, never input from a client. Not here: the sum over shards or its
//! rendering (`aggregate`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use tonic::Code;

use super::metrics::{CODES, IntervalMetrics, LabelledCounters};
use super::series::Series;
use crate::limits;
use inventory_core::counters::Counters;
use inventory_core::expiry_search::SearchStatus;
use inventory_core::ids::EventId;
use inventory_core::time::{Micros, Now};

/// Values of the label `kind` of `inventory_invariant_breaches_total`.
pub(crate) const BREACHES: [&str; 1] = [DAMAGED_STRIPE];

/// A stripe is missing, has more units than its capacity, or has an invalid number of units.
pub(crate) const DAMAGED_STRIPE: &str = "damaged_stripe";

/// Kind of an event; the label `inventory_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InventoryType {
    Quantity,
    Seat,
}

impl InventoryType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Quantity => "quantity",
            Self::Seat => "seat",
        }
    }
}

/// Records the metrics of one shard. Shared on the shard through an `Rc`.
#[derive(Debug)]
pub struct Recorder {
    shard: usize,
    interval: RefCell<IntervalMetrics>,
    active_calls: Cell<u64>,
    /// Since process start.
    answered: Cell<u64>,
    connections: Cell<u64>,
    /// Since process start.
    connections_evicted: Cell<u64>,
    writes: RefCell<EventWrites>,
    /// `None` before the first read.
    search: Cell<Option<SearchStatus>>,
}

/// Ages of the search for overdue holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SearchAges {
    /// Time since the expiry of the oldest overdue hold that was found and not reclaimed; zero if there is none.
    pub(super) oldest_overdue: Micros,
    /// Time since every recent bucket was read.
    pub(super) buckets_read: Micros,
    /// Time since the whole index was read.
    pub(super) segments_read: Micros,
}

/// Reservations written since the previous scrape, by event.
#[derive(Debug, Default)]
pub(super) struct EventWrites {
    pub(super) events: HashMap<EventId, u64, foldhash::fast::RandomState>,
    /// Reservations of events beyond [`limits::EVENTS_PER_SCRAPE_MAX`].
    pub(super) other: u64,
}

/// Gauges and totals of a shard at a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardGauges {
    /// Operations queued for a transaction.
    pub(crate) queue_depth: usize,
    /// Transactions in flight.
    pub(crate) in_flight: usize,
    /// CPU time of the shard thread since its start.
    pub(crate) cpu: Duration,
    /// Totals of the engine since the start of the shard.
    pub(crate) counters: Counters,
    pub(crate) search: SearchAges,
}

/// Metrics that a shard passes to a scrape: what it recorded since the previous one, and its gauges.
#[derive(Debug)]
pub struct ShardMetrics {
    pub(super) shard: usize,
    pub(super) interval: IntervalMetrics,
    pub(super) writes: EventWrites,
    pub(super) active_calls: u64,
    pub(super) answered: u64,
    pub(super) connections: u64,
    /// Since process start.
    pub(super) connections_evicted: u64,
    pub(super) gauges: ShardGauges,
    /// Time that the shard spent on this scrape.
    pub(super) scrape_time: Micros,
}

impl ShardMetrics {
    /// Sets the time that the shard spent on this scrape.
    pub(crate) fn with_scrape_time(self, scrape_time: Micros) -> Self {
        Self { scrape_time, ..self }
    }
}

// Each borrow of a `RefCell` ends within its method, which calls no other method, so borrows cannot overlap.
impl Recorder {
    /// The recorder of shard number `shard`, from 0.
    pub fn new(shard: usize) -> Self {
        Self {
            shard,
            interval: RefCell::default(),
            active_calls: Cell::new(0),
            answered: Cell::new(0),
            connections: Cell::new(0),
            connections_evicted: Cell::new(0),
            writes: RefCell::default(),
            search: Cell::new(None),
        }
    }

    /// Counts a call whose headers arrived. Each call must be ended by [`call_finished`](Self::call_finished), also if the
    /// client disconnects.
    pub fn call_started(&self) {
        self.active_calls.set(self.active_calls.get() + 1);
    }

    /// Counts a call that was answered `latency` after its headers arrived.
    pub fn call_finished(&self, method: &'static str, code: Code, latency: Micros) {
        let active = self.active_calls.get();
        debug_assert!(active > 0, "call finished without a start");
        self.active_calls.set(active.saturating_sub(1));
        self.answered.set(self.answered.get() + 1);
        let mut interval = self.interval.borrow_mut();
        let calls = interval.methods.at([method]);
        calls.latency.record(latency);
        calls.codes[code as usize % CODES] += 1;
    }

    /// Counts a store request; each retry is a request. `status` is `ok` or a short name of the failure.
    pub(crate) fn store_call(
        &self,
        operation: &'static str,
        table: &'static str,
        status: &'static str,
        latency: Micros,
    ) {
        let mut interval = self.interval.borrow_mut();
        let calls = interval.store.at([operation, table]);
        calls.latency.record(latency);
        *calls.statuses.at([status]) += 1;
    }

    /// Counts consumed capacity units of a table; `kind` is `read` or `write`.
    pub(crate) fn consumed(&self, table: &'static str, kind: &'static str, units: f64) {
        *self.interval.borrow_mut().units.at([table, kind]) += units;
    }

    /// Counts reservations of an event that were written, with any outcome.
    pub(crate) fn written(&self, event: &EventId, reservations: usize) {
        let mut writes = self.writes.borrow_mut();
        let more = reservations as u64;
        if let Some(count) = writes.events.get_mut(event) {
            *count += more;
        } else if writes.events.len() < limits::EVENTS_PER_SCRAPE_MAX {
            writes.events.insert(event.clone(), more);
        } else {
            writes.other += more;
        }
    }

    /// Counts a hold that was reclaimed `lag` after its expiry.
    pub(crate) fn reclaimed(&self, kind: InventoryType, lag: Micros) {
        let mut interval = self.interval.borrow_mut();
        *interval.counters.reclaimed.at([kind.as_str()]) += 1;
        interval.reclaim_lag.record(lag);
    }

    /// Keeps what is known about overdue holds.
    pub(crate) fn searched(&self, status: SearchStatus) {
        self.search.set(Some(status));
    }

    /// Ages of what [`Recorder::searched`] kept. They grow while the search reads nothing.
    pub(crate) fn search_ages(&self, now: Now) -> SearchAges {
        let Some(status) = self.search.get() else {
            return SearchAges::default();
        };
        let overdue = status.oldest_overdue.map_or(0, |at| now.unix.0.saturating_sub(at.0));
        SearchAges {
            oldest_overdue: Micros::from_millis(overdue),
            buckets_read: now.mono.since(status.buckets_read),
            segments_read: now.mono.since(status.segments_read),
        }
    }

    /// Counts a read of stock that breaks an invariant; `kind` is one of [`BREACHES`].
    pub(crate) fn breach(&self, kind: &'static str) {
        *self.interval.borrow_mut().breaches.at([kind]) += 1;
    }

    /// Counts a CommitReservation response.
    pub(crate) fn commit(&self, kind: InventoryType, status: &'static str) {
        self.count(|c| &mut c.commits, [kind.as_str(), status]);
    }

    /// Counts a PlaceHold or ReserveSeat response.
    pub(crate) fn hold(&self, kind: InventoryType, status: &'static str) {
        self.count(|c| &mut c.holds, [kind.as_str(), status]);
    }

    /// Counts a ReleaseHold response.
    pub(crate) fn release(&self, kind: InventoryType, status: &'static str) {
        self.count(|c| &mut c.releases, [kind.as_str(), status]);
    }

    /// Counts a CheckAvailability response; `result` is `available`, `unavailable` or the name of an error.
    pub(crate) fn check(&self, kind: InventoryType, result: &'static str) {
        self.count(|c| &mut c.checks, [kind.as_str(), result]);
    }

    /// Counts a TLS handshake by its result.
    pub(crate) fn handshake(&self, result: &'static str) {
        self.count(|c| &mut c.handshakes, ["grpc", result]);
    }

    /// Counts a connection that was closed because its client does not speak HTTP/2.
    pub(crate) fn wrong_protocol(&self, protocol: &'static str) {
        self.count(|c| &mut c.wrong_protocols, [protocol]);
    }

    /// Counts an operation refused because of another one: sold out, seat taken, store conflict, id reused.
    pub(crate) fn conflict(&self, kind: &'static str) {
        self.count(|c| &mut c.conflicts, [kind]);
    }

    /// Counts a lookup in the cache of settled reservations.
    pub(crate) fn idempotency(&self, operation: &'static str, hit: bool) {
        match hit {
            true => self.count(|c| &mut c.idempotency_hits, [operation]),
            false => self.count(|c| &mut c.idempotency_misses, [operation]),
        }
    }

    fn count<const L: usize>(
        &self,
        counter: impl FnOnce(&mut LabelledCounters) -> &mut Series<L, u64>,
        labels: [&'static str; L],
    ) {
        *counter(&mut self.interval.borrow_mut().counters).at(labels) += 1;
    }

    /// Counts a connection that the shard accepted or received from another shard.
    pub(crate) fn connection_opened(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    /// Counts a connection that the shard ended to make room for another.
    pub(crate) fn connection_evicted(&self) {
        self.connections_evicted.set(self.connections_evicted.get() + 1);
    }

    /// Counts a connection that the shard closed or passed to another shard.
    pub(crate) fn connection_closed(&self) {
        let open = self.connections.get();
        debug_assert!(open > 0, "connection closed without being opened");
        self.connections.set(open.saturating_sub(1));
    }

    /// Returns the metrics since the previous call and resets them. The caller must not drop the result, or these metrics
    /// are missing from the totals.
    pub fn take(&self, gauges: ShardGauges) -> ShardMetrics {
        ShardMetrics {
            shard: self.shard,
            interval: self.interval.borrow_mut().take(),
            writes: mem::take(&mut *self.writes.borrow_mut()),
            active_calls: self.active_calls.get(),
            answered: self.answered.get(),
            connections: self.connections.get(),
            connections_evicted: self.connections_evicted.get(),
            gauges,
            scrape_time: Micros(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_metrics_can_be_sent_to_another_thread() {
        fn is_send<T: Send + 'static>(_: T) {}
        is_send(Recorder::new(0).take(ShardGauges::default()));
    }

    #[test]
    fn every_status_code_is_counted() {
        let recorder = Recorder::new(0);
        for code in 0..CODES {
            recorder.call_started();
            recorder.call_finished("m", Code::from_i32(code as i32), Micros(1));
        }
        let mut taken = recorder.take(ShardGauges::default());
        assert_eq!(taken.interval.methods.at(["m"]).codes, [1; CODES]);
    }

    #[test]
    fn take_resets_counters_and_keeps_gauges() {
        let recorder = Recorder::new(3);
        recorder.connection_opened();
        recorder.connection_opened();
        recorder.connection_evicted();
        recorder.connection_closed();
        recorder.call_started();
        let event = |n: usize| EventId::try_from(format!("evt_{n}")).expect("a legal id");
        for n in 0..limits::EVENTS_PER_SCRAPE_MAX + 3 {
            recorder.written(&event(n), 2);
        }
        recorder.written(&event(0), 1);
        let first = recorder.take(ShardGauges::default());
        let second = recorder.take(ShardGauges::default());
        assert_eq!((first.connections, first.active_calls), (1, 1));
        assert_eq!((first.connections_evicted, second.connections_evicted), (1, 1));
        assert_eq!((second.connections, second.active_calls), (1, 1));
        assert_eq!(first.writes.events[&event(0)], 3);
        assert_eq!((first.writes.other, second.writes.other), (6, 0));
        assert!(second.writes.events.is_empty());
    }
}
