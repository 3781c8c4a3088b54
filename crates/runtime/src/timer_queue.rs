//! Timers that tasks keep for their whole life and move as they need, and the board on which an executor
//! has all of them.
//!
//! The executor looks at each of its own timers whenever it looks at any, and it looks several times per
//! turn: with a timer per connection, 23 % of the CPU time over 5,000 connections. All alarms share one of its timers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

use super::clock::monotonic;
use inventory_core::time::Micros;

/// The executor's timers count whole milliseconds and round down; one more keeps them from ringing
/// early, which would make a task spin until its instant has really come.
const ROUNDING: Duration = Duration::from_millis(1);

/// When an alarm rings, and which of those of that instant it is.
type TimerKey = (Micros, u64);

thread_local! {
    static TIMER_QUEUE: RefCell<TimerQueue> = const { RefCell::new(TimerQueue::new()) };
}

/// The alarms of the executor that runs on this thread.
struct TimerQueue {
    timers: BTreeMap<TimerKey, Waker>,
    next_id: u64,
    /// Whether there is a task that rings them.
    has_task: bool,
    /// Wakes that task; `None` until it has first run.
    task: Option<Waker>,
}

impl TimerQueue {
    const fn new() -> Self {
        Self {
            timers: BTreeMap::new(),
            next_id: 0,
            has_task: false,
            task: None,
        }
    }

    fn insert(&mut self, at: Micros, waker: Waker) -> TimerKey {
        let key = (at, self.next_id);
        self.next_id += 1;
        let first = self.timers.first_key_value();
        if first.is_none_or(|(first, _)| key < *first)
            && let Some(keeper) = &self.task
        {
            keeper.wake_by_ref();
        }
        self.timers.insert(key, waker);
        key
    }

    /// Takes down what is due.
    fn take_due(&mut self, now: Micros) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            due.push(entry.remove());
        }
        due
    }
}

/// Takes all alarms down when an executor ends, while what they would wake is still there: another one
/// may run on the same thread.
pub(super) struct TimerQueueReset;

impl Drop for TimerQueueReset {
    fn drop(&mut self) {
        // Dropped after the board is free again: with its waker a task may go, and its alarm with it.
        let _ = TIMER_QUEUE.try_with(|board| board.replace(TimerQueue::new()));
    }
}

/// Rings the alarms of this executor, for as long as it runs.
async fn fire_timers() {
    // Made anew at each poll: polled twice, a timer is registered twice. It is polled when it rings and when
    // an earlier alarm is put up.
    let mut _timer: Option<Pin<Box<Timer>>> = None;
    std::future::poll_fn(|cx| {
        let now = monotonic();
        let (due, first) = TIMER_QUEUE.with_borrow_mut(|board| {
            if board.task.is_none() {
                board.task = Some(cx.waker().clone());
            }
            let due = board.take_due(now);
            (due, board.timers.first_key_value().map(|(key, _)| key.0))
        });
        // The board is free again: who wakes may put up another.
        due.into_iter().for_each(Waker::wake);
        _timer = first.map(|at| {
            let span = Duration::from_micros(at.since(now).0) + ROUNDING;
            let mut timer = Box::pin(Timer::new(span));
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            timer
        });
        Poll::<()>::Pending
    })
    .await;
}

/// Wakes its task at the earliest instant it was asked for, or up to two milliseconds later. Dropped, it
/// wakes nobody.
#[derive(Default)]
pub struct TimerHandle {
    wake_at: Option<TimerKey>,
}

impl TimerHandle {
    /// Makes sure that `waker` is woken at `at` or before. An alarm already set for an earlier
    /// instant is kept: it costs one needless wake-up, which is cheaper than moving it each time.
    /// An instant that has passed wakes at once. Only on an executor of this module.
    pub fn set(&mut self, now: Micros, at: Micros, waker: &Waker) {
        if let Some(key) = &self.wake_at
            && key.0 <= at
            && TIMER_QUEUE.with_borrow(|board| {
                board
                    .timers
                    .get(key)
                    .is_some_and(|set| set.will_wake(waker))
            })
        {
            return;
        }
        self.cancel();
        if at <= now {
            waker.wake_by_ref();
            return;
        }
        let put = |board: &mut TimerQueue| {
            let is_kept = std::mem::replace(&mut board.has_task, true);
            (board.insert(at, waker.clone()), is_kept)
        };
        let (key, is_kept) = TIMER_QUEUE.with_borrow_mut(put);
        self.wake_at = Some(key);
        if !is_kept {
            super::spawn(fire_timers()).detach();
        }
    }

