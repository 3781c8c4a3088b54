//! Adapts the shard's byte streams to hyper's I/O traits.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::limits;
use inventory_runtime::TcpStream;

/// A socket that its HTTP driver reads and writes and that the pool can inspect.
#[derive(Clone)]
pub(super) struct SharedSocket(Rc<RefCell<TcpStream>>);

impl SharedSocket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self(Rc::new(RefCell::new(socket)))
    }

    /// Whether unread bytes or the end of the stream have arrived; on an idle connection this means closed.
    pub(super) fn has_input(&self) -> bool {
        inventory_runtime::has_input(&self.0.borrow())
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, into)
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_close(cx)
    }
}

/// Adapts a `futures` stream to hyper. Bytes are copied through a buffer, because hyper offers uninitialised
/// memory and a `futures` stream requires initialised memory: copying the received bytes is cheaper than zeroing
/// the whole buffer.
pub(super) struct HyperIo<S> {
    stream: S,
    arrived: Box<[u8]>,
}

impl<S> HyperIo<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, arrived: vec![0; limits::STORE_READ_BUFFER_BYTES].into_boxed_slice() }
    }
}

impl<S: AsyncRead + Unpin> Read for HyperIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = into.remaining().min(this.arrived.len());
        let buffer = &mut this.arrived[..room];
        let count = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        into.put_slice(&buffer[..count]);
        Poll::Ready(Ok(()))
    }
}

// `is_write_vectored` stays false, so that hyper joins head and body into one buffer and one send.
impl<S: AsyncWrite + Unpin> Write for HyperIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
