//! The lanes of one shard, their timers, and which shard owns which stripe.
//!
//! Ownership is a hint for batching, never a lease: the conditions in the write are the truth, so
//! shards and processes that disagree about it, or die holding it, harm nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use crate::domain::effect::LaneId;
use crate::domain::ids::{EventId, ReservationId};
use crate::domain::lane::{Lane, LaneKey, Track};
use crate::domain::rules::LateCommit;
use crate::domain::time::Micros;
use crate::domain::transaction::EventShape;
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
    late: LateCommit,
    slots: HashMap<LaneId, Slot, foldhash::fast::RandomState>,
    by_key: HashMap<LaneKey, LaneId, foldhash::fast::RandomState>,
    timers: BTreeSet<(Micros, LaneId)>,
    next: u64,
}

impl Lanes {
    pub(super) fn new(shard: usize, shards: usize, late: LateCommit) -> Self {
        Self {
            shard,
            shards: shards.max(1),
            late,
            slots: HashMap::default(),
            by_key: HashMap::default(),
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

    /// A lane, made if there is none; `None` when there are too many.
    pub(super) fn open(
        &mut self,
        event: &EventId,
        track: Track,
        shape: EventShape,
    ) -> Option<(LaneId, &mut Lane)> {
        let key = LaneKey {
            event: event.clone(),
            track,
        };
        let id = match self.by_key.get(&key) {
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
                let lane = Lane::new(key.clone(), shape, self.late);
                self.slots.insert(id, Slot { lane, timer: None });
                self.by_key.insert(key, id);
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

    /// The lane of an event with the least to do, of so many of one kind.
    pub(super) fn least_busy(
        &self,
        event: &EventId,
        lanes: u16,
        kind: impl Fn(u16) -> Track,
    ) -> Track {
        let depth = |track: Track| {
            let key = LaneKey {
                event: event.clone(),
                track,
            };
            let id = self.by_key.get(&key);
            id.and_then(|id| self.slots.get(id))
                .map_or(0, |slot| slot.lane.depth())
        };
        let tracks = (0..lanes.max(1)).map(&kind);
        let mut best = (usize::MAX, kind(0));
        for track in tracks {
            let depth = depth(track);
            if depth < best.0 {
                best = (depth, track);
            }
            if depth == 0 {
                break;
            }
        }
        best.1
    }

    /// Where units are taken: from a stripe owned here if there is one (no hop), else from any.
    /// One reservation always goes to the same stripe, so that its repeats meet.
    pub(super) fn choose(
        &self,
        event: &EventId,
        reservation: &ReservationId,
        stripes: u16,
    ) -> (usize, u16) {
        let stripes = usize::from(stripes.max(1));
        let start = self.start(event);
        let pick = stable_hash(reservation.as_str()) as usize;
        // Stripes go round the shards: the first owned here, and then every `shards`-th.
        let first = (self.shard + self.shards - start) % self.shards;
        let stripe = if first < stripes {
            let owned = (stripes - first).div_ceil(self.shards);
            first + (pick % owned) * self.shards
        } else {
            pick % stripes
        };
        (self.owner(event, stripe as u16), stripe as u16)
    }

    /// The shard that writes to a stripe, and for stripe 0 to the event's seats.
    pub(super) fn owner(&self, event: &EventId, stripe: u16) -> usize {
        (self.start(event) + usize::from(stripe)) % self.shards
    }

    fn start(&self, event: &EventId) -> usize {
        stable_hash(event.as_str()) as usize % self.shards
    }

    fn sweep(&mut self) {
        let by_key = &mut self.by_key;
        self.slots.retain(|_, slot| {
            let keep = !slot.lane.is_idle();
            if !keep {
                by_key.remove(slot.lane.key());
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

    fn lanes(shard: usize, shards: usize) -> Lanes {
        Lanes::new(shard, shards, LateCommit::default())
    }

    fn choose(lanes: &Lanes, n: usize, stripes: u16) -> (usize, u16) {
        let event: EventId = "evt".parse().expect("legal");
        let reservation: ReservationId = format!("r{n}").parse().expect("legal");
        lanes.choose(&event, &reservation, stripes)
    }

    #[test]
    fn one_stripe_has_one_owner_whoever_asks() {
        let owners: BTreeSet<_> = (0..4).map(|shard| choose(&lanes(shard, 4), 1, 1)).collect();
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn enough_stripes_mean_no_hop_and_every_stripe_is_used() {
        let mut used = BTreeSet::new();
        for shard in 0..4 {
            let lanes = lanes(shard, 4);
            for n in 0..200 {
                let (owner, stripe) = choose(&lanes, n, 10);
                assert_eq!(owner, shard);
                used.insert(stripe);
            }
        }
        assert_eq!(used.len(), 10);
    }

    #[test]
    fn a_shard_without_a_stripe_agrees_with_the_owner() {
        for shard in 0..8 {
            let lanes = lanes(shard, 8);
            let (owner, stripe) = choose(&lanes, 7, 3);
            assert!(stripe < 3);
            let (same, _) = choose(&self::lanes(owner, 8), 7, 3);
            assert_eq!(same, owner, "stripe {stripe} as seen from shard {shard}");
        }
    }
}
