//! The server of inventory-api as a library: `main.rs` only starts it, tests use parts of it.
//!
//! Dependencies point one way: [`inventory_core`] depends on no other crate of the workspace;
//! [`inventory_store`], [`inventory_grpc`] and [`telemetry`] depend on the core at most; [`shard`] joins them;
//! [`api`] implements the contracts on a shard; [`server`] wires the process; [`cli`] is on top.
//! `docs/ARCHITECTURE.md` has the picture.

pub mod api;
pub mod build_info;
pub mod cli;
mod config;
pub mod control_plane;
mod currency;
mod demo;
mod exit;
#[cfg(any(test, fuzzing))]
mod fuzzed_messages;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod output;
mod preflight;
mod server;
mod shard;
pub mod telemetry;
mod text;
mod tls;

pub use config::variables::VARIABLES;
