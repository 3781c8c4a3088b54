//! The pools of lanes of one shard, their timers, and the stripes that each of them sells from.
//!
//! Ownership is a hint for batching, never a lease: the conditions in the write protect the stock. Shards and processes
//! that disagree about ownership, or stop while they own a stripe, cause conflicts and no wrong outcome. See
//! [`crate::stripe_ownership`].

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use crate::effect::PoolId;
use crate::ids::{EventId, ReservationId};
use crate::lane::{LaneSettings, Pool, PoolKey, PoolKind};
use crate::limits;
use crate::membership::Members;
use crate::stripe_ownership::StripeOwnership;
use crate::time::Micros;
use crate::transaction::EventLayout;
#[cfg(feature = "planted-faults")]
use crate::transaction::StripesRead;

/// From this number of lanes on, idle pools are evicted.
const IDLE_KEPT_MAX: usize = 1_024;

struct PoolSlot {
    pool: Pool,
    /// The time in `timers`.
    timer: Option<Micros>,
    /// Number of lanes, as included in the total.
    lanes: usize,
    /// The members, and the number of stripes, by which the pool has its stripes.
    stripes_by: (u64, u16),
}

pub(super) struct Pools {
    shard: usize,
    settings: LaneSettings,
    slots: HashMap<PoolId, PoolSlot, foldhash::fast::RandomState>,
    by_key: HashMap<PoolKey, PoolId, foldhash::fast::RandomState>,
    timers: BTreeSet<(Micros, PoolId)>,
    next: u64,
    /// Lanes of all pools.
    lanes: usize,
    /// Number of lanes at which idle pools are evicted.
    sweep_at: usize,
    ownership: StripeOwnership,
    /// Number of changes of the members.
    members_version: u64,
    /// See [`Pools::writer`].
    writer: usize,
}

impl Pools {
    pub(super) fn new(shard: usize, shards: usize, settings: LaneSettings) -> Self {
        Self {
            shard,
            settings,
            slots: HashMap::default(),
            by_key: HashMap::default(),
            timers: BTreeSet::new(),
            next: 0,
            lanes: 0,
            sweep_at: IDLE_KEPT_MAX,
            ownership: StripeOwnership::new(shards),
            members_version: 0,
            writer: shard,
        }
    }

    /// Sets the processes that sell from this store. A pool sells from its new stripes from its next entry on; lanes of
    /// other stripes finish what they have.
    pub(super) fn set_members(&mut self, members: Rc<Members>) {
        let before = members.all().iter().take(members.own_position());
        self.writer = self.shard + before.map(|member| usize::from(member.shards)).sum::<usize>();
        self.ownership.set_members(members);
        self.members_version += 1;
    }

    /// Position of this shard among the shards of all members, from 0. Members that disagree about each other may share
    /// a position, and then conflict more often.
    pub(super) fn writer(&self) -> usize {
        self.writer
    }

    pub(super) fn members(&self) -> &Rc<Members> {
        self.ownership.members()
    }

