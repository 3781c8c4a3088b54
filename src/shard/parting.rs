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
pub fn presences(shards: usize) -> Vec<Presence> {
    let counts = Arc::new(Counts {
        shards,
        closed: AtomicUsize::new(0),
        settled: AtomicUsize::new(0),
    });
    let presence = |_| Presence {
        counts: Arc::clone(&counts),
        step: Cell::new(Step::Serving),
    };
    (0..shards).map(presence).collect()
}

/// How many shards have taken each step.
struct Counts {
    shards: usize,
    closed: AtomicUsize,
    settled: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Serving,
    Closed,
    Settled,
}

/// One shard's part. A shard that drops it, however it ended, is not waited for.
pub struct Presence {
    counts: Arc<Counts>,
    step: Cell<Step>,
}

impl Presence {
    /// This shard accepts no more, and has handed over what it accepted before.
    pub fn closed(&self) {
        self.advance(Step::Closed);
    }

    /// No shard accepts any more.
    pub fn all_closed(&self) -> bool {
        self.counts.closed.load(Ordering::Acquire) == self.counts.shards
    }

    /// This shard has nothing left of its own; operations of others may still come.
    pub fn settled(&self) {
        self.advance(Step::Settled);
    }

    /// No shard has anything left of its own.
    pub fn all_settled(&self) -> bool {
        self.counts.settled.load(Ordering::Acquire) == self.counts.shards
    }

    fn advance(&self, to: Step) {
        let from = self.step.get();
        if from < Step::Closed && to >= Step::Closed {
            self.counts.closed.fetch_add(1, Ordering::AcqRel);
        }
        if from < Step::Settled && to >= Step::Settled {
            self.counts.settled.fetch_add(1, Ordering::AcqRel);
        }
        self.step.set(from.max(to));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.advance(Step::Settled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_when_the_last_shard_takes_it() {
        let shards = presences(3);
        shards[0].closed();
        shards[1].closed();
        shards[1].closed();
        assert!(!shards[0].all_closed());
        shards[2].closed();
        assert!(shards[0].all_closed() && !shards[0].all_settled());
        for shard in &shards {
            assert!(!shard.all_settled());
            shard.settled();
        }
        assert!(shards[2].all_settled());
    }

    #[test]
    fn a_shard_that_is_gone_is_not_waited_for() {
        let mut shards = presences(2);
        drop(shards.pop());
        shards[0].closed();
        assert!(shards[0].all_closed() && !shards[0].all_settled());
        shards[0].settled();
        assert!(shards[0].all_settled());
    }
}
