//! A shard's own figures: one writer, no lock, no atomic.
//!
//! Labels are `&'static str` that the code names, never anything a client sent.
//! Must not live here: the sum over shards and its rendering (`registry`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use tonic::Code;

use super::figures::{CODES, Interval};
use crate::limits;
use inventory_core::counters::Counters;
use inventory_core::ids::EventId;
use inventory_core::time::Micros;

/// What can be wrong with stock that was read: the labels of `inventory_invariant_breaches_total`.
pub const BREACHES: [&str; 1] = [DAMAGED_STRIPE];

/// A stripe that has more units than it was given, or a number of them that is none, or that is
/// missing: given back twice, or changed by a hand.
pub const DAMAGED_STRIPE: &str = "damaged_stripe";

/// How an event's stock is kept; the label `inventory_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InventoryType {
    Quantity,
    Seat,
}

impl InventoryType {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quantity => "quantity",
            Self::Seat => "seat",
        }
    }
}

/// The figures of one shard since they were last taken. Lives in an `Rc` on its shard.
#[derive(Debug)]
pub struct Recorder {
    shard: usize,
    interval: RefCell<Interval>,
    active_calls: Cell<u64>,
    /// Since the start.
    answered: Cell<u64>,
    connections: Cell<u64>,
    events: RefCell<Written>,
}

/// Reservations written, by event, since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) events: HashMap<EventId, u64, foldhash::fast::RandomState>,
    /// Of events beyond [`limits::EVENTS_COUNTED_MAX`].
    pub(super) other: u64,
}

/// What a shard is at the moment it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Callers that wait in line for a lane.
    pub line_depth: usize,
    /// Transactions on their way to the store and back.
    pub in_flight: usize,
    /// What its thread has computed since its start.
    pub cpu: Duration,
}

/// What one shard counted in one interval, and its gauges at the end of it.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) shard: usize,
    pub(super) interval: Interval,
    pub(super) written: Written,
    pub(super) active_calls: u64,
    pub(super) answered: u64,
    pub(super) connections: u64,
    pub(super) levels: Levels,
    /// What this hand-over cost the shard.
    pub(super) took: Micros,
}

impl Snapshot {
    /// The same, having cost the shard `took`.
    pub fn having_taken(self, took: Micros) -> Self {
        Self { took, ..self }
    }
}

// Each borrow of `interval` ends within its method and calls nothing that could come back here, so
// no borrow can meet another.
impl Recorder {
    /// Of shard number `shard`, counted from 0.
    pub fn new(shard: usize) -> Self {
        Self {
            shard,
            interval: RefCell::default(),
            active_calls: Cell::new(0),
            answered: Cell::new(0),
            connections: Cell::new(0),
            events: RefCell::default(),
        }
    }

    /// A call's headers have arrived. Every start needs its [`call_finished`](Self::call_finished),
    /// also when the client went away.
    pub fn call_started(&self) {
        self.active_calls.set(self.active_calls.get() + 1);
    }

    /// A call that was started has its answer, `latency` after its headers arrived.
    pub fn call_finished(&self, method: &'static str, code: Code, latency: Micros) {
        let active = self.active_calls.get();
        debug_assert!(active > 0, "finished without having started");
        self.active_calls.set(active.saturating_sub(1));
        self.answered.set(self.answered.get() + 1);
        let mut interval = self.interval.borrow_mut();
        let calls = interval.calls.at([method]);
        calls.latency.record(latency);
        calls.codes[code as usize % CODES] += 1;
    }

