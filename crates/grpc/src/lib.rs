//! HTTP/2 and gRPC on a shard: `h2` directly on the shard's sockets, protobuf by prost, handlers
//! without `Send`, dispatched statically from a trait generated out of `proto/`.
//!
//! Why not a stock gRPC server: it is the largest cost of a request that is answered from memory.
//! Measured on one core, server CPU per request at 50 connections × 100 streams: tonic on tokio
//! 15 µs, tonic on hyper on this executor 9.8, `h2` driven directly 9.2, the same corked 5.25. What
//! makes the difference is here on purpose: one write per turn (`cork`), handlers polled where
//! their request is read (`calls`), no timer, no task and no lasting allocation per call, wake-ups
//! within a turn kept within it (`turn`).
//!
//! The rest of the server sees [`serve_connection`], [`HotService`], [`Status`] and what they name;
//! nothing of `h2` but the reason in [`Ended::Protocol`]. Another HTTP/2 engine has only
//! `connection` and `respond` to replace.
//!
//! Must not live here: what a method means (that is `api`), listeners and their placement (that is
//! `shard`), the cold services themselves (they are the side thread's; [`cold`] is the way to them).

mod active_calls;
mod call;
mod call_trace;
mod coalescing_waker;
mod connection;
mod connection_lifecycle;
mod context;
mod contracts;
mod drain;
pub mod limits;
mod message;
mod request_head;
mod response;
mod serve;
mod service;
mod status;
pub mod tonic_bridge;
mod write_coalescing;

pub use call::CallContext;
pub use call_trace::{CallAttributes, CallTrace, SpanIds};
pub use connection::ConnectionEnd;
pub use context::{
    CallObserver, GrpcContext, GrpcSettings, GrpcStats, NoopObserver, UNKNOWN_METHOD,
};
pub use contracts::{Inventory, InventoryServer, InventoryService, InventoryServiceServer};
pub use drain::{Drain, DrainStage};
pub use serve::serve_connection;
pub use service::{CacheableResponse, Either, ResponseMessage, UnaryService, decode};
pub use status::{Code, ERROR_DOMAIN, Status, reason};
