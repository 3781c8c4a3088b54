//! TLS for servers and clients of this project: certificates read from PEM files, the names of clients that may connect,
//! and a stream over any socket.
//!
//! | module | content |
//! |---|---|
//! | [`server`] | configuration of a port from files |
//! | [`client`] | configuration of a client from files |
//! | `files` | reads PEM files; errors name the setting, the file and the fix |
//! | [`names`] | names in certificates, and patterns for them |
//! | `verifier` | accepts client certificates of an authority whose names a pattern allows |
//! | `failure` | why a handshake failed, as a label and a text |
//! | `validity` | the period in which a certificate is valid |
//! | [`stream`] | handshake and stream over a non-blocking socket |
//!
//! Not here: sockets, timers, when files are read again (the server), and cryptography (rustls with ring).

pub mod client;
mod failure;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod names;
pub mod server;
pub mod stream;
mod validity;
mod verifier;

use std::sync::Arc;

pub use failure::HandshakeFailure;
pub use files::{FileSetting, TlsFileError};
pub use rustls;

/// Protocols of a gRPC port, in the order of preference.
const ALPN_H2: &[u8] = b"h2";

/// The cryptography of all connections: the provider that the store client compiles anyway.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
