//! Load generator for the reservation contracts: open loop, or closed loop as a mode.
//!
//! | module | content |
//! |---|---|
//! | [`scenario`] | scenario files |
//! | [`schedule`], `workload` | when each call is due, and what it asks for |
//! | `wire` | gRPC client on the `h2` crate |
//! | `worker` | one thread that makes its part of the calls |
//! | [`ledger`] | the answers to every reservation, and contradictions between them |
//! | [`store`] | read-back of the store, compared with the ledger |
//! | `stats`, [`report`] | measurements, and their presentation |
//! | `processes` | CPU time and memory of the measured processes |
//!
//! The generator depends on the contracts only, not on the server.

mod admin;
pub mod cli;
pub mod ledger;
pub(crate) mod limits;
pub mod outcome;
pub(crate) mod processes;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub(crate) mod stats;
pub mod store;
pub(crate) mod wire;
pub(crate) mod worker;
mod workload;
