//! Seats by the instant at which something about them ends: holds, and marks of having been offered.

use std::collections::BTreeSet;

/// At most one entry per seat, for whoever adds an entry takes the seat's last one out: bounded by
/// the seats. Every step costs the logarithm of the entries.
#[derive(Default)]
pub(super) struct ExpiryQueue(BTreeSet<(u64, u32)>);

impl ExpiryQueue {
    pub(super) fn add(&mut self, due: u64, seat: u32) {
        self.0.insert((due, seat));
    }

    pub(super) fn remove(&mut self, due: u64, seat: u32) {
        self.0.remove(&(due, seat));
    }

    /// A seat that is due at `now`, taken out.
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

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
