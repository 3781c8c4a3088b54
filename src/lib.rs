//! The server of inventory-api, as a library: `main.rs` only wires it, tests start parts of it.
//!
//! Arrows point one way: [`domain`] imports nothing of the rest; `store`, `wire` and `telemetry`
//! know the domain or nothing; `api` and `shard` join them; `server`, `side` and `cli` are on top.

pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod embedded;
pub mod limits;
pub mod preflight;
pub mod runtime;
pub mod server;
pub mod store;
