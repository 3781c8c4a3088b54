//! A client of several servers with one store behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use inventory_proto::inventory::v1::{CommitReq, CommitRes, ReleaseReq, ReleaseRes};
use tonic::{Request, Response, Status};

use crate::connect::{ConnectError, InventoryClient, connect_lazy};
use crate::limits::{ADDRESSES_MAX, DEADLINE_SLACK, FAILOVER_ROUNDS_MAX, RETRY_DELAY_MIN};
use crate::outcome::CallOutcome;

/// Counts of one [`FailoverClient`], over all its clones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Calls that got an answer, refusals included.
    pub answered: u64,
    /// Moves to the next server because a call was never processed. No call was lost by such a move.
    pub moved: u64,
    /// Calls that ended as Busy, Lost or, after all rounds, NeverProcessed.
    pub failed: u64,
}

/// One connection to each server. Calls go to one server until it leaves (GOAWAY, refused connection,
/// UNAVAILABLE), then to the next.
///
/// A call that was never processed is sent to the next server and does not count as failed. A call that
/// may have been processed is returned to the caller, who may repeat it. Clones share connections and
/// counts.
#[derive(Clone)]
pub struct FailoverClient {
    servers: Arc<[InventoryClient]>,
    current: Arc<AtomicUsize>,
    answered: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl FailoverClient {
    /// A client of `addresses` (1 to 16), starting at number `first`, wrapping around. Connects lazily;
    /// needs a tokio runtime.
    pub fn new<S: AsRef<str>>(addresses: &[S], first: usize) -> Result<Self, ConnectError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(ConnectError::AddressCount { given: addresses.len() });
        }
        let servers = addresses
            .iter()
            .map(|address| connect_lazy(address.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            current: Arc::new(AtomicUsize::new(first % servers.len())),
            servers: servers.into(),
            answered: Arc::default(),
            moved: Arc::default(),
            failed: Arc::default(),
        })
    }

    /// Commits within `timeout`, which is also sent as grpc-timeout.
    pub async fn commit(&self, call: &CommitReq, timeout: Duration) -> Result<CommitRes, Status> {
        self.call(call, timeout, |mut server, request| async move {
            server.commit_reservation(request).await
        })
        .await
    }

    /// Releases within `timeout`.
    pub(crate) async fn release(
        &self,
        call: &ReleaseReq,
        timeout: Duration,
    ) -> Result<ReleaseRes, Status> {
        self.call(
            call,
            timeout,
            |mut server, request| async move { server.release_hold(request).await },
        )
        .await
    }

    pub fn stats(&self) -> CallStats {
        CallStats {
            answered: self.answered.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    async fn call<Q, A, F>(
        &self,
        call: &Q,
        timeout: Duration,
        send: impl Fn(InventoryClient, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let attempts = self.servers.len() * FAILOVER_ROUNDS_MAX;
        for attempt in 1.. {
            let at = self.current.load(Ordering::Relaxed) % self.servers.len();
            let mut request = Request::new(call.clone());
            request.set_timeout(timeout);
            let sent = send(self.servers[at].clone(), request);
            let status = match tokio::time::timeout(timeout + DEADLINE_SLACK, sent).await {
                Ok(Ok(answer)) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer long after the deadline"),
            };
            match CallOutcome::of(&status) {
                CallOutcome::Answered => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Err(status);
                }
                CallOutcome::NeverProcessed if attempt < attempts => {
                    self.leave(at);
                    self.moved.fetch_add(1, Ordering::Relaxed);
                    if attempt % self.servers.len() == 0 {
                        tokio::time::sleep(RETRY_DELAY_MIN).await;
                    }
                }
                CallOutcome::NeverProcessed | CallOutcome::Busy { .. } | CallOutcome::Lost => {
                    self.leave(at);
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    return Err(status);
                }
            }
        }
        Err(Status::internal("unreachable: the last attempt returns"))
    }

    /// Moves on from server `at`, once for all calls that saw it fail.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.servers.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refused_connection_counts_as_never_processed() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let client = FailoverClient::new(&[address], 0).unwrap();
        let call = CommitReq::default();
        let status = client.commit(&call, Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(CallOutcome::of(&status), CallOutcome::NeverProcessed, "{status:?}");
        let stats = client.stats();
        assert_eq!((stats.answered, stats.failed), (0, 1));
        assert_eq!(stats.moved, FAILOVER_ROUNDS_MAX as u64 - 1);
    }

    #[test]
    fn a_client_without_addresses_is_refused() {
        assert!(matches!(
            FailoverClient::new::<&str>(&[], 0),
            Err(ConnectError::AddressCount { given: 0 })
        ));
    }
}
