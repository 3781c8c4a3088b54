//! Accepting on the side thread: never more connections than there are slots.

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

/// The accepting side of a port. A peer beyond the last slot waits in the kernel's backlog.
pub(super) struct Acceptor {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    port: &'static str,
}

impl Acceptor {
    /// `port` names the listener in log lines.
    pub(super) fn new(listener: TcpListener, slots: usize, port: &'static str) -> Self {
        Self {
            listener,
            slots: Arc::new(Semaphore::new(slots)),
            port,
        }
    }

    /// The next connection. Dropping the future loses none.
    pub(super) async fn accept(&self) -> Connection {
        // The semaphore is never closed; if it were, waiting for ever is what accepting nothing means.
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return std::future::pending().await;
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, _peer)) => {
                    // Answers are small and complete; a socket that refuses this is slower, not wrong.
                    let _ = stream.set_nodelay(true);
                    return Connection {
                        stream,
                        _slot: slot,
                    };
                }
                Err(error) => {
                    tracing::warn!(port = self.port, error = %error, "accept failed");
                    tokio::time::sleep(limits::ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    /// The connections one after the other, as tonic wants them.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold(self, async |acceptor| {
            let connection = acceptor.accept().await;
            Some((Ok(connection), acceptor))
        })
    }
}

/// A connection that gives its slot back when it is dropped.
pub(super) struct Connection {
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
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

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
