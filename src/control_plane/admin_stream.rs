//! Connections of ADMIN_PORT, with or without TLS. Handshakes run beside each other, so that one that does not end keeps
//! no other waiting; they are bounded in time, and in number by the connections of the port.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use inventory_tls::rustls::ServerConfig;
use inventory_tls::stream::{self, TlsStream, Unpaced};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use tonic::transport::server::Connected;

use super::connections::{LimitedConnection, LimitedListener};
use crate::limits;
use crate::telemetry::log_interval::LogInterval;
use crate::tls::{HandshakeCounts, PortTls};

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct AdminPeer {
    pub(super) address: Option<SocketAddr>,
    /// Names in the verified certificate of the client.
    pub(super) names: Option<String>,
}

/// A connection whose handshake is complete.
pub(super) struct AdminStream {
    peer: AdminPeer,
    io: AdminIo,
}

enum AdminIo {
    Plain(LimitedConnection),
    Tls(Box<Compat<TlsStream<Compat<LimitedConnection>>>>),
}

/// What is needed for the handshakes of the port.
struct AdminHandshakes {
    config: watch::Receiver<Arc<ServerConfig>>,
    counts: Arc<HandshakeCounts>,
    failures: Arc<LogInterval>,
}

/// The connections of the port as a stream for tonic.
pub(super) fn connections(
    listener: LimitedListener,
    tls: Option<&PortTls>,
) -> impl Stream<Item = io::Result<AdminStream>> + use<> {
    let tls = tls.map(|tls| AdminHandshakes {
        config: tls.current(),
        counts: tls.handshake_counts(),
        failures: Arc::default(),
    });
    let state = (listener, tls, JoinSet::new());
    futures::stream::unfold(state, async |(listener, tls, mut handshakes)| {
        loop {
            let accepted = tokio::select! {
                connection = listener.accept() => Some(connection),
                Some(ended) = handshakes.join_next() => match ended {
                    Ok(Some(stream)) => return Some((Ok(stream), (listener, tls, handshakes))),
                    // Failed, or panicked, which is logged.
                    Ok(None) | Err(_) => None,
                },
            };
            let Some(connection) = accepted else { continue };
            let Some(tls) = &tls else {
                let peer = AdminPeer { address: connection.peer_address(), names: None };
                let stream = AdminStream { peer, io: AdminIo::Plain(connection) };
                return Some((Ok(stream), (listener, None, handshakes)));
            };
            let config = Arc::clone(&tls.config.borrow());
            let (counts, failures) = (Arc::clone(&tls.counts), Arc::clone(&tls.failures));
            handshakes.spawn(handshake(connection, config, counts, failures));
        }
    })
}

async fn handshake(
    connection: LimitedConnection,
    config: Arc<ServerConfig>,
    counts: Arc<HandshakeCounts>,
    failures: Arc<LogInterval>,
) -> Option<AdminStream> {
    let address = connection.peer_address();
    let work = stream::accept(connection.compat(), config, &Unpaced);
    let (label, text, failed) = match timeout(limits::TLS_HANDSHAKE_TIMEOUT, work).await {
        Ok(Ok(stream)) => {
            counts.count("ok");
            let names = stream.peer_names().map(|names| names.to_string());
            let peer = AdminPeer { address, names };
            return Some(AdminStream { peer, io: AdminIo::Tls(Box::new(stream.compat())) });
        }
        Ok(Err(failed)) => (failed.failure.label(), failed.failure.to_string(), Some(failed)),
        Err(_elapsed) => ("timeout", "the handshake did not complete".to_owned(), None),
    };
    counts.count(label);
    if let Some(suppressed) = failures.due() {
        let peer = address.map(tracing::field::display);
        tracing::warn!(
            port = "admin",
            peer,
            reason = label,
            error = text,
            suppressed,
            "TLS handshake failed"
        );
    }
    if let Some(failed) = failed {
        // So that the client reads the alert.
        let _ = timeout(limits::LINGER_MAX, failed.linger()).await;
    }
    None
}

impl Connected for AdminStream {
    type ConnectInfo = AdminPeer;

    fn connect_info(&self) -> AdminPeer {
        self.peer.clone()
    }
}

impl AsyncRead for AdminStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            AdminIo::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            AdminIo::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            AdminIo::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            AdminIo::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            AdminIo::Plain(io) => Pin::new(io).poll_flush(cx),
            AdminIo::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            AdminIo::Plain(io) => Pin::new(io).poll_shutdown(cx),
            AdminIo::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
