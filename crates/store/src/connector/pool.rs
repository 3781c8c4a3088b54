//! Connection pool of one shard to the store: limits on open connections, and which of them are kept.

use std::cell::RefCell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_dynamodb::error::ConnectorError;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use futures::FutureExt;
use http::HeaderMap;
use http::header::{DATE, HOST, HeaderValue};
use http_body_util::{BodyExt, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::dial::{Dialer, StoreConnection};
use super::origin::StoreOrigin;
use crate::clock_skew::{ClockSkew, SkewEstimator};
use crate::failure::set_sent;
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// At most [`limits::STORE_CONNECTIONS_MAX`] open connections; at most
/// [`limits::STORE_IDLE_CONNECTIONS_MAX`] stay idle.
pub(super) struct ConnectionPool {
    dialer: Dialer,
    /// Most recently used last.
    idle: RefCell<Vec<IdleConnection>>,
    /// One permit for each connection that is not idle.
    slots: Arc<Semaphore>,
    /// Origins to which the last connect failed. Calls fail at once, but for one connect at a time and after a pause:
    /// callers of an unreachable store must not wait for the connect timeout each, nor connect as fast as they call.
    unreachable: RefCell<Vec<UnreachableOrigin>>,
    skew: RefCell<SkewEstimator>,
}

struct UnreachableOrigin {
    origin: StoreOrigin,
    kind: io::ErrorKind,
    why: String,
    /// When the next connect may begin; `None` while one is in flight.
    retry_at: Option<Micros>,
}

struct IdleConnection {
    connection: StoreConnection,
    since: Micros,
}

/// A request without an answer.
enum SendFailure {
    /// No byte of the request was sent.
    NotSent(Box<http::Request<SdkBody>>, hyper::Error),
    /// The request may have been received.
    Sent(ConnectorError),
}

impl ConnectionPool {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            idle: RefCell::default(),
            slots: Arc::new(Semaphore::new(limits::STORE_CONNECTIONS_MAX)),
            unreachable: RefCell::default(),
            skew: RefCell::default(),
        }
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// The peer may have closed an idle connection: a request that was not sent is retried on another
    /// connection, finally on a new one. A request that was sent in part is never retried here; its outcome
    /// is unknown and the caller decides.
    pub(super) async fn send(
        self: Rc<Self>,
        mut request: http::Request<SdkBody>,
    ) -> Result<http::Response<Bytes>, ConnectorError> {
        let origin = address(&mut request)?;
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|error| ConnectorError::other(error.into(), None))?;
        while let Some(mut connection) = self.take_idle(&origin) {
            // The peer may have closed it before its driver was polled again.
            if connection.socket.has_input() || connection.sender.ready().await.is_err() {
                continue;
            }
            match self.exchange(connection, request).await {
                Ok(response) => return Ok(response),
                Err(SendFailure::Sent(error)) => return Err(error),
                Err(SendFailure::NotSent(unsent, _stale)) => request = *unsent,
            }
        }
        let (connection, _slot) = self.dial(origin, slot).await?;
        match self.exchange(connection, request).await {
            Ok(response) => Ok(response),
            Err(SendFailure::Sent(error)) => Err(error),
            Err(SendFailure::NotSent(_, error)) => Err(ConnectorError::io(error.into())),
        }
    }

    async fn exchange(
        &self,
        mut connection: StoreConnection,
        request: http::Request<SdkBody>,
    ) -> Result<http::Response<Bytes>, SendFailure> {
        // A caller that gives up from here on may have sent its request.
        set_sent(true);
        // The sources of credentials have clocks of their own.
        let sent_at = request.headers().contains_key(TARGET).then(unix_micros);
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message();
                set_sent(unsent.is_none());
                let error = error.into_error();
                return Err(match unsent {
                    Some(request) => SendFailure::NotSent(Box::new(request), error),
                    None => SendFailure::Sent(ConnectorError::io(error.into())),
                });
            }
        };
        let (head, body) = response.into_parts();
        if let Some(sent_at) = sent_at {
            self.record_date(&head.headers, sent_at);
        }
        let body = Limited::new(body, limits::STORE_RESPONSE_BYTES_MAX);
        let body = body.collect().await;
        let body = body.map_err(|error| SendFailure::Sent(ConnectorError::io(error)))?;
        // A node that answers 5xx may be failing: the next request uses another connection.
        if !head.status.is_server_error() {
            self.keep(connection);
        }
        Ok(http::Response::from_parts(head, body.to_bytes()))
    }

    fn record_date(&self, headers: &HeaderMap, sent: i64) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        if let Some(date) = date {
            let mut skew = self.skew.borrow_mut();
            skew.record(date.secs(), sent, unix_micros(), clock::monotonic());
        }
    }

    pub(super) fn clock_skew(&self) -> Option<ClockSkew> {
        self.skew.borrow().skew()
    }

    /// The most recently used idle connection to `origin`. Drops idle connections that are too old or closed.
    fn take_idle(&self, origin: &StoreOrigin) -> Option<StoreConnection> {
        let mut idle = self.idle.borrow_mut();
        prune(&mut idle, clock::monotonic());
        let at = idle.iter().rposition(|entry| *entry.connection.origin == *origin)?;
        Some(idle.remove(at).connection)
    }

    fn keep(&self, connection: StoreConnection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let since = clock::monotonic();
        idle.push(IdleConnection { connection, since });
        prune(&mut idle, since);
    }

    /// Opens a connection in a separate task, so that a caller that gives up before a slow TLS handshake ends
    /// still leaves a connection for its next attempt.
    async fn dial(
        self: &Rc<Self>,
        origin: StoreOrigin,
        slot: OwnedSemaphorePermit,
    ) -> Result<(StoreConnection, OwnedSemaphorePermit), ConnectorError> {
        self.may_dial(&origin).map_err(never_connected)?;
        self.make_room();
        let (hand_over, handed_over) = oneshot::channel();
        let pool = self.clone();
        let dialing = async move {
            let dial = AssertUnwindSafe(pool.dialer.dial(Rc::new(origin.clone())));
            let panicked = |_| Err(io::Error::other("the connect panicked"));
            let result = dial.catch_unwind().await.unwrap_or_else(panicked);
            pool.dial_ended(origin, result.as_ref().err());
            if let Err((Ok(connection), slot)) = hand_over.send((result, slot)) {
                drop(slot);
                pool.keep(connection);
            }
        };
        inventory_runtime::spawn(dialing).detach();
        match handed_over.await {
            Ok((Ok(connection), slot)) => Ok((connection, slot)),
            Ok((Err(error), _)) => Err(never_connected(error)),
            Err(_) => Err(ConnectorError::other("the connect was dropped".into(), None)),
        }
    }

    /// # Errors
    /// The error of the last connect to `origin`, if it is too early for another one.
    fn may_dial(&self, origin: &StoreOrigin) -> io::Result<()> {
        let mut unreachable = self.unreachable.borrow_mut();
        let Some(known) = unreachable.iter_mut().find(|known| known.origin == *origin) else {
            return Ok(());
        };
        match known.retry_at.take_if(|at| *at <= clock::monotonic()) {
            Some(_) => Ok(()),
            None => Err(io::Error::new(known.kind, known.why.clone())),
        }
    }

    fn dial_ended(&self, origin: StoreOrigin, error: Option<&io::Error>) {
        let mut unreachable = self.unreachable.borrow_mut();
        unreachable.retain(|known| known.origin != origin);
        if let Some(error) = error {
            if unreachable.len() >= limits::STORE_NAMES_RESOLVED_MAX {
                unreachable.remove(0);
            }
            let pause = Micros(limits::STORE_RECONNECT_PAUSE.as_micros() as u64);
            unreachable.push(UnreachableOrigin {
                origin,
                kind: error.kind(),
                why: error.to_string(),
                retry_at: Some(clock::monotonic().plus(pause)),
            });
        }
    }

    /// Idle connections to other origins count too: the oldest is closed before a new one opens.
    fn make_room(&self) {
        let busy = limits::STORE_CONNECTIONS_MAX - self.slots.available_permits();
        let mut idle = self.idle.borrow_mut();
        if busy + idle.len() > limits::STORE_CONNECTIONS_MAX && !idle.is_empty() {
            idle.remove(0);
        }
    }
}

