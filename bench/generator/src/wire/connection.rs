//! One HTTP/2 connection: handshake, polling, sending, loss.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use inventory_client::{ClientTls, HttpVersion, connect_stream};

use super::cork::CorkedSocket;
use crate::limits;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no server answers at {target}: {why}")]
    Unreachable { target: String, why: std::io::Error },
    #[error("{target} does not speak HTTP/2: {why}")]
    NotHttp2 { target: String, why: h2::Error },
    #[error("{target} does not answer within {} s", limits::CONNECT_TIMEOUT.as_secs())]
    Timeout { target: String },
}

type Connecting = Pin<Box<dyn Future<Output = Result<OpenConnection, HandshakeError>>>>;

struct OpenConnection {
    send: SendRequest<Bytes>,
    connection: Connection<CorkedSocket, Bytes>,
    cork: CorkedSocket,
}

enum ConnectionState {
    Connecting(Connecting),
    Open(Box<OpenConnection>),
    Closed,
}

/// A connection, with its calls in flight and its stream limit.
pub(crate) struct ClientConnection {
    state: ConnectionState,
    waker: Waker,
    /// Calls in flight.
    pub(crate) in_flight: usize,
    /// No new calls: the server sent GOAWAY, or the connection broke.
    leaving: bool,
    streams: usize,
}

/// Result of polling a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEvent {
    NoChange,
    /// The connection is open from now on.
    Opened,
    /// The connection ended, or could not be made. Reported once.
    Ended(String),
}

impl ClientConnection {
    /// Starts to connect after `delay`. `waker` is woken when the connection must be polled.
    /// With `tls` the connection uses TLS.
    pub(crate) fn new(
        target: String,
        tls: Option<ClientTls>,
        waker: Waker,
        delay: Duration,
    ) -> Self {
        // Causes the first poll.
        waker.wake_by_ref();
        Self {
            state: ConnectionState::Connecting(Box::pin(connect_with_timeout(target, tls, delay))),
            waker,
            in_flight: 0,
            leaving: false,
            streams: limits::STREAMS_ASSUMED,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, ConnectionState::Open(_)) && !self.leaving
    }

    /// Whether a stream is free for another call.
    pub(crate) fn has_room(&self) -> bool {
        self.is_open() && self.in_flight < self.streams
    }

    /// Reads the stream limit of the server.
    pub(crate) fn update_stream_limit(&mut self) {
        if let ConnectionState::Open(open) = &self.state {
            self.streams = open.send.current_max_send_streams();
        }
    }

    /// Continues the handshake, or moves frames between h2 and the socket.
    pub(crate) fn poll(&mut self) -> ConnectionEvent {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        let mut event = ConnectionEvent::NoChange;
        if let ConnectionState::Connecting(connecting) = &mut self.state {
            match connecting.as_mut().poll(&mut cx) {
                Poll::Pending => return ConnectionEvent::NoChange,
                Poll::Ready(Ok(open)) => {
                    self.state = ConnectionState::Open(Box::new(open));
                    self.update_stream_limit();
                    event = ConnectionEvent::Opened;
                }
                Poll::Ready(Err(why)) => {
                    self.state = ConnectionState::Closed;
                    return ConnectionEvent::Ended(why.to_string());
                }
            }
        }
        let ConnectionState::Open(open) = &mut self.state else {
            return ConnectionEvent::NoChange;
        };
        match Pin::new(&mut open.connection).poll(&mut cx) {
            Poll::Pending => event,
            Poll::Ready(ended) => {
                self.state = ConnectionState::Closed;
                ConnectionEvent::Ended(match ended {
                    Ok(()) => "the server closed the connection".to_owned(),
                    Err(error) => error.to_string(),
                })
            }
        }
    }

    /// Writes the collected bytes. False: the socket is not writable, or broken; a broken socket is reported by
    /// the next poll.
    pub(crate) fn flush(&mut self) -> bool {
        let ConnectionState::Open(open) = &self.state else {
            return true;
        };
        if open.cork.is_empty() {
            return true;
        }
        match open.cork.flush(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                self.leaving = true;
                self.waker.wake_by_ref();
                false
            }
            Poll::Pending => false,
        }
    }

    /// Sends a call. `None`: the connection accepts no call now.
    pub(crate) fn send(&mut self, head: Request<()>, message: Bytes) -> Option<ResponseFuture> {
        let ConnectionState::Open(open) = &mut self.state else {
            return None;
        };
        // h2 requires poll_ready before each request.
        let ready_to_send = open.send.poll_ready(&mut Context::from_waker(&self.waker));
        if ready_to_send.is_pending() {
            return None;
        }
        let sent = open.send.send_request(head, false);
        let Ok((response, mut stream)) = sent else {
            self.leaving = true;
            return None;
        };
        // An error is returned by the response future, too.
        let _ = stream.send_data(message, true);
        self.in_flight += 1;
        Some(response)
    }
}

async fn connect_with_timeout(
    target: String,
    tls: Option<ClientTls>,
    delay: Duration,
) -> Result<OpenConnection, HandshakeError> {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let timeout = HandshakeError::Timeout { target: target.clone() };
    tokio::time::timeout(limits::CONNECT_TIMEOUT, connect(target, tls))
        .await
        .unwrap_or(Err(timeout))
}

async fn connect(target: String, tls: Option<ClientTls>) -> Result<OpenConnection, HandshakeError> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let socket = async {
        let url = format!("{scheme}://{target}").parse().map_err(std::io::Error::other)?;
        connect_stream(&url, tls.as_ref(), HttpVersion::Http2).await
    };
    let socket =
        socket.await.map_err(|why| HandshakeError::Unreachable { target: target.clone(), why })?;
    let cork = CorkedSocket::new(socket);
    let (send, connection) = Builder::new()
        .initial_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .initial_max_send_streams(limits::STREAMS_ASSUMED)
        .max_concurrent_reset_streams(1_000)
        .enable_push(false)
        .handshake(cork.clone())
        .await
        .map_err(|why| HandshakeError::NotHttp2 { target, why })?;
    Ok(OpenConnection { send, connection, cork })
}
