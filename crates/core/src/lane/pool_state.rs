//! What the lanes of a pool share: the queue, and what is known of stripes that have little left.

use crate::fault::{self, Fault};
use std::collections::BTreeMap;

use super::batch_entry::BatchEntry;
use super::latency::LatencyEstimator;
use super::pool::{LaneSettings, PoolKey, PoolKind};
use super::queue::Queue;
use crate::limits;
use crate::rules::{LateCommit, StockChange};
use crate::time::Micros;
use crate::transaction::EventLayout;

/// What a stripe has left that nobody here has been promised.
#[derive(Clone, Copy, Debug)]
struct StripeRemainder {
    units: u64,
    /// When it was learned.
    at: Micros,
}

#[derive(Clone, Copy, Debug)]
struct TotalStock {
    /// When the read began.
    began: Micros,
    remaining: u64,
}

/// Whether there may be so many units, as far as the last look at all stripes tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoldOutHint {
    /// Nothing speaks against it.
    None,
    /// There were fewer, and the look is recent enough to say so.
    Fresh { remaining: u64 },
    /// There were fewer, and it is time to look again.
    Stale,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) key: PoolKey,
    /// Of the event, as last seen.
    pub(super) shape: EventLayout,
    pub(super) late: LateCommit,
    pub(super) queue: Queue,
    /// Entries that no stripe here is known to have room for, waiting for a read of all stripes.
    pub(super) awaiting_read: Vec<BatchEntry>,
    /// The lanes that take from the queue, a bit each.
    pub(super) owned: u64,
    /// Those of them that leave it to the others for a while.
    pub(super) yielding: u64,
    /// Lanes with a transaction in flight, or pausing.
    pub(super) busy: u64,
    pub(super) latency: LatencyEstimator,
    /// Until then what is in queue waits, although a lane is free: see [`PoolState::pace`].
    paced_until: Micros,
    /// Until then it waits for more to come, while it is short.
    batching_until: Micros,
    /// Until then another process is taken to be at these stripes.
    contested_until: Micros,
    /// What a strong read of all stripes has shown, where some callers may want more than that.
    sold_out: Option<TotalStock>,
    /// When something was last given back here, or an operator changed the event.
    reopened: Micros,
    /// For how long after a read began it decides about callers who come later; zero: never.
    sold_out_latch: Micros,
    /// Stripes of these lanes that have little left. A hint, never a reason to refuse: it saves
    /// writes that would fail.
    remainders: BTreeMap<u16, StripeRemainder>,
}

