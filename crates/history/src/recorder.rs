//! Recording of attempts by many clients at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::call::{AttemptId, CallEffect, CallOperation, RecordedCall};

/// Most attempts of one history: about 500 MB. A history that is full is reported by its check, because a missing
/// attempt could explain anything.
pub const CALLS_MAX: usize = 2_000_000;

/// Records attempts. Clones share one history; each begin and end is one short lock.
#[derive(Clone, Debug)]
pub struct HistoryRecorder {
    started: Instant,
    started_at_ms: u64,
    calls: Arc<Mutex<CallLog>>,
}

#[derive(Debug, Default)]
struct CallLog {
    calls: Vec<RecordedCall>,
    unrecorded: u64,
}

/// All attempts of a test, in the order of their starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Wall-clock time of the start, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    pub calls: Vec<RecordedCall>,
    /// Attempts beyond [`CALLS_MAX`].
    pub unrecorded: u64,
}

impl HistoryRecorder {
    /// An empty history that starts now.
    #[expect(clippy::new_without_default, reason = "a recorder starts a clock")]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: Instant::now(),
            started_at_ms: since_epoch.as_millis() as u64,
            calls: Arc::default(),
        }
    }

    /// Time since the start of the history.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Records the start of an attempt, at the time of this call: call it before anything is sent.
    pub fn begin(
        &self,
        client: u32,
        reservation_id: &str,
        event_id: &str,
        operation: CallOperation,
    ) -> AttemptId {
        let (reservation_id, event_id) = (reservation_id.to_owned(), event_id.to_owned());
        let mut log = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let id = AttemptId(log.calls.len() as u32);
        if log.calls.len() == CALLS_MAX {
            log.unrecorded += 1;
            return AttemptId(u32::MAX);
        }
        // Inside the lock: attempts are in the order of their starts.
        let started = self.started.elapsed();
        log.calls.push(RecordedCall {
            id,
            client,
            reservation_id,
            event_id,
            operation,
            started,
            ended: None,
            effect: CallEffect::Unknown,
        });
        id
    }

    /// Records the end of an attempt, at the time of this call: call it after the answer was read. An attempt that is
    /// never ended has an unknown effect.
    pub fn end(&self, id: AttemptId, effect: CallEffect) {
        let ended = self.started.elapsed();
        let mut log = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(call) = log.calls.get_mut(id.0 as usize) {
            call.ended = Some(ended);
            call.effect = effect;
        }
    }

    /// The attempts so far. Attempts in flight have no end.
    pub fn history(&self) -> History {
        let log = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        History {
            started_at_ms: self.started_at_ms,
            calls: log.calls.clone(),
            unrecorded: log.unrecorded,
        }
    }
}

impl History {
    /// Time since the start of the history of a wall-clock time; zero if the time is earlier.
    pub fn since_start(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(unix_ms.saturating_sub(self.started_at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::StockSelection;

    #[test]
    fn attempts_of_many_threads_have_distinct_ids_in_the_order_of_their_starts() {
        let recorder = HistoryRecorder::new();
        std::thread::scope(|scope| {
            for client in 0..4 {
                let recorder = recorder.clone();
                scope.spawn(move || {
                    for n in 0..500 {
                        let commit = CallOperation::Commit { selection: StockSelection::Units(1) };
                        let id = recorder.begin(client, &format!("r{client}-{n}"), "e", commit);
                        if n % 2 == 0 {
                            recorder.end(id, CallEffect::SoldOut);
                        }
                    }
                });
            }
        });
        let history = recorder.history();
        assert_eq!(history.calls.len(), 2000);
        assert!(history.calls.iter().zip(0..).all(|(call, n)| call.id == AttemptId(n)));
        assert!(history.calls.is_sorted_by_key(|call| call.started));
        assert_eq!(history.calls.iter().filter(|call| call.is_unknown()).count(), 1000);
        let ended = history.calls.iter().filter_map(|call| Some((call.started, call.ended?)));
        assert!(ended.clone().count() == 1000 && ended.clone().all(|(start, end)| start <= end));
    }
}
