//! The waker of a connection's turn.
//!
//! During a turn the connection polls HTTP/2 and its calls in rounds until nothing moves any more.
//! Wake-ups that arrive meanwhile (a handler answers, HTTP/2 wants to write it) only ask for one
//! more round; handed to the executor they would cost a whole further turn after nearly every one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

/// Nobody is polling: a wake-up goes to the executor.
const IDLE: u8 = 0;
/// A round runs and has not been disturbed.
const POLLING: u8 = 1;
/// A round runs and something it may have passed already wants another look.
const WOKEN: u8 = 2;

pub(super) struct CoalescingWaker {
    state: AtomicU8,
    task: Waker,
}

impl CoalescingWaker {
    pub(super) fn new(task: &Waker) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(IDLE),
            task: task.clone(),
        })
    }

    /// The executor's waker for the connection's task.
    pub(super) fn task(&self) -> &Waker {
        &self.task
    }

    /// A round begins: everything is about to be looked at, earlier wake-ups are done with.
    pub(super) fn begin_round(&self) {
        self.state.store(POLLING, Ordering::SeqCst);
    }

    /// Whether something was woken since the round began.
    pub(super) fn was_woken(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WOKEN
    }

    /// The turn ends. A wake-up that the last round did not serve goes to the executor.
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
            self.state
                .compare_exchange(POLLING, WOKEN, Ordering::SeqCst, Ordering::SeqCst);
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
    fn wakes_in_a_round_ask_for_another_and_later_ones_reach_the_task() {
        let count = Arc::new(Count::default());
        let turn = CoalescingWaker::new(&Waker::from(Arc::clone(&count)));
        let waker = Waker::from(Arc::clone(&turn));
        let woken = || count.0.load(Ordering::SeqCst);

        turn.begin_round();
        assert!(!turn.was_woken());
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert!(turn.was_woken());
        assert_eq!(woken(), 0);
        turn.begin_round();
        assert!(!turn.was_woken());
        turn.end_poll();
        assert_eq!(woken(), 0);

        waker.wake_by_ref();
        assert_eq!(woken(), 1);

        turn.begin_round();
        waker.wake_by_ref();
        turn.end_poll();
        assert_eq!(
            woken(),
            2,
            "a wake-up that no round served must not be lost"
        );
    }
}
