//! The handshake of a server, and the stream that follows it, over any non-blocking socket.
//!
//! Bounded: at most one batch of encrypted bytes waits for the socket ([`rustls`]'s limit of 64 KiB), and decrypted bytes
//! are read out before more are received. No timer is set here; the caller limits the time of a handshake.

use std::future::{Future, poll_fn};
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use rustls::{ServerConfig, ServerConnection};

use crate::failure::{HandshakeFailure, PlaintextProtocol};
use crate::names::PeerNames;

/// Bytes that are read before it is decided whether the client speaks TLS: the length of HTTP/2's preface.
const FIRST_BYTES: usize = 24;

/// Bytes of a failed connection that are read and discarded, so that its close is no reset, which would discard the alert.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// Schedules the parts of handshakes that cost CPU time.
pub trait HandshakePacer {
    /// Runs `step` when it is this handshake's turn.
    fn run<R>(&self, step: impl FnOnce() -> R) -> impl Future<Output = R>;

    /// Whether the handshake now waits for bytes of its client.
    fn set_waiting(&self, _is_waiting: bool) {}
}

/// Runs each step at once.
pub struct Unpaced;

impl HandshakePacer for Unpaced {
    async fn run<R>(&self, step: impl FnOnce() -> R) -> R {
        step()
    }
}

/// A handshake that did not complete, and its socket, to which the answer has been written.
pub struct FailedHandshake<T> {
    pub failure: HandshakeFailure,
    io: T,
}

impl<T: AsyncRead + AsyncWrite + Unpin> FailedHandshake<T> {
    /// Closes the writing side and reads until the client has closed, or [`DISCARDED_BYTES_MAX`]. The caller limits the time.
    pub async fn linger(mut self) {
        let _ = self.io.close().await;
        let mut discarded = 0;
        let mut scratch = [0; 1024];
        while discarded < DISCARDED_BYTES_MAX {
            match self.io.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => discarded += read,
            }
        }
    }
}

/// Completes the handshake of an accepted socket.
///
/// # Errors
/// Why it failed. The client has got an alert, or an answer in its own protocol if that is HTTP without TLS.
pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
    mut io: T,
    config: Arc<ServerConfig>,
    pacer: &impl HandshakePacer,
) -> Result<TlsStream<T>, FailedHandshake<T>> {
    match handshake(&mut io, config, pacer).await {
        Ok(tls) => Ok(TlsStream { io, tls, is_closing: false }),
        Err(failure) => {
            if let HandshakeFailure::Plaintext(protocol) = failure {
                let _ = io.write_all(plaintext_answer(protocol)).await;
            }
            Err(FailedHandshake { failure, io })
        }
    }
}

async fn handshake<T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    config: Arc<ServerConfig>,
    pacer: &impl HandshakePacer,
) -> Result<ServerConnection, HandshakeFailure> {
    let lost = |error: io::Error| HandshakeFailure::Lost(error.kind());
    let mut first = [0; FIRST_BYTES];
    pacer.set_waiting(true);
    let count = io.read(&mut first).await.map_err(lost)?;
    pacer.set_waiting(false);
    let first = &first[..count];
    if count == 0 {
        return Err(HandshakeFailure::Lost(io::ErrorKind::UnexpectedEof));
    }
    if let Some(protocol) = plaintext_protocol(first) {
        return Err(HandshakeFailure::Plaintext(protocol));
    }
    let mut tls = ServerConnection::new(config).map_err(HandshakeFailure::Tls)?;
    tls.read_tls(&mut &*first).map_err(lost)?;
    loop {
        let processed = pacer.run(|| tls.process_new_packets().map(|_| ())).await;
        if let Err(error) = processed {
            // The alert, if the socket accepts it.
            let _ = poll_fn(|cx| Poll::Ready(write_pending(io, &mut tls, cx).is_ready())).await;
            return Err(HandshakeFailure::Tls(error));
        }
        poll_fn(|cx| write_pending(io, &mut tls, cx)).await.map_err(lost)?;
        if !tls.is_handshaking() {
            return Ok(tls);
        }
        pacer.set_waiting(true);
        let read = poll_fn(|cx| receive(io, &mut tls, cx)).await.map_err(lost)?;
        pacer.set_waiting(false);
        if read == 0 {
            return Err(HandshakeFailure::Lost(io::ErrorKind::UnexpectedEof));
        }
    }
}

