//! Picks the shard of a new connection: the one with the fewest.
//!
//! The kernel distributes connections over the listeners by a hash of their addresses, which can put all
//! connections of a few long-lived clients on one shard. So the accepting shard sends a connection to the
//! shard with the fewest. The counts are shared atomics, accessed at accept and close and during a drain, never by a
//! call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connection counts of all shards.
#[derive(Clone)]
pub(crate) struct ConnectionBalancer {
    counts: Arc<[ConnectionCount]>,
    /// Most connections of one shard.
    most: usize,
}

/// One shard's count, on its own cache line.
#[repr(align(128))]
struct ConnectionCount(AtomicUsize);

impl ConnectionBalancer {
    pub(crate) fn new(shards: usize, most: usize) -> Self {
        let counts = (0..shards).map(|_| ConnectionCount(AtomicUsize::new(0))).collect();
        Self { counts, most }
    }

    pub(crate) fn open_connections(&self, shard: usize) -> usize {
        self.counts.get(shard).map_or(0, |count| count.0.load(Ordering::Relaxed))
    }

    /// Chooses and counts the shard for a connection that `me` accepted: `me`, unless another shard has fewer
    /// connections. `None` if every shard is full. [`ConnectionBalancer::release`] decrements the count.
    pub(crate) fn reserve(&self, me: usize) -> Option<usize> {
        loop {
            let mine = self.open_connections(me);
            let others = (0..self.counts.len()).map(|shard| (self.open_connections(shard), shard));
            let (least, fewest) = others.min()?;
            let (target, open) = match mine > least {
                true => (fewest, least),
                false => (me, mine),
            };
            if open >= self.most {
                return None;
            }
            // If another shard changed this count in the meantime, choose again.
            let count = &self.counts.get(target)?.0;
            let reserved =
                count.compare_exchange(open, open + 1, Ordering::Relaxed, Ordering::Relaxed);
            if reserved.is_ok() {
                return Some(target);
            }
        }
    }

    /// Moves one connection from the count of `from` to the count of `to`, because it could not be sent to `from`.
    pub(crate) fn transfer(&self, from: usize, to: usize) {
        self.release(from);
        self.reserve_beyond(to);
    }

    /// Counts a connection of a full shard, which takes the place of one that is about to end.
    pub(crate) fn reserve_beyond(&self, shard: usize) {
        if let Some(count) = self.counts.get(shard) {
            count.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn release(&self, shard: usize) {
        if let Some(count) = self.counts.get(shard) {
            count.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_accepted_by_one_shard_are_balanced_over_two() {
        let balancer = ConnectionBalancer::new(2, 100);
        for _ in 0..4 {
            balancer.reserve(0).expect("not full");
        }
        assert_eq!((balancer.open_connections(0), balancer.open_connections(1)), (2, 2));
    }

    #[test]
    fn a_tie_stays_on_the_accepting_shard() {
        let balancer = ConnectionBalancer::new(3, 100);
        assert_eq!(balancer.reserve(2), Some(2));
        balancer.release(2);
        assert_eq!(balancer.reserve(1), Some(1));
    }

    #[test]
    fn connections_are_refused_only_when_every_shard_is_full() {
        let balancer = ConnectionBalancer::new(2, 10);
        for _ in 0..20 {
            balancer.reserve(0).expect("not full");
        }
        assert_eq!(balancer.reserve(0), None);
        balancer.release(1);
        assert_eq!(balancer.reserve(0), Some(1));
    }
}
