//! Which process owns which stripes of an event, and which of its shards sells from them.
//!
//! Between processes: rendezvous hashing over the members; the numbers of stripes differ by at most one. With more
//! processes than stripes, every process has one stripe and shares it with as few others as possible. Within a process:
//! the stripes go to the shards in turn, beginning with a shard that depends on the event. Every process and shard
//! computes the same from the same members.
//!
//! Ownership is a hint for batching, like membership: the conditions of each write protect the stock.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;

use crate::ids::{EventId, ReservationId};
use crate::limits;
use crate::membership::{Member, Members, ProcessId};

/// Stripes of an event, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeSet {
    /// The stripes to sell from.
    pub owned: u64,
    /// Those of `owned` from which other processes sell, too.
    pub shared: u64,
    /// Processes among which the calls for the event are divided; at least 1.
    pub processes: u16,
}

impl StripeSet {
    /// Every `step`-th stripe from `first` on, shared with nobody.
    pub const fn every(first: u16, step: u16) -> Self {
        let (mut owned, mut stripe) = (0, first);
        while stripe < limits::STRIPES_MAX {
            owned |= 1 << stripe;
            stripe += step;
        }
        Self { owned, shared: 0, processes: 1 }
    }
}

/// The stripes of one event that this process owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnStripes {
    /// Number of stripes of the event for which this was computed.
    stripes: u16,
    set: StripeSet,
}

/// The ownership of stripes, as this process computes it.
#[derive(Debug)]
pub struct StripeOwnership {
    shards: usize,
    members: Rc<Members>,
    /// Computed before for these members.
    cache: LruCache<EventId, OwnStripes, foldhash::fast::RandomState>,
}

impl StripeOwnership {
    /// `shards`: number of shards of this process.
    pub fn new(shards: usize) -> Self {
        let shards = shards.max(1);
        let events = NonZeroUsize::new(limits::EVENTS_CACHED_MAX).unwrap_or(NonZeroUsize::MIN);
        let hasher = foldhash::fast::RandomState::default();
        let own = Member { id: ProcessId(0), shards: u16::try_from(shards).unwrap_or(u16::MAX) };
        Self {
            shards,
            members: Rc::new(Members::single(own)),
            cache: LruCache::with_hasher(events, hasher),
        }
    }

    pub(crate) fn members(&self) -> &Rc<Members> {
        &self.members
    }

    pub fn set_members(&mut self, members: Rc<Members>) {
        self.members = members;
        self.cache.clear();
    }

    /// The stripes of an event with that many stripes from which a shard of this process sells; empty if it has none.
    pub fn stripes_of_shard(&mut self, event: &EventId, stripes: u16, shard: usize) -> StripeSet {
        let set = self.stripes_of_process(event, stripes);
        let first = self.rotation(event);
        let mut owned = 0;
        for (n, stripe) in bits(set.owned).enumerate() {
            if (first + n) % self.shards == shard {
                owned |= 1 << stripe;
            }
        }
        StripeSet { owned, shared: set.shared & owned, ..set }
    }

    /// Whether a shard sells from a stripe of an event with that many stripes.
    pub(crate) fn has_stripe(&mut self, event: &EventId, stripes: u16, shard: usize) -> bool {
        let first_of_shard = (shard + self.shards - self.rotation(event)) % self.shards;
        let own = self.stripes_of_process(event, stripes).owned.count_ones();
        first_of_shard < own as usize
    }

    /// The shard of this process that writes to a stripe: the shard that sells from it; for a stripe of another process
    /// any shard that sells. A shard that sells forwards no reservation. Otherwise a reservation and a return that are
    /// forwarded to each other's shards could wait for each other.
    pub(crate) fn shard_of_stripe(&mut self, event: &EventId, stripes: u16, stripe: u16) -> usize {
        let owned = self.stripes_of_process(event, stripes).owned;
        let bit = 1_u64.checked_shl(u32::from(stripe)).unwrap_or(0);
        let position = match owned & bit {
            0 => usize::from(stripe) % owned.count_ones().max(1) as usize,
            bit => (owned & (bit - 1)).count_ones() as usize,
        };
        (self.rotation(event) + position) % self.shards
    }

    /// The shard of the stripe that a hash of the reservation picks among those of this process.
    pub(crate) fn shard_by_hash(
        &mut self,
        event: &EventId,
        stripes: u16,
        reservation: &ReservationId,
    ) -> usize {
        let own = self.stripes_of_process(event, stripes).owned.count_ones().max(1);
        let pick = local_hash(reservation.as_str()) as usize % own as usize;
        (self.rotation(event) + pick) % self.shards
    }

