//! The server of inventory-api, as a library: `main.rs` only wires it, tests start parts of it.
//!
//! Arrows point one way: [`domain`] imports nothing of the rest; [`store`], [`wire`] and [`telemetry`]
//! know the domain or nothing; [`shard`] joins them; [`api`] speaks the contracts on it; [`server`]
//! wires, [`cli`] is on top. `docs/ARCHITECTURE.md` has the picture.

pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod embedded;
pub mod limits;
pub mod preflight;
pub mod runtime;
pub mod server;
pub mod shard;
pub mod side;
pub mod store;
pub mod telemetry;
pub mod wire;
