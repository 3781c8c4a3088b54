//! Whether an event is sold in two steps: what its commits were found to be of.
//!
//! A commit that nothing is remembered of may confirm a hold placed long ago or elsewhere, or take its
//! stock at once. Written as the latter, a commit of a hold cancels the transaction it is in, and all
//! in it are written again; read first, a direct commit waits for a read that finds nothing. So a
//! shard goes by what it met last.
//!
//! Must not live here: what a record means, reading it. A wrong guess costs time, never an outcome:
//! the write's condition decides.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::ids::EventId;
use crate::limits;

/// See the module's head. Knows only events of which a commit met a hold, and of those the ones met
/// last.
pub(super) struct Habits {
    leanings: LruCache<EventId, u8, foldhash::fast::RandomState>,
}

impl Habits {
    pub(super) fn new() -> Self {
        let known = NonZeroUsize::new(limits::EVENTS_KNOWN_MAX).unwrap_or(NonZeroUsize::MIN);
        Self {
            leanings: LruCache::with_hasher(known, foldhash::fast::RandomState::default()),
        }
    }

    /// Whether the record of a commit of which nothing is remembered is better looked at first.
    pub(super) fn look_first(&self, event: &EventId) -> bool {
        let leaning = self.leanings.peek(event);
        leaning.is_some_and(|leaning| *leaning >= limits::HABIT_FROM)
    }

    /// A commit was found to be of a hold, which it had no memory of.
    pub(super) fn of_a_hold(&mut self, event: &EventId) {
        let most = limits::HABIT_MAX;
        match self.leanings.get_mut(event) {
            Some(leaning) => *leaning = most.min(leaning.saturating_add(limits::HABIT_OF_A_HOLD)),
            None => {
                let leaning = most.min(limits::HABIT_OF_A_HOLD);
                self.leanings.put(event.clone(), leaning);
            }
        }
    }

    /// A commit was found to have no record: it takes its stock at once.
    pub(super) fn direct(&mut self, event: &EventId) {
        if let Some(leaning) = self.leanings.get_mut(event) {
            *leaning = leaning.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventId {
        "e1".parse().expect("legal")
    }

    #[test]
    fn one_hold_is_enough_and_direct_commits_wear_it_off() {
        let mut habits = Habits::new();
        assert!(!habits.look_first(&event()), "nothing is known");
        habits.of_a_hold(&event());
        assert!(habits.look_first(&event()));
        assert!(!habits.look_first(&"e2".parse().expect("legal")), "another");
        habits.direct(&event());
        assert!(!habits.look_first(&event()), "one after one is a draw");
        for _ in 0..100 {
            habits.of_a_hold(&event());
        }
        let looks = (0..).take_while(|_| {
            let looks = habits.look_first(&event());
            habits.direct(&event());
            looks
        });
        let most = limits::HABIT_MAX - limits::HABIT_FROM + 1;
        assert_eq!(looks.count(), usize::from(most), "a change is soon learned");
    }

    #[test]
    fn looking_goes_on_while_more_than_one_commit_in_five_is_of_a_hold() {
        for (every, looks) in [(4, true), (8, false)] {
            let mut habits = Habits::new();
            habits.of_a_hold(&event());
            for n in 1..=100 {
                match n % every {
                    0 => habits.of_a_hold(&event()),
                    _ => habits.direct(&event()),
                }
            }
            habits.of_a_hold(&event());
            habits.direct(&event());
            assert_eq!(habits.look_first(&event()), looks, "one in {every}");
        }
    }
}
