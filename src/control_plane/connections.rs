//! Accepts connections on the control plane. The number of open connections is bounded, and a new connection takes the
//! place of the idlest one, so that abandoned connections cannot block a probe.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::limits;
use crate::telemetry::log_interval::LogInterval;

/// A listener with a maximum number of open connections.
pub(super) struct LimitedListener {
    listener: TcpListener,
    most: usize,
    open: Arc<OpenConnections>,
    port: &'static str,
    failures: LogInterval,
}

/// The open connections of one listener, by the order of their arrival.
struct OpenConnections {
    by_number: Mutex<BTreeMap<u64, Arc<ConnectionProgress>>>,
    accepted: AtomicU64,
    started: Instant,
}

#[derive(Default)]
struct ConnectionProgress {
    /// When bytes were last read or written, in microseconds since the start of the listener.
    last_progress: AtomicU64,
    is_evicted: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl OpenConnections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ConnectionProgress>>> {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Adds a connection; ends the idlest one if that is one too many.
    fn add(&self, most: usize) -> (u64, Arc<ConnectionProgress>) {
        let mut open = self.lock();
        if open.len() >= most {
            let progress = |one: &ConnectionProgress| one.last_progress.load(Ordering::Relaxed);
            let idlest =
                open.iter().min_by_key(|(_, one)| progress(one)).map(|(number, _)| *number);
            if let Some(idlest) = idlest.and_then(|number| open.remove(&number)) {
                idlest.is_evicted.store(true, Ordering::Release);
                idlest.reader.wake();
                idlest.writer.wake();
            }
        }
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(ConnectionProgress::default());
        state.last_progress.store(self.now(), Ordering::Relaxed);
        open.insert(number, Arc::clone(&state));
        (number, state)
    }
}

impl LimitedListener {
    /// `port` names the listener in log lines.
    pub(super) fn new(listener: TcpListener, most: usize, port: &'static str) -> Self {
        let open = OpenConnections {
            by_number: Mutex::default(),
            accepted: AtomicU64::new(0),
            started: Instant::now(),
        };
        Self { listener, most, open: Arc::new(open), port, failures: LogInterval::default() }
    }

    /// The next connection. Dropping the future loses no connection.
    pub(super) async fn accept(&self) -> LimitedConnection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _peer)) => {
                    // Only a performance setting, so an error is ignored.
                    let _ = stream.set_nodelay(true);
                    let (number, state) = self.open.add(self.most);
                    return LimitedConnection {
                        stream,
                        number,
                        state,
                        open: Arc::clone(&self.open),
                    };
                }
                Err(error) => {
                    if let Some(suppressed) = self.failures.due() {
                        tracing::warn!(port = self.port, error = %error, suppressed, "accept failed");
                    }
                    tokio::time::sleep(limits::ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }
}

/// A connection of a [`LimitedListener`]. Reads and writes fail after the connection is evicted.
pub(super) struct LimitedConnection {
    stream: TcpStream,
    number: u64,
    state: Arc<ConnectionProgress>,
    open: Arc<OpenConnections>,
}

impl LimitedConnection {
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// The result of `polled`, which registered the task with the socket.
    fn checked<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.state.is_evicted.load(Ordering::Acquire) {
            let evicted = "a newer connection took the place of this idle one";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, evicted)));
        }
        if polled.is_ready() {
            self.state.last_progress.store(self.open.now(), Ordering::Relaxed);
        }
        polled
    }
}

impl Drop for LimitedConnection {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.state.reader.register(cx.waker());
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.checked(polled)
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.checked(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.checked(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