impl PoolState {
    pub(super) fn new(
        key: PoolKey,
        shape: EventLayout,
        settings: LaneSettings,
        owned: u64,
    ) -> Self {
        Self {
            key,
            shape,
            late: settings.late_commit,
            yielding: 0,
            busy: 0,
            latency: LatencyEstimator::default(),
            paced_until: Micros(0),
            batching_until: Micros(0),
            contested_until: Micros(0),
            sold_out: None,
            reopened: Micros(0),
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
                entry.movement() == StockChange::Reserve && !entry.metadata.planned
            }
            PoolKind::Unstriped | PoolKind::ExpiryBatch(_) => true,
        }
    }

    /// The lanes that take from the queue now: all, if all would leave it to others.
    pub(super) fn serving(&self) -> u64 {
        match self.owned & !self.yielding {
            0 => self.owned,
            some => some,
        }
    }

    /// Some of the queue has been sent: the next go a little later, where many lanes are busy.
    ///
    /// Lanes settle in bunches. Each would take what little has come since the one before, all would
    /// be away with next to nothing, and a crowd would gather until the first is back: the queue would
    /// empty and fill once per transaction, and the mean wait be a third of one. So transactions leave
    /// spread over the time that one takes.
    ///
    /// And a transaction has its price, whoever is in it: two write units for the stripe, and as much
    /// of the shard's time as ten of its entries. With many lanes free and a few callers coming it
    /// would be paid for one or two of them. So they gather for as long as a distance may be. But not
    /// where another process writes to these stripes: the larger a transaction, the longer it is in
    /// the other's way, and the more callers it makes wait when the other was first.
    pub(super) fn pace(&mut self, now: Micros) {
        let serving = self.serving();
        let lanes = u64::from(serving.count_ones());
        let busy = u64::from((serving & self.busy).count_ones());
        let is_crowded = busy * limits::PACED_FROM_SHARE >= lanes;
        let pace = self.latency.spacing(lanes);
        // Nothing is known of the first transactions, and nobody waits for that.
        let is_paced = lanes >= limits::PACED_LANES_MIN && is_crowded && pace.0 > 0;
        let most = match now < self.contested_until {
            true => 0,
            false => limits::PACE_MAX.as_micros() as u64,
        };
        (self.paced_until, self.batching_until) = match is_paced {
            true => (now.plus(pace), now.plus(Micros(most))),
            false => (Micros(0), Micros(0)),
        };
    }

    /// Another process has been at one of the stripes.
    pub(super) fn contested(&mut self, now: Micros) {
        let most = limits::LANE_YIELD_MAX.as_micros() as u64;
        self.contested_until = now.plus(Micros(most));
        self.batching_until = Micros(0);
    }

    /// Forgets a distance that has been kept: nobody is woken for it any more.
    pub(super) fn end_pause(&mut self, now: Micros) {
        for until in [&mut self.paced_until, &mut self.batching_until] {
            if *until <= now {
                *until = Micros(0);
            }
        }
    }

    /// A whole transaction's worth does not wait.
    pub(super) fn is_paced(&self, now: Micros) -> bool {
        now < self.paused_until()
    }

    fn paused_until(&self) -> Micros {
        match self.queue.foreground.len() {
            limits::BATCH_ENTRIES_MAX.. => Micros(0),
            limits::BATCHING_DELAY_ENTRIES_MAX.. => self.paced_until,
            _ => self.paced_until.max(self.batching_until),
        }
    }

    /// When a free lane takes the queue that it leaves alone now.
    pub(super) fn pause_ends(&self) -> Option<Micros> {
        let is_free = self.serving() & !self.busy != 0;
        let until = self.paused_until();
        (is_free && !self.queue.is_empty() && until.0 > 0).then_some(until)
    }

    /// Whether other lanes than one take from the queue.
    pub(super) fn has_several_lanes(&self) -> bool {
        self.owned.count_ones() > 1
    }

    /// What the last look at all stripes says to somebody who wants `units` and came at `arrived`.
    pub(super) fn sold_out_hint(&self, units: u32, arrived: Micros) -> SoldOutHint {
        match self.sold_out {
            Some(seen) if u64::from(units) > seen.remaining => {
                let is_recent = arrived <= seen.began.plus(self.sold_out_latch);
                if self.sold_out_latch.0 > 0 && (is_recent || fault::planted(Fault::HintNeverStale))
                {
                    SoldOutHint::Fresh {
                        remaining: seen.remaining,
                    }
                } else {
                    SoldOutHint::Stale
                }
            }
            _ => SoldOutHint::None,
        }
    }

    /// All stripes together had this much at `began` or later.
    pub(super) fn record_total(&mut self, remaining: u64, began: Micros) {
        let is_newer = self.sold_out.is_none_or(|seen| seen.began <= began);
        if is_newer && began >= self.reopened {
            let matters = remaining < u64::from(limits::QTY_MAX_CEILING);
            self.sold_out = matters.then_some(TotalStock { began, remaining });
        }
    }

    /// So many units have been given back: who waits for a read tries for them, who came first first.
    /// Else they would be had by who comes next and finds the latch open.
    pub(super) fn retry_awaiting(&mut self, mut units: u64) {
        if units == 0 || self.awaiting_read.is_empty() {
            return;
        }
        self.awaiting_read
            .sort_by_key(|entry| entry.metadata.number);
        let for_them = |entry: &&BatchEntry| {
            let is_left = units > 0;
            units = units.saturating_sub(u64::from(entry.write.qty));
            is_left
        };
        let trying = self.awaiting_read.iter().take_while(for_them).count();
        let trying: Vec<_> = self.awaiting_read.drain(..trying).collect();
        self.queue.requeue(trying);
    }

    /// There may be more than was seen.
    pub(super) fn reopen(&mut self, now: Micros) {
        self.sold_out = None;
        self.reopened = now;
    }

    /// Whether all stripes must be looked at before this entry is sent: the last look showed too
    /// little for it, and a write would most likely fail. Or somebody who came before waits for a look
    /// at the only stripe there is, where first come is first served.
    pub(super) fn needs_read(&self, entry: &BatchEntry) -> bool {
        let is_later = |first: &BatchEntry| first.metadata.number < entry.metadata.number;
        self.key.kind == PoolKind::Stripes
            && self.is_for_any(entry)
            && (self.sold_out_hint(entry.write.qty, entry.metadata.arrived) != SoldOutHint::None
                || (self.shape.stripes <= 1 && self.awaiting_read.first().is_some_and(is_later)))
    }

    /// Whether what its stripe has left matters to this entry before it is sent. A single stripe
    /// is always asked, cause only its own word counts.
    pub(super) fn needs_remainder(&self, entry: &BatchEntry) -> bool {
        self.shape.stripes > 1 && self.key.kind == PoolKind::Stripes && self.is_for_any(entry)
    }

    /// Whether the stripe may have so many units; not known to be short means yes.
    pub(super) fn may_have(&self, stripe: u16, units: u32) -> bool {
        self.remainders
            .get(&stripe)
            .is_none_or(|left| left.units >= u64::from(units))
    }

    /// The stripes known to have little, a bit each.
    pub(super) fn scarce(&self) -> u64 {
        self.remainders
            .keys()
            .fold(0, |bits, stripe| bits | bit(*stripe))
    }

    pub(super) fn reserve_units(&mut self, stripe: u16, units: u32) {
        if let Some(left) = self.remainders.get_mut(&stripe) {
            left.units = left.units.saturating_sub(u64::from(units));
        }
    }

    /// Units that are there after all, or again.
    pub(super) fn return_units(&mut self, stripe: u16, units: u32) {
        if let Some(left) = self.remainders.get_mut(&stripe) {
            left.units = left.units.saturating_add(u64::from(units));
        }
    }

    /// A stripe has just said what it has left, less what has been promised of that.
    pub(super) fn record_remainder(&mut self, stripe: u16, units: u64, at: Micros) {
        if bit(stripe) & self.owned == 0 {
            return;
        }
        if units < limits::STRIPE_SCARCE_UNITS {
            self.remainders
                .insert(stripe, StripeRemainder { units, at });
        } else {
            self.remainders.remove(&stripe);
        }
    }

    /// What was learned long ago is no longer believed.
    pub(super) fn evict_old_remainders(&mut self, now: Micros) {
        let most = limits::STRIPE_SCARCE_AGE.as_micros() as u64;
        self.remainders
            .retain(|_, left| now.since(left.at).0 <= most);
    }

    /// Entries of a transaction that did not go through, which any lane may write, go back to the
    /// queue.
    pub(super) fn requeue(&mut self, entries: Vec<BatchEntry>) {
        for entry in &entries {
            for draw in &entry.write.draws {
                if entry.movement() == StockChange::Reserve {
                    self.return_units(draw.stripe, draw.units);
                }
            }
        }
        self.queue.requeue(entries);
    }
}

/// The bit of a lane, for those that can take from a queue.
pub(super) fn bit(index: u16) -> u64 {
    1_u64.checked_shl(u32::from(index)).unwrap_or(0)
}