    /// The shard that owns the seats of an event. Independent of the members.
    pub(crate) fn shard_of_seats(&self, event: &EventId) -> usize {
        self.rotation(event)
    }

    fn rotation(&self, event: &EventId) -> usize {
        local_hash(event.as_str()) as usize % self.shards
    }

    pub(crate) fn stripes_of_process(&mut self, event: &EventId, stripes: u16) -> StripeSet {
        let stripes = stripes.clamp(1, limits::STRIPES_MAX);
        if self.members.count() == 1 {
            let owned = u64::MAX >> (u64::BITS - u32::from(stripes));
            return StripeSet { owned, shared: 0, processes: 1 };
        }
        if let Some(known) = self.cache.get(event)
            && known.stripes == stripes
        {
            return known.set;
        }
        let set = stripes_of_member(event, stripes, &self.members);
        self.cache.put(event.clone(), OwnStripes { stripes, set });
        set
    }
}

/// The stripes of this process among the members.
fn stripes_of_member(event: &EventId, stripes: u16, members: &Members) -> StripeSet {
    let own = members.own_position();
    let (mut mine, mut others) = (0_u64, 0_u64);
    for (stripe, member) in assign(event, stripes, members.all()) {
        match member == own {
            true => mine |= 1 << stripe,
            false => others |= 1 << stripe,
        }
    }
    let processes = u16::try_from(members.count()).unwrap_or(u16::MAX);
    StripeSet { owned: mine, shared: mine & others, processes }
}

/// Pairs of a stripe and the position of a member. With at least as many stripes as members every stripe is in one
/// pair, otherwise every member is; the other side is in as many pairs as its share, rounded down or up.
///
/// The pairs are taken in the order of their hashes, as far as both sides have room. A member that joins or leaves
/// changes the hashes of no other pair, so most pairs stay.
fn assign(event: &EventId, stripes: u16, members: &[Member]) -> Vec<(u16, usize)> {
    let (stripe_count, member_count) = (usize::from(stripes), members.len());
    let of_event = stable_hash(event.as_str());
    let mut pairs: Vec<(u64, u16, usize)> = Vec::with_capacity(stripe_count * member_count);
    for stripe in 0..stripes {
        for (position, member) in members.iter().enumerate() {
            let of_stripe = mix(of_event ^ mix(u64::from(stripe) + 1));
            pairs.push((mix(of_stripe ^ mix(member.id.0)), stripe, position));
        }
    }
    pairs.sort_unstable();
    let (few, many) = (stripe_count.min(member_count), stripe_count.max(member_count));
    let (share, mut extra) = (many / few, many % few);
    let mut is_assigned = vec![false; many];
    let mut loads = vec![0; few];
    let mut assigned = Vec::with_capacity(many);
    for (_, stripe, member) in pairs {
        let (one, other) = match stripe_count >= member_count {
            true => (usize::from(stripe), member),
            false => (member, usize::from(stripe)),
        };
        let needs_extra = loads[other] == share;
        if is_assigned[one] || loads[other] > share || (needs_extra && extra == 0) {
            continue;
        }
        extra -= usize::from(needs_extra);
        is_assigned[one] = true;
        loads[other] += 1;
        assigned.push((stripe, member));
        if assigned.len() == many {
            break;
        }
    }
    assigned
}

/// The stripes of a set, in order.
pub(crate) fn bits(set: u64) -> impl Iterator<Item = u16> {
    (0..limits::STRIPES_MAX).filter(move |stripe| set >> stripe & 1 == 1)
}

/// Equal on every shard of a process.
fn local_hash(text: &str) -> u64 {
    foldhash::fast::FixedState::with_seed(0).hash_one(text)
}