/// Requests to DynamoDB have this header.
const TARGET: &str = "x-amz-target";

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

fn never_connected(error: io::Error) -> ConnectorError {
    let error = match error.kind() {
        io::ErrorKind::TimedOut => ConnectorError::timeout(error.into()),
        _ => ConnectorError::io(error.into()),
    };
    error.never_connected()
}

/// Drops connections that are closed, too old, or idle for too long. The longest idle come first.
fn prune(idle: &mut Vec<IdleConnection>, now: Micros) {
    let age = |entry: &IdleConnection| u128::from(now.since(entry.since).0);
    idle.retain(|entry| {
        let is_fresh = age(entry) < limits::STORE_IDLE_CONNECTION_AGE_MAX.as_micros();
        is_fresh && !entry.connection.sender.is_closed()
    });
    let over = idle.len().saturating_sub(limits::STORE_IDLE_CONNECTIONS_MAX);
    let spare = idle[..over]
        .iter()
        .take_while(|entry| age(entry) >= limits::STORE_SPARE_CONNECTION_AGE_MAX.as_micros());
    let spare = spare.count();
    idle.drain(..spare);
}

/// Moves scheme and authority from the URL of the request to its `host` header.
fn address(request: &mut http::Request<SdkBody>) -> Result<StoreOrigin, ConnectorError> {
    let origin = StoreOrigin::of(request.uri()).map_err(|why| ConnectorError::user(why.into()))?;
    if !request.headers().contains_key(HOST) {
        let uri = request.uri();
        let default_port = if origin.https { 443 } else { 80 };
        let host = uri.host().unwrap_or(&origin.host);
        let host = match origin.port == default_port {
            true => HeaderValue::from_str(host),
            false => HeaderValue::try_from(format!("{host}:{}", origin.port)),
        };
        let host = host.map_err(|error| ConnectorError::user(error.into()))?;
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    Ok(origin)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use hyper::client::conn::http1;

    use super::super::io::{HyperIo, SharedSocket};
    use super::super::network::NetworkSettings;
    use super::*;

    /// Answers one request per connection; keeps all of them open.
    fn server() -> std::net::SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 1024];
                if client.read(&mut request).is_ok_and(|count| count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    client.write_all(answer).unwrap();
                }
                open.push(client);
            }
        });
        address
    }

    fn request(address: std::net::SocketAddr) -> http::Request<SdkBody> {
        let request = http::Request::post(format!("http://{address}/path?q"));
        request.body(SdkBody::from("body")).unwrap()
    }

    /// An idle connection that looks usable and whose driver stops before it sends anything.
    async fn doomed(address: std::net::SocketAddr) -> StoreConnection {
        let limit = limits::STORE_CONNECT_TIMEOUT;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let elsewhere = listener.local_addr().unwrap();
        let socket = SharedSocket::new(inventory_runtime::connect(elsewhere, limit).await.unwrap());
        let (mut sender, mut driver) =
            http1::handshake(HyperIo::new(socket.clone())).await.unwrap();
        // In its first poll the driver asks for a request, in the next it is gone.
        assert!((&mut driver).now_or_never().is_none());
        sender.ready().await.unwrap();
        let driver = inventory_runtime::spawn(async move {
            // A spawned task starts at once: queue the request first.
            inventory_runtime::yield_now().await;
            drop(driver);
            drop(listener);
        });
        StoreConnection {
            origin: Rc::new(StoreOrigin::of(request(address).uri()).unwrap()),
            sender,
            socket,
            _driver: driver,
        }
    }

    #[test]
    fn unsent_request_uses_a_new_connection() {
        let address = server();
        let response = inventory_runtime::run_unpinned(async {
            let pool =
                Rc::new(ConnectionPool::new(Dialer::new(NetworkSettings::direct(None).unwrap())));
            pool.keep(doomed(address).await);
            pool.send(request(address)).await
        });
        assert_eq!(response.unwrap().unwrap().body(), &Bytes::from("ok"));
    }

    #[test]
    fn address_is_split_into_path_and_host() {
        let mut plain = request("127.0.0.1:8000".parse().unwrap());
        address(&mut plain).unwrap();
        assert_eq!(plain.uri(), "/path?q");
        assert_eq!(plain.headers()[HOST], "127.0.0.1:8000");
        let aws = http::Request::post("https://dynamodb.ap-northeast-2.amazonaws.com:443");
        let mut aws = aws.body(SdkBody::empty()).unwrap();
        address(&mut aws).unwrap();
        assert_eq!(aws.uri(), "/");
        assert_eq!(aws.headers()[HOST], "dynamodb.ap-northeast-2.amazonaws.com");
    }
}
