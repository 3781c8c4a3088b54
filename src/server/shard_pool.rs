//! Runs jobs of the control plane on the shards.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::channel::oneshot;

use crate::shard::driver::{Driver, ShardMailbox, ShardMessage};

/// Why a job has no result.
#[derive(Clone, Copy, Debug)]
pub(super) enum JobError {
    /// The inbox of the shard is full; the job did not start.
    InboxFull,
    /// The shard ended, or the job panicked.
    Stopped,
}

/// The mailboxes of all shards. Jobs are distributed round-robin.
pub(super) struct ShardPool {
    mailboxes: Vec<ShardMailbox>,
    next: AtomicUsize,
}

impl ShardPool {
    pub(super) fn new(mailboxes: Vec<ShardMailbox>) -> Self {
        Self { mailboxes, next: AtomicUsize::new(0) }
    }

    pub(super) fn mailboxes(&self) -> &[ShardMailbox] {
        &self.mailboxes
    }

    /// Runs `job` on the next shard. The job runs to its end, even if this future is dropped.
    pub(super) async fn run<T, F>(
        &self,
        job: impl FnOnce(Rc<Driver>) -> F + Send + 'static,
    ) -> Result<T, JobError>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (reply, result) = oneshot::channel();
        let message = ShardMessage::Job(Box::new(move |driver| {
            async move {
                // Sending fails if the caller no longer waits.
                let _ = reply.send(job(driver).await);
            }
            .boxed_local()
        }));
        let shard = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len().max(1);
        let mailbox = self.mailboxes.get(shard).ok_or(JobError::Stopped)?;
        mailbox.send(message).map_err(|_| JobError::InboxFull)?;
        result.await.map_err(|oneshot::Canceled| JobError::Stopped)
    }

    /// Runs `job` on every shard and waits for all of them. Skips a shard whose inbox is full: its caches
    /// expire by age.
    pub(super) async fn run_on_all(&self, job: impl Fn(&Driver) + Clone + Send + 'static) {
        let jobs = self.mailboxes.iter().filter_map(|mailbox| {
            let (done, result) = oneshot::channel();
            let job = job.clone();
            let message = ShardMessage::Job(Box::new(move |driver: Rc<Driver>| {
                job(&driver);
                let _ = done.send(());
                async {}.boxed_local()
            }));
            mailbox.send(message).ok().map(|()| result)
        });
        futures::future::join_all(jobs.collect::<Vec<_>>()).await;
    }
}
