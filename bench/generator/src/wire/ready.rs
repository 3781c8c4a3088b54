//! Wakers that name the future to poll: each puts its number on a list, at most once.
//!
//! Order of events, for one waker: (1) `wake` sets `queued` and pushes the waker on `woken`; (2) the owner
//! drains `woken` and clears `queued` under the same lock; (3) a wake after (2) queues the waker again. So a
//! wake is never lost: a future that is woken after the drain is polled after the drain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Numbers of the futures that were woken since the last drain.
#[derive(Default)]
pub(crate) struct ReadyList {
    state: Mutex<ReadyState>,
}

#[derive(Default)]
struct ReadyState {
    woken: Vec<Arc<ReadyWaker>>,
    /// Waker of the task that drains the list; `None` while that task runs.
    owner: Option<Waker>,
}

struct ReadyWaker {
    number: u32,
    queued: AtomicBool,
    list: Arc<ReadyList>,
}

impl ReadyList {
    /// A waker that puts `number` on the list.
    pub(crate) fn waker(self: &Arc<Self>, number: u32) -> Waker {
        Waker::from(Arc::new(ReadyWaker {
            number,
            queued: AtomicBool::new(false),
            list: Arc::clone(self),
        }))
    }

    /// Replaces the content of `numbers` by the woken numbers and empties the list.
    pub(crate) fn drain_into(&self, numbers: &mut Vec<u32>) {
        numbers.clear();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in state.woken.drain(..) {
            waker.queued.store(false, Ordering::Release);
            numbers.push(waker.number);
        }
    }

    /// The owner runs: wakes need not wake it.
    pub(crate) fn set_running(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.owner = None;
    }

    /// The owner goes to sleep and is to be woken through `waker`. False: the list is not empty, so that the
    /// owner must drain it first.
    pub(crate) fn set_sleeping(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.owner = Some(waker.clone());
        state.woken.is_empty()
    }
}

impl Wake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let owner = {
            let state = self.list.state.lock();
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            state.woken.push(Arc::clone(self));
            state.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_is_listed_once_and_again_after_a_drain() {
        let list = Arc::new(ReadyList::default());
        let (one, two) = (list.waker(1), list.waker(2));
        let mut woken = Vec::new();
        one.wake_by_ref();
        one.wake_by_ref();
        two.wake_by_ref();
        list.drain_into(&mut woken);
        assert_eq!(woken, [1, 2]);
        one.wake_by_ref();
        list.drain_into(&mut woken);
        assert_eq!(woken, [1]);
        list.drain_into(&mut woken);
        assert!(woken.is_empty());
    }

    #[test]
    fn a_sleeping_owner_is_woken_and_one_with_work_does_not_sleep() {
        let (list, outer) = (Arc::new(ReadyList::default()), Arc::default());
        let waker = list.waker(1);
        let mut woken = Vec::new();
        assert!(list.set_sleeping(&ReadyList::waker(&outer, 9)));
        waker.wake_by_ref();
        outer.drain_into(&mut woken);
        assert_eq!(woken, [9]);
        assert!(!list.set_sleeping(&outer.waker(9)));
    }
}
