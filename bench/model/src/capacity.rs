//! Capacity of tables and their partitions: token buckets that fill at a number of units per second, and
//! meters of consumed units.
//!
//! A table has `2^n` partitions, each an equal range of the partition key's hash, as many as its capacity needs
//! at 1,000 write and 3,000 read units each. A key belongs to one partition and never gets more than that. When
//! the capacity grows, every partition splits in two and each half gets half of the bucket. Hot partitions do not
//! split.
//!
//! Not here: what an operation costs.

use crate::ModelTime;
use crate::limits;

const SECOND: ModelTime = 1_000_000;

/// Read or write capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CapacityKind {
    Read,
    Write,
}

/// Write and read units per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapacityUnits {
    pub wcu: u32,
    pub rcu: u32,
}

impl CapacityUnits {
    fn of(self, kind: CapacityKind) -> f64 {
        match kind {
            CapacityKind::Read => f64::from(self.rcu),
            CapacityKind::Write => f64::from(self.wcu),
        }
    }
}

/// Which limit a request exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThrottleCause {
    Partition,
    Table,
}

/// Fills at a rate and holds [`limits::BURST_SECONDS`] of it. One request may overdraw the bucket, at the expense
/// of the next ones: otherwise a large item would never fit.
#[derive(Clone, Copy, Debug)]
struct TokenBucket {
    level: f64,
    at: ModelTime,
}

impl TokenBucket {
    fn full(rate: f64, now: ModelTime) -> Self {
        Self { level: rate * limits::BURST_SECONDS, at: now }
    }

    fn fill(&mut self, rate: f64, now: ModelTime) {
        let seconds = now.saturating_sub(self.at) as f64 / SECOND as f64;
        self.level = (self.level + rate * seconds).min(rate * limits::BURST_SECONDS);
        self.at = self.at.max(now);
    }
}

/// Consumed units by seconds of the model's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UnitMeter {
    second: u64,
    used: f64,
    /// Maximum of one second.
    pub(crate) peak: f64,
    pub(crate) total: f64,
}

impl UnitMeter {
    fn add(&mut self, units: f64, now: ModelTime) {
        let second = now / SECOND;
        if second != self.second {
            self.second = second;
            self.used = 0.0;
        }
        self.used += units;
        self.total += units;
        self.peak = self.peak.max(self.used);
    }
}

#[derive(Clone, Copy, Debug)]
struct MeteredBucket {
    bucket: TokenBucket,
    consumed: UnitMeter,
}

impl MeteredBucket {
    fn new(rate: f64, now: ModelTime) -> Self {
        Self { bucket: TokenBucket::full(rate, now), consumed: UnitMeter::default() }
    }
}

#[derive(Clone, Copy, Debug)]
struct PartitionMeters {
    read: MeteredBucket,
    write: MeteredBucket,
}

impl PartitionMeters {
    fn new(units: CapacityUnits, now: ModelTime) -> Self {
        Self {
            read: MeteredBucket::new(units.of(CapacityKind::Read), now),
            write: MeteredBucket::new(units.of(CapacityKind::Write), now),
        }
    }

    fn meter(&mut self, kind: CapacityKind) -> &mut MeteredBucket {
        match kind {
            CapacityKind::Read => &mut self.read,
            CapacityKind::Write => &mut self.write,
        }
    }
}

const PARTITION: CapacityUnits =
    CapacityUnits { wcu: limits::PARTITION_WCU, rcu: limits::PARTITION_RCU };

/// Billing mode of a table or index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Billing {
    /// Starts at its warm throughput and grows to twice the previous peak, up to the quota.
    OnDemand {
        warm: CapacityUnits,
        quota: u32,
    },
    Provisioned(CapacityUnits),
}

/// Capacity and consumption of a table or index.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    billing: Billing,
    enforced: bool,
    /// Current capacity.
    units: CapacityUnits,
    all: PartitionMeters,
    /// A power of two.
    partitions: Vec<PartitionMeters>,
    window_from: ModelTime,
    /// Peaks of the current window, write and read.
    window_peak: [UnitMeter; 2],
}

/// Consumption of one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionUse {
    pub(crate) number: usize,
    pub(crate) write: UnitMeter,
    pub(crate) read: UnitMeter,
}

impl Capacity {
    /// Unless `enforced`, consumption is counted and never throttled.
    pub(crate) fn new(billing: Billing, enforced: bool, now: ModelTime) -> Self {
        let units = match billing {
            Billing::OnDemand { warm, quota } => {
                CapacityUnits { wcu: warm.wcu.min(quota.max(1)), rcu: warm.rcu.min(quota.max(1)) }
            }
            Billing::Provisioned(units) => units,
        };
        Self {
            billing,
            enforced,
            units,
            all: PartitionMeters::new(units, now),
            partitions: vec![PartitionMeters::new(PARTITION, now); partitions_for(units)],
            window_from: now,
            window_peak: [UnitMeter::default(); 2],
        }
    }

