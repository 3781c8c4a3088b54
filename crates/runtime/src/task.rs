//! Tasks of a shard, and the waits that a task can make.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

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
pub async fn sleep(span: Duration) {
    glommio::timer::Timer::new(span).await;
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

/// Lets other ready tasks of the shard run.
pub async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
}
