//! Which shard a new connection goes to.
//!
//! The kernel spreads connections over the listeners by a hash of their addresses, which for a
//! handful of long-lived clients can mean all on one. So the shard that accepts one hands it to the
//! shard with the fewest, unless that is itself. Touched at accept and close only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// Open connections of every shard.
#[derive(Clone)]
pub struct ConnectionBalancer(Arc<[ConnectionCount]>);

/// One shard's count on a cache line of its own.
#[repr(align(128))]
struct ConnectionCount(AtomicUsize);

impl ConnectionBalancer {
    pub fn new(shards: usize) -> Self {
        Self(
            (0..shards)
                .map(|_| ConnectionCount(AtomicUsize::new(0)))
                .collect(),
        )
    }

    pub fn open_connections(&self, shard: usize) -> usize {
        self.0.get(shard).map_or(0, |l| l.0.load(Ordering::Relaxed))
    }

    /// Reserves a place for a connection that `me` accepted: on `me` unless another has fewer.
    /// `None` when every shard is full. The place is freed with [`Loads::close`].
    pub fn reserve(&self, me: usize) -> Option<usize> {
        loop {
            let mine = self.open_connections(me);
            let others = (0..self.0.len()).map(|shard| (self.open_connections(shard), shard));
            let (least, fewest) = others.min()?;
            let (target, open) = match mine > least {
                true => (fewest, least),
                false => (me, mine),
            };
            if open >= limits::CONNECTIONS_PER_SHARD_MAX {
                return None;
            }
            // Another shard that chose the same one at the same time makes this choice out of date.
            let place = &self.0.get(target)?.0;
            let reserved =
                place.compare_exchange(open, open + 1, Ordering::Relaxed, Ordering::Relaxed);
            if reserved.is_ok() {
                return Some(target);
            }
        }
    }

    /// Moves a reserved place, when the hand-over failed.
    pub fn transfer(&self, from: usize, to: usize) {
        self.release(from);
        if let Some(load) = self.0.get(to) {
            load.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn release(&self, shard: usize) {
        if let Some(load) = self.0.get(shard) {
            load.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_connections_accepted_by_one_of_two_shards_end_up_two_and_two() {
        let loads = ConnectionBalancer::new(2);
        for _ in 0..4 {
            loads.reserve(0).expect("room");
        }
        assert_eq!(
            (loads.open_connections(0), loads.open_connections(1)),
            (2, 2)
        );
    }

    #[test]
    fn a_tie_stays_where_it_was_accepted() {
        let loads = ConnectionBalancer::new(3);
        assert_eq!(loads.reserve(2), Some(2));
        loads.release(2);
        assert_eq!(loads.reserve(1), Some(1));
    }

    #[test]
    fn full_is_said_only_when_every_shard_is() {
        let loads = ConnectionBalancer::new(2);
        for _ in 0..2 * limits::CONNECTIONS_PER_SHARD_MAX {
            loads.reserve(0).expect("room");
        }
        assert_eq!(loads.reserve(0), None);
        loads.release(1);
        assert_eq!(loads.reserve(0), Some(1));
    }
}
