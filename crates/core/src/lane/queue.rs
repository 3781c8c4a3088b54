//! Waiting entries, in order of arrival.
//!
//! The lanes of a pool share one queue; entries that only one lane may write wait in that lane's own.

use crate::fault::{self, Fault};
use std::collections::VecDeque;

use super::batch_entry::BatchEntry;
use crate::time::Micros;

/// Foreground and background entries, each in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Entries with a waiting caller, by [`super::batch_entry::QueueMetadata::sequence`], also after a
    /// requeue.
    pub(super) foreground: VecDeque<BatchEntry>,
    /// Entries without a waiting caller. While some wait, a quarter of each new batch is kept for them; they also
    /// take what the foreground leaves.
    pub(super) background: VecDeque<BatchEntry>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.foreground.is_empty() && self.background.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.foreground.len() + self.background.len()
    }

    /// Removes all entries.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = BatchEntry> + use<> {
        let Self { foreground, background } = std::mem::take(self);
        foreground.into_iter().chain(background)
    }

    /// Requeues entries that have been in a transaction: before all that arrived later.
    pub(super) fn requeue(&mut self, mut entries: Vec<BatchEntry>) {
        if fault::planted(Fault::RequeuedEntryLost) {
            entries.pop();
        }
        let Some(last) = entries.iter().map(|entry| entry.queue.sequence).max() else {
            return;
        };
        if fault::planted(Fault::QueueOutOfOrder) {
            self.foreground.extend(entries);
            return;
        }
        let earlier = self.foreground.partition_point(|m| m.queue.sequence < last);
        entries.extend(self.foreground.drain(..earlier));
        entries.sort_by_key(|entry| entry.queue.sequence);
        for entry in entries.into_iter().rev() {
            self.foreground.push_front(entry);
        }
    }

    /// Moves the entries to `removed` whose deadline has passed.
    pub(super) fn remove_late(&mut self, now: Micros, removed: &mut Vec<BatchEntry>) {
        let is_late = |entry: &BatchEntry| entry.deadline() <= now;
        if !self.foreground.iter().any(is_late) {
            return;
        }
        let mut kept = VecDeque::with_capacity(self.foreground.len());
        for entry in self.foreground.drain(..) {
            match is_late(&entry) {
                true => removed.push(entry),
                false => kept.push_back(entry),
            }
        }
        self.foreground = kept;
    }
}
