//! The gRPC layer over real sockets: a small service on a shard's executor, tonic clients, and raw HTTP/2 for
//! requests that no client library sends.

#![allow(clippy::unwrap_used)]

mod auxiliary_services;
mod calls;
mod conformance;
mod connection_lifecycle;
mod load;
mod raw;
mod support;
