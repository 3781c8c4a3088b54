//! Which events the figures name: the busiest few, so that labels stay few. The rest are one `other`.
//!
//! An event's counter begins when it is first named, and what came for it before that stays in `other`:
//! so no counter ever falls while it is shown. Must not live here: reading an event's units (`side`).

use std::collections::HashMap;
use std::time::Duration;

use super::recorder::Written;
use crate::limits;
use inventory_core::ids::EventId;
use inventory_core::query::EventStatus;

/// See the module's head. Times count from any one moment.
#[derive(Debug, Default)]
pub(super) struct Events {
    named: HashMap<EventId, Named>,
    /// What the shards have handed over since the last [`Events::turn`].
    fresh: HashMap<EventId, u64>,
    other: u64,
}

/// One event that is shown.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Reservations written since it is shown.
    pub(super) written: u64,
    /// How busy it has been lately.
    score: u64,
    pub(super) status: Option<EventStatus>,
    /// When its status was last asked for.
    asked: Option<Duration>,
}

impl Events {
    pub(super) fn absorb(&mut self, written: Written) {
        for (event, count) in written.events {
            *self.fresh.entry(event).or_default() += count;
        }
        self.other += written.other;
    }

    /// Decides who is shown; once per scrape, after all shards were heard.
    pub(super) fn turn(&mut self) {
        for named in self.named.values_mut() {
            named.score /= 2;
        }
        for (event, count) in std::mem::take(&mut self.fresh) {
            if let Some(named) = self.named.get_mut(&event) {
                named.written += count;
                named.score += count;
            } else if self.makes_room_for(count) {
                let named = Named {
                    written: count,
                    score: count,
                    ..Named::default()
                };
                self.named.insert(event, named);
            } else {
                self.other += count;
            }
        }
    }

    /// Whether an event of so many writes may be named; the idlest leaves if it is much busier.
    fn makes_room_for(&mut self, count: u64) -> bool {
        if self.named.len() < limits::EVENTS_SHOWN_MAX {
            return true;
        }
        // Of those equally idle the one with fewer writes, so that it is the same one every time.
        let idleness = |named: &Named| (named.score, named.written);
        let idlest = self.named.iter().min_by_key(|(_, named)| idleness(named));
        let Some((idlest, score)) = idlest.map(|(event, named)| (event.clone(), named.score))
        else {
            return false;
        };
        let is_busier = count > 2 * score;
        if is_busier {
            self.named.remove(&idlest);
        }
        is_busier
    }

    /// Those whose units should be read now; each is told once until it is old again.
    pub(super) fn stale(&mut self, now: Duration) -> Vec<EventId> {
        let mut stale = Vec::new();
        for (event, named) in &mut self.named {
            let fresh = named
                .asked
                .is_some_and(|at| now.saturating_sub(at) < limits::EVENT_UNITS_AGE_MAX);
            if !fresh {
                named.asked = Some(now);
                stale.push(event.clone());
            }
        }
        stale
    }

    /// How an event stands. Without effect when it is not shown any more.
    pub(super) fn learn(&mut self, event: &EventId, status: EventStatus) {
        if let Some(named) = self.named.get_mut(event) {
            named.status = Some(status);
        }
    }

    /// Those that are shown, by name.
    pub(super) fn named(&self) -> Vec<(&EventId, &Named)> {
        let mut named: Vec<_> = self.named.iter().collect();
        named.sort_unstable_by_key(|(event, _)| event.as_str());
        named
    }

    /// Reservations of all others.
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

    fn written(counts: &[(usize, u64)]) -> Written {
        let mut written = Written::default();
        for (n, count) in counts {
            written.events.insert(event(*n), *count);
        }
        written
    }

    fn count(events: &Events, n: usize) -> Option<u64> {
        events.named.get(&event(n)).map(|named| named.written)
    }

    fn full() -> Events {
        let mut events = Events::default();
        for n in 0..limits::EVENTS_SHOWN_MAX {
            events.absorb(written(&[(n, 10 + n as u64)]));
        }
        events.turn();
        events
    }

    #[test]
    fn the_sum_over_shards_is_shown() {
        let mut events = Events::default();
        events.absorb(written(&[(1, 3)]));
        events.absorb(written(&[(1, 4), (2, 5)]));
        events.turn();
        events.absorb(written(&[(1, 1)]));
        events.turn();
        assert_eq!((count(&events, 1), count(&events, 2)), (Some(8), Some(5)));
        assert_eq!(events.other(), 0);
    }

    #[test]
    fn a_busier_event_takes_the_place_of_the_idlest_and_a_small_one_is_other() {
        let mut events = full();
        events.absorb(written(&[(100, 5)]));
        events.turn();
        assert_eq!((count(&events, 100), events.other()), (None, 5));
        events.absorb(written(&[(101, 500)]));
        events.turn();
        assert_eq!(count(&events, 101), Some(500));
        assert_eq!(count(&events, 0), None, "it was the idlest");
        assert_eq!(events.named().len(), limits::EVENTS_SHOWN_MAX);
        assert_eq!(
            events.other(),
            5,
            "what was shown does not come back as other"
        );
    }

    #[test]
    fn units_are_asked_for_once_until_they_are_old() {
        let mut events = full();
        let now = Duration::from_secs(100);
        assert_eq!(events.stale(now).len(), limits::EVENTS_SHOWN_MAX);
        assert!(events.stale(now + Duration::from_secs(1)).is_empty());
        let later = now + limits::EVENT_UNITS_AGE_MAX;
        assert_eq!(events.stale(later).len(), limits::EVENTS_SHOWN_MAX);
    }
}
