//! Accepting connections on the control plane, with a bounded number of open connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::limits;

/// A listener with a maximum number of open connections. Further clients wait in the kernel backlog.
pub(super) struct LimitedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    port: &'static str,
}

impl LimitedListener {
    /// `port` names the listener in log lines.
    pub(super) fn new(listener: TcpListener, slots: usize, port: &'static str) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(slots)), port }
    }

    /// The next connection. Dropping the future loses no connection.
    pub(super) async fn accept(&self) -> LimitedConnection {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return std::future::pending().await;
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, _peer)) => {
                    // Only a performance setting, so an error is ignored.
                    let _ = stream.set_nodelay(true);
                    return LimitedConnection { stream, _slot: slot };
                }
                Err(error) => {
                    tracing::warn!(port = self.port, error = %error, "accept failed");
                    tokio::time::sleep(limits::ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    /// The connections as a stream for tonic.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<LimitedConnection>> {
        futures::stream::unfold(self, async |listener| {
            let connection = listener.accept().await;
            Some((Ok(connection), listener))
        })
    }
}

/// A connection that releases its slot when it is dropped.
pub(super) struct LimitedConnection {
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
}

impl LimitedConnection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl Connected for LimitedConnection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
