//! The waker that a connection polls HTTP/2 and its calls with: one wake-up of the task per poll.
//!
//! The connection polls in rounds until nothing moves. A wake-up during a round (a handler completes,
//! HTTP/2 has a frame to write) only asks for one more round; passed on to the executor, such wake-ups
//! would cost one more poll of the task after nearly every poll.
//!
//! No wake-up is lost:
//! 1. `begin_round` sets `state` to `POLLING` before anything is polled.
//! 2. A wake-up in `POLLING` sets `WOKEN`; a wake-up in `IDLE` wakes the task.
//! 3. `end_poll` sets `IDLE` and, if it replaces `WOKEN`, wakes the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

/// No poll is running: a wake-up goes to the executor.
const IDLE: u8 = 0;
/// A round is running without a wake-up so far.
const POLLING: u8 = 1;
/// A wake-up arrived during the round, possibly for a future that the round had already polled.
const WOKEN: u8 = 2;

pub(super) struct CoalescingWaker {
    state: AtomicU8,
    task: Waker,
}

impl CoalescingWaker {
    pub(super) fn new(task: &Waker) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(IDLE), task: task.clone() })
    }

    /// The executor's waker for the connection's task.
    pub(super) fn task(&self) -> &Waker {
        &self.task
    }

    /// Starts a round. The round polls everything, so that earlier wake-ups are served.
    pub(super) fn begin_round(&self) {
        self.state.store(POLLING, Ordering::SeqCst);
    }

    /// Whether a wake-up arrived since the round began.
    pub(super) fn was_woken(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WOKEN
    }

    /// Ends the poll. A wake-up that the last round did not serve goes to the executor.
    pub(super) fn end_poll(&self) {
        if self.state.swap(IDLE, Ordering::SeqCst) == WOKEN {
            self.task.wake_by_ref();
        }
    }
}

impl Wake for CoalescingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let polling =
            self.state.compare_exchange(POLLING, WOKEN, Ordering::SeqCst, Ordering::SeqCst);
        if polling == Err(IDLE) {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wake_ups_in_a_round_are_coalesced_and_later_ones_reach_the_task() {
        let count = Arc::new(Count::default());
        let coalescing = CoalescingWaker::new(&Waker::from(Arc::clone(&count)));
        let waker = Waker::from(Arc::clone(&coalescing));
        let woken = || count.0.load(Ordering::SeqCst);

        coalescing.begin_round();
        assert!(!coalescing.was_woken());
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert!(coalescing.was_woken());
        assert_eq!(woken(), 0);
        coalescing.begin_round();
        assert!(!coalescing.was_woken());
        coalescing.end_poll();
        assert_eq!(woken(), 0);

        waker.wake_by_ref();
        assert_eq!(woken(), 1);

        coalescing.begin_round();
        waker.wake_by_ref();
        coalescing.end_poll();
        assert_eq!(woken(), 2, "a wake-up that no round served must not be lost");
    }
}
