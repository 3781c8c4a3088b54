//! Test support for the crates and the server of this repository; only ever a dev-dependency.
//!
//! | module | content |
//! |---|---|
//! | [`certificates`] | certificate authorities and certificates for tests of TLS |
//! | [`corpus`] | replay of the inputs of a fuzz target |
//! | [`documents`] | generated blocks of documents |
//! | [`server`] | server processes: start, wait for the banner, read the log, stop |
//! | [`restriction`] | processes without io_uring, with little lockable memory or few descriptors |
//! | [`small_disk`] | a small file system that a test can fill |
//! | [`store_proxy`] | a proxy before a store: lost answers, TLS, a store that is away or has another clock |
//! | [`terminal`] | pseudo terminals |
//! | [`http2`] | HTTP/2 clients for requests and frames that a gRPC library would not send |
//!
//! Functions panic where a test must fail. Code that only one test target needs belongs to that target.

#![allow(clippy::unwrap_used)]

pub mod certificates;
pub mod corpus;
pub mod documents;
pub mod http2;
pub mod restriction;
pub mod server;
pub mod small_disk;
pub mod store_proxy;
pub mod terminal;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Time limit of a single wait. Far above what any step takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for `work`.
///
/// # Panics
/// If `work` takes longer than [`DEADLINE`].
pub async fn within_deadline<T>(work: impl Future<Output = T>) -> T {
    let finished = tokio::time::timeout(DEADLINE, work).await;
    finished.expect("no result within the deadline")
}

/// An address that refuses connections. The port stays bound, without a listener, until the process ends, so
/// that no other process gets it.
pub fn refusing_address() -> SocketAddr {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
