//! grpc.health.v1 on the shard. A probe is answered even if the control plane is busy, and independently of what other
//! clients keep open.
//!
//! A watch costs its HTTP/2 stream and one future of its connection. Not here: the conditions of
//! readiness (the server sends [`HealthState`]).

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::sync::watch;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::active_calls::CallResponder;
use super::auxiliary_calls::{CallCountGuard, SendOutcome, send_data, shutting_down};
use super::response;
use super::service::decode;
use super::status::{Code, Status, reason};
use super::unary_body::UnaryBody;
use crate::limits;

pub(super) const SERVICE: &str = "grpc.health.v1.Health";

/// What the process reports to health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    NotServing,
    Serving,
    /// Not serving for good: watches report it and end.
    Draining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HealthMethod {
    Check,
    Watch,
}

/// The method that a path of this service names.
pub(super) fn find_method(path: &str) -> Option<HealthMethod> {
    match path.strip_prefix('/')?.strip_prefix(SERVICE)? {
        "/Check" => Some(HealthMethod::Check),
        "/Watch" => Some(HealthMethod::Watch),
        _ => None,
    }
}

/// Open watches of one connection, or of all connections of a shard.
pub(super) type WatchCount = Rc<Cell<usize>>;

/// One health call of a connection.
pub(super) struct HealthCall {
    pub(super) method: HealthMethod,
    pub(super) body: UnaryBody,
    /// The deadline of the client.
    pub(super) timeout: Option<Duration>,
    pub(super) state: watch::Receiver<HealthState>,
    /// Whether a contract of the port has this service.
    pub(super) has_service: fn(&str) -> bool,
    pub(super) connection_watches: WatchCount,
    pub(super) shard_watches: WatchCount,
}

impl HealthCall {
    /// Answers the call; returns the code that the client receives.
    pub(super) async fn serve(self, call: &mut CallResponder, cancelled: &Cell<bool>) -> Code {
        match self.method {
            HealthMethod::Check => self.check(call, cancelled).await,
            HealthMethod::Watch => self.watch(call, cancelled).await,
        }
    }

    async fn check(self, call: &mut CallResponder, cancelled: &Cell<bool>) -> Code {
        let limit = request_limit(self.timeout);
        let answer = match until(Some(limit), cancelled, read_service(self.body)).await {
            Ok(service) if knows(&service, self.has_service) => {
                encode(serving_status(*self.state.borrow()))
            }
            Ok(service) => Err(Status::new(
                Code::NotFound,
                reason::HEALTH_SERVICE_UNKNOWN,
                format!("{service:?}: this port has no such service; \"\" names the server"),
            )),
            Err(status) => Err(status),
        };
        match answer {
            Ok(message) => {
                response::send_response(&mut call.stream, message);
                Code::Ok
            }
            Err(status) => refuse(call, &status),
        }
    }

    async fn watch(self, call: &mut CallResponder, cancelled: &Cell<bool>) -> Code {
        let _slots = match take_slots(&self.connection_watches, &self.shard_watches) {
            Ok(slots) => slots,
            Err(status) => return refuse(call, &status),
        };
        let limit = request_limit(self.timeout);
        let service = match until(Some(limit), cancelled, read_service(self.body)).await {
            Ok(service) => service,
            Err(status) => return refuse(call, &status),
        };
        let is_known = knows(&service, self.has_service);
        let Some(mut stream) = response::send_head(&mut call.stream) else {
            return Code::Cancelled;
        };
        let mut state = self.state;
        let report = async {
            let mut sent = None;
            loop {
                let now = *state.borrow_and_update();
                let status =
                    if is_known { serving_status(now) } else { ServingStatus::ServiceUnknown };
                if sent != Some(status) {
                    sent = Some(status);
                    match send_data(&mut stream, encode(status)?, cancelled).await {
                        SendOutcome::All => {}
                        SendOutcome::CallerGone => return Err(caller_gone()),
                        SendOutcome::Cancelled => return Err(shutting_down()),
                    }
                }
                if now == HealthState::Draining {
                    return Ok(());
                }
                let mut changed = pin!(state.changed());
                let next = poll_fn(|cx| {
                    if stream.poll_reset(cx).is_ready() {
                        return Poll::Ready(Err(caller_gone()));
                    }
                    // Without a sender the state is final, but the process may still serve.
                    match changed.as_mut().poll(cx) {
                        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                        Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
                    }
                });
                next.await?;
            }
        };
        let (code, trailers) = match until(self.timeout, cancelled, report).await {
            Ok(()) => (Code::Ok, response::ok_trailers()),
            Err(status) => {
                let mut trailers = HeaderMap::new();
                status.write_to(&mut trailers);
                (status.code(), trailers)
            }
        };
        let _ = stream.send_trailers(trailers);
        code
    }
}

