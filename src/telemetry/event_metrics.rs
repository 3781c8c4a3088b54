//! Selects the events that get metrics of their own: the busiest few, so that the number of series is bounded. All other
//! events share the label value `other`.
//!
//! The counter of an event starts when the event is selected; earlier reservations stay in `other`, so no counter
//! decreases while it is shown. Not here: reads of stock (`control_plane`).

use std::collections::HashMap;
use std::time::Duration;

use super::recorder::EventWrites;
use crate::limits;
use inventory_core::ids::EventId;
use inventory_core::query::EventStatus;

/// The selected events. Times are relative to any fixed instant.
#[derive(Debug, Default)]
pub(super) struct BusiestEvents {
    selected: HashMap<EventId, EventMetrics>,
    /// Reservations since the last [`BusiestEvents::select`].
    pending: HashMap<EventId, u64>,
    other: u64,
}

/// Metrics of one selected event.
#[derive(Debug, Default)]
pub(super) struct EventMetrics {
    /// Reservations written since the event is selected.
    pub(super) written: u64,
    /// Recent reservations; halved at each selection.
    score: u64,
    pub(super) status: Option<EventStatus>,
    /// Time of the last request for `status`.
    requested: Option<Duration>,
}

impl BusiestEvents {
    pub(super) fn absorb(&mut self, writes: EventWrites) {
        for (event, count) in writes.events {
            *self.pending.entry(event).or_default() += count;
        }
        self.other += writes.other;
    }

    /// Updates the selection. Call once per scrape, after all shards answered.
    pub(super) fn select(&mut self) {
        for metrics in self.selected.values_mut() {
            metrics.score /= 2;
        }
        for (event, count) in std::mem::take(&mut self.pending) {
            if let Some(metrics) = self.selected.get_mut(&event) {
                metrics.written += count;
                metrics.score += count;
            } else if self.find_place(count) {
                let metrics =
                    EventMetrics { written: count, score: count, ..EventMetrics::default() };
                self.selected.insert(event, metrics);
            } else {
                self.other += count;
            }
        }
    }

    /// Whether an event with `count` reservations gets a place; a much less busy event is evicted for it.
    fn find_place(&mut self, count: u64) -> bool {
        if self.selected.len() < limits::EVENTS_IN_METRICS_MAX {
            return true;
        }
        // Among equally idle events the one with fewer reservations, for a deterministic result.
        let idleness = |metrics: &EventMetrics| (metrics.score, metrics.written);
        let idlest = self.selected.iter().min_by_key(|(_, metrics)| idleness(metrics));
        let Some((idlest, score)) = idlest.map(|(event, metrics)| (event.clone(), metrics.score))
        else {
            return false;
        };
        let is_busier = count > 2 * score;
        if is_busier {
            self.selected.remove(&idlest);
        }
        is_busier
    }

    /// Selected events whose status must be read; each is returned once until its status is stale again.
    pub(super) fn stale(&mut self, now: Duration) -> Vec<EventId> {
        let mut stale = Vec::new();
        for (event, metrics) in &mut self.selected {
            let is_fresh = metrics
                .requested
                .is_some_and(|at| now.saturating_sub(at) < limits::EVENT_STATUS_AGE_MAX);
            if !is_fresh {
                metrics.requested = Some(now);
                stale.push(event.clone());
            }
        }
        stale
    }

    /// Sets the status of an event. No effect if the event is no longer selected.
    pub(super) fn set_status(&mut self, event: &EventId, status: EventStatus) {
        if let Some(metrics) = self.selected.get_mut(event) {
            metrics.status = Some(status);
        }
    }

    /// The selected events in order of their ids.
    pub(super) fn selected(&self) -> Vec<(&EventId, &EventMetrics)> {
        let mut metrics: Vec<_> = self.selected.iter().collect();
        metrics.sort_unstable_by_key(|(event, _)| event.as_str());
        metrics
    }

    /// Reservations of all other events.
    pub(super) fn other(&self) -> u64 {
        self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> EventId {
        EventId::try_from(format!("evt_{n}")).expect("a legal id")
    }

    fn written(counts: &[(usize, u64)]) -> EventWrites {
        let mut written = EventWrites::default();
        for (n, count) in counts {
            written.events.insert(event(*n), *count);
        }
        written
    }

    fn count(events: &BusiestEvents, n: usize) -> Option<u64> {
        events.selected.get(&event(n)).map(|metrics| metrics.written)
    }

    fn full() -> BusiestEvents {
        let mut events = BusiestEvents::default();
        for n in 0..limits::EVENTS_IN_METRICS_MAX {
            events.absorb(written(&[(n, 10 + n as u64)]));
        }
        events.select();
        events
    }

    #[test]
    fn writes_of_all_shards_are_summed() {
        let mut events = BusiestEvents::default();
        events.absorb(written(&[(1, 3)]));
        events.absorb(written(&[(1, 4), (2, 5)]));
        events.select();
        events.absorb(written(&[(1, 1)]));
        events.select();
        assert_eq!((count(&events, 1), count(&events, 2)), (Some(8), Some(5)));
        assert_eq!(events.other(), 0);
    }

    #[test]
    fn busier_event_evicts_the_idlest_and_a_small_event_is_other() {
        let mut events = full();
        events.absorb(written(&[(100, 5)]));
        events.select();
        assert_eq!((count(&events, 100), events.other()), (None, 5));
        events.absorb(written(&[(101, 500)]));
        events.select();
        assert_eq!(count(&events, 101), Some(500));
        assert_eq!(count(&events, 0), None, "the idlest event");
        assert_eq!(events.selected().len(), limits::EVENTS_IN_METRICS_MAX);
        assert_eq!(events.other(), 5, "reservations of an evicted event do not return to other");
    }

    #[test]
    fn status_is_requested_once_until_it_is_stale() {
        let mut events = full();
        let now = Duration::from_secs(100);
        assert_eq!(events.stale(now).len(), limits::EVENTS_IN_METRICS_MAX);
        assert!(events.stale(now + Duration::from_secs(1)).is_empty());
        let later = now + limits::EVENT_STATUS_AGE_MAX;
        assert_eq!(events.stale(later).len(), limits::EVENTS_IN_METRICS_MAX);
    }
}
