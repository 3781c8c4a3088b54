//! One HTTP/2 connection: made, polled, left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use tokio::net::TcpStream;

use super::cork::Cork;
use crate::limits;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no server answers at {target}: {why}")]
    Unreachable { target: String, why: std::io::Error },
    #[error("{target} does not speak HTTP/2: {why}")]
    NotHttp2 { target: String, why: h2::Error },
    #[error("{target} does not answer within {} s", limits::CONNECT_TIMEOUT.as_secs())]
    Timeout { target: String },
}

type Making = Pin<Box<dyn Future<Output = Result<Ready, ConnectError>>>>;

struct Ready {
    send: SendRequest<Bytes>,
    connection: Connection<Cork, Bytes>,
    cork: Cork,
}

enum State {
    Making(Making),
    Open(Box<Ready>),
    Closed,
}

/// A connection and what the worker knows of it.
pub(crate) struct Conn {
    state: State,
    pub(crate) bell: Waker,
    /// Calls on it.
    pub(crate) in_flight: usize,
    /// No new calls: the server asked to leave, or it broke.
    leaving: bool,
    streams: usize,
}

/// What polling a connection told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// It is open now.
    Opened,
    /// It ended, or was never made. Said once.
    Ended(String),
}

impl Conn {
    /// Starts to connect after `pause`.
    pub(crate) fn new(target: String, bell: Waker, pause: Duration) -> Self {
        // The first poll is ours to cause.
        bell.wake_by_ref();
        Self {
            state: State::Making(Box::pin(make(target, pause))),
            bell,
            in_flight: 0,
            leaving: false,
            streams: limits::STREAMS_ASSUMED,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_)) && !self.leaving
    }

    /// Whether another call finds a stream.
    pub(crate) fn has_room(&self) -> bool {
        self.is_open() && self.in_flight < self.streams
    }

    /// Learns how many streams the server allows.
    pub(crate) fn renew_streams(&mut self) {
        if let State::Open(ready) = &self.state {
            self.streams = ready.send.current_max_send_streams();
        }
    }

    /// Connects, or moves frames between h2 and the cork.
    pub(crate) fn poll(&mut self) -> Told {
        let bell = self.bell.clone();
        let mut cx = Context::from_waker(&bell);
        let mut told = Told::Nothing;
        if let State::Making(making) = &mut self.state {
            match making.as_mut().poll(&mut cx) {
                Poll::Pending => return Told::Nothing,
                Poll::Ready(Ok(ready)) => {
                    self.state = State::Open(Box::new(ready));
                    self.renew_streams();
                    told = Told::Opened;
                }
                Poll::Ready(Err(why)) => {
                    self.state = State::Closed;
                    return Told::Ended(why.to_string());
                }
            }
        }
        let State::Open(ready) = &mut self.state else {
            return Told::Nothing;
        };
        match Pin::new(&mut ready.connection).poll(&mut cx) {
            Poll::Pending => told,
            Poll::Ready(ended) => {
                self.state = State::Closed;
                Told::Ended(match ended {
                    Ok(()) => "the server closed the connection".to_owned(),
                    Err(error) => error.to_string(),
                })
            }
        }
    }

    /// Writes what has gathered. False: some of it waits for the socket, or the socket is gone, which
    /// the next poll tells.
    pub(crate) fn flush(&mut self) -> bool {
        let State::Open(ready) = &self.state else {
            return true;
        };
        if ready.cork.is_empty() {
            return true;
        }
        match ready.cork.flush(&mut Context::from_waker(&self.bell)) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                self.leaving = true;
                self.bell.wake_by_ref();
                false
            }
            Poll::Pending => false,
        }
    }

    /// Puts a call on the connection; `None`: it takes no more, and none in future.
    pub(crate) fn send(&mut self, head: Request<()>, message: Bytes) -> Option<ResponseFuture> {
        let State::Open(ready) = &mut self.state else {
            return None;
        };
        // h2 wants to be asked before each request.
        let ask = ready.send.poll_ready(&mut Context::from_waker(&self.bell));
        if ask.is_pending() {
            return None;
        }
        let sent = ready.send.send_request(head, false);
        let Ok((response, mut stream)) = sent else {
            self.leaving = true;
            return None;
        };
        // An error here shows in the response.
        let _ = stream.send_data(message, true);
        self.in_flight += 1;
        Some(response)
    }
}

async fn make(target: String, pause: Duration) -> Result<Ready, ConnectError> {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let timeout = ConnectError::Timeout {
        target: target.clone(),
    };
    tokio::time::timeout(limits::CONNECT_TIMEOUT, connect(target))
        .await
        .unwrap_or(Err(timeout))
}

async fn connect(target: String) -> Result<Ready, ConnectError> {
    let socket = async {
        let socket = TcpStream::connect(&target).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    let socket = socket.await.map_err(|why| ConnectError::Unreachable {
        target: target.clone(),
        why,
    })?;
    let cork = Cork::new(socket);
    let (send, connection) = Builder::new()
        .initial_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .initial_max_send_streams(limits::STREAMS_ASSUMED)
        .max_concurrent_reset_streams(1_000)
        .enable_push(false)
        .handshake(cork.clone())
        .await
        .map_err(|why| ConnectError::NotHttp2 { target, why })?;
    Ok(Ready {
        send,
        connection,
        cork,
    })
}