    /// One request to the store has ended, a retry counted by itself. `status` is `ok` or names the
    /// failure in few words.
    pub fn store_call(
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

    /// A request cost the store this much of a table's `read` or `write` capacity.
    pub fn consumed(&self, table: &'static str, kind: &'static str, units: f64) {
        *self.interval.borrow_mut().units.at([table, kind]) += units;
    }

    /// So many reservations of `event` were written, whatever became of them.
    pub fn written(&self, event: &EventId, reservations: usize) {
        let mut written = self.events.borrow_mut();
        let more = reservations as u64;
        if let Some(count) = written.events.get_mut(event) {
            *count += more;
        } else if written.events.len() < limits::EVENTS_COUNTED_MAX {
            written.events.insert(event.clone(), more);
        } else {
            written.other += more;
        }
    }

    /// A hold was given back, `late` after its time was over.
    pub fn reclaimed(&self, kind: InventoryType, late: Micros) {
        let mut interval = self.interval.borrow_mut();
        *interval.reclaimed.at([kind.as_str()]) += 1;
        interval.reclaim_lag.record(late);
    }

    /// Stock was read that cannot be.
    pub fn breach(&self, kind: &'static str) {
        *self.interval.borrow_mut().breaches.at([kind]) += 1;
    }

    /// A CommitReservation was answered.
    pub fn commit(&self, kind: InventoryType, status: &'static str) {
        *self
            .interval
            .borrow_mut()
            .commits
            .at([kind.as_str(), status]) += 1;
    }

    /// A PlaceHold or ReserveSeat was answered.
    pub fn hold(&self, kind: InventoryType, status: &'static str) {
        *self.interval.borrow_mut().holds.at([kind.as_str(), status]) += 1;
    }

    /// A ReleaseHold was answered.
    pub fn release(&self, kind: InventoryType, status: &'static str) {
        *self
            .interval
            .borrow_mut()
            .releases
            .at([kind.as_str(), status]) += 1;
    }

    /// A CheckAvailability was answered; `result` is `available`, `unavailable` or an error's name.
    pub fn check(&self, kind: InventoryType, result: &'static str) {
        *self
            .interval
            .borrow_mut()
            .checks
            .at([kind.as_str(), result]) += 1;
    }

    /// An operation met another one: sold out, a taken seat, a store conflict, a reused id.
    pub fn conflict(&self, kind: &'static str) {
        *self.interval.borrow_mut().conflicts.at([kind]) += 1;
    }

    /// A call was (`hit`) or was not answered from what is remembered of its reservation_id.
    pub fn idempotency(&self, operation: &'static str, hit: bool) {
        let mut interval = self.interval.borrow_mut();
        let series = match hit {
            true => &mut interval.idempotency_hits,
            false => &mut interval.idempotency_misses,
        };
        *series.at([operation]) += 1;
    }

    /// What the domain has counted between two of its totals: lanes, retries, unknown outcomes.
    pub fn domain(&self, before: &Counters, after: &Counters) {
        let grown = |of: fn(&Counters) -> u64| of(after).saturating_sub(of(before));
        let mut interval = self.interval.borrow_mut();
        interval.transactions += grown(|c| c.transactions);
        interval.members += grown(|c| c.entries);
        interval.unknown_outcomes += grown(|c| c.unknown_outcomes);
        let resolved = [
            ("applied", grown(|c| c.unknown_applied)),
            ("not_applied", grown(|c| c.unknown_not_applied)),
        ];
        for (outcome, count) in resolved {
            *interval.unknown_resolved.at([outcome]) += count;
        }
        interval
            .batches
            .add(&after.batch_sizes.since(&before.batch_sizes));
        interval
            .waits
            .add(&after.queue_times.since(&before.queue_times));
        let ages = after.snapshot_ages.since(&before.snapshot_ages);
        interval.snapshot_ages.add(&ages);
        interval.snapshot_refreshes += grown(|c| c.snapshot_refreshes);
        let answers = [
            ("snapshot", grown(|c| c.snapshot_answers)),
            ("read", grown(|c| c.read_answers)),
        ];
        for (source, count) in answers {
            *interval.questions.at([source]) += count;
        }
        interval.sold_out_looks += grown(|c| c.sold_out);
        let late = grown(|c| c.rejected_by_admission);
        let shed = [
            ("deadline", late),
            (
                "queue_full",
                grown(|c| c.rejected_overloaded).saturating_sub(late),
            ),
        ];
        for (why, count) in shed {
            *interval.shed.at([why]) += count;
        }
        let retries = [
            ("conflict", grown(|c| c.conflicts)),
            ("throttled", grown(|c| c.throttles)),
            ("unknown", grown(|c| c.resends)),
            ("split", grown(|c| c.splits)),
        ];
        for (reason, count) in retries {
            *interval.retries.at([reason]) += count;
        }
    }

    /// The shard took a connection, by accept or by hand-over.
    pub fn connection_opened(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    /// The shard closed a connection or handed it over.
    pub fn connection_closed(&self) {
        let open = self.connections.get();
        debug_assert!(open > 0, "closed without having been opened");
        self.connections.set(open.saturating_sub(1));
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// Hands the interval over and starts the next. A snapshot that is dropped is lost to the
    /// totals: whoever asks for one keeps the answer, however late it comes.
    pub fn take(&self, levels: Levels) -> Snapshot {
        Snapshot {
            shard: self.shard,
            interval: self.interval.borrow_mut().take(),
            written: mem::take(&mut *self.events.borrow_mut()),
            active_calls: self.active_calls.get(),
            answered: self.answered.get(),
            connections: self.connections.get(),
            levels,
            took: Micros(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_can_leave_its_shard() {
        fn leaves<T: Send + 'static>(_: T) {}
        leaves(Recorder::new(0).take(Levels::default()));
    }

    #[test]
    fn every_status_code_has_its_place() {
        let recorder = Recorder::new(0);
        for code in 0..CODES {
            recorder.call_started();
            recorder.call_finished("m", Code::from_i32(code as i32), Micros(1));
        }
        let codes = recorder
            .take(Levels::default())
            .interval
            .calls
            .at(["m"])
            .codes;
        assert_eq!(codes, [1; CODES]);
    }

    #[test]
    fn gauges_survive_a_take_and_counters_do_not() {
        let recorder = Recorder::new(3);
        recorder.connection_opened();
        recorder.connection_opened();
        recorder.connection_closed();
        recorder.call_started();
        let after = Counters {
            transactions: 1,
            entries: 7,
            ..Counters::default()
        };
        recorder.domain(&Counters::default(), &after);
        let event = |n: usize| EventId::try_from(format!("evt_{n}")).expect("a legal id");
        for n in 0..limits::EVENTS_COUNTED_MAX + 3 {
            recorder.written(&event(n), 2);
        }
        recorder.written(&event(0), 1);
        let first = recorder.take(Levels::default());
        let second = recorder.take(Levels::default());
        assert_eq!((first.connections, first.active_calls), (1, 1));
        assert_eq!((second.connections, second.active_calls), (1, 1));
        assert_eq!((first.interval.members, second.interval.members), (7, 0));
        assert_eq!(first.written.events[&event(0)], 3);
        assert_eq!((first.written.other, second.written.other), (6, 0));
        assert!(second.written.events.is_empty());
    }
}
