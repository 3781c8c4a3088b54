//! Limits how often one kind of line is logged, whatever the number of its causes.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::REPEATED_LOG_INTERVAL;

/// One per kind of line.
#[derive(Default)]
pub(crate) struct LogInterval(Mutex<LogIntervalState>);

#[derive(Default)]
struct LogIntervalState {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogInterval {
    /// If a line is due, the number of lines that were suppressed since the last one.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.duration_since(last) < REPEATED_LOG_INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_due_and_later_ones_once_per_interval() {
        let (interval, start) = (LogInterval::default(), Instant::now());
        assert_eq!(interval.due_at(start), Some(0));
        for _ in 0..3 {
            assert_eq!(interval.due_at(start + REPEATED_LOG_INTERVAL / 2), None);
        }
        assert_eq!(interval.due_at(start + REPEATED_LOG_INTERVAL), Some(3));
        assert_eq!(interval.due_at(start + REPEATED_LOG_INTERVAL * 2), Some(0));
    }
}
