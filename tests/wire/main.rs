//! The wire against real sockets: a small service on a shard's executor, stock tonic clients, and
//! raw HTTP/2 for what no stock client would send.

#![allow(clippy::unwrap_used)]

mod book;
mod calls;
mod cold;
mod life;
mod load;
mod raw;
mod support;
