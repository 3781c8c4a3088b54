//! When a draining shard may end: only after every other shard is idle too.
//!
//! A shard without connections may own the stripe of another shard's operation. So all shards take two
//! steps, each only after all shards have taken the previous one:
//!
//! 1. `listeners_closed`: no shard accepts, so no connection is sent from one shard to another any more.
//! 2. `idle`: no shard has connections, calls or writes, so no operation is forwarded any more.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The barriers of `shards` shards, one for each.
pub(crate) fn barriers(shards: usize) -> Vec<ShutdownBarrier> {
    let counts = Arc::new(BarrierCounts {
        shards,
        listeners_closed: AtomicUsize::new(0),
        idle: AtomicUsize::new(0),
    });
    let barrier =
        |_| ShutdownBarrier { counts: Arc::clone(&counts), step: Cell::new(BarrierStep::Serving) };
    (0..shards).map(barrier).collect()
}

/// The number of shards that have taken each step.
struct BarrierCounts {
    shards: usize,
    listeners_closed: AtomicUsize,
    idle: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BarrierStep {
    Serving,
    ListenerClosed,
    Idle,
}

/// One shard's side of the barrier. Dropping the barrier completes both steps, so that no shard waits for a failed one.
pub(crate) struct ShutdownBarrier {
    counts: Arc<BarrierCounts>,
    step: Cell<BarrierStep>,
}

impl ShutdownBarrier {
    /// This shard has closed its listener and sent on what it had accepted.
    pub(crate) fn listener_closed(&self) {
        self.advance(BarrierStep::ListenerClosed);
    }

    /// Whether all shards have closed their listeners.
    pub(crate) fn all_listeners_closed(&self) -> bool {
        self.counts.listeners_closed.load(Ordering::Acquire) == self.counts.shards
    }

    /// This shard has no work of its own; other shards may still forward operations to it.
    pub(crate) fn idle(&self) {
        self.advance(BarrierStep::Idle);
    }

    /// Whether no shard has work of its own.
    pub(crate) fn all_idle(&self) -> bool {
        self.counts.idle.load(Ordering::Acquire) == self.counts.shards
    }

    fn advance(&self, to: BarrierStep) {
        let from = self.step.get();
        if from < BarrierStep::ListenerClosed && to >= BarrierStep::ListenerClosed {
            self.counts.listeners_closed.fetch_add(1, Ordering::AcqRel);
        }
        if from < BarrierStep::Idle && to >= BarrierStep::Idle {
            self.counts.idle.fetch_add(1, Ordering::AcqRel);
        }
        self.step.set(from.max(to));
    }
}

impl Drop for ShutdownBarrier {
    fn drop(&mut self) {
        self.advance(BarrierStep::Idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_is_complete_when_all_shards_have_taken_it() {
        let shards = barriers(3);
        shards[0].listener_closed();
        shards[1].listener_closed();
        shards[1].listener_closed();
        assert!(!shards[0].all_listeners_closed());
        shards[2].listener_closed();
        assert!(shards[0].all_listeners_closed() && !shards[0].all_idle());
        for shard in &shards {
            assert!(!shard.all_idle());
            shard.idle();
        }
        assert!(shards[2].all_idle());
    }

    #[test]
    fn a_dropped_shard_does_not_block_the_others() {
        let mut shards = barriers(2);
        drop(shards.pop());
        shards[0].listener_closed();
        assert!(shards[0].all_listeners_closed() && !shards[0].all_idle());
        shards[0].idle();
        assert!(shards[0].all_idle());
    }
}
