//! The model in virtual time, its server on real sockets, and its responses compared with dynoxide's.
#![allow(clippy::unwrap_used)]

mod capacity;
mod client;
mod comparison;
mod conflicts;
mod faults;
mod fixture;
mod program;
mod server;
mod tokens;
mod validation;
