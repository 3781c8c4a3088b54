//! The drain of a shard's connections: GOAWAY to each, and a wait until none is open.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The stages of a shutdown, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DrainStage {
    /// Calls are accepted.
    #[default]
    Serving,
    /// Connections send GOAWAY, finish their calls and close.
    Draining,
    /// The grace period is over: connections close at once.
    Aborted,
}

/// One per shard. Connections register themselves while they are open.
#[derive(Default)]
pub struct Drain {
    stage: Cell<DrainStage>,
    next_key: Cell<u64>,
    connections: RefCell<BTreeMap<u64, Option<Waker>>>,
    waiters: RefCell<Vec<Waker>>,
}

impl Drain {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    pub(super) fn stage(&self) -> DrainStage {
        self.stage.get()
    }

    /// Drains every connection: two-phase GOAWAY, then close after the last call. A connection that is
    /// opened later gets its GOAWAY right after the handshake.
    pub fn start(&self) {
        self.advance(DrainStage::Draining);
    }

    /// Closes the remaining connections. Their calls are dropped.
    pub fn abort(&self) {
        self.advance(DrainStage::Aborted);
    }

    /// Open connections of this shard, draining ones included.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Waits until no connection is open.
    pub async fn wait_until_empty(&self) {
        poll_fn(|cx| {
            if self.connections.borrow().is_empty() {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiters.push(cx.waker().clone());
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

/// A connection's entry in the register; dropped, it removes itself.
pub(super) struct ConnectionGuard {
    drain: Rc<Drain>,
    key: u64,
}

impl ConnectionGuard {
    pub(super) fn new(drain: &Rc<Drain>) -> Self {
        let key = drain.next_key.get();
        drain.next_key.set(key + 1);
        drain.connections.borrow_mut().insert(key, None);
        Self { drain: Rc::clone(drain), key }
    }

    /// Sets the task to wake when the stage changes.
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
            for waker in self.drain.waiters.borrow_mut().drain(..) {
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
    fn stages_only_advance() {
        let drain = Drain::new();
        drain.abort();
        drain.start();
        assert_eq!(drain.stage(), DrainStage::Aborted);
    }

    #[test]
    fn waiters_resume_when_the_last_connection_is_dropped() {
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
