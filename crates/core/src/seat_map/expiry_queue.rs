//! Seats ordered by the time at which a hold or an offer mark ends.

use std::collections::BTreeSet;

/// At most one entry per seat, because a new entry of a seat replaces its last one. Every operation is logarithmic.
#[derive(Default)]
pub(super) struct ExpiryQueue(BTreeSet<(u64, u32)>);

impl ExpiryQueue {
    pub(super) fn add(&mut self, due: u64, seat: u32) {
        self.0.insert((due, seat));
    }

    pub(super) fn remove(&mut self, due: u64, seat: u32) {
        self.0.remove(&(due, seat));
    }

    /// Removes and returns a seat that is due at `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<u32> {
        let (due, _) = self.0.first()?;
        if *due > now {
            return None;
        }
        self.0.pop_first().map(|(_, seat)| seat)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
