//! Why a handshake failed: a label for metrics and a text for the log.

use std::fmt;
use std::io;

use rustls::{CertificateError, Error};

/// Why a handshake did not complete.
#[derive(Debug)]
pub enum HandshakeFailure {
    /// The first bytes are no TLS: HTTP/2 without TLS, HTTP/1, or something else.
    Plaintext(PlaintextProtocol),
    /// rustls refused a message of the peer; an alert was sent.
    Tls(Error),
    /// The peer closed the connection, or the socket failed.
    Lost(io::ErrorKind),
}

/// What a client without TLS speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaintextProtocol {
    Http2,
    Http1,
    Other,
}

impl HandshakeFailure {
    /// One of a fixed set of labels.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Plaintext(_) => "plaintext",
            Self::Lost(_) => "disconnected",
            Self::Tls(error) => match error {
                Error::NoCertificatesPresented => "no_certificate",
                Error::InvalidCertificate(error) => certificate_label(error),
                Error::NoApplicationProtocol => "no_http2",
                Error::AlertReceived(_) => "refused_by_client",
                Error::PeerIncompatible(_) => "incompatible",
                _ => "protocol_error",
            },
        }
    }

    /// Whether a certificate of the client was refused or is missing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Tls(Error::NoCertificatesPresented | Error::InvalidCertificate(_)))
    }
}

fn certificate_label(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate_expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate_not_yet_valid"
        }
        // An authority of the same name with another key leads to a wrong signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
        CertificateError::ApplicationVerificationFailure => "name_not_allowed",
        _ => "certificate_invalid",
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext(PlaintextProtocol::Http2) => {
                f.write_str("the client speaks HTTP/2 without TLS, and this port requires TLS")
            }
            Self::Plaintext(PlaintextProtocol::Http1) => f.write_str(
                "the client speaks HTTP/1 without TLS, and this port requires TLS and HTTP/2",
            ),
            Self::Plaintext(PlaintextProtocol::Other) => {
                f.write_str("the client does not speak TLS, which this port requires")
            }
            Self::Lost(io::ErrorKind::UnexpectedEof) => {
                f.write_str("the client closed the connection during the handshake")
            }
            Self::Lost(kind) => write!(f, "the connection failed during the handshake: {kind}"),
            Self::Tls(Error::NoCertificatesPresented) => {
                f.write_str("the client presented no certificate")
            }
            Self::Tls(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )) => f.write_str("no name in the certificate of the client is allowed"),
            Self::Tls(Error::AlertReceived(alert)) => {
                write!(f, "the client refused the certificate or the parameters: {alert:?}")
            }
            Self::Tls(Error::NoApplicationProtocol) => {
                f.write_str("the client offers other protocols than HTTP/2 (ALPN)")
            }
            Self::Tls(error) => write!(f, "{error}"),
        }
    }
}
