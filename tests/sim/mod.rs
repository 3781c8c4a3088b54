//! The domain against a model of the store, in virtual time, with seeded faults.
//!
//! | file | what |
//! |---|---|
//! | `model/` | the store: items, conditions, tokens, and the history the audit asks |
//! | `scenario.rs` | what one seed means: shards, stock, faults, crashes, operators |
//! | `clients.rs` | the calls of one run and how a client repeats them |
//! | `world/` | virtual time, the processes and their shards, what is under way between them |
//! | `network.rs` | what happens to a request on its way to the store and back |
//! | `audit.rs`, `audit/` | the promises, checked at every answer and at the end |
//! | `broken.rs` | how a check ends a run |
//! | `trace.rs` | the words of a run's log |
//! | `report.rs` | what a run, or many, went through |
//!
//! Must not live here: a clock, a thread, randomness that is not from the seed.

pub(crate) mod audit;
pub(crate) mod broken;
pub(crate) mod clients;
pub(crate) mod model;
mod model_tests;
pub(crate) mod network;
pub(crate) mod report;
pub(crate) mod scenario;
pub(crate) mod trace;
pub(crate) mod world;
