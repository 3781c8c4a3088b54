//! A byte stream of the shard as hyper wants to see it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::limits;

/// Lends a `futures` stream to hyper. Bytes pass through a buffer of its own, because hyper offers
/// uninitialised memory and a `futures` stream wants initialised: copying what arrived is cheaper
/// than zeroing what might.
pub(super) struct HyperIo<S> {
    stream: S,
    arrived: Box<[u8]>,
}

impl<S> HyperIo<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            arrived: vec![0; limits::STORE_READ_BUFFER_BYTES].into_boxed_slice(),
        }
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

// `is_write_vectored` stays false: hyper then joins head and body into one buffer and one send.
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