/// A connection may always have one watch, so that the watches of one client never take another client's.
fn take_slots(connection: &WatchCount, shard: &WatchCount) -> Result<[CallCountGuard; 2], Status> {
    let (open, of_shard) = (connection.get(), shard.get());
    let bounds = [
        (open, limits::HEALTH_WATCHES_PER_CONNECTION_MAX, "this connection"),
        (if open == 0 { 0 } else { of_shard }, limits::HEALTH_WATCHES_PER_SHARD_MAX, "this shard"),
    ];
    for (open, most, place) in bounds {
        if open >= most {
            return Err(Status::new(
                Code::ResourceExhausted,
                reason::HEALTH_WATCHES_EXCEEDED,
                format!("{place} already has {most} health watches; end one, or use Check"),
            )
            .with_retry_after(limits::RETRY_AFTER));
        }
    }
    Ok([CallCountGuard::take(connection), CallCountGuard::take(shard)])
}

/// How long the client may take to send its request.
fn request_limit(timeout: Option<Duration>) -> Duration {
    timeout.map_or(limits::CALL_TIMEOUT_MAX, |timeout| timeout.min(limits::CALL_TIMEOUT_MAX))
}

fn knows(service: &str, has_service: fn(&str) -> bool) -> bool {
    service.is_empty() || has_service(service)
}

fn serving_status(state: HealthState) -> ServingStatus {
    match state {
        HealthState::Serving => ServingStatus::Serving,
        HealthState::NotServing | HealthState::Draining => ServingStatus::NotServing,
    }
}

async fn read_service(body: UnaryBody) -> Result<String, Status> {
    let request: HealthCheckRequest = decode(body.read_message().await?)?;
    Ok(request.service)
}

fn encode(status: ServingStatus) -> Result<Bytes, Status> {
    let message = HealthCheckResponse { status: status.into() };
    response::encode(&message, &mut BytesMut::new())
}

fn refuse(call: &mut CallResponder, status: &Status) -> Code {
    response::send_status(&mut call.stream, status);
    status.code()
}

fn caller_gone() -> Status {
    Status::new(Code::Cancelled, reason::CANCELLED, "the client ended the watch")
}

/// Runs `work` until its end, the time limit, or the drain of the connection.
async fn until<T>(
    limit: Option<Duration>,
    cancelled: &Cell<bool>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let mut work = pin!(work);
    let mut limit = pin!(async {
        match limit {
            Some(limit) => inventory_runtime::sleep(limit).await,
            None => std::future::pending().await,
        }
    });
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        if cancelled.get() {
            return Poll::Ready(Err(shutting_down()));
        }
        limit.as_mut().poll(cx).map(|()| Err(Status::deadline_exceeded()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_methods_of_the_service_are_found() {
        assert_eq!(find_method("/grpc.health.v1.Health/Check"), Some(HealthMethod::Check));
        assert_eq!(find_method("/grpc.health.v1.Health/Watch"), Some(HealthMethod::Watch));
        for path in ["/grpc.health.v1.Health/List", "/grpc.health.v1.HealthX/Check", "/Check", ""] {
            assert_eq!(find_method(path), None, "{path}");
        }
    }

    #[test]
    fn a_full_shard_still_accepts_the_first_watch_of_a_connection() {
        let shard = WatchCount::new(Cell::new(limits::HEALTH_WATCHES_PER_SHARD_MAX));
        let connection = WatchCount::default();
        let held = take_slots(&connection, &shard).ok();
        assert!(held.is_some() && connection.get() == 1);
        let refused = take_slots(&connection, &shard).err();
        assert_eq!(refused.map(|status| status.code()), Some(Code::ResourceExhausted));
        drop(held);
        assert_eq!((connection.get(), shard.get()), (0, limits::HEALTH_WATCHES_PER_SHARD_MAX));
    }

    #[test]
    fn a_connection_has_its_own_bound() {
        let shard = WatchCount::default();
        let connection = WatchCount::default();
        let held: Vec<_> = (0..limits::HEALTH_WATCHES_PER_CONNECTION_MAX)
            .map(|_| take_slots(&connection, &shard).ok())
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(take_slots(&connection, &shard).is_err());
        assert!(take_slots(&WatchCount::default(), &shard).is_ok());
    }
}
