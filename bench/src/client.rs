//! Clients of the reservation contract over tonic channels.
//!
//! One connection ([`connect`]), and a [`Fleet`] that moves between several servers as a load
//! balanced client does. What a failed call means, whether it was never processed, may have been,
//! or was answered, is decided here ([`fate`]) and nowhere else.

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, ReleaseReq, ReleaseRes,
    inventory_client::InventoryClient,
};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::limits::{ADDRESSES_MAX, CONNECT_TIMEOUT, DEADLINE_SLACK, MOVE_ROUNDS_MAX, PAUSE_MIN};

/// A client of `inventory.v1.Inventory` on one connection.
pub type Inventory = InventoryClient<Channel>;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{address:?} is not an address: want host:port, like 127.0.0.1:8080")]
    BadAddress {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("no server answers at {address}")]
    Unreachable {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{given} addresses given: want 1 to {ADDRESSES_MAX}")]
    AddressCount { given: usize },
}

/// Connects to `address` (`host:port`) with TCP_NODELAY, within two seconds.
pub async fn connect(address: &str) -> Result<Inventory, ClientError> {
    let channel =
        endpoint(address)?
            .connect()
            .await
            .map_err(|source| ClientError::Unreachable {
                address: address.to_owned(),
                source,
            })?;
    Ok(InventoryClient::new(channel))
}

/// As [`connect`], but the connection is made by the first call, and again after each loss.
pub fn connect_lazy(address: &str) -> Result<Inventory, ClientError> {
    Ok(InventoryClient::new(endpoint(address)?.connect_lazy()))
}

fn endpoint(address: &str) -> Result<Endpoint, ClientError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|source| {
        ClientError::BadAddress {
            address: address.to_owned(),
            source,
        }
    })?;
    Ok(endpoint.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT))
}

/// What became of a call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server decided: the status is its answer.
    Answered,
    /// The server asks to come again: UNAVAILABLE or RESOURCE_EXHAUSTED, with its RetryInfo if any.
    Busy { retry_after: Option<Duration> },
    /// No server has processed it: not sent, refused, or behind the last stream of a GOAWAY.
    NeverProcessed,
    /// Unknown: the deadline passed or the connection broke. It may have taken effect.
    Lost,
}

/// Classifies a failed call.
///
/// A status with a source was made by this side's transport, one without came from the server.
/// Never processed are, by RFC 9113 (6.8 and 8.7): streams above the last stream id of a GOAWAY,
/// streams reset with REFUSED_STREAM, and what never left this process.
pub fn fate(status: &Status) -> Fate {
    match transport_error(status) {
        Some(true) => Fate::NeverProcessed,
        Some(false) => Fate::Lost,
        None => match status.code() {
            Code::Unavailable | Code::ResourceExhausted => Fate::Busy {
                retry_after: status
                    .get_details_retry_info()
                    .and_then(|info| info.retry_delay),
            },
            Code::DeadlineExceeded | Code::Cancelled => Fate::Lost,
            _ => Fate::Answered,
        },
    }
}

/// `None`: the server's own status. `Some(true)`: this side's, and surely never processed.
fn transport_error(status: &Status) -> Option<bool> {
    let mut error = status.source()?;
    loop {
        if error.is::<tonic::ConnectError>() {
            return Some(true);
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_canceled()
        {
            return Some(true);
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            let left_behind = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return Some(h2.is_remote() && (left_behind || refused));
        }
        match error.source() {
            Some(deeper) => error = deeper,
            None => return Some(false),
        }
    }
}

/// The reason in a status's `google.rpc.ErrorInfo`, or an empty string.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// Counts of one [`Fleet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetTally {
    /// Calls that got an answer, refusals included.
    pub answered: u64,
    /// Moves to the next server because a call was never processed. No call was lost by it.
    pub moved: u64,
    /// Calls that ended Busy, Lost or, after all rounds, NeverProcessed.
    pub failed: u64,
}

