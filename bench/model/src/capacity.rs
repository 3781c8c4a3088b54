//! What a table and its partitions take: buckets that fill at so many units a second, and what was
//! taken from them.
//!
//! A table has `2^n` partitions, each a like range of the hash of the partition key, as many as its
//! capacity needs at 1,000 write and 3,000 read units each. One key lies on one partition and never
//! gets more. When the capacity grows, every partition splits in two, and each half has half of what
//! was left. Nothing splits for heat.
//!
//! Must not live here: what an operation costs.

use crate::Micros;
use crate::limits;

const SECOND: Micros = 1_000_000;

/// Reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Read,
    Write,
}

/// Units a second, both ways.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    pub wcu: u32,
    pub rcu: u32,
}

impl Units {
    fn of(self, flow: Flow) -> f64 {
        match flow {
            Flow::Read => f64::from(self.rcu),
            Flow::Write => f64::from(self.wcu),
        }
    }
}

/// What held a request up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Throttled {
    Partition,
    Table,
}

/// Fills at a rate, holds [`limits::BURST_SECONDS`] of it. May be overdrawn by one request, which the
/// next ones wait for: a large item fits no other way.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Micros,
}

impl Bucket {
    fn full(rate: f64, now: Micros) -> Self {
        Self {
            level: rate * limits::BURST_SECONDS,
            at: now,
        }
    }

    fn fill(&mut self, rate: f64, now: Micros) {
        let seconds = now.saturating_sub(self.at) as f64 / SECOND as f64;
        self.level = (self.level + rate * seconds).min(rate * limits::BURST_SECONDS);
        self.at = self.at.max(now);
    }
}

/// What was used, by seconds of the model's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    second: u64,
    used: f64,
    /// The most in one second.
    pub(crate) peak: f64,
    pub(crate) total: f64,
}

impl Meter {
    fn add(&mut self, units: f64, now: Micros) {
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
struct Lane {
    bucket: Bucket,
    meter: Meter,
}

impl Lane {
    fn new(rate: f64, now: Micros) -> Self {
        Self {
            bucket: Bucket::full(rate, now),
            meter: Meter::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    read: Lane,
    write: Lane,
}

impl Pair {
    fn new(units: Units, now: Micros) -> Self {
        Self {
            read: Lane::new(units.of(Flow::Read), now),
            write: Lane::new(units.of(Flow::Write), now),
        }
    }

    fn lane(&mut self, flow: Flow) -> &mut Lane {
        match flow {
            Flow::Read => &mut self.read,
            Flow::Write => &mut self.write,
        }
    }
}

const PARTITION: Units = Units {
    wcu: limits::PARTITION_WCU,
    rcu: limits::PARTITION_RCU,
};

/// How a table or index is paid for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Billing {
    /// Starts at what it is warmed to, takes twice its previous peak, up to the quota.
    OnDemand {
        warm: Units,
        quota: u32,
    },
    Provisioned(Units),
}

/// One table's or index's capacity and use.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    billing: Billing,
    enforced: bool,
    /// What it takes now.
    units: Units,
    all: Pair,
    /// 2^n of them.
    partitions: Vec<Pair>,
    window_from: Micros,
    /// The most in a second of the current window, write and read.
    window_peak: [Meter; 2],
}

/// One partition of a report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionUse {
    pub(crate) number: usize,
    pub(crate) write: Meter,
    pub(crate) read: Meter,
}

impl Capacity {
    /// Not `enforced`: counts, and holds nobody up.
    pub(crate) fn new(billing: Billing, enforced: bool, now: Micros) -> Self {
        let units = match billing {
            Billing::OnDemand { warm, quota } => Units {
                wcu: warm.wcu.min(quota.max(1)),
                rcu: warm.rcu.min(quota.max(1)),
            },
            Billing::Provisioned(units) => units,
        };
        Self {
            billing,
            enforced,
            units,
            all: Pair::new(units, now),
            partitions: vec![Pair::new(PARTITION, now); partitions_for(units)],
            window_from: now,
            window_peak: [Meter::default(); 2],
        }
    }

    pub(crate) fn billing(&self) -> Billing {
        self.billing
    }

