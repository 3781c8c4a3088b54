//! The load generator: open loop, cheap, and honest about itself.
//!
//! | module | what |
//! |---|---|
//! | [`scenario`] | what is played: TOML files, checked by name |
//! | [`schedule`], [`zipf`], `script` | when each call is due, and what it is |
//! | `wire` | gRPC on the `h2` crate: corked sockets, calls in a slab |
//! | `worker` | one thread that plays its part of the schedule |
//! | [`ledger`] | what every reservation was told, 32 bytes each |
//! | [`store`] | reads the store back and judges the ledger by it |
//! | [`tally`], [`report`] | what was measured, and how it is shown |
//! | [`watch`] | CPU and memory of the processes that are measured |
//!
//! It knows the contracts and nothing of the server: it drives whatever speaks them.

pub mod admin;
pub mod cli;
pub mod ledger;
pub mod limits;
pub mod outcome;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
mod script;
pub mod store;
pub mod tally;
pub mod watch;
pub mod wire;
pub mod worker;
pub mod zipf;
