//! A model of DynamoDB under load, so that a server can be measured and tested on one machine: real requests and
//! expressions, with the latencies, partition limits, conflicts, throttling, idempotency tokens and faults of a
//! remote, shared store. Unsupported features are rejected by name.
//!
//! [`model`] is the core without sockets or clocks; [`ModelServer`] puts it on a port.

mod attribute;
mod capacity;
mod catalog;
mod control;
mod error;
mod expr;
mod faults;
mod http;
mod key;
mod latency;
pub mod limits;
pub mod model;
mod number;
mod operation;
mod packed;
mod request;
pub mod server;
mod table;
mod timer;
mod tokens;

pub use capacity::CapacityUnits;
pub use control::{RequestAction, StoreRequest};
pub use faults::{FaultKind, FaultRule};
pub use latency::LatencyProfile;
pub use model::{ModelReply, ModelSettings, StoreModel, Ticket};
pub use server::ModelServer;

/// Time since the model's start, in microseconds.
pub type ModelTime = u64;
