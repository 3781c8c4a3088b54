//! The open connections of a shard: their drain (GOAWAY to each, and a wait until none is open), and the choice of the
//! connection to evict when the table is full.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use inventory_core::time::Micros;

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

/// What the register knows of a connection.
#[derive(Default)]
struct RegisteredConnection {
    waker: RefCell<Option<Waker>>,
    /// The HTTP/2 handshake is complete.
    is_established: Cell<bool>,
    /// A call of a contract is in flight.
    is_busy: Cell<bool>,
    /// Arrival of the last request, at first of the connection.
    last_request: Cell<Micros>,
    is_evicted: Cell<bool>,
}

impl RegisteredConnection {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// One per shard. Connections register themselves while they are open.
#[derive(Default)]
pub struct Drain {
    stage: Cell<DrainStage>,
    next_key: Cell<u64>,
    connections: RefCell<BTreeMap<u64, Rc<RegisteredConnection>>>,
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

    /// Makes room for another connection: ends the one that has been idle for longest, which no call misses.
    /// Connections without a handshake come first. False if every connection has calls in flight.
    pub fn evict_idlest(&self) -> bool {
        let connections = self.connections.borrow();
        let idle = connections.values().filter(|one| !one.is_busy.get() && !one.is_evicted.get());
        let idlest = idle.min_by_key(|one| (one.is_established.get(), one.last_request.get()));
        if let Some(idlest) = idlest {
            idlest.is_evicted.set(true);
            idlest.wake();
        }
        idlest.is_some()
    }

    /// Open connections of this shard, draining ones included.
    #[cfg(any(test, fuzzing))]
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
        for connection in self.connections.borrow().values() {
            connection.wake();
        }
    }
}

/// A connection's entry in the register; dropped, it removes itself.
pub(super) struct ConnectionGuard {
    drain: Rc<Drain>,
    key: u64,
    connection: Rc<RegisteredConnection>,
}

impl ConnectionGuard {
    pub(super) fn new(drain: &Rc<Drain>, now: Micros) -> Self {
        let key = drain.next_key.get();
        drain.next_key.set(key + 1);
        let connection = Rc::new(RegisteredConnection::default());
        connection.last_request.set(now);
        drain.connections.borrow_mut().insert(key, Rc::clone(&connection));
        Self { drain: Rc::clone(drain), key, connection }
    }

    /// Sets the task to wake when the stage changes or the connection is evicted.
    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.connection.waker.borrow_mut() = Some(waker.clone());
    }

    pub(super) fn established(&self) {
        self.connection.is_established.set(true);
    }

    pub(super) fn request_arrived(&self, now: Micros) {
        self.connection.last_request.set(now);
    }

    pub(super) fn set_busy(&self, is_busy: bool) {
        self.connection.is_busy.set(is_busy);
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.connection.is_evicted.get()
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

    fn open_at(drain: &Rc<Drain>, at: u64) -> ConnectionGuard {
        ConnectionGuard::new(drain, Micros(at))
    }

    #[test]
    fn the_idlest_connection_is_evicted_first_and_a_busy_one_never() {
        let drain = Drain::new();
        let guards: Vec<_> = (0..4).map(|at| open_at(&drain, at)).collect();
        for guard in &guards[..3] {
            guard.established();
        }
        guards[0].set_busy(true);
        guards[1].request_arrived(Micros(9));
        // The order: no handshake, no request since 2, a request at 9.
        for next in [3, 2, 1] {
            assert!(drain.evict_idlest());
            assert!(guards[next].is_evicted(), "{next}");
        }
        assert!(!drain.evict_idlest() && !guards[0].is_evicted());
    }

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
        let (one, two) = (open_at(&drain, 1), open_at(&drain, 2));
        assert_eq!(drain.connections(), 2);
        drop(one);
        assert!(drain.wait_until_empty().now_or_never().is_none());
        drop(two);
        assert!(drain.wait_until_empty().now_or_never().is_some());
    }
}