    pub(crate) fn units(&self) -> Units {
        self.units
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&mut self, hash: u64) -> &mut Pair {
        let bits = self.partitions.len().trailing_zeros();
        // With one partition there is nothing to shift; the top bits say which half of which half.
        let at = hash.checked_shr(64 - bits).unwrap_or(0);
        let at = usize::try_from(at).unwrap_or(0);
        &mut self.partitions[at]
    }

    /// Whether there is anything left for a request on the key with this hash.
    pub(crate) fn may(&mut self, flow: Flow, hash: u64, now: Micros) -> Result<(), Throttled> {
        self.grow(now);
        if !self.enforced {
            return Ok(());
        }
        let rate = self.units.of(flow);
        let lane = self.partition(hash).lane(flow);
        lane.bucket.fill(PARTITION.of(flow), now);
        if lane.bucket.level <= 0.0 {
            return Err(Throttled::Partition);
        }
        let bucket = &mut self.all.lane(flow).bucket;
        bucket.fill(rate, now);
        match bucket.level <= 0.0 {
            true => Err(Throttled::Table),
            false => Ok(()),
        }
    }

    /// Takes `units`, whether there are as many or not.
    pub(crate) fn charge(&mut self, flow: Flow, hash: u64, units: f64, now: Micros) {
        let rate = self.units.of(flow);
        let lane = self.partition(hash).lane(flow);
        lane.bucket.fill(PARTITION.of(flow), now);
        lane.bucket.level -= units;
        lane.meter.add(units, now);
        let all = self.all.lane(flow);
        all.bucket.fill(rate, now);
        all.bucket.level -= units;
        all.meter.add(units, now);
        self.window_peak[usize::from(flow == Flow::Read)].add(units, now);
    }

    /// At the end of a window: twice its peak, if that is more.
    fn grow(&mut self, now: Micros) {
        if now.saturating_sub(self.window_from) < limits::PEAK_WINDOW {
            return;
        }
        let [write, read] = std::mem::take(&mut self.window_peak);
        self.window_from = now;
        let Billing::OnDemand { quota, .. } = self.billing else {
            return;
        };
        let twice = |meter: Meter, now: u32| {
            let wanted = (meter.peak * 2.0).min(f64::from(quota));
            now.max(wanted as u32)
        };
        self.units = Units {
            wcu: twice(write, self.units.wcu),
            rcu: twice(read, self.units.rcu),
        };
        while self.partitions.len() < partitions_for(self.units) {
            self.split();
        }
    }

    /// Every partition in two.
    fn split(&mut self) {
        let half = |pair: &Pair| {
            let mut half = *pair;
            for lane in [&mut half.read, &mut half.write] {
                lane.bucket.level /= 2.0;
                lane.meter = Meter::default();
            }
            [half, half]
        };
        self.partitions = self.partitions.iter().flat_map(half).collect();
    }

    pub(crate) fn table_use(&self) -> PartitionUse {
        PartitionUse {
            number: 0,
            write: self.all.write.meter,
            read: self.all.read.meter,
        }
    }

    /// The partitions with the highest peak of writes, or of reads where nothing was written.
    pub(crate) fn hottest(&self, count: usize) -> Vec<PartitionUse> {
        let of = |(number, pair): (usize, &Pair)| PartitionUse {
            number,
            write: pair.write.meter,
            read: pair.read.meter,
        };
        let mut all: Vec<_> = self.partitions.iter().enumerate().map(of).collect();
        let heat = |one: &PartitionUse| {
            let write = one.write.peak / PARTITION.of(Flow::Write);
            write.max(one.read.peak / PARTITION.of(Flow::Read))
        };
        all.retain(|one| heat(one) > 0.0);
        all.sort_by(|a, b| heat(b).total_cmp(&heat(a)));
        all.truncate(count);
        all
    }

    /// Forgets what was used; what is left in the buckets stays.
    pub(crate) fn forget(&mut self) {
        for pair in self.partitions.iter_mut().chain([&mut self.all]) {
            pair.read.meter = Meter::default();
            pair.write.meter = Meter::default();
        }
    }
}

/// As many as the capacity needs, up to the next power of two: partitions split in halves.
fn partitions_for(units: Units) -> usize {
    let write = units.wcu.div_ceil(limits::PARTITION_WCU);
    let read = units.rcu.div_ceil(limits::PARTITION_RCU);
    let count = write.max(read).clamp(1, limits::PARTITIONS_MAX);
    count.next_power_of_two() as usize
}
