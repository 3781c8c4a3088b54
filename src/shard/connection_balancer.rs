//! Picks the shard of a new connection: the one with the fewest.
//!
//! The kernel distributes connections over the listeners by a hash of their addresses, which can put all
//! connections of a few long-lived clients on one shard. So the accepting shard sends a connection to the
//! shard with the fewest. The counts are shared atomics, accessed only at accept and close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits;

/// The connection counts of all shards.
#[derive(Clone)]
pub(crate) struct ConnectionBalancer(Arc<[ConnectionCount]>);

/// One shard's count, on its own cache line.
#[repr(align(128))]
struct ConnectionCount(AtomicUsize);

impl ConnectionBalancer {
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| ConnectionCount(AtomicUsize::new(0))).collect())
    }

    pub(crate) fn open_connections(&self, shard: usize) -> usize {
        self.0.get(shard).map_or(0, |count| count.0.load(Ordering::Relaxed))
    }

    /// Counts a connection that `me` accepted and returns its shard: `me` unless another has fewer. `None` if
    /// every shard is full. [`ConnectionBalancer::release`] takes the count back.
    pub(crate) fn reserve(&self, me: usize) -> Option<usize> {
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
            // If another shard changed this count in the meantime, choose again.
            let count = &self.0.get(target)?.0;
            let reserved =
                count.compare_exchange(open, open + 1, Ordering::Relaxed, Ordering::Relaxed);
            if reserved.is_ok() {
                return Some(target);
            }
        }
    }

    /// Moves a count, if the connection could not be sent.
    pub(crate) fn transfer(&self, from: usize, to: usize) {
        self.release(from);
        if let Some(count) = self.0.get(to) {
            count.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn release(&self, shard: usize) {
        if let Some(count) = self.0.get(shard) {
            count.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_accepted_by_one_shard_are_balanced_over_two() {
        let balancer = ConnectionBalancer::new(2);
        for _ in 0..4 {
            balancer.reserve(0).expect("not full");
        }
        assert_eq!((balancer.open_connections(0), balancer.open_connections(1)), (2, 2));
    }

    #[test]
    fn a_tie_stays_on_the_accepting_shard() {
        let balancer = ConnectionBalancer::new(3);
        assert_eq!(balancer.reserve(2), Some(2));
        balancer.release(2);
        assert_eq!(balancer.reserve(1), Some(1));
    }

    #[test]
    fn connections_are_refused_only_when_every_shard_is_full() {
        let balancer = ConnectionBalancer::new(2);
        for _ in 0..2 * limits::CONNECTIONS_PER_SHARD_MAX {
            balancer.reserve(0).expect("not full");
        }
        assert_eq!(balancer.reserve(0), None);
        balancer.release(1);
        assert_eq!(balancer.reserve(0), Some(1));
    }
}
