//! The connections of one shard to the store: who may have one, and which are kept.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use aws_sdk_dynamodb::error::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures::FutureExt;
use http::header::{HOST, HeaderValue};
use http_body_util::{BodyExt, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::dial::{Connection, Dialer, Origin};
use crate::domain::time::Micros;
use crate::limits;
use crate::runtime::{self, clock};

/// Bounded by two numbers: [`limits::STORE_CONNECTIONS_MAX`] open, of which
/// [`limits::STORE_IDLE_CONNECTIONS_MAX`] idle.
pub(super) struct Pool {
    dialer: Dialer,
    /// Most recently used last.
    idle: RefCell<Vec<Idle>>,
    /// One permit per connection that is not idle.
    slots: Arc<Semaphore>,
}

struct Idle {
    connection: Connection,
    since: Micros,
}

/// A request that brought no answer.
enum Failed {
    /// Not a byte of it was sent.
    NotSent(Box<http::Request<SdkBody>>, hyper::Error),
    /// It may have been received.
    Sent(ConnectorError),
}

impl Pool {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            idle: RefCell::default(),
            slots: Arc::new(Semaphore::new(limits::STORE_CONNECTIONS_MAX)),
        }
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// An idle connection may have been closed by the other side: a request that was not sent yet
    /// goes to another connection, at last to a fresh one. A request of which anything was sent is
    /// never sent again here; its outcome is unknown and the caller decides.
    pub(super) async fn send(
        self: Rc<Self>,
        mut request: http::Request<SdkBody>,
    ) -> Result<http::Response<Bytes>, ConnectorError> {
        let origin = address(&mut request)?;
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|error| ConnectorError::other(error.into(), None))?;
        while let Some(mut connection) = self.take_idle(&origin) {
            if connection.sender.ready().await.is_err() {
                continue;
            }
            match self.exchange(connection, request).await {
                Ok(response) => return Ok(response),
                Err(Failed::Sent(error)) => return Err(error),
                Err(Failed::NotSent(unsent, _stale)) => request = *unsent,
            }
        }
        let (connection, _slot) = self.dial(origin, slot).await?;
        match self.exchange(connection, request).await {
            Ok(response) => Ok(response),
            Err(Failed::Sent(error)) => Err(error),
            Err(Failed::NotSent(_, error)) => Err(ConnectorError::io(error.into())),
        }
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: http::Request<SdkBody>,
    ) -> Result<http::Response<Bytes>, Failed> {
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message();
                let error = error.into_error();
                return Err(match unsent {
                    Some(request) => Failed::NotSent(Box::new(request), error),
                    None => Failed::Sent(ConnectorError::io(error.into())),
                });
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limits::STORE_RESPONSE_BYTES_MAX);
        let body = body.collect().await;
        let body = body.map_err(|error| Failed::Sent(ConnectorError::io(error)))?;
        // A node that answers 5xx may be on its way out: the next request gets another.
        if !head.status.is_server_error() {
            self.keep(connection);
        }
        Ok(http::Response::from_parts(head, body.to_bytes()))
    }

    /// The most recently used idle connection to `origin`. Drops those that are too old or closed.
    fn take_idle(&self, origin: &Origin) -> Option<Connection> {
        let now = clock::monotonic();
        let oldest = limits::STORE_IDLE_CONNECTION_AGE_MAX.as_micros();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|entry| {
            u128::from(now.since(entry.since).0) < oldest && !entry.connection.sender.is_closed()
        });
        let at = idle
            .iter()
            .rposition(|entry| entry.connection.origin.matches(origin))?;
        Some(idle.remove(at).connection)
    }

    fn keep(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits::STORE_IDLE_CONNECTIONS_MAX {
            idle.remove(0);
        }
        let since = clock::monotonic();
        idle.push(Idle { connection, since });
    }

    /// Opens a connection in a task of its own, so that a caller who gives up before a slow TLS
    /// handshake ends still leaves a connection behind for the next try.
    async fn dial(
        self: &Rc<Self>,
        origin: Origin,
        slot: OwnedSemaphorePermit,
    ) -> Result<(Connection, OwnedSemaphorePermit), ConnectorError> {
        self.make_room();
        let (hand_over, handed_over) = oneshot::channel();
        let pool = self.clone();
        let dialing = async move {
            let result = pool.dialer.dial(Rc::new(origin)).await;
            if let Err((Ok(connection), slot)) = hand_over.send((result, slot)) {
                drop(slot);
                pool.keep(connection);
            }
        };
        runtime::spawn(async move {
            let _ended = AssertUnwindSafe(dialing).catch_unwind().await;
        })
        .detach();
        match handed_over.await {
            Ok((Ok(connection), slot)) => Ok((connection, slot)),
            Ok((Err(error), _)) if error.kind() == std::io::ErrorKind::TimedOut => {
                Err(ConnectorError::timeout(error.into()).never_connected())
            }
            Ok((Err(error), _)) => Err(ConnectorError::io(error.into()).never_connected()),
            Err(_) => Err(ConnectorError::other("the connect panicked".into(), None)),
        }
    }

    /// Idle connections to other origins count too: the oldest gives way before one more opens.
    fn make_room(&self) {
        let busy = limits::STORE_CONNECTIONS_MAX - self.slots.available_permits();
        let mut idle = self.idle.borrow_mut();
        if busy + idle.len() > limits::STORE_CONNECTIONS_MAX && !idle.is_empty() {
            idle.remove(0);
        }
    }
}

/// Takes scheme and authority out of the request's URL and puts the authority into `host`.
fn address(request: &mut http::Request<SdkBody>) -> Result<Origin, ConnectorError> {
    let origin = Origin::of(request.uri()).map_err(|why| ConnectorError::user(why.into()))?;
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
