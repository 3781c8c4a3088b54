//! Reservation rules, group commit and seat map, without any I/O.
//!
//! Everything here is a deterministic state machine. Time, random numbers and answers of the store are inputs; requests
//! to the store and answers to callers are outputs, as [`effect::Effect`]s. The server drives this code against
//! DynamoDB, and the simulation under `tests/` drives the same code against a model.
//!
//! Not here: executors, clocks, sockets, the SDK, logging, `async`.
//!
//! Reading order: [`ids`] → [`operation`] → [`rules`] (the state table) → [`transaction`] (what one batch writes) →
//! [`lane`] (the group commit) → [`engine`] (all lanes of one shard). Separate from the engine: [`expiry_search`]
//! decides which overdue holds are read, [`membership`] which processes sell; [`stripe_ownership`] divides stripes
//! among them.

pub mod answer;
pub mod audit;
pub(crate) mod backoff;
pub mod counters;
pub mod effect;
pub mod engine;
pub mod expiry_search;
pub mod fault;
pub mod ids;
pub mod lane;
pub mod limits;
pub mod membership;
pub mod operation;
mod prices;
pub mod query;
pub(crate) mod record_cache;
mod rendezvous;
pub mod rules;
mod seat_map;
pub use seat_map::natural_order;
pub mod seats;
pub mod spread;
mod stock_reads;
mod stock_snapshots;
pub mod stripe_ownership;
pub mod time;
pub mod transaction;
