//! What the lanes of a pool share: the queue, its pacing, and known shortages of stripes.

use crate::fault::{self, Fault};
use std::collections::BTreeMap;

use super::batch_entry::BatchEntry;
use super::latency::LatencyEstimator;
use super::queue::Queue;
use crate::ids::EventId;
use crate::limits;
use crate::rules::{LateCommit, StockChange};
use crate::time::Micros;
use crate::transaction::EventLayout;

/// What the lanes of a pool write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    /// Units: one lane per stripe.
    Stripes,
    /// Records that touch no stripe. Several lanes work in parallel.
    Unstriped,
    /// Seats that another process is likely to choose too. Few entries per transaction, because one that is taken cancels
    /// all of them.
    ContendedSeats,
    /// Many expiries of holds on this stripe: one transaction moves their units to one release record. The stripe is
    /// written when that record is expired. See [`super::batch`]. A release record is counted as held or not, like the
    /// holds that it replaces, so the two kinds of holds are in different batches.
    ExpiryBatch { stripe: u16, counted: bool },
}

/// Key of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    pub event: EventId,
    pub kind: PoolKind,
}

/// Settings that lanes need.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneSettings {
    pub late_commit: LateCommit,
    /// How long after its start one strong read of all stripes may be reused to reject calls that arrive
    /// later; zero: never.
    pub sold_out_latch: Micros,
}

/// Remaining units of a stripe, less those allocated to entries.
#[derive(Clone, Copy, Debug)]
struct StripeRemainder {
    units: u64,
    /// When the figure was read.
    at: Micros,
}

#[derive(Clone, Copy, Debug)]
struct TotalStock {
    /// When the read began.
    began: Micros,
    remaining: u64,
}

/// Whether there may be enough units, by the last read of all stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SoldOutHint {
    /// No shortage is known.
    None,
    /// There were too few, and the read is recent enough to reject on it.
    Fresh { remaining: u64 },
    /// There were too few, and the read is too old to reject on it.
    Stale,
}

/// The state that the lanes of a pool share.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) key: PoolKey,
    /// Layout of the event, as last read.
    pub(super) layout: EventLayout,
    pub(super) late: LateCommit,
    pub(super) queue: Queue,
    /// Entries for which no stripe here is known to have capacity: they wait for a read of all stripes.
    pub(super) awaiting_read: Vec<BatchEntry>,
    /// The lanes that take from the queue, one bit each.
    pub(super) owned: u64,
    /// Stripes from which other processes sell, too, by what is known of the members.
    pub(super) shared: u64,
    /// Processes among which the calls for the event are divided, by what is known of the members.
    pub(super) processes: u16,
    /// Lanes of these that yield the queue to the others for a while.
    pub(super) yielding: u64,
    /// Lanes with a transaction in flight, or pausing.
    pub(super) busy: u64,
    pub(super) latency: LatencyEstimator,
    /// Until then the queue waits although a lane is free: see [`PoolState::pace`].
    paced_until: Micros,
    /// Until then a short queue waits for more entries.
    batching_until: Micros,
    /// Until then other processes are assumed to sell from these stripes: lanes have conflicted repeatedly.
    contended_until: Micros,
    /// The last strong read of all stripes, if it showed fewer units than a call may request.
    sold_out: Option<TotalStock>,
    /// When units were last returned here, or an operator changed the event.
    hint_reset_at: Micros,
    /// How long after its start a read decides about calls that arrive later; zero: never.
    sold_out_latch: Micros,
    /// Stripes of these lanes with few units. A hint, never a reason to reject: it saves writes that would
    /// fail.
    remainders: BTreeMap<u16, StripeRemainder>,
}

impl PoolState {
    pub(super) fn new(
        key: PoolKey,
        layout: EventLayout,
        settings: LaneSettings,
        owned: u64,
    ) -> Self {
        Self {
            key,
            layout,
            late: settings.late_commit,
            shared: 0,
            processes: 1,
            yielding: 0,
            busy: 0,
            latency: LatencyEstimator::default(),
            paced_until: Micros(0),
            batching_until: Micros(0),
            contended_until: Micros(0),
            sold_out: None,
            hint_reset_at: Micros(0),
            sold_out_latch: settings.sold_out_latch,
            queue: Queue::default(),
            awaiting_read: Vec::new(),
            owned,
            remainders: BTreeMap::new(),
        }
    }

    /// Whether any lane that takes from the queue may write this entry.
    pub(super) fn is_for_any(&self, entry: &BatchEntry) -> bool {
        match self.key.kind {
            PoolKind::Stripes => {
                entry.stock_change() == StockChange::Reserve && !entry.queue.has_stripe_plan
            }
            PoolKind::Unstriped | PoolKind::ContendedSeats | PoolKind::ExpiryBatch { .. } => true,
        }
    }

