//! The signal that tells every connection of a shard to leave.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainStage {
    /// Calls are taken.
    #[default]
    Serving,
    /// Connections say GOAWAY, finish their calls and end.
    Draining,
    /// The grace is over: connections end as they are.
    Aborted,
}

/// One per shard. Connections register themselves for as long as they live.
#[derive(Default)]
pub struct Drain {
    stage: Cell<DrainStage>,
    next_key: Cell<u64>,
    connections: RefCell<BTreeMap<u64, Option<Waker>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Drain {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    pub fn stage(&self) -> DrainStage {
        self.stage.get()
    }

    /// Asks every connection to leave: two-phase GOAWAY, then its end when its calls have ended.
    /// Connections that come later are asked as soon as they can understand it.
    pub fn start(&self) {
        self.advance(DrainStage::Draining);
    }

    /// Ends what is left. Unanswered calls are dropped.
    pub fn abort(&self) {
        self.advance(DrainStage::Aborted);
    }

    /// Connections of this shard, those that are leaving included.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Waits until no connection is left.
    pub async fn wait_until_empty(&self) {
        poll_fn(|cx| {
            if self.connections.borrow().is_empty() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn advance(&self, stage: DrainStage) {
        if self.stage.get() >= stage {
            return;
        }
        self.stage.set(stage);
        for waker in self.connections.borrow().values().flatten() {
            waker.wake_by_ref();
        }
    }
}

/// A connection's place in the register; it leaves the register when dropped.
pub(super) struct ConnectionGuard {
    drain: Rc<Drain>,
    key: u64,
}

impl ConnectionGuard {
    pub(super) fn new(drain: &Rc<Drain>) -> Self {
        let key = drain.next_key.get();
        drain.next_key.set(key + 1);
        drain.connections.borrow_mut().insert(key, None);
        Self {
            drain: Rc::clone(drain),
            key,
        }
    }

    /// Names the task to wake when the stage changes.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut connections = self.drain.connections.borrow_mut();
        connections.insert(self.key, Some(waker.clone()));
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut connections = self.drain.connections.borrow_mut();
        connections.remove(&self.key);
        if connections.is_empty() {
            for waker in self.drain.waiting.borrow_mut().drain(..) {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_stop_only_goes_forward() {
        let drain = Drain::new();
        drain.abort();
        drain.start();
        assert_eq!(drain.stage(), DrainStage::Aborted);
    }

    #[test]
    fn the_register_is_empty_when_the_last_connection_is_dropped() {
        let drain = Drain::new();
        assert!(drain.wait_until_empty().now_or_never().is_some());
        let (one, two) = (ConnectionGuard::new(&drain), ConnectionGuard::new(&drain));
        assert_eq!(drain.connections(), 2);
        drop(one);
        assert!(drain.wait_until_empty().now_or_never().is_none());
        drop(two);
        assert!(drain.wait_until_empty().now_or_never().is_some());
    }
}