/// What a client speaks whose first bytes are no TLS record of a handshake; `None` if they are.
fn plaintext_protocol(first: &[u8]) -> Option<PlaintextProtocol> {
    const HANDSHAKE: u8 = 22;
    const MAJOR_VERSION: u8 = 3;
    let is_tls = match first {
        [HANDSHAKE] => true,
        [HANDSHAKE, version, ..] => *version == MAJOR_VERSION,
        _ => false,
    };
    (!is_tls).then(|| PlaintextProtocol::of(first))
}

impl PlaintextProtocol {
    /// By the first bytes of a client, which are no TLS.
    pub fn of(first: &[u8]) -> Self {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0";
        let common = first.len().min(PREFACE.len());
        if common >= 3 && first[..common] == PREFACE[..common] {
            return Self::Http2;
        }
        // A method of HTTP/1: capital letters and a space.
        let method = first.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        match method >= 3 && first.get(method) == Some(&b' ') {
            true => Self::Http1,
            false => Self::Other,
        }
    }
}

/// What a client without TLS gets, in its own protocol.
fn plaintext_answer(protocol: PlaintextProtocol) -> &'static [u8] {
    match protocol {
        // SETTINGS, then GOAWAY with INADEQUATE_SECURITY and a text.
        PlaintextProtocol::Http2 => {
            b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x1e\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0cthis port requires TLS"
        }
        PlaintextProtocol::Http1 => {
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 52\r\nconnection: close\r\n\r\nthis port serves gRPC: it requires TLS and HTTP/2.\r\n"
        }
        PlaintextProtocol::Other => b"",
    }
}

/// A TLS connection whose handshake is complete.
pub struct TlsStream<T> {
    io: T,
    tls: ServerConnection,
    /// The alert close_notify is written.
    is_closing: bool,
}

impl<T> TlsStream<T> {
    /// The names in the certificate of the client; none without one.
    pub fn peer_names(&self) -> Option<PeerNames> {
        let certificate = self.tls.peer_certificates()?.first()?;
        Some(PeerNames::of(certificate))
    }

    pub fn get_ref(&self) -> (&T, &ServerConnection) {
        (&self.io, &self.tls)
    }
}

/// A socket as rustls reads and writes it: not ready is an error.
struct NonBlocking<'a, 'c, T> {
    io: &'a mut T,
    cx: &'a mut Context<'c>,
}

fn or_would_block<R>(polled: Poll<io::Result<R>>) -> io::Result<R> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<T: AsyncRead + Unpin> io::Read for NonBlocking<'_, '_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_read(self.cx, buffer))
    }
}

impl<T: AsyncWrite + Unpin> io::Write for NonBlocking<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.io).poll_write_vectored(self.cx, buffers))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads encrypted bytes once; 0 at the end of the stream.
fn receive<T: AsyncRead + Unpin>(
    io: &mut T,
    tls: &mut ServerConnection,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        return match tls.read_tls(&mut NonBlocking { io, cx }) {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Poll::Ready(Err(error)),
        };
    }
}

/// Writes all encrypted bytes that wait.
fn write_pending<T: AsyncWrite + Unpin>(
    io: &mut T,
    tls: &mut ServerConnection,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while tls.wants_write() {
        match tls.write_tls(&mut NonBlocking { io, cx }) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, tls, .. } = self.get_mut();
        loop {
            match tls.reader().read(buffer) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer closed the socket without close_notify. The length of messages is part of HTTP/2, so that a
                // truncated one is an error there.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(0));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            match receive(io, tls, cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let processed = tls.process_new_packets();
            // An answer to a key update, or an alert. What the socket does not accept now is written with the next bytes.
            if let Poll::Ready(Err(error)) = write_pending(io, tls, cx)
                && processed.is_ok()
            {
                return Poll::Ready(Err(error));
            }
            if let Err(error) = processed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<T> {
    /// Encrypts and writes. Bytes that are accepted may wait for the socket until the next call, or for
    /// [`AsyncWrite::poll_flush`].
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, tls, .. } = self.get_mut();
        // Not more than one batch waits.
        match write_pending(io, tls, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let taken = tls.writer().write(bytes)?;
        match write_pending(io, tls, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, tls, .. } = self.get_mut();
        match write_pending(io, tls, cx) {
            Poll::Ready(Ok(())) => Pin::new(io).poll_flush(cx),
            other => other,
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, tls, is_closing } = self.get_mut();
        if !std::mem::replace(is_closing, true) {
            tls.send_close_notify();
        }
        match write_pending(io, tls, cx) {
            Poll::Ready(Ok(())) => Pin::new(io).poll_close(cx),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