    /// The read as if the stripes of other processes were empty: a planted fault.
    #[cfg(feature = "planted-faults")]
    pub(super) fn without_stripes_of_others(
        &mut self,
        event: &EventId,
        mut read: StripesRead,
    ) -> StripesRead {
        if let StripesRead::Found(stripes) = &mut read {
            let own = self.ownership.stripes_of_process(event, stripes.len() as u16).owned;
            for (index, stripe) in stripes.iter_mut().enumerate() {
                if own & 1_u64 << index == 0 {
                    (stripe.capacity, stripe.remaining) = (0, 0);
                    (stripe.moved, stripe.held) = (0, 0);
                }
            }
        }
        read
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
            Some(id) => {
                let id = *id;
                self.update_stripes(id);
                id
            }
            None => {
                if self.lanes >= self.sweep_at {
                    self.sweep();
                }
                if self.lanes >= limits::LANES_MAX {
                    return None;
                }
                let id = PoolId(self.next);
                self.next += 1;
                let stripes = self.ownership.stripes_of_shard(event, layout.stripes, self.shard);
                let slot = PoolSlot {
                    pool: Pool::new(key.clone(), stripes, layout, self.settings),
                    timer: None,
                    // Counted as one lane until its first use.
                    lanes: 1,
                    stripes_by: (self.members_version, layout.stripes),
                };
                self.lanes += 1;
                self.slots.insert(id, slot);
                self.by_key.insert(key, id);
                id
            }
        };
        Some(id)
    }

    /// Gives the pool its stripes anew if the members or the number of stripes have changed.
    fn update_stripes(&mut self, id: PoolId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let stripes = slot.pool.layout().stripes;
        if slot.stripes_by == (self.members_version, stripes) {
            return;
        }
        slot.stripes_by = (self.members_version, stripes);
        let event = slot.pool.key().event.clone();
        let set = self.ownership.stripes_of_shard(&event, stripes, self.shard);
        match slot.pool.key().kind {
            PoolKind::Stripes => slot.pool.set_stripes(set),
            // No lane of these is a stripe.
            _ => slot.pool.set_processes(set.processes),
        }
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
        &mut self,
        event: &EventId,
        reservation: &ReservationId,
        stripes: u16,
    ) -> usize {
        match self.ownership.has_stripe(event, stripes, self.shard) {
            true => self.shard,
            false => self.ownership.shard_by_hash(event, stripes, reservation),
        }
    }

    /// The shard that writes to a stripe of an event with that many stripes.
    pub(super) fn shard_of_stripe(&mut self, event: &EventId, stripes: u16, stripe: u16) -> usize {
        self.ownership.shard_of_stripe(event, stripes, stripe)
    }

    /// The shard that writes to the event's seats. The same for all members.
    pub(super) fn shard_of_seats(&self, event: &EventId) -> usize {
        self.ownership.shard_of_seats(event)
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::membership::{Member, ProcessId};

    fn lanes(shard: usize, shards: usize) -> Pools {
        Pools::new(shard, shards, LaneSettings::default())
    }

    fn shard_for_reserve(lanes: &mut Pools, n: usize, stripes: u16) -> usize {
        let event: EventId = "evt".parse().expect("legal");
        let reservation: ReservationId = format!("r{n}").parse().expect("legal");
        lanes.shard_for_reserve(&event, &reservation, stripes)
    }

    #[test]
    fn all_shards_agree_on_the_owner_of_a_stripe() {
        let owners: BTreeSet<_> =
            (0..4).map(|shard| shard_for_reserve(&mut lanes(shard, 4), 1, 1)).collect();
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn shard_with_a_stripe_forwards_no_reservation() {
        for shard in 0..4 {
            let mut lanes = lanes(shard, 4);
            for n in 0..200 {
                assert_eq!(shard_for_reserve(&mut lanes, n, 10), shard);
            }
        }
    }

    #[test]
    fn shard_without_a_stripe_forwards_to_an_owner() {
        let mut sellers = BTreeSet::new();
        for shard in 0..8 {
            for n in 0..50 {
                let seller_of = shard_for_reserve(&mut lanes(shard, 8), n, 3);
                assert_eq!(
                    shard_for_reserve(&mut lanes(seller_of, 8), n, 3),
                    seller_of,
                    "from {shard}"
                );
                sellers.insert(seller_of);
            }
        }
        assert_eq!(sellers.len(), 3, "and every stripe is sold from");
    }
    /// All four processes have the only stripe of a seated event, and their lanes write no stripe.
    #[test]
    fn pools_follow_the_number_of_processes() {
        let member = |id| Member { id: ProcessId(id), shards: 1 };
        let layout = EventLayout { stripes: 1, seat_keys: 4, closed: false };
        let mut pools = lanes(0, 1);
        // The pools of the second event are opened when there are four processes.
        for (processes, events) in [(1, &["evt-1"][..]), (4, &["evt-1", "evt-2"])] {
            pools.set_members(Rc::new(Members::new(member(1), (2..=processes).map(member))));
            let kinds = [(PoolKind::Unstriped, false), (PoolKind::Stripes, processes > 1)];
            for (event, (kind, is_shared)) in events.iter().flat_map(|e| kinds.map(|k| (e, k))) {
                let event: EventId = event.parse().expect("legal");
                let id = pools.open(&event, kind, layout).expect("few lanes");
                let pool = pools.get_mut(id).expect("opened");
                assert_eq!(pool.sharing(), (processes as u16, is_shared), "{event} {kind:?}");
            }
        }
    }
}
