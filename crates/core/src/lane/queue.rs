//! Entries that wait, in the order they came in.
//!
//! Lanes of one pool share one queue; what belongs to one stripe alone waits in that lane's own.

use crate::fault::{self, Fault};
use std::collections::VecDeque;

use super::batch_entry::BatchEntry;
use crate::time::Micros;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Callers wait for these. By [`super::batch_entry::OperationMetadata::number`], whatever was put back.
    pub(super) foreground: VecDeque<BatchEntry>,
    /// Nobody waits for these. They take what room the others leave in a batch, and at least a
    /// quarter of it.
    pub(super) background: VecDeque<BatchEntry>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.foreground.is_empty() && self.background.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.foreground.len() + self.background.len()
    }

    /// Entries that have been in a transaction go where they were: before all who came later.
    pub(super) fn requeue(&mut self, mut entries: Vec<BatchEntry>) {
        if fault::planted(Fault::RequeuedEntryLost) {
            entries.pop();
        }
        let Some(last) = entries.iter().map(|entry| entry.metadata.number).max() else {
            return;
        };
        if fault::planted(Fault::QueueOutOfOrder) {
            self.foreground.extend(entries);
            return;
        }
        let earlier = self
            .foreground
            .partition_point(|m| m.metadata.number < last);
        entries.extend(self.foreground.drain(..earlier));
        entries.sort_by_key(|entry| entry.metadata.number);
        for entry in entries.into_iter().rev() {
            self.foreground.push_front(entry);
        }
    }

    /// Takes out the callers that have gone.
    pub(super) fn reject_expired(&mut self, now: Micros, gone: &mut Vec<BatchEntry>) {
        let late = |entry: &BatchEntry| entry.metadata.deadline <= now;
        if !self.foreground.iter().any(late) {
            return;
        }
        let mut kept = VecDeque::with_capacity(self.foreground.len());
        for entry in self.foreground.drain(..) {
            match late(&entry) {
                true => gone.push(entry),
                false => kept.push_back(entry),
            }
        }
        self.foreground = kept;
    }
}
