//! The pools of lanes of one shard, their timers, and which shard owns which stripe.
//!
//! Ownership is a hint for batching, never a lease: the conditions in the write protect the stock. Shards and processes
//! that disagree about ownership, or stop while they own a stripe, cause conflicts and no wrong outcome.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::rc::Rc;

use crate::effect::PoolId;
use crate::ids::{EventId, ReservationId};
use crate::lane::{LaneSettings, Pool, PoolKey, PoolKind, StripeSet};
use crate::limits;
use crate::membership::{Member, Members, ProcessId};
use crate::time::Micros;
use crate::transaction::EventLayout;

/// From this number of lanes on, idle pools are evicted.
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
    /// The processes that sell from this store, as far as this one knows.
    members: Rc<Members>,
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
            members: Rc::new(Members::single(Member {
                id: ProcessId(0),
                shards: shards.max(1) as u16,
            })),
        }
    }

    pub(super) fn set_members(&mut self, members: Rc<Members>) {
        self.members = members;
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
        layout: EventLayout,
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
                let stripes = StripeSet {
                    first: self.first_owned_stripe(event) as u16,
                    step: self.shards as u16,
                };
                let slot = PoolSlot {
                    pool: Pool::new(key.clone(), stripes, layout, self.settings),
                    timer: None,
                    // Counted as one lane until its first use.
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
    pub(super) fn update_after_use(&mut self, id: PoolId) {
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

    /// The shard that reserves units: this one if it owns a stripe, else the owner of a stripe chosen by a hash of
    /// the reservation id. Repeated calls of a reservation are forwarded to the same shard, where the later ones
    /// wait for the first.
    pub(super) fn shard_for_reserve(
        &self,
        event: &EventId,
        reservation: &ReservationId,
        stripes: u16,
    ) -> usize {
        let stripes = usize::from(stripes.max(1));
        if self.first_owned_stripe(event) < stripes {
            return self.shard;
        }
        let pick = stable_hash(reservation.as_str()) as usize % stripes;
        self.owner(event, pick as u16)
    }

    /// The first stripe that this shard owns, by rotation; the event may not have it.
    fn first_owned_stripe(&self, event: &EventId) -> usize {
        (self.shard + self.shards - self.rotation(event)) % self.shards
    }

    /// The shard that writes to a stripe; for stripe 0 also to the event's seats.
    pub(super) fn owner(&self, event: &EventId, stripe: u16) -> usize {
        (self.rotation(event) + usize::from(stripe)) % self.shards
    }

    fn rotation(&self, event: &EventId) -> usize {
        stable_hash(event.as_str()) as usize % self.shards
    }

    fn sweep(&mut self) {
        let (by_key, timers) = (&mut self.by_key, &mut self.timers);
        self.slots.retain(|id, slot| {
            let is_kept = !slot.pool.is_idle();
            if !is_kept {
                by_key.remove(slot.pool.key());
                if let Some(at) = slot.timer {
                    timers.remove(&(at, *id));
                }
            }
            is_kept
        });
        self.lanes = self.slots.values().map(|slot| slot.lanes).sum();
        // Otherwise every new event would sweep while most lanes are busy.
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

    fn shard_for_reserve(lanes: &Pools, n: usize, stripes: u16) -> usize {
        let event: EventId = "evt".parse().expect("legal");
        let reservation: ReservationId = format!("r{n}").parse().expect("legal");
        lanes.shard_for_reserve(&event, &reservation, stripes)
    }

    #[test]
    fn all_shards_agree_on_the_owner_of_a_stripe() {
        let owners: BTreeSet<_> =
            (0..4).map(|shard| shard_for_reserve(&lanes(shard, 4), 1, 1)).collect();
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn shard_with_a_stripe_forwards_no_reservation() {
        for shard in 0..4 {
            let lanes = lanes(shard, 4);
            for n in 0..200 {
                assert_eq!(shard_for_reserve(&lanes, n, 10), shard);
            }
        }
    }

    #[test]
    fn shard_without_a_stripe_forwards_to_an_owner() {
        let mut sellers = BTreeSet::new();
        for shard in 0..8 {
            for n in 0..50 {
                let seller_of = shard_for_reserve(&lanes(shard, 8), n, 3);
                assert_eq!(
                    shard_for_reserve(&lanes(seller_of, 8), n, 3),
                    seller_of,
                    "from {shard}"
                );
                sellers.insert(seller_of);
            }
        }
        assert_eq!(sellers.len(), 3, "and every stripe is sold from");
    }
}
