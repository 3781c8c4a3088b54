//! The peer over real sockets, on a real engine and on a store that only refuses.
#![allow(clippy::unwrap_used)]

mod bounds;
mod engine;
mod program;
mod sale;
mod stage;
