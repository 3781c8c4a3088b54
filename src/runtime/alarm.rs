//! One timer that a task keeps for its whole life and moves as it needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use glommio::timer::Timer;

use crate::domain::time::Micros;

/// The executor's timers count whole milliseconds and round down; one more keeps them from ringing
/// early, which would make a task spin until its instant has really come.
const ROUNDING: Duration = Duration::from_millis(1);

/// Wakes its task at the earliest instant it was asked for, or up to two milliseconds later.
///
/// The executor's own timer registers anew at every poll and forgets older registrations only when
/// they ring, so a task that is woken often would pile them up. This one registers once per
/// instant, however often its task is polled.
#[derive(Default)]
pub struct Alarm {
    set: Option<Set>,
}

struct Set {
    /// Holds the registration; dropping it takes the registration back.
    _timer: Pin<Box<Timer>>,
    at: Micros,
    bell: Arc<Bell>,
}

/// Remembers that the timer rang, for it holds no registration from then on.
struct Bell {
    rung: AtomicBool,
    waker: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }
}

impl Alarm {
    /// Makes sure that `waker` is woken at `at` or before. An alarm already set for an earlier
    /// instant is kept: it costs one needless wake-up, which is cheaper than moving it each time.
    /// An instant that has passed wakes at once. Only on an executor of this module.
    pub fn set(&mut self, now: Micros, at: Micros, waker: &Waker) {
        if let Some(set) = &self.set
            && set.at <= at
            && !set.bell.rung.load(Ordering::Acquire)
            && set.bell.waker.will_wake(waker)
        {
            return;
        }
        self.set = None;
        if at <= now {
            waker.wake_by_ref();
            return;
        }
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(false),
            waker: waker.clone(),
        });
        let ring = Waker::from(Arc::clone(&bell));
        let span = Duration::from_micros(at.since(now).0) + ROUNDING;
        let mut timer = Box::pin(Timer::new(span));
        if timer
            .as_mut()
            .poll(&mut Context::from_waker(&ring))
            .is_ready()
        {
            waker.wake_by_ref();
            return;
        }
        self.set = Some(Set {
            _timer: timer,
            at,
            bell,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::task::Poll;

    use super::*;
    use crate::runtime::clock::monotonic;

    /// Polls until `until` has passed, setting the alarm at each poll; counts the polls.
    async fn polls_until(until: Micros, woken_by_others: u32) -> u32 {
        let polls = Cell::new(0);
        let mut alarm = Alarm::default();
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
        let polls = crate::runtime::run_here(async {
            polls_until(monotonic().plus(Micros::from_millis(20)), 50).await
        })
        .unwrap();
        assert_eq!(polls, 50 + 2);
    }

    #[test]
    fn an_earlier_instant_is_kept_and_a_later_one_still_rings() {
        crate::runtime::run_here(async {
            let start = monotonic();
            let (early, late) = (
                start.plus(Micros::from_millis(5)),
                start.plus(Micros::from_millis(25)),
            );
            let mut alarm = Alarm::default();
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
}
