//! Turns of the connections of a shard whose clients send more than one poll reads.
//!
//! Such a connection is always ready. If all of them were in the queue of the executor, every other task of the shard would
//! wait for a poll of each of them, so that a few hundred floods would stall the shard. So one of them is in the queue at
//! a time, after the executor has looked at the other sockets; the others wait in the order of their arrival, and read
//! nothing meanwhile. A connection that no bound of a poll has stopped needs no turn.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

use inventory_runtime::WakeAfterIo;

/// One per shard.
#[derive(Default)]
pub(super) struct ConnectionTurns {
    next: Cell<u64>,
    holder: Cell<Option<u64>>,
    /// The wake-up of the holder.
    wake_up: RefCell<Option<WakeAfterIo>>,
    /// By the order of arrival.
    waiting: RefCell<BTreeMap<u64, Waker>>,
}

impl ConnectionTurns {
    /// A place in the line; the connection is woken when it has the turn. Only on an executor.
    fn enter(&self, waker: &Waker) -> u64 {
        let place = self.next.get();
        self.next.set(place + 1);
        if self.holder.get().is_none() {
            self.give(place, waker);
        } else {
            self.waiting.borrow_mut().insert(place, waker.clone());
        }
        place
    }

    /// Gives up a place, and the turn if it is there.
    fn leave(&self, place: u64) {
        if self.holder.get() != Some(place) {
            self.waiting.borrow_mut().remove(&place);
            return;
        }
        self.holder.set(None);
        self.wake_up.take();
        let next = self.waiting.borrow_mut().pop_first();
        if let Some((next, waker)) = next {
            self.give(next, &waker);
        }
    }

    fn give(&self, place: u64, waker: &Waker) {
        self.holder.set(Some(place));
        self.wake_up.replace(Some(WakeAfterIo::new(waker)));
    }
}

/// The place of one connection; dropped, it is given up.
pub(super) struct ConnectionTurn {
    turns: Rc<ConnectionTurns>,
    /// `None`: the connection needs no turn.
    place: Option<u64>,
}

impl ConnectionTurn {
    pub(super) fn new(turns: &Rc<ConnectionTurns>) -> Self {
        Self { turns: Rc::clone(turns), place: None }
    }

    /// Whether this poll of the connection may read.
    pub(super) fn may_read(&self) -> bool {
        self.place.is_none() || self.place == self.turns.holder.get()
    }

    /// Ends a poll: the turn goes to the next connection. If the poll stopped before it had read everything, this
    /// one enters the line again.
    pub(super) fn end_poll(&mut self, has_more: bool, waker: &Waker) {
        if self.place.is_some() {
            if !self.may_read() {
                return;
            }
            self.give_up();
        }
        if has_more {
            self.place = Some(self.turns.enter(waker));
        }
    }

    /// Gives up the place, if there is one.
    pub(super) fn give_up(&mut self) {
        if let Some(place) = self.place.take() {
            self.turns.leave(place);
        }
    }
}

impl Drop for ConnectionTurn {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use inventory_runtime::run_unpinned;

    use super::*;

    #[derive(Default)]
    struct WakeUps(AtomicUsize);

    impl Wake for WakeUps {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Connections of a shard, each with the number of its wake-ups.
    struct TurnFixture {
        turns: Vec<ConnectionTurn>,
        wakes: Vec<Arc<WakeUps>>,
    }

    impl TurnFixture {
        fn new(connections: usize) -> Self {
            let turns = Rc::<ConnectionTurns>::default();
            Self {
                turns: (0..connections).map(|_| ConnectionTurn::new(&turns)).collect(),
                wakes: (0..connections).map(|_| Arc::default()).collect(),
            }
        }

        fn poll(&mut self, connection: usize, has_more: bool) {
            let waker = Waker::from(Arc::clone(&self.wakes[connection]));
            self.turns[connection].end_poll(has_more, &waker);
        }

        /// How often each connection was woken since this was last asked.
        async fn woken(&self) -> Vec<usize> {
            inventory_runtime::after_io().await;
            self.wakes.iter().map(|count| count.0.swap(0, Ordering::SeqCst)).collect()
        }
    }

    #[test]
    fn one_connection_at_a_time_is_woken_in_the_order_of_arrival() {
        run_unpinned(take_turns()).unwrap();
    }

    async fn take_turns() {
        let mut shard = TurnFixture::new(3);
        for connection in 0..3 {
            shard.poll(connection, true);
        }
        assert_eq!(shard.woken().await, [1, 0, 0]);
        assert_eq!([0, 1, 2].map(|one: usize| shard.turns[one].may_read()), [true, false, false]);
        // Polled for another reason: no turn, and no second place.
        shard.poll(2, true);
        assert_eq!(shard.woken().await, [0, 0, 0]);
        for turn in [1, 2, 0, 1] {
            let holder = (turn + 2) % 3;
            shard.poll(holder, true);
            let expected = [0, 1, 2].map(|one| usize::from(one == turn));
            assert_eq!(shard.woken().await, expected);
        }
    }

    #[test]
    fn a_connection_that_has_read_everything_or_ends_passes_its_turn_on() {
        run_unpinned(pass_turns_on()).unwrap();
    }

    async fn pass_turns_on() {
        let mut shard = TurnFixture::new(4);
        for connection in 0..4 {
            shard.poll(connection, true);
        }
        shard.woken().await;
        shard.poll(0, false);
        assert_eq!(shard.woken().await, [0, 1, 0, 0]);
        assert!(shard.turns[0].may_read());
        // One that waits ends, then the one that has the turn.
        drop(shard.turns.remove(2));
        drop(shard.turns.remove(1));
        assert_eq!(shard.woken().await, [0, 0, 0, 1]);
        drop(shard.turns.remove(1));
        let turns = &shard.turns[0].turns;
        assert!(turns.holder.get().is_none() && turns.waiting.borrow().is_empty());
    }
}
