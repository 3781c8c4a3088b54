//! When a draining shard may end: not before every other one has nothing left either.
//!
//! A shard without connections may own the stripe that another shard's call is about. So all of
//! them take two steps, each only after everybody has taken the one before:
//!
//! 1. nobody accepts: no connection is handed from one shard to another any more;
//! 2. nobody has connections, calls or writes: no operation is forwarded any more.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Makes the presences of `shards` shards, one for each.
pub fn barriers(shards: usize) -> Vec<ShutdownBarrier> {
    let counts = Arc::new(BarrierCounts {
        shards,
        listeners_closed: AtomicUsize::new(0),
        idle: AtomicUsize::new(0),
    });
    let presence = |_| ShutdownBarrier {
        counts: Arc::clone(&counts),
        step: Cell::new(BarrierStep::Serving),
    };
    (0..shards).map(presence).collect()
}

/// How many shards have taken each step.
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

/// One shard's part. A shard that drops it, however it ended, is not waited for.
pub struct ShutdownBarrier {
    counts: Arc<BarrierCounts>,
    step: Cell<BarrierStep>,
}

impl ShutdownBarrier {
    /// This shard accepts no more, and has handed over what it accepted before.
    pub fn listener_closed(&self) {
        self.advance(BarrierStep::ListenerClosed);
    }

    /// No shard accepts any more.
    pub fn all_listeners_closed(&self) -> bool {
        self.counts.listeners_closed.load(Ordering::Acquire) == self.counts.shards
    }

    /// This shard has nothing left of its own; operations of others may still come.
    pub fn idle(&self) {
        self.advance(BarrierStep::Idle);
    }

    /// No shard has anything left of its own.
    pub fn all_idle(&self) -> bool {
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
    fn a_step_is_taken_when_the_last_shard_takes_it() {
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
    fn a_shard_that_is_gone_is_not_waited_for() {
        let mut shards = barriers(2);
        drop(shards.pop());
        shards[0].listener_closed();
        assert!(shards[0].all_listeners_closed() && !shards[0].all_idle());
        shards[0].idle();
        assert!(shards[0].all_idle());
    }
}