/// FNV-1a: equal in every process, whatever its version and its processor.
fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64: every bit of the input changes half of the bits of the output.
fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event(n: u32) -> EventId {
        format!("evt-{n}").parse().expect("legal")
    }

    fn ids(count: u64) -> Vec<ProcessId> {
        (0..count).map(|n| ProcessId(mix(n))).collect()
    }

    fn members(ids: &[ProcessId]) -> Vec<Member> {
        let mut members: Vec<Member> = ids.iter().map(|id| Member { id: *id, shards: 2 }).collect();
        members.sort_by_key(|member| member.id);
        members
    }

    /// The processes of each stripe.
    fn owners(event: &EventId, stripes: u16, ids: &[ProcessId]) -> Vec<Vec<ProcessId>> {
        let members = members(ids);
        let mut owners = vec![Vec::new(); usize::from(stripes)];
        for (stripe, member) in assign(event, stripes, &members) {
            owners[usize::from(stripe)].push(members[member].id);
        }
        owners
    }

    #[test]
    fn one_process_owns_all_stripes_and_spreads_them_over_its_shards() {
        for (stripes, shards) in [(1, 4), (3, 2), (20, 3), (64, 5)] {
            let mut ownership = StripeOwnership::new(shards);
            let first = ownership.shard_of_seats(&event(1));
            for stripe in 0..stripes {
                let shard = ownership.shard_of_stripe(&event(1), stripes, stripe);
                assert_eq!(shard, (first + usize::from(stripe)) % shards, "in turn");
                for other in 0..shards {
                    let set = ownership.stripes_of_shard(&event(1), stripes, other);
                    assert_eq!(set.owned >> stripe & 1 == 1, other == shard);
                    assert_eq!(set.shared, 0);
                    assert_eq!(ownership.has_stripe(&event(1), stripes, other), set.owned != 0);
                }
            }
        }
    }

    #[test]
    fn stripes_are_divided_evenly_and_every_process_has_one() {
        for stripes in [1, 2, 7, 20, 64] {
            for processes in [2, 3, 4, 8, 16, 70] {
                let ids = ids(processes);
                let owners = owners(&event(3), stripes, &ids);
                let (few, many) =
                    (processes.min(u64::from(stripes)), processes.max(u64::from(stripes)));
                let (low, high) = (many / few, many.div_ceil(few));
                let mut loads: BTreeMap<ProcessId, u64> = BTreeMap::new();
                owners.iter().flatten().for_each(|id| *loads.entry(*id).or_default() += 1);
                assert_eq!(loads.len() as u64, processes, "{stripes} over {processes}");
                if u64::from(stripes) >= processes {
                    assert!(owners.iter().all(|owners| owners.len() == 1));
                    assert!(loads.values().all(|load| (low..=high).contains(load)), "{loads:?}");
                } else {
                    assert!(loads.values().all(|load| *load == 1));
                    let shared = |owners: &Vec<_>| (low..=high).contains(&(owners.len() as u64));
                    assert!(owners.iter().all(shared), "{owners:?}");
                }
            }
        }
    }

    /// A change of the owner is a stripe whose writer changes: conflicts for a moment.
    #[test]
    fn a_join_or_leave_moves_few_stripes() {
        for (stripes, processes) in [(64, 2), (64, 4), (64, 16), (20, 3), (20, 8)] {
            let (mut moved, mut least) = (0, 0);
            let events = 50;
            for n in 0..events {
                let all = ids(processes + 1);
                let before = owners(&event(n), stripes, &all[..processes as usize]);
                let after = owners(&event(n), stripes, &all);
                moved += before.iter().zip(&after).filter(|(one, other)| one != other).count();
                least += usize::from(stripes) / (processes as usize + 1);
            }
            println!(
                "{stripes} stripes, {processes} processes and one more: {:.1} stripes move, at least {:.1}",
                moved as f64 / f64::from(events),
                least as f64 / f64::from(events)
            );
            assert!(moved <= 3 * least, "{moved} of at least {least}");
        }
    }

    /// Each process computes its own part; the parts fit together.
    #[test]
    fn processes_agree_on_every_stripe() {
        let ids = ids(5);
        for stripes in [3, 20] {
            let mut seen = [0_u64; 2];
            for id in &ids {
                let others = ids.iter().filter(|other| *other != id);
                let others = others.map(|id| Member { id: *id, shards: 1 });
                let own = Member { id: *id, shards: 3 };
                let mut ownership = StripeOwnership::new(3);
                ownership.set_members(Rc::new(Members::new(own, others)));
                for shard in 0..3 {
                    let set = ownership.stripes_of_shard(&event(9), stripes, shard);
                    assert_eq!(
                        set.shared != 0,
                        stripes == 3 && set.owned != 0 && is_shared(&ids, set)
                    );
                    for stripe in bits(set.owned) {
                        assert_eq!(ownership.shard_of_stripe(&event(9), stripes, stripe), shard);
                        seen[usize::from(seen[0] >> stripe & 1 == 1)] |= 1 << stripe;
                    }
                }
            }
            assert_eq!(seen[0].count_ones(), u32::from(stripes), "no stripe is forgotten");
            assert_eq!(seen[1] != 0, stripes == 3);
        }
    }

    fn is_shared(ids: &[ProcessId], set: StripeSet) -> bool {
        let owners = owners(&event(9), 3, ids);
        bits(set.owned).any(|stripe| owners[usize::from(stripe)].len() > 1)
    }
}
