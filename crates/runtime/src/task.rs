//! Tasks of a shard, and the waits that a task can make.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::timer::Timer;

/// A task of this shard. Dropping it cancels the task; [`Task::detach`] lets it run.
pub struct Task<T>(glommio::Task<T>);

impl<T: 'static> Task<T> {
    /// Lets the task run to its end; its result is discarded.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Cancels the task and waits until it is dropped; `Some` if the task had completed before.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

/// Starts `future` on the current shard. A panic in a task ends the shard: the caller wraps what
/// outside input can reach in `catch_unwind`.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task(glommio::spawn_local(future))
}

/// Waits `span`; the timer's resolution is about a millisecond.
///
/// However often the future is polled, the executor has at most one timer of it. The executor's own future registers one
/// more timer at each poll, removes the last one only, and searches all of them in each iteration of its loop: a peer whose
/// bytes arrive one by one, while a sleep limits the time to read them, would slow the shard down.
pub async fn sleep(span: Duration) {
    let until = Instant::now() + span;
    let mut registered: Option<Timer> = None;
    poll_fn(|cx| {
        // Removes the timer of the poll before. It may also have fired early: the executor's timers count whole milliseconds.
        registered = None;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Poll::Ready(());
        }
        let timer = registered.insert(Timer::new(left));
        Pin::new(timer).poll(cx).map(drop)
    })
    .await;
}

/// The result of `future`, or `None` if it takes longer than `limit`; `future` is dropped then.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(limit));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Runs `work` on a thread of the executor's pool, for calls that block (name resolution).
pub async fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

/// Time until the task is woken, during which others run. Shorter pauses let floods take more of the CPU from other clients.
const AFTER_IO: Duration = Duration::from_micros(100);

/// Wakes a task after the executor has looked at its sockets: whatever has arrived by then runs before the task.
///
/// For a task that would otherwise wake itself, because its peer sends faster than it reads: a task that is always ready
/// delays the look at the sockets by up to [`IO_POLL_INTERVAL`](crate::limits::IO_POLL_INTERVAL). A shard without other
/// work wakes the task after a pause of 100 µs. Dropping this cancels the wake-up.
pub struct WakeAfterIo {
    _timer: Timer,
}

impl WakeAfterIo {
    /// Only on an executor of this crate.
    pub fn new(waker: &Waker) -> Self {
        let mut timer = Timer::new(AFTER_IO);
        // Ready if this thread was suspended since the line above.
        if Pin::new(&mut timer).poll(&mut Context::from_waker(waker)).is_ready() {
            waker.wake_by_ref();
        }
        Self { _timer: timer }
    }
}

/// Lets others run that are ready or for whom something has arrived: see [`WakeAfterIo`].
pub async fn after_io() {
    let mut wake_up = None;
    poll_fn(|cx| {
        if wake_up.is_some() {
            return Poll::Ready(());
        }
        wake_up = Some(WakeAfterIo::new(cx.waker()));
        Poll::Pending
    })
    .await;
}

/// Lets other ready tasks of the shard run.
pub async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::rc::Rc;

    use futures::AsyncReadExt;
    use futures::future::select;

    use super::*;

    #[test]
    fn a_sleep_that_is_polled_often_and_dropped_leaves_no_timer() {
        crate::run_unpinned(async {
            let polls = Cell::new(0);
            let mut short = Some(Box::pin(sleep(Duration::from_millis(20))));
            let often = poll_fn(|cx| {
                polls.set(polls.get() + 1);
                if let Some(mut short) = short.take() {
                    for _ in 0..100 {
                        assert!(short.as_mut().poll(cx).is_pending());
                    }
                }
                Poll::<()>::Pending
            });
            select(often, pin!(sleep(Duration::from_millis(60)))).await;
            // At the start, and when the long sleep ends. Each timer that is left would wake the task.
            assert_eq!(polls.get(), 2);
        })
        .unwrap();
    }

    #[test]
    fn what_has_arrived_runs_before_a_task_that_is_woken_after_io() {
        const BYTES: usize = 20;
        let late = crate::run_unpinned(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let listener = crate::Listener::adopt(listener);
            let mut reader = listener.accept().await.unwrap().bind_to_shard().unwrap();
            let received = Rc::<Cell<usize>>::default();
            let count = Rc::clone(&received);
            let reading = spawn(async move {
                let mut byte = [0];
                while reader.read_exact(&mut byte).await.is_ok() {
                    count.set(count.get() + 1);
                }
            });
            sleep(Duration::from_millis(2)).await;
            // This task is always ready. The kernel has delivered the byte when the call returns.
            let mut late = 0;
            for sent in 1..=BYTES {
                sender.write_all(&[0]).unwrap();
                after_io().await;
                late += sent - received.get();
            }
            reading.cancel().await;
            late
        });
        assert_eq!(late.unwrap(), 0);
    }

    #[test]
    fn a_sleep_ends_after_its_time_for_the_task_that_polls_it_last() {
        crate::run_unpinned(async {
            let begun = Instant::now();
            let mut moved = Box::pin(sleep(Duration::from_millis(15)));
            poll_fn(|_| {
                let mut elsewhere = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(moved.as_mut().poll(&mut elsewhere).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(timeout(Duration::from_secs(20), moved).await, Some(()));
            assert!(begun.elapsed() >= Duration::from_millis(15), "{:?}", begun.elapsed());
        })
        .unwrap();
    }
}
