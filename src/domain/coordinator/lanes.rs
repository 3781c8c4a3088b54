//! The lanes of one shard, their timers, and which shard owns which stripe.
//!
//! Ownership is a hint for batching, never a lease: the conditions in the write are the truth, so
//! shards and processes that disagree about it, or die holding it, harm nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use crate::domain::effect::LaneId;
use crate::domain::ids::{EventId, StripeId};
use crate::domain::lane::Lane;
use crate::domain::operation::Operation;
use crate::domain::time::Micros;
use crate::limits;

/// Idle lanes kept for their next operation before they are swept.
const IDLE_KEPT_MAX: usize = 1_024;

struct Slot {
    lane: Lane,
    /// The wake-up this lane has in `timers`.
    timer: Option<Micros>,
}

pub(super) struct Lanes {
    shard: usize,
    shards: usize,
    slots: HashMap<LaneId, Slot, foldhash::fast::RandomState>,
    by_stripe: HashMap<StripeId, LaneId, foldhash::fast::RandomState>,
    timers: BTreeSet<(Micros, LaneId)>,
    next: u64,
}

impl Lanes {
    pub(super) fn new(shard: usize, shards: usize) -> Self {
        Self {
            shard,
            shards: shards.max(1),
            slots: HashMap::default(),
            by_stripe: HashMap::default(),
            timers: BTreeSet::new(),
            next: 0,
        }
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.slots.get_mut(&id).map(|slot| &mut slot.lane)
    }

    pub(super) fn all_idle(&self) -> bool {
        self.slots.values().all(|slot| slot.lane.is_idle())
    }

    pub(super) fn depth(&self) -> usize {
        self.slots.values().map(|slot| slot.lane.depth()).sum()
    }

    pub(super) fn wake_at(&self) -> Option<Micros> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The lane of a stripe, made if there is none; `None` when there are too many.
    pub(super) fn open(
        &mut self,
        event: &EventId,
        stripe: u16,
        stripes: u16,
    ) -> Option<(LaneId, &mut Lane)> {
        let key = StripeId {
            event: event.clone(),
            index: stripe,
        };
        let id = match self.by_stripe.get(&key) {
            Some(id) => *id,
            None => {
                if self.slots.len() >= IDLE_KEPT_MAX {
                    self.sweep();
                }
                if self.slots.len() >= limits::LANES_MAX {
                    return None;
                }
                let id = LaneId(self.next);
                self.next += 1;
                let lane = Lane::new(key.clone(), stripes);
                self.slots.insert(id, Slot { lane, timer: None });
                self.by_stripe.insert(key, id);
                id
            }
        };
        self.get_mut(id).map(|lane| (id, lane))
    }

    /// Brings the lane's timer in step with what it waits for.
    pub(super) fn after(&mut self, id: LaneId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let due = slot.lane.wake_at();
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

    /// The lanes whose time has come; their timers are gone.
    pub(super) fn take_due(&mut self, now: Micros) -> Vec<LaneId> {
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

    /// Where an operation goes: a stripe owned here if there is one (no hop), else any.
    /// One reservation always goes to the same stripe, so that its repeats meet.
    pub(super) fn choose(&self, operation: &Operation, stripes: u16) -> (usize, u16) {
        let stripes = usize::from(stripes.max(1));
        let start = stable_hash(operation.event.as_str()) as usize % self.shards;
        let pick = stable_hash(operation.reservation.as_str()) as usize;
        let owner = |stripe: usize| (start + stripe) % self.shards;
        // Stripes go round the shards: the first owned here, and then every `shards`-th.
        let first = (self.shard + self.shards - start) % self.shards;
        let stripe = if first < stripes {
            let owned = (stripes - first).div_ceil(self.shards);
            first + (pick % owned) * self.shards
        } else {
            pick % stripes
        };
        (owner(stripe), stripe as u16)
    }

    fn sweep(&mut self) {
        let by_stripe = &mut self.by_stripe;
        self.slots.retain(|_, slot| {
            let keep = !slot.lane.is_idle();
            if !keep {
                by_stripe.remove(slot.lane.stripe());
            }
            keep
        });
    }
}

/// The same on every shard, which is all that is asked of it.
fn stable_hash(text: &str) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Fingerprint;
    use crate::domain::operation::Verb;

    fn operation(n: usize) -> Operation {
        let event: EventId = "evt".parse().expect("legal");
        Operation {
            verb: Verb::Commit,
            reservation: format!("r{n}").parse().expect("legal"),
            fingerprint: Fingerprint::of_quantity(&event, 1),
            event,
            qty: 1,
            payment_intent: String::new(),
            deadline: Micros(1),
        }
    }

    #[test]
    fn one_stripe_has_one_owner_whoever_asks() {
        let owners: BTreeSet<_> = (0..4)
            .map(|shard| Lanes::new(shard, 4).choose(&operation(1), 1))
            .collect();
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn enough_stripes_mean_no_hop_and_every_stripe_is_used() {
        let mut used = BTreeSet::new();
        for shard in 0..4 {
            let lanes = Lanes::new(shard, 4);
            for n in 0..200 {
                let (owner, stripe) = lanes.choose(&operation(n), 10);
                assert_eq!(owner, shard);
                used.insert(stripe);
            }
        }
        assert_eq!(used.len(), 10);
    }

    #[test]
    fn a_shard_without_a_stripe_agrees_with_the_owner() {
        for shard in 0..8 {
            let lanes = Lanes::new(shard, 8);
            let (owner, stripe) = lanes.choose(&operation(7), 3);
            assert!(stripe < 3);
            let (same, _) = Lanes::new(owner, 8).choose(&operation(7), 3);
            assert_eq!(same, owner, "stripe {stripe} as seen from shard {shard}");
        }
    }
}
