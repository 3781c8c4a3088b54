//! Rendezvous hashing: each key belongs to the process with the highest weight, so that processes that know the same
//! members agree without messages, and a join or leave moves few keys.

use crate::membership::{Members, ProcessId};

/// Weight of a process for a key. Equal in every process and version.
pub(crate) const fn weight(process: ProcessId, key: u64) -> u64 {
    mixed(mixed(process.0) ^ key)
}

/// Number of members with a higher weight for `key` than this process.
pub(crate) fn rank(members: &Members, key: u64) -> usize {
    let Some(own) = members.own() else {
        return 0;
    };
    let weight_of = |process: ProcessId| (weight(process, key), process);
    let own = weight_of(own.id);
    members.all().iter().filter(|member| weight_of(member.id) > own).count()
}

/// The finalizer of SplitMix64: every bit of the input changes about half of the output.
pub(crate) const fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;

    fn members(own: u64, ids: &[u64]) -> Members {
        let member = |id: u64| Member { id: ProcessId(id), shards: 1 };
        Members::new(member(own), ids.iter().map(|id| member(*id)))
    }

    #[test]
    fn processes_agree_on_the_order_of_each_key() {
        let ids = [3, 7, 900, 12];
        for key in 0..500 {
            let mut ranks: Vec<usize> =
                ids.iter().map(|own| rank(&members(*own, &ids), key)).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn keys_spread_evenly_and_only_those_of_a_leaver_move() {
        let first = |own: u64, ids: &[u64]| {
            (0..4_000).filter(|key| rank(&members(own, ids), *key) == 0).collect::<Vec<u64>>()
        };
        for own in 1..=4 {
            let keys = first(own, &[1, 2, 3, 4]);
            assert!((900..1_100).contains(&keys.len()), "{}", keys.len());
            if own < 4 {
                let after = first(own, &[1, 2, 3]);
                assert!(keys.iter().all(|key| after.contains(key)));
            }
        }
    }
}
