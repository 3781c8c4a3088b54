//! Why a connection ended. Not here: when it ends (`connection_lifecycle`).

use std::io;

use h2::Reason;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The peer closed the connection in order.
    Closed,
    /// The socket failed, most often because the peer is gone.
    Lost(io::ErrorKind),
    /// The peer violated the protocol or flooded the connection; a GOAWAY with the reason was sent.
    Protocol(Reason),
    /// The HTTP/2 preface did not arrive in time.
    HandshakeTimeout,
    /// The peer was silent and did not answer a ping.
    KeepAliveTimeout,
    /// The connection reached its maximum age and closed after its last call.
    Aged,
    /// The connection reached its maximum age, and its calls did not end within the grace period.
    AgeGraceOver,
    /// The server drains; the connection closed after its last call.
    Drained,
    /// The connection was idle, and its place was needed for a new one.
    Evicted,
    /// The grace period of the drain is over, or the shard dropped the connection.
    Aborted,
    /// A defect in this crate; the shard is not affected.
    Panicked,
}

impl ConnectionEnd {
    /// Whether this side sent a GOAWAY that the peer should be able to read before the socket closes.
    pub(super) fn lingers(self) -> bool {
        matches!(self, Self::Aged | Self::Drained | Self::Protocol(_))
    }
}

impl From<&h2::Error> for ConnectionEnd {
    fn from(error: &h2::Error) -> Self {
        if let Some(error) = error.get_io() {
            return Self::Lost(error.kind());
        }
        if error.is_go_away() && error.is_remote() {
            return Self::Closed;
        }
        Self::Protocol(error.reason().unwrap_or(Reason::INTERNAL_ERROR))
    }
}