    /// Whether entries wait that any lane may write.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.awaiting_read.is_empty()
    }

    /// The lanes that take from the queue now: all, if all of them yield.
    pub(super) fn serving(&self) -> u64 {
        match self.owned & !self.yielding {
            0 => self.owned,
            some => some,
        }
    }

    /// Sets the earliest time of the next transaction, after one was sent.
    ///
    /// 1. *Pacing.* Without pacing, lanes finish at the same time. Each lane then takes only the entries that arrived
    ///    since the previous dispatch, so all lanes are in flight with small batches, and a burst waits until the first
    ///    lane is free again: the mean wait is a third of a transaction. So transactions are spread evenly over the
    ///    duration of one.
    /// 2. *Batching delay.* Each transaction costs two write units for the stripe and the CPU time of ten entries,
    ///    whatever its size. So a short queue waits for more entries: see [`batching_delay`]. There is no
    ///    delay where another process sells from these stripes, because a larger transaction blocks the other
    ///    process for longer, and a conflict delays more callers. That is so if the stripes are shared, and while
    ///    lanes conflict repeatedly, because processes disagree about the members.
    ///
    /// `taken`: entries of the transaction that was sent.
    pub(super) fn pace(&mut self, taken: usize, now: Micros) {
        let serving = self.serving();
        let lanes = u64::from(serving.count_ones());
        let busy = u64::from((serving & self.busy).count_ones());
        // A lane that is busy alone delays nobody, unless the delay has filled its transaction.
        let is_crowded = (busy > 1 && busy * limits::PACED_FROM_SHARE >= lanes)
            || taken >= limits::BATCHING_WORTH_ENTRIES;
        let pace = self.latency.spacing(lanes);
        let is_contended = serving & self.shared != 0 || now < self.contended_until;
        let paced_lanes_min = match is_contended {
            true => limits::PACED_LANES_CONTENDED_MIN,
            false => limits::PACED_LANES_MIN,
        };
        // Nothing is known of the first transactions: no pacing.
        let is_delayed = lanes >= paced_lanes_min && is_crowded && pace.0 > 0;
        let batching_delay = match is_contended {
            true => Micros(0),
            false => self.batching_delay(),
        };
        (self.paced_until, self.batching_until) = match is_delayed {
            true => (now.plus(pace), now.plus(batching_delay)),
            false => (Micros(0), Micros(0)),
        };
    }

    fn batching_delay(&self) -> Micros {
        match self.key.kind {
            // A larger transaction is cancelled more often, because one taken seat cancels it.
            PoolKind::ContendedSeats => batching_delay(1),
            _ => batching_delay(usize::from(self.processes)),
        }
    }

    /// A lane has conflicted repeatedly.
    pub(super) fn record_contention(&mut self, now: Micros) {
        let most = limits::LANE_YIELD_MAX.as_micros() as u64;
        self.contended_until = now.plus(Micros(most));
        self.batching_until = Micros(0);
    }

    /// Clears delays that have ended, so that no timer is set for them.
    pub(super) fn clear_ended_delays(&mut self, now: Micros) {
        for until in [&mut self.paced_until, &mut self.batching_until] {
            if *until <= now {
                *until = Micros(0);
            }
        }
    }

    /// Whether the queue waits because of pacing or the batching delay. A queue that fills a transaction does not
    /// wait.
    pub(super) fn is_delayed(&self, now: Micros) -> bool {
        now < self.delayed_until()
    }

    fn delayed_until(&self) -> Micros {
        match self.queue.foreground.len() {
            limits::BATCH_ENTRIES_MAX.. => Micros(0),
            limits::BATCHING_DELAY_ENTRIES_MAX.. => self.paced_until,
            _ => self.paced_until.max(self.batching_until),
        }
    }

    /// When a free lane takes the queue that waits now.
    pub(super) fn delay_ends(&self) -> Option<Micros> {
        let is_free = self.serving() & !self.busy != 0;
        let until = self.delayed_until();
        (is_free && !self.queue.is_empty() && until.0 > 0).then_some(until)
    }

    /// Whether more than one lane takes from the queue.
    pub(super) fn has_several_lanes(&self) -> bool {
        self.owned.count_ones() > 1
    }

    /// What the last read of all stripes shows for a call for `units` that arrived at `arrived`.
    pub(super) fn sold_out_hint(&self, units: u32, arrived: Micros) -> SoldOutHint {
        match self.sold_out {
            Some(seen) if u64::from(units) > seen.remaining => {
                let is_recent = arrived <= seen.began.plus(self.sold_out_latch);
                if self.sold_out_latch.0 > 0 && (is_recent || fault::planted(Fault::HintNeverStale))
                {
                    SoldOutHint::Fresh { remaining: seen.remaining }
                } else {
                    SoldOutHint::Stale
                }
            }
            _ => SoldOutHint::None,
        }
    }

    /// Records that all stripes together had this many units at `began` or later.
    pub(super) fn record_total(&mut self, remaining: u64, began: Micros) {
        let is_newer = self.sold_out.is_none_or(|seen| seen.began <= began);
        if is_newer && began >= self.hint_reset_at {
            let matters = remaining < u64::from(limits::QTY_MAX_CEILING);
            self.sold_out = matters.then_some(TotalStock { began, remaining });
        }
    }

    /// `units` were returned: requeues, in order of arrival, as many entries that wait for a read as may now fit.
    /// Without this, later calls would overtake them.
    pub(super) fn retry_awaiting(&mut self, mut units: u64) {
        if units == 0 || self.awaiting_read.is_empty() {
            return;
        }
        self.awaiting_read.sort_by_key(|entry| entry.queue.sequence);
        let fits = |entry: &&BatchEntry| {
            let is_left = units > 0;
            units = units.saturating_sub(u64::from(entry.write.qty));
            is_left
        };
        let retried = self.awaiting_read.iter().take_while(fits).count();
        let retried: Vec<_> = self.awaiting_read.drain(..retried).collect();
        self.queue.requeue(retried);
    }

    /// Discards the sold-out hint, because units may have been added since the read.
    pub(super) fn discard_sold_out_hint(&mut self, now: Micros) {
        self.sold_out = None;
        self.hint_reset_at = now;
    }

    /// Whether all stripes must be read before this entry is sent: the last read showed too few units for
    /// it, and a write would most likely fail. Or an earlier entry waits for a read of the only stripe,
    /// where order of arrival counts.
    pub(super) fn needs_read(&self, entry: &BatchEntry) -> bool {
        let is_later = |first: &BatchEntry| first.queue.sequence < entry.queue.sequence;
        self.key.kind == PoolKind::Stripes
            && self.is_for_any(entry)
            && (self.sold_out_hint(entry.write.qty, entry.queue.arrived) != SoldOutHint::None
                || (self.layout.stripes <= 1 && self.awaiting_read.first().is_some_and(is_later)))
    }

    /// Whether the remaining units of its stripe matter before this entry is sent. A single stripe is
    /// always written, because only its own condition counts.
    pub(super) fn needs_remainder(&self, entry: &BatchEntry) -> bool {
        self.layout.stripes > 1 && self.key.kind == PoolKind::Stripes && self.is_for_any(entry)
    }

    /// Whether the stripe may have that many units; true if no shortage is known.
    pub(super) fn may_have(&self, stripe: u16, units: u32) -> bool {
        self.remainders.get(&stripe).is_none_or(|left| left.units >= u64::from(units))
    }

    /// The stripes known to have few units, one bit each.
    pub(super) fn scarce(&self) -> u64 {
        self.remainders.keys().fold(0, |bits, stripe| bits | bit(*stripe))
    }

    pub(super) fn reserve_units(&mut self, stripe: u16, units: u32) {
        if let Some(left) = self.remainders.get_mut(&stripe) {
            left.units = left.units.saturating_sub(u64::from(units));
        }
    }

    /// Adds units that were returned, or allocated to an entry that did not take them.
    pub(super) fn return_units(&mut self, stripe: u16, units: u32) {
        if let Some(left) = self.remainders.get_mut(&stripe) {
            left.units = left.units.saturating_add(u64::from(units));
        }
    }

    /// Records the remaining units of a stripe, less what has been given to entries.
    pub(super) fn record_remainder(&mut self, stripe: u16, units: u64, at: Micros) {
        if bit(stripe) & self.owned == 0 {
            return;
        }
        if units < limits::STRIPE_SCARCE_UNITS {
            self.remainders.insert(stripe, StripeRemainder { units, at });
        } else {
            self.remainders.remove(&stripe);
        }
    }

    /// Drops figures that are too old.
    pub(super) fn evict_old_remainders(&mut self, now: Micros) {
        let most = limits::STRIPE_SCARCE_AGE.as_micros() as u64;
        self.remainders.retain(|_, left| now.since(left.at).0 <= most);
    }

    /// Requeues entries of a transaction that was not applied and that any lane may write.
    pub(super) fn requeue(&mut self, entries: Vec<BatchEntry>) {
        for entry in &entries {
            for draw in &entry.write.draws {
                if entry.stock_change() == StockChange::Reserve {
                    self.return_units(draw.stripe, draw.units);
                }
            }
        }
        self.queue.requeue(entries);
    }
}

/// How long a short queue waits for more entries. The calls for an event are divided among its processes, so that a queue
/// fills more slowly, and transactions and reads would become smaller.
pub(crate) fn batching_delay(processes: usize) -> Micros {
    let factor = processes.clamp(1, limits::BATCHING_DELAY_PROCESSES_MAX) as u64;
    Micros(limits::BATCHING_DELAY.as_micros() as u64 * factor)
}

/// The bit of a lane that can take from a queue.
pub(super) fn bit(index: u16) -> u64 {
    1_u64.checked_shl(u32::from(index)).unwrap_or(0)
}