    pub(crate) fn billing(&self) -> Billing {
        self.billing
    }

    pub(crate) fn units(&self) -> CapacityUnits {
        self.units
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&mut self, hash: u64) -> &mut PartitionMeters {
        let bits = self.partitions.len().trailing_zeros();
        // The top bits select the partition. With one partition the shift would overflow.
        let at = hash.checked_shr(64 - bits).unwrap_or(0);
        let at = usize::try_from(at).unwrap_or(0);
        &mut self.partitions[at]
    }

    /// Whether the buckets admit a request on the key with this hash.
    pub(crate) fn check(
        &mut self,
        kind: CapacityKind,
        hash: u64,
        now: ModelTime,
    ) -> Result<(), ThrottleCause> {
        self.grow(now);
        if !self.enforced {
            return Ok(());
        }
        let rate = self.units.of(kind);
        let meter = self.partition(hash).meter(kind);
        meter.bucket.fill(PARTITION.of(kind), now);
        if meter.bucket.level <= 0.0 {
            return Err(ThrottleCause::Partition);
        }
        let bucket = &mut self.all.meter(kind).bucket;
        bucket.fill(rate, now);
        match bucket.level <= 0.0 {
            true => Err(ThrottleCause::Table),
            false => Ok(()),
        }
    }

    /// Takes `units` and may overdraw the buckets.
    pub(crate) fn charge(&mut self, kind: CapacityKind, hash: u64, units: f64, now: ModelTime) {
        let rate = self.units.of(kind);
        let meter = self.partition(hash).meter(kind);
        meter.bucket.fill(PARTITION.of(kind), now);
        meter.bucket.level -= units;
        meter.consumed.add(units, now);
        let all = self.all.meter(kind);
        all.bucket.fill(rate, now);
        all.bucket.level -= units;
        all.consumed.add(units, now);
        self.window_peak[usize::from(kind == CapacityKind::Read)].add(units, now);
    }

    /// At the end of a window the capacity grows to twice the window's peak.
    fn grow(&mut self, now: ModelTime) {
        if now.saturating_sub(self.window_from) < limits::PEAK_WINDOW {
            return;
        }
        let [write, read] = std::mem::take(&mut self.window_peak);
        self.window_from = now;
        let Billing::OnDemand { quota, .. } = self.billing else {
            return;
        };
        let twice = |meter: UnitMeter, now: u32| {
            let wanted = (meter.peak * 2.0).min(f64::from(quota));
            now.max(wanted as u32)
        };
        self.units =
            CapacityUnits { wcu: twice(write, self.units.wcu), rcu: twice(read, self.units.rcu) };
        while self.partitions.len() < partitions_for(self.units) {
            self.split();
        }
    }

    /// Splits every partition in two.
    fn split(&mut self) {
        let half = |pair: &PartitionMeters| {
            let mut half = *pair;
            for meter in [&mut half.read, &mut half.write] {
                meter.bucket.level /= 2.0;
                meter.consumed = UnitMeter::default();
            }
            [half, half]
        };
        self.partitions = self.partitions.iter().flat_map(half).collect();
    }

    pub(crate) fn table_use(&self) -> PartitionUse {
        PartitionUse { number: 0, write: self.all.write.consumed, read: self.all.read.consumed }
    }

    /// Partitions with the highest peak relative to their limits.
    pub(crate) fn hottest(&self, count: usize) -> Vec<PartitionUse> {
        let of = |(number, pair): (usize, &PartitionMeters)| PartitionUse {
            number,
            write: pair.write.consumed,
            read: pair.read.consumed,
        };
        let mut all: Vec<_> = self.partitions.iter().enumerate().map(of).collect();
        let heat = |one: &PartitionUse| {
            let write = one.write.peak / PARTITION.of(CapacityKind::Write);
            write.max(one.read.peak / PARTITION.of(CapacityKind::Read))
        };
        all.retain(|one| heat(one) > 0.0);
        all.sort_by(|a, b| heat(b).total_cmp(&heat(a)));
        all.truncate(count);
        all
    }

    /// Resets the meters and keeps the buckets.
    pub(crate) fn reset_meters(&mut self) {
        for pair in self.partitions.iter_mut().chain([&mut self.all]) {
            pair.read.consumed = UnitMeter::default();
            pair.write.consumed = UnitMeter::default();
        }
    }
}

/// Number of partitions that the capacity needs, rounded up to a power of two.
fn partitions_for(units: CapacityUnits) -> usize {
    let write = units.wcu.div_ceil(limits::PARTITION_WCU);
    let read = units.rcu.div_ceil(limits::PARTITION_RCU);
    let count = write.max(read).clamp(1, limits::PARTITIONS_MAX);
    count.next_power_of_two() as usize
}
