//! A store that answers like DynamoDB under load, so that a server can be measured on one machine:
//! real requests and real expressions, with the latencies, partition limits, conflicts, throttling,
//! token memory and faults of a store that is far away and shared. What it does not know it refuses by
//! name.
//!
//! [`model`] is the core without sockets or clocks; [`ModelServer`] puts it on a port.

mod attribute;
mod capacity;
mod error;
mod expr;
mod faults;
mod http;
mod json;
mod key;
mod latency;
pub mod limits;
pub mod model;
mod number;
mod op;
mod packed;
mod request;
pub mod server;
mod store;
mod table;
mod timer;
mod tokens;

pub use capacity::Units;
pub use faults::{Fault, FaultKind};
pub use latency::{Profile, Shape};
pub use model::{Model, Reply, Settings, Ticket};
pub use server::{ModelServer, RequestAction, StoreRequest};

/// Time since the model began, in microseconds.
pub type Micros = u64;
