//! Whether the store answers the shards, and the offset of the local clock from the store's. Written by the shards,
//! read by the watchdog and by scrapes; no locks.
//!
//! Reads and writes are apart, because a store may answer reads while it accepts no write: a full disk, a missing
//! permission.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inventory_core::time::Micros;
use inventory_store::{ClockSkew, StoreCall};

use crate::limits;

/// Calls of one kind of one shard.
#[derive(Debug, Default)]
struct CallHealth {
    /// Since when no call was answered; 0 if the last one was, or there was none.
    failing_since_us: AtomicU64,
    /// Calls without an answer since process start.
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct StoreHealthSlot {
    reads: CallHealth,
    writes: CallHealth,
    /// Bits of two `f32`; 0: unknown. An error of 0 does not occur.
    skew: AtomicU64,
}

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) struct StoreHealth(Arc<[StoreHealthSlot]>);

/// The worst shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreFailures {
    /// How long no read, and no write, of a shard has been answered; `None`: all are.
    pub(crate) reads: Option<Micros>,
    pub(crate) writes: Option<Micros>,
    /// Calls without an answer since process start, of all shards.
    pub(crate) failed: u64,
}

impl StoreHealth {
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| StoreHealthSlot::default()).collect())
    }

    /// The writer for shard `shard`, which must exist.
    pub(crate) fn writer(&self, shard: usize) -> StoreHealthWriter {
        StoreHealthWriter { health: self.clone(), shard }
    }

    pub(crate) fn failures(&self, now: Micros) -> StoreFailures {
        let worst = |of: fn(&StoreHealthSlot) -> &CallHealth| {
            self.0.iter().filter_map(|slot| of(slot).failing_for(now)).max()
        };
        let failed = |calls: &CallHealth| calls.failed.load(Ordering::Relaxed);
        StoreFailures {
            reads: worst(|slot| &slot.reads),
            writes: worst(|slot| &slot.writes),
            failed: self.0.iter().map(|slot| failed(&slot.reads) + failed(&slot.writes)).sum(),
        }
    }

    /// The largest measured offset of the local clock; `None` before the first measurement.
    pub(crate) fn clock_skew(&self) -> Option<ClockSkew> {
        let skews = self.0.iter().filter_map(|slot| match slot.skew.load(Ordering::Relaxed) {
            0 => None,
            bits => Some(ClockSkew {
                ahead: f32::from_bits((bits >> 32) as u32).into(),
                error: f32::from_bits(bits as u32).into(),
            }),
        });
        skews.max_by(|one, other| one.at_least().total_cmp(&other.at_least()))
    }
}

/// Whether the clock is certainly off by more than [`limits::CLOCK_SKEW_MAX`].
pub(crate) fn is_skewed(skew: ClockSkew) -> bool {
    skew.at_least() > limits::CLOCK_SKEW_MAX.as_secs_f64()
}

impl CallHealth {
    fn record(&self, is_answered: bool, now: Micros) {
        if is_answered {
            self.failing_since_us.store(0, Ordering::Relaxed);
            return;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        if self.failing_since_us.load(Ordering::Relaxed) == 0 {
            self.failing_since_us.store(now.0.max(1), Ordering::Relaxed);
        }
    }

    fn failing_for(&self, now: Micros) -> Option<Micros> {
        match self.failing_since_us.load(Ordering::Relaxed) {
            0 => None,
            since => Some(now.since(Micros(since))),
        }
    }
}

/// Writes the health of one shard's store.
#[derive(Clone, Debug)]
pub(crate) struct StoreHealthWriter {
    health: StoreHealth,
    shard: usize,
}

impl StoreHealthWriter {
    fn slot(&self) -> &StoreHealthSlot {
        &self.health.0[self.shard]
    }

    /// Records a finished call; calls that only administration makes show nothing.
    pub(crate) fn called(&self, call: &StoreCall<'_>, now: Micros) {
        let is_answered = !matches!(call.status, "refused" | "not_sent" | "unknown");
        match call.operation {
            "TransactWriteItems" => self.slot().writes.record(is_answered, now),
            "GetItem" | "BatchGetItem" | "Query" => self.slot().reads.record(is_answered, now),
            _ => {}
        }
    }

    pub(crate) fn reads_fail(&self) -> bool {
        self.slot().reads.failing_for(Micros(0)).is_some()
    }

    pub(crate) fn writes_fail(&self) -> bool {
        self.slot().writes.failing_for(Micros(0)).is_some()
    }

    pub(crate) fn set_clock_skew(&self, skew: Option<ClockSkew>) {
        let bits = skew.map_or(0, |skew| {
            let (ahead, error) = (skew.ahead as f32, skew.error as f32);
            u64::from(ahead.to_bits()) << 32 | u64::from(error.max(f32::MIN_POSITIVE).to_bits())
        });
        self.slot().skew.store(bits, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &'static str, status: &'static str) -> StoreCall<'static> {
        StoreCall { operation, table: "t", status, latency: Micros(1) }
    }

    #[test]
    fn writes_fail_while_reads_are_answered() {
        let health = StoreHealth::new(2);
        let (first, second) = (health.writer(0), health.writer(1));
        first.called(&call("Query", "ok"), Micros(5));
        first.called(&call("TransactWriteItems", "refused"), Micros(10));
        first.called(&call("TransactWriteItems", "unknown"), Micros(20));
        second.called(&call("TransactWriteItems", "cancelled"), Micros(25));
        second.called(&call("DescribeTable", "refused"), Micros(25));
        let seen = health.failures(Micros(30));
        assert_eq!(seen, StoreFailures { reads: None, writes: Some(Micros(20)), failed: 2 });
        assert!(first.writes_fail() && !second.writes_fail() && !first.reads_fail());
        first.called(&call("TransactWriteItems", "throttled"), Micros(40));
        assert_eq!(health.failures(Micros(50)).writes, None);
    }

    #[test]
    fn the_worst_clock_skew_is_reported() {
        let health = StoreHealth::new(3);
        assert_eq!(health.clock_skew(), None);
        health.writer(0).set_clock_skew(Some(ClockSkew { ahead: 0.25, error: 0.5 }));
        health.writer(2).set_clock_skew(Some(ClockSkew { ahead: -44.5, error: 0.5 }));
        assert_eq!(health.clock_skew(), Some(ClockSkew { ahead: -44.5, error: 0.5 }));
    }

    #[test]
    fn a_clock_counts_as_skewed_only_beyond_the_error_of_the_measurement() {
        let skewed = |ahead, error| is_skewed(ClockSkew { ahead, error });
        assert!(skewed(45.0, 0.5) && skewed(-45.0, 0.5) && skewed(1.2, 0.1));
        assert!(!skewed(1.2, 0.5) && !skewed(0.0, 0.5));
    }
}
