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
    /// The peer speaks another protocol than HTTP/2.
    WrongProtocol(PeerProtocol),
    /// The handshake below HTTP/2 (TLS) did not complete.
    SecurityHandshakeFailed,
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

/// What a peer speaks whose first bytes are not the preface of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerProtocol {
    Tls,
    Http1,
    Other,
}

impl PeerProtocol {
    /// By the first bytes of the peer.
    pub(super) fn of(first: &[u8]) -> Self {
        // A TLS record of a handshake; a method of HTTP/1, a space and a target.
        if let [22, 3, ..] = first {
            return Self::Tls;
        }
        let method = first.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        let (method, rest) = first.split_at(method);
        // What follows is a path, `*`, a URL, or the authority of CONNECT.
        let is_target = match rest {
            [] | [b' '] | [b' ', b'/' | b'*' | b'h', ..] => true,
            [b' ', ..] => method == b"CONNECT",
            _ => false,
        };
        match method.len() >= 3 && is_target {
            true => Self::Http1,
            false => Self::Other,
        }
    }

    /// What such a peer gets from a port without TLS. Libraries for TLS report "first record does not look like a TLS handshake" or
    /// "wrong version number" for a text, which names the cause; none of the alerts does.
    pub(super) fn answer(self) -> Option<&'static [u8]> {
        match self {
            Self::Tls => Some(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 43\r\nconnection: close\r\n\r\nthis port has no TLS: connect without TLS.\n",
            ),
            Self::Http1 => Some(
                b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\ncontent-length: 83\r\nconnection: close\r\n\r\nthis port serves gRPC, which requires HTTP/2. METRICS_PORT has probes and metrics.\n",
            ),
            Self::Other => None,
        }
    }
}

impl ConnectionEnd {
    /// Whether this side sent a GOAWAY that the peer should be able to read before the socket closes.
    pub(super) fn lingers(self) -> bool {
        matches!(self, Self::Aged | Self::Drained | Self::Protocol(_) | Self::WrongProtocol(_))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_length_that_they_name() {
        for protocol in [PeerProtocol::Tls, PeerProtocol::Http1] {
            let answer = protocol.answer().map(String::from_utf8_lossy).unwrap_or_default();
            let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_default();
            let length = format!("\r\ncontent-length: {}\r\n", text.len());
            assert!(!text.is_empty() && head.contains(&length), "{} bytes: {answer}", text.len());
        }
        assert_eq!(PeerProtocol::Other.answer(), None);
    }

    #[test]
    fn protocol_is_recognised_by_its_first_bytes() {
        for (first, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], PeerProtocol::Tls),
            (b"GET / HT", PeerProtocol::Http1),
            (b"OPTIONS ", PeerProtocol::Http1),
            (b"PROPFIND", PeerProtocol::Http1),
            (b"CONNECT a.te", PeerProtocol::Http1),
            (b"GET http://a", PeerProtocol::Http1),
            (b"SSH-2.0-", PeerProtocol::Other),
            // A preface that is wrong, as h2spec sends it.
            (b"INVALID CONN", PeerProtocol::Other),
            (b"\x00\x01\x02", PeerProtocol::Other),
            (b"", PeerProtocol::Other),
        ] {
            assert_eq!(PeerProtocol::of(first), expected, "{first:?}");
        }
    }
}
