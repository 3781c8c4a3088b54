//! The store client against a real engine over real sockets: the embedded engine, or the one at `DYNAMODB_ENDPOINT`
//! (`http://host:port`). Each test creates tables of its own; at an external engine they are left behind.

#![allow(clippy::unwrap_used)]

mod admin;
mod credentials;
mod direct_client;
mod expiry;
mod fixture;
mod members;
mod moves;
mod network;
mod read_batcher;
mod records;
mod seats;
mod tables;
mod transactions;
mod transitions;