/// One client of several servers with the same store behind them: a connection to each, calls on
/// one of them until it leaves (GOAWAY, refused connection, UNAVAILABLE), then on the next.
///
/// A call that was never processed is sent to the next server without being counted as failed; one
/// that may have been processed is the caller's to repeat. Clones share connections and counts.
#[derive(Clone)]
pub struct Fleet {
    members: Arc<[Inventory]>,
    current: Arc<AtomicUsize>,
    answered: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Fleet {
    /// A fleet over `addresses`, 1 to [`ADDRESSES_MAX`], that starts at number `first` (wrapping).
    /// Connects lazily; needs a tokio runtime.
    pub fn new<S: AsRef<str>>(addresses: &[S], first: usize) -> Result<Self, ClientError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(ClientError::AddressCount {
                given: addresses.len(),
            });
        }
        let members = addresses
            .iter()
            .map(|address| connect_lazy(address.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            current: Arc::new(AtomicUsize::new(first % members.len())),
            members: members.into(),
            answered: Arc::default(),
            moved: Arc::default(),
            failed: Arc::default(),
        })
    }

    /// Commits within `timeout`, which also travels as grpc-timeout.
    pub async fn commit(&self, call: &CommitReq, timeout: Duration) -> Result<CommitRes, Status> {
        self.call(call, timeout, |mut member, request| async move {
            member.commit_reservation(request).await
        })
        .await
    }

    /// Releases within `timeout`.
    pub async fn release(
        &self,
        call: &ReleaseReq,
        timeout: Duration,
    ) -> Result<ReleaseRes, Status> {
        self.call(call, timeout, |mut member, request| async move {
            member.release_hold(request).await
        })
        .await
    }

    /// Checks availability within `timeout`.
    pub async fn check(&self, call: &CheckReq, timeout: Duration) -> Result<CheckRes, Status> {
        self.call(call, timeout, |mut member, request| async move {
            member.check_availability(request).await
        })
        .await
    }

    /// What has happened so far, over all clones.
    pub fn tally(&self) -> FleetTally {
        FleetTally {
            answered: self.answered.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    async fn call<Q, A, F>(
        &self,
        call: &Q,
        timeout: Duration,
        send: impl Fn(Inventory, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let tries = self.members.len() * MOVE_ROUNDS_MAX;
        for attempt in 1.. {
            let at = self.current.load(Ordering::Relaxed) % self.members.len();
            let mut request = Request::new(call.clone());
            request.set_timeout(timeout);
            let sent = send(self.members[at].clone(), request);
            let status = match tokio::time::timeout(timeout + DEADLINE_SLACK, sent).await {
                Ok(Ok(answer)) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer well past the deadline"),
            };
            match fate(&status) {
                Fate::Answered => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    return Err(status);
                }
                Fate::NeverProcessed if attempt < tries => {
                    self.leave(at);
                    self.moved.fetch_add(1, Ordering::Relaxed);
                    if attempt % self.members.len() == 0 {
                        tokio::time::sleep(PAUSE_MIN).await;
                    }
                }
                Fate::NeverProcessed | Fate::Busy { .. } | Fate::Lost => {
                    self.leave(at);
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    return Err(status);
                }
            }
        }
        Err(Status::internal("unreachable: the last try returns"))
    }

    /// Moves on from member `at`, once for however many calls saw it fail.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _ = self
            .current
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_status_of_the_server_is_told_by_its_code() {
        let cases = [
            (Code::Aborted, Fate::Answered),
            (Code::Internal, Fate::Answered),
            (Code::Unavailable, Fate::Busy { retry_after: None }),
            (Code::ResourceExhausted, Fate::Busy { retry_after: None }),
            (Code::DeadlineExceeded, Fate::Lost),
        ];
        for (code, wanted) in cases {
            assert_eq!(fate(&Status::new(code, "x")), wanted, "{code:?}");
        }
    }

    #[test]
    fn retry_info_and_reason_are_read_from_the_details() {
        let pause = Duration::from_millis(100);
        let mut details = ErrorDetails::with_retry_info(Some(pause));
        details.set_error_info(
            "OVERLOADED",
            "inventory-api",
            [("event_id".to_owned(), "e".to_owned())],
        );
        let status = Status::with_error_details(Code::Unavailable, "busy", details);
        assert_eq!(
            fate(&status),
            Fate::Busy {
                retry_after: Some(pause)
            }
        );
        assert_eq!(reason(&status), "OVERLOADED");
    }

    #[tokio::test]
    async fn a_refused_connection_was_never_processed() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let fleet = Fleet::new(&[address], 0).unwrap();
        let status = fleet
            .check(&CheckReq::default(), Duration::from_secs(2))
            .await
            .unwrap_err();
        assert_eq!(fate(&status), Fate::NeverProcessed, "{status:?}");
        let tally = fleet.tally();
        assert_eq!((tally.answered, tally.failed), (0, 1));
        assert_eq!(tally.moved, MOVE_ROUNDS_MAX as u64 - 1);
    }

    #[test]
    fn addresses_are_checked() {
        assert!(matches!(
            connect_lazy("not an address"),
            Err(ClientError::BadAddress { .. })
        ));
        assert!(matches!(
            Fleet::new::<&str>(&[], 0),
            Err(ClientError::AddressCount { given: 0 })
        ));
    }
}
