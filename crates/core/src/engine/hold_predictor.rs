//! Predicts whether a commit confirms a hold, from the records that earlier commits of its event found.
//!
//! A commit without a cached record may confirm a hold that was placed long ago or elsewhere, or take
//! its stock directly. If it is written as a direct commit and there is a hold, its transaction is
//! cancelled and all entries are written again; if its record is read first and there is none, the read
//! was wasted. The predictor follows the most recent commits.
//!
//! A wrong prediction costs time and never changes an outcome, because the condition of the write decides. Not here:
//! rules, reads.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::ids::EventId;
use crate::limits;

/// Predicts whether a commit confirms a hold. Contains only events with such a commit, most recent first.
pub(super) struct HoldPredictor {
    scores: LruCache<EventId, u8, foldhash::fast::RandomState>,
}

impl HoldPredictor {
    pub(super) fn new() -> Self {
        let known = NonZeroUsize::new(limits::EVENTS_CACHED_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { scores: LruCache::with_hasher(known, foldhash::fast::RandomState::default()) }
    }

    /// Whether the record of a commit without a cached record should be read first.
    pub(super) fn expects_hold(&self, event: &EventId) -> bool {
        let score = self.scores.peek(event);
        score.is_some_and(|score| *score >= limits::HOLD_SCORE_THRESHOLD)
    }

    /// A commit without a cached record met a hold.
    pub(super) fn record_hold(&mut self, event: &EventId) {
        let most = limits::HOLD_SCORE_MAX;
        match self.scores.get_mut(event) {
            Some(score) => *score = most.min(score.saturating_add(limits::HOLD_SCORE_STEP)),
            None => {
                let score = most.min(limits::HOLD_SCORE_STEP);
                self.scores.put(event.clone(), score);
            }
        }
    }

    /// A commit had no record: it takes its stock directly.
    pub(super) fn record_direct_sale(&mut self, event: &EventId) {
        if let Some(score) = self.scores.get_mut(event) {
            *score = score.saturating_sub(1);
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
    fn one_hold_starts_reading_first_and_direct_commits_end_it() {
        let mut predictor = HoldPredictor::new();
        assert!(!predictor.expects_hold(&event()), "nothing is known");
        predictor.record_hold(&event());
        assert!(predictor.expects_hold(&event()));
        assert!(!predictor.expects_hold(&"e2".parse().expect("legal")), "another");
        predictor.record_direct_sale(&event());
        assert!(!predictor.expects_hold(&event()), "one direct commit after one hold ends it");
        for _ in 0..100 {
            predictor.record_hold(&event());
        }
        let looks = (0..).take_while(|_| {
            let looks = predictor.expects_hold(&event());
            predictor.record_direct_sale(&event());
            looks
        });
        let most = limits::HOLD_SCORE_MAX - limits::HOLD_SCORE_THRESHOLD + 1;
        assert_eq!(looks.count(), usize::from(most), "a change is soon learned");
    }

    #[test]
    fn records_are_read_first_above_one_hold_in_five_commits() {
        for (every, looks) in [(4, true), (8, false)] {
            let mut predictor = HoldPredictor::new();
            predictor.record_hold(&event());
            for n in 1..=100 {
                match n % every {
                    0 => predictor.record_hold(&event()),
                    _ => predictor.record_direct_sale(&event()),
                }
            }
            predictor.record_hold(&event());
            predictor.record_direct_sale(&event());
            assert_eq!(predictor.expects_hold(&event()), looks, "one in {every}");
        }
    }
}