    fn cancel(&mut self) {
        if let Some(key) = self.wake_at.take() {
            // A thread that ends has no board any more.
            let _ = TIMER_QUEUE.try_with(|board| board.borrow_mut().timers.remove(&key));
        }
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::pin::pin;
    use std::rc::Rc;

    use futures::future::{Either, join_all, select};

    use super::*;
    use crate::clock::monotonic;

    /// Polls until `until` has passed, setting the alarm at each poll; counts the polls.
    async fn polls_until(until: Micros, woken_by_others: u32) -> u32 {
        let polls = Cell::new(0);
        let mut alarm = TimerHandle::default();
        std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            let now = monotonic();
            if now >= until {
                return Poll::Ready(());
            }
            alarm.set(now, until, cx.waker());
            if polls.get() <= woken_by_others {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        polls.get()
    }

    #[test]
    fn rings_once_for_its_instant_however_often_the_task_is_polled() {
        let polls = crate::run_unpinned(async {
            polls_until(monotonic().plus(Micros::from_millis(20)), 50).await
        })
        .unwrap();
        assert_eq!(polls, 50 + 2);
    }

    #[test]
    fn an_earlier_instant_is_kept_and_a_later_one_still_rings() {
        crate::run_unpinned(async {
            let start = monotonic();
            let (early, late) = (
                start.plus(Micros::from_millis(5)),
                start.plus(Micros::from_millis(25)),
            );
            let mut alarm = TimerHandle::default();
            let mut asked = false;
            std::future::poll_fn(|cx| {
                let now = monotonic();
                if now >= late {
                    return Poll::Ready(());
                }
                alarm.set(now, if asked { late } else { early }, cx.waker());
                asked = true;
                Poll::Pending
            })
            .await;
        })
        .unwrap();
    }

    /// When each of these alarms woke its task, in milliseconds after the start, in the order of waking.
    fn rings(after: &[u64]) -> Vec<u64> {
        let rung = Rc::new(RefCell::new(Vec::new()));
        let of_all = rung.clone();
        let waited = crate::run_unpinned(async move {
            let start = monotonic();
            let wait = |millis: u64| {
                let rung = of_all.clone();
                async move {
                    polls_until(start.plus(Micros::from_millis(millis)), 0).await;
                    rung.borrow_mut().push(millis);
                    assert!(monotonic().since(start) >= Micros::from_millis(millis));
                }
            };
            join_all(after.iter().map(|millis| wait(*millis))).await
        });
        waited.unwrap();
        rung.take()
    }

    #[test]
    fn alarms_ring_in_the_order_of_their_instants_however_they_were_set() {
        assert_eq!(rings(&[30, 10, 20, 10, 40]), [10, 10, 20, 30, 40]);
        // Another executor on the same thread has alarms of its own.
        assert_eq!(rings(&[5, 15]), [5, 15]);
    }

    #[test]
    fn an_alarm_that_is_dropped_wakes_nobody() {
        crate::run_unpinned(async {
            let start = monotonic();
            let polls = Cell::new(0);
            let mut alarm = Some(TimerHandle::default());
            let silent = std::future::poll_fn(|cx| {
                polls.set(polls.get() + 1);
                if let Some(mut alarm) = alarm.take() {
                    alarm.set(start, start.plus(Micros::from_millis(5)), cx.waker());
                }
                Poll::<()>::Pending
            });
            let enough = crate::sleep(Duration::from_millis(30));
            select(silent, pin!(enough)).await;
            // At the start, and when the time is up.
            assert_eq!(polls.get(), 2);
        })
        .unwrap();
    }

    #[test]
    fn an_earlier_alarm_does_not_wait_for_a_later_one() {
        crate::run_unpinned(async {
            let late = polls_until(monotonic().plus(Micros::from_millis(3_600_000)), 0);
            crate::spawn(late).detach();
            crate::sleep(Duration::from_millis(5)).await;
            let soon = polls_until(monotonic().plus(Micros::from_millis(5)), 0);
            let patience = crate::sleep(Duration::from_secs(20));
            match select(pin!(soon), pin!(patience)).await {
                Either::Left(_) => {}
                Either::Right(_) => panic!("nobody was told of it"),
            }
        })
        .unwrap();
    }

    #[test]
    fn alarms_that_outlive_their_executor_are_forgotten() {
        crate::run_unpinned(async {
            let forever = polls_until(monotonic().plus(Micros::from_millis(3_600_000)), 0);
            crate::spawn(forever).detach();
            crate::sleep(Duration::from_millis(5)).await;
            assert_eq!(TIMER_QUEUE.with_borrow(|board| board.timers.len()), 1);
        })
        .unwrap();
        assert!(TIMER_QUEUE.with_borrow(|board| board.timers.is_empty() && !board.has_task));
        assert_eq!(rings(&[5]), [5]);
    }
}
