//! The pools of lanes of one shard, their timers, and which shard owns which stripe.
//!
//! Ownership is a hint for batching, never a lease: the conditions in the write protect the stock. Shards and processes
//! that disagree about ownership, or stop while they own a stripe, cause conflicts and no wrong outcome.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use crate::effect::PoolId;
use crate::ids::{EventId, ReservationId};
use crate::lane::{LaneSettings, Pool, PoolKey, PoolKind, StripeSet};
use crate::limits;
use crate::time::Micros;
use crate::transaction::EventLayout;

/// Number of lanes from which idle pools are evicted.
const IDLE_KEPT_MAX: usize = 1_024;

struct PoolSlot {
    pool: Pool,
    /// The time in `timers`.
    timer: Option<Micros>,
    /// Number of lanes, as included in the total.
    lanes: usize,
}

pub(super) struct Pools {
    shard: usize,
    shards: usize,
    settings: LaneSettings,
    slots: HashMap<PoolId, PoolSlot, foldhash::fast::RandomState>,
    by_key: HashMap<PoolKey, PoolId, foldhash::fast::RandomState>,
    timers: BTreeSet<(Micros, PoolId)>,
    next: u64,
    /// Lanes of all pools.
    lanes: usize,
    /// Number of lanes at which idle pools are evicted.
    sweep_at: usize,
}

impl Pools {
    pub(super) fn new(shard: usize, shards: usize, settings: LaneSettings) -> Self {
        Self {
            shard,
            shards: shards.max(1),
            settings,
            slots: HashMap::default(),
            by_key: HashMap::default(),
            timers: BTreeSet::new(),
            next: 0,
            lanes: 0,
            sweep_at: IDLE_KEPT_MAX,
        }
    }

    pub(super) fn get_mut(&mut self, id: PoolId) -> Option<&mut Pool> {
        self.slots.get_mut(&id).map(|slot| &mut slot.pool)
    }

    pub(super) fn all_idle(&self) -> bool {
        self.slots.values().all(|slot| slot.pool.is_idle())
    }

    pub(super) fn depth(&self) -> usize {
        self.slots.values().map(|slot| slot.pool.depth()).sum()
    }

    pub(super) fn waiting(&self) -> usize {
        self.slots.values().map(|slot| slot.pool.waiting()).sum()
    }

    pub(super) fn wake_at(&self) -> Option<Micros> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The pool that sells units of an event, if there is one.
    pub(super) fn selling(&mut self, event: &EventId) -> Option<&mut Pool> {
        let key = PoolKey { event: event.clone(), kind: PoolKind::Stripes };
        let id = *self.by_key.get(&key)?;
        self.get_mut(id)
    }

    /// The pool of an event, created if there is none; `None` if there are too many lanes.
    pub(super) fn open(
        &mut self,
        event: &EventId,
        kind: PoolKind,
        shape: EventLayout,
    ) -> Option<PoolId> {
        let key = PoolKey { event: event.clone(), kind };
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => {
                if self.lanes >= self.sweep_at {
                    self.sweep();
                }
                if self.lanes >= limits::LANES_MAX {
                    return None;
                }
                let id = PoolId(self.next);
                self.next += 1;
                let share = StripeSet { first: self.first(event) as u16, step: self.shards as u16 };
                let slot = PoolSlot {
                    pool: Pool::new(key.clone(), share, shape, self.settings),
                    timer: None,
                    // It has one as soon as it is used.
                    lanes: 1,
                };
                self.lanes += 1;
                self.slots.insert(id, slot);
                self.by_key.insert(key, id);
                id
            }
        };
        Some(id)
    }

    /// Updates the pool's timer and its number of lanes.
    pub(super) fn after(&mut self, id: PoolId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let lanes = slot.pool.lanes().max(1);
        self.lanes += lanes - slot.lanes;
        slot.lanes = lanes;
        let due = slot.pool.wake_at();
        if slot.timer != due {
            if let Some(old) = slot.timer.take() {
                self.timers.remove(&(old, id));
            }
            if let Some(at) = due {
                self.timers.insert((at, id));
            }
            slot.timer = due;
        }
    }

    /// The pools whose time has come; their timers are removed.
    pub(super) fn take_due(&mut self, now: Micros) -> Vec<PoolId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, id));
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.timer = None;
            }
            due.push(id);
        }
        due
    }

    /// The shard that takes units: this one if it owns a stripe (no hop), else the owner of any stripe. One
    /// reservation always goes to the same shard, so that its repeats meet.
    pub(super) fn seller(
        &self,
        event: &EventId,
        reservation: &ReservationId,
        stripes: u16,
    ) -> usize {
        let stripes = usize::from(stripes.max(1));
        if self.first(event) < stripes {
            return self.shard;
        }
        let pick = stable_hash(reservation.as_str()) as usize % stripes;
        self.owner(event, pick as u16)
    }

    /// The first stripe that this shard owns, by rotation; the event may not have it.
    fn first(&self, event: &EventId) -> usize {
        (self.shard + self.shards - self.start(event)) % self.shards
    }

    /// The shard that writes to a stripe; for stripe 0 also to the event's seats.
    pub(super) fn owner(&self, event: &EventId, stripe: u16) -> usize {
        (self.start(event) + usize::from(stripe)) % self.shards
    }

    fn start(&self, event: &EventId) -> usize {
        stable_hash(event.as_str()) as usize % self.shards
    }

    fn sweep(&mut self) {
        let (by_key, timers) = (&mut self.by_key, &mut self.timers);
        self.slots.retain(|id, slot| {
            let keep = !slot.pool.is_idle();
            if !keep {
                by_key.remove(slot.pool.key());
                if let Some(at) = slot.timer {
                    timers.remove(&(at, *id));
                }
            }
            keep
        });
        self.lanes = self.slots.values().map(|slot| slot.lanes).sum();
        // Not again for every new event while most lanes are busy.
        self.sweep_at = IDLE_KEPT_MAX.max(2 * self.lanes);
    }
}

/// Equal on every shard, which is all that is required.
fn stable_hash(text: &str) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(shard: usize, shards: usize) -> Pools {
        Pools::new(shard, shards, LaneSettings::default())
    }

    fn seller(lanes: &Pools, n: usize, stripes: u16) -> usize {
        let event: EventId = "evt".parse().expect("legal");
        let reservation: ReservationId = format!("r{n}").parse().expect("legal");
        lanes.seller(&event, &reservation, stripes)
    }

    #[test]
    fn one_stripe_has_one_owner_whoever_asks() {
        let owners: BTreeSet<_> = (0..4).map(|shard| seller(&lanes(shard, 4), 1, 1)).collect();
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn enough_stripes_mean_no_hop() {
        for shard in 0..4 {
            let lanes = lanes(shard, 4);
            for n in 0..200 {
                assert_eq!(seller(&lanes, n, 10), shard);
            }
        }
    }

    #[test]
    fn a_shard_without_a_stripe_sends_to_one_that_keeps_it() {
        let mut sellers = BTreeSet::new();
        for shard in 0..8 {
            for n in 0..50 {
                let seller_of = seller(&lanes(shard, 8), n, 3);
                assert_eq!(seller(&lanes(seller_of, 8), n, 3), seller_of, "from {shard}");
                sellers.insert(seller_of);
            }
        }
        assert_eq!(sellers.len(), 3, "and every stripe is sold from");
    }
}
