//! What a reservation means: the rules and the group commit, without any I/O.
//!
//! Everything here is a pure state machine. Time, randomness and the store's answers come in as
//! parameters; what to send and whom to answer goes out as [`effect::Effect`]s. The server drives
//! it against DynamoDB, the simulation in `tests/` drives the very same code against a model.
//!
//! Must not live here: an executor, a clock, a socket, the SDK, a log line, `async`.
//!
//! Reading order: [`ids`] → [`operation`] → [`rules`] (the state table) → [`transaction`] (what one
//! batch writes) → [`lane`] (the group commit) → [`engine`] (all lanes of one shard).

pub mod answer;
pub mod audit;
pub mod backoff;
pub mod counters;
pub mod effect;
pub mod engine;
pub mod fault;
pub mod ids;
pub mod lane;
pub mod limits;
pub mod operation;
pub mod query;
pub mod record_cache;
pub mod rules;
pub mod seat_map;
pub mod seats;
pub mod spread;
mod stock_reads;
mod stock_snapshots;
pub mod time;
pub mod transaction;
