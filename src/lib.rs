//! The server of inventory-api, as a library: `main.rs` only wires it, tests start parts of it.
//!
//! Arrows point one way: [`inventory_core`] imports nothing of the rest; [`inventory_store`], [`inventory_grpc`] and [`telemetry`]
//! know the domain or nothing; [`shard`] joins them; [`api`] speaks the contracts on it; [`server`]
//! wires, [`cli`] is on top. `docs/ARCHITECTURE.md` has the picture.

pub mod api;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod demo;
pub mod limits;
pub mod preflight;
pub mod server;
pub mod shard;
pub mod telemetry;
