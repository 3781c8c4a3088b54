//! The gRPC layer over real sockets: a scripted service on a shard's executor, called by tonic clients and by the
//! HTTP/2 clients of the test kit.

#![allow(clippy::unwrap_used)]

mod auxiliary;
mod calls;
mod connection_lifecycle;
mod fixture;
mod health;
mod load;
mod resets;
mod specification;
