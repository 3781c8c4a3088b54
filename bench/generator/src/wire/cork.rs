//! A socket that collects writes until it is flushed: one system call per turn instead of one per frame.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use inventory_client::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;

/// Socket for h2. Clones share the socket and its buffer.
#[derive(Clone)]
pub(crate) struct CorkedSocket(Rc<RefCell<SocketBuffer>>);

struct SocketBuffer {
    socket: ClientStream,
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    written: usize,
}

impl CorkedSocket {
    pub(crate) fn new(socket: ClientStream) -> Self {
        Self(Rc::new(RefCell::new(SocketBuffer {
            socket,
            out: Vec::with_capacity(16 * 1024),
            written: 0,
        })))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().out.is_empty()
    }

    /// Writes the collected bytes.
    pub(crate) fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().flush(cx)
    }
}

impl SocketBuffer {
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            let n = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        // TLS may have accepted more bytes than the socket.
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for CorkedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for CorkedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.out.len() >= limits::CORK_MAX {
            ready!(inner.flush(cx))?;
        }
        inner.out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Does nothing: [`CorkedSocket::flush`] writes at the end of a turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.flush(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }
}
